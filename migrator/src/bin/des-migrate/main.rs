//! `des-migrate`: moves the files that a table lists into an archive.
#![expect(clippy::print_stdout, reason = "a program that is asked answers on its standard output")]

mod cli;
mod heaps;
mod parts;
mod run;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use desstore::config::ConfigError;
use migrator::MigrateError;
use migrator::config::Settings;
use migrator::state::{Selection, StateStore};
use packer::program::{DONE, FAILED, USAGE, failed, misused, runtime};

use cli::{Args, Command, ConfigCommand, ExceptionsCommand};
use parts::{Parts, environment};

/// Why the program ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something failed.
    #[error(transparent)]
    Failed(Box<MigrateError>),
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<migrator::DatabaseError> for Failure {
    fn from(error: migrator::DatabaseError) -> Self {
        Self::from(MigrateError::from(error))
    }
}

fn main() -> ExitCode {
    heaps::begin_with_few();
    let args = Args::parse();
    args.log.start();
    match dispatch(args) {
        Ok(code) => code,
        Err(Failure::Usage(reason)) => misused::<Args>(reason),
        Err(Failure::Config(error)) => {
            failed("des-migrate", &error);
            ExitCode::from(USAGE)
        }
        Err(Failure::Failed(error)) => failed("des-migrate", &error),
    }
}

fn dispatch(args: Args) -> Result<ExitCode, Failure> {
    let Args { config, worker, command, run, log: _ } = args;
    if let Some(Command::Config { command: ConfigCommand::Convert { file } }) = &command {
        print!("{}", migrator::config::convert(file, &environment)?);
        return Ok(ExitCode::from(DONE));
    }
    let path = config.ok_or_else(|| Failure::Usage("--config FILE is needed".to_owned()))?;
    let mut settings = migrator::config::load(&path, &environment)?;
    if let Some(worker) = worker {
        settings.migration.worker = worker;
    }
    match command {
        None => run::migrate(&path, &settings, run),
        Some(Command::Sweep) => run::sweep(&path, &settings, run),
        Some(Command::Cleanup { remove_deleted }) => run::cleanup(&path, &settings, run, remove_deleted),
        Some(Command::Init { print_ddl, lag_days }) => init(&path, &settings, print_ddl, lag_days),
        Some(Command::Status) => status(&path, &settings),
        Some(Command::Exceptions { command }) => exceptions(&path, &settings, command),
        Some(Command::Config { command: ConfigCommand::Check { offline } }) => check(&path, &settings, offline),
        Some(Command::Config { command: ConfigCommand::Convert { .. } }) => Ok(ExitCode::from(DONE)),
    }
}

fn init(path: &Path, settings: &Settings, print_ddl: bool, lag_days: Option<u32>) -> Result<ExitCode, Failure> {
    let lag_days = lag_days.unwrap_or(settings.migration.lag_days);
    if print_ddl {
        let schema = settings.schema().map_err(parts::wrong(path))?;
        println!("{}", migrator::rows::postgres::ddl(schema.as_ref()));
        let table = schema.map(|schema| format!("{schema}.")).unwrap_or_default();
        println!("INSERT INTO {table}des_archive_config (lag_days) VALUES ({lag_days}) ON CONFLICT DO NOTHING;");
        return Ok(ExitCode::from(DONE));
    }
    parts::state(path, settings)?.init(lag_days)?;
    println!("the tables of state are there; rows are moved {lag_days} days after their day");
    Ok(ExitCode::from(DONE))
}

fn status(path: &Path, settings: &Settings) -> Result<ExitCode, Failure> {
    let state = parts::state(path, settings)?;
    let cutoff = state.cutoff()?;
    let shown = |time: Option<desfmt::Timestamp>| time.map_or("-".to_owned(), |time| time.to_string());
    println!("archived until  {}", shown(cutoff.archived_until));
    println!("listed until    {}", shown(cutoff.planned_until));
    println!("lag             {} days", cutoff.lag_days);
    println!("archive         {}", cutoff.archive.as_deref().unwrap_or("-"));
    println!("exceptions      {} not acknowledged", state.open_exceptions()?);
    Ok(ExitCode::from(DONE))
}

fn exceptions(path: &Path, settings: &Settings, command: ExceptionsCommand) -> Result<ExitCode, Failure> {
    let state = parts::state(path, settings)?;
    match command {
        ExceptionsCommand::List { which, acked, json, limit } => {
            let selection = which.selection(true, acked).map_err(Failure::Usage)?;
            list(&state, &selection, json, limit)
        }
        ExceptionsCommand::Ack { which, all, by } => {
            let count = state.acknowledge(&which.selection(all, false).map_err(Failure::Usage)?, &by)?;
            println!("{count} exceptions acknowledged by {by}");
            Ok(ExitCode::from(DONE))
        }
        ExceptionsCommand::Retry { which, all } => {
            let days = state.retry(&which.selection(all, true).map_err(Failure::Usage)?)?;
            println!("{days} days are open again; the next run moves them");
            Ok(ExitCode::from(DONE))
        }
    }
}

fn list(state: &dyn StateStore, selection: &Selection, json: bool, limit: u32) -> Result<ExitCode, Failure> {
    let found = state.list(selection, limit)?;
    for one in &found {
        if json {
            println!("{}", serde_json::to_string(one).unwrap_or_default());
            continue;
        }
        let (day, uid, by) = (one.day.as_deref().unwrap_or("-"), &one.uid, one.acked_by.as_deref());
        let by = by.map(|by| format!(" (acknowledged by {by})")).unwrap_or_default();
        println!("{day} {:8} {:18} {uid:?} {}: {}{by}", one.stage, one.kind, one.source, one.reason);
    }
    Ok(ExitCode::from(DONE))
}

/// Opens everything that a run needs, and says what is not as it should be.
fn check(path: &Path, settings: &Settings, offline: bool) -> Result<ExitCode, Failure> {
    if offline {
        println!("{}: the configuration can be understood", path.display());
        return Ok(ExitCode::from(DONE));
    }
    let runtime = runtime().map_err(MigrateError::from)?;
    let parts = Parts::open(path, settings)?;
    let mut is_good = true;
    println!("source table    can be read");
    let now = migrator::rows::RowSource::now(parts.rows.as_ref())?;
    let plan = parts.rows.explain(migrator::days::Window::until(now))?;
    if plan.is_good() {
        println!("scan            one index gives the rows in order:");
    } else {
        println!("scan            needs an index on (created_at, uid); without it:");
    }
    for line in plan.lines() {
        println!("                {line}");
    }
    match parts.state.cutoff() {
        Ok(cutoff) => println!("tables of state are there, lag {} days", cutoff.lag_days),
        Err(error) => {
            is_good = false;
            println!("tables of state {error}");
        }
    }
    match runtime.block_on(parts.look(path, settings)) {
        Ok(()) => println!("archive         can be reached"),
        Err(error) => println!("archive         not there yet ({error}); the first run makes it"),
    }
    if settings.sources.roots.is_empty() {
        println!("sources         may lie anywhere; sources.roots would confine them, and cleanup needs it");
    }
    Ok(ExitCode::from(if is_good { DONE } else { FAILED }))
}
