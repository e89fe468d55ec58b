//! What is told about a mount while it runs: metrics, health and readiness.

use std::sync::Arc;

use desstore::observe::{self, Health, Observer, Registry};
use desstore::stack::StackMetrics;

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
    /// Serves until the mount ends.
    _observer: Option<Observer>,
}

impl Observed {
    /// Begins to count, and to serve where that is wanted.
    pub(crate) async fn begin(config: &Config) -> Result<Self, Failure> {
        let registry = Registry::new();
        let broken = |error: prometheus::Error| Failure::internal(format!("metrics: {error}"));
        let stack = StackMetrics::register(&registry).map_err(broken)?;
        let mount = MountMetrics::register(&registry, config.source.backend()).map_err(broken)?;
        let health = MountHealth::new(stack.clone());
        let observer = match config.http {
            Some(address) => {
                let shared: Arc<dyn Health> = Arc::<MountHealth>::clone(&health);
                let served = observe::serve(address, registry, shared).await;
                Some(served.map_err(|error| Failure::usage(format!("--http {address}: {error}")))?)
            }
            None => None,
        };
        Ok(Self { stack, mount, health, _observer: observer })
    }
}
