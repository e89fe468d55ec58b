//! A packer that dies at any call to the store, and the run after it.

use std::sync::Arc;

use desfmt::BucketBits;
use desstore::fault::{FaultRates, FaultStore, Phase};
use desstore::{ObjectStore, Randomness, SystemRandom};

use crate::pack::Config;
use crate::pack::testing::{self, World, visible};

/// Small, but with several days, groups and splits.
fn small_world(seed: u64) -> World {
    World::mixed(seed, 12)
}

fn config(world: &World) -> Config {
    let shard_limits = crate::plan::ShardLimits { bytes: 1 << 20, entries: 3 };
    Config { bits: BucketBits::new(1), shard_limits, ..world.config() }
}

fn faulty(inner: &Arc<dyn ObjectStore>, seed: u64) -> (Arc<FaultStore>, Arc<dyn ObjectStore>) {
    let faults = Arc::new(FaultStore::new(Arc::clone(inner), seed));
    let store: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
    (faults, store)
}

#[tokio::test]
async fn a_run_after_a_crash_at_any_call_completes_the_archive_and_doubles_nothing() {
    let seed = SystemRandom.next();
    println!("seed {seed}");
    let world = small_world(seed);
    let (traced, store) = faulty(&testing::memory(), seed);
    world.pack_as(config(&world), &store).await.unwrap();
    let calls = traced.calls();
    // Survey, claim, upload, read back and commit of several shards, and the creation: fewer would mean that the trace is
    // not of the real thing.
    assert!(calls.len() > 50, "{calls:?}");

    let mut hit = 0;
    for phase in Phase::ALL {
        for call in &calls {
            let inner = testing::memory();
            let (faults, store) = faulty(&inner, seed);
            faults.crash_at(call.number, phase);
            let outcome = world.pack_as(config(&world), &store).await;
            let what = format!("seed {seed}: {phase:?} {call:?}");
            // After the last call of all a crash harms nothing.
            if phase == Phase::Before && faults.is_dead() {
                assert!(outcome.is_err(), "{what}: a dead store went unnoticed");
            }
            hit += usize::from(faults.calls().iter().any(|call| call.fault.is_some()));

            let report =
                world.pack_as(config(&world), &inner).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));

            assert!(report.is_clean(), "{what}: {report:?}");
            assert_eq!(visible(&inner).await, world.expected(), "{what}");
            world.assert_one_live_shard_each(&inner).await;
        }
    }
    // Runs differ by a few calls, as shards of a day may or may not share a commit.
    assert!(hit * 10 > calls.len() * 3 * 9, "seed {seed}: only {hit} of {} crashes happened", calls.len() * 3);
}

#[tokio::test]
async fn a_crash_publishes_nothing_wrong_even_before_the_next_run() {
    let seed = SystemRandom.next();
    println!("seed {seed}");
    let world = small_world(seed);
    let expected = world.expected();
    for number in 0..120 {
        let inner = testing::memory();
        let (faults, store) = faulty(&inner, seed);
        faults.crash_at(number, Phase::After);
        drop(world.pack_as(config(&world), &store).await);

        for (name, content) in visible(&inner).await {
            assert_eq!(expected.get(&name), Some(&content), "seed {seed}, call {number}: {name:?}");
        }
    }
}

#[tokio::test]
async fn runs_on_a_store_that_fails_by_chance_converge() {
    for round in 0..20 {
        let seed = SystemRandom.next();
        println!("round {round}, seed {seed}");
        let world = small_world(seed);
        let inner = testing::memory();
        let (faults, store) = faulty(&inner, seed);
        let rates = FaultRates { throttled: 5_000, unavailable: 10_000, ack_lost: 20_000, ..FaultRates::default() };
        faults.set_rates(rates);

        let mut attempts = 0;
        while world.pack_as(config(&world), &store).await.is_err() {
            attempts += 1;
            assert!(attempts < 200, "seed {seed}: no end");
        }

        assert_eq!(visible(&inner).await, world.expected(), "seed {seed}");
        world.assert_one_live_shard_each(&inner).await;
    }
}
