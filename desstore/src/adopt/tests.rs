//! Archives of the ancestor before and after they are adopted, and when that dies half way.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use desfmt::legacy::{BigFileHash, LegacyCodec, LegacyWriter, StoredPayload};
use desfmt::{BucketBits, Date, ObjectKey, Timestamp, Uid, layout};

use super::{Adopted, adopt};
use crate::archive::{Archive, ArchiveError, CheckEvent, CheckLevel, CheckOptions, Deletion, ReadOptions};
use crate::clock::{Clock, ManualClock, Randomness, SeededRandom};
use crate::fault::{FaultStore, Phase};
use crate::memory::MemoryStore;
use crate::store::{ObjectStore, Payload};

const BIG: &[u8] = b"kept beside the shards";

fn bits() -> BucketBits {
    BucketBits::new(8).unwrap()
}

fn day() -> Date {
    "20240115".parse().unwrap()
}

async fn put(store: &dyn ObjectStore, key: &str, bytes: impl Into<Bytes>) {
    store.put(&ObjectKey::new(key).unwrap(), Payload::Bytes(bytes.into())).await.unwrap();
}

/// Shards of two days, a big file, a uid that is in two splits, and a sidecar that deletes two uids.
async fn ancestor() -> (Arc<dyn ObjectStore>, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_micros(1_705_300_000_000_000)));
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(Arc::clone(&clock)));
    // All of these are in bucket 3F: 63 modulo 256.
    for (key, uids) in [
        ("20240115_3F_0000.des", vec!["63", "319", "575"]),
        ("20240115_3F_0001.des", vec!["319", "831"]),
        ("20240116_3F_0000.des", vec!["63"]),
    ] {
        let mut writer = LegacyWriter::new();
        let mut bytes = LegacyWriter::HEADER.to_vec();
        for uid in uids {
            let content = format!("{uid} in {key}");
            let len = u64::try_from(content.len()).unwrap();
            let payload = StoredPayload { codec: LegacyCodec::Stored, stored_len: len, plain_len: len };
            writer.push_inline(&Uid::new(uid).unwrap(), payload, None).unwrap();
            bytes.extend(content.into_bytes());
        }
        if key.starts_with("20240116") {
            let len = u64::try_from(BIG.len()).unwrap();
            writer.push_big_file(&Uid::new("319").unwrap(), &BigFileHash::of(BIG), len, None).unwrap();
        }
        bytes.extend(writer.finish());
        put(store.as_ref(), key, bytes).await;
    }
    put(store.as_ref(), &format!("_bigFiles/{}", BigFileHash::of(BIG)), BIG).await;
    let record = |uid: &str| {
        serde_json::json!({
            "uid": uid, "created_at": "2024-01-15T00:00:00+00:00", "deleted_at": "2024-02-01T00:00:00+00:00",
            "deleted_by": "somebody", "reason": "asked", "ticket_id": "T-9",
        })
    };
    let sidecar = serde_json::json!({
        "version": 1, "shard_file": "20240115_3F_0000.des", "shard_size": 1, "created_at": "x", "last_updated": "x",
        "index": {}, "tombstones": {"63:2024-01-15T00:00:00+00:00": record("63"), "831:x": record("831")},
    });
    put(store.as_ref(), "20240115_3F_0000.meta", serde_json::to_vec(&sidecar).unwrap()).await;
    (store, clock)
}

type Shown = BTreeMap<(Date, String), (u32, u32, Vec<u8>)>;

/// Everything that is visible, with birth numbers and contents.
async fn shown(archive: &Archive) -> Result<Shown, ArchiveError> {
    let mut shown = Shown::new();
    for date in archive.days().await?.iter().copied() {
        for file in archive.list(date, None, 99).await? {
            let bytes = archive.read(date, file.birth, 0, 1 << 20).await?.to_vec();
            let found = archive.lookup(date, &file.uid).await?.expect("what is listed is found");
            assert_eq!(found.birth, file.birth);
            shown.insert((date, file.uid.to_string()), (file.birth.serial, file.birth.ordinal, bytes));
        }
    }
    Ok(shown)
}

fn legacy(store: &Arc<dyn ObjectStore>, clock: &Arc<dyn Clock>) -> Arc<Archive> {
    let random = Arc::new(SeededRandom::new(1));
    Archive::open_legacy(Arc::clone(store), bits(), ReadOptions::default(), Arc::clone(clock), random)
}

async fn open(store: &Arc<dyn ObjectStore>, clock: &Arc<dyn Clock>) -> Option<Arc<Archive>> {
    let random = Arc::new(SeededRandom::new(2));
    Archive::open_existing(Arc::clone(store), ReadOptions::default(), Arc::clone(clock), random).await.unwrap()
}

async fn run(store: &Arc<dyn ObjectStore>, clock: &Arc<dyn Clock>, seed: u64) -> Result<Adopted, ArchiveError> {
    let random: Arc<dyn Randomness> = Arc::new(SeededRandom::new(seed));
    adopt(store, bits(), (clock, &random), false).await
}

#[tokio::test]
async fn an_adopted_archive_shows_what_it_showed_before_and_takes_deletions() {
    let (store, clock) = ancestor().await;
    let before = shown(&legacy(&store, &clock)).await.unwrap();
    assert_eq!(before.len(), 4, "{before:?}");

    let adopted = run(&store, &clock, 7).await.unwrap();

    assert_eq!((adopted.days, adopted.shards, adopted.files, adopted.tombstones), (2, 3, 7, 2));
    let archive = open(&store, &clock).await.unwrap();
    assert!(archive.identity().is_adopted() && !archive.is_legacy());
    assert_eq!(shown(&archive).await.unwrap(), before);
    archive.delete(day(), &Uid::new("575").unwrap(), &Deletion::default()).await.unwrap();
    let archive = open(&store, &clock).await.unwrap();
    assert_eq!(shown(&archive).await.unwrap().len(), 3);
    for level in [CheckLevel::Manifest, CheckLevel::Index, CheckLevel::Content] {
        let mut tell = |event: CheckEvent<'_>| {
            if let CheckEvent::Found(finding) = event {
                panic!("{finding:?}");
            }
        };
        let options =
            CheckOptions { level, orphans_older_than: Some(std::time::Duration::ZERO), ..CheckOptions::default() };
        archive.verify(&options, &mut tell).await;
    }
    let again = run(&store, &clock, 8).await.unwrap_err();
    assert!(again.to_string().contains("already"), "{again}");
}

#[tokio::test]
async fn an_adoption_that_dies_at_any_call_shows_the_old_archive_or_the_new_one_and_is_completed() {
    let (store, clock) = ancestor().await;
    let before = shown(&legacy(&store, &clock)).await.unwrap();
    let traced = Arc::new(FaultStore::new(store, 1));
    let shared: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&traced);
    run(&shared, &clock, 7).await.unwrap();
    let calls = traced.call_count();
    assert!(calls > 20);
    for phase in Phase::ALL {
        for number in 0..calls {
            let (store, clock) = ancestor().await;
            let faults = Arc::new(FaultStore::new(Arc::clone(&store), 1));
            let shared: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
            faults.crash_at(number, phase);
            let outcome = run(&shared, &clock, 7).await;
            let what = format!("{phase:?} at call {number}: {outcome:?}");
            let archive = open(&store, &clock).await.unwrap_or_else(|| legacy(&store, &clock));
            assert_eq!(shown(&archive).await.unwrap(), before, "{what}");

            match run(&store, &clock, 8).await {
                Ok(_) => {}
                Err(error) => assert!(error.to_string().contains("already"), "{what}: {error}"),
            }

            let archive = open(&store, &clock).await.expect(&what);
            assert_eq!(shown(&archive).await.unwrap(), before, "{what}");
        }
    }
}

#[tokio::test]
async fn what_is_not_sound_is_not_adopted() {
    let (store, clock) = ancestor().await;
    put(store.as_ref(), "20240116_3F_0000.meta", "{").await;

    let refused = run(&store, &clock, 7).await.unwrap_err();

    assert!(refused.to_string().starts_with("20240116_3F_0000.meta: "), "{refused}");
    assert!(store.head(&layout::adoption()).await.is_err(), "and nothing is written");
}

#[tokio::test]
async fn a_lost_manifest_of_an_adopted_day_is_not_a_day_that_never_was() {
    let (store, clock) = ancestor().await;
    run(&store, &clock, 7).await.unwrap();
    store.delete(&layout::manifest(day())).await.unwrap();
    let archive = open(&store, &clock).await.unwrap();

    assert!(matches!(archive.day_exists(day()).await, Err(ArchiveError::Inconsistent { .. })));
    assert!(!archive.day_exists("20240117".parse().unwrap()).await.unwrap());
}
