//! `des-repack`: takes the bytes of deleted files out of an archive, and deletes what is no longer needed.

mod cli;

use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use desfmt::Timestamp;
use desstore::observe::{Health, Registry, serve, write_textfile};
use desstore::repack::Repacked;
use desstore::{ArchiveWriter, Clock, Connected, SystemClock, SystemRandom};
use packer::PackError;
use packer::program::{DONE, FAILED, failed, misused, runtime};
use packer::repack::{self, GcReport, RepackMetrics, RepackReport};

use cli::Args;

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
    connected: Connected,
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
    // What a directory does is this program's own work.
    if !args.run.dry_run && connected.local.is_none() {
        repack::refuse_unconditional(connected.store.as_ref(), &SystemRandom).await?;
    }
    let opened = Opened { connected, writer: Arc::new(writer), metrics };
    if !args.run.continuous {
        let is_clean = round(args, &opened).await?;
        leave_metrics(args, &registry)?;
        drop(observer);
        return Ok(is_clean);
    }
    // Being stopped amid a round is as good as being killed there: the next run goes on from what is left.
    let mut stopped = pin!(terminated());
    loop {
        let round = tokio::select! {
            round = round(args, &opened) => round,
            () = &mut stopped => return Ok(true),
        };
        if round.is_ok() {
            leave_metrics(args, &registry)?;
        }
        health.0.store(!matches!(round, Ok(true)), Ordering::Relaxed);
        if let Err(error) = round {
            failed(NAME, &error);
        }
        opened.writer.archive().drop_caches();
        tokio::select! {
            () = clock.sleep(args.run.interval) => {}
            () = &mut stopped => return Ok(true),
        }
    }
}

/// Writes the metrics to a file, if that is wanted.
fn leave_metrics(args: &Args, registry: &Registry) -> Result<(), PackError> {
    // One that brings a version back has looked at nothing else.
    let (Some(path), None) = (&args.run.textfile, &args.repack.rollback) else { return Ok(()) };
    let refused = |source| PackError::Refused { reason: format!("--textfile {}: {source}", path.display()) };
    write_textfile(registry, path).map_err(refused)
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
    let now = opened.connected.store.time().await?;
    let scratch = args.store.resolve()?.0.scratch();
    let config = args.repack_config(scratch, opened.connected.local.clone());
    let mut is_clean = args.run.dry_run || clean_up(args, opened, &config.spool).await?;
    if let Some(key) = &args.repack.rollback {
        let outcome = repack::roll_back(&opened.writer, &config, key).await?;
        let is_back = matches!(outcome, Repacked::Swapped(_));
        let text = if is_back { "is back under a new name" } else { "was overtaken by another change; try again" };
        return Ok(print(&format!("{key} {text}")) && is_back);
    }
    let mut oldest = None;
    if args.task.is_none() {
        let repacked: Result<RepackReport, PackError> = repack::run(&opened.writer, &config, &opened.metrics).await;
        match repacked {
            Ok(report) => {
                is_clean &= tell(args, &report, &report.failures) && report.is_clean();
                oldest = report.oldest_deletion;
            }
            Err(error) if args.collects() => {
                // What was repacked before may be due all the same.
                failed(NAME, &error);
                is_clean = false;
            }
            Err(error) => return Err(error),
        }
    }
    if args.collects() {
        let report: GcReport = repack::collect(&opened.writer, &args.gc_config(), &opened.metrics).await?;
        is_clean &= tell(args, &report, &report.failures) && report.is_clean();
        oldest = report.oldest_deletion;
    }
    // What lies in a spool may be of a file that was deleted since.
    let in_spool = packer::oldest_in_spool(&config.spool)?.map(Timestamp::micros);
    opened.metrics.note_oldest(oldest.into_iter().chain(in_spool).min(), now);
    Ok(is_clean)
}

/// Takes away what dead runs have left, and pays what zones are owed. False where something could not be paid.
async fn clean_up(args: &Args, opened: &Opened, spool: &Path) -> Result<bool, PackError> {
    packer::clear_debris(&opened.connected, spool).await?;
    let Some(zones) = &opened.connected.zones else { return Ok(true) };
    let report = packer::pay_debts(zones, spool).await?;
    Ok(report.is_empty() || (tell(args, &report, &report.failures) && report.failures.is_empty()))
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
