//! `des-verify`: says whether an archive is sound, and makes a lost manifest anew, and adopts archives of the ancestor.

mod check;
mod cli;
mod rebuild;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use desstore::{Clock, Conditions, ObjectStore, SystemClock, SystemRandom};
use packer::program::{DONE, FAILED, misused, reason_of, runtime};

use cli::Args;

const NAME: &str = "des-verify";

/// It could not be checked. The same as for a command line that is wrong: neither says anything of the archive.
const UNCHECKED: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.start();
    if let Err(error) = args.store.resolve() {
        return misused::<Args>(error);
    }
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Whatever goes wrong outside of a finding says nothing about the archive.
            drop(writeln!(io::stderr(), "{NAME}: {}", reason_of(error.as_ref())));
            ExitCode::from(UNCHECKED)
        }
    }
}

fn run(args: &Args) -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
    runtime()?.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let connected = args.store.connect(Arc::clone(&clock), Arc::new(SystemRandom)).await?;
        if args.probe {
            return probe(connected.store.as_ref()).await;
        }
        if let Some(date) = args.rebuild_manifest {
            return rebuild::run(args, date, connected.store, clock).await;
        }
        if args.adopt {
            return rebuild::adopt(args, connected.store, clock).await;
        }
        check::run(args, connected.store, clock).await
    })
}

async fn probe(store: &dyn ObjectStore) -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
    let (verdict, code) = match desstore::probe(store, &SystemRandom).await? {
        Conditions::Honoured => ("honours conditional writes", DONE),
        Conditions::CreateOnly => ("honours create-if-absent, but not replace-if-unchanged", FAILED),
        Conditions::Ignored => ("does not honour conditional writes", FAILED),
    };
    writeln!(io::stdout(), "the store {verdict}")?;
    Ok(code)
}
