//! des-pack: fills an archive from a manifest or a directory.

mod cli;
mod console;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;
use desstore::{Clock, LocalStore, MemoryStore, ObjectStore, SystemClock, SystemRandom};
use packer::pack::Config;
use packer::{PackError, Progress, Report};
use tokio::runtime::Runtime;

use cli::{Args, Request};

const DONE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// How many rows that were left out are named on standard error; the report has all.
const ISSUES_SHOWN: usize = 20;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = Args::parse();
    let temporary = std::env::temp_dir().join("des-pack");
    let request = match args.request(temporary) {
        Ok(request) => request,
        Err(reason) => {
            drop(<Args as clap::CommandFactory>::command().error(ErrorKind::ValueValidation, reason).print());
            return ExitCode::from(USAGE);
        }
    };
    match run(request) {
        Ok(report) => ExitCode::from(tell(&report)),
        Err(error) => {
            tell_error(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// Shows the outcome and says how the program ends.
fn tell(report: &Report) -> u8 {
    let mut stderr = std::io::stderr().lock();
    for issue in report.issues.iter().take(ISSUES_SHOWN) {
        let row = issue.row.map(|row| format!("row {row}: ")).unwrap_or_default();
        let name = issue.uid.as_deref().or(issue.source.as_deref()).unwrap_or_default();
        // Names can hold anything; a terminal gets them quoted.
        drop(writeln!(stderr, "des-pack: {row}{name:?}: {}", issue.reason));
    }
    let unseen = report.left_out().saturating_sub(u64::try_from(ISSUES_SHOWN).unwrap_or(u64::MAX));
    if unseen > 0 {
        drop(writeln!(stderr, "des-pack: and {unseen} more (--report FILE lists all)"));
    }
    let shown = writeln!(std::io::stdout(), "{report}");
    if report.is_clean() && shown.is_ok() { DONE } else { FAILED }
}

fn tell_error(error: &(dyn std::error::Error + 'static)) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    drop(writeln!(std::io::stderr(), "des-pack: {text}"));
}

fn run(request: Request) -> Result<Report, PackError> {
    let Request { archive, format, config } = request;
    config.input.check()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    if format == 2 {
        return run_flat(config, &archive, &clock);
    }
    runtime()?.block_on(async {
        let progress = Arc::new(Progress::default());
        let store: Arc<dyn ObjectStore> = if config.dry_run && !archive.try_exists().unwrap_or(true) {
            // Nothing is there and nothing is to be made: plan against an empty archive.
            Arc::new(MemoryStore::new(Arc::clone(&clock)))
        } else {
            let store = LocalStore::create(&archive, Arc::clone(&clock))?;
            store.clean_debris()?;
            Arc::new(store)
        };
        let shown = tokio::spawn(console::show(Arc::clone(&progress), Arc::clone(&clock)));
        let result = Box::pin(packer::pack::run(config, store, clock, Arc::new(SystemRandom), progress)).await;
        shown.abort();
        // Cancelled, as asked; by then the bar is gone.
        drop(shown.await);
        result
    })
}

/// Packs into a flat directory of the ancestor, with its progress shown beside.
fn run_flat(config: Config, directory: &Path, clock: &Arc<dyn Clock>) -> Result<Report, PackError> {
    let runtime = runtime()?;
    let progress = Arc::new(Progress::default());
    let shown = runtime.spawn(console::show(Arc::clone(&progress), Arc::clone(clock)));
    let result = packer::flat::run(config, directory, clock.as_ref(), progress);
    shown.abort();
    result
}

fn runtime() -> Result<Runtime, PackError> {
    let died = |error: std::io::Error| PackError::Died { source: Box::new(error) };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(died)
}
