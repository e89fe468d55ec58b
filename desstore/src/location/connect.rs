//! From a place to a store. What lies between a program and the raw store (retries, limits, metrics) is put there by
//! [`crate::stack`], and by nothing else.

use std::sync::Arc;

use super::{Location, StoreOptions};
use crate::clock::{Clock, Randomness};
use crate::error::StoreError;
use crate::local::LocalStore;
use crate::s3::S3Store;
use crate::stack;
use crate::store::ObjectStore;

/// Time and chance for whatever a store does by itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Randomness>,
}

impl Surroundings {
    /// With this clock and this chance.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Randomness>) -> Self {
        Self { clock, random }
    }
}

/// A store that can be used.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The store, with everything around it.
    pub store: Arc<dyn ObjectStore>,
    /// The directory behind it, where it is one: it can clean up after dead processes, and links files.
    pub local: Option<LocalStore>,
    /// The bucket behind it, where it is one: it can take back what dead processes have begun to upload.
    pub bucket: Option<S3Store>,
}

/// A place that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The store does not let itself be used.
    #[error("{place}")]
    Store {
        /// Where.
        place: String,
        /// Why not.
        source: StoreError,
    },
    /// The options make no sense, or what they name cannot be read.
    #[error("{place}: {reason}")]
    Options {
        /// Where.
        place: String,
        /// Which option, and what is wrong with it.
        reason: String,
    },
}

impl Location {
    /// Connects to what exists. No request is sent to a bucket: the first one shows whether it can be used.
    pub async fn connect(
        &self,
        options: &StoreOptions,
        surroundings: &Surroundings,
    ) -> Result<Connected, ConnectError> {
        self.open(options, surroundings, LocalStore::open).await
    }

    /// The same, but a local directory is made where there is none. A bucket never is.
    pub async fn create(&self, options: &StoreOptions, surroundings: &Surroundings) -> Result<Connected, ConnectError> {
        self.open(options, surroundings, LocalStore::create).await
    }

    async fn open(
        &self,
        options: &StoreOptions,
        surroundings: &Surroundings,
        open_local: impl FnOnce(std::path::PathBuf, Arc<dyn Clock>) -> Result<LocalStore, StoreError> + Send,
    ) -> Result<Connected, ConnectError> {
        match self {
            Self::Local(path) => {
                let local = open_local(path.clone(), Arc::clone(&surroundings.clock))
                    .map_err(|source| ConnectError::Store { place: self.to_string(), source })?;
                let store = stack::around(Arc::new(local.clone()), self, options, surroundings);
                Ok(Connected { store, local: Some(local), bucket: None })
            }
            Self::S3(location) => {
                let bucket = S3Store::connect(location, options, surroundings).await?;
                let store = stack::around(Arc::new(bucket.clone()), self, options, surroundings);
                Ok(Connected { store, local: None, bucket: Some(bucket) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StoreErrorKind, SystemClock, SystemRandom};

    #[tokio::test]
    async fn a_directory_is_made_only_where_that_is_asked_for() {
        let scratch = tempfile::tempdir().unwrap();
        let location = Location::Local(scratch.path().join("archive"));
        let surroundings = Surroundings::new(Arc::new(SystemClock::new()), Arc::new(SystemRandom));
        let options = StoreOptions::default();

        let missing = location.connect(&options, &surroundings).await.unwrap_err();
        let created = location.create(&options, &surroundings).await.unwrap();

        assert!(matches!(missing, ConnectError::Store { source, .. } if source.kind == StoreErrorKind::NotFound));
        assert!(created.local.is_some());
        assert!(location.connect(&options, &surroundings).await.is_ok());
    }
}
