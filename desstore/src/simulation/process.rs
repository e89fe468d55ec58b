//! A process: its own way to the store, its own clock, its own chance, and the one job that it does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Wake;
use std::time::Duration;

use async_trait::async_trait;
use desfmt::Timestamp;

use super::gate::Gate;
use super::shared::{Shared, Watched};
use crate::archive::{Archive, ArchiveError, ReadOptions};
use crate::clock::{Clock, ManualClock, SeededRandom};
use crate::fault::{FaultStore, Phase};
use crate::publish::ArchiveWriter;

/// Why a job has not done what it was to do.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It gave up with an error, as it may where something went wrong.
    Failed(ArchiveError),
    /// It was told something that is not true.
    Violated(String),
}

impl From<ArchiveError> for Trouble {
    fn from(error: ArchiveError) -> Self {
        Self::Failed(error)
    }
}

/// The clock of a host: as fast as that of the store, and perhaps wrong.
#[derive(Debug)]
pub(super) struct HostClock {
    pub(super) base: Arc<ManualClock>,
    pub(super) skew_micros: i64,
}

#[async_trait]
impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.base.now().micros() + self.skew_micros)
    }

    fn monotonic(&self) -> Duration {
        self.base.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        // The next call waits for its turn anyway.
        self.base.advance(duration);
    }
}

/// What a job works with.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: Arc<str>,
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Arc<Gate>,
    pub(super) faults: Arc<FaultStore>,
    pub(super) clock: Arc<HostClock>,
    /// Where it builds shards.
    pub(super) spool: PathBuf,
    /// How many of its calls went wrong.
    pub(super) troubles: Arc<AtomicU64>,
    is_doomed: AtomicBool,
    seed: u64,
    files: AtomicU64,
}

/// What a process is made of.
#[derive(Debug)]
pub(super) struct Birthright {
    pub(super) name: String,
    pub(super) seed: u64,
    pub(super) skew_micros: i64,
    pub(super) spool: PathBuf,
    /// Whether its calls need nobody to let them through.
    pub(super) is_free: bool,
}

impl Process {
    pub(super) fn start(shared: &Arc<Shared>, birthright: Birthright) -> Arc<Self> {
        let Birthright { name, seed, skew_micros, spool, is_free } = birthright;
        let name: Arc<str> = name.into();
        let troubles = Arc::new(AtomicU64::new(0));
        let watched = Watched {
            shared: Arc::clone(shared),
            process: Arc::clone(&name),
            job_began: shared.book().oracle.operation,
            troubles: Arc::clone(&troubles),
        };
        let faults = Arc::new(FaultStore::new(Arc::new(watched), seed));
        Arc::new(Self {
            gate: Arc::new(Gate::new(Arc::clone(&faults), is_free)),
            clock: Arc::new(HostClock { base: Arc::clone(&shared.clock), skew_micros }),
            shared: Arc::clone(shared),
            troubles,
            is_doomed: AtomicBool::new(false),
            files: AtomicU64::new(0),
            name,
            faults,
            spool,
            seed,
        })
    }

    fn random(&self) -> Arc<SeededRandom> {
        Arc::new(SeededRandom::new(self.seed ^ 0x5eed))
    }

    /// Opens the archive for writing.
    #[expect(clippy::clone_on_ref_ptr, reason = "`Arc::clone` does not turn an Arc of a store into one of any store")]
    pub(super) async fn writer(&self) -> Result<ArchiveWriter, ArchiveError> {
        let opened = ArchiveWriter::open(self.gate.clone(), self.clock.clone(), self.random()).await?;
        opened.ok_or_else(|| ArchiveError::refused("there is no archive"))
    }

    /// Opens the archive for reading.
    #[expect(clippy::clone_on_ref_ptr, reason = "`Arc::clone` does not turn an Arc of a store into one of any store")]
    pub(super) async fn mount(&self) -> Result<Arc<Archive>, ArchiveError> {
        // Reading ahead would need tasks of its own; this store is near.
        let options = ReadOptions { store_is_near: true, ..ReadOptions::default() };
        Archive::open(self.gate.clone(), options, self.clock.clone(), self.random()).await
    }

    /// A path in the spool that nobody else has.
    pub(super) fn fresh_path(&self) -> PathBuf {
        self.spool.join(format!("{}-{}.tmp", self.name, self.files.fetch_add(1, Ordering::Relaxed)))
    }

    /// Lets it die, or be told nothing, at one of its calls. From now on it has an excuse for whatever fails.
    pub(super) fn doom(&self, call: u64, phase: Phase) {
        self.faults.crash_at(call, phase);
        self.is_doomed.store(true, Ordering::Relaxed);
    }

    /// True when something went wrong since it had so many troubles.
    pub(super) fn has_excuse(&self, troubles: u64) -> bool {
        self.is_doomed.load(Ordering::Relaxed) || self.troubles.load(Ordering::Relaxed) > troubles
    }

    /// Notes that one of its calls goes wrong.
    pub(super) fn trouble(&self) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the task of a process has anything to do.
#[derive(Debug)]
pub(super) struct Woken(AtomicBool);

impl Woken {
    pub(super) const fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
