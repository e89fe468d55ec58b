//! `des-repack`: takes the bytes of deleted files out of an archive, and deletes what is no longer needed.

mod cli;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use desstore::observe::{Health, Registry, serve, write_textfile};
use desstore::repack::Repacked;
use desstore::{ArchiveWriter, Clock, ObjectStore, SystemClock, SystemRandom};
use packer::PackError;
use packer::program::{DONE, FAILED, failed, misused, runtime};
use packer::repack::{self, GcReport, RepackMetrics, RepackReport};

use cli::{Args, Task};

const NAME: &str = "des-repack";

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.start();
    if let Err(reason) = args.check() {
        return misused::<Args>(reason);
    }
    if let Err(error) = args.store.resolve() {
        return misused::<Args>(error);
    }
    let outcome = runtime().and_then(|runtime| runtime.block_on(run(&args)));
    match outcome {
        Ok(true) => ExitCode::from(DONE),
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => failed(NAME, &error),
    }
}

/// Tells whoever asks over HTTP that the last round could be done.
#[derive(Debug, Default)]
struct LastRound(AtomicBool);

impl Health for LastRound {
    fn ready(&self) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) { Err("the last run failed; see the log".to_owned()) } else { Ok(()) }
    }
}

/// What a run needs.
struct Opened {
    store: Arc<dyn ObjectStore>,
    writer: Arc<ArchiveWriter>,
    metrics: RepackMetrics,
}

/// Runs once or for ever. False where something could not be done.
async fn run(args: &Args) -> Result<bool, PackError> {
    let registry = Registry::new();
    let metrics = RepackMetrics::register(&registry).map_err(|error| PackError::Died { source: Box::new(error) })?;
    let health = Arc::new(LastRound::default());
    let observer = match args.run.http {
        Some(address) => {
            let shared: Arc<dyn Health> = Arc::<LastRound>::clone(&health);
            let served = serve(address, registry.clone(), shared).await;
            Some(served.map_err(|source| PackError::Refused { reason: format!("--http {address}: {source}") })?)
        }
        None => None,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let connected = args.store.connect(Arc::clone(&clock), Arc::new(SystemRandom)).await?;
    let writer = ArchiveWriter::open(Arc::clone(&connected.store), Arc::clone(&clock), Arc::new(SystemRandom)).await?;
    let Some(writer) = writer else {
        let reason = format!("there is no archive at {}: it has no des.json", args.store.shown());
        return Err(PackError::Refused { reason });
    };
    let opened = Opened { store: connected.store, writer: Arc::new(writer), metrics };
    if !args.run.dry_run {
        repack::refuse_unconditional(opened.store.as_ref(), &SystemRandom).await?;
    }
    loop {
        let round = round(args, &opened).await;
        if let Some(path) = &args.run.textfile {
            let written = write_textfile(&registry, path);
            written
                .map_err(|source| PackError::Refused { reason: format!("--textfile {}: {source}", path.display()) })?;
        }
        if !args.run.continuous {
            drop(observer);
            return round;
        }
        health.0.store(!matches!(round, Ok(true)), Ordering::Relaxed);
        if let Err(error) = round {
            failed(NAME, &error);
        }
        opened.writer.archive().drop_caches();
        tokio::select! {
            () = clock.sleep(args.run.interval) => {}
            () = terminated() => return Ok(true),
        }
    }
}

/// Completes at SIGTERM or SIGINT.
async fn terminated() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(error) => {
            tracing::warn!(%error, "SIGTERM ends this process at once");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// One run: what was asked for, or with --continuous both.
async fn round(args: &Args, opened: &Opened) -> Result<bool, PackError> {
    let now = opened.store.time().await?;
    let scratch = args.store.resolve()?.0.scratch();
    let config = args.repack_config(scratch);
    if let Some(key) = &args.repack.rollback {
        let outcome = repack::roll_back(&opened.writer, &config, key).await?;
        let is_back = matches!(outcome, Repacked::Swapped(_));
        let text = if is_back { "is back under a new name" } else { "was overtaken by another change; try again" };
        return Ok(print(&format!("{key} {text}")) && is_back);
    }
    let (mut is_clean, mut oldest) = (true, None);
    if args.task.is_none() {
        let report: RepackReport = repack::run(&opened.writer, &config, &opened.metrics).await?;
        is_clean &= tell(args, &report, &report.failures) && report.is_clean();
        oldest = report.oldest_deletion;
    }
    if matches!(args.task, Some(Task::Gc(_))) || args.run.continuous {
        let report: GcReport = repack::collect(&opened.writer, &args.gc_config(), &opened.metrics).await?;
        is_clean &= tell(args, &report, &report.failures) && report.is_clean();
        oldest = report.oldest_deletion;
    }
    opened.metrics.note_oldest(oldest, now);
    Ok(is_clean)
}

/// Shows a report, and on standard error what failed.
fn tell(args: &Args, report: &(impl serde::Serialize + std::fmt::Display), failures: &[(String, String)]) -> bool {
    for (what, why) in failures {
        drop(writeln!(std::io::stderr(), "{NAME}: {what}: {why}"));
    }
    if args.run.json {
        serde_json::to_string(report).is_ok_and(|text| print(&text))
    } else {
        print(&report.to_string())
    }
}

fn print(text: &str) -> bool {
    writeln!(std::io::stdout(), "{text}").is_ok()
}
