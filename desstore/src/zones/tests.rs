use std::path::Path;

use desfmt::document::{self, Identity as IdentityDocument, Manifest};
use desfmt::{ArchiveId, Uid};

use super::*;
use crate::archive::{Archive, ArchiveError, Deleted, Deletion, ReadOptions};
use crate::clock::{ManualClock, SeededRandom, SystemClock};
use crate::fault::{FaultStore, Operation, Phase};
use crate::fixture::{build_in, day, uid};
use crate::memory::MemoryStore;
use crate::publish::{ArchiveWriter, BuiltShard, Outcome};
use crate::store::list_all;

mod ancestor;
mod comparing;
mod conditions;
mod crashing;
mod opening;
mod paying;

/// Two zones: `a` is home of the documents and of even uids, `b` of odd ones; each has copies of the other.
struct Ground {
    clock: Arc<ManualClock>,
    memory: [Arc<MemoryStore>; 2],
    faults: [Arc<FaultStore>; 2],
    scratch: tempfile::TempDir,
}

const A: usize = 0;
const B: usize = 1;

impl Ground {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_705_300_000_000_000)));
        let memory = [A, B].map(|_| Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock))));
        let faults = [A, B].map(|zone| {
            Arc::new(FaultStore::new(Arc::<MemoryStore>::clone(&memory[zone]), u64::try_from(zone).unwrap()))
        });
        Self { clock, memory, faults, scratch: tempfile::tempdir().unwrap() }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<ManualClock>::clone(&self.clock)
    }

    /// Another chance each time, as of another process.
    fn random() -> Arc<dyn Randomness> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        Arc::new(SeededRandom::new(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
    }

    fn zones(&self) -> Vec<Zone> {
        let zone = |(zone, name): (usize, &str)| Zone {
            name: name.to_owned(),
            store: Arc::<FaultStore>::clone(&self.faults[zone]),
        };
        [(A, "a"), (B, "b")].map(zone).into()
    }

    async fn try_open(&self) -> Result<Arc<ZoneStore>, ZoneError> {
        ZoneStore::open(self.zones(), map(), ZoneSettings::default(), self.clock(), Self::random()).await
    }

    async fn open(&self) -> Arc<ZoneStore> {
        self.try_open().await.unwrap()
    }

    async fn create(&self) -> (Arc<ZoneStore>, ArchiveWriter) {
        let store = self.open().await;
        let shared: Arc<dyn ObjectStore> = Arc::<ZoneStore>::clone(&store);
        let bits = BucketBits::new(1).unwrap();
        let writer = ArchiveWriter::create(shared, bits, self.clock(), Self::random()).await.unwrap();
        (store, writer)
    }

    async fn build(&self, writer: &ArchiveWriter, files: &[(&str, &[u8])]) -> Result<BuiltShard, ArchiveError> {
        build_in(self.scratch.path(), writer, files, (desfmt::v3::Codec::Zstd, None)).await
    }

    async fn pack(&self, writer: &ArchiveWriter, files: &[(&str, &[u8])]) -> Result<Outcome, ArchiveError> {
        let shard = self.build(writer, files).await?;
        writer.publish(&shard).await
    }

    async fn reader(&self, store: &Arc<ZoneStore>) -> Arc<Archive> {
        let shared: Arc<dyn ObjectStore> = Arc::<ZoneStore>::clone(store);
        Archive::open(shared, ReadOptions::default(), self.clock(), Self::random()).await.unwrap()
    }

    /// The process goes on, the zone does not answer.
    fn cut(&self, zone: usize) {
        self.faults[zone].crash_at(self.faults[zone].call_count(), Phase::Before);
    }

    fn heal(&self, zone: usize) {
        self.faults[zone].revive();
    }

    async fn keys(&self, zone: usize, prefix: &str) -> Vec<String> {
        let listed = list_all(self.memory[zone].as_ref(), prefix, Depth::Recursive, 1_000).await.unwrap();
        listed.iter().map(|object| object.key.to_string()).collect()
    }

    async fn manifest(&self, zone: usize) -> Option<Manifest> {
        let found = self.memory[zone].get(&layout::manifest(day()), 1 << 20).await.ok()?;
        Some(document::decode(&found.bytes).unwrap())
    }

    fn spool(&self) -> &Path {
        self.scratch.path()
    }
}

fn map() -> ZoneMap {
    let ranges = vec![
        ZoneRange { from: 0, to: 0x8000, zones: vec![A, B] },
        ZoneRange { from: 0x8000, to: 0x10000, zones: vec![B, A] },
    ];
    ZoneMap::new(ranges, A, None).unwrap()
}

async fn content(archive: &Archive, name: &str) -> Result<Option<Bytes>, ArchiveError> {
    let Some(entry) = archive.lookup(day(), &uid(name)).await? else { return Ok(None) };
    archive.read(day(), entry.birth, 0, 100).await.map(Some)
}

fn deletion() -> Deletion {
    Deletion { actor: "test".to_owned(), reason: "test".to_owned(), ticket: None }
}

async fn delete(archive: &Archive, name: &str) -> Result<Deleted, ArchiveError> {
    archive.delete(day(), &Uid::new(name).unwrap(), &deletion()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_zones_keep_the_contract_of_one_store() {
    let scratch = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut stores = Vec::new();
    for _ in 0..64 {
        let zone = |name: &str| Zone { name: name.to_owned(), store: Arc::new(MemoryStore::new(Arc::clone(&clock))) };
        let zones = vec![zone("a"), zone("b")];
        let store = ZoneStore::open(zones, map(), ZoneSettings::default(), Arc::clone(&clock), Ground::random());
        stores.push(store.await.unwrap());
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let make = || -> Arc<dyn ObjectStore> {
        let place = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::<ZoneStore>::clone(&stores[place])
    };

    crate::conformance::run(make, scratch.path()).await.unwrap();
}

#[tokio::test]
async fn shards_and_documents_lie_in_all_zones_of_their_range() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;

    ground.pack(&writer, &[("2", b"even"), ("4", b"even too")]).await.unwrap();
    ground.pack(&writer, &[("3", b"odd")]).await.unwrap();

    assert_eq!(ground.keys(A, "").await, ground.keys(B, "").await);
    assert_eq!(ground.keys(A, "shards/").await.len(), 2);
    assert_eq!(ground.manifest(A).await, ground.manifest(B).await);
    assert_eq!(debts(&store).await.unwrap(), []);
    let listed = list_all(store.as_ref(), "shards/", Depth::Recursive, 10).await.unwrap();
    assert_eq!(listed.len(), 2, "each shard once");
}

#[tokio::test]
async fn a_range_without_copies_lies_in_its_zone_alone() {
    let ground = Ground::new();
    let ranges = vec![
        ZoneRange { from: 0, to: 0x8000, zones: vec![A] },
        ZoneRange { from: 0x8000, to: 0x10000, zones: vec![B] },
    ];
    let map = ZoneMap::new(ranges, A, None).unwrap();
    let opened = ZoneStore::open(ground.zones(), map, ZoneSettings::default(), ground.clock(), Ground::random()).await;
    let store: Arc<dyn ObjectStore> = opened.unwrap();
    let bits = BucketBits::new(1).unwrap();
    let writer = ArchiveWriter::create(store, bits, ground.clock(), Ground::random()).await.unwrap();

    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.pack(&writer, &[("3", b"odd")]).await.unwrap();

    assert_eq!(ground.keys(A, "shards/").await, ["shards/20240115/20240115_0_0000.des"]);
    assert_eq!(ground.keys(B, "shards/").await, ["shards/20240115/20240115_1_0000.des"]);
}

#[tokio::test]
async fn reads_go_on_while_either_zone_is_away_and_come_back() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.pack(&writer, &[("3", b"odd")]).await.unwrap();
    let archive = ground.reader(&store).await;

    for zone in [A, B] {
        ground.cut(zone);
        ground.clock.advance(Duration::from_mins(2));
        archive.drop_caches();
        assert_eq!(content(&archive, "2").await.unwrap().unwrap(), "even");
        assert_eq!(content(&archive, "3").await.unwrap().unwrap(), "odd");
        assert_eq!(content(&archive, "5").await.unwrap(), None);
        assert_eq!(archive.days().await.unwrap().as_ref(), [day()]);
        ground.heal(zone);
        let before = ground.faults[A].call_count();
        ground.clock.advance(Duration::from_mins(2));
        archive.drop_caches();
        assert_eq!(content(&archive, "2").await.unwrap().unwrap(), "even");
        assert!(ground.faults[A].call_count() > before, "the home is asked again");
    }
}

#[tokio::test]
async fn a_home_that_refuses_everybody_is_as_good_as_one_that_is_away() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let archive = ground.reader(&store).await;
    for operation in [Operation::Get, Operation::List, Operation::GetTail] {
        ground.faults[A].refuse_next(operation, StoreErrorKind::Denied);
    }

    assert_eq!(content(&archive, "2").await.unwrap().unwrap(), "even");
}

#[tokio::test]
async fn copies_serve_for_fifteen_minutes_and_then_nothing_is_said() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let archive = ground.reader(&store).await;
    assert!(content(&archive, "2").await.unwrap().is_some());
    ground.cut(A);

    for minutes in [14, 20] {
        ground.clock.advance(Duration::from_mins(minutes / 2));
        archive.drop_caches();
        let outcome = content(&archive, "2").await;
        assert_eq!(outcome.is_ok(), minutes == 14, "{minutes}: {outcome:?}");
    }
    ground.heal(A);
    assert!(content(&archive, "2").await.unwrap().is_some());
}

#[tokio::test]
async fn commits_and_deletions_need_the_home_of_the_documents() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let archive = ground.reader(&store).await;
    let shard = ground.build(&writer, &[("4", b"x")]).await.unwrap();
    ground.cut(A);

    let deleted = delete(&archive, "2").await.unwrap_err();
    let published = writer.publish(&shard).await.unwrap_err();

    assert!(matches!(deleted, ArchiveError::Store(error) if error.kind == StoreErrorKind::Unavailable));
    assert!(matches!(published, ArchiveError::Store(error) if error.kind == StoreErrorKind::Unavailable));
    assert!(content(&archive, "2").await.unwrap().is_some());
}

#[tokio::test]
async fn no_deleted_file_reappears_because_a_zone_lags() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even"), ("4", b"even too")]).await.unwrap();
    let archive = ground.reader(&store).await;
    ground.cut(B);
    assert_eq!(delete(&archive, "2").await.unwrap(), Deleted::Now);
    ground.heal(B);

    // A mount that has never seen the day, and learns of the debt when it opens.
    let other = ground.open().await;
    let fresh = ground.reader(&other).await;
    ground.cut(A);
    let seen = content(&fresh, "2").await;

    assert!(seen.is_err(), "{seen:?}");
    // Who has seen it deleted still says so or nothing.
    archive.drop_caches();
    assert!(!matches!(content(&archive, "2").await, Ok(Some(_))));
}

#[tokio::test]
async fn a_mount_that_begins_while_the_home_is_away_shows_nothing_stale() {
    let ground = Ground::new();
    let (_, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.cut(A);

    let store = ground.open().await;
    let archive = ground.reader(&store).await;

    assert!(content(&archive, "2").await.is_err());
    ground.heal(A);
    assert_eq!(content(&archive, "2").await.unwrap().unwrap(), "even");
}

#[tokio::test]
async fn a_shard_that_one_zone_has_lost_is_read_from_the_other() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let shard = ObjectKey::new("shards/20240115/20240115_0_0000.des").unwrap();
    ground.memory[A].delete(&shard).await.unwrap();

    let archive = ground.reader(&store).await;
    assert_eq!(content(&archive, "2").await.unwrap().unwrap(), "even");

    ground.memory[B].delete(&shard).await.unwrap();
    archive.drop_caches();
    assert!(matches!(content(&archive, "2").await, Err(ArchiveError::Inconsistent { .. })));
}

#[tokio::test]
async fn a_slow_copier_does_not_bring_an_old_manifest_back() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let key = layout::manifest(day());
    let old = ground.memory[A].get(&key, 1 << 20).await.unwrap().bytes;
    ground.pack(&writer, &[("4", b"x")]).await.unwrap();
    let newest = ground.manifest(B).await.unwrap().generation;

    store.copy_document(B, &key, &old, newest - 1).await.unwrap();

    assert_eq!(ground.manifest(B).await.unwrap().generation, newest);
}
