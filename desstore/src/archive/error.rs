//! What can go wrong with an archive, by what a caller can do about it.

use desfmt::FormatError;

use crate::error::{StoreError, StoreErrorKind};

/// An operation on an archive that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArchiveError {
    /// The store could not do its part; its kind says whether trying again may help.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes of an object are not what they should be. Never served as data.
    #[error("{object} cannot be used")]
    Damaged {
        /// The object's key.
        object: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// Two parts of the archive contradict each other, such as a listed object that is missing.
    #[error("{object}: {detail}")]
    Inconsistent {
        /// The object's key.
        object: String,
        /// The contradiction and the remedy.
        detail: String,
    },
    /// The content that was being read is no longer there.
    #[error("{object}: the file was deleted and its bytes are gone")]
    Gone {
        /// What was read.
        object: String,
    },
    /// The archive or this way of opening it does not take changes.
    #[error("the archive is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// The request itself is not possible; says why and what to do instead.
    #[error("{reason}")]
    Refused {
        /// Why, and the remedy.
        reason: String,
    },
}

impl ArchiveError {
    /// Damage found in an object.
    pub(crate) fn damaged(object: &impl ToString, source: FormatError) -> Self {
        Self::Damaged { object: object.to_string(), source }
    }

    /// A contradiction that involves an object.
    pub(crate) fn inconsistent(object: &impl ToString, detail: impl Into<String>) -> Self {
        Self::Inconsistent { object: object.to_string(), detail: detail.into() }
    }

    /// A request that is not possible.
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }

    /// True when an object is not there or not what it should be, so that a copy of it could be.
    pub(crate) const fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Inconsistent { .. } => true,
            Self::Store(error) => matches!(error.kind, StoreErrorKind::NotFound | StoreErrorKind::Corrupt),
            Self::Gone { .. } | Self::ReadOnly { .. } | Self::Refused { .. } => false,
        }
    }

    /// True when an object that should be there is missing or has become another version: a fresh look at the manifest
    /// may explain it.
    pub(crate) const fn may_be_stale(&self) -> bool {
        match self {
            Self::Store(error) => {
                matches!(error.kind, StoreErrorKind::NotFound | StoreErrorKind::PreconditionFailed)
            }
            Self::Damaged { .. }
            | Self::Inconsistent { .. }
            | Self::Gone { .. }
            | Self::ReadOnly { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// The same after a fresh look at the manifest: what it lists is not there.
    pub(crate) fn unexplained(self, date: desfmt::Date) -> Self {
        if !self.may_be_stale() {
            return self;
        }
        let Self::Store(error) = self else { return self };
        let detail = format!("the manifest of {date} lists it, but: {error}; run des-verify");
        Self::Inconsistent { object: error.key().to_owned(), detail }
    }
}
