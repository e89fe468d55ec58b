//! Deleting many files, the records of that, receipts, and retention, on a store in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use desfmt::document::{self, DOCUMENT_LEN_MAX, FoldedTombstones, Manifest};
use desfmt::{ObjectKey, Uid, layout};

use super::{Deletion, Standing};
use crate::archive::{Archive, DeletionRecord, ErasureState, ReadOptions, Role};
use crate::clock::SeededRandom;
use crate::fault::{FaultStore, Phase};
use crate::fixture::{Fixture, day, uid};
use crate::publish::ArchiveWriter;
use crate::store::{Depth, ObjectStore, Payload, list_all};

fn deletion() -> Deletion {
    Deletion { actor: "tests".to_owned(), reason: "asked".to_owned(), ticket: Some("T-1".to_owned()) }
}

async fn visible(archive: &Archive) -> BTreeSet<String> {
    archive.list(day(), None, 10_000).await.unwrap().into_iter().map(|file| file.uid.to_string()).collect()
}

async fn records(archive: &Archive) -> Vec<DeletionRecord> {
    let mut records = Vec::new();
    archive.deletions(day(), &mut |record| records.push(record)).await.unwrap();
    records
}

fn names(of: impl IntoIterator<Item = usize>) -> Vec<Uid> {
    of.into_iter().map(|number| uid(&format!("f{number:04}"))).collect()
}

/// An archive of `f0000`, `f0001` and so on, all in one group.
async fn archive_of(count: usize) -> Fixture {
    let fixture = Fixture::new().await;
    let uids = names(0..count);
    let files: Vec<_> = uids.iter().map(|uid| (uid.as_str(), uid.as_str().as_bytes())).collect();
    fixture.pack(&files).await;
    fixture
}

#[tokio::test]
async fn many_are_deleted_by_one_write_for_each_thousand_of_a_group() {
    let fixture = archive_of(2_600).await;
    let reader = fixture.reader().await;
    let uids = names(0..2_500);
    fixture.store.take_calls();

    let writes = reader.delete_many(day(), &uids, &deletion()).await.unwrap();

    assert_eq!(writes, 3);
    assert_eq!(fixture.store.take_calls().len(), 3, "and nothing else is asked of the store");
    assert_eq!(visible(&reader).await.len(), 100);
    assert_eq!(visible(&*fixture.reader().await).await.len(), 100, "elsewhere too");
    let records = records(&reader).await;
    assert_eq!(records.len(), 2_500);
    let told = |record: &DeletionRecord| match record {
        DeletionRecord::File { tombstone, folded: false } => {
            (tombstone.actor.as_str(), tombstone.reason.as_str(), tombstone.ticket.as_deref())
                == ("tests", "asked", Some("T-1"))
        }
        DeletionRecord::File { .. } | DeletionRecord::Shard { .. } | DeletionRecord::Erased { .. } => false,
    };
    assert!(records.iter().all(told), "{records:?}");
}

#[tokio::test]
async fn a_standing_says_what_a_file_is_to_those_who_look_for_it() {
    let fixture = archive_of(3).await;
    let reader = fixture.reader().await;
    reader.delete(day(), &uid("f0001"), &deletion()).await.unwrap();
    let asked = [uid("f0000"), uid("f0001"), uid("no such file")];

    let elsewhere = fixture.reader().await;
    let expected = [Standing::Visible, Standing::Deleted, Standing::Absent];
    assert_eq!(elsewhere.standings(day(), &asked).await.unwrap(), expected);
    let another_day = "20240116".parse().unwrap();
    assert_eq!(elsewhere.standings(another_day, &asked).await.unwrap(), [Standing::Absent; 3]);
}

#[tokio::test]
async fn a_crash_at_any_write_leaves_files_that_are_visible_or_deleted_and_a_second_run_completes_it() {
    let uids = names(0..2_100);
    for phase in Phase::ALL {
        for number in 0..3 {
            let fixture = archive_of(2_105).await;
            let inner: Arc<dyn ObjectStore> = Arc::<crate::fixture::Observed>::clone(&fixture.store);
            let faults = Arc::new(FaultStore::new(inner, 1));
            let store: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
            let clock = Arc::<crate::clock::ManualClock>::clone(&fixture.clock);
            let random = Arc::new(SeededRandom::new(9));
            let archive = Archive::open(store, ReadOptions::default(), clock, random).await.unwrap();
            faults.crash_at(faults.call_count() + number, phase);

            let outcome = archive.delete_many(day(), &uids, &deletion()).await;

            let left = visible(&*fixture.reader().await).await.len();
            assert!([5, 105, 1_005, 1_105].contains(&left) || left > 1_105, "{phase:?} {number}: {left}");
            assert!(outcome.is_err() || left == 5, "{phase:?} {number}: acknowledged, and {left} are left");
            faults.revive();
            archive.delete_many(day(), &uids, &deletion()).await.unwrap();
            assert_eq!(visible(&*fixture.reader().await).await.len(), 5, "{phase:?} {number}");
        }
    }
}

#[tokio::test]
async fn records_that_were_folded_are_told_once() {
    let fixture = archive_of(5).await;
    let reader = fixture.reader().await;
    reader.delete_many(day(), &names(0..3), &deletion()).await.unwrap();
    let before = records(&reader).await;
    let tombstones = before.iter().filter_map(|record| match record {
        DeletionRecord::File { tombstone, .. } => Some(tombstone.clone()),
        DeletionRecord::Shard { .. } | DeletionRecord::Erased { .. } => None,
    });
    let folded = FoldedTombstones {
        date: day(),
        generation: 1,
        transactions: Vec::new(),
        tombstones: tombstones.collect(),
        erased: Vec::new(),
        shards: Vec::new(),
        folded: Vec::new(),
    };
    let group = reader.group_of(day(), &uid("f0000")).unwrap();
    let body = document::encode(&folded).unwrap();
    let key = layout::folded_tombstones(&group);
    fixture.store.put_if_absent(&key, Payload::Bytes(body.into())).await.unwrap();

    assert_eq!(records(&reader).await.len(), 3, "before the batch is removed");
    for object in list_all(&fixture.store.inner, layout::TOMBSTONES, Depth::Recursive, 9).await.unwrap() {
        if object.key != key {
            fixture.store.delete(&object.key).await.unwrap();
        }
    }
    assert_eq!(records(&reader).await.len(), 3, "and after");
    assert_eq!(reader.days_with_deletions().await.unwrap(), [day()]);
}

#[tokio::test]
async fn a_receipt_follows_an_erasure_to_its_end() {
    let fixture = archive_of(3).await;
    let reader = fixture.reader().await;
    let state = async || reader.erasure(day(), &uid("f0001")).await.unwrap();
    assert_eq!(state().await.state, ErasureState::NotRequested);

    reader.delete(day(), &uid("f0001"), &deletion()).await.unwrap();
    let receipt = state().await;
    assert_eq!(receipt.state, ErasureState::Requested);
    assert_eq!(receipt.requests[0].ticket.as_deref(), Some("T-1"));
    assert_eq!(receipt.holders.iter().map(|holder| holder.role).collect::<Vec<_>>(), [Role::Live]);
    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(state().await.state, ErasureState::Hidden);

    fixture.writer.expire(day(), &deletion()).await.unwrap();
    let receipt = state().await;
    assert_eq!(receipt.state, ErasureState::Rewritten);
    assert_eq!(receipt.holders.iter().map(|holder| holder.role).collect::<Vec<_>>(), [Role::Retired]);
    assert_eq!(receipt.whole_shards.len(), 1);

    let key = receipt.holders[0].key.clone();
    let copy = ObjectKey::new(&key.as_str().replace("_0000.des", "_0009.des")).unwrap();
    let bytes = fixture.store.get(&key, 1 << 30).await.unwrap().bytes;
    fixture.store.put_if_absent(&copy, Payload::Bytes(bytes)).await.unwrap();
    fixture.store.delete(&key).await.unwrap();
    let receipt = state().await;
    assert_eq!(receipt.state, ErasureState::Rewritten, "an object that nobody lists holds it");
    assert_eq!(receipt.holders.iter().map(|holder| holder.role).collect::<Vec<_>>(), [Role::Unlisted]);

    fixture.store.put(&copy, Payload::Bytes("damaged".into())).await.unwrap();
    let receipt = state().await;
    assert_eq!((receipt.state, receipt.unexamined.len()), (ErasureState::Hidden, 1), "what is damaged may hold it");

    fixture.store.delete(&copy).await.unwrap();
    assert_eq!(state().await.state, ErasureState::Gone);
}

#[tokio::test]
async fn retention_deletes_whole_shards_by_one_record_each() {
    let fixture = archive_of(5).await;
    fixture.pack(&[("later", b"1")]).await;
    let reader = fixture.reader().await;
    assert_eq!(visible(&reader).await.len(), 6);
    let tomorrow = "20240116".parse().unwrap();
    let expiring = fixture.writer.expiring(tomorrow).await.unwrap();
    assert_eq!((expiring.len(), expiring[0].shards, expiring[0].files), (1, 2, 6));
    assert!(fixture.writer.expiring(day()).await.unwrap().is_empty(), "the day itself is not before it");

    assert_eq!(fixture.writer.expire(day(), &deletion()).await.unwrap(), 2);

    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(visible(&reader).await.len(), 0);
    assert_eq!(records(&reader).await.len(), 2);
    let manifest = fixture.store.get(&layout::manifest(day()), DOCUMENT_LEN_MAX).await.unwrap();
    let manifest: Manifest = document::decode(&manifest.bytes).unwrap();
    assert_eq!((manifest.shards.len(), manifest.retired.len()), (0, 2));
    assert!(fixture.writer.expiring(tomorrow).await.unwrap().is_empty());
    assert_eq!(fixture.writer.expire(day(), &deletion()).await.unwrap(), 0, "again is nothing to do");
}

#[tokio::test]
async fn what_was_deleted_whole_is_not_published_again() {
    let fixture = archive_of(5).await;
    fixture.writer.expire(day(), &deletion()).await.unwrap();
    let writer = fixture.writer(7).await;
    let uids = names(0..5);
    let files: Vec<_> = uids.iter().map(|uid| (uid.as_str(), uid.as_str().as_bytes())).collect();
    let again = fixture.build(&writer, &files).await;

    let refused = writer.publish(&again).await.unwrap_err();

    assert!(refused.to_string().contains("deleted"), "{refused}");
}

#[tokio::test]
async fn retention_that_dies_at_any_call_shows_all_or_nothing_of_a_shard_and_is_completed_by_the_next_run() {
    let traced = archive_of(3).await;
    traced.store.take_calls();
    let writer = traced.writer(7).await;
    writer.expire(day(), &deletion()).await.unwrap();
    let calls = u64::try_from(traced.store.take_calls().len()).unwrap();
    assert!(calls > 5);
    for phase in Phase::ALL {
        for number in 0..calls {
            let fixture = archive_of(3).await;
            let inner: Arc<dyn ObjectStore> = Arc::<crate::fixture::Observed>::clone(&fixture.store);
            let faults = Arc::new(FaultStore::new(inner, 1));
            let store: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
            let clock = Arc::<crate::clock::ManualClock>::clone(&fixture.clock);
            faults.crash_at(number, phase);
            let outcome = match ArchiveWriter::open(store, clock, Arc::new(SeededRandom::new(9))).await {
                Ok(writer) => writer.unwrap().expire(day(), &deletion()).await.map(drop),
                Err(error) => Err(error),
            };

            let left = visible(&*fixture.reader().await).await.len();
            let what = format!("{phase:?} at call {number}: {left} left, {outcome:?}");
            assert!(left == 3 || left == 0, "{what}");
            assert!(outcome.is_err() || left == 0, "{what}");
            fixture.writer(8).await.expire(day(), &deletion()).await.unwrap();
            assert_eq!(visible(&*fixture.reader().await).await.len(), 0, "{what}");
        }
    }
}

#[tokio::test]
async fn a_copy_of_yesterday_with_the_tombstones_of_today_shows_nothing_deleted() {
    let fixture = archive_of(10).await;
    let copy: Vec<_> = list_all(&fixture.store.inner, "", Depth::Recursive, 99).await.unwrap();
    let mut yesterday = Vec::new();
    for object in copy {
        yesterday.push((object.key.clone(), fixture.store.get(&object.key, 1 << 30).await.unwrap().bytes));
    }
    let reader = fixture.reader().await;
    reader.delete(day(), &uid("f0000"), &deletion()).await.unwrap();
    reader.delete_many(day(), &names(1..4), &deletion()).await.unwrap();
    assert_eq!(visible(&*fixture.reader().await).await.len(), 6);
    fixture.writer.expire(day(), &deletion()).await.unwrap();

    for object in list_all(&fixture.store.inner, "", Depth::Recursive, 99).await.unwrap() {
        if !object.key.as_str().starts_with(layout::TOMBSTONES) {
            fixture.store.delete(&object.key).await.unwrap();
        }
    }
    for (key, bytes) in yesterday {
        fixture.store.put_if_absent(&key, Payload::Bytes(bytes)).await.unwrap();
    }

    assert_eq!(visible(&*fixture.reader().await).await.len(), 0);
}
