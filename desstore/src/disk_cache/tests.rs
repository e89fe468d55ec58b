//! A cache in a temporary directory, and everything that can happen to it there.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use desfmt::Timestamp;

use super::*;
use crate::clock::{ManualClock, Randomness, SeededRandom};

const DAY: Duration = Duration::from_hours(24);

struct Fixture {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

fn shard(number: u8) -> ShardId {
    ShardId::from_bytes([number; 16])
}

fn etag(text: &str) -> ETag {
    ETag(text.to_owned())
}

/// Bytes that tell their piece and do not compress.
fn piece(number: u32, len: usize) -> (Piece, Bytes) {
    let mut bytes = vec![0; len];
    SeededRandom::new(u64::from(number)).fill(&mut bytes);
    (Piece::Frame(number), bytes.into())
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_705_300_000_000_000)));
        Self { directory: tempfile::tempdir().unwrap(), clock }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn options(&self) -> DiskCacheOptions {
        DiskCacheOptions {
            directory: self.path(),
            bytes_max: DISK_CACHE_BYTES_MIN,
            bytes_free_min: 0,
            memory_bytes: 16 << 20,
        }
    }

    fn open(&self) -> DiskCache {
        self.open_with(&self.options())
    }

    fn open_with(&self, options: &DiskCacheOptions) -> DiskCache {
        DiskCache::open(options, Arc::<ManualClock>::clone(&self.clock)).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn files_of(&self, extension: &str) -> Vec<PathBuf> {
        self.files().into_iter().filter(|path| path.extension().is_some_and(|one| one == extension)).collect()
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        self.files().iter().any(|path| std::fs::read(path).unwrap().windows(bytes.len()).any(|part| part == bytes))
    }
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart() {
    let fixture = Fixture::new();
    let cache = fixture.open();
    let (first, second) = (piece(1, 10_000), piece(2, 20_000));
    cache.put(shard(1), &etag("v1"), vec![first.clone(), second.clone()]);
    cache.put_tail(shard(1), &etag("v1"), &Bytes::from_static(b"tail"));
    cache.settle();
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await, Some(first.1.clone()));

    drop(cache);
    let cache = fixture.open();
    cache.settle();

    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await, Some(first.1));
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(2)).await, Some(second.1));
    assert_eq!(cache.tail(shard(1)).await, Some((etag("v1"), Bytes::from_static(b"tail"))));
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(3)).await, None);
    assert_eq!(cache.get(shard(2), &etag("v1"), Piece::Frame(1)).await, None, "another shard");
    assert_eq!(cache.get(shard(1), &etag("v2"), Piece::Frame(1)).await, None, "another version");
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.hits, stats.misses, stats.damaged), (3, 3, 3, 0));
}

#[tokio::test]
async fn only_its_owner_can_look_in() {
    let fixture = Fixture::new();
    let cache = fixture.open();
    cache.put(shard(1), &etag("v1"), vec![piece(1, 100)]);
    cache.settle();

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;

    assert_eq!(mode(&fixture.path()), 0o700);
    let files = fixture.files();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|path| mode(path) == 0o600));
}

#[tokio::test]
async fn a_second_process_does_not_use_the_same_directory() {
    let fixture = Fixture::new();
    let _cache = fixture.open();

    let refused = DiskCache::open(&fixture.options(), Arc::<ManualClock>::clone(&fixture.clock));

    assert_eq!(refused.unwrap_err().to_string(), "another process uses it");
}

#[tokio::test]
async fn the_quota_holds_and_the_oldest_pieces_go() {
    let fixture = Fixture::new();
    let cache = fixture.open();

    for number in 0..400 {
        cache.put(shard(1), &etag("v1"), vec![piece(number, 100_000)]);
        cache.settle();
        let taken: u64 = fixture.files().iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
        assert!(taken <= DISK_CACHE_BYTES_MIN, "{taken} after {number}");
        assert!(cache.stats().bytes <= DISK_CACHE_BYTES_MIN);
    }

    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(0)).await, None);
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(399)).await, Some(piece(399, 100_000).1));
    let stats = cache.stats();
    assert!(stats.entries > 100, "{stats:?}");
    assert_eq!(stats.written, stats.entries + stats.evicted_by_size);
}

#[tokio::test]
async fn a_table_that_is_full_takes_room_from_the_oldest() {
    let fixture = Fixture::new();
    let options = DiskCacheOptions { memory_bytes: 1 << 17, ..fixture.options() };
    let cache = fixture.open_with(&options);

    for number in 0..3_000 {
        cache.put(shard(1), &etag("v1"), vec![piece(number, 1_000)]);
        cache.settle();
    }

    let stats = cache.stats();
    assert!(stats.entries <= 1_024 && stats.evicted_by_size > 0, "{stats:?}");
    assert!(cache.get(shard(1), &etag("v1"), Piece::Frame(2_999)).await.is_some());
}

#[tokio::test]
async fn damage_of_any_kind_is_never_served() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 6] = [
        ("data", |bytes| bytes[5_000] ^= 1),
        ("data", |bytes| bytes.truncate(5_000)),
        ("data", Vec::clear),
        ("records", |bytes| bytes[20] ^= 1),
        ("records", |bytes| bytes.truncate(40)),
        ("records", |bytes| bytes.fill(0xff)),
    ];
    for (number, (extension, damage)) in damages.into_iter().enumerate() {
        for is_open in [false, true] {
            let fixture = Fixture::new();
            let cache = fixture.open();
            cache.put(shard(1), &etag("v1"), vec![piece(1, 10_000)]);
            cache.settle();
            let cache = if is_open {
                Some(cache)
            } else {
                drop(cache);
                None
            };

            let path = fixture.files_of(extension).remove(0);
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let cache = cache.unwrap_or_else(|| fixture.open());
            cache.settle();

            let found = cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await;
            if is_open && extension == "records" {
                assert_eq!(found, Some(piece(1, 10_000).1), "the table knows where it lies");
            } else {
                assert_eq!(found, None, "damage {number}, open: {is_open}");
            }
            cache.put(shard(1), &etag("v1"), vec![piece(1, 10_000)]);
            cache.settle();
            assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await, Some(piece(1, 10_000).1));
        }
    }
}

#[tokio::test]
async fn files_of_others_are_left_alone_and_links_are_not_followed() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let victim = fixture.directory.path().join("victim");
    std::fs::write(&victim, b"precious").unwrap();
    std::fs::write(fixture.path().join("notes.txt"), b"mine").unwrap();
    std::fs::write(fixture.path().join("0000000007.data"), b"no records belong to this").unwrap();
    std::os::unix::fs::symlink(&victim, fixture.path().join("0000000008.data")).unwrap();
    std::os::unix::fs::symlink(&victim, fixture.path().join("0000000008.records")).unwrap();

    let cache = fixture.open();
    cache.settle();
    cache.put(shard(1), &etag("v1"), vec![piece(1, 10_000)]);
    cache.settle();

    assert!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await.is_some());
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert_eq!(std::fs::read(fixture.path().join("notes.txt")).unwrap(), b"mine");
}

#[tokio::test]
async fn two_segments_that_were_swapped_are_not_believed() {
    let fixture = Fixture::new();
    let cache = fixture.open();
    for number in 0..20 {
        cache.put(shard(1), &etag("v1"), vec![piece(number, 100_000)]);
    }
    cache.settle();
    drop(cache);
    let data = fixture.files_of("data");
    std::fs::rename(&data[0], fixture.path().join("aside")).unwrap();
    std::fs::rename(&data[1], &data[0]).unwrap();
    std::fs::rename(fixture.path().join("aside"), &data[1]).unwrap();

    let cache = fixture.open();
    cache.settle();

    for number in 0..20 {
        let found = cache.get(shard(1), &etag("v1"), Piece::Frame(number)).await;
        assert!(found.is_none_or(|found| found == piece(number, 100_000).1), "{number}");
    }
    assert!(cache.stats().damaged > 0);
}

#[tokio::test]
async fn what_is_forgotten_is_off_the_disk_and_does_not_come_back() {
    let fixture = Fixture::new();
    let cache = fixture.open();
    let (kept, gone) = (piece(1, 10_000), piece(2, 10_000));
    cache.put(shard(1), &etag("v1"), vec![kept.clone(), gone.clone()]);
    cache.settle();
    assert!(fixture.holds(&gone.1));

    cache.forget(shard(1), [2]);
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(2)).await, None, "at once");
    cache.settle();

    assert!(!fixture.holds(&gone.1));
    cache.put(shard(1), &etag("v1"), vec![gone.clone()]);
    cache.settle();
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(2)).await, None);
    assert!(!fixture.holds(&gone.1));
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await, Some(kept.1.clone()));

    drop(cache);
    let cache = fixture.open();
    cache.settle();
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(2)).await, None);
    cache.forget_shard(shard(1));
    cache.settle();
    assert!(!fixture.holds(&kept.1));
    assert_eq!(cache.stats().removed, 1);
    cache.put(shard(1), &etag("v1"), vec![kept.clone()]);
    cache.settle();
    assert!(fixture.holds(&kept.1), "it may come back");

    cache.retire_shard(shard(1));
    cache.put(shard(1), &etag("v1"), vec![kept.clone()]);
    cache.settle();
    assert!(!fixture.holds(&kept.1), "this one may not");
}

#[tokio::test]
async fn what_was_forgotten_before_it_was_found_again_goes_too() {
    let fixture = Fixture::new();
    let cache = fixture.open();
    let gone = piece(2, 10_000);
    cache.put(shard(1), &etag("v1"), vec![gone.clone()]);
    drop(cache);

    let cache = fixture.open();
    cache.forget(shard(1), [2]);
    cache.settle();

    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(2)).await, None);
    assert!(!fixture.holds(&gone.1));
}

#[tokio::test]
async fn what_nobody_has_read_for_a_day_goes() {
    let fixture = Fixture::new();
    let cache = fixture.open();
    let (read, unread) = (piece(1, 10_000), piece(2, 10_000));
    cache.put(shard(1), &etag("v1"), vec![read.clone(), unread.clone()]);
    cache.settle();
    fixture.clock.advance(DAY / 2);
    assert!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await.is_some());

    fixture.clock.advance(DAY / 2 + Duration::from_secs(1));
    cache.tend();
    cache.settle();

    assert!(!fixture.holds(&unread.1) && fixture.holds(&read.1));
    assert_eq!(cache.stats().evicted_by_age, 1);

    // After a restart the time of writing counts: when it was read last is not written down.
    drop(cache);
    let cache = fixture.open();
    cache.settle();
    assert!(!fixture.holds(&read.1));
}

#[tokio::test]
async fn a_disk_without_space_to_spare_switches_it_off_for_a_while() {
    let fixture = Fixture::new();
    let options = DiskCacheOptions { bytes_free_min: u64::MAX / 2, ..fixture.options() };
    let cache = fixture.open_with(&options);

    cache.put(shard(1), &etag("v1"), vec![piece(1, 10_000)]);
    cache.settle();

    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await, None);
    let stats = cache.stats();
    assert_eq!((stats.skipped, stats.entries), (1, 0));
    assert_eq!(fixture.files().len(), 1, "the lock alone");
}

#[tokio::test]
async fn a_directory_that_vanishes_costs_nothing_but_the_cache() {
    let fixture = Fixture::new();
    let cache = fixture.open();
    cache.put(shard(1), &etag("v1"), vec![piece(1, 10_000)]);
    cache.settle();
    std::fs::remove_dir_all(fixture.path()).unwrap();

    // What is open can be read on.
    assert!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await.is_some());
    for number in 2..50 {
        cache.put(shard(1), &etag("v1"), vec![piece(number, 400_000)]);
    }
    cache.settle();
    assert!(cache.stats().failed > 0);
    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(49)).await, None);

    // Once it is back, and a while has passed, it is used again.
    std::fs::create_dir(fixture.path()).unwrap();
    fixture.clock.advance(Duration::from_secs(61));
    cache.put(shard(1), &etag("v1"), vec![piece(50, 400_000)]);
    cache.settle();
    assert!(cache.get(shard(1), &etag("v1"), Piece::Frame(50)).await.is_some());
}

#[tokio::test]
async fn another_version_of_an_object_takes_the_place_of_the_last() {
    let fixture = Fixture::new();
    let cache = fixture.open();
    cache.put(shard(1), &etag("v1"), vec![piece(1, 10_000)]);
    cache.put(shard(1), &etag("v2"), vec![piece(2, 10_000)]);
    cache.settle();

    assert_eq!(cache.get(shard(1), &etag("v1"), Piece::Frame(1)).await, None);
    assert!(cache.get(shard(1), &etag("v2"), Piece::Frame(2)).await.is_some());
    assert!(!fixture.holds(&piece(1, 10_000).1));
}
