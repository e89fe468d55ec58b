//! Manifests made anew: the same files are visible as by the lost one, or it is refused.

use std::collections::BTreeMap;

use desfmt::document::{self, DOCUMENT_LEN_MAX, Manifest, ManifestShard};
use desfmt::{ObjectKey, layout};

use super::RebuildOptions;
use crate::archive::Deletion;
use crate::fixture::{Fixture, day, uid};
use crate::store::{Depth, ObjectStore, Payload, list_all};

async fn visible(fixture: &Fixture) -> BTreeMap<String, Vec<u8>> {
    let reader = fixture.reader().await;
    let mut files = BTreeMap::new();
    for file in reader.list(day(), None, 9_999).await.unwrap() {
        let bytes = reader.read(day(), file.birth, 0, 1 << 20).await.unwrap();
        files.insert(file.uid.to_string(), bytes.to_vec());
    }
    files
}

async fn manifest(fixture: &Fixture) -> Manifest {
    let fetched = fixture.store.inner.get(&layout::manifest(day()), DOCUMENT_LEN_MAX).await.unwrap();
    document::decode(&fetched.bytes).unwrap()
}

async fn lose(fixture: &Fixture) {
    fixture.store.inner.delete(&layout::manifest(day())).await.unwrap();
}

async fn put(fixture: &Fixture, key: &ObjectKey, bytes: impl Into<bytes::Bytes>) {
    fixture.store.inner.put(key, Payload::Bytes(bytes.into())).await.unwrap();
}

#[tokio::test]
async fn a_lost_manifest_is_made_anew_with_the_same_visible_files() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    fixture.pack(&[("c", b"3")]).await;
    fixture.reader().await.delete(day(), &uid("b"), &Deletion::default()).await.unwrap();
    let (before, lost) = (visible(&fixture).await, manifest(&fixture).await);
    lose(&fixture).await;
    let dry = RebuildOptions { dry_run: true, ..RebuildOptions::default() };
    let writer = fixture.writer(3).await;
    assert_eq!(writer.rebuild_manifest(day(), dry).await.unwrap().live.len(), 2);
    assert!(fixture.store.inner.head(&layout::manifest(day())).await.is_err(), "a dry run writes nothing");

    let rebuilt = writer.rebuild_manifest(day(), RebuildOptions::default()).await.unwrap();

    assert_eq!((rebuilt.live.len(), rebuilt.files), (2, 3));
    assert_eq!(visible(&fixture).await, before);
    let made = manifest(&fixture).await;
    assert!(made.generation > lost.generation);
    for (shard, was) in made.shards.iter().zip(&lost.shards) {
        assert_eq!(ManifestShard { serials: was.serials.clone(), ..shard.clone() }, *was);
        assert!(!lost.shards.iter().any(|one| one.serials == shard.serials), "no number is used for another file");
    }
    fixture.pack(&[("d", b"4")]).await;
    assert_eq!(visible(&fixture).await.len(), 3, "and packing goes on");
    let again = writer.rebuild_manifest(day(), RebuildOptions::default()).await.unwrap_err();
    assert!(again.to_string().contains("nothing to make anew"), "{again}");
}

#[tokio::test]
async fn a_copy_under_another_name_stays_out() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    let first = manifest(&fixture).await.shards[0].key.clone();
    let copy = ObjectKey::new(&first.as_str().replace("_0000.des", "_0003.des")).unwrap();
    let writer = fixture.writer(9).await;
    lose(&fixture).await;
    let bytes = fixture.store.inner.get(&first, 1 << 30).await.unwrap().bytes;
    put(&fixture, &copy, bytes).await;
    let refused = writer.rebuild_manifest(day(), RebuildOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("is damaged"), "a copy under another name is no shard: {refused}");
    let rebuilt = writer.rebuild_manifest(day(), RebuildOptions { without_damaged: true, ..RebuildOptions::default() });
    let rebuilt = rebuilt.await.unwrap();
    assert_eq!((rebuilt.live, rebuilt.damaged.len()), (vec![first], 1));
    assert_eq!(visible(&fixture).await.len(), 2);
}

#[tokio::test]
async fn damage_refuses_unless_it_is_to_be_left_out() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    fixture.pack(&[("b", b"2")]).await;
    let key = manifest(&fixture).await.shards[1].key.clone();
    lose(&fixture).await;
    let mut bytes = fixture.store.inner.get(&key, 1 << 30).await.unwrap().bytes.to_vec();
    bytes[45] ^= 1;
    put(&fixture, &key, bytes).await;
    let writer = fixture.writer(3).await;

    let refused = writer.rebuild_manifest(day(), RebuildOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("may hold files that nothing else holds"), "{refused}");
    assert!(fixture.store.inner.head(&layout::manifest(day())).await.is_err());

    let left_out = RebuildOptions { without_damaged: true, ..RebuildOptions::default() };
    let rebuilt = writer.rebuild_manifest(day(), left_out).await.unwrap();
    assert_eq!((rebuilt.live.len(), rebuilt.damaged.len()), (1, 1));
    assert_eq!(visible(&fixture).await.into_keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn what_was_deleted_whole_stays_deleted() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    fixture.writer.expire(day(), &Deletion::default()).await.unwrap();
    fixture.pack(&[("b", b"2")]).await;
    lose(&fixture).await;

    let rebuilt = fixture.writer(3).await.rebuild_manifest(day(), RebuildOptions::default()).await.unwrap();

    assert_eq!((rebuilt.live.len(), rebuilt.condemned.len()), (1, 1));
    assert_eq!(visible(&fixture).await.into_keys().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_day_that_never_was_is_not_made() {
    let fixture = Fixture::new().await;
    let writer = fixture.writer(3).await;
    let refused = writer.rebuild_manifest(day(), RebuildOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("never was"), "{refused}");
    let left = list_all(&fixture.store.inner, layout::MANIFESTS, Depth::Recursive, 9).await.unwrap();
    assert!(left.is_empty());
}
