//! What can go wrong with a store, by what a caller can do about it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// A storage operation that failed: which one, on what, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {key}: {kind}")]
pub struct StoreError {
    /// What a caller may decide on.
    pub kind: StoreErrorKind,
    operation: &'static str,
    key: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// In seconds, as stores say it; errors are handed on everywhere and should be small.
    retry_after: u32,
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
        Self { kind, operation, key: key.to_string(), source: None, retry_after: 0 }
    }

    /// The key or prefix it was about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What caused it, where that is known.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// How long the store asks to be left alone before the same call; nothing where it does not say.
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(u64::from(self.retry_after))
    }

    /// The same, with how long the store asks to be left alone, in whole seconds.
    #[must_use]
    pub fn to_be_repeated_after(mut self, pause: Duration) -> Self {
        self.retry_after = u32::try_from(pause.as_secs()).unwrap_or(u32::MAX);
        self
    }

    /// The same with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}
