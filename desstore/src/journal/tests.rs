//! The journal on a store in memory that fails, and with processes that die.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Journal, JournalError};
use crate::archive::{Archive, Deleted, Deletion, ReadOptions};
use crate::clock::{Clock, SeededRandom};
use crate::fault::{FaultRates, FaultStore, Phase};
use crate::fixture::{Fixture, day, uid};
use crate::store::{Depth, ObjectStore, list_all};

struct Scene {
    fixture: Fixture,
    faults: Arc<FaultStore>,
    directory: tempfile::TempDir,
}

fn name(number: usize) -> String {
    format!("f{number:04}")
}

impl Scene {
    async fn new(count: usize) -> Self {
        let fixture = Fixture::new().await;
        let names: Vec<_> = (0..count).map(name).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
        fixture.pack(&files).await;
        let inner: Arc<dyn ObjectStore> = Arc::<crate::fixture::Observed>::clone(&fixture.store);
        let faults = Arc::new(FaultStore::new(inner, 1));
        Self { fixture, faults, directory: tempfile::tempdir().unwrap() }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<crate::clock::ManualClock>::clone(&self.fixture.clock)
    }

    /// A mount, as it were, and its journal.
    async fn mount(&self, seed: u64) -> (Arc<Archive>, Journal) {
        let store: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&self.faults);
        let random = Arc::new(SeededRandom::new(seed));
        let archive = Archive::open(store, ReadOptions::default(), self.clock(), random).await.unwrap();
        let journal = self.journal(&archive, seed).unwrap();
        (archive, journal)
    }

    fn journal(&self, archive: &Arc<Archive>, seed: u64) -> Result<Journal, JournalError> {
        Journal::open(Arc::clone(archive), self.directory.path(), self.clock(), &SeededRandom::new(seed))
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    async fn records(&self) -> usize {
        let prefix = desfmt::layout::TOMBSTONES;
        list_all(&self.fixture.store.inner, prefix, Depth::Recursive, 9_999).await.unwrap().len()
    }

    async fn visible_elsewhere(&self) -> usize {
        self.fixture.reader().await.list(day(), None, 9_999).await.unwrap().len()
    }
}

async fn delete(journal: &Journal, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let deleted = journal.delete(day(), &uid(&name(number)), &Deletion::default()).await.unwrap();
        assert_eq!(deleted, Deleted::Now, "{number}");
    }
}

/// Ends a process without a word: its journal stays as it is on disk.
fn die(scene: &Scene, archive: Arc<Archive>, journal: Journal) {
    let kept: Vec<(PathBuf, Vec<u8>)> =
        scene.files().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    drop((journal, archive));
    for (path, bytes) in kept {
        fs::write(path, bytes).unwrap();
    }
}

fn only_file(scene: &Scene) -> PathBuf {
    let files = scene.files();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test]
async fn deletions_are_hidden_at_once_and_written_in_batches() {
    let scene = Scene::new(1_300).await;
    let (archive, journal) = scene.mount(1).await;
    archive.list(day(), None, 1).await.unwrap();
    scene.fixture.store.take_calls();

    delete(&journal, 0..1_200).await;

    let calls = scene.fixture.store.take_calls();
    assert!(!calls.iter().any(|call| call.starts_with("put")), "{calls:?}");
    assert_eq!(archive.list(day(), None, 9_999).await.unwrap().len(), 100);
    assert_eq!(journal.delete(day(), &uid(&name(3)), &Deletion::default()).await.unwrap(), Deleted::NotFound);
    archive.drop_caches();
    scene.fixture.clock.advance(Duration::from_hours(1));
    assert_eq!(archive.list(day(), None, 9_999).await.unwrap().len(), 100, "whatever is forgotten of the day");
    assert_eq!(scene.visible_elsewhere().await, 1_300);

    journal.flush().await.unwrap();

    assert_eq!((scene.records().await, journal.waiting()), (2, 0), "one write for each thousand");
    assert_eq!(scene.visible_elsewhere().await, 100);
    drop(journal);
    assert!(scene.files().is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn what_a_dead_process_left_is_hidden_at_once_and_written_by_the_next() {
    let scene = Scene::new(50).await;
    let (archive, journal) = scene.mount(1).await;
    delete(&journal, 0..20).await;
    die(&scene, archive, journal);

    scene.faults.set_rates(FaultRates { unavailable: 0, ..FaultRates::default() });
    let (archive, journal) = scene.mount(2).await;
    assert_eq!(archive.list(day(), None, 99).await.unwrap().len(), 30);
    assert_eq!(journal.waiting(), 20);
    scene.faults.set_rates(FaultRates { unavailable: 1_000_000, ..FaultRates::default() });
    journal.flush().await.unwrap_err();
    assert_eq!(journal.waiting(), 20, "a store that does not answer is asked again");
    scene.faults.set_rates(FaultRates::default());

    journal.flush().await.unwrap();

    assert_eq!(scene.visible_elsewhere().await, 30);
    assert_eq!(scene.files().len(), 1, "what was left is gone");
}

#[tokio::test]
async fn a_journal_in_use_is_left_alone() {
    let scene = Scene::new(10).await;
    let (archive, one) = scene.mount(1).await;
    delete(&one, 0..3).await;

    let two = scene.journal(&archive, 2).unwrap();

    assert_eq!((one.waiting(), two.waiting()), (3, 0));
    assert_eq!(scene.files().len(), 2);
}

#[tokio::test]
async fn a_flush_that_dies_at_any_write_loses_no_deletion() {
    for phase in Phase::ALL {
        for number in 0..3 {
            let scene = Scene::new(2_600).await;
            let (archive, journal) = scene.mount(1).await;
            delete(&journal, 0..2_500).await;
            scene.faults.crash_at(scene.faults.call_count() + number, phase);
            let flushed = journal.flush().await;
            assert!(flushed.is_err(), "{phase:?} {number}");
            // More comes after an answer was lost: it must not be taken for what was written.
            scene.faults.revive();
            delete(&journal, 2_500..2_510).await;
            die(&scene, archive, journal);

            let (_, journal) = scene.mount(2).await;
            journal.flush().await.unwrap();

            assert_eq!(scene.visible_elsewhere().await, 90, "{phase:?} {number}");
        }
    }
}

#[tokio::test]
async fn after_a_lost_answer_the_same_process_writes_everything() {
    let scene = Scene::new(100).await;
    let (_, journal) = scene.mount(1).await;
    delete(&journal, 0..10).await;
    scene.faults.crash_at(scene.faults.call_count(), Phase::AckLost);
    journal.flush().await.unwrap_err();
    delete(&journal, 10..20).await;

    journal.flush().await.unwrap();

    assert_eq!(scene.visible_elsewhere().await, 80);
}

/// A file that was cut anywhere, as by a crash during a write, gives the deletions before the cut.
#[tokio::test]
async fn a_torn_tail_is_what_was_never_acknowledged() {
    let scene = Scene::new(10).await;
    let (archive, journal) = scene.mount(1).await;
    delete(&journal, 0..3).await;
    let path = only_file(&scene);
    let whole = fs::read(&path).unwrap();
    die(&scene, archive, journal);
    let ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let (archive, journal) = scene.mount(2).await;
        let expected = ends.iter().skip(1).filter(|end| **end <= len).count();
        assert_eq!(journal.waiting(), expected, "cut at {len}");
        die_and_clean(&scene, &path, archive, journal);
    }
}

fn die_and_clean(scene: &Scene, path: &Path, archive: Arc<Archive>, journal: Journal) {
    die(scene, archive, journal);
    for other in scene.files().iter().filter(|other| *other != path) {
        fs::remove_file(other).unwrap();
    }
}

#[tokio::test]
async fn damage_before_the_end_is_an_error_that_keeps_the_file() {
    let scene = Scene::new(10).await;
    let (archive, journal) = scene.mount(1).await;
    delete(&journal, 0..3).await;
    let path = only_file(&scene);
    let mut bytes = fs::read(&path).unwrap();
    die(&scene, Arc::clone(&archive), journal);
    let line_two = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 40;
    bytes[line_two] ^= 1;
    fs::write(&path, &bytes).unwrap();

    let refused = scene.journal(&archive, 3).unwrap_err();

    assert!(refused.to_string().contains("line 2 is damaged"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
