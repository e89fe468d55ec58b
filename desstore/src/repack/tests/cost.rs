//! What an erasure costs: requests and bytes as they were planned, against those that were made.

use std::time::Duration;

use futures_util::future;

use super::{done, settings};
use crate::archive::Deletion;
use crate::fixture::{Fixture, day, uid};
use crate::repack::{Done, Thresholds};

/// How many shards there are, each in a group of its own.
const SHARDS: usize = 1_000;

/// How many files each of them has.
const FILES: usize = 20;

/// How many bits of a bucket number so many groups need.
const BITS: u8 = 10;

/// A uid that belongs to this group.
fn name(group: usize, file: usize) -> String {
    format!("{}", group + (file << BITS))
}

/// An archive with a shard in each of so many groups.
async fn archive() -> Fixture {
    let fixture = Fixture::with_bits(BITS).await;
    let mut shards = Vec::new();
    for group in 0..SHARDS {
        let files: Vec<(String, Vec<u8>)> = (0..FILES)
            .map(|file| (name(group, file), format!("<file {file} of {group}>").repeat(40).into_bytes()))
            .collect();
        let pairs: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        shards.push(fixture.build(&fixture.writer, &pairs).await);
    }
    // Side by side, so that they share their commits.
    fixture.store.let_others_in_between();
    let published = future::join_all(shards.iter().map(|shard| fixture.writer.publish(shard))).await;
    assert!(published.iter().all(Result::is_ok));
    fixture
}

#[tokio::test]
async fn erasing_one_percent_scattered_over_a_thousand_shards_costs_what_was_planned() {
    let fixture = archive().await;
    let doomed: Vec<_> = (0..SHARDS * FILES).step_by(100).map(|at| uid(&name(at / FILES, at % FILES))).collect();
    fixture.reader().await.delete_many(day(), &doomed, &Deletion::default()).await.unwrap();
    fixture.writer.fold(day()).await.unwrap();
    fixture.clock.advance(Duration::from_hours(12));

    fixture.store.take_calls();
    let plan = fixture.writer.plan_repack(day(), &Thresholds::default()).await.unwrap().unwrap();
    let planning = fixture.store.take_calls().len();
    let mut sum = Done::default();
    for job in &plan.jobs {
        let repacked = fixture.writer.repack(day(), job, &settings(&fixture)).await.unwrap();
        let one = done(&(job.clone(), repacked));
        sum.files_dropped += one.files_dropped;
        sum.bytes_read += one.bytes_read;
        sum.bytes_written += one.bytes_written;
    }
    let requests = u64::try_from(fixture.store.take_calls().len()).unwrap();

    let planned: u64 = plan.jobs.iter().map(super::Job::requests).sum();
    let bytes_read: u64 = plan.jobs.iter().map(super::Job::bytes_read).sum();
    let bytes_written: u64 = plan.jobs.iter().map(super::Job::bytes_written).sum();
    println!(
        "{} of {} files in {} of {SHARDS} shards: {planning} requests to plan; {planned} requests planned and {requests} \
         made, {bytes_read} bytes to read and {} read, {bytes_written} to write and {} written",
        sum.files_dropped,
        SHARDS * FILES,
        plan.jobs.len(),
        sum.bytes_read,
        sum.bytes_written,
    );
    assert_eq!((plan.jobs.len(), sum.files_dropped), (doomed.len(), 200));
    // The manifest, the listing, the time; for each group with a deletion its folded set and the tail of its shard.
    assert!(planning <= 3 + 2 * doomed.len(), "{planning}");
    assert!(requests <= planned && planned <= requests * 5 / 4, "{planned} planned, {requests} made");
    assert_eq!(sum.bytes_read, bytes_read);
    let (low, high) = (bytes_written * 4 / 5, bytes_written * 5 / 4);
    assert!((low..=high).contains(&sum.bytes_written), "{bytes_written} planned, {} written", sum.bytes_written);
}
