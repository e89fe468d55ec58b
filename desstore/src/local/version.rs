//! Which content of a file one means: the entity tags of a local directory.

use desfmt::{ObjectKey, Timestamp};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::store::{ETag, ObjectMeta, Receipt};

/// Time of change, inode and length of a file. A file is never changed in place, and whoever replaces one gives the new one
/// a later time, so a key never shows the same version twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileVersion {
    mtime_nanos: i128,
    inode: u64,
    pub(super) len: u64,
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

impl FileVersion {
    /// The version of a regular file; `None` for anything else.
    pub(super) fn of(stat: &Stat) -> Option<Self> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let seconds = i128::from(stat.st_mtime).saturating_mul(NANOS_PER_SECOND);
        Some(Self {
            mtime_nanos: seconds.saturating_add(i128::from(stat.st_mtime_nsec)),
            inode: stat.st_ino,
            len: u64::try_from(stat.st_size).unwrap_or(0),
        })
    }

    pub(super) fn is_later_than(self, other: Self) -> bool {
        self.mtime_nanos > other.mtime_nanos
    }

    pub(super) fn etag(self) -> ETag {
        ETag(format!("{:x}-{:x}-{:x}", self.mtime_nanos, self.inode, self.len))
    }

    pub(super) fn modified(self) -> Timestamp {
        Timestamp::from_micros(i64::try_from(self.mtime_nanos.div_euclid(1_000)).unwrap_or(i64::MAX))
    }

    pub(super) fn meta(self, key: ObjectKey) -> ObjectMeta {
        ObjectMeta { key, len: self.len, etag: self.etag(), modified: self.modified() }
    }

    pub(super) fn receipt(self) -> Receipt {
        Receipt { etag: self.etag(), at: self.modified() }
    }
}

/// Gives a file that nobody else knows yet the time `nanos`, or the next one after that of the version it replaces.
pub(super) fn set_time(file: &OwnedFd, nanos: i128, replaced: Option<FileVersion>) -> Result<FileVersion, Errno> {
    // File systems round down to what they can keep: nanoseconds, microseconds, seconds or two of them.
    let floor = replaced.map_or(i128::MIN, |replaced| replaced.mtime_nanos);
    for step in [1, 1_000, NANOS_PER_SECOND, 2 * NANOS_PER_SECOND] {
        let wanted = nanos.max(floor.saturating_add(step));
        let time = Timespec {
            tv_sec: i64::try_from(wanted.div_euclid(NANOS_PER_SECOND)).map_err(|_| Errno::INVAL)?,
            tv_nsec: i64::try_from(wanted.rem_euclid(NANOS_PER_SECOND)).map_err(|_| Errno::INVAL)?,
        };
        rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?;
        let version = stat_file(file)?;
        if version.mtime_nanos > floor {
            return Ok(version);
        }
    }
    Err(Errno::OPNOTSUPP)
}

/// The version of an open file; `ENOENT` where it is not a regular file, since only those are objects.
pub(super) fn stat_file(file: impl AsFd) -> Result<FileVersion, Errno> {
    FileVersion::of(&rustix::fs::fstat(file)?).ok_or(Errno::NOENT)
}
