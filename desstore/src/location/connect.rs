//! From a place to a store. What lies between a program and the raw store (retries, limits, metrics) is put there by
//! [`crate::stack`], and by nothing else.

use std::sync::Arc;

use super::{Location, PlacedZone, StoreOptions, ZonedLocation};
use crate::archive::ArchiveError;
use crate::clock::{Clock, Randomness};
use crate::error::StoreError;
use crate::local::LocalStore;
use crate::probe::demand_conditions;
use crate::s3::S3Store;
use crate::stack::{self, StackMetrics};
use crate::store::ObjectStore;
use crate::zones::{Zone, ZoneError, ZoneStore};

/// Time and chance for whatever a store does by itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Randomness>,
    /// Where requests are counted.
    pub metrics: StackMetrics,
    /// What a bucket is called in there; by its own name if not given.
    pub zone: Option<String>,
}

impl Surroundings {
    /// With this clock and this chance.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Randomness>) -> Self {
        Self { clock, random, metrics: StackMetrics::unregistered(), zone: None }
    }

    /// The same, counting elsewhere.
    #[must_use]
    pub fn counting(mut self, metrics: StackMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    fn of_zone(&self, name: &str) -> Self {
        Self { zone: Some(name.to_owned()), ..self.clone() }
    }
}

/// A store that can be used.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The store, with everything around it.
    pub store: Arc<dyn ObjectStore>,
    /// The directory behind it, where it is a single one: it links files.
    pub local: Option<LocalStore>,
    /// All directories behind it, which can clean up after dead processes.
    pub directories: Vec<LocalStore>,
    /// All buckets behind it, which can take back what dead processes have begun to upload.
    pub buckets: Vec<S3Store>,
    /// The zones behind it, where there are several: they may owe each other something.
    pub zones: Option<Arc<ZoneStore>>,
}

impl Connected {
    /// Makes sure that whatever lies behind it honours conditions, for whoever is about to write: each zone where there are
    /// several. About 25 requests to each.
    pub async fn demand_conditions(&self, random: &dyn Randomness) -> Result<(), ArchiveError> {
        match &self.zones {
            Some(zones) => zones.demand_conditions(random).await,
            None => demand_conditions(self.store.as_ref(), random).await,
        }
    }
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
    /// The zones do not belong together, or none can be used.
    #[error("{place}")]
    Zones {
        /// Where.
        place: String,
        /// What is wrong with them.
        source: ZoneError,
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
        open_local: OpenLocal,
    ) -> Result<Connected, ConnectError> {
        match self {
            Self::Local(path) => {
                let local = open_local(path.clone(), Arc::clone(&surroundings.clock))
                    .map_err(|source| ConnectError::Store { place: self.to_string(), source })?;
                let store = stack::around(Arc::new(local.clone()), self, options, surroundings);
                let directories = vec![local.clone()];
                Ok(Connected { store, local: Some(local), directories, buckets: Vec::new(), zones: None })
            }
            Self::S3(location) => {
                let bucket = S3Store::connect(location, options, surroundings).await?;
                let store = stack::around(Arc::new(bucket.clone()), self, options, surroundings);
                Ok(Connected { store, local: None, directories: Vec::new(), buckets: vec![bucket], zones: None })
            }
            // In a box of its own, since a zone is a place too.
            Self::Zones(zoned) => Box::pin(zoned.open(surroundings, open_local)).await,
        }
    }
}

/// How a local directory is opened.
type OpenLocal = fn(std::path::PathBuf, Arc<dyn Clock>) -> Result<LocalStore, StoreError>;

impl ZonedLocation {
    /// Connects to each zone, and looks whether they hold one archive.
    async fn open(&self, surroundings: &Surroundings, open_local: OpenLocal) -> Result<Connected, ConnectError> {
        let (mut zones, mut directories, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
        for PlacedZone { name, location, options } in &self.zones {
            let mut options = options.clone();
            if self.zones.len() > 1 {
                options.patience = options.patience.among_others();
            }
            let connected = location.open(&options, &surroundings.of_zone(name), open_local).await?;
            zones.push(Zone { name: name.clone(), store: connected.store });
            directories.extend(connected.directories);
            buckets.extend(connected.buckets);
        }
        let (clock, random) = (Arc::clone(&surroundings.clock), Arc::clone(&surroundings.random));
        let opened = ZoneStore::open(zones, self.map.clone(), self.settings.clone(), clock, random).await;
        let zones = opened.map_err(|source| ConnectError::Zones { place: self.to_string(), source })?;
        let store: Arc<dyn ObjectStore> = Arc::<ZoneStore>::clone(&zones);
        Ok(Connected { store, local: None, directories, buckets, zones: Some(zones) })
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
