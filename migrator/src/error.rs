//! What stops a migration. A single bad row or file never does: it becomes an exception.

use desfmt::Date;
use desstore::{ArchiveError, ConnectError};
use packer::PackError;

/// What the database could not do, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The connection is gone, or the server is not ready: trying again may help. Whether a commit took effect is unknown.
    #[error("the database is away while {doing}")]
    Away {
        /// What was being done.
        doing: &'static str,
        /// What the driver says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server refuses.
    #[error("the database refuses {doing}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What the server says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is there is not what was asked for; the text names the remedy.
    #[error("{reason}")]
    Unfit {
        /// What, and the remedy.
        reason: String,
    },
}

impl DatabaseError {
    /// True when the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::Refused { .. } | Self::Unfit { .. } => false,
        }
    }

    pub(crate) fn unfit(reason: impl Into<String>) -> Self {
        Self::Unfit { reason: reason.into() }
    }
}

/// Why a run stopped. Running it again goes on from what was marked.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database could not do its part.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Packing stopped.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The archive cannot be read.
    #[error("the archive cannot be read")]
    Archive(#[from] ArchiveError),
    /// The store behind the archive cannot be reached.
    #[error(transparent)]
    Store(#[from] ConnectError),
    /// The spool cannot take the account of a batch, or a source root cannot be used.
    #[error("{what}")]
    Disk {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another worker has this day now: the lease ran out, or the database was set back.
    #[error("{day} is no longer this worker's; what was packed stays, and whoever has the day goes on from there")]
    Overtaken {
        /// The day.
        day: Date,
    },
    /// The request makes no sense.
    #[error("{reason}")]
    Refused {
        /// Why, and the remedy.
        reason: String,
    },
    /// The rows of a batch do not add up: the mark is not set.
    #[error("{rows} rows were read and {accounted} are accounted for; nothing is marked")]
    Unaccounted {
        /// Rows that the database gave.
        rows: u64,
        /// Rows whose fate is known.
        accounted: u64,
    },
    /// A thread of the program died.
    #[error("a worker thread died")]
    Died {
        /// What is known of it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl MigrateError {
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }

    pub(crate) fn disk(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Disk { what, source }
    }

    pub(crate) fn died(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Died { source: Box::new(source) }
    }
}
