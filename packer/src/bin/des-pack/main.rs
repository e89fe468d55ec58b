//! des-pack: fills an archive from a manifest or a directory.

mod cli;
mod console;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use desstore::observe::Registry;
use desstore::stack::StackMetrics;
use desstore::zones::ZoneStore;
use desstore::{Clock, LocalStore, MemoryStore, ObjectStore, StoreOptions, Surroundings, SystemClock, SystemRandom};
use packer::pack::Config;
use packer::program::{DONE, FAILED, failed, misused, reason_of, runtime};
use packer::{Buckets, PackError, PackMetrics, Progress, Proof, Report, broken};

use cli::{Args, Request};

const NAME: &str = "des-pack";

/// How many rows that were left out are named on standard error; the report has all.
const ISSUES_SHOWN: usize = 20;

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.start();
    let temporary = std::env::temp_dir().join(NAME);
    let request = match args.request(temporary) {
        Ok(request) => request,
        Err(reason) => return misused::<Args>(reason),
    };
    match run(request) {
        Ok(report) => ExitCode::from(tell(&report)),
        Err(error) => failed(NAME, &error),
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

fn run(request: Request) -> Result<Report, PackError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let registry = Registry::new();
    let stack = StackMetrics::register(&registry).map_err(broken)?;
    let progress = Arc::new(Progress::counting(PackMetrics::register(&registry).map_err(broken)?));
    let observe = request.observe.clone();
    let result = if let (2, Some(directory)) = (request.format, request.archive.local_path()) {
        run_flat(request.config, &request.options, directory, &clock, &stack, progress)
    } else {
        runtime()?.block_on(async {
            let _observer = observe.serve(&registry, &stack).await?;
            run_archive(request, &clock, &stack, progress).await
        })
    };
    // What was done is told also where it went wrong.
    let written = observe.write(&registry);
    result.and_then(|report| written.map(|()| report))
}

/// Packs into an archive, with its progress shown beside.
async fn run_archive(
    mut request: Request,
    clock: &Arc<dyn Clock>,
    stack: &StackMetrics,
    progress: Arc<Progress>,
) -> Result<Report, PackError> {
    let surroundings = Surroundings::new(Arc::clone(clock), Arc::new(SystemRandom)).counting(stack.clone());
    let (options, spool) = (request.options.clone(), request.config.spool.clone());
    let buckets = Buckets::new(tokio::runtime::Handle::current(), options, surroundings.clone(), spool.clone());
    request.config.input.check(&buckets).await?;
    request.config.sources.buckets = Some(Arc::new(buckets));
    let Opened { store, proof, local, zones } = open_store(&request, &surroundings).await?;
    let shown = tokio::spawn(console::show(Arc::clone(&progress), Arc::clone(clock)));
    let (clock, random) = (Arc::clone(clock), Arc::new(SystemRandom));
    let result = Box::pin(packer::pack::run(request.config, (store, proof.clone()), clock, random, progress)).await;
    shown.abort();
    // Cancelled, as asked; by then the bar is gone.
    drop(shown.await);
    // Once more: what a process left that was still dying when this one began.
    if let Some(Err(error)) = local.map(|local| local.clean_debris()) {
        tracing::debug!(%error, "files of dead processes stay");
    }
    if let Some(zones) = zones
        && proof.passed().await.is_ok()
    {
        make_up(&zones, &spool).await;
    }
    result
}

/// Brings zones to what their homes hold, after what they have missed in this run or an earlier one. The run is none the worse
/// for what stays: the next one goes on with it.
async fn make_up(zones: &ZoneStore, spool: &Path) {
    let told = match packer::pay_debts(zones, spool).await {
        Ok(report) if report.is_empty() => return,
        Ok(report) => match report.failures.first() {
            Some((what, why)) => format!("{report}, such as that {what}: {why}"),
            None => report.to_string(),
        },
        Err(error) => format!("zones were not paid what they are owed: {}", reason_of(&error)),
    };
    drop(writeln!(std::io::stderr(), "{NAME}: {told}"));
}

/// What a run needs to know of the place of its archive.
struct Opened {
    store: Arc<dyn ObjectStore>,
    /// Whether it may be written to.
    proof: Proof,
    /// The directory behind it, where it is one.
    local: Option<LocalStore>,
    /// The zones behind it, where there are several and they may be written to.
    zones: Option<Arc<ZoneStore>>,
}

/// Opens the place of the archive, and takes away what dead processes have left there. A dry run makes no directory and
/// writes nothing: where nothing is, it plans against an empty archive.
async fn open_store(request: &Request, surroundings: &Surroundings) -> Result<Opened, PackError> {
    let Request { archive, options, single_writer, config, .. } = request;
    let is_missing = archive.local_path().is_some_and(|path| !path.try_exists().unwrap_or(true));
    if config.dry_run && is_missing {
        let store = Arc::new(MemoryStore::new(Arc::clone(&surroundings.clock)));
        return Ok(Opened { store, proof: Proof::given(), local: None, zones: None });
    }
    let connected = archive.create(options, surroundings).await?;
    if config.dry_run {
        return Ok(Opened { store: connected.store, proof: Proof::given(), local: connected.local, zones: None });
    }
    packer::clear_debris(&connected, &config.spool).await?;
    let (store, proof) = packer::writing(&connected, *single_writer, Arc::new(SystemRandom));
    Ok(Opened { store, proof, local: connected.local, zones: connected.zones })
}

/// Packs into a flat directory of the ancestor, with its progress shown beside.
fn run_flat(
    mut config: Config,
    options: &StoreOptions,
    directory: &Path,
    clock: &Arc<dyn Clock>,
    stack: &StackMetrics,
    progress: Arc<Progress>,
) -> Result<Report, PackError> {
    let runtime = runtime()?;
    let surroundings = Surroundings::new(Arc::clone(clock), Arc::new(SystemRandom)).counting(stack.clone());
    let buckets = Buckets::new(runtime.handle().clone(), options.clone(), surroundings, config.spool.clone());
    runtime.block_on(config.input.check(&buckets))?;
    config.sources.buckets = Some(Arc::new(buckets));
    let shown = runtime.spawn(console::show(Arc::clone(&progress), Arc::clone(clock)));
    let result = packer::flat::run(config, directory, clock.as_ref(), progress);
    shown.abort();
    result
}
