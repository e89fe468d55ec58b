//! What is told about a mount while it runs: metrics, health and readiness.

use std::sync::Arc;

use desstore::observe::{self, Health, Observer, Registry};
use desstore::stack::StackMetrics;
use desstore::{Archive, CacheMetrics};

use crate::config::Config;
use crate::exit::Failure;
use crate::metrics::{MountHealth, MountMetrics};

/// The metrics of a mount, and whoever serves them.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Of its store.
    pub(crate) stack: StackMetrics,
    /// Of the mount itself.
    pub(crate) mount: MountMetrics,
    /// Whether it serves.
    pub(crate) health: Arc<MountHealth>,
    registry: Registry,
    /// Serves until the mount ends.
    _observer: Option<Observer>,
}

impl Observed {
    /// Begins to count, and to serve where that is wanted.
    pub(crate) async fn begin(config: &Config) -> Result<Self, Failure> {
        let registry = Registry::new();
        let stack = StackMetrics::register(&registry).map_err(|error| broken(&error))?;
        let mount = MountMetrics::register(&registry, config.source.backend()).map_err(|error| broken(&error))?;
        let health = MountHealth::new(stack.clone());
        let observer = match config.http {
            Some(address) => {
                let shared: Arc<dyn Health> = Arc::<MountHealth>::clone(&health);
                let served = observe::serve(address, registry.clone(), shared).await;
                Some(served.map_err(|error| Failure::usage(format!("--http {address}: {error}")))?)
            }
            None => None,
        };
        Ok(Self { stack, mount, health, registry, _observer: observer })
    }

    /// Counts what the caches of the archive do, too.
    pub(crate) fn observe_caches(&self, archive: &Arc<Archive>) -> Result<(), Failure> {
        CacheMetrics::register(&self.registry, archive).map_err(|error| broken(&error))
    }
}

/// Only a mistake of ours can cause that.
fn broken(error: &prometheus::Error) -> Failure {
    Failure::internal(format!("metrics: {error}"))
}
