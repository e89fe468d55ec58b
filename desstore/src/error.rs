//! What can go wrong with a store, by what a caller can do about it.

use std::error::Error;
use std::sync::Arc;

/// A storage operation that failed: which one, on what, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {key}: {kind}")]
pub struct StoreError {
    /// What a caller may decide on.
    pub kind: StoreErrorKind,
    operation: &'static str,
    key: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The reactions that a failed storage operation calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreErrorKind {
    /// There is no such object.
    #[error("no such object")]
    NotFound,
    /// An object of that key exists already.
    #[error("the object exists already")]
    AlreadyExists,
    /// The object is not in the version that was asked for.
    #[error("the object has changed")]
    PreconditionFailed,
    /// The credentials, or the permissions of a directory, do not allow it.
    #[error("permission denied")]
    Denied,
    /// The store asks for fewer requests.
    #[error("the store is throttling")]
    Throttled,
    /// The store cannot be reached or answered with an error of its own. Whether a write took effect is unknown.
    #[error("the store is unavailable")]
    Unavailable,
    /// No space or quota is left.
    #[error("no space left")]
    Full,
    /// The answer is not what the store was asked for: a short body, another range, another length.
    #[error("the answer does not fit the request")]
    Corrupt,
    /// The store cannot do this at all.
    #[error("the store does not support this")]
    Unsupported,
}

impl StoreErrorKind {
    /// True when the same call may succeed later.
    pub const fn is_transient(self) -> bool {
        match self {
            Self::Throttled | Self::Unavailable | Self::Corrupt => true,
            Self::NotFound
            | Self::AlreadyExists
            | Self::PreconditionFailed
            | Self::Denied
            | Self::Full
            | Self::Unsupported => false,
        }
    }
}

impl StoreError {
    /// An error of an operation on a key or prefix.
    #[expect(clippy::needless_pass_by_value, reason = "takes keys and texts by reference alike")]
    pub fn new(kind: StoreErrorKind, operation: &'static str, key: impl ToString) -> Self {
        Self { kind, operation, key: key.to_string(), source: None }
    }

    /// The key or prefix it was about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What caused it, where that is known.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// The same with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}
