//! Shards of the ancestor that become shards of the current version.

mod oddities;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use desfmt::document::{self, Manifest};
use desfmt::legacy::{BigFileHash, LegacyName};
use desfmt::{Birth, Date, ObjectKey, Uid, layout};

use super::{DAY, FirstFiles};
use crate::adopt::fixture::{BIG, Content, adopted, ancestor, bits, day, put, shard};
use crate::archive::{
    Archive, ArchiveError, CheckEvent, CheckLevel, CheckOptions, Deletion, ErasureState, ReadOptions,
};
use crate::clock::{Clock, ManualClock, SeededRandom};
use crate::fault::{FaultStore, Phase};
use crate::gc::{Collected, Unproven};
use crate::inventory::ReadManifest;
use crate::publish::ArchiveWriter;
use crate::repack::{Reason, RepackSettings, Repacked, Thresholds};
use crate::store::{Depth, ObjectStore, Payload, list_all};

/// An archive that was adopted.
struct World {
    store: Arc<dyn ObjectStore>,
    clock: Arc<ManualClock>,
    scratch: tempfile::TempDir,
    /// How many programs were started: no two draw the same numbers.
    programs: AtomicU64,
}

type Shown = BTreeMap<(Date, String), Vec<u8>>;

fn big_key() -> ObjectKey {
    ObjectKey::new(&format!("_bigFiles/{}", BigFileHash::of(BIG))).unwrap()
}

fn big_day() -> Date {
    "20240116".parse().unwrap()
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same with more flat shards.
    async fn with(more: &[(&str, Vec<u8>)]) -> Self {
        let (store, clock) = ancestor().await;
        for (key, bytes) in more {
            put(store.as_ref(), key, bytes.clone()).await;
        }
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        adopted(&store, &shared, 7).await.unwrap();
        Self { store, clock, scratch: tempfile::tempdir().unwrap(), programs: AtomicU64::new(9) }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<ManualClock>::clone(&self.clock)
    }

    fn random(&self) -> Arc<SeededRandom> {
        Arc::new(SeededRandom::new(self.programs.fetch_add(1, Ordering::Relaxed)))
    }

    async fn writer_on(&self, store: &Arc<dyn ObjectStore>) -> Result<ArchiveWriter, ArchiveError> {
        let random = self.random();
        Ok(ArchiveWriter::open(Arc::clone(store), self.clock(), random).await?.unwrap())
    }

    async fn writer(&self) -> ArchiveWriter {
        self.writer_on(&self.store).await.unwrap()
    }

    async fn reader(&self) -> Arc<Archive> {
        let random = self.random();
        let opened = Archive::open_existing(Arc::clone(&self.store), ReadOptions::default(), self.clock(), random);
        opened.await.unwrap().unwrap()
    }

    fn settings(&self) -> RepackSettings {
        RepackSettings {
            spool: self.scratch.path().join("spool"),
            directory: None,
            threads: 1,
            frame_size: desfmt::v3::FrameSize::default(),
            level: 1,
            recompress: false,
            chooser: Arc::new(FirstFiles),
            rate: None,
            healers: Vec::new(),
        }
    }

    async fn delete(&self, date: Date, uid: &str) {
        self.reader().await.delete(date, &Uid::new(uid).unwrap(), &Deletion::default()).await.unwrap();
    }

    /// How far an erasure has come, by the receipt and, while its record is there, by the list.
    async fn erasure(&self, date: Date, uid: &str) -> ErasureState {
        let (reader, uid) = (self.reader().await, Uid::new(uid).unwrap());
        let receipt = reader.erasure(date, &uid).await.unwrap();
        if let Some(request) = receipt.requests.first() {
            assert_eq!(reader.erasure_states(date, &[(uid, request.at)]).await.unwrap(), [receipt.state]);
        }
        receipt.state
    }

    async fn shown(&self) -> Shown {
        let (reader, mut shown) = (self.reader().await, Shown::new());
        for date in reader.days().await.unwrap().iter().copied() {
            for file in reader.list(date, None, 99).await.unwrap() {
                let found = reader.lookup(date, &file.uid).await.unwrap().expect("what is listed is found");
                assert_eq!(found, file);
                let bytes = reader.read(date, file.birth, 0, 1 << 20).await.unwrap().to_vec();
                let was = shown.insert((date, file.uid.to_string()), bytes);
                assert_eq!(was, None, "{} is listed twice", file.uid);
            }
        }
        shown
    }

    /// Repacks a day as that writer does; what became of each job, and why it was done.
    async fn repack_as(
        &self,
        writer: &ArchiveWriter,
        date: Date,
        thresholds: &Thresholds,
    ) -> Result<Vec<(Reason, Repacked)>, ArchiveError> {
        let plan = writer.plan_repack(date, thresholds).await?.unwrap();
        let mut outcomes = Vec::new();
        for job in plan.jobs {
            outcomes.push((job.reason, writer.repack(date, &job, &self.settings()).await?));
        }
        Ok(outcomes)
    }

    async fn repack(&self, date: Date, thresholds: &Thresholds) -> Vec<(Reason, Repacked)> {
        self.repack_as(&self.writer().await, date, thresholds).await.unwrap()
    }

    async fn collect(&self, date: Date) -> Collected {
        let writer = self.writer().await;
        writer.fold(date).await.unwrap();
        let garbage = writer.plan_gc(date, DAY).await.unwrap().unwrap();
        writer.collect(&garbage, DAY).await.unwrap()
    }

    /// The flat shards that are there.
    async fn flat(&self) -> Vec<String> {
        let listed = list_all(self.store.as_ref(), "", Depth::Direct, 99).await.unwrap();
        let keys = listed.into_iter().map(|object| object.key.to_string());
        keys.filter(|key| LegacyName::parse(key, bits()).is_ok()).collect()
    }

    async fn assert_sound(&self) {
        let mut tell = |event: CheckEvent<'_>| {
            if let CheckEvent::Found(finding) = event {
                panic!("{finding:?}");
            }
        };
        let options = CheckOptions { level: CheckLevel::Content, ..CheckOptions::default() };
        self.reader().await.verify(&options, &mut tell).await;
    }
}

fn all() -> Thresholds {
    Thresholds { convert: true, ..Thresholds::default() }
}

#[tokio::test]
async fn what_is_deleted_from_a_shard_of_the_ancestor_is_gone_after_repack_and_grace() {
    let world = World::new().await;
    let before = world.shown().await;
    let old_birth = Birth { serial: 1, ordinal: 2 };

    // 63 and 831 were deleted before the archive was adopted; 319 is in both splits of the group.
    let outcomes = world.repack(day(), &Thresholds::default()).await;

    let [(Reason::DeadShare, Repacked::Swapped(done))] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((done.files_dropped, done.files_kept), (3, 2), "63, 831, and the 319 that no name reaches");
    assert_eq!(world.shown().await, before);
    let manifest = ReadManifest::read(world.store.as_ref(), day()).await.unwrap().unwrap().manifest;
    let live: Vec<_> = manifest.shards.iter().map(|shard| (shard.key.as_str(), shard.serials.as_slice())).collect();
    assert_eq!(live, [("shards/20240115/20240115_3F_0000_R001.des", [3].as_slice())]);
    // What is open is read on from the old shard.
    let read = world.reader().await.read(day(), old_birth, 0, 99).await.unwrap();
    assert_eq!(read, before[&(day(), "575".to_owned())]);
    world.assert_sound().await;

    world.clock.advance(DAY);
    let collected = world.collect(day()).await;

    assert_eq!((collected.purged, collected.erased, collected.held_back.len()), (2, 2, 0), "{collected:?}");
    assert_eq!(world.flat().await, ["20240116_3F_0000.des"]);
    assert_eq!(world.shown().await, before);
    assert!(world.reader().await.read(day(), old_birth, 0, 99).await.is_err());
    world.assert_sound().await;
}

#[tokio::test]
async fn a_later_split_goes_although_an_earlier_one_that_hides_its_files_stays() {
    let earlier = shard(&[("575", Content::Inline(b"575")), ("319", Content::Inline(b"the one that counts"))]);
    let later = shard(&[
        ("1087", Content::Inline(b"1087")),
        ("319", Content::Inline(b"hidden")),
        ("831", Content::Inline(b"deleted")),
    ]);
    let world = World::with(&[("20240118_3F_0000.des", earlier), ("20240118_3F_0001.des", later)]).await;
    let date: Date = "20240118".parse().unwrap();
    world.delete(date, "831").await;
    let before = world.shown().await;

    let outcomes = world.repack(date, &Thresholds::default()).await;
    let [(Reason::DeadShare, Repacked::Swapped(done))] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((done.files_dropped, done.files_kept), (2, 1));
    assert_eq!(world.shown().await, before);
    world.clock.advance(DAY);
    let collected = world.collect(date).await;

    assert_eq!((collected.purged, collected.erased, collected.held_back.len()), (1, 1, 0), "{collected:?}");
    assert!(world.flat().await.contains(&"20240118_3F_0000.des".to_owned()));
    assert_eq!(world.shown().await, before);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_big_file_goes_when_the_last_shard_that_names_it_does() {
    let other = shard(&[("575", Content::Big(BIG)), ("63", Content::Inline(b"small"))]);
    let world = World::with(&[("20240117_3F_0000.des", other)]).await;
    let later: Date = "20240117".parse().unwrap();
    world.delete(big_day(), "319").await;
    world.delete(later, "63").await;
    let before = world.shown().await;
    world.clock.advance(Duration::from_hours(12));

    for date in [big_day(), later] {
        let outcomes = world.repack(date, &Thresholds::default()).await;
        assert!(matches!(outcomes.as_slice(), [(_, Repacked::Swapped(_))]), "{outcomes:?}");
    }
    assert_eq!(world.shown().await, before);

    world.clock.advance(DAY);
    let collected = world.collect(big_day()).await;
    assert_eq!((collected.purged, collected.erased), (1, 1), "{collected:?}");
    assert!(world.store.head(&big_key()).await.is_ok(), "a shard of another day names it too");
    let collected = world.collect(later).await;
    assert_eq!((collected.purged, collected.erased), (1, 1), "{collected:?}");
    assert!(world.store.head(&big_key()).await.is_err());
    assert_eq!(world.shown().await, before);
    world.assert_sound().await;
}

#[tokio::test]
async fn no_erasure_is_proven_while_a_shard_that_may_name_the_big_file_cannot_be_asked() {
    let other = shard(&[("575", Content::Big(BIG))]);
    let world = World::with(&[("20240117_3F_0000.des", other.clone())]).await;
    let key = ObjectKey::new("20240117_3F_0000.des").unwrap();
    world.delete(big_day(), "319").await;
    world.clock.advance(Duration::from_hours(12));
    world.repack(big_day(), &Thresholds::default()).await;
    world.clock.advance(DAY);

    for broken in [None, Some(b"no shard".as_slice())] {
        match broken {
            None => world.store.delete(&key).await.unwrap(),
            Some(bytes) => drop(world.store.put(&key, Payload::Bytes(bytes.into())).await.unwrap()),
        }
        assert_eq!(world.collect(big_day()).await.erased, 0);
        assert!(world.store.head(&big_key()).await.is_ok());
        assert_eq!(world.erasure(big_day(), "319").await, ErasureState::Rewritten, "and no receipt says more");
    }

    world.store.put(&key, Payload::Bytes(other.into())).await.unwrap();
    assert_eq!(world.collect(big_day()).await.erased, 1);
    assert_eq!(world.erasure(big_day(), "319").await, ErasureState::Gone);
}

#[tokio::test]
async fn all_are_converted_where_that_is_asked_for_and_only_then() {
    let world = World::new().await;
    let before = world.shown().await;
    assert!(world.repack(big_day(), &Thresholds::default()).await.is_empty());

    for date in [day(), big_day()] {
        let outcomes = world.repack(date, &all()).await;
        assert!(matches!(outcomes.as_slice(), [(_, Repacked::Swapped(_))]), "{outcomes:?}");
        assert!(world.repack(date, &all()).await.is_empty(), "and nothing is left to be done");
    }
    world.clock.advance(DAY);
    for date in [day(), big_day()] {
        assert!(world.collect(date).await.held_back.is_empty());
    }

    assert_eq!(world.flat().await, [""; 0]);
    assert_eq!(world.shown().await, before);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_conversion_that_dies_at_any_call_shows_all_files_and_is_completed() {
    let world = World::new().await;
    let before = world.shown().await;
    let traced = Arc::new(FaultStore::new(Arc::clone(&world.store), 1));
    let shared: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&traced);
    let writer = world.writer_on(&shared).await.unwrap();
    world.repack_as(&writer, day(), &all()).await.unwrap();
    let calls = traced.call_count();
    assert!(calls > 20, "{calls} calls");
    for phase in Phase::ALL {
        for number in 0..calls {
            let world = World::new().await;
            let faults = Arc::new(FaultStore::new(Arc::clone(&world.store), 1));
            let shared: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
            faults.crash_at(number, phase);
            if let Ok(writer) = world.writer_on(&shared).await {
                drop(world.repack_as(&writer, day(), &all()).await);
            }
            let what = format!("{phase:?} at call {number}");
            assert_eq!(world.shown().await, before, "{what}");

            world.repack(day(), &all()).await;

            assert_eq!(world.shown().await, before, "{what}");
            world.clock.advance(DAY);
            world.collect(day()).await;
            world.clock.advance(DAY);
            let collected = world.collect(day()).await;
            assert!(collected.held_back.is_empty(), "{what}: {collected:?}");
            assert_eq!(world.flat().await, ["20240116_3F_0000.des"], "{what}");
            assert_eq!(world.shown().await, before, "{what}");
            world.assert_sound().await;
        }
    }
}

#[tokio::test]
async fn a_shard_of_the_ancestor_stays_while_its_successor_is_lost_and_makes_it_anew() {
    let world = World::new().await;
    let before = world.shown().await;
    world.repack(day(), &all()).await;
    let successor = ObjectKey::new("shards/20240115/20240115_3F_0000_R001.des").unwrap();
    let bytes = world.store.get(&successor, 1 << 20).await.unwrap().bytes;
    world.store.delete(&successor).await.unwrap();
    world.clock.advance(DAY);

    let held = world.collect(day()).await.held_back;

    let flat = ObjectKey::new("20240115_3F_0000.des").unwrap();
    assert!(held.iter().any(|(key, why)| *key == flat && matches!(why, Unproven::SuccessorBroken(_))), "{held:?}");
    let rolled = world.writer().await.roll_back(day(), &flat, &world.settings()).await.unwrap();
    assert!(matches!(rolled, Repacked::Swapped(_)), "{rolled:?}");
    assert_eq!(world.shown().await, before);
    // Whoever restores the lost one restores an object that is retired.
    world.store.put(&successor, Payload::Bytes(bytes)).await.unwrap();
    assert_eq!(world.shown().await, before);
    world.clock.advance(DAY);
    let collected = world.collect(day()).await;
    assert!(collected.held_back.is_empty(), "{collected:?}");
    assert_eq!(world.shown().await, before);
}

#[tokio::test]
async fn a_shard_of_the_ancestor_is_not_given_up_for_one_with_other_contents() {
    let world = World::new().await;
    world.repack(big_day(), &all()).await;
    let flat = ObjectKey::new("20240116_3F_0000.des").unwrap();
    // As if the conversion had read something else: the contents that the flat shard holds are not those of its successor.
    for files in [
        [("63", Content::Inline(b"63 in 20240116_3F_0000.xyz".as_slice())), ("319", Content::Big(BIG))],
        [
            ("63", Content::Inline(b"63 in 20240116_3F_0000.des".as_slice())),
            ("319", Content::Big(b"kept beside the sharks")),
        ],
        [("63", Content::Inline(b"longer by some bytes than it was")), ("319", Content::Big(BIG))],
    ] {
        world.store.put(&flat, Payload::Bytes(shard(&files).into())).await.unwrap();
        world.clock.advance(DAY);
        let held = world.collect(big_day()).await.held_back;
        assert!(matches!(held.as_slice(), [(_, Unproven::Differs(_))]), "{held:?}");
    }
}

#[tokio::test]
async fn a_shard_with_a_file_of_another_group_is_left_as_it_is() {
    let world = World::new().await;
    let manifest = layout::manifest(big_day());
    let fetched = world.store.get(&manifest, 1 << 20).await.unwrap();
    let flat = ObjectKey::new("20240116_3F_0000.des").unwrap();
    let bytes = shard(&[("64", Content::Inline(b"belongs to group 40")), ("63", Content::Inline(b"x"))]);
    let mut changed: Manifest = document::decode(&fetched.bytes).unwrap();
    changed.shards[0].len = u64::try_from(bytes.len()).unwrap();
    changed.shards[0].blake3 = blake3::hash(&bytes).to_hex().to_string();
    world.store.put(&flat, Payload::Bytes(bytes.into())).await.unwrap();
    world.store.put(&manifest, Payload::Bytes(document::encode(&changed).unwrap().into())).await.unwrap();

    let writer = world.writer().await;
    let refused = world.repack_as(&writer, big_day(), &all()).await.unwrap_err();

    assert!(refused.to_string().contains("\"64\", which belongs to another group"), "{refused}");
}
