//! What a check finds, on a store in memory.

mod deep;

use std::sync::Arc;

use bytes::Bytes;
use desfmt::legacy::{LegacyCodec, LegacyWriter, StoredPayload};
use desfmt::{BucketBits, ObjectKey, Timestamp, layout};

use super::{Checked, Finding, Verdict};
use crate::archive::{Archive, Deletion, ReadOptions};
use crate::clock::{Clock, ManualClock, SeededRandom};
use crate::fixture::{Fixture, day, uid};
use crate::memory::MemoryStore;
use crate::store::{Depth, ObjectStore, Payload, list_all};

async fn check(archive: &Archive, newest: Option<usize>) -> (Checked, Vec<Finding>) {
    let mut found = Vec::new();
    let checked = archive.check(newest, &mut |finding| found.push(finding.clone())).await;
    (checked, found)
}

/// The only finding, which says that something is wrong: its object and problem.
fn only(found: &[Finding]) -> (&str, &str) {
    let [Finding { object, problem, verdict: Verdict::Wrong, .. }] = found else { panic!("{found:?}") };
    (object, problem)
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

async fn put(store: &dyn ObjectStore, at: &str, bytes: impl Into<Bytes>) {
    store.put(&key(at), Payload::Bytes(bytes.into())).await.unwrap();
}

async fn shard_of(fixture: &Fixture) -> ObjectKey {
    let listed = list_all(&fixture.store.inner, layout::SHARDS, Depth::Recursive, 9).await.unwrap();
    listed.first().unwrap().key.clone()
}

#[tokio::test]
async fn a_sound_archive_has_no_findings() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    fixture.pack(&[("c", b"3")]).await;
    let reader = fixture.reader().await;
    reader.delete(day(), &uid("a"), &Deletion::default()).await.unwrap();

    let (checked, found) = check(&reader, None).await;

    assert_eq!(found, []);
    let stored_bytes = checked.stored_bytes;
    assert!(stored_bytes > 0);
    assert_eq!(checked, Checked { days: 1, shards: 2, files: 3, stored_bytes, ..Checked::default() });
}

#[tokio::test]
async fn a_missing_shard_is_named() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    let shard = shard_of(&fixture).await;
    fixture.store.inner.delete(&shard).await.unwrap();

    let (checked, found) = check(&*fixture.reader().await, None).await;

    assert_eq!(only(&found), (shard.as_str(), "it is missing, with 2 files; restore it"));
    assert_eq!((checked.wrong, checked.unchecked), (1, 0));
}

#[tokio::test]
async fn a_shard_of_another_length_is_named() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let shard = shard_of(&fixture).await;
    put(&fixture.store.inner, shard.as_str(), "cut").await;

    let (_, found) = check(&*fixture.reader().await, None).await;

    let (object, problem) = only(&found);
    assert!(object == shard.as_str() && problem.starts_with("it has 3 bytes, its manifest says"), "{problem}");
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_is_named_and_the_other_days_are_checked() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let manifest = fixture.store.inner.get(&layout::manifest(day()), 1 << 20).await.unwrap().bytes;
    put(&fixture.store.inner, "manifests/20240116.json", manifest).await;
    put(&fixture.store.inner, "manifests/20240117.json", "{").await;

    let (checked, found) = check(&*fixture.reader().await, None).await;

    let named: Vec<_> = found.iter().map(|finding| (finding.object.as_str(), finding.problem.as_str())).collect();
    assert_eq!(named[0], ("manifests/20240116.json", "it is the manifest of 20240115"));
    assert_eq!(named[1].0, "manifests/20240117.json");
    assert_eq!((checked.days, checked.shards, checked.wrong), (3, 1, 2));
}

#[tokio::test]
async fn shards_without_their_manifest_are_a_lost_day() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    fixture.store.inner.delete(&layout::manifest(day())).await.unwrap();

    let (_, found) = check(&*fixture.reader().await, None).await;

    assert_eq!(only(&found), ("manifests/20240115.json", "it is missing, though 1 shards are there; restore it"));
}

#[tokio::test]
async fn what_a_dead_run_left_is_counted_and_not_wrong() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    put(&fixture.store.inner, "shards/20240115/20240115_0_0007.des", "left").await;

    let (checked, found) = check(&*fixture.reader().await, None).await;

    assert_eq!((found, checked.unlisted), (Vec::new(), 1));
}

#[tokio::test]
async fn what_is_no_tombstone_among_tombstones_is_named() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    put(&fixture.store.inner, "tombstones/20240115/0.json", "{").await;

    let (_, found) = check(&*fixture.reader().await, None).await;

    assert_eq!(only(&found).0, "tombstones/20240115/0.json");
}

#[tokio::test]
async fn the_newest_days_can_be_checked_alone() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    put(&fixture.store.inner, "manifests/20240114.json", "{").await;

    let (checked, found) = check(&*fixture.reader().await, Some(1)).await;

    assert_eq!((found, checked.days, checked.days_left_out), (Vec::new(), 1, 1));
}

/// An archive of the ancestor with one shard, and a reader of it that believes in so many bits.
async fn legacy(uids: &[&str], bits: u8) -> (Arc<MemoryStore>, Arc<Archive>) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
    let store = Arc::new(MemoryStore::new(Arc::clone(&clock)));
    let mut writer = LegacyWriter::new();
    let mut bytes = LegacyWriter::HEADER.to_vec();
    for uid in uids {
        let payload = StoredPayload { codec: LegacyCodec::Stored, stored_len: 1, plain_len: 1 };
        writer.push_inline(&self::uid(uid), payload, None).unwrap();
        bytes.push(b'x');
    }
    bytes.extend(writer.finish());
    put(&*store, "20240115_3F_0000.des", bytes).await;
    let shared: Arc<dyn ObjectStore> = Arc::<MemoryStore>::clone(&store);
    let random = Arc::new(SeededRandom::new(1));
    let bits = BucketBits::new(bits).unwrap();
    (store, Archive::open_legacy(shared, bits, ReadOptions::default(), clock, random))
}

#[tokio::test]
async fn a_sound_archive_of_the_ancestor_has_no_findings() {
    let (_, archive) = legacy(&["63", "319"], 8).await;

    let (checked, found) = check(&archive, None).await;

    assert_eq!((found, checked.days, checked.shards, checked.files), (Vec::new(), 1, 1, 2));
}

#[tokio::test]
async fn wrong_bits_are_told_by_the_names_or_by_the_uids() {
    let (_, by_name) = legacy(&["63"], 4).await;
    let (_, by_uid) = legacy(&["63", "319"], 7).await;
    let (_, by_uid_too) = legacy(&["63", "191"], 8).await;

    let (_, found) = check(&by_name, None).await;
    assert!(only(&found).1.contains("do not fit n_bits=4"), "{found:?}");
    let (_, found) = check(&by_uid, None).await;
    assert_eq!(found, [], "both are in this bucket, whether there are 7 or 8");
    let (_, found) = check(&by_uid_too, None).await;
    assert!(only(&found).1.starts_with("1 of its 2 uids, such as \"191\", are not found here"), "{found:?}");
}

#[tokio::test]
async fn a_sidecar_or_index_that_cannot_be_read_is_named() {
    let (store, archive) = legacy(&["63"], 8).await;
    put(&*store, "20240115_3F_0000.meta", "{").await;
    put(&*store, "20240116_00_0000.des", "nothing like a shard").await;

    let (checked, found) = check(&archive, None).await;

    let named: Vec<_> = found.iter().map(|finding| finding.object.as_str()).collect();
    assert_eq!(named, ["20240115_3F_0000.meta", "20240116_00_0000.des"]);
    assert_eq!((checked.days, checked.wrong), (2, 2));
}

#[tokio::test]
async fn a_directory_without_any_shard_of_the_ancestor_is_not_sound() {
    let (store, archive) = legacy(&["63"], 8).await;
    store.delete(&key("20240115_3F_0000.des")).await.unwrap();
    put(&*store, "something.des", "else").await;

    let (_, found) = check(&archive, None).await;

    assert!(only(&found).1.starts_with("nothing here is named"), "{found:?}");
}
