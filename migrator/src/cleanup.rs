//! Removing sources, as a pass of its own: each file is read back from the archive and compared right before it goes.
//!
//! What differs stays and is told. The source of a uid that was deleted from the archive goes only where that is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use desfmt::{Date, Digest, Uid};
use desstore::Archive;
use packer::{BeneathError, Roots};
use rustix::fs::AtFlags;
use tokio::sync::mpsc;

use crate::days::Window;
use crate::error::MigrateError;
use crate::migrator::{Migrator, blocking};
use crate::rows::{Key, SourceRow};
use crate::state::{Claim, Cleaned, Exception, Kind, Stage};
use crate::verify::{Exceptions, read_back};

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

/// The most that is read at once.
const PIECE_BYTES: usize = 1 << 20;

impl Migrator {
    /// Removes the sources of all days that may be cleaned up; says what was done.
    pub async fn cleanup(&self, plan: CleanupPlan) -> Result<Cleaned, MigrateError> {
        let roots = self.sources.roots.clone().ok_or_else(|| {
            MigrateError::refused("sources.roots is empty: only files beneath named directories are ever removed")
        })?;
        self.hold_name().await?;
        self.bind().await?;
        let mut sum = Cleaned::default();
        while !self.is_stopping() {
            let (worker, lease) = (self.plan.worker.clone(), self.plan.lease);
            let claim = self.ask(move |state| state.claim_cleanup(&worker, plan.delay, lease)).await?;
            let Some(claim) = claim else { break };
            let cleaned = self.clean_day(claim, plan, &roots).await?;
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

    async fn clean_day(&self, claim: Claim, plan: CleanupPlan, roots: &Arc<Roots>) -> Result<Cleaned, MigrateError> {
        let day = claim.day;
        let excepted = self.ask(move |state| state.excepted(day, Stage::Migrate)).await?;
        let archive = self.reading().open().await?;
        let (exceptions, noting) = self.take_exceptions(&[claim]);
        let mut pass = Cleaner {
            migrator: self,
            archive,
            roots: Arc::clone(roots),
            plan,
            day,
            excepted,
            exceptions,
            cleaned: Cleaned::default(),
            directories: BTreeMap::new(),
        };
        let outcome = pass.run().await;
        let cleaned = pass.cleaned;
        drop(pass);
        noting.await.map_err(MigrateError::died)??;
        outcome?;
        self.metrics.sources_removed.inc_by(cleaned.removed);
        Ok(cleaned)
    }

    /// Reads all rows of a window, a page at a time; goes on where it was when the database comes back.
    async fn read_rows(&self, window: Window, pages: mpsc::Sender<Vec<SourceRow>>) -> Result<(), MigrateError> {
        let mut after: Option<Key> = None;
        let mut waiting = self.waiting();
        loop {
            let (source, sender, from) = (Arc::clone(&self.source), pages.clone(), after.clone());
            let (outcome, last) = blocking(move || {
                let mut last = from.clone();
                let outcome = source.scan(window, from, &mut |page| {
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

/// Cleans up one day.
struct Cleaner<'a> {
    migrator: &'a Migrator,
    archive: Arc<Archive>,
    roots: Arc<Roots>,
    plan: CleanupPlan,
    day: Date,
    excepted: BTreeSet<String>,
    exceptions: Exceptions,
    cleaned: Cleaned,
    /// Directories that files were removed from, to be made durable together.
    directories: BTreeMap<PathBuf, OwnedFd>,
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
    Removed(u64, PathBuf, OwnedFd),
    Gone,
    Kept(Kind, String),
}

impl Cleaner<'_> {
    async fn run(&mut self) -> Result<(), MigrateError> {
        let (sender, mut pages) = mpsc::channel(PAGES_AHEAD);
        let (migrator, window) = (self.migrator.clone(), Window::of(self.day));
        let reading = tokio::spawn(async move { migrator.read_rows(window, sender).await });
        while let Some(page) = pages.recv().await {
            for row in page {
                if !self.excepted.contains(&row.uid) {
                    self.clean(&row).await?;
                }
            }
            if self.directories.len() >= DIRECTORIES_MAX {
                self.sync().await?;
            }
        }
        reading.await.map_err(MigrateError::died)??;
        self.sync().await
    }

    async fn clean(&mut self, row: &SourceRow) -> Result<(), MigrateError> {
        let location = row.location.clone().unwrap_or_default();
        let path = PathBuf::from(location.strip_prefix("file://").unwrap_or(&location));
        if location.is_empty() || location.starts_with("s3://") {
            return Ok(());
        }
        let held = match Uid::new(row.uid.as_str()) {
            Ok(uid) => self.held(&uid).await?,
            Err(_) => Held::Nothing,
        };
        let (roots, remove_deleted) = (Arc::clone(&self.roots), self.plan.remove_deleted);
        let fate = blocking(move || remove(&roots, &path, &held, remove_deleted)).await?;
        match fate {
            Fate::Removed(bytes, directory, handle) => {
                self.cleaned.removed += 1;
                self.cleaned.bytes = self.cleaned.bytes.saturating_add(bytes);
                self.directories.entry(directory).or_insert(handle);
            }
            Fate::Gone => self.cleaned.gone += 1,
            Fate::Kept(kind, reason) => {
                self.cleaned.kept += 1;
                let exception = Exception {
                    uid: row.uid.clone(),
                    created_at: Some(row.created_at),
                    day: Some(self.day),
                    stage: Stage::Cleanup,
                    kind,
                    reason,
                    source: location,
                    rows: 1,
                };
                // Whoever takes them has failed, and tells why.
                drop(self.exceptions.send(vec![exception]).await);
            }
        }
        Ok(())
    }

    /// Reads back what the archive holds, now.
    async fn held(&self, uid: &Uid) -> Result<Held, MigrateError> {
        if let Some(file) = self.archive.lookup(self.day, uid).await? {
            let digest = read_back(&self.archive, self.day, &file).await?;
            return Ok(Held::Content(digest, file.len));
        }
        let is_deleted = self.migrator.reading().is_deleted(self.day, uid).await?;
        Ok(if is_deleted { Held::Deleted } else { Held::Nothing })
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

/// Removes a source that the archive holds as it is.
fn remove(roots: &Roots, path: &Path, held: &Held, remove_deleted: bool) -> Fate {
    let kept = |kind, reason: String| Fate::Kept(kind, reason);
    let file = match roots.open_file(path) {
        Ok(file) => file,
        Err(BeneathError::Missing) => return Fate::Gone,
        Err(error) => return kept(Kind::SourceChanged, error.to_string()),
    };
    let state = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return kept(Kind::SourceChanged, "the source is not a regular file".to_owned()),
        Err(error) => return kept(Kind::SourceChanged, format!("the source cannot be read: {error}")),
    };
    match held {
        Held::Nothing => return kept(Kind::NotArchived, "the archive does not hold it; the source stays".to_owned()),
        Held::Deleted if !remove_deleted => {
            let reason = "the uid was deleted from the archive; --remove-deleted removes such sources too".to_owned();
            return kept(Kind::SourceOfDeleted, reason);
        }
        Held::Deleted => {}
        Held::Content(digest, len) => {
            let found = if state.len() == *len { digest_of(&file) } else { Ok(None) };
            match found {
                Ok(Some(found)) if found == *digest => {}
                Ok(_) => {
                    let reason = "the source is not what the archive holds; it stays".to_owned();
                    return kept(Kind::SourceChanged, reason);
                }
                Err(error) => return kept(Kind::SourceChanged, format!("the source cannot be read: {error}")),
            }
        }
    }
    unlink(roots, path, &file, &state)
}

/// Takes the name away, if it still is that of the very file, unchanged.
fn unlink(roots: &Roots, path: &Path, file: &File, state: &std::fs::Metadata) -> Fate {
    let kept = |reason: String| Fate::Kept(Kind::SourceChanged, reason);
    let (parent, name): (OwnedFd, OsString) = match roots.open_parent(path) {
        Ok(found) => found,
        Err(error) => return kept(error.to_string()),
    };
    let named = match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => named,
        Err(rustix::io::Errno::NOENT) => return Fate::Gone,
        Err(errno) => return kept(format!("the source cannot be looked at: {errno}")),
    };
    let is_same = file.metadata().is_ok_and(|now| {
        let of = |one: &std::fs::Metadata| {
            (one.dev(), one.ino(), one.len(), one.mtime(), one.mtime_nsec(), one.ctime(), one.ctime_nsec())
        };
        of(&now) == of(state) && (named.st_dev, named.st_ino) == (now.dev(), now.ino())
    });
    if !is_same {
        return kept("the source changed while it was compared; it stays".to_owned());
    }
    match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) => {
            let directory = path.parent().map(Path::to_owned).unwrap_or_default();
            Fate::Removed(state.len(), directory, parent)
        }
        Err(rustix::io::Errno::NOENT) => Fate::Gone,
        Err(errno) => kept(format!("the source cannot be removed: {errno}")),
    }
}

fn digest_of(mut file: &File) -> std::io::Result<Option<Digest>> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finalize())),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Roots) {
        let place = tempfile::tempdir().unwrap();
        let roots = Roots::open(&[place.path().to_owned()], false).unwrap();
        (place, roots)
    }

    fn holds(content: &[u8]) -> Held {
        Held::Content(blake3::hash(content), u64::try_from(content.len()).unwrap())
    }

    #[test]
    fn only_a_source_that_is_what_the_archive_holds_is_removed() {
        let (place, roots) = place();
        let path = place.path().join("file");
        for (held, remove_deleted, is_removed) in [
            (holds(b"content"), false, true),
            (holds(b"CONTENT"), false, false),
            (holds(b"longer content"), false, false),
            (Held::Nothing, true, false),
            (Held::Deleted, false, false),
            (Held::Deleted, true, true),
        ] {
            std::fs::write(&path, b"content").unwrap();
            let fate = remove(&roots, &path, &held, remove_deleted);
            assert_eq!(matches!(fate, Fate::Removed(7, ..)), is_removed);
            assert_eq!(path.try_exists().unwrap(), !is_removed);
        }
    }

    #[test]
    fn what_is_gone_is_gone_and_what_is_no_file_stays() {
        let (place, roots) = place();
        assert!(matches!(remove(&roots, &place.path().join("none"), &holds(b""), false), Fate::Gone));
        std::os::unix::fs::symlink("/etc/passwd", place.path().join("link")).unwrap();
        let link = remove(&roots, &place.path().join("link"), &holds(b""), false);
        assert!(matches!(link, Fate::Kept(Kind::SourceChanged, _)));
        let elsewhere = remove(&roots, Path::new("/etc/passwd"), &holds(b""), false);
        assert!(matches!(elsewhere, Fate::Kept(Kind::SourceChanged, _)));
    }

    #[test]
    fn a_file_that_was_exchanged_after_it_was_compared_stays() {
        let (place, roots) = place();
        let path = place.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let file = roots.open_file(&path).unwrap();
        let state = file.metadata().unwrap();
        std::fs::write(place.path().join("other"), b"content").unwrap();
        std::fs::rename(place.path().join("other"), &path).unwrap();

        assert!(matches!(unlink(&roots, &path, &file, &state), Fate::Kept(Kind::SourceChanged, _)));
        assert!(path.try_exists().unwrap());
    }
}
