//! The conformance checks of a store on any server that speaks S3, for `scripts/test --compat` and for trying a server by
//! hand.

#![expect(clippy::print_stdout, reason = "a tool whose answer goes to stdout")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;
use desstore::conformance::{self, Traits};
use desstore::stack::{RetryStore, StackMetrics, StackSettings};
use desstore::{Location, ObjectStore, S3Store, StoreOptions, Surroundings, SystemClock, SystemRandom};

/// Runs the checks below a prefix of a bucket, which should be empty. Exit code 1 and the first broken promise where one is
/// broken.
#[derive(Debug, Parser)]
struct Args {
    /// `s3://BUCKET/PREFIX`.
    uri: String,
    /// The server, such as `http://127.0.0.1:8333`.
    #[arg(long)]
    endpoint: String,
    /// A file of the form of `~/.aws/credentials`.
    #[arg(long)]
    credentials_file: PathBuf,
    /// Leaves out what a server needs not do where one writer works alone: *replace if unchanged*.
    #[arg(long)]
    one_writer: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let Location::S3(location) = Location::parse(&args.uri)? else {
        return Err(format!("{} is no bucket", args.uri).into());
    };
    let mut options = StoreOptions::default();
    options.set("endpoint", Some(&args.endpoint))?;
    options.set("credentials_file", args.credentials_file.to_str())?;
    let traits = if args.one_writer { Traits::BUCKET_OF_ONE_WRITER } else { Traits::BUCKET };
    let scratch = tempfile::tempdir()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let surroundings = Surroundings::new(Arc::new(SystemClock::new()), Arc::new(SystemRandom));
        let store = S3Store::connect(&location, &options, &surroundings).await?;
        let count = AtomicU32::new(0);
        // A server may fail now and then; what it must not do is answer wrongly.
        let patient = |inner: Arc<dyn ObjectStore>| {
            let (retry, metrics) = (StackSettings::default().retry, StackMetrics::unregistered().zone("server"));
            RetryStore::new(inner, retry, Arc::clone(&surroundings.clock), Arc::new(SystemRandom), metrics)
        };
        let make = || -> Arc<dyn ObjectStore> {
            let number = count.fetch_add(1, Ordering::Relaxed);
            Arc::new(patient(Arc::new(store.below(&format!("check-{number}")))))
        };
        conformance::run_with(traits, make, scratch.path()).await?;
        println!("{} checks passed", count.load(Ordering::Relaxed));
        Ok(())
    })
}
