//! A directory of its own for each run, where rows are sorted and shards are built before they are published.
//!
//! ```text
//! SPOOL/lock          held for a moment by whoever creates or removes a run
//! SPOOL/run-N/lock    held as long as that run lives: the kernel lets go of it even after SIGKILL
//! SPOOL/run-N/...     whatever the run needs
//! ```
//!
//! A run that finds another's directory without a holder removes it, so nothing is left over for ever, save notes of uploads
//! that were begun: they stay until the uploads were taken back.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use desfmt::Timestamp;
use desstore::{Connected, S3Store};

use crate::error::PackError;

/// The directory of one run. Removed on drop, and by the next run if this one is killed.
#[derive(Debug)]
pub(crate) struct Spool {
    root: PathBuf,
    dir: PathBuf,
    files: AtomicU64,
    _held: File,
}

const LOCK: &str = "lock";
const RUN_PREFIX: &str = "run-";

/// The ending of notes of uploads.
const UPLOAD_NOTE: &str = S3Store::NOTE;

impl Spool {
    /// Creates a directory for this run below `root` and removes those of dead runs.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let gate = open_lock(&root.join(LOCK))?;
        gate.lock()?;
        remove_dead_runs(root)?;
        let mut number = 0_u64;
        let dir = loop {
            let dir = root.join(format!("{RUN_PREFIX}{number}"));
            match fs::create_dir(&dir) {
                Ok(()) => break dir,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        };
        let held = open_lock(&dir.join(LOCK))?;
        held.lock()?;
        Ok(Self { root: root.to_owned(), dir, files: AtomicU64::new(0), _held: held })
    }

    /// This run's directory, for who names files in it by himself.
    pub(crate) fn directory(&self) -> &Path {
        &self.dir
    }

    /// A path in this run's directory that was not given out before.
    pub(crate) fn fresh_path(&self, suffix: &str) -> PathBuf {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{number}{suffix}"))
    }

    /// A new file for reading and writing that has no name any more: it is gone when it is closed.
    pub(crate) fn nameless_file(&self) -> io::Result<File> {
        let path = self.fresh_path(".rows");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "spool directory stays; the next run removes it");
        }
        // Also of a run that was still dying when this one began.
        let removed = open_lock(&self.root.join(LOCK)).and_then(|gate| {
            gate.lock()?;
            remove_dead_runs(&self.root)
        });
        if let Err(error) = removed {
            tracing::debug!(spool = %self.root.display(), %error, "spools of dead runs stay");
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn remove_dead_runs(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(RUN_PREFIX) || !entry.file_type()?.is_dir() {
            continue;
        }
        // The gate is held, so no run is between creating its directory and locking it. One that is ending may take its
        // directory away under our hands.
        match open_lock(&entry.path().join(LOCK)) {
            Ok(lock) if lock.try_lock().is_ok() => {
                tracing::info!(dir = %entry.path().display(), "removing the spool of a run that died");
                gone_is_fine(remove_dead_run(&entry.path()))?;
            }
            Ok(_) => {}
            Err(error) => gone_is_fine(Err(error))?,
        }
    }
    Ok(())
}

/// Removes a directory with all but the notes in it, and itself where there are none.
fn remove_dead_run(dir: &Path) -> io::Result<()> {
    let mut has_notes = false;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UPLOAD_NOTE) {
            has_notes = true;
        } else if path.is_dir() {
            gone_is_fine(fs::remove_dir_all(path))?;
        } else if path.file_name().is_none_or(|name| name != LOCK) {
            gone_is_fine(fs::remove_file(path))?;
        }
    }
    if has_notes { Ok(()) } else { fs::remove_dir_all(dir) }
}

/// The directories of runs that died.
fn dead_runs(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut dead = Vec::new();
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(dead),
        entries => entries?,
    };
    let gate = open_lock(&root.join(LOCK))?;
    gate.lock()?;
    for entry in entries {
        let path = entry?.path();
        let is_run = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(RUN_PREFIX));
        let is_dead = || open_lock(&path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if is_run && is_dead() {
            dead.push(path);
        }
    }
    Ok(dead)
}

/// Takes back the uploads to buckets that runs which died had begun. Where there are several buckets, one that does not answer
/// keeps its uploads until a later run: the others can be used without it.
async fn take_back_uploads(root: &Path, buckets: &[S3Store]) -> Result<(), PackError> {
    for dir in dead_runs(root).map_err(|source| PackError::spool(root, source))? {
        let (mut followed, mut kept) = (BTreeSet::new(), BTreeSet::new());
        // Servers may have buckets of one name: a note is followed in all of them.
        for bucket in buckets {
            for (note, key) in bucket.noted_uploads(&dir).map_err(|source| PackError::spool(&dir, source))? {
                match bucket.abort_uploads(&key).await {
                    Ok(_) => drop(followed.insert(note)),
                    Err(error) if buckets.len() > 1 => {
                        tracing::warn!(%key, %error, "an upload that a dead run had begun stays for a later run");
                        kept.insert(note);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for note in followed.difference(&kept) {
            gone_is_fine(fs::remove_file(note)).map_err(|source| PackError::spool(note, source))?;
        }
    }
    Ok(())
}

/// When the oldest file was written that lies in a spool, be it of a run that lives or of one that died: its bytes may be
/// those of a deleted file. A note counts too, since an unfinished upload holds bytes. None where there is no spool.
pub fn oldest_in_spool(root: &Path) -> Result<Option<Timestamp>, PackError> {
    let mut oldest = None;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PackError::spool(path, source)
    };
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = match fs::read_dir(&directory) {
            // A run that has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(failed(&directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed(&directory))?;
            if entry.file_name() == LOCK {
                continue;
            }
            let found = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed(&entry.path()))?,
            };
            if found.is_dir() {
                open.push(entry.path());
                continue;
            }
            let written = found.modified().map_err(failed(&entry.path()))?;
            let since = written.duration_since(UNIX_EPOCH).unwrap_or_default();
            let written = Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
            oldest = Some(oldest.map_or(written, |oldest: Timestamp| oldest.min(written)));
        }
    }
    Ok(oldest)
}

/// Takes away what processes that died have left on this host and of uploads that they had begun: bytes that nobody needs,
/// and that may be those of a deleted file. To be called before a run with the same spool.
pub async fn clear_debris(connected: &Connected, root: &Path) -> Result<(), PackError> {
    for directory in &connected.directories {
        match directory.clean_debris() {
            Ok(_) => {}
            Err(error) if connected.zones.is_some() => tracing::warn!(%error, "what dead processes have left stays"),
            Err(error) => return Err(error.into()),
        }
    }
    take_back_uploads(root, &connected.buckets).await?;
    drop(Spool::open(root).map_err(|source| PackError::spool(root, source))?);
    Ok(())
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_run_is_left_alone_and_a_dead_one_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let living = Spool::open(root.path()).unwrap();
        fs::write(living.fresh_path(".des"), b"precious").unwrap();
        let dead = root.path().join("run-7");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("0.des"), b"debris").unwrap();

        let second = Spool::open(root.path()).unwrap();

        assert!(!dead.try_exists().unwrap());
        assert_ne!(living.dir, second.dir);
        assert!(living.dir.join("0.des").try_exists().unwrap());
    }

    #[test]
    fn a_dead_run_goes_with_the_directories_in_it() {
        let root = tempfile::tempdir().unwrap();
        let dead = root.path().join("run-7");
        fs::create_dir_all(dead.join("0.repack")).unwrap();
        fs::write(dead.join("0.repack/old.des"), b"bytes of a deleted file").unwrap();

        drop(Spool::open(root.path()).unwrap());

        assert!(!dead.try_exists().unwrap());
    }

    #[test]
    fn a_spool_is_as_old_as_the_oldest_file_in_any_run() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(oldest_in_spool(&root.path().join("nowhere")).unwrap(), None);
        let living = Spool::open(root.path()).unwrap();
        assert_eq!(oldest_in_spool(root.path()).unwrap(), None, "locks hold nothing");
        for (name, seconds) in [("a.des", 7_000), ("b.des.upload", 5_000)] {
            let path = living.directory().join(name);
            fs::write(&path, b"x").unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }

        assert_eq!(oldest_in_spool(root.path()).unwrap(), Some(Timestamp::from_micros(5_000_000_000)));
    }

    #[test]
    fn a_run_that_dies_while_the_next_begins_is_removed_when_that_ends() {
        let root = tempfile::tempdir().unwrap();
        let dying = root.path().join("run-7");
        fs::create_dir(&dying).unwrap();
        let held = open_lock(&dying.join(LOCK)).unwrap();
        held.lock().unwrap();
        let next = Spool::open(root.path()).unwrap();
        assert!(dying.try_exists().unwrap());

        drop(held);
        drop(next);

        assert!(!dying.try_exists().unwrap());
    }

    #[test]
    fn notes_of_uploads_outlive_a_dead_run_until_they_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let dead = root.path().join("run-7");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("0.des"), b"debris").unwrap();
        fs::write(dead.join("0.des.upload"), b"s3://bucket/a\nshards/x.des\n").unwrap();

        drop(Spool::open(root.path()).unwrap());

        assert_eq!(dead_runs(root.path()).unwrap(), std::slice::from_ref(&dead));
        assert!(!dead.join("0.des").try_exists().unwrap());
        fs::remove_file(dead.join("0.des.upload")).unwrap();
        drop(Spool::open(root.path()).unwrap());
        assert!(!dead.try_exists().unwrap());
    }

    #[test]
    fn a_run_that_ends_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        fs::write(spool.fresh_path(".des"), b"x").unwrap();

        drop(spool);

        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }
}
