//! Moves the files that a table of a database lists into a DES archive, each exactly once.
//!
//! Nothing is remembered of single files. Whole days are claimed, moved, proven by reading them back, and marked in one
//! transaction; whatever dies in between is done again, and packing what is there already does nothing.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "counts and lengths of what this process itself reads and writes; nothing here decodes outside bytes"
)]

mod batch;
mod claiming;
mod cleanup;
pub mod config;
mod cycle;
pub mod days;
mod error;
mod feed;
mod found;
mod ledger;
mod metrics;
mod migrator;
mod progress;
pub mod rows;
pub mod state;
pub mod stats;
mod sweep;
#[cfg(test)]
mod tests;
mod verify;

pub use cleanup::CleanupPlan;
pub use cycle::CycleReport;
pub use error::{DatabaseError, MigrateError};
pub use metrics::MigrationMetrics;
pub use migrator::{Migrator, PackSettings, Plan};
pub use progress::{Progress, Snapshot};
pub use sweep::SweepReport;
