//! How many requests reading takes, counted on their way to a real S3 server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use des_tests::{ChaosProxy, Corpus, Kind, Mount, S3Place, Script, command, run, s3_server, scratch};
use desfmt::{Date, Timestamp, Uid};
use desstore::{
    Archive, Clock, Deletion, ManualClock, ObjectStore, Randomness, ReadOptions, SeededRandom, SystemRandom,
};

const DAY: &str = "20240301";

/// An archive in a bucket, seen through a proxy that counts.
struct Counted {
    place: S3Place,
    proxy: ChaosProxy,
    clock: Arc<ManualClock>,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Counted {
    /// Packs the files of each run in a group of its own, all into one bucket number.
    fn of(runs: usize, fill: impl Fn(usize, &mut Corpus)) -> Self {
        let (place, directory) = (s3_server().place(), scratch());
        for number in 0..runs {
            let mut corpus = Corpus::new(&directory.path().join(format!("source-{number}")));
            fill(number, &mut corpus);
            let manifest = corpus.manifest("all");
            let mut pack = place.program("des-pack");
            run(pack.arg("--input-json").arg(manifest).args(["--n-bits", "0"])).success();
        }
        let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { place: place.through(&proxy.endpoint()), proxy, clock, runtime, _directory: directory }
    }

    /// The archive with nothing cached.
    fn open(&self) -> Arc<Archive> {
        let archive = self.runtime.block_on(async {
            let store: Arc<dyn ObjectStore> = Arc::new(self.place.store().await);
            let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
            Archive::open(store, ReadOptions::default(), clock, Arc::new(SystemRandom)).await.unwrap()
        });
        self.proxy.take_seen();
        archive
    }

    fn find(&self, archive: &Archive, uid: &str) -> Option<Vec<u8>> {
        let (date, uid) = (DAY.parse::<Date>().unwrap(), Uid::new(uid).unwrap());
        self.runtime.block_on(async {
            let file = archive.lookup(date, &uid).await.unwrap()?;
            let len = usize::try_from(file.len).unwrap();
            Some(archive.read(date, file.birth, 0, len).await.unwrap().to_vec())
        })
    }

    /// Looks a file up without reading it.
    fn holds(&self, archive: &Archive, uid: &str) -> bool {
        let (date, uid) = (DAY.parse::<Date>().unwrap(), Uid::new(uid).unwrap());
        self.runtime.block_on(archive.lookup(date, &uid)).unwrap().is_some()
    }

    fn assert_counts(&self, expected: &[(Kind, usize)]) {
        let seen = self.proxy.take_seen();
        let expected: BTreeMap<Kind, usize> = expected.iter().copied().collect();
        assert_eq!(des_tests::counts(&seen), expected, "{seen:#?}");
    }
}

/// Bytes that do not compress and differ for each name: each file is a frame of its own.
fn noise(name: &str) -> Vec<u8> {
    let seed = name.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(131).wrapping_add(u64::from(byte)));
    let mut bytes = vec![0; 20_000];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

fn twenty_files(_: usize, corpus: &mut Corpus) {
    for number in 0..20 {
        let uid = format!("scan-{number:02}");
        let bytes = noise(&uid);
        corpus.add(DAY, &uid, bytes);
    }
}

#[test]
fn a_cold_file_is_one_request_with_its_index_cached_and_four_in_three_trips_without() {
    let counted = Counted::of(1, twenty_files);
    let archive = counted.open();
    let latency = Duration::from_millis(400);
    counted.proxy.follow(Script { latency, ..Script::default() });

    let began = Instant::now();
    assert_eq!(counted.find(&archive, "scan-17"), Some(noise("scan-17")));
    let elapsed = began.elapsed();

    counted.assert_counts(&[(Kind::Get, 1), (Kind::List, 1), (Kind::GetRange, 2)]);
    assert!(elapsed < latency * 4, "{elapsed:?} for three round trips of {latency:?}");
    counted.proxy.follow(Script::default());

    assert_eq!(counted.find(&archive, "scan-03"), Some(noise("scan-03")));
    counted.assert_counts(&[(Kind::GetRange, 1)]);

    assert!(counted.holds(&archive, "scan-03") && !counted.holds(&archive, "scan-99"));
    counted.assert_counts(&[]);
}

#[test]
fn a_day_in_use_costs_one_conditional_read_and_one_listing_each_ttl() {
    let counted = Counted::of(1, twenty_files);
    let archive = counted.open();
    counted.find(&archive, "scan-17");
    counted.proxy.take_seen();

    for _ in 0..3 {
        counted.clock.advance(ReadOptions::default().ttl);
        for _ in 0..5 {
            assert!(counted.holds(&archive, "scan-17") && !counted.holds(&archive, "scan-98"));
        }
        counted.assert_counts(&[(Kind::GetIfChanged, 1), (Kind::List, 1)]);
    }
}

#[test]
fn deletions_cost_nothing_but_one_read_for_each_batch() {
    let counted = Counted::of(1, twenty_files);
    let archive = counted.open();
    let date = DAY.parse::<Date>().unwrap();
    let uid = |text: &str| Uid::new(text).unwrap();
    counted.runtime.block_on(async {
        archive.delete(date, &uid("scan-00"), &Deletion::default()).await.unwrap();
        let many: Vec<Uid> = ["scan-01", "scan-02", "scan-03"].map(uid).to_vec();
        archive.delete_many(date, &many, &Deletion::default()).await.unwrap();
    });

    let fresh = counted.open();
    assert_eq!(counted.find(&fresh, "scan-17"), Some(noise("scan-17")));
    counted.assert_counts(&[(Kind::Get, 2), (Kind::List, 1), (Kind::GetRange, 2)]);

    for gone in ["scan-00", "scan-01", "scan-02", "scan-03"] {
        assert_eq!(counted.find(&fresh, gone), None);
    }
    counted.assert_counts(&[]);
}

#[test]
fn folded_deletions_cost_one_read_however_many_batches_they_were() {
    let counted = Counted::of(1, twenty_files);
    let archive = counted.open();
    let date = DAY.parse::<Date>().unwrap();
    counted.runtime.block_on(async {
        for batch in [["scan-00", "scan-01"], ["scan-02", "scan-03"], ["scan-04", "scan-05"]] {
            let uids: Vec<Uid> = batch.map(|text| Uid::new(text).unwrap()).to_vec();
            archive.delete_many(date, &uids, &Deletion::default()).await.unwrap();
        }
    });
    let before = counted.open();
    assert_eq!(counted.find(&before, "scan-17"), Some(noise("scan-17")));
    counted.assert_counts(&[(Kind::Get, 4), (Kind::List, 1), (Kind::GetRange, 2)]);

    run(counted.place.program("des-tombstones").arg("fold")).success();

    let after = counted.open();
    assert_eq!(counted.find(&after, "scan-17"), Some(noise("scan-17")));
    counted.assert_counts(&[(Kind::Get, 2), (Kind::List, 1), (Kind::GetRange, 2)]);
    assert_eq!(counted.find(&after, "scan-03"), None);
    counted.assert_counts(&[]);
}

#[test]
fn each_further_candidate_shard_costs_one_request_once() {
    let runs = 24;
    // What each shard spans holds what all the others hold.
    let counted = Counted::of(runs, |number, corpus| {
        for uid in [format!("a-{number:02}"), format!("m-{number:02}"), format!("z-{number:02}")] {
            let bytes = noise(&uid);
            corpus.add(DAY, &uid, bytes);
        }
    });
    let archive = counted.open();

    assert_eq!(counted.find(&archive, "m-23"), Some(noise("m-23")));
    counted.assert_counts(&[(Kind::Get, 1), (Kind::List, 1), (Kind::GetRange, runs + 1)]);

    assert_eq!(counted.find(&archive, "m-99"), None);
    counted.assert_counts(&[]);
    assert_eq!(counted.find(&archive, "m-05"), Some(noise("m-05")));
    counted.assert_counts(&[(Kind::GetRange, 1)]);
}

#[test]
fn a_day_that_never_was_is_one_listing_more_than_its_manifest() {
    let counted = Counted::of(1, twenty_files);
    let archive = counted.open();
    let date = "19990101".parse::<Date>().unwrap();
    for _ in 0..3 {
        let found = counted.runtime.block_on(archive.lookup(date, &Uid::new("x").unwrap())).unwrap();
        assert!(found.is_none());
    }
    counted.assert_counts(&[(Kind::Get, 1), (Kind::List, 2)]);
}

#[test]
fn copying_a_day_costs_a_request_for_eight_mebibytes_and_six_for_each_shard() {
    let (shards, files) = (3_u64, 1_500);
    let counted = Counted::of(usize::try_from(shards).unwrap(), |number, corpus| {
        for file in 0..files {
            let uid = format!("box-{number}-scan-{file:05}");
            let bytes = noise(&uid);
            corpus.add(DAY, &uid, bytes);
        }
    });
    let stored: u64 = counted.place.objects("shards/").iter().map(|object| object.len).sum();
    assert!(stored > 64 << 20, "{stored}");
    let mount = Mount::new(Path::new(&counted.place.uri), &counted.place.options());
    let copy = scratch();
    counted.proxy.take_seen();

    run(command("cp").arg("-r").arg(mount.path().join(DAY)).arg(copy.path())).success();

    let counts = counted.proxy.take_counts();
    let gets: usize = [Kind::Get, Kind::GetRange, Kind::GetIfChanged].iter().filter_map(|kind| counts.get(kind)).sum();
    let most = stored.div_ceil(8 << 20) + 6 * shards;
    assert!(u64::try_from(gets).unwrap() <= most, "{gets} reads for {stored} bytes in {shards} shards, not {most}");
    let lists: usize = counts.get(&Kind::List).copied().unwrap_or_default();
    assert!(lists <= 2 && gets + lists == counts.values().sum::<usize>(), "{counts:?}");
    println!("{stored} bytes in {shards} shards: {counts:?}, at most {most} reads");
    for number in 0..usize::try_from(shards).unwrap() * files {
        let uid = format!("box-{}-scan-{:05}", number / files, number % files);
        assert!(fs::read(copy.path().join(DAY).join(&uid)).unwrap() == noise(&uid), "{uid}");
    }
}

#[test]
fn a_mount_asks_the_store_no_more_than_its_archive_does() {
    let counted = Counted::of(1, twenty_files);
    let mount = Mount::new(Path::new(&counted.place.uri), &format!("{},ttl=1h", counted.place.options()));
    assert_eq!(fs::read(mount.file(DAY, "scan-11")).unwrap(), noise("scan-11"));
    counted.proxy.take_seen();

    assert_eq!(fs::read(mount.file(DAY, "scan-04")).unwrap(), noise("scan-04"));
    counted.assert_counts(&[(Kind::GetRange, 1)]);

    assert_eq!(fs::read(mount.file(DAY, "scan-04")).unwrap(), noise("scan-04"));
    for missing in ["scan-70", "scan-71", "scan-72"] {
        assert!(!mount.file(DAY, missing).try_exists().unwrap());
    }
    counted.assert_counts(&[]);
}
