//! A store in a local directory: nothing to install, and the same promises as an object store.
//!
//! A key is the path of a regular file below the root. Every object is written aside, made durable, and gets its name in one
//! step: link(2), which fails where there is a file, or rename(2) under a lock that all writers of the root share. Files and
//! the directories that name them are synced before a write is acknowledged. Names with a leading dot are the store's own.
//!
//! Symbolic links below the root are errors, never followed and never passed over in silence: what lies behind them would
//! otherwise be missing without a word. New files and directories take their permissions from the root.

mod failure;
mod files;
mod listing;
mod root;
mod spool;
#[cfg(test)]
mod tests;
mod trail;
mod version;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use self::failure::Failure;
use self::files::{OpenFile, OpenFiles};
use self::root::Root;
use self::spool::TempFile;
use self::write::Condition;
use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// The hidden directory for files under construction.
pub(crate) const SPOOL: &str = spool::DIRECTORY;

/// The file that replacing and removing writers lock.
const LOCK: &str = ".lock";

/// How long a writer waits for another process that holds the lock. A stopped one must not stop everybody.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(20);
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(2);

/// Most files that stay open for reading.
const OPEN_FILES_MAX: usize = 256;

/// Most keys in one page of a listing: a directory that holds more is read once for each page.
const PAGE_LEN: usize = 65_536;

/// An archive's objects as files below a directory.
///
/// Reads and listings never wait: their futures are complete at the first poll. Writes run on tokio's blocking threads where
/// there is a runtime, else in place, waiting as long as another process holds the lock.
///
/// Objects that are read by range or tail stay open, a few hundred of them. An open file is asked at each use whether it
/// still has its name, so a removed or replaced object is noticed at once, save where somebody gave its file another name
/// (a hard link). Idle ones hold the disk space of removed objects until a sweep, which listings and revalidations set off
/// twice a minute, and [`LocalStore::close_removed`] at once.
#[derive(Debug, Clone)]
pub struct LocalStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: Root,
    clock: Arc<dyn Clock>,
    files: OpenFiles,
    /// Queues the writers of this process, so that only processes have to poll for the lock.
    writers: Arc<tokio::sync::Mutex<()>>,
    stamps: AtomicU64,
    page_len: usize,
}

impl LocalStore {
    /// Opens an existing directory. `NotFound` where there is none.
    pub fn open(root: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let root = Root::open(root.into()).map_err(|failure| failure.during_text("open", ""))?;
        Ok(Self::over(root, clock))
    }

    /// Creates the directory and its parents where they are missing, durably, and opens it.
    pub fn create(root: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let root = root.into();
        create_durably(&root).map_err(|failure| failure.during_text("create", ""))?;
        Self::open(root, clock)
    }

    fn over(root: Root, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            root,
            clock,
            files: OpenFiles::new(OPEN_FILES_MAX),
            writers: Arc::default(),
            stamps: AtomicU64::new(0),
            page_len: PAGE_LEN,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The directory that was opened.
    pub fn root(&self) -> &Path {
        self.shared.root.path()
    }

    /// A hidden directory on the root's file system, created where it is missing, for files under construction. A finished
    /// one is published by a link instead of a copy. Names that begin with `put-` are the store's own.
    pub fn spool(&self) -> Result<PathBuf, StoreError> {
        self.shared.root.make_directory(spool::DIRECTORY).map_err(|failure| failure.during_text("spool", ""))?;
        Ok(self.root().join(spool::DIRECTORY))
    }

    /// An object as the file that it is here. `NotFound` where there is none.
    pub(crate) fn open_object(&self, key: &ObjectKey) -> Result<std::fs::File, StoreError> {
        let opened = self.shared.open(key).map_err(|failure| failure.during("open", key))?;
        Ok(opened.into_file())
    }

    /// Removes what writers that died left in the spool and says how many files that were. Safe while others write.
    pub fn clean_debris(&self) -> Result<usize, StoreError> {
        spool::clean_debris(&self.shared.root).map_err(|failure| failure.during_text("clean_debris", ""))
    }

    /// Closes open files whose objects have been removed, so that their bytes leave the disk now.
    pub fn close_removed(&self) {
        self.shared.files.close_removed();
    }

    /// Waits for the lock of all replacing writers of this root. Fails with `Unavailable` when its holder does not let go.
    async fn lock(&self) -> Result<Lock, Failure> {
        let queued = Arc::clone(&self.shared.writers).lock_owned().await;
        let root = &self.shared.root;
        let mode = root.file_mode().map_err(|errno| root.failure(errno, LOCK))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(root.fd(), LOCK, flags, mode).map_err(|errno| root.failure(errno, LOCK))?;
        if tokio::runtime::Handle::try_current().is_err() {
            let locked = rustix::fs::flock(&file, FlockOperation::LockExclusive);
            return locked.map(|()| Lock { _file: file, _queued: queued }).map_err(|errno| root.failure(errno, LOCK));
        }
        let deadline = self.shared.clock.monotonic().saturating_add(LOCK_WAIT_MAX);
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { _file: file, _queued: queued }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(errno) => return Err(root.failure(errno, LOCK)),
            }
            if self.shared.clock.monotonic() >= deadline {
                return Err(root.rule(StoreErrorKind::Unavailable, LOCK, "another process holds the lock"));
            }
            self.shared.clock.sleep(LOCK_RETRY_DELAY).await;
        }
    }

    async fn replace(&self, key: &ObjectKey, condition: Condition, payload: Payload) -> Result<Receipt, Failure> {
        self.shared.check_key(key)?;
        let (shared, stamp) = (Arc::clone(&self.shared), self.shared.stamp());
        let temp = blocking(move || TempFile::write(&shared.root, payload, stamp)).await?;
        let lock = self.lock().await?;
        let (shared, key) = (Arc::clone(&self.shared), key.clone());
        blocking(move || {
            let replaced = write::replace(&shared.root, &key, &temp, &condition, shared.stamp());
            shared.files.close(&key);
            drop(lock);
            replaced.map(version::FileVersion::receipt)
        })
        .await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<(), Failure> {
        self.shared.check_key(key)?;
        let lock = self.lock().await?;
        let (shared, key) = (Arc::clone(&self.shared), key.clone());
        blocking(move || {
            let removed = write::remove(&shared.root, &key);
            shared.files.close(&key);
            drop(lock);
            removed
        })
        .await
    }
}

/// Held while an object is compared and replaced, or removed.
#[derive(Debug)]
struct Lock {
    _file: OwnedFd,
    _queued: tokio::sync::OwnedMutexGuard<()>,
}

impl Shared {
    /// A key that this store cannot have is not found, and cannot be written.
    fn check_key(&self, key: &ObjectKey) -> Result<(), Failure> {
        if listing::is_listed(key.as_str()) {
            return Ok(());
        }
        Err(self.root.rule(StoreErrorKind::Unsupported, key.as_str(), "names with a leading dot are the store's own"))
    }

    /// The time for a new file. Two of one process differ even when the clock stands still.
    fn stamp(&self) -> i128 {
        let nanos = i128::from(self.clock.now().micros()).saturating_mul(1_000);
        let salt = self.stamps.fetch_add(1, Ordering::Relaxed).checked_rem(1_000);
        nanos.saturating_add(i128::from(salt.unwrap_or(0)))
    }

    /// Opens an object's file. Makes room and tries again when too many files are open.
    fn open(&self, key: &ObjectKey) -> Result<OpenFile, Failure> {
        if !listing::is_listed(key.as_str()) {
            return Err(self.root.failure(Errno::NOENT, key.as_str()));
        }
        let mut opened = self.root.open_existing(key.as_str(), OFlags::empty());
        if opened.as_ref().is_err_and(|failure| failure.kind == StoreErrorKind::Unavailable) {
            self.files.close_all();
            opened = self.root.open_existing(key.as_str(), OFlags::empty());
        }
        let file = opened?;
        let version = version::stat_file(&file).map_err(|errno| self.root.failure(errno, key.as_str()))?;
        Ok(OpenFile::new(file, version))
    }

    fn open_kept(&self, key: &ObjectKey) -> Result<Arc<OpenFile>, Failure> {
        if let Some(file) = self.files.current(key) {
            return Ok(file);
        }
        let file = Arc::new(self.open(key)?);
        self.files.keep(key, Arc::clone(&file));
        Ok(file)
    }

    fn read(&self, key: &ObjectKey, file: &OpenFile, range: &Range<u64>) -> Result<Bytes, Failure> {
        let corrupt = |rule| self.root.rule(StoreErrorKind::Corrupt, key.as_str(), rule);
        let len = range.end.checked_sub(range.start).filter(|_| range.end <= file.version.len);
        let len = len.ok_or_else(|| corrupt("the file does not hold that range"))?;
        let len = usize::try_from(len).map_err(|_| corrupt("the range does not fit into memory"))?;
        let bytes = file.read(range.start, len).map_err(|errno| self.root.failure(errno, key.as_str()))?;
        bytes.map(Bytes::from).ok_or_else(|| corrupt("the file ends before the range"))
    }

    fn read_whole(&self, key: &ObjectKey, file: &OpenFile, len_max: u64) -> Result<Fetched, Failure> {
        let meta = file.version.meta(key.clone());
        if meta.len > len_max {
            return Err(self.root.rule(StoreErrorKind::Corrupt, key.as_str(), "the file is longer than it may be"));
        }
        let bytes = self.read(key, file, &(0..meta.len))?;
        Ok(Fetched { meta, bytes })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for LocalStore {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        let fetched = self.shared.open(key).and_then(|file| self.shared.read_whole(key, &file, len_max));
        fetched.map_err(|failure| failure.during("get", key))
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.shared.files.close_removed_sometimes(self.shared.clock.monotonic());
        let fetched = self.shared.open(key).and_then(|file| {
            if file.etag == *etag {
                return Ok(None);
            }
            self.shared.read_whole(key, &file, len_max).map(Some)
        });
        fetched.map_err(|failure| failure.during("get_if_changed", key))
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        let bytes = self.shared.open_kept(key).and_then(|file| {
            if etag.is_some_and(|etag| *etag != file.etag) {
                let rule = "the file is another version";
                return Err(self.shared.root.rule(StoreErrorKind::PreconditionFailed, key.as_str(), rule));
            }
            self.shared.read(key, &file, &range)
        });
        bytes.map_err(|failure| failure.during("get_range", key))
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        let fetched = self.shared.open_kept(key).and_then(|file| {
            let end = file.version.len;
            let bytes = self.shared.read(key, &file, &(end.saturating_sub(len)..end))?;
            Ok(Fetched { meta: file.version.meta(key.clone()), bytes })
        });
        fetched.map_err(|failure| failure.during("get_tail", key))
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let file = self.shared.open(key).map_err(|failure| failure.during("head", key))?;
        Ok(file.version.meta(key.clone()))
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let failed = |failure: Failure| failure.during("put_if_absent", key);
        self.shared.check_key(key).map_err(failed)?;
        let (shared, owned_key) = (Arc::clone(&self.shared), key.clone());
        let create = move || write::create(&shared.root, &owned_key, payload, shared.stamp());
        Ok(blocking(create).await.map_err(failed)?.receipt())
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        let replaced = self.replace(key, Condition::Match(etag.clone()), payload).await;
        replaced.map_err(|failure| failure.during("put_if_match", key))
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let replaced = self.replace(key, Condition::Always, payload).await;
        replaced.map_err(|failure| failure.during("put", key))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.remove(key).await.map_err(|failure| failure.during("delete", key))
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        Ok(self.shared.clock.now())
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.shared.files.close_removed_sometimes(self.shared.clock.monotonic());
        let page = listing::list(&self.shared.root, prefix, depth, token, self.shared.page_len);
        page.map_err(|failure| failure.during_text("list", prefix))
    }
}

/// Runs a step that waits for the disk where it holds up nobody else. Once begun, it goes on when its future is dropped.
async fn blocking<T: Send + 'static>(step: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    if tokio::runtime::Handle::try_current().is_err() {
        return step();
    }
    let lost = |_| Failure::rule(StoreErrorKind::Unavailable, "", "the runtime shuts down");
    tokio::task::spawn_blocking(step).await.map_err(lost)?
}

/// Creates a directory and its parents and makes their names durable.
fn create_durably(path: &Path) -> Result<(), Failure> {
    let failure = |error: std::io::Error| Failure::of_io(&error, path.display());
    if path.try_exists().map_err(failure)? {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    create_durably(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failure(error)),
        Ok(()) | Err(_) => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let synced = rustix::fs::open(parent, flags, Mode::empty()).and_then(rustix::fs::fsync);
    synced.map_err(|errno| Failure::of(errno, parent.display()))
}
