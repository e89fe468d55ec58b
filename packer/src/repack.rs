//! Taking deleted bytes out of an archive: which days and shards, in which order, with which limits, and what is told of it.
//!
//! What makes it safe is in `desstore`; this goes over the days, chooses how shards are compressed, and adds up.

mod choose;
mod collect;
mod metrics;
mod report;

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;

use desfmt::legacy::LegacyName;
use desfmt::v3::FrameSize;
use desfmt::{Date, ObjectKey, layout};
use desstore::repack::{DayPlan, Job, RepackSettings, Repacked, Thresholds};
use desstore::{ArchiveWriter, Conditions, LocalStore, ObjectStore, Randomness, probe};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::compression::{Compression, Framing};
use crate::error::PackError;
use crate::spool::Spool;

pub use choose::SampleChooser;
pub use collect::{GcConfig, GcReport, collect};
pub use metrics::RepackMetrics;
pub use report::{JobLine, RepackReport};

/// What is to be repacked, and how.
#[derive(Debug, Clone)]
pub struct RepackConfig {
    /// Only these days; all if empty.
    pub days: Vec<Date>,
    /// When a shard is due.
    pub thresholds: Thresholds,
    /// How what is compressed anew is compressed.
    pub compression: Compression,
    /// Compress every shard anew.
    pub recompress: bool,
    /// How much content is compressed together in frames that lose a file.
    pub frame_size: FrameSize,
    /// How many shards are repacked at once.
    pub jobs: NonZeroUsize,
    /// Where shards lie while they are rebuilt.
    pub spool: PathBuf,
    /// The directory that the archive is, if it is one.
    pub directory: Option<LocalStore>,
    /// The most bytes a second, for each shard under way.
    pub rate: Option<NonZeroU64>,
    /// Plan, and change nothing.
    pub dry_run: bool,
}

impl RepackConfig {
    fn settings(&self, spool: &Spool) -> RepackSettings {
        RepackSettings {
            spool: spool.directory().to_owned(),
            directory: self.directory.clone(),
            threads: self.jobs.get(),
            frame_size: self.frame_size,
            level: self.compression.level,
            recompress: self.recompress,
            chooser: Arc::new(SampleChooser { compression: self.compression, framing: Framing::BySample }),
            rate: self.rate,
            healers: Vec::new(),
        }
    }
}

/// Refuses a store on which two programs could overwrite each other's changes.
pub async fn refuse_unconditional(store: &dyn ObjectStore, random: &dyn Randomness) -> Result<(), PackError> {
    match probe(store, random).await? {
        Conditions::Honoured => Ok(()),
        Conditions::CreateOnly | Conditions::Ignored => Err(PackError::refused(
            "the store does not honour conditional writes, so shards can be neither replaced nor deleted safely; nothing was \
             changed. des-verify --probe tells whether a store does; no option makes up for it here",
        )),
    }
}

/// Folds the deletions of all days and repacks what is due. A day or a shard that fails is told in the report and does not
/// hold up the others.
pub async fn run(
    writer: &Arc<ArchiveWriter>,
    config: &RepackConfig,
    metrics: &RepackMetrics,
) -> Result<RepackReport, PackError> {
    let spool = Spool::open(&config.spool).map_err(|source| PackError::spool(&config.spool, source))?;
    let settings = Arc::new(config.settings(&spool));
    let mut report = RepackReport { dry_run: config.dry_run, ..RepackReport::default() };
    for date in days(writer, &config.days).await? {
        if !config.dry_run {
            match writer.fold(date).await {
                Ok(folded) => report.folded(folded),
                Err(error) => report.failed(date.to_string(), &error),
            }
        }
        match writer.plan_repack(date, &config.thresholds).await {
            Ok(Some(plan)) => run_day(writer, config, &settings, plan, &mut report, metrics).await?,
            Ok(None) => {}
            Err(error) => {
                report.failed(date.to_string(), &error);
                // Its deletions wait all the same.
                report.note_oldest(writer.oldest_deletion(date).await.unwrap_or_default());
            }
        }
    }
    drop(spool);
    Ok(report)
}

/// The days to go over: those asked for, or all.
async fn days(writer: &ArchiveWriter, wanted: &[Date]) -> Result<Vec<Date>, PackError> {
    let all = writer.archive().days().await?;
    Ok(all.iter().copied().filter(|date| wanted.is_empty() || wanted.contains(date)).collect())
}

async fn run_day(
    writer: &Arc<ArchiveWriter>,
    config: &RepackConfig,
    settings: &Arc<RepackSettings>,
    plan: DayPlan,
    report: &mut RepackReport,
    metrics: &RepackMetrics,
) -> Result<(), PackError> {
    report.note_oldest(plan.oldest);
    for (key, error) in &plan.unknown {
        report.failed(key.to_string(), error);
    }
    if config.dry_run {
        plan.jobs.iter().for_each(|job| report.planned(JobLine::planned(plan.date, job)));
        return Ok(());
    }
    let permits = Arc::new(Semaphore::new(config.jobs.get()));
    let mut running = JoinSet::new();
    for job in plan.jobs {
        let (writer, settings, permits) = (Arc::clone(writer), Arc::clone(settings), Arc::clone(&permits));
        let date = plan.date;
        running.spawn(async move {
            let Ok(_permit) = permits.acquire_owned().await else { return (job, Ok(Repacked::Nothing)) };
            let outcome = Box::pin(writer.repack(date, &job, &settings)).await;
            (job, outcome)
        });
    }
    while let Some(ended) = running.join_next().await {
        let (job, outcome): (Job, _) = ended.map_err(|error| PackError::Died { source: Box::new(error) })?;
        match outcome {
            Ok(repacked) => {
                metrics.note_job(&job, &repacked);
                report.done(JobLine::planned(plan.date, &job), &repacked);
            }
            Err(error) => {
                metrics.note_failure();
                let name = job.shards.first().map_or_else(|| plan.date.to_string(), |shard| shard.key.to_string());
                report.failed(name, &error);
            }
        }
    }
    Ok(())
}

/// Brings a retired shard back under a new name.
pub async fn roll_back(writer: &ArchiveWriter, config: &RepackConfig, key: &ObjectKey) -> Result<Repacked, PackError> {
    let spool = Spool::open(&config.spool).map_err(|source| PackError::spool(&config.spool, source))?;
    let bits = writer.identity().bits();
    let flat = || LegacyName::parse(key.as_str(), bits).ok().map(|name| name.group);
    let Some(group) = layout::parse_shard(key.as_str(), bits).map(|name| name.group).or_else(flat) else {
        return Err(PackError::refused(format!(
            "{key} is no shard of this archive, such as `des-repack gc` names them"
        )));
    };
    Ok(Box::pin(writer.roll_back(group.date, key, &config.settings(&spool))).await?)
}
