//! Deletions that are durable on this host first, and in the store within a second: for a mount that deletes much.
//!
//! Each deletion is a line of a local file, synced before it is acknowledged, and hides the file here at once. What
//! gathers is written to the store in batches. After a crash the next mount of the archive on this host takes over what is
//! left. Until then other hosts show the file: that is the price.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use desfmt::document::Tombstone;
use desfmt::{Date, Group, Uid};

use crate::archive::{Archive, ArchiveError, Deleted, Deletion, TOMBSTONES_PER_WRITE, TombstoneSet};
use crate::clock::{Clock, Randomness};
use crate::error::{StoreError, StoreErrorKind};
use file::JournalFile;

pub use file::JournalError;

/// How long deletions gather before they are written to the store.
const GATHER: Duration = Duration::from_millis(900);

/// The longest pause between attempts at a store that does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How many deletions may wait. More are written to the store one by one, and acknowledged only then.
const WAITING_MAX: usize = 200_000;

/// How many are taken out of the line at once.
const FLUSH_MAX: usize = 20_000;

/// The journal of one mount of one archive. Share it by [`Arc`].
#[derive(Debug)]
pub struct Journal {
    archive: Arc<Archive>,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
    flushing: tokio::sync::Mutex<()>,
    has_work: tokio::sync::Notify,
}

#[derive(Debug)]
struct State {
    file: JournalFile,
    /// Files of processes that died, kept until what they hold is in the store.
    left: Vec<JournalFile>,
    waiting: Vec<Tombstone>,
    /// Held so that what waits stays hidden, whatever is forgotten of the day.
    sets: BTreeMap<Date, Arc<TombstoneSet>>,
}

impl State {
    /// Adds a deletion that is durable here.
    fn wait_for(&mut self, tombstone: Tombstone, set: &Arc<TombstoneSet>) {
        set.extend([tombstone.uid_hash]);
        self.sets.entry(tombstone.date).or_insert_with(|| Arc::clone(set));
        self.waiting.push(tombstone);
    }
}

impl Journal {
    /// Opens a journal of its own in a directory, and takes over what dead processes have left there for this archive: it
    /// is hidden here from now on, and written to the store by the next flush. Asks nothing of the store.
    pub fn open(
        archive: Arc<Archive>,
        directory: &Path,
        clock: Arc<dyn Clock>,
        random: &dyn Randomness,
    ) -> Result<Self, JournalError> {
        let id = archive.identity().archive;
        let mut left = Vec::new();
        let mut found = Vec::new();
        for mut file in JournalFile::take_over(directory, id)? {
            found.extend(file.read()?);
            left.push(file);
        }
        let file = JournalFile::create(directory, id, random.next())?;
        let mut state = State { file, left, waiting: Vec::new(), sets: BTreeMap::new() };
        for tombstone in found {
            let set = archive.tombstone_set(tombstone.date);
            state.wait_for(tombstone, &set);
        }
        let journal = Self {
            archive,
            clock,
            state: Arc::new(Mutex::new(state)),
            flushing: tokio::sync::Mutex::default(),
            has_work: tokio::sync::Notify::new(),
        };
        if journal.waiting() > 0 {
            journal.has_work.notify_one();
        }
        Ok(journal)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many deletions are not in the store yet.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// The file that holds what is not in the store yet.
    pub fn path(&self) -> PathBuf {
        self.state().file.path().to_owned()
    }

    /// Deletes a file: on return that is durable on this host, and the file is no longer visible here. No write to the
    /// store, unless far too many wait.
    ///
    /// Not to be cancelled: the deletion may happen all the same.
    pub async fn delete(&self, date: Date, uid: &Uid, deletion: &Deletion) -> Result<Deleted, ArchiveError> {
        self.archive.refuse_legacy()?;
        let set = self.archive.tombstone_set(date);
        let Some(file) = self.archive.lookup(date, uid).await? else { return Ok(Deleted::NotFound) };
        if self.waiting() >= WAITING_MAX {
            return self.archive.delete(date, uid, deletion).await;
        }
        self.archive.group_of(date, uid)?;
        let tombstone = self.archive.tombstone(date, uid, self.archive.new_operation(), deletion);
        let state = Arc::clone(&self.state);
        let written = tokio::task::spawn_blocking(move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.file.append(&tombstone)?;
            // Under the same lock: a flush that is about to empty the file sees it.
            state.wait_for(tombstone, &set);
            Ok::<_, std::io::Error>(())
        });
        match written.await {
            Ok(Ok(())) => {
                self.has_work.notify_one();
                self.archive.forget_file(date, file.birth).await;
                Ok(Deleted::Now)
            }
            Ok(Err(error)) => Err(self.failed(error).into()),
            Err(error) => Err(self.failed(std::io::Error::other(error)).into()),
        }
    }

    fn failed(&self, error: std::io::Error) -> StoreError {
        let is_full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let kind = if is_full { StoreErrorKind::Full } else { StoreErrorKind::Unavailable };
        StoreError::new(kind, "journal", self.path().display()).caused_by(error)
    }

    /// Writes everything that waits to the store: on return what had been deleted before the call is durable there.
    pub async fn flush(&self) -> Result<(), ArchiveError> {
        let _one_at_a_time = self.flushing.lock().await;
        // What comes meanwhile gathers for the next flush: else a stream of deletions would be written a few at a time.
        let mut left = self.waiting();
        while left > 0 {
            let (batch, sets) = {
                let state = self.state();
                let batch: Vec<_> = state.waiting.iter().take(left.min(FLUSH_MAX)).cloned().collect();
                (batch, state.sets.clone())
            };
            let count = batch.len();
            if count == 0 {
                break;
            }
            left = left.saturating_sub(count);
            self.write(batch, &sets).await?;
            let state = Arc::clone(&self.state);
            let settled = tokio::task::spawn_blocking(move || settle(&state, count));
            // Where the file cannot be emptied it only holds too much: writing that again harms nothing.
            match settled.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the journal cannot be emptied"),
                Err(error) => tracing::warn!(%error, "the journal cannot be emptied"),
            }
        }
        Ok(())
    }

    /// Writes tombstones to the store, by groups.
    async fn write(
        &self,
        tombstones: Vec<Tombstone>,
        sets: &BTreeMap<Date, Arc<TombstoneSet>>,
    ) -> Result<(), ArchiveError> {
        let mut days = BTreeMap::<Date, BTreeMap<Group, Vec<Tombstone>>>::new();
        for tombstone in tombstones {
            let group = self.archive.group_of(tombstone.date, &tombstone.uid)?;
            days.entry(tombstone.date).or_default().entry(group).or_default().push(tombstone);
        }
        for (date, groups) in days {
            let mut batches = Vec::new();
            for (group, tombstones) in groups {
                for chunk in tombstones.chunks(TOMBSTONES_PER_WRITE) {
                    batches.push((group, self.under_one_operation(chunk)));
                }
            }
            let set = sets.get(&date).map_or_else(|| self.archive.tombstone_set(date), Arc::clone);
            self.archive.write_batches(&batches, &set).await?;
        }
        Ok(())
    }

    /// A batch is named by its operation, and what it holds may differ from that of an attempt whose answer was lost: so
    /// each attempt has a name of its own. A single record always has the same name and body.
    fn under_one_operation(&self, tombstones: &[Tombstone]) -> Vec<Tombstone> {
        let mut tombstones = tombstones.to_vec();
        if tombstones.len() > 1 {
            let operation = self.archive.new_operation();
            for one in &mut tombstones {
                one.operation = operation;
            }
        }
        tombstones
    }

    /// Writes to the store what gathers, for ever. Drop it to end it; then [`Journal::flush`] once more.
    pub async fn run(&self) -> Infallible {
        let mut pause = GATHER;
        loop {
            if self.waiting() == 0 {
                self.has_work.notified().await;
            }
            self.clock.sleep(pause).await;
            match self.flush().await {
                Ok(()) => pause = GATHER,
                Err(error) => {
                    let waiting = self.waiting();
                    tracing::warn!(%error, waiting, "deletions wait in the journal until the store takes them");
                    pause = pause.saturating_mul(2).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// Takes what is in the store out of the line, and empties the files when nothing waits any more.
fn settle(state: &Mutex<State>, count: usize) -> std::io::Result<()> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let count = count.min(state.waiting.len());
    state.waiting.drain(..count);
    if !state.waiting.is_empty() {
        return Ok(());
    }
    state.sets.clear();
    for left in std::mem::take(&mut state.left) {
        left.remove()?;
    }
    state.file.clear()
}
