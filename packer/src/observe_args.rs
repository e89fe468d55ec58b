//! The arguments by which a program is told where to tell its metrics. Flatten them into the program's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use desstore::observe::{self, Health, Observer, Registry};
use desstore::stack::StackMetrics;

use crate::error::PackError;

/// Where metrics go.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Metrics")]
pub struct ObserveArgs {
    /// Serves /metrics, /health and /ready there; a port alone is one of this machine: 9550.
    #[arg(long, value_name = "ADDRESS", env = "DES_HTTP", value_parser = observe::parse_address)]
    pub http: Option<SocketAddr>,

    /// Writes all metrics there when the program ends, for the textfile collector of `node_exporter`; ends in .prom.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
}

/// Ready as long as some zone of the store answers.
#[derive(Debug)]
pub struct ZonesAnswer(pub StackMetrics);

impl Health for ZonesAnswer {
    fn ready(&self) -> Result<(), String> {
        let (away, zones) = self.0.zones_away();
        if zones > 0 && away.len() == zones {
            return Err(format!("the store does not answer: {}", away.join(", ")));
        }
        Ok(())
    }
}

impl ObserveArgs {
    /// Begins to serve, if that is wanted. Until the result is dropped.
    pub async fn serve(&self, registry: &Registry, stack: &StackMetrics) -> Result<Option<Observer>, PackError> {
        let Some(address) = self.http else { return Ok(None) };
        let health = Arc::new(ZonesAnswer(stack.clone()));
        let served = observe::serve(address, registry.clone(), health).await;
        served.map(Some).map_err(|error| PackError::refused(format!("--http {address}: {error}")))
    }

    /// Writes the file, if that is wanted.
    pub fn write(&self, registry: &Registry) -> Result<(), PackError> {
        let Some(path) = &self.metrics_file else { return Ok(()) };
        observe::write_textfile(registry, path)
            .map_err(|error| PackError::refused(format!("--metrics-file {}: {error}", path.display())))
    }
}

/// The metrics of a program could not be made; only a mistake of ours can cause that.
pub fn broken(error: prometheus::Error) -> PackError {
    PackError::Died { source: Box::new(error) }
}
