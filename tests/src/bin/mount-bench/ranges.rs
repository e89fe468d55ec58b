//! Plain range requests for the shards of an archive in a bucket, by the client that a mount uses: what reading from there
//! costs without a file system.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use desfmt::layout;
use desstore::{
    Depth, Location, ObjectMeta, ObjectStore, S3Store, StoreOptions, Surroundings, SystemClock, SystemRandom,
};

use crate::numbers::Numbers;
use crate::outcome::{Failure, Outcome};

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Asked {
    /// The archive, `s3://BUCKET/PREFIX`.
    uri: String,
    #[arg(long)]
    endpoint: String,
    #[arg(long)]
    credentials_file: PathBuf,
    /// How many bytes a request is for.
    #[arg(long)]
    size: u64,
    /// How many requests for random places are sent, one after the other.
    #[arg(long, default_value_t = 0)]
    operations: usize,
    /// Decides which places.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Asks for all shards from their beginnings to their ends instead.
    #[arg(long)]
    whole: bool,
}

/// A part of an object.
struct Place<'a> {
    object: &'a ObjectMeta,
    start: u64,
    end: u64,
}

/// Sends the requests.
pub(crate) fn send(asked: &Asked) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = connect(asked).await?;
        let objects = desstore::list_all(&store, layout::SHARDS, Depth::Recursive, 1_000_000).await?;
        if objects.is_empty() {
            return Err(format!("{} holds no shards", asked.uri).into());
        }
        let places = if asked.whole { whole(&objects, asked.size) } else { random(&objects, asked) };
        let mut outcome = Outcome { objects: objects.len(), operations: places.len(), ..Outcome::default() };
        let began = Instant::now();
        for place in &places {
            let before = Instant::now();
            let bytes = store.get_range(&place.object.key, place.start..place.end, None).await?;
            outcome.latencies.push(before.elapsed());
            outcome.bytes += u64::try_from(bytes.len())?;
        }
        outcome.elapsed = began.elapsed();
        Ok(outcome)
    })
}

async fn connect(asked: &Asked) -> Result<S3Store, Failure> {
    let Location::S3(location) = Location::parse(&asked.uri)? else {
        return Err(format!("{} is no bucket", asked.uri).into());
    };
    let mut options = StoreOptions::default();
    options.set("endpoint", Some(&asked.endpoint))?;
    options.set("credentials_file", asked.credentials_file.to_str())?;
    let surroundings = Surroundings::new(Arc::new(SystemClock::new()), Arc::new(SystemRandom));
    Ok(S3Store::connect(&location, &options, &surroundings).await?)
}

fn whole(objects: &[ObjectMeta], size: u64) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for object in objects {
        let mut start = 0;
        while start < object.len {
            let end = (start + size).min(object.len);
            places.push(Place { object, start, end });
            start = end;
        }
    }
    places
}

fn random<'a>(objects: &'a [ObjectMeta], asked: &Asked) -> Vec<Place<'a>> {
    let mut numbers = Numbers::new(asked.seed);
    let count = u64::try_from(objects.len()).unwrap_or(u64::MAX);
    let mut places = Vec::new();
    while places.len() < asked.operations {
        let chosen = usize::try_from(numbers.below(count)).ok().and_then(|number| objects.get(number));
        let Some(object) = chosen else { continue };
        let start = numbers.below(object.len.saturating_sub(asked.size).max(1));
        places.push(Place { object, start, end: (start + asked.size).min(object.len) });
    }
    places
}
