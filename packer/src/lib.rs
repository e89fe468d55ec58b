//! Fills a DES archive and keeps it sound.
//!
//! The programs are thin: each parses its command line into a configuration and calls a function here, so that tests
//! drive the same code over stores in memory and stores that fail.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "counts and lengths of what this process itself reads and writes; nothing here decodes outside bytes"
)]

mod build;
mod checksum;
mod compression;
mod debts;
pub mod erase;
mod error;
pub mod flat;
mod input;
mod issue;
pub mod limits;
mod metrics;
mod observe_args;
pub mod pack;
mod plan;
mod pool;
pub mod program;
mod progress;
mod proof;
pub mod repack;
mod report;
mod rows;
mod size;
mod sort;
mod source;
mod source_time;
mod spool;
mod store_args;
mod todo;
pub mod verify;
mod witness;

pub use checksum::{Checksum, ChecksumAlgorithm, ChecksumCheck};
pub use compression::{CodecChoice, Compression, Framing};
pub use debts::{DebtsReport, owed, pay_debts};
pub use error::PackError;
pub use input::{Dating, Feed, Input, InputError, Naming, RowSink};
pub use issue::{Issue, IssueCounts, Outcome};
pub use metrics::PackMetrics;
pub use observe_args::{ObserveArgs, ZonesAnswer, broken};
pub use plan::{DayPlan, Plan, ShardLimits, Share, Volume, choose_bits};
pub use progress::{Progress, Snapshot};
pub use proof::Proof;
pub use report::Report;
pub use rows::Row;
pub use size::{ByteSize, SizeError};
pub use source::{BeneathError, BucketError, Buckets, FetchedSource, RootError, Roots, Sources};
pub use source_time::TimeRules;
pub use spool::{clear_debris, oldest_in_spool};
pub use store_args::{ReachArgs, StoreArgs, writable, writing};
pub use witness::{Fate, Witness};
