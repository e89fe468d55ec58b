//! What stops a whole run. A single bad row or file never does: it becomes an issue of the report.

use std::io;
use std::path::PathBuf;

use desfmt::v3::BuildError;
use desstore::ArchiveError;

use crate::input::InputError;

/// Why a run stopped. What was published until then stays; running again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The input cannot be read; nothing was packed.
    #[error("the input cannot be read")]
    Input {
        /// Why not.
        #[from]
        source: InputError,
    },
    /// The request contradicts the archive; nothing was packed.
    #[error("{reason}")]
    Refused {
        /// In what way.
        reason: String,
    },
    /// The archive cannot be read or written.
    #[error("the archive cannot be read or written")]
    Archive {
        /// Why not.
        #[from]
        source: ArchiveError,
    },
    /// The store behind the archive cannot be reached.
    #[error("the archive cannot be opened")]
    Store {
        /// Why not.
        #[from]
        source: desstore::StoreError,
    },
    /// The place of the archive cannot be used at all.
    #[error(transparent)]
    Place {
        /// Why not.
        #[from]
        source: desstore::ConnectError,
    },
    /// The local disk fails: full, read-only or broken.
    #[error("spool: {}", path.display())]
    Spool {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A shard cannot be built.
    #[error("a shard cannot be built")]
    Format {
        /// Why not.
        source: BuildError,
    },
    /// A shard that was just built does not read back: broken memory, a broken disk, or a bug.
    #[error("{}: a shard just built does not read back: {detail}", path.display())]
    Unverified {
        /// The spool file.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// Others kept publishing the same files first.
    #[error("{group}: {attempts} attempts were overtaken by other packers")]
    Overtaken {
        /// The group.
        group: String,
        /// How many attempts.
        attempts: u32,
    },
    /// A thread of the program died.
    #[error("a worker thread died")]
    Died {
        /// What is known of it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PackError {
    pub(crate) fn spool(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Spool { path: path.into(), source }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }
}
