//! What a migration works with, and how it waits for a database that is away.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use desfmt::{BucketBits, Date};
use desstore::{Clock, ObjectStore, Randomness};
use packer::pack::Config;
use packer::{Compression, Feed, Framing, Input, ShardLimits, Share, Sources, TimeRules, Witness};

use crate::error::{DatabaseError, MigrateError};
use crate::metrics::MigrationMetrics;
use crate::progress::Progress;
use crate::rows::RowSource;
use crate::state::StateStore;
use crate::verify::Reading;

/// How shards are built; the same settings as those of des-pack.
#[derive(Debug, Clone)]
pub struct PackSettings {
    /// How shards are compressed.
    pub compression: Compression,
    /// How much one frame gathers.
    pub framing: Framing,
    /// What bounds a shard.
    pub shard_limits: ShardLimits,
    /// The number of bits of a new archive; chosen by the volume of the first batch where none is given.
    pub bits: Option<BucketBits>,
    /// How many shards are built at once.
    pub jobs: std::num::NonZeroUsize,
    /// Where rows are sorted and shards are built.
    pub spool: PathBuf,
}

/// How a migration goes about it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The name of this worker, which no other process has at the same time.
    pub worker: String,
    /// No day after this one is moved.
    pub last: Option<Date>,
    /// How many days are moved at once at most.
    pub batch_days: u32,
    /// How many rows are moved at once; a larger day is moved in parts.
    pub batch_rows: u64,
    /// How long a day is held without a sign of life.
    pub lease: Duration,
    /// Marks each row in the source table as well.
    pub mark_archived: bool,
    /// How long a database that is away is waited for.
    pub patience: Duration,
}

/// Moves files from a table into an archive.
#[derive(Debug, Clone)]
pub struct Migrator {
    /// The table.
    pub source: Arc<dyn RowSource>,
    /// What all migrators share.
    pub state: Arc<dyn StateStore>,
    /// Where the archive is.
    pub store: Arc<dyn ObjectStore>,
    /// Whether that is a local directory.
    pub store_is_near: bool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Randomness>,
    /// Where files are read from.
    pub sources: Sources,
    /// How shards are built.
    pub packing: PackSettings,
    /// How it is gone about.
    pub plan: Plan,
    /// What is counted.
    pub metrics: Arc<MigrationMetrics>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Set when the batch in hand is to be the last one.
    pub stop: Arc<AtomicBool>,
}

/// The first wait for a database that is away, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

impl Migrator {
    /// True when no further batch is to be begun.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn reading(&self) -> Reading {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        Reading { store: Arc::clone(&self.store), store_is_near: self.store_is_near, clock, random }
    }

    /// The packer's settings for some rows.
    pub(crate) fn pack_config(&self, feed: Arc<dyn Feed>, witness: Arc<dyn Witness>) -> Config {
        Config {
            input: Input::Feed(feed),
            times: TimeRules::default(),
            compression: self.packing.compression,
            framing: self.packing.framing,
            shard_limits: self.packing.shard_limits,
            bits: self.packing.bits,
            share: Share::ALL,
            jobs: self.packing.jobs,
            dry_run: false,
            spool: self.packing.spool.clone(),
            spool_bytes: None,
            report: None,
            sources: self.sources.clone(),
            witness: Some(witness),
        }
    }

    /// Asks the tables of state, again and again while they are away.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&dyn StateStore) -> Result<T, DatabaseError> + Clone + Send + 'static,
    ) -> Result<T, MigrateError> {
        let mut waiting = self.waiting();
        loop {
            let (state, question) = (Arc::clone(&self.state), question.clone());
            match blocking(move || question(state.as_ref())).await? {
                Err(error) if error.is_transient() => waiting.pause(error).await?,
                answer => return Ok(answer?),
            }
        }
    }

    /// Asks the source table, again and again while it is away.
    pub(crate) async fn ask_source<T: Send + 'static>(
        &self,
        question: impl Fn(&dyn RowSource) -> Result<T, DatabaseError> + Clone + Send + 'static,
    ) -> Result<T, MigrateError> {
        let mut waiting = self.waiting();
        loop {
            let (source, question) = (Arc::clone(&self.source), question.clone());
            match blocking(move || question(source.as_ref())).await? {
                Err(error) if error.is_transient() => waiting.pause(error).await?,
                answer => return Ok(answer?),
            }
        }
    }

    /// The patience with a database that is away.
    pub(crate) fn waiting(&self) -> Waiting {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        Waiting { clock, random, since: None, limit: self.plan.patience, next: PAUSE_FIRST }
    }
}

/// Waits longer each time, and not for ever.
#[derive(Debug)]
pub(crate) struct Waiting {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    /// When it was first away.
    since: Option<Duration>,
    limit: Duration,
    next: Duration,
}

impl Waiting {
    /// Waits, or gives the error back where patience is at its end.
    pub(crate) async fn pause(&mut self, error: DatabaseError) -> Result<(), MigrateError> {
        let now = self.clock.monotonic();
        if now.saturating_sub(*self.since.get_or_insert(now)) >= self.limit {
            return Err(error.into());
        }
        tracing::warn!(error = %packer::program::reason_of(&error), "trying again");
        // Between half of it and all of it, so that several workers do not come back at once.
        let jitter = u32::try_from(self.random.next() % 512).unwrap_or(0);
        self.clock.sleep(self.next / 1_024 * (512 + jitter)).await;
        self.next = (self.next * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Runs a step that waits for a database or a disk.
pub(crate) async fn blocking<T: Send + 'static>(step: impl FnOnce() -> T + Send + 'static) -> Result<T, MigrateError> {
    tokio::task::spawn_blocking(step).await.map_err(MigrateError::died)
}
