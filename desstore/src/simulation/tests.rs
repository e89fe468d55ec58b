use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::profile::Kind;
use super::script::{self, Death};
use super::world::{Ended, Ends, run};
use crate::clock::{Clock, SystemClock};
use crate::fault::Phase;
use crate::rules::{Rule, broken};

/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 1_000;

/// Within so many seeds a broken rule must be noticed.
const SEEDS_PER_RULE: u64 = 1_000;

/// A number from the environment, as `scripts/simulate` sets it.
#[expect(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Where shards are built: in memory, where the system has such a place.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs a seed. A panic of the code under test is what went wrong, as any other.
fn run_caught(seed: u64, spool: &Path) -> Result<Ended, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, spool)));
    let left = std::fs::read_dir(spool).unwrap();
    left.for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
    match outcome {
        Ok(Ended { violation: Some(violation), history, .. }) => Err(format!("seed {seed}: {violation}\n{history}")),
        Ok(ended) => Ok(ended),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("seed {seed}: it panicked: {}\n", text.unwrap_or_default()))
        }
    }
}

/// On each processor a thread that takes numbers until there are none, or it is told to stop.
fn on_all_processors(work: impl Fn(&Path, &AtomicBool) + Sync) {
    let is_over = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let spool = scratch();
                work(spool.path(), &is_over);
            });
        }
    });
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    operations: BTreeMap<&'static str, u64>,
    jobs: BTreeMap<Kind, Ends>,
    failures: Vec<String>,
}

impl Sum {
    fn add(&mut self, ended: Ended) {
        self.seeds += 1;
        for (what, count) in ended.reached.each() {
            *self.operations.entry(what).or_default() += count;
        }
        for (kind, ends) in ended.jobs {
            let sum = self.jobs.entry(kind).or_default();
            *sum = Ends { done: sum.done + ends.done, failed: sum.failed + ends.failed, died: sum.died + ends.died };
        }
    }
}

/// `DES_SIMULATION_SEEDS` seeds from `DES_SIMULATION_FROM` on, or as many as fit into `DES_SIMULATION_MINUTES`.
#[test]
fn no_order_of_calls_and_no_death_breaks_the_protocol() {
    let from = from_environment("DES_SIMULATION_FROM").unwrap_or(1);
    let minutes = from_environment("DES_SIMULATION_MINUTES");
    let seeds =
        from_environment("DES_SIMULATION_SEEDS").unwrap_or(if minutes.is_some() { u64::MAX - from } else { SEEDS });
    let clock = SystemClock::new();
    let is_time_over = || minutes.is_some_and(|minutes| clock.monotonic() >= Duration::from_secs(60 * minutes));
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());

    on_all_processors(|spool, is_over| {
        while !is_over.load(Ordering::Relaxed) && !is_time_over() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - from >= seeds {
                return;
            }
            match run_caught(seed, spool) {
                Ok(ended) => sum.lock().unwrap().add(ended),
                Err(failure) => {
                    sum.lock().unwrap().failures.push(failure);
                    is_over.store(true, Ordering::Relaxed);
                }
            }
        }
    });

    let sum = sum.into_inner().unwrap();
    println!("{} seeds from {from} on: {:?}", sum.seeds, sum.operations);
    sum.jobs.iter().for_each(|(kind, ends)| println!("{kind:?}: {ends:?}"));
    assert!(sum.failures.is_empty(), "{}", sum.failures.join("\n"));
    // A simulation that never gets anywhere proves nothing.
    if sum.seeds >= 10 * SEEDS {
        let missing: Vec<_> = sum.operations.iter().filter(|(_, count)| **count == 0).collect();
        assert!(missing.is_empty(), "never reached: {missing:?}");
        assert!(sum.jobs.len() == 7 && sum.jobs.values().all(|ends| ends.done > 0 && ends.died > 0), "{:?}", sum.jobs);
    }
}

#[test]
fn a_seed_repeats_its_run_exactly() {
    let spool = scratch();
    for seed in 1..=20 {
        let first = run_caught(seed, spool.path()).unwrap_or_else(|failure| panic!("{failure}"));
        let second = run_caught(seed, spool.path()).unwrap_or_else(|failure| panic!("{failure}"));

        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}");
        assert_eq!(first.history, second.history, "seed {seed}");
    }
}

/// Rules whose breaking is not noticed here. The checksums of all parts of a shard tell what the digest of the whole would
/// have told. And a record is noticed by both listings; only a batch that is folded and removed in between would be missed,
/// for which no seed so far has slept at the right time.
const UNNOTICED: [Rule; 2] = [Rule::LogBeforeFolded, Rule::SourceIsVerified];

/// The first seed by which a broken rule is noticed, and what was noticed.
fn first_seed_against(rule: Rule, spool: &Path) -> Option<(u64, String)> {
    broken::set(Some(rule));
    let caught = (1..=SEEDS_PER_RULE).find_map(|seed| Some((seed, run_caught(seed, spool).err()?)));
    broken::set(None);
    caught
}

#[test]
fn each_broken_rule_is_noticed_within_a_thousand_seeds() {
    let next = AtomicU64::new(0);
    let caught = Mutex::new(BTreeMap::new());

    on_all_processors(|spool, _| {
        while let Some(rule) = Rule::ALL.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
            let found = first_seed_against(*rule, spool);
            caught.lock().unwrap().insert(format!("{rule:?}"), found);
        }
    });

    let caught = caught.into_inner().unwrap();
    for (rule, found) in &caught {
        let told = found.as_ref().map_or("not noticed", |(_, failure)| failure.lines().next().unwrap_or_default());
        println!("{rule:<22} {told}");
    }
    let unnoticed: Vec<_> = caught.iter().filter(|(_, found)| found.is_none()).map(|(rule, _)| rule.clone()).collect();
    assert_eq!(unnoticed, UNNOTICED.map(|rule| format!("{rule:?}")));
}

#[test]
fn whoever_dies_at_any_call_is_started_again_and_everything_comes_right() {
    let spool = scratch();
    let calls = script::calls(spool.path()).unwrap_or_else(|what| panic!("{what}"));
    let deaths = calls.iter().enumerate().flat_map(|(step, calls)| {
        (0..*calls).flat_map(move |call| Phase::ALL.map(|phase| Death { step, call, phase }))
    });
    let deaths: Vec<Death> = deaths.collect();
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());

    on_all_processors(|spool, is_over| {
        while !is_over.load(Ordering::Relaxed) {
            let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            let Some(death) = deaths.get(at) else { return };
            if let Err(failure) = script::tell(*death, spool) {
                failures.lock().unwrap().push(failure);
                is_over.store(true, Ordering::Relaxed);
            }
        }
    });

    println!("{} calls in {} steps, {} deaths", calls.iter().sum::<u64>(), calls.len(), deaths.len());
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
