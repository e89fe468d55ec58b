//! Several packers at once on one archive.

use std::sync::Arc;

use desfmt::BucketBits;
use desstore::{LocalStore, ObjectStore, SystemClock};
use tokio::task::JoinSet;

use crate::pack::Config;
use crate::pack::testing::{self, World, visible};

fn config(world: &World) -> Config {
    let shard_limits = crate::plan::ShardLimits { bytes: 1 << 20, entries: 20 };
    Config { bits: BucketBits::new(1), shard_limits, ..world.config() }
}

async fn race(world: &World, parts: &[World], stores: &[Arc<dyn ObjectStore>]) {
    let mut racers = JoinSet::new();
    for (part, store) in parts.iter().zip(stores.iter().cycle()) {
        let (part, store) = (part.clone(), Arc::clone(store));
        racers.spawn(async move { part.pack_as(config(&part), &store).await });
    }
    let reports: Vec<_> = racers.join_all().await.into_iter().map(Result::unwrap).collect();

    assert!(reports.iter().all(crate::report::Report::is_clean), "{reports:?}");
    // Two that build the very same shard share one object, and both have published its files.
    assert!(reports.iter().map(|report| report.files).sum::<u64>() >= world.count());
    assert_eq!(visible(&stores[0]).await, world.expected());
    world.assert_one_live_shard_each(&stores[0]).await;
}

fn overlapping(world: &World, racers: usize) -> Vec<World> {
    let count = usize::try_from(world.count()).unwrap();
    let step = count / (racers + 1);
    (0..racers).map(|racer| world.part(racer * step..count.min((racer + 2) * step + count % (racers + 1)))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn packers_with_overlapping_input_pack_each_file_once_in_memory() {
    for racers in [2, 4] {
        for seed in 20..26 {
            let world = World::mixed(seed, 120);
            race(&world, &overlapping(&world, racers), &[testing::memory()]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn packers_with_overlapping_input_pack_each_file_once_on_disk() {
    for racers in [2, 4] {
        let world = World::mixed(30, 120);
        let place = tempfile::tempdir().unwrap();
        let stores: Vec<Arc<dyn ObjectStore>> = (0..racers)
            .map(|_| -> Arc<dyn ObjectStore> {
                Arc::new(LocalStore::create(place.path(), Arc::new(SystemClock::new())).unwrap())
            })
            .collect();
        race(&world, &overlapping(&world, racers), &stores).await;
    }
}
