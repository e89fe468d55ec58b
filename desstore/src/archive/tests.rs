//! What a reader may rely on, on a store in memory.

use std::time::Duration;

use desfmt::document::{self, DOCUMENT_LEN_MAX, FoldedBatch, FoldedTombstones, Manifest, Tombstone, TombstoneBatch};
use desfmt::{Birth, ObjectKey, UidHasher, Uuid, layout};
use futures_util::FutureExt;

use crate::archive::{ArchiveError, Deleted, Deletion};
use crate::fixture::{Fixture, day, uid};
use crate::publish::Outcome;
use crate::store::{Depth, ObjectStore, Payload, list_all};

fn names(entries: &[crate::FileEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.uid.as_str()).collect()
}

fn count(calls: &[String], call: &str) -> usize {
    calls.iter().filter(|one| one.starts_with(call)).count()
}

#[tokio::test]
async fn a_published_file_can_be_found_listed_and_read() {
    let fixture = Fixture::new().await;
    let big = vec![7; 3 << 20];
    fixture.pack(&[("b", b"second"), ("a", b"first"), ("empty", b""), ("z", &big)]).await;
    let reader = fixture.reader().await;

    assert_eq!(reader.days().await.unwrap().to_vec(), [day()]);
    assert_eq!(names(&reader.list(day(), None, 100).await.unwrap()), ["a", "b", "empty", "z"]);
    for (name, content) in [("a", b"first".as_slice()), ("b", b"second"), ("empty", b""), ("z", &big)] {
        let entry = reader.lookup(day(), &uid(name)).await.unwrap().unwrap();
        assert_eq!(entry.len, u64::try_from(content.len()).unwrap());
        assert_eq!(reader.read(day(), entry.birth, 0, 1 << 30).await.unwrap(), content, "{name}");
        assert_eq!(reader.file(day(), entry.birth).await.unwrap(), Some(entry.clone()));
        let details = reader.details(day(), entry.birth).await.unwrap().unwrap();
        assert_eq!(details.digest, Some(blake3::hash(content)));
    }
    let z = reader.lookup(day(), &uid("z")).await.unwrap().unwrap();
    assert_eq!(reader.read(day(), z.birth, (1 << 20) - 3, 7).await.unwrap().as_ref(), &[7; 7]);
    assert_eq!(reader.read(day(), z.birth, 3 << 20, 7).await.unwrap().len(), 0);
    assert_eq!(reader.lookup(day(), &uid("c")).await.unwrap(), None);
    assert_eq!(reader.lookup("20240116".parse().unwrap(), &uid("a")).await.unwrap(), None);
}

#[tokio::test]
async fn a_listing_goes_on_after_any_entry() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("c", b"3"), ("a", b"1")]).await;
    fixture.pack(&[("d", b"4"), ("b", b"2")]).await;
    let reader = fixture.reader().await;
    let all = reader.list(day(), None, 100).await.unwrap();

    assert_eq!(names(&all), ["a", "c", "b", "d"]);
    for (at, entry) in all.iter().enumerate() {
        assert_eq!(reader.list(day(), Some(entry.birth), 100).await.unwrap(), all[at + 1..]);
        assert_eq!(
            reader.list(day(), Some(entry.birth), 1).await.unwrap(),
            all[at + 1..].iter().take(1).cloned().collect::<Vec<_>>()
        );
    }
    let beyond = Birth { serial: Birth::SERIAL_MAX, ordinal: 0 };
    assert!(reader.list(day(), Some(beyond), 100).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_deleted_file_is_gone_at_once_here_and_within_ttl_elsewhere() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    let (here, elsewhere) = (fixture.reader().await, fixture.reader().await);
    let birth = here.lookup(day(), &uid("a")).await.unwrap().unwrap().birth;
    assert!(elsewhere.lookup(day(), &uid("a")).await.unwrap().is_some());

    assert_eq!(here.delete(day(), &uid("a"), &Deletion::default()).await.unwrap(), Deleted::Now);

    assert_eq!(here.lookup(day(), &uid("a")).await.unwrap(), None);
    assert_eq!(names(&here.list(day(), None, 9).await.unwrap()), ["b"]);
    assert_eq!(here.delete(day(), &uid("a"), &Deletion::default()).await.unwrap(), Deleted::NotFound);
    assert_eq!(here.read(day(), birth, 0, 9).await.unwrap().as_ref(), b"1", "what is open reads on");
    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(elsewhere.lookup(day(), &uid("a")).await.unwrap(), None);
    assert_eq!(fixture.reader().await.lookup(day(), &uid("a")).await.unwrap(), None);
    assert!(!here.day_is_empty(day()).await.unwrap());
    here.delete(day(), &uid("b"), &Deletion::default()).await.unwrap();
    assert!(here.day_is_empty(day()).await.unwrap());
}

#[tokio::test]
async fn a_fold_between_listing_and_reading_brings_no_file_back() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    let bits = fixture.writer.identity().bits();
    let group = desfmt::Group::of(day(), "a", bits).unwrap();
    let hasher = UidHasher::new(fixture.writer.identity().archive);
    let tombstone = |name: &str| Tombstone {
        date: day(),
        uid: uid(name),
        uid_hash: hasher.hash(name),
        operation: Uuid::from_bytes([5; 16]),
        actor: String::new(),
        reason: String::new(),
        ticket: None,
        at: day().start(),
    };
    let batch_key = layout::tombstone_batch(&group, Uuid::from_bytes([5; 16]));
    let batch = TombstoneBatch { date: day(), tombstones: vec![tombstone("a")], shards: Vec::new() };
    let body = document::encode(&batch).unwrap();
    fixture.store.put(&batch_key, Payload::Bytes(body.into())).await.unwrap();
    let reader = fixture.reader().await;

    // The batch is listed; before it is read a fold takes it in and removes it.
    let folded = FoldedTombstones {
        date: day(),
        generation: 1,
        transactions: Vec::new(),
        tombstones: vec![tombstone("a")],
        erased: vec![hasher.hash("b")],
        shards: Vec::new(),
        folded: vec![FoldedBatch { operation: Uuid::from_bytes([5; 16]), at: day().start() }],
    };
    let body = document::encode(&folded).unwrap();
    fixture.store.after_next_list(move |store| {
        let folded_key = layout::folded_tombstones(&group);
        store.put(&folded_key, Payload::Bytes(body.into())).now_or_never().unwrap().unwrap();
        store.delete(&batch_key).now_or_never().unwrap().unwrap();
    });

    assert_eq!(reader.lookup(day(), &uid("a")).await.unwrap(), None);
    assert_eq!(reader.lookup(day(), &uid("b")).await.unwrap(), None, "an erased uid stays deleted");
}

#[tokio::test]
async fn a_day_without_manifest_is_damage_only_where_objects_lie() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    fixture.store.delete(&layout::manifest(day())).await.unwrap();

    let lost = fixture.reader().await.lookup(day(), &uid("a")).await;

    assert!(matches!(lost, Err(ArchiveError::Inconsistent { .. })), "{lost:?}");
    let never = fixture.reader().await.lookup("20230101".parse().unwrap(), &uid("a")).await;
    assert_eq!(never.unwrap(), None);
}

#[tokio::test]
async fn a_manifest_that_comes_while_the_day_is_looked_at_is_not_taken_for_lost() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let key = layout::manifest(day());
    let manifest = fixture.store.get(&key, DOCUMENT_LEN_MAX).await.unwrap().bytes;
    fixture.store.delete(&key).await.unwrap();
    // The listing comes after the manifest was asked for.
    fixture.store.after_next_list(move |store| {
        store.put(&key, Payload::Bytes(manifest)).now_or_never().unwrap().unwrap();
    });

    let found = fixture.reader().await.lookup(day(), &uid("a")).await;

    assert!(found.unwrap().is_some());
}

#[tokio::test]
async fn a_manifest_that_goes_back_in_time_is_refused() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let old = fixture.store.get(&layout::manifest(day()), DOCUMENT_LEN_MAX).await.unwrap().bytes;
    fixture.pack(&[("b", b"1")]).await;
    let reader = fixture.reader().await;
    assert!(reader.lookup(day(), &uid("b")).await.unwrap().is_some());

    fixture.store.put(&layout::manifest(day()), Payload::Bytes(old)).await.unwrap();
    fixture.clock.advance(Duration::from_secs(61));

    assert!(matches!(reader.lookup(day(), &uid("b")).await, Err(ArchiveError::Inconsistent { .. })));
}

#[tokio::test]
async fn what_cannot_be_understood_below_tombstones_is_an_error() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let stray = ObjectKey::new("tombstones/20240115/0/stray.json").unwrap();
    fixture.store.put(&stray, Payload::Bytes(bytes::Bytes::new())).await.unwrap();

    let looked = fixture.reader().await.lookup(day(), &uid("a")).await;

    assert!(matches!(looked, Err(ArchiveError::Inconsistent { .. })), "{looked:?}");
}

#[tokio::test]
async fn a_listed_shard_that_is_missing_or_altered_is_an_error_not_an_absent_file() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let key = list_all(fixture.store.as_ref(), "shards/", Depth::Recursive, 9).await.unwrap().remove(0).key;
    let bytes = fixture.store.get(&key, 1 << 20).await.unwrap().bytes;
    fixture.store.delete(&key).await.unwrap();

    assert!(matches!(fixture.reader().await.lookup(day(), &uid("a")).await, Err(ArchiveError::Inconsistent { .. })));

    let mut altered = bytes.to_vec();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    fixture.store.put(&key, Payload::Bytes(altered.into())).await.unwrap();
    assert!(matches!(fixture.reader().await.lookup(day(), &uid("a")).await, Err(ArchiveError::Damaged { .. })));
}

#[tokio::test]
async fn a_cold_file_costs_four_requests_and_a_warm_index_one() {
    let fixture = Fixture::new().await;
    let (first, second) = (vec![1; 20_000], vec![2; 20_000]);
    fixture.pack(&[("a", &first), ("b", &second)]).await;
    let reader = fixture.reader().await;
    fixture.store.take_calls();

    let entry = reader.lookup(day(), &uid("a")).await.unwrap().unwrap();
    reader.read(day(), entry.birth, 0, 4096).await.unwrap();
    let cold = fixture.store.take_calls();
    assert_eq!(cold.len(), 4, "{cold:?}");
    assert_eq!(count(&cold, "list"), 1);

    let entry = reader.lookup(day(), &uid("b")).await.unwrap().unwrap();
    reader.read(day(), entry.birth, 0, 4096).await.unwrap();
    assert_eq!(fixture.store.take_calls().len(), 1);

    assert_eq!(reader.lookup(day(), &uid("aa")).await.unwrap(), None);
    assert_eq!(fixture.store.take_calls(), Vec::<String>::new());

    fixture.clock.advance(Duration::from_secs(61));
    reader.lookup(day(), &uid("b")).await.unwrap();
    let later = fixture.store.take_calls();
    assert_eq!((count(&later, "get_if_changed"), count(&later, "list"), later.len()), (1, 1, 2), "{later:?}");
}

#[tokio::test]
async fn everything_cached_is_answered_at_the_first_poll() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let reader = fixture.reader().await;

    let entry = reader.lookup(day(), &uid("a")).now_or_never().unwrap().unwrap().unwrap();

    assert_eq!(reader.read(day(), entry.birth, 0, 9).now_or_never().unwrap().unwrap().as_ref(), b"1");
}

#[tokio::test]
async fn a_file_that_was_published_deleted_and_dropped_since_it_was_looked_for_is_not_published_again() {
    let fixture = Fixture::new().await;
    let other = fixture.writer(7).await;
    let late = fixture.build(&other, &[("a", b"1"), ("b", b"2")]).await;
    fixture.pack(&[("a", b"1")]).await;
    fixture.reader().await.delete(day(), &uid("a"), &Deletion::default()).await.unwrap();
    let dropped = fixture.manifest().await.shards.remove(0);
    fixture.writer.swap(day(), vec![(dropped.key, dropped.shard)], Vec::new()).await.unwrap();

    assert_eq!(other.publish(&late).await.unwrap(), Outcome::Overlap);

    let manifest = fixture.manifest().await;
    assert_eq!((manifest.shards.len(), manifest.condemned.len()), (0, 1));
    let without = fixture.build(&other, &[("b", b"2")]).await;
    assert!(matches!(other.publish(&without).await.unwrap(), Outcome::Published { .. }));
}

#[tokio::test]
async fn a_uid_is_published_once_however_many_writers_race() {
    let fixture = Fixture::new().await;
    let other = fixture.writer(9).await;
    let first = fixture.build(&fixture.writer, &[("a", b"1"), ("b", b"2")]).await;
    let second = fixture.build(&other, &[("b", b"2"), ("c", b"3")]).await;

    assert!(matches!(fixture.writer.publish(&first).await.unwrap(), Outcome::Published { serial: 1, .. }));
    assert_eq!(other.publish(&second).await.unwrap(), Outcome::Overlap);

    let manifest = fixture.store.get(&layout::manifest(day()), DOCUMENT_LEN_MAX).await.unwrap().bytes;
    let manifest: Manifest = document::decode(&manifest).unwrap();
    assert_eq!((manifest.shards.len(), manifest.condemned.len()), (1, 1));
    let third = fixture.build(&other, &[("c", b"3")]).await;
    assert!(matches!(other.publish(&third).await.unwrap(), Outcome::Published { serial: 2, .. }));
    assert_eq!(names(&fixture.reader().await.list(day(), None, 9).await.unwrap()), ["a", "b", "c"]);
}

#[tokio::test]
async fn an_object_left_by_a_run_that_died_before_its_commit_is_adopted() {
    let fixture = Fixture::new().await;
    let shard = fixture.build(&fixture.writer, &[("a", b"1")]).await;
    fixture.writer.publish(&shard).await.unwrap();
    let empty = document::encode(&Manifest::empty(day())).unwrap();
    fixture.store.put(&layout::manifest(day()), Payload::Bytes(empty.into())).await.unwrap();

    let again = fixture.writer(3).await;
    let rebuilt = fixture.build(&again, &[("a", b"1")]).await;
    let outcome = again.publish(&rebuilt).await.unwrap();

    assert!(matches!(outcome, Outcome::Published { adopted: true, .. }), "{outcome:?}");
    assert_eq!(list_all(fixture.store.as_ref(), "shards/", Depth::Recursive, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_look_at_a_day_that_began_before_its_first_shard_does_not_hide_its_manifest() {
    for head_start in 0..40 {
        let fixture = Fixture::new().await;
        let shard = fixture.build(&fixture.writer, &[("a", b"1")]).await;
        fixture.store.let_others_in_between();

        let uids = [uid("b")];
        let look = fixture.writer.survey(&shard.group, &uids);
        let publish = async {
            for _ in 0..head_start {
                tokio::task::yield_now().await;
            }
            fixture.writer.publish(&shard).await
        };
        let (surveyed, published) = futures_util::future::join(look, publish).await;

        assert!(matches!(published, Ok(Outcome::Published { .. })), "{head_start}: {published:?}");
        assert!(surveyed.is_ok(), "{head_start}: {surveyed:?}");
    }
}
