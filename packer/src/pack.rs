//! Packing: read and sort the input, plan, then build, verify and publish shard after shard.
//!
//! Nothing is written before the whole input was read. Each shard is published on its own, so a run that dies loses at most
//! the shards it was building; the next one finds what is there and goes on.

mod intake;
mod shard;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use desfmt::{BucketBits, layout};
use desstore::{ArchiveError, ArchiveWriter, Clock, Depth, ObjectStore, Randomness};
use futures_util::future::{Either, select};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::compression::{Compression, Framing};
use crate::error::PackError;
use crate::input::Input;
use crate::issue::IssueLog;
use crate::limits;
use crate::plan::{Plan, Planner, ShardLimits, ShardPlan, ShardPlans, Share, choose_bits};
use crate::pool::Pool;
use crate::progress::Progress;
use crate::proof::Proof;
use crate::report::{Published, Report};
use crate::rows::RowLog;
use crate::source::Sources;
use crate::source_time::TimeRules;
use crate::spool::Spool;
use crate::witness::Witness;

use intake::Intake;
use shard::ShardRun;

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the rows come from.
    pub input: Input,
    /// How their times are understood.
    pub times: TimeRules,
    /// How shards are compressed.
    pub compression: Compression,
    /// How much of the stream one frame gathers.
    pub framing: Framing,
    /// What bounds a shard.
    pub shard_limits: ShardLimits,
    /// The number of bits of a new archive; chosen by the volume where none is given.
    pub bits: Option<BucketBits>,
    /// Which groups to pack.
    pub share: Share,
    /// How many shards are built at once.
    pub jobs: NonZeroUsize,
    /// Plan only.
    pub dry_run: bool,
    /// Where rows are sorted and shards are built. On the disk of a local archive, publishing is a link.
    pub spool: PathBuf,
    /// How much content the shards in hand may have together; a single larger shard is built alone.
    pub spool_bytes: Option<u64>,
    /// Where every row that was left out is told, with the summary.
    pub report: Option<PathBuf>,
    /// Where sources are read from.
    pub sources: Sources,
    /// Who must know what became of every row.
    pub witness: Option<Arc<dyn Witness>>,
}

impl Config {
    /// How much content the shards in hand may have, in MiB.
    fn space_mib(&self) -> u32 {
        let most = u64::try_from(Semaphore::MAX_PERMITS).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
        let mib = self.spool_bytes.map_or(most, |bytes| bytes.div_ceil(1 << 20));
        u32::try_from(mib.clamp(1, most)).unwrap_or(u32::MAX)
    }

    /// How much of that a shard needs.
    fn space_for(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX).min(self.space_mib())
    }
}

/// What all parts of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) config: Config,
    /// Nothing is published before it has passed.
    proof: Proof,
    pub(crate) spool: Spool,
    pub(crate) pool: Pool,
    pub(crate) issues: Arc<IssueLog>,
    pub(crate) progress: Arc<Progress>,
    /// Shards that may be built at once.
    jobs: Semaphore,
    /// Entries of shards under way, in thousands.
    entries: Semaphore,
    /// Content of shards under way, in MiB.
    space: Semaphore,
}

/// Packs into a store as soon as its proof has passed. On an error, what was published before it stays; running again goes on
/// from there.
///
/// Not to be cancelled: a shard on its way into the archive would be left to be adopted by the next run.
pub async fn run(
    config: Config,
    (store, proof): (Arc<dyn ObjectStore>, Proof),
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    progress: Arc<Progress>,
) -> Result<Report, PackError> {
    let started = clock.monotonic();
    let existing = ArchiveWriter::open(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&random)).await?;
    match &existing {
        Some(writer) => refuse_other_bits(config.bits, writer.identity().bits())?,
        None => refuse_other_contents(store.as_ref()).await?,
    }
    let proving = proof.clone();
    let run = Arc::new(blocking(move || Run::prepare(config, proving, progress)).await?);
    let create = |bits| ArchiveWriter::create(store, bits, Arc::clone(&clock), random);
    let outcome = match select(Box::pin(pack(&run, existing, create)), pin!(proof.failed())).await {
        // To its end also where nothing was to be published: it takes away what it has written.
        Either::Left((outcome, _)) => {
            let proven = proof.passed().await;
            outcome.and_then(|done| proven.map(|()| done).map_err(PackError::from))
        }
        // What was under way has only read and built.
        Either::Right((error, _)) => Err(error.into()),
    };
    let elapsed = clock.monotonic().saturating_sub(started);
    blocking(move || run.conclude(outcome, elapsed)).await
}

/// Reads, plans, builds and publishes.
async fn pack<F>(
    run: &Arc<Run>,
    existing: Option<ArchiveWriter>,
    create: impl FnOnce(BucketBits) -> F,
) -> Result<Done, PackError>
where
    F: Future<Output = Result<ArchiveWriter, ArchiveError>>,
{
    let intake = blocking({
        let run = Arc::clone(run);
        move || run.read_input()
    })
    .await?;
    let mut bits = run.config.bits.unwrap_or_else(|| choose_bits(&intake.days));
    let writer = match existing {
        Some(writer) => Some(writer),
        // Nothing is made for nothing.
        None if run.config.dry_run || intake.days.is_empty() => None,
        None => {
            run.proof.passed().await?;
            Some(create(bits).await?)
        }
    };
    if let Some(writer) = &writer {
        // Somebody else may have created the archive meanwhile, by another volume.
        bits = writer.identity().bits();
        refuse_other_bits(run.config.bits, bits)?;
    }
    let rows = intake.count;
    let planning = Arc::clone(run);
    let (plan, sorted) = blocking(move || planning.plan(&intake, bits)).await?;
    let published = match writer {
        Some(writer) if !run.config.dry_run => Box::pin(execute(run, Arc::new(writer), sorted, bits)).await?,
        Some(_) | None => Published::default(),
    };
    Ok(Done { rows, plan, published })
}

/// What a run has done.
pub(crate) struct Done {
    /// Rows of the input.
    pub(crate) rows: u64,
    pub(crate) plan: Plan,
    pub(crate) published: Published,
}

/// The summary in the report of a run that stopped.
#[derive(Debug, serde::Serialize)]
struct Stopped {
    error: String,
}

fn refuse_other_bits(asked: Option<BucketBits>, there: BucketBits) -> Result<(), PackError> {
    match asked {
        Some(asked) if asked != there => {
            let (asked, there) = (asked.get(), there.get());
            Err(PackError::refused(format!(
                "the archive has n_bits {there}, which never changes; {asked} was asked for"
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// Makes sure that a place without an identity is no archive that has lost it, and none of the ancestor.
async fn refuse_other_contents(store: &dyn ObjectStore) -> Result<(), PackError> {
    for prefix in [layout::MANIFESTS, layout::SHARDS, layout::TOMBSTONES] {
        if let Some(object) = store.list(prefix, Depth::Recursive, None).await?.objects.first() {
            let key = &object.key;
            return Err(PackError::refused(format!(
                "there is {key} and no des.json: an archive that has lost its identity"
            )));
        }
    }
    let top = store.list("", Depth::Direct, None).await?;
    if let Some(object) =
        top.objects.iter().find(|object| matches!(object.key.as_str().rsplit_once('.'), Some((_, "des"))))
    {
        let key = &object.key;
        return Err(PackError::refused(format!("{key} is a flat shard of the ancestor; --format 2 packs beside it")));
    }
    Ok(())
}

impl Run {
    pub(crate) fn prepare(config: Config, proof: Proof, progress: Arc<Progress>) -> Result<Self, PackError> {
        let spool = Spool::open(&config.spool).map_err(|source| PackError::spool(&config.spool, source))?;
        let report = config.report.as_deref();
        let issues = IssueLog::open(report, config.witness.clone())
            .map_err(|source| PackError::spool(report.map(PathBuf::from).unwrap_or_default(), source))?;
        let pool = Pool::new(config.jobs).map_err(|error| PackError::Died { source: Box::new(error) })?;
        let jobs = Semaphore::new(config.jobs.get());
        let entries = Semaphore::new(usize::try_from(entry_permits(limits::ENTRIES_IN_FLIGHT)).unwrap_or(usize::MAX));
        let space = Semaphore::new(usize::try_from(config.space_mib()).unwrap_or(usize::MAX));
        Ok(Self { config, proof, spool, pool, issues: Arc::new(issues), progress, jobs, entries, space })
    }

    /// Sorts and plans; blocks.
    pub(crate) fn plan(&self, intake: &Intake, bits: BucketBits) -> Result<(Plan, RowLog), PackError> {
        let planner = Planner {
            bits,
            limits: self.config.shard_limits,
            share: self.config.share,
            spool: &self.spool,
            issues: &self.issues,
        };
        let (plan, sorted) = planner.plan(&intake.rows).map_err(|source| PackError::spool("rows", source))?;
        let volume = plan.volume();
        self.progress.planned(volume.files, volume.bytes);
        Ok((plan, sorted))
    }

    /// Ends the report, also that of a run that stopped.
    pub(crate) fn conclude(&self, outcome: Result<Done, PackError>, elapsed: Duration) -> Result<Report, PackError> {
        let path = || self.config.report.clone().unwrap_or_default();
        match outcome {
            Ok(Done { rows, plan, published }) => {
                let mut report = Report::new(rows, plan, published, self.issues.counts());
                report.dry_run = self.config.dry_run;
                report.issues = self.issues.kept();
                report.elapsed = elapsed;
                self.issues.finish(&report).map_err(|source| PackError::spool(path(), source))?;
                Ok(report)
            }
            Err(error) => {
                if let Err(later) = self.issues.finish(&Stopped { error: error.to_string() }) {
                    tracing::warn!(report = %path().display(), error = %later, "the report cannot be written");
                }
                Err(error)
            }
        }
    }
}

/// Shards that are planned but not begun.
const PLANNED_AHEAD: usize = 4;

/// Builds and publishes all shards of the plan. Stops at the first error that is not about a single file, after the shards
/// under way have ended.
async fn execute(
    run: &Arc<Run>,
    writer: Arc<ArchiveWriter>,
    sorted: RowLog,
    bits: BucketBits,
) -> Result<Published, PackError> {
    let (sender, mut plans) = mpsc::channel::<Result<ShardPlan, PackError>>(PLANNED_AHEAD);
    let mut shards = ShardPlans::new(&sorted, bits, run.config.shard_limits);
    let planning = tokio::task::spawn_blocking(move || {
        loop {
            let next = shards.next_shard().map_err(|source| PackError::spool("rows", source)).transpose();
            let Some(next) = next else { return };
            // Nobody listens any more when the run has failed.
            if sender.blocking_send(next).is_err() {
                return;
            }
        }
    });
    // While some shards are built, others are surveyed or wait for the disk and for each other's commits.
    let tasks_max = run.config.jobs.get() + limits::SHARDS_PUBLISHING;
    let mut tasks: JoinSet<Result<Published, PackError>> = JoinSet::new();
    let mut published = Published::default();
    let mut failure = None;
    while failure.is_none() {
        let next = if tasks.len() < tasks_max { plans.recv().await } else { None };
        if let Some(plan) = next {
            match plan {
                Ok(plan) => {
                    let shard = ShardRun::new(Arc::clone(run), Arc::clone(&writer), sorted.clone(), plan);
                    tasks.spawn(shard.run());
                }
                Err(error) => failure = Some(error),
            }
            continue;
        }
        match tasks.join_next().await {
            None => break,
            Some(ended) => failure = count(&mut published, ended),
        }
    }
    drop(plans);
    while let Some(ended) = tasks.join_next().await {
        let later = count(&mut published, ended);
        failure = failure.or(later);
    }
    planning.await.map_err(|error| PackError::Died { source: Box::new(error) })?;
    failure.map_or(Ok(published), Err)
}

fn count(
    published: &mut Published,
    ended: Result<Result<Published, PackError>, tokio::task::JoinError>,
) -> Option<PackError> {
    match ended {
        Ok(Ok(one)) => {
            published.add(one);
            None
        }
        Ok(Err(error)) => Some(error),
        Err(error) => Some(PackError::Died { source: Box::new(error) }),
    }
}

/// How many permits a shard of so many entries needs: one for each thousand, but never more than there are.
fn entry_permits(entries: u64) -> u32 {
    u32::try_from(entries.min(limits::ENTRIES_IN_FLIGHT).div_ceil(1_024)).unwrap_or(u32::MAX)
}

/// Runs a step that computes or waits for a disk.
async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> Result<T, PackError> + Send + 'static,
) -> Result<T, PackError> {
    tokio::task::spawn_blocking(step).await.map_err(|error| PackError::Died { source: Box::new(error) })?
}
