//! Whether a store may be written to, found out while the input is read and the first shards are built. Nothing is published
//! before it is known.
//!
//! Some servers take a second for each writer that loses a race for one key, and trying holds two such races.

use std::fmt;

use desstore::ArchiveError;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, pending};

/// What trying a store comes to. Clones share it; it goes on while any of them is waited for.
#[derive(Clone)]
pub struct Proof(Shared<BoxFuture<'static, Result<(), ArchiveError>>>);

impl Proof {
    /// Of a store that needs no trying.
    pub fn given() -> Self {
        Self::of(async { Ok(()) })
    }

    /// Of a store that is being tried.
    pub fn of(trying: impl Future<Output = Result<(), ArchiveError>> + Send + 'static) -> Self {
        Self(trying.boxed().shared())
    }

    /// Waits until the store is proven, or why it may not be written to.
    pub async fn passed(&self) -> Result<(), ArchiveError> {
        self.0.clone().await
    }

    /// Why the store may not be written to; waits for ever where it may.
    pub(crate) async fn failed(&self) -> ArchiveError {
        match self.passed().await {
            Ok(()) => pending().await,
            Err(error) => error,
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proof").field(&self.0.peek()).finish()
    }
}
