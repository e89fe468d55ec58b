//! Open files of objects that are read by ranges, so that a read costs no walk of the path.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use desfmt::ObjectKey;
use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

use super::version::FileVersion;
use crate::store::ETag;

/// How often a store looks for open files that have lost their names. Until then a removed object occupies the disk.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// A file that was an object when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: OwnedFd,
    pub(super) version: FileVersion,
    pub(super) etag: ETag,
    last_use: AtomicU64,
}

impl OpenFile {
    pub(super) fn new(file: OwnedFd, version: FileVersion) -> Self {
        Self { file, version, etag: version.etag(), last_use: AtomicU64::new(0) }
    }

    pub(super) fn into_file(self) -> std::fs::File {
        self.file.into()
    }

    /// True while the file has a name and is as it was.
    fn is_current(&self) -> bool {
        rustix::fs::fstat(&self.file)
            .is_ok_and(|stat| stat.st_nlink > 0 && FileVersion::of(&stat) == Some(self.version))
    }

    /// Reads `len` bytes at `start`; `None` where the file ends before.
    pub(super) fn read(&self, start: u64, len: usize) -> Result<Option<Vec<u8>>, Errno> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let done = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            match rustix::io::pread(&self.file, spare_capacity(&mut bytes), start.saturating_add(done)) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        bytes.truncate(len);
        Ok(Some(bytes))
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The open files by key, the least recently used ones closed first.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: RwLock<HashMap<ObjectKey, Arc<OpenFile>>>,
    files_max: usize,
    uses: AtomicU64,
    swept_at_micros: AtomicU64,
}

impl OpenFiles {
    pub(super) fn new(files_max: usize) -> Self {
        Self { files: RwLock::default(), files_max, uses: AtomicU64::new(0), swept_at_micros: AtomicU64::new(0) }
    }

    /// The open file of a key, provided that it still is what the key names: one fstat(2), no path walked.
    pub(super) fn current(&self, key: &ObjectKey) -> Option<Arc<OpenFile>> {
        let found = self.files.read().unwrap_or_else(PoisonError::into_inner).get(key).map(Arc::clone)?;
        if found.is_current() {
            found.last_use.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            return Some(found);
        }
        self.close(key);
        None
    }

    pub(super) fn keep(&self, key: &ObjectKey, file: Arc<OpenFile>) {
        file.last_use.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= self.files_max && !files.contains_key(key) {
            let oldest = files.iter().min_by_key(|(_, file)| file.last_use.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                files.remove(&oldest);
            }
        }
        files.insert(key.clone(), file);
    }

    pub(super) fn close(&self, key: &ObjectKey) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    pub(super) fn close_all(&self) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Closes files that have lost their names, so that their bytes leave the disk.
    pub(super) fn close_removed(&self) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).retain(|_, file| file.is_current());
    }

    /// The same, at most once an interval.
    pub(super) fn close_removed_sometimes(&self, now: Duration) {
        let now_micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let swept = self.swept_at_micros.load(Ordering::Relaxed);
        let due = u128::from(now_micros.saturating_sub(swept)) >= SWEEP_INTERVAL.as_micros();
        let ours =
            || self.swept_at_micros.compare_exchange(swept, now_micros, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if due && ours() {
            self.close_removed();
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.files.read().unwrap().len()
    }
}
