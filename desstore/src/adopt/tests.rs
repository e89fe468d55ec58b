//! Archives of the ancestor before and after they are adopted, and when that dies half way.

use std::collections::BTreeMap;
use std::sync::Arc;

use desfmt::{Date, Uid, layout};

use super::Adopted;
use super::fixture::{self, bits, day, put};
use crate::archive::{Archive, ArchiveError, CheckEvent, CheckLevel, CheckOptions, Deletion, ReadOptions};
use crate::clock::{Clock, SeededRandom};
use crate::fault::{FaultStore, Phase};
use crate::store::ObjectStore;

async fn ancestor() -> (Arc<dyn ObjectStore>, Arc<dyn Clock>) {
    let (store, clock) = fixture::ancestor().await;
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
    fixture::adopted(store, clock, seed).await
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
