//! `des-verify`: says whether an archive is sound, and makes a lost manifest anew, and adopts archives of the ancestor.

mod check;
mod cli;
mod rebuild;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use desstore::zones::ZoneConditions;
use desstore::{Clock, Conditions, Connected, SystemClock, SystemRandom};
use packer::program::{DONE, FAILED, misused, reason_of, runtime};

use cli::Args;

const NAME: &str = "des-verify";

/// It could not be checked. The same as for a command line that is wrong: neither says anything of the archive.
const UNCHECKED: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.start();
    if let Err(reason) = args.check() {
        return misused::<Args>(reason);
    }
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
            return probe(&connected).await;
        }
        if let Some(date) = args.rebuild_manifest {
            return rebuild::run(args, date, connected.store, clock).await;
        }
        if args.adopt {
            return rebuild::adopt(args, connected.store, clock).await;
        }
        check::run(args, connected, clock).await
    })
}

/// Tells whether the store honours conditional writes, or each of several zones. One that does not is worse than one that
/// cannot be asked.
async fn probe(connected: &Connected) -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
    let Some(zones) = &connected.zones else {
        let found = desstore::probe(connected.store.as_ref(), &SystemRandom).await?;
        let (verdict, code) = verdict_on(found);
        writeln!(io::stdout(), "the store {verdict}")?;
        return Ok(code);
    };
    let mut codes = Vec::new();
    for ZoneConditions { zone, found } in zones.probe_zones(&SystemRandom).await {
        let (verdict, code) = match found {
            Ok(found) => verdict_on(found),
            Err(error) => {
                drop(writeln!(io::stderr(), "{NAME}: zone {zone}: {}", reason_of(&error)));
                ("could not be tried", UNCHECKED)
            }
        };
        writeln!(io::stdout(), "zone {zone} {verdict}")?;
        codes.push(code);
    }
    Ok([FAILED, UNCHECKED].into_iter().find(|code| codes.contains(code)).unwrap_or(DONE))
}

const fn verdict_on(found: Conditions) -> (&'static str, u8) {
    match found {
        Conditions::Honoured => ("honours conditional writes", DONE),
        Conditions::CreateOnly => ("honours create-if-absent, but not replace-if-unchanged", FAILED),
        Conditions::Ignored => ("does not honour conditional writes", FAILED),
    }
}
