//! What a request can come to, and what the kernel is told of it.

use desstore::{ArchiveError, StoreErrorKind};
use rustix::io::Errno;

/// Why a request has no answer but an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FsError {
    /// There is no such name. Only ever said after a positive look.
    #[error("no such file")]
    NoEntry,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// A file was needed.
    #[error("is a directory")]
    IsADirectory,
    /// Something visible is left in the directory.
    #[error("directory not empty")]
    NotEmpty,
    /// The mount or the archive takes no changes, or not this one.
    #[error("read-only")]
    ReadOnly,
    /// The mount does not let this user delete.
    #[error("this user may not delete here")]
    NotPermitted,
    /// The mount does not let this program list.
    #[error("this program may not list here")]
    ProgramDenied,
    /// `delete_limit` is used up.
    #[error("the limit of deletions is used up")]
    DeletionsUsedUp,
    /// The name is longer than a file name can be.
    #[error("name too long")]
    NameTooLong,
    /// The inode stands for nothing, or no longer.
    #[error("stale inode")]
    Stale,
    /// There is no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// No answer within the deadline.
    #[error("no answer within the deadline")]
    DeadlineExceeded,
    /// The archive could not do it.
    #[error(transparent)]
    Archive(ArchiveError),
}

impl FsError {
    /// What the kernel is told. Every kind is named: a new one does not compile until it has an answer.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoEntry => Errno::NOENT,
            Self::NotADirectory => Errno::NOTDIR,
            Self::IsADirectory => Errno::ISDIR,
            Self::NotEmpty => Errno::NOTEMPTY,
            Self::ReadOnly => Errno::ROFS,
            Self::NotPermitted => Errno::PERM,
            Self::ProgramDenied => Errno::ACCESS,
            Self::DeletionsUsedUp => Errno::DQUOT,
            Self::NameTooLong => Errno::NAMETOOLONG,
            Self::Stale => Errno::STALE,
            Self::NoAttribute => Errno::NODATA,
            Self::DeadlineExceeded => Errno::IO,
            Self::Archive(error) => archive_errno(error),
        }
    }

    /// True when it tells of trouble that an operator should see, false when it is an ordinary answer.
    pub const fn is_trouble(&self) -> bool {
        match self {
            Self::DeadlineExceeded => true,
            Self::Archive(error) => match error {
                ArchiveError::Store(_)
                | ArchiveError::Damaged { .. }
                | ArchiveError::Inconsistent { .. }
                | ArchiveError::Refused { .. } => true,
                ArchiveError::Gone { .. } | ArchiveError::ReadOnly { .. } => false,
            },
            Self::NoEntry
            | Self::NotADirectory
            | Self::IsADirectory
            | Self::NotEmpty
            | Self::ReadOnly
            | Self::NotPermitted
            | Self::ProgramDenied
            | Self::DeletionsUsedUp
            | Self::NameTooLong
            | Self::Stale
            | Self::NoAttribute => false,
        }
    }
}

/// An archive that cannot be read is EIO, whatever the store says: a missing object or a refused key is never a missing
/// file or a file's own permission.
const fn archive_errno(error: &ArchiveError) -> Errno {
    match error {
        ArchiveError::Gone { .. } => Errno::STALE,
        ArchiveError::ReadOnly { .. } => Errno::ROFS,
        ArchiveError::Store(error) => match error.kind {
            StoreErrorKind::Full => Errno::NOSPC,
            StoreErrorKind::NotFound
            | StoreErrorKind::AlreadyExists
            | StoreErrorKind::PreconditionFailed
            | StoreErrorKind::Denied
            | StoreErrorKind::Throttled
            | StoreErrorKind::Unavailable
            | StoreErrorKind::Corrupt
            | StoreErrorKind::Unsupported => Errno::IO,
        },
        ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. } | ArchiveError::Refused { .. } => Errno::IO,
    }
}
