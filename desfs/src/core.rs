//! The file system itself, without a kernel: names, attributes, directories, contents and deletion over an
//! [`Archive`]. `docs/semantics.md` is its specification.
//!
//! It holds no state of files. An inode number says which day and entry is meant; the archive finds it again.

mod attributes;
mod deletion;
mod details;
mod directory;
mod error;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use desfmt::Date;
use desstore::{Archive, ArchiveError, FileEntry, Journal, Lease, Totals};

pub use attributes::{Attributes, Kind, Modes};
pub use deletion::{Caller, DeletionPolicy};
pub use directory::DirectoryEntry;
pub use error::FsError;

use crate::inode::Node;
use crate::names::{FileName, NAME_LEN_MAX, Naming};

/// How long the kernel may keep that a name in the root is none of a day.
const NO_DAY_TTL: Duration = Duration::from_hours(1);

/// A mounted archive, to be shared by all requests.
#[derive(Debug)]
pub struct FileSystem {
    archive: Arc<Archive>,
    naming: Naming,
    modes: Modes,
    deletion: DeletionPolicy,
    journal: Option<Arc<Journal>>,
    thinned_days: directory::ThinnedDays,
    totals: Mutex<Totals>,
}

impl FileSystem {
    /// Shows an archive with these modes, under this policy of deletion.
    pub fn new(archive: Arc<Archive>, modes: Modes, deletion: DeletionPolicy) -> Self {
        let naming = Naming::new(archive.identity().archive, archive.bits());
        Self {
            archive,
            naming,
            modes,
            deletion,
            journal: None,
            thinned_days: directory::ThinnedDays::default(),
            totals: Mutex::default(),
        }
    }

    /// The same with deletions that go through a journal.
    #[must_use]
    pub fn with_journal(mut self, journal: Option<Arc<Journal>>) -> Self {
        self.journal = journal;
        self
    }

    /// True when deletions may wait in a journal.
    pub const fn has_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Sees to it that every deletion so far is durable in the store.
    pub async fn sync(&self) -> Result<(), FsError> {
        match &self.journal {
            Some(journal) => Ok(journal.flush().await?),
            None => Ok(()),
        }
    }

    /// What the file system is made of; for deletions, the policy of this mount and the nature of the archive together.
    pub fn can_delete(&self) -> bool {
        self.deletion.is_possible() && !self.archive.is_legacy()
    }

    /// What all caches in memory together may hold at first.
    pub fn memory_bytes(&self) -> u64 {
        self.archive.memory_bytes()
    }

    /// Changes what all caches in memory together may hold.
    pub fn set_memory_bytes(&self, memory_bytes: u64) {
        self.archive.set_memory_bytes(memory_bytes);
    }

    /// Gives up what readers have left behind, in memory and on disk. To be called now and then.
    pub fn tend(&self) {
        self.archive.tend();
    }

    /// Forgets all cached content and indexes.
    pub fn drop_caches(&self) {
        self.archive.drop_caches();
    }

    /// All days that exist, as they were at most `ttl` ago.
    pub async fn days(&self) -> Result<Arc<[Date]>, FsError> {
        Ok(self.archive.days().await?)
    }

    /// Finds a name in a directory.
    pub async fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attributes, FsError> {
        if name.len() > NAME_LEN_MAX {
            return Err(FsError::NameTooLong);
        }
        match self.node(parent)? {
            Node::Root => self.lookup_day(name).await.map(|date| self.day_attributes(date)),
            Node::Day(date) => self.lookup_file(date, name).await.map(|file| self.file_attributes(date, &file)),
            Node::File(..) => Err(FsError::NotADirectory),
        }
    }

    /// Until when a name in a directory is good, to be taken before it is asked for; with no name, until when all are.
    pub fn lease(&self, parent: u64, name: &[u8]) -> Option<Lease> {
        match Node::of_number(parent) {
            Some(Node::Day(date)) => Some(self.archive.lease(Some(date))),
            Some(Node::Root | Node::File(..)) | None => match day_named(name) {
                Ok(date) => Some(self.archive.lease(Some(date))),
                Err(_) if name.is_empty() => Some(self.archive.lease(None)),
                // What is no day's name never becomes one.
                Err(_) => None,
            },
        }
    }

    /// How long the kernel may keep what was found under a lease.
    pub fn left_of(&self, lease: Option<Lease>) -> Duration {
        lease.map_or(NO_DAY_TTL, |lease| self.archive.left_of(lease))
    }

    /// The attributes of an inode.
    pub async fn attributes(&self, inode: u64) -> Result<Attributes, FsError> {
        match self.node(inode)? {
            Node::Root => Ok(self.root_attributes()),
            Node::Day(date) if self.archive.day_exists(date).await? => Ok(self.day_attributes(date)),
            Node::Day(_) => Err(FsError::Stale),
            Node::File(date, birth) => match self.archive.file(date, birth).await? {
                Some(file) => Ok(self.file_attributes(date, &file)),
                None => Err(FsError::Stale),
            },
        }
    }

    /// Reads up to `size` bytes of a file; fewer only at its end.
    pub async fn read(&self, inode: u64, offset: u64, size: u32) -> Result<Bytes, FsError> {
        match self.node(inode)? {
            Node::Root | Node::Day(_) => Err(FsError::IsADirectory),
            Node::File(date, birth) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                Ok(self.archive.read(date, birth, offset, size).await?)
            }
        }
    }

    /// What the archive holds. May take long when it is asked for the first time.
    pub async fn totals(&self) -> Result<Totals, FsError> {
        let totals = self.archive.totals().await?;
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = totals;
        Ok(totals)
    }

    /// What the archive held when that was last found out; nothing before.
    pub fn totals_known(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::unused_self, reason = "reads as a question to the file system")]
    fn node(&self, inode: u64) -> Result<Node, FsError> {
        Node::of_number(inode).ok_or(FsError::Stale)
    }

    /// The day that a name in the root stands for, if it is shown.
    async fn lookup_day(&self, name: &[u8]) -> Result<Date, FsError> {
        let date = day_named(name)?;
        if self.is_day_shown(date).await? { Ok(date) } else { Err(FsError::NoEntry) }
    }

    /// The visible file that a name in a day stands for.
    async fn lookup_file(&self, date: Date, name: &[u8]) -> Result<FileEntry, FsError> {
        let found = match self.naming.decode(name).ok_or(FsError::NoEntry)? {
            FileName::Whole(uid) => self.archive.lookup(date, &uid).await?,
            FileName::Cut(cut) => {
                let is_wanted = |uid: &desfmt::Uid| self.naming.is_cut_name_of(&cut, uid);
                self.archive.lookup_cut(date, cut.bucket, &cut.prefix, &is_wanted).await?
            }
        };
        found.ok_or(FsError::NoEntry)
    }
}

/// The day of a name of the form `YYYYMMDD`.
fn day_named(name: &[u8]) -> Result<Date, FsError> {
    std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(FsError::NoEntry)
}

impl From<ArchiveError> for FsError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

#[cfg(test)]
mod tests;
