//! What is deleted leaves the caches, and readers follow a repack without noticing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::archive::{Archive, ArchiveError, Deletion, ReadOptions};
use crate::clock::{ManualClock, Randomness, SeededRandom};
use crate::disk_cache::{DISK_CACHE_BYTES_MIN, DiskCache, DiskCacheOptions};
use crate::fixture::{Fixture, day, uid};
use crate::store::{ObjectStore, Payload};

/// Bytes that do not compress, so that they lie in frames as they are.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

/// Three files with a frame each.
fn three() -> [Vec<u8>; 3] {
    [1, 2, 3].map(|seed| noise(seed, 20_000))
}

struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn cache(&self, fixture: &Fixture) -> DiskCache {
        let options = DiskCacheOptions {
            directory: self.directory.path().to_owned(),
            bytes_max: DISK_CACHE_BYTES_MIN,
            bytes_free_min: 0,
            memory_bytes: 16 << 20,
        };
        DiskCache::open(&options, Arc::<ManualClock>::clone(&fixture.clock)).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn holds(&self, content: &[u8]) -> bool {
        let is_in = |path: PathBuf| std::fs::read(path).unwrap().windows(64).any(|part| part == &content[100..164]);
        self.files().into_iter().any(is_in)
    }
}

async fn host(fixture: &Fixture, cache: &DiskCache) -> Arc<Archive> {
    let options = ReadOptions { disk_cache: Some(cache.clone()), ..ReadOptions::default() };
    fixture.reader_with(options).await
}

/// Waits for what is on its way to memory and to the disk.
async fn settle(cache: &DiskCache) {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    cache.settle();
}

/// Ends a host.
async fn end(reader: Arc<Archive>, cache: DiskCache) {
    settle(&cache).await;
    drop(reader);
    settle(&cache).await;
}

async fn read(reader: &Archive, name: &str) -> Bytes {
    let entry = reader.lookup(day(), &uid(name)).await.unwrap().unwrap();
    reader.read(day(), entry.birth, 0, 1 << 20).await.unwrap()
}

#[tokio::test]
async fn what_is_on_disk_needs_no_request_after_a_restart() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;
    read(&reader, "a").await;
    settle(&cache).await;
    end(reader, cache).await;

    let cache = disk.cache(&fixture);
    settle(&cache).await;
    let reader = host(&fixture, &cache).await;
    fixture.store.take_calls();

    assert_eq!(read(&reader, "a").await, a);
    assert_eq!(fixture.store.take_calls(), ["get manifests/20240115.json", "list tombstones/20240115/"]);
    assert_eq!(read(&reader, "b").await, b);
    assert_eq!(fixture.store.take_calls().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_deleted_here_leaves_memory_and_disk_at_once() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;
    let birth = reader.lookup(day(), &uid("b")).await.unwrap().unwrap().birth;
    for name in ["a", "b", "c"] {
        read(&reader, name).await;
    }
    reader.read(day(), birth, 0, 100).await.unwrap();
    settle(&cache).await;
    assert!(disk.holds(&a) && disk.holds(&b));

    reader.delete(day(), &uid("b"), &Deletion::default()).await.unwrap();
    settle(&cache).await;

    assert!(disk.holds(&a) && !disk.holds(&b) && disk.holds(&c));
    fixture.store.take_calls();
    // Who has it open reads on, and it does not come back by that.
    assert_eq!(reader.read(day(), birth, 0, 1 << 20).await.unwrap(), b);
    assert_eq!(fixture.store.take_calls().len(), 1, "it is nowhere in memory");
    settle(&cache).await;
    assert!(!disk.holds(&b));
}

#[tokio::test]
async fn files_that_are_deleted_together_leave_memory_and_disk_at_once() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;
    let birth = reader.lookup(day(), &uid("b")).await.unwrap().unwrap().birth;
    for name in ["a", "b", "c"] {
        read(&reader, name).await;
    }
    reader.read(day(), birth, 0, 100).await.unwrap();
    settle(&cache).await;
    assert!(disk.holds(&a) && disk.holds(&b) && disk.holds(&c));

    reader.delete_many(day(), &[uid("b"), uid("c")], &Deletion::default()).await.unwrap();
    settle(&cache).await;

    assert!(disk.holds(&a) && !disk.holds(&b) && !disk.holds(&c));
    fixture.store.take_calls();
    assert_eq!(reader.read(day(), birth, 0, 1 << 20).await.unwrap(), b);
    assert_eq!(fixture.store.take_calls().len(), 1, "it is nowhere in memory");
    settle(&cache).await;
    assert!(!disk.holds(&b));
}

#[tokio::test]
async fn files_that_are_deleted_together_leave_the_disk_of_a_host_that_has_forgotten_their_day() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;
    for name in ["a", "b", "c"] {
        read(&reader, name).await;
    }
    settle(&cache).await;
    reader.drop_caches();

    reader.delete_many(day(), &[uid("b"), uid("c")], &Deletion::default()).await.unwrap();
    settle(&cache).await;

    assert!(disk.holds(&a) && !disk.holds(&b) && !disk.holds(&c));
}

#[tokio::test]
async fn other_hosts_forget_a_deleted_file_when_they_hear_of_it() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let here = fixture.reader().await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let there = host(&fixture, &cache).await;
    for name in ["a", "b", "c"] {
        read(&there, name).await;
    }
    settle(&cache).await;
    here.delete(day(), &uid("b"), &Deletion::default()).await.unwrap();
    assert!(disk.holds(&b));

    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(there.lookup(day(), &uid("b")).await.unwrap(), None);
    settle(&cache).await;

    assert!(disk.holds(&a) && !disk.holds(&b) && disk.holds(&c));
    fixture.store.take_calls();
    assert_eq!(read(&there, "a").await, a);
    assert_eq!(fixture.store.take_calls(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_deleted_while_a_host_was_down_goes_when_it_looks_again() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;
    for name in ["a", "b", "c"] {
        read(&reader, name).await;
    }
    end(reader, cache).await;
    let here = fixture.reader().await;
    here.delete(day(), &uid("b"), &Deletion::default()).await.unwrap();

    let cache = disk.cache(&fixture);
    settle(&cache).await;
    let reader = host(&fixture, &cache).await;
    fixture.store.take_calls();
    assert_eq!(read(&reader, "a").await, a);

    settle(&cache).await;
    assert!(disk.holds(&a) && !disk.holds(&b));
    assert_eq!(fixture.store.take_calls().len(), 2, "manifest and tombstones");
}

#[tokio::test]
async fn what_is_read_ahead_brings_no_deleted_file_to_the_disk() {
    let fixture = Fixture::new().await;
    let names: Vec<String> = (0..60).map(|number| format!("file-{number:03}")).collect();
    let contents: Vec<Vec<u8>> = (0..60).map(|number| noise(number, 20_000)).collect();
    let all: Vec<(&str, &[u8])> =
        names.iter().zip(&contents).map(|(name, one)| (name.as_str(), one.as_slice())).collect();
    fixture.pack(&all).await;
    fixture.reader().await.delete(day(), &uid("file-030"), &Deletion::default()).await.unwrap();
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;

    for entry in reader.list(day(), None, 100).await.unwrap() {
        reader.read(day(), entry.birth, 0, 1 << 20).await.unwrap();
    }
    assert!(reader.cache_stats().ahead.windows > 0);
    settle(&cache).await;

    for (number, content) in contents.iter().enumerate() {
        assert_eq!(disk.holds(content), number != 30, "{number}");
    }

    // Whoever walks there again asks for what is missing only.
    reader.drop_caches();
    fixture.store.take_calls();
    for entry in reader.list(day(), None, 100).await.unwrap() {
        reader.read(day(), entry.birth, 0, 1 << 20).await.unwrap();
    }
    let calls = fixture.store.take_calls();
    assert!(calls.len() <= 3, "{calls:?}");
}

#[tokio::test]
async fn a_cache_on_disk_that_is_damaged_costs_requests_and_nothing_else() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;
    for name in ["a", "b", "c"] {
        read(&reader, name).await;
    }
    settle(&cache).await;
    for path in disk.files().into_iter().filter(|path| path.extension().is_some_and(|one| one == "data")) {
        let flipped: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| byte ^ 1).collect();
        std::fs::write(&path, flipped).unwrap();
    }
    reader.drop_caches();

    for (name, content) in [("a", &a), ("b", &b), ("c", &c)] {
        assert_eq!(read(&reader, name).await, *content);
    }

    assert!(reader.cache_stats().disk.damaged > 0);
}

#[tokio::test]
async fn a_reader_follows_a_swap_in_the_middle_of_a_file() {
    let fixture = Fixture::new().await;
    let (a, b) = (noise(1, 20_000), noise(2, 4 << 20));
    fixture.pack(&[("a", &a), ("b", &b)]).await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;
    let birth = |name: &'static str| {
        let reader = Arc::clone(&reader);
        async move { reader.lookup(day(), &uid(name)).await.unwrap().unwrap().birth }
    };
    let (first, second) = (birth("a").await, birth("b").await);
    let mut read = reader.read(day(), second, 0, 1 << 20).await.unwrap().to_vec();
    reader.read(day(), first, 0, 1 << 20).await.unwrap();

    // Nobody has waited for ttl: what the reader knows is the old shard, and that is gone.
    fixture.repack(&[("b", &b, 1)]).await;
    while read.len() < b.len() {
        let offset = u64::try_from(read.len()).unwrap();
        read.extend_from_slice(&reader.read(day(), second, offset, 1 << 20).await.unwrap());
    }

    assert!(read == b);
    let dropped = reader.read(day(), first, 0, 1 << 20).await;
    assert!(matches!(dropped, Err(ArchiveError::Gone { .. })), "{dropped:?}");
    settle(&cache).await;
    assert!(!disk.holds(&a), "nothing of the old shard is left");
}

#[tokio::test]
async fn other_content_under_the_same_birth_is_never_read_on() {
    for (other, knows_digest) in [(noise(7, 3 << 20), false), (noise(7, 4 << 20), true)] {
        let fixture = Fixture::new().await;
        let b = noise(2, 4 << 20);
        fixture.pack(&[("a", b"a"), ("b", &b)]).await;
        let reader = fixture.reader().await;
        let birth = reader.lookup(day(), &uid("b")).await.unwrap().unwrap().birth;
        if knows_digest {
            reader.details(day(), birth).await.unwrap();
        }
        reader.read(day(), birth, 0, 1 << 20).await.unwrap();

        fixture.repack(&[("b", &other, 1)]).await;

        let refused = reader.read(day(), birth, 1 << 20, 1 << 20).await;
        assert!(matches!(refused, Err(ArchiveError::Gone { .. })), "{knows_digest}: {refused:?}");
    }
}

#[tokio::test]
async fn a_swap_that_a_look_at_the_day_shows_empties_the_caches_of_the_old_shard() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let disk = Disk::new();
    let cache = disk.cache(&fixture);
    let reader = host(&fixture, &cache).await;
    for name in ["a", "b", "c"] {
        read(&reader, name).await;
    }
    let birth = reader.lookup(day(), &uid("c")).await.unwrap().unwrap().birth;

    fixture.repack(&[("a", &a, 0), ("c", &c, 2)]).await;
    fixture.clock.advance(Duration::from_mins(1));

    assert_eq!(reader.lookup(day(), &uid("b")).await.unwrap(), None);
    settle(&cache).await;
    assert!(!disk.holds(&a) && !disk.holds(&b) && !disk.holds(&c));
    assert_eq!(reader.read(day(), birth, 0, 1 << 20).await.unwrap(), c, "the same birth in the new shard");
    assert_eq!(reader.lookup(day(), &uid("c")).await.unwrap().unwrap().birth, birth);
}

#[tokio::test]
async fn an_object_that_was_restored_in_another_version_is_read_on() {
    let fixture = Fixture::new().await;
    let [a, b, c] = three();
    fixture.pack(&[("a", &a), ("b", &b), ("c", &c)]).await;
    let reader = fixture.reader().await;
    assert_eq!(read(&reader, "a").await, a);
    let key = fixture.manifest().await.shards.remove(0).key;
    let bytes = fixture.store.get(&key, 1 << 20).await.unwrap().bytes;
    fixture.store.delete(&key).await.unwrap();
    fixture.store.put(&key, Payload::Bytes(bytes)).await.unwrap();

    assert_eq!(read(&reader, "b").await, b);
}
