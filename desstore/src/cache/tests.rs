//! That the bounds hold, and that the counters tell why a value went.

use std::sync::Barrier;

use super::*;
use crate::clock::ManualClock;

fn cache(bytes_max: u64) -> ByteCache<u64, Arc<Vec<u8>>> {
    ByteCache::new(bytes_max)
}

fn value(len: usize) -> Arc<Vec<u8>> {
    Arc::new(vec![7; len])
}

#[test]
fn a_value_is_found_until_it_is_removed() {
    let cache = cache(1 << 20);
    cache.insert(1, value(3), 3);

    assert_eq!(cache.get(&1), Some(value(3)));
    assert_eq!(cache.get(&2), None);
    assert_eq!(cache.remove(&1), Some(value(3)));
    assert_eq!(cache.remove(&1), None);
    assert_eq!(cache.get(&1), None);

    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.removed), (1, 2, 1));
    assert_eq!((stats.entries, stats.bytes, stats.bytes_max), (0, 0, 1 << 20));
}

#[test]
fn a_later_value_takes_the_place_of_the_earlier() {
    let cache = cache(1 << 20);
    cache.insert(1, value(10_000), 10_000);
    cache.insert(1, value(3), 3);

    assert_eq!(cache.get(&1), Some(value(3)));
    assert_eq!(cache.stats().entries, 1);
    assert!(cache.stats().bytes < 1_000);
}

#[test]
fn the_weight_never_passes_the_bound() {
    let cache = cache(1 << 20);
    for key in 0..20_000_u64 {
        let len = usize::try_from(key % 3_000).unwrap();
        cache.insert(key, value(len), len);
        assert!(cache.stats().bytes <= 1 << 20);
    }

    let stats = cache.stats();
    assert!(stats.bytes > 900_000, "{stats:?}");
    assert_eq!(stats.evicted_by_size + stats.entries, 20_000);
}

#[test]
fn entries_without_weight_cost_something_too() {
    let cache = cache(1 << 20);
    for key in 0..100_000 {
        cache.insert(key, value(0), 0);
    }
    assert!(cache.stats().entries < 10_000);
}

#[test]
fn a_value_that_is_too_heavy_is_not_kept_and_harms_no_other() {
    for bytes_max in [0, 1 << 20] {
        let cache = cache(bytes_max);
        cache.insert(1, value(1), 1);
        cache.insert(2, value(1), usize::MAX);

        assert_eq!(cache.get(&1).is_some(), bytes_max > 0);
        assert_eq!(cache.get(&2), None);
        assert!(cache.stats().evicted_by_size > 0);
        assert!(cache.stats().bytes <= bytes_max);
    }
}

#[test]
fn values_of_many_megabytes_are_kept() {
    let cache = cache(128 << 20);
    cache.insert(0, value(1), 40 << 20);
    for key in 1..20 {
        cache.insert(key, value(1), 1 << 20);
    }
    assert!((0..20).filter(|key| cache.get(key).is_some()).count() >= 18);
}

#[test]
fn what_is_read_ahead_survives_beside_what_is_used_often() {
    let cache = cache(16 << 20);
    let put = |key| cache.insert(key, value(0), 8_000);
    for _ in 0..5 {
        for key in 0..3_000 {
            if cache.get(&key).is_none() {
                put(key);
            }
        }
    }

    (100_000..100_400).for_each(put);

    assert_eq!((100_000..100_400).filter(|key| cache.get(key).is_some()).count(), 400);
}

#[test]
fn a_value_grows_too_old_by_the_clock_given() {
    let clock = Arc::new(ManualClock::new(desfmt::Timestamp::from_micros(0)));
    let cache = cache(1 << 20).with_lifetime(Duration::from_mins(1), Arc::<ManualClock>::clone(&clock));
    cache.insert(1, value(1), 1);

    clock.advance(Duration::from_secs(59));
    assert!(cache.get(&1).is_some());
    clock.advance(Duration::from_secs(1));
    assert!(cache.get(&1).is_none());
    assert!(cache.get(&1).is_none());

    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.evicted_by_age, stats.entries), (1, 2, 1, 0));
    cache.insert(1, value(1), 1);
    assert!(cache.get(&1).is_some());
}

#[test]
fn entries_are_removed_by_a_rule() {
    let cache = cache(1 << 20);
    for key in 0..100 {
        cache.insert(key, value(1), 1);
    }

    cache.remove_if(|key, _| key % 10 == 0);
    assert_eq!((cache.stats().removed, cache.stats().entries), (10, 90));
    assert!(cache.get(&10).is_none() && cache.get(&11).is_some());

    cache.clear();
    assert_eq!((cache.stats().removed, cache.stats().entries, cache.stats().bytes), (100, 0, 0));
}

#[test]
fn many_threads_see_only_values_of_their_keys() {
    let (cache, start) = (cache(1 << 20), Barrier::new(8));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (cache, start) = (&cache, &start);
            scope.spawn(move || {
                start.wait();
                for step in 0..5_000_u64 {
                    let key = (step * 7 + thread * 13) % 700;
                    match cache.get(&key) {
                        Some(found) => assert_eq!(found.len(), usize::try_from(key).unwrap()),
                        None => cache.insert(key, value(usize::try_from(key).unwrap()), 4_000),
                    }
                    if step % 50 == 0 {
                        cache.remove(&key);
                    }
                }
            });
        }
    });
    assert!(cache.stats().bytes <= 1 << 20);
}
