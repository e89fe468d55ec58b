//! Removing sources, as a pass of its own: each file is read back from the archive and compared right before it goes.
//!
//! What differs stays and is told. The source of a uid that was deleted from the archive goes only where that is asked for.

mod files;
mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use desfmt::{Date, Digest, Uid};
use desstore::Archive;
use futures_util::StreamExt;
use packer::{Buckets, Sources};
use tokio::sync::mpsc;

use crate::days::Window;
use crate::error::MigrateError;
use crate::migrator::{Migrator, blocking};
use crate::rows::{Key, SourceRow, Which};
use crate::state::{Claim, Cleaned, Exception, Kind, Stage};
use crate::verify::{Exceptions, Reading, read_back};

/// How a cleanup goes about it.
#[derive(Debug, Clone, Copy)]
pub struct CleanupPlan {
    /// How long a day must have been finished.
    pub delay: Duration,
    /// Also removes sources whose uid was deleted from the archive.
    pub remove_deleted: bool,
}

/// Pages that wait to be cleaned up.
const PAGES_AHEAD: usize = 2;

/// Sources that are compared at once: in a bucket each takes some round trips.
const AT_ONCE: usize = 8;

impl Migrator {
    /// Removes the sources of all days that may be cleaned up; says what was done.
    pub async fn cleanup(&self, plan: CleanupPlan) -> Result<Cleaned, MigrateError> {
        if self.sources.roots.is_none() {
            let reason = "sources.roots is empty: only what lies beneath named places is ever removed";
            return Err(MigrateError::refused(reason));
        }
        self.hold_name().await?;
        self.bind().await?;
        let mut sum = Cleaned::default();
        while !self.is_stopping() {
            let (worker, lease) = (self.plan.worker.clone(), self.plan.lease);
            let claims = self.claimed(move |state| state.claim_cleanup(&worker, plan.delay, lease)).await?;
            let Some(claim) = claims.first().copied() else { break };
            let cleaned = self.clean_day(claim, plan).await?;
            let worker = self.plan.worker.clone();
            if !self.ask(move |state| state.mark_cleaned(&worker, claim, &cleaned)).await? {
                tracing::warn!(day = %claim.day, "another worker cleans this day up");
            }
            sum.removed += cleaned.removed;
            sum.bytes += cleaned.bytes;
            sum.gone += cleaned.gone;
            sum.kept += cleaned.kept;
        }
        Ok(sum)
    }

    async fn clean_day(&self, claim: Claim, plan: CleanupPlan) -> Result<Cleaned, MigrateError> {
        let day = claim.day;
        let excepted = self.ask(move |state| state.excepted(day, Stage::Migrate)).await?;
        let archive = self.reading().open().await?;
        let pass = Pass { reading: self.reading(), archive, sources: self.sources.clone(), plan, day };
        let (exceptions, noting) = self.take_exceptions(&[claim]);
        let mut removals = Removals::default();
        let outcome = self.clean_rows(&pass, &excepted, &exceptions, &mut removals).await;
        drop(exceptions);
        noting.await.map_err(MigrateError::died)??;
        outcome?;
        self.metrics.sources_removed.inc_by(removals.cleaned.removed);
        Ok(removals.cleaned)
    }

    async fn clean_rows(
        &self,
        pass: &Pass,
        excepted: &BTreeSet<String>,
        exceptions: &Exceptions,
        removals: &mut Removals,
    ) -> Result<(), MigrateError> {
        let (sender, mut pages) = mpsc::channel(PAGES_AHEAD);
        let (migrator, window) = (self.clone(), Window::of(pass.day));
        let reading = tokio::spawn(async move { migrator.read_rows(window, sender).await });
        while let Some(page) = pages.recv().await {
            let rows = page.into_iter().filter(|row| !excepted.contains(&row.uid) && !row.source().is_empty());
            let cleaning = rows.map(|row| async move { (pass.clean(&row).await, row) });
            let mut cleaned = futures_util::stream::iter(cleaning).buffer_unordered(AT_ONCE);
            while let Some((fate, row)) = cleaned.next().await {
                if let Some((kind, reason)) = removals.take(fate?) {
                    // Whoever takes them has failed, and tells why.
                    drop(exceptions.send(vec![pass.exception(row, kind, reason)]).await);
                }
            }
            drop(cleaned);
            if removals.directories.len() >= DIRECTORIES_MAX {
                removals.sync().await?;
            }
        }
        reading.await.map_err(MigrateError::died)??;
        removals.sync().await
    }

    /// Reads all rows of a window, a page at a time; goes on where it was when the database comes back.
    async fn read_rows(&self, window: Window, pages: mpsc::Sender<Vec<SourceRow>>) -> Result<(), MigrateError> {
        // What the migrator marks itself is what there is to clean up.
        let which = if self.plan.mark_archived { Which::All } else { Which::Waiting };
        let mut after: Option<Key> = None;
        let mut waiting = self.waiting();
        loop {
            let (source, sender, from) = (Arc::clone(&self.source), pages.clone(), after.clone());
            let (outcome, last) = blocking(move || {
                let mut last = from.clone();
                let outcome = source.scan(window, which, from, &mut |page| {
                    let end = page.last().map(SourceRow::key);
                    if sender.blocking_send(page).is_err() {
                        return ControlFlow::Break(());
                    }
                    last = end.or_else(|| last.take());
                    ControlFlow::Continue(())
                });
                (outcome, last)
            })
            .await?;
            if last != after {
                waiting = self.waiting();
            }
            after = last;
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() => waiting.pause(error).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Directories that are kept open until they are made durable.
const DIRECTORIES_MAX: usize = 256;

/// What the archive holds of a row.
enum Held {
    Content(Digest, u64),
    Deleted,
    Nothing,
}

/// What became of a source.
enum Fate {
    Removed {
        bytes: u64,
        /// The directory that it was removed from, where that must be made durable.
        directory: Option<(PathBuf, OwnedFd)>,
    },
    Gone,
    Kept(Kind, String),
}

impl Fate {
    fn changed(reason: impl Into<String>) -> Self {
        Self::Kept(Kind::SourceChanged, reason.into())
    }

    fn other_content() -> Self {
        Self::changed("the source is not what the archive holds; it stays")
    }
}

impl Held {
    /// What a source must be so that it may go: of this digest and length, or anything; or why it stays.
    fn demand(&self, remove_deleted: bool) -> Result<Option<(Digest, u64)>, Fate> {
        match self {
            Self::Content(digest, len) => Ok(Some((*digest, *len))),
            Self::Deleted if remove_deleted => Ok(None),
            Self::Deleted => {
                let reason = "the uid was deleted from the archive; --remove-deleted removes such sources too";
                Err(Fate::Kept(Kind::SourceOfDeleted, reason.to_owned()))
            }
            Self::Nothing => {
                let reason = "the archive does not hold it; the source stays";
                Err(Fate::Kept(Kind::NotArchived, reason.to_owned()))
            }
        }
    }
}

/// What is needed to clean up one day.
struct Pass {
    reading: Reading,
    archive: Arc<Archive>,
    sources: Sources,
    plan: CleanupPlan,
    day: Date,
}

impl Pass {
    async fn clean(&self, row: &SourceRow) -> Result<Fate, MigrateError> {
        let held = match Uid::new(row.uid.as_str()) {
            Ok(uid) => self.held(&uid).await?,
            Err(_) => Held::Nothing,
        };
        let (source, remove_deleted) = (PathBuf::from(row.source()), self.plan.remove_deleted);
        if Buckets::holds(&source) {
            let Some(buckets) = &self.sources.buckets else {
                return Ok(Fate::changed("the source is in a bucket, and sources.roots names none"));
            };
            return objects::remove(buckets, &source, &held, remove_deleted).await;
        }
        let Some(roots) = self.sources.roots.clone() else {
            return Ok(Fate::changed("the source lies beneath none of the roots"));
        };
        blocking(move || files::remove(&roots, &source, &held, remove_deleted)).await
    }

    /// Reads back what the archive holds, now.
    async fn held(&self, uid: &Uid) -> Result<Held, MigrateError> {
        if let Some(file) = self.archive.lookup(self.day, uid).await? {
            let digest = read_back(&self.archive, self.day, &file).await?;
            return Ok(Held::Content(digest, file.len));
        }
        let is_deleted = self.reading.is_deleted(self.day, uid).await?;
        Ok(if is_deleted { Held::Deleted } else { Held::Nothing })
    }

    fn exception(&self, row: SourceRow, kind: Kind, reason: String) -> Exception {
        let source = row.source().to_owned();
        let (created_at, day) = (Some(row.created_at), Some(self.day));
        Exception { uid: row.uid, created_at, day, stage: Stage::Cleanup, kind, reason, source, rows: 1 }
    }
}

/// What was removed on a day.
#[derive(Default)]
struct Removals {
    cleaned: Cleaned,
    /// Directories that files were removed from, to be made durable together.
    directories: BTreeMap<PathBuf, OwnedFd>,
}

impl Removals {
    /// Counts a source; says why it was kept, if it was.
    fn take(&mut self, fate: Fate) -> Option<(Kind, String)> {
        match fate {
            Fate::Removed { bytes, directory } => {
                self.cleaned.removed += 1;
                self.cleaned.bytes = self.cleaned.bytes.saturating_add(bytes);
                if let Some((directory, handle)) = directory {
                    self.directories.entry(directory).or_insert(handle);
                }
                None
            }
            Fate::Gone => {
                self.cleaned.gone += 1;
                None
            }
            Fate::Kept(kind, reason) => {
                self.cleaned.kept += 1;
                Some((kind, reason))
            }
        }
    }

    async fn sync(&mut self) -> Result<(), MigrateError> {
        let directories = std::mem::take(&mut self.directories);
        blocking(move || {
            for handle in directories.into_values() {
                rustix::fs::fsync(&handle)?;
            }
            Ok::<(), rustix::io::Errno>(())
        })
        .await?
        .map_err(|errno| MigrateError::Disk { what: "making removals durable", source: errno.into() })
    }
}
