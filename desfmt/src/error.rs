//! Why bytes are not what they should be, by what a caller can do about it.

/// Bytes that cannot be taken for what they were read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes are something else altogether: another kind of file, or another archive's object.
    #[error("not a {what}: {detail}")]
    Foreign {
        /// What was expected.
        what: &'static str,
        /// What was found instead.
        detail: String,
    },
    /// The bytes were right once and are not now: a checksum, a bound or a relation does not hold.
    #[error("damaged {what}: {detail}")]
    Damaged {
        /// The part that is damaged.
        what: &'static str,
        /// Which check failed, with the figures.
        detail: String,
    },
    /// The bytes were written by a later version of DES and say that this one must not read them.
    #[error("{what} needs a newer version of DES: {detail}")]
    TooNew {
        /// The part that is too new.
        what: &'static str,
        /// The version or feature flags found.
        detail: String,
    },
    /// The bytes ask for more memory or time than any honest object needs.
    #[error("{what} is beyond the limits: {detail}")]
    BeyondLimits {
        /// The part that is too large.
        what: &'static str,
        /// The figure and its limit.
        detail: String,
    },
}

impl FormatError {
    /// A check that failed on `what`.
    pub fn damaged(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Damaged { what, detail: detail.into() }
    }

    /// Something else where `what` should be.
    pub fn foreign(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Foreign { what, detail: detail.into() }
    }

    /// A version or flag that this reader does not know.
    pub fn too_new(what: &'static str, detail: impl Into<String>) -> Self {
        Self::TooNew { what, detail: detail.into() }
    }

    /// A figure above its limit.
    pub fn beyond_limits(what: &'static str, detail: impl Into<String>) -> Self {
        Self::BeyondLimits { what, detail: detail.into() }
    }
}
