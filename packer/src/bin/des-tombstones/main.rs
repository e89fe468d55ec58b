//! `des-tombstones`: deletes files on order, and says how far each deletion has come.

mod add;
mod cli;
mod show;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use desstore::{Archive, Clock, ObjectStore, ReadOptions, SystemClock, SystemRandom};
use packer::PackError;
use packer::erase::RequestError;
use packer::program::{DONE, FAILED, USAGE, failed, misused, runtime};

use cli::{Args, Task};

const NAME: &str = "des-tombstones";

/// What a task needs.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) archive: Arc<Archive>,
    pub(crate) clock: Arc<dyn Clock>,
    /// True where answers are JSON.
    pub(crate) json: bool,
}

/// How a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Well,
    /// Something is not as it should be.
    Badly,
}

/// Why a task could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The archive or its store.
    #[error(transparent)]
    Archive(#[from] PackError),
    /// The order.
    #[error("{file}")]
    Order {
        /// Where it came from.
        file: String,
        /// What is wrong with it.
        source: RequestError,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Misuse(String),
    /// Nobody can be told.
    #[error("standard output")]
    Output(#[from] io::Error),
}

impl From<desstore::ArchiveError> for Failure {
    fn from(error: desstore::ArchiveError) -> Self {
        Self::Archive(error.into())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.start();
    if let Err(error) = args.store.resolve() {
        return misused::<Args>(error);
    }
    match run(&args) {
        Ok(End::Well) => ExitCode::from(DONE),
        Ok(End::Badly) => ExitCode::from(FAILED),
        Err(Failure::Misuse(reason)) => {
            drop(writeln!(io::stderr(), "{NAME}: {reason}"));
            ExitCode::from(USAGE)
        }
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
        Err(error) => failed(NAME, &error),
    }
}

fn run(args: &Args) -> Result<End, Failure> {
    runtime()?.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let connected = args.store.connect(Arc::clone(&clock), Arc::new(SystemRandom)).await?;
        let options = ReadOptions { memory_bytes: 128 << 20, ..ReadOptions::default() };
        let store = connected.store;
        let archive = Archive::open(Arc::clone(&store), options, Arc::clone(&clock), Arc::new(SystemRandom)).await?;
        let opened = Opened { store, archive, clock, json: args.json };
        let mut out = io::BufWriter::new(io::stdout());
        let end = match &args.task {
            Task::Add(asked) => add::add(&opened, asked, &mut out).await,
            Task::Expire(asked) => add::expire(&opened, asked.older_than, &asked.order, &mut out).await,
            Task::List(asked) => show::list(&opened, asked, &mut out).await,
            Task::Status(asked) => show::status(&opened, asked, &mut out).await,
            Task::Stats => show::stats(&opened, &mut out).await,
            Task::Fold(asked) => add::fold(&opened, asked, &mut out).await,
        }?;
        out.flush()?;
        Ok(end)
    })
}
