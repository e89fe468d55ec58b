//! Runs: once or for ever, with signs of life and an orderly end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use desstore::Clock;
use desstore::observe::{Registry, parse_address, serve, write_textfile};
use desstore::stack::StackMetrics;
use migrator::config::Settings;
use migrator::days::{Window, horizon};
use migrator::rows::RowSource;
use migrator::state::{Cleaned, StateStore};
use migrator::stats::{Assumptions, CLASS_BOUNDS, Scope};
use migrator::{CycleReport, MigrateError, MigrationMetrics, Migrator, Progress};
use packer::program::{DONE, FAILED, reason_of, runtime};
use packer::{ByteSize, ZonesAnswer};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::cli::RunArgs;
use crate::parts::Parts;

/// How often a line about the progress is shown.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How often a waiting program looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a run tells about itself.
struct Telling {
    registry: Registry,
    textfile: Option<PathBuf>,
}

impl Telling {
    fn finish(&self) -> Result<(), Failure> {
        let Some(file) = &self.textfile else { return Ok(()) };
        write_textfile(&self.registry, file)
            .map_err(|source| MigrateError::Disk { what: "writing the metrics to a file", source }.into())
    }
}

/// Moves all that is due, once or for ever.
pub(crate) fn migrate(path: &Path, settings: &Settings, args: RunArgs) -> Result<ExitCode, Failure> {
    let parts = Parts::open(path, settings)?;
    if args.dry_run {
        return dry_run(&parts, settings, &args);
    }
    let interval = args.interval.unwrap_or(settings.migration.interval).0;
    let (continuous, until) = (args.continuous, args.until);
    let cleanup = settings.cleanup.enabled.then(|| settings.cleanup_plan());
    with_migrator(path, settings, &parts, args, async move |mut migrator: Migrator| {
        migrator.plan.last = until;
        loop {
            let outcome = Box::pin(once(&migrator, cleanup)).await;
            if !continuous {
                return outcome;
            }
            if let Err(error) = outcome {
                tracing::error!(error = %reason_of(&error), "the cycle failed; the next one goes on from there");
            }
            if !wait(&migrator, interval).await {
                return Ok(ExitCode::from(DONE));
            }
        }
    })
}

/// One cycle, and a cleanup where that is wanted.
async fn once(migrator: &Migrator, cleanup: Option<migrator::CleanupPlan>) -> Result<ExitCode, MigrateError> {
    let report = Box::pin(migrator.cycle()).await?;
    println!("{}", summary(&report));
    if let Some(plan) = cleanup {
        println!("{}", cleaned_summary(&Box::pin(migrator.cleanup(plan)).await?));
    }
    Ok(ExitCode::from(if report.exceptions > 0 { FAILED } else { DONE }))
}

/// Finds late rows.
pub(crate) fn sweep(path: &Path, settings: &Settings, args: RunArgs) -> Result<ExitCode, Failure> {
    let parts = Parts::open(path, settings)?;
    with_migrator(path, settings, &parts, args, async |migrator: Migrator| {
        let late = Box::pin(migrator.sweep()).await?.late;
        if late.packed > 0 {
            tracing::warn!(files = late.packed, "late rows were found and moved: is the lag too small?");
        }
        println!("late       {} files, {} exceptions", late.packed, late.exceptions);
        Ok(ExitCode::from(if late.exceptions > 0 { FAILED } else { DONE }))
    })
}

/// Removes sources.
pub(crate) fn cleanup(
    path: &Path,
    settings: &Settings,
    args: RunArgs,
    remove_deleted: bool,
) -> Result<ExitCode, Failure> {
    let parts = Parts::open(path, settings)?;
    let mut plan = settings.cleanup_plan();
    plan.remove_deleted |= remove_deleted;
    with_migrator(path, settings, &parts, args, async move |migrator: Migrator| {
        let cleaned = Box::pin(migrator.cleanup(plan)).await?;
        println!("{}", cleaned_summary(&cleaned));
        Ok(ExitCode::from(if cleaned.kept > 0 { FAILED } else { DONE }))
    })
}

/// Runs something with all that it needs, and with what is told beside it.
fn with_migrator<F>(
    path: &Path,
    settings: &Settings,
    parts: &Parts,
    args: RunArgs,
    run: impl FnOnce(Migrator) -> F,
) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<ExitCode, MigrateError>>,
{
    let registry = Registry::new();
    let metrics = MigrationMetrics::register(&registry).map_err(died)?;
    let stack = StackMetrics::register(&registry).map_err(died)?;
    let address = args.http.or_else(|| settings.metrics.http.clone());
    let address = address.map(|text| parse_address(&text)).transpose().map_err(Failure::Usage)?;
    let textfile = args.textfile.or_else(|| settings.metrics.textfile.clone());
    let telling = Telling { registry: registry.clone(), textfile };
    runtime().map_err(MigrateError::from)?.block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let signals = tokio::spawn(watch_signals(Arc::clone(&stop))?);
        let _observer = match address {
            Some(address) => Some(
                serve(address, registry, Arc::new(ZonesAnswer(stack.clone())))
                    .await
                    .map_err(|source| MigrateError::Disk { what: "listening for requests of metrics", source })?,
            ),
            None => None,
        };
        let migrator = parts.migrator(path, settings, (metrics, &stack), stop).await?;
        let (progress, clock) = (Arc::clone(&migrator.progress), Arc::clone(&migrator.clock));
        let shown = (!args.quiet).then(|| tokio::spawn(show(progress, clock)));
        let outcome = run(migrator).await;
        if let Some(shown) = shown {
            shown.abort();
        }
        signals.abort();
        telling.finish()?;
        Ok(outcome?)
    })
}

fn died(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    MigrateError::Died { source: Box::new(error) }.into()
}

/// The first SIGTERM or SIGINT lets the batch in hand end, the second one ends the program.
fn watch_signals(stop: Arc<AtomicBool>) -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(died)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(died)?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(FAILED));
            }
            tracing::warn!("ending after the batch in hand; once more ends at once");
        }
    })
}

/// Waits for the next cycle; false where the end was asked for.
async fn wait(migrator: &Migrator, interval: Duration) -> bool {
    let began = migrator.clock.monotonic();
    while migrator.clock.monotonic().saturating_sub(began) < interval {
        if migrator.is_stopping() {
            return false;
        }
        migrator.clock.sleep(LOOK_EVERY.min(interval)).await;
    }
    !migrator.is_stopping()
}

/// Shows lines about the progress until it is aborted.
async fn show(progress: Arc<Progress>, clock: Arc<dyn Clock>) {
    let mut last = (progress.snapshot(), clock.monotonic());
    loop {
        clock.sleep(LINE_EVERY).await;
        let (now, at) = (progress.snapshot(), clock.monotonic());
        if now != last.0 {
            let since = Some((&last.0, at.saturating_sub(last.1)));
            // Nobody reads along: nothing can be done about it, and nothing need be.
            drop(writeln!(std::io::stderr(), "{}", now.line(since)));
        }
        last = (now, at);
    }
}

fn summary(report: &CycleReport) -> String {
    let tally = &report.tally;
    let until = report.archived_until.map_or("-".to_owned(), |time| time.to_string());
    let stopped = if report.was_stopped { "\nstopped before all was moved, as asked" } else { "" };
    format!(
        "moved      {} files, {}, of {} days\npresent    {}\ndeleted    {}\nrepeated   {}\nexceptions {} now, {} not \
         acknowledged\narchived   until {until}{stopped}",
        tally.packed,
        ByteSize(tally.bytes),
        report.days,
        tally.present,
        tally.deleted,
        tally.repeated,
        tally.exceptions,
        report.exceptions,
    )
}

fn cleaned_summary(cleaned: &Cleaned) -> String {
    format!(
        "removed    {} sources, {}\ngone       {} before\nkept       {}",
        cleaned.removed,
        ByteSize(cleaned.bytes),
        cleaned.gone,
        cleaned.kept
    )
}

/// Says what would be moved.
fn dry_run(parts: &Parts, settings: &Settings, args: &RunArgs) -> Result<ExitCode, Failure> {
    let cutoff = parts.state.cutoff()?;
    let mut window = Window::until(horizon(parts.rows.now()?, cutoff.lag_days, args.until));
    window.start = cutoff.archived_until.unwrap_or(window.start).min(window.end);
    let volumes = parts.rows.volumes(window, &CLASS_BOUNDS)?;
    let scope = Scope::of(
        &volumes,
        &Assumptions {
            bits: settings.archive.n_bits.and_then(desfmt::BucketBits::new),
            shard_bytes: settings.archive.max_shard_size.0,
            prices: settings.prices,
            knows_sizes: settings.database.size_column.is_some(),
        },
    );
    if args.json {
        println!("{}", serde_json::to_string_pretty(&scope).map_err(died)?);
    } else {
        println!("{scope}\n\ndry run: nothing was written");
    }
    Ok(ExitCode::from(DONE))
}
