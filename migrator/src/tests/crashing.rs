//! A migrator that dies at any call to the store or to the tables of state, and the run after it.

use std::sync::Arc;
use std::time::Duration;

use desstore::ObjectStore;
use desstore::fault::{FaultStore, Phase};

use super::fakes::{World, memory, shown};
use crate::cleanup::CleanupPlan;

const DAYS: [&str; 2] = ["20240301", "20240303"];
const FILES: usize = 3;
const CLEANUP: CleanupPlan = CleanupPlan { delay: Duration::ZERO, remove_deleted: false };

fn faulty(inner: &Arc<dyn ObjectStore>) -> (Arc<FaultStore>, Arc<dyn ObjectStore>) {
    let faults = Arc::new(FaultStore::new(Arc::clone(inner), 1));
    let store: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
    (faults, store)
}

/// A world with one file that cannot be moved.
fn world() -> World {
    let world = World::new(&DAYS, FILES);
    std::fs::remove_file(world.source("20240303-1")).unwrap();
    world
}

/// Runs again on a store that works, and asserts that everything is as if nothing had happened.
async fn assert_recovers(world: &World, inner: &Arc<dyn ObjectStore>, what: &str) {
    world.assert_shown(inner, what).await;
    world.state.revive();
    let migrator = world.migrator(inner);
    migrator.cycle().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let mut expected = world.contents.clone();
    expected.remove(&(DAYS[1].parse().unwrap(), "20240303-1".to_owned()));
    assert_eq!(shown(inner).await, expected, "{what}");
    assert_eq!(world.state.excepted_uids().into_iter().collect::<Vec<_>>(), ["20240303-1"], "{what}");
    assert_eq!(world.state.archived_until(), Some(DAYS[1].parse::<desfmt::Date>().unwrap().start()), "{what}");
    let again = migrator.cycle().await.unwrap();
    assert_eq!(again.tally.rows, 0, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_call_to_the_store_loses_nothing() {
    let (traced, store) = faulty(&memory());
    world().migrator(&store).cycle().await.unwrap();
    let calls = traced.calls();
    assert!(calls.len() > 40, "{calls:?}");

    for call in &calls {
        for phase in Phase::ALL {
            let (world, inner) = (world(), memory());
            let (faults, store) = faulty(&inner);
            faults.crash_at(call.number, phase);
            drop(world.migrator(&store).cycle().await);
            // The process is gone.
            world.state.kill();

            assert_recovers(&world, &inner, &format!("{phase:?} {call:?}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_call_to_the_tables_of_state_loses_nothing() {
    let traced = world();
    traced.migrator(&memory()).cycle().await.unwrap();
    let calls = traced.state.calls();
    assert!(calls > 8, "{calls}");

    for call in 0..calls {
        for phase in Phase::ALL {
            let (world, store) = (world(), memory());
            world.state.crash_at(call, phase);
            let outcome = world.migrator(&store).cycle().await;
            let what = format!("{phase:?} state call {call}");
            // An acknowledgement that is lost is asked for again.
            assert_eq!(outcome.is_ok(), phase == Phase::AckLost, "{what}: {outcome:?}");
            world.state.kill();

            assert_recovers(&world, &store, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_that_dies_anywhere_removes_only_what_is_proven_and_ends_the_next_time() {
    let prepared = || async {
        let (world, inner) = (World::new(&DAYS, FILES), memory());
        world.migrator(&inner).cycle().await.unwrap();
        let (faults, store) = faulty(&inner);
        (world, inner, faults, store)
    };
    let (world, _, faults, store) = prepared().await;
    let state_before = world.state.calls();
    world.migrator(&store).cleanup(CLEANUP).await.unwrap();
    let (calls, state_calls) = (faults.calls().len(), world.state.calls() - state_before);
    assert!(calls >= DAYS.len() * FILES && state_calls >= 6, "{calls} {state_calls}");

    for phase in Phase::ALL {
        for at in 0..calls + usize::try_from(state_calls).unwrap() {
            let (world, inner, faults, store) = prepared().await;
            match at.checked_sub(calls) {
                None => faults.crash_at(u64::try_from(at).unwrap(), phase),
                Some(at) => world.state.crash_at(world.state.calls() + u64::try_from(at).unwrap(), phase),
            }
            drop(world.migrator(&store).cleanup(CLEANUP).await);
            world.state.kill();

            // The archive holds everything, whatever was removed.
            assert_eq!(shown(&inner).await, world.contents, "{phase:?} {at}");
            world.state.revive();
            let cleaned = world.migrator(&inner).cleanup(CLEANUP).await.unwrap();
            assert_eq!(cleaned.kept, 0, "{phase:?} {at}");
            for (_, uid) in world.contents.keys() {
                assert!(!world.source(uid).try_exists().unwrap(), "{phase:?} {at}: {uid} stays");
            }
        }
    }
}
