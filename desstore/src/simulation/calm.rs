//! After the storm: programs that nothing disturbs finish what was begun, and then everything must be as it should be.
//!
//! That nothing wrong happens is judged at every operation. Here it is judged that the right thing happens in the end:
//! every file is there or deleted, every deleted byte is gone, and nothing is left over.

use std::sync::Arc;
use std::time::Duration;

use desfmt::{ObjectKey, layout};
use futures_util::FutureExt;

use super::files::day;
use super::jobs::{self, GRACE, RepackOrder};
use super::mount;
use super::process::{Process, Trouble};
use super::profile::Kind;
use super::world::{Task, World};
use crate::archive::ArchiveError;
use crate::fold::FOLD_AGE_MIN;
use crate::repack::Thresholds;
use crate::store::ObjectStore;

/// How often a day is repacked until nothing is due any more.
const REPACKS: usize = 3;

/// How often garbage is collected: an orphan is condemned, then deleted; then it is told that nothing is left.
const COLLECTIONS: usize = 3;

/// What of the live objects is lost.
enum Loss {
    None,
    /// One that this retired object brings back.
    Of(Option<ObjectKey>),
}

impl World<'_> {
    pub(super) fn calm(&mut self) -> Result<(), String> {
        self.later(GRACE);
        match self.loss() {
            Loss::None => {}
            Loss::Of(way_back) => {
                let way_back = way_back.ok_or("what is lost cannot be brought back")?;
                self.finish(Kind::RollBack, |process| Box::pin(jobs::roll_back_to(process, way_back)))?;
            }
        }
        for batch in self.sources.batches.clone() {
            self.finish(Kind::Pack, |process| Box::pin(jobs::pack(process, vec![batch])))?;
        }
        // Taken in, and removed ten minutes later.
        self.finish(Kind::Fold, |process| Box::pin(jobs::fold(process)))?;
        self.later(FOLD_AGE_MIN);
        self.finish(Kind::Fold, |process| Box::pin(jobs::fold(process)))?;
        let thresholds = Thresholds { dead_percent: 1, age_max: Duration::ZERO, ..Thresholds::default() };
        let order = RepackOrder { folds: false, all: false, thresholds };
        for _ in 0..REPACKS {
            self.finish(Kind::Repack, |process| Box::pin(jobs::repack(process, order)))?;
        }
        for _ in 0..COLLECTIONS {
            self.later(GRACE);
            self.finish(Kind::Collect, |process| Box::pin(jobs::collect(process)))?;
        }
        self.check_files()?;
        self.check_leftovers()?;
        let uids = self.sources.uids.clone();
        self.finish(Kind::Mount, |process| Box::pin(mount::read_all(process, uids)))?;
        self.lose_manifest()
    }

    pub(super) fn later(&self, by: Duration) {
        self.shared.leap(by + Duration::from_mins(2));
    }

    /// Runs a job to its end; there is no excuse for a failure any more.
    pub(super) fn finish(&mut self, kind: Kind, job: impl FnOnce(Arc<Process>) -> Task) -> Result<(), String> {
        let process = self.process(kind, 0, true);
        let name = Arc::clone(&process.name);
        match self.attempt(process, job)? {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{name} failed though nothing disturbed it: {error}")),
        }
    }

    /// Runs a job of a process that needs nobody to let its calls through, and judges all of it but its failure.
    pub(super) fn attempt(
        &self,
        process: Arc<Process>,
        job: impl FnOnce(Arc<Process>) -> Task,
    ) -> Result<Result<(), ArchiveError>, String> {
        let ended = job(process).now_or_never().ok_or("a job waits for nothing")?;
        self.judge()?;
        match ended {
            Ok(()) => Ok(Ok(())),
            Err(Trouble::Failed(error)) => Ok(Err(error)),
            Err(Trouble::Violated(what)) => Err(what),
        }
    }

    /// Whether a live object is lost, and the retired one that brings it back.
    fn loss(&self) -> Loss {
        let book = self.shared.book();
        let Some(manifest) = &book.oracle.manifest else { return Loss::None };
        let Some(lost) = manifest.shards.iter().find(|shard| book.oracle.lost.contains(&shard.key)) else {
            return Loss::None;
        };
        let shares = |serials: &[u32]| serials.iter().any(|serial| lost.serials.contains(serial));
        let ways = manifest.retired.iter();
        let ways = ways.filter(|object| object.entry.as_ref().is_some_and(|entry| shares(&entry.serials)));
        Loss::Of(ways.max_by_key(|object| object.generation).map(|object| object.key.clone()))
    }

    /// Whatever was to be packed is live or deleted.
    fn check_files(&self) -> Result<(), String> {
        let book = self.shared.book();
        let mut files = self.sources.batches.iter().flat_map(|batch| &batch.files);
        files.try_for_each(|file| book.oracle.check_published(file.uid.as_str()))
    }

    /// Nothing is left of what is deleted, and nothing that nobody needs.
    fn check_leftovers(&self) -> Result<(), String> {
        let book = self.shared.book();
        let Some(manifest) = &book.oracle.manifest else { return Ok(()) };
        let is_live = |key: &ObjectKey| manifest.shards.iter().any(|shard| shard.key == *key);
        // An orphan with other content under a uid that is live stays until somebody looks at it.
        let orphans_stay = self.sources.has_conflicts;
        for (key, held) in book.oracle.shards.iter().filter(|(key, _)| is_live(key) || !orphans_stay) {
            let mut files = held.files.iter().flat_map(|files| files.iter());
            if let Some(file) = files.find(|file| book.oracle.is_deleted(&file.uid)) {
                return Err(format!("the bytes of {}, which is deleted, are still in {key}", file.uid));
            }
            if !is_live(key) {
                return Err(format!("{key} is left over"));
            }
        }
        if orphans_stay {
            return Ok(());
        }
        if let Some(object) = manifest.retired.first() {
            return Err(format!("{} is gone and still listed as retired", object.key));
        }
        if let Some(object) = manifest.condemned.first() {
            return Err(format!("{} is gone and still listed as condemned", object.key));
        }
        let left = book.oracle.folded.as_ref().and_then(|set| set.tombstones.first());
        if let Some(tombstone) = left {
            return Err(format!("the deletion of {} is carried out and its record has not shrunk", tombstone.uid));
        }
        drop(book);
        match std::fs::read_dir(self.spool).unwrap().next() {
            Some(left) => Err(format!("{} is left in the spool", left.unwrap().path().display())),
            None => Ok(()),
        }
    }

    /// A manifest that is lost is noticed by everybody.
    fn lose_manifest(&mut self) -> Result<(), String> {
        let has_objects = !self.shared.book().oracle.shards.is_empty();
        if !has_objects {
            return Ok(());
        }
        self.shared.note("the manifest gets lost".to_owned());
        let lost = self.shared.memory.delete(&layout::manifest(day())).now_or_never();
        lost.unwrap().unwrap();
        let uid = self.sources.uids[0].clone();
        self.finish(Kind::Mount, |process| {
            Box::pin(async move {
                let archive = process.mount().await?;
                let told = |what: &str| Err(Trouble::Violated(format!("G8: {what} although the manifest is lost")));
                if archive.lookup(day(), &uid).await.is_ok() {
                    return told("a name was looked up");
                }
                if archive.list(day(), None, 10).await.is_ok() {
                    return told("the day was listed");
                }
                if process.writer().await?.plan_gc(day(), GRACE).await.is_ok() {
                    return told("garbage was found");
                }
                Ok(())
            })
        })
    }
}
