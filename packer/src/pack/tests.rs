//! Packing as a whole, over stores in memory, on disk, and such that fail.

mod crashing;
mod feeding;
mod proving;
mod racing;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;

use desfmt::v3::FrameSize;
use desfmt::{BucketBits, Uid};
use desstore::{Archive, Deletion, LocalStore, ReadOptions, SystemClock, SystemRandom};

use super::testing::{self, World, entries, visible};
use super::*;
use crate::compression::CodecChoice;
use crate::issue::Outcome;

#[tokio::test]
async fn what_was_packed_reads_back_from_memory_and_from_disk() {
    let world = World::mixed(1, 150);
    let place = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalStore::create(place.path(), Arc::new(SystemClock::new())).unwrap());
    let stores: [Arc<dyn ObjectStore>; 2] = [testing::memory(), local];
    for store in stores {
        let report = world.pack(&store).await.unwrap();

        assert!(report.is_clean(), "{:?}", report.issues);
        assert_eq!(report.files, world.count());
        assert_eq!(visible(&store).await, world.expected());
        world.assert_one_live_shard_each(&store).await;
    }
}

#[tokio::test]
async fn packing_again_packs_nothing() {
    let world = World::mixed(2, 120);
    let store = testing::memory();
    world.pack(&store).await.unwrap();
    let before = entries(&store).await;

    let report = world.pack(&store).await.unwrap();

    assert_eq!((report.files, report.shards, report.present), (0, 0, world.count()));
    assert!(report.is_clean());
    assert_eq!(entries(&store).await, before);
}

#[tokio::test]
async fn new_files_join_a_day_that_is_packed_already() {
    let world = World::mixed(3, 100);
    let store = testing::memory();
    world.part(0..60).pack(&store).await.unwrap();

    let report = world.pack(&store).await.unwrap();

    assert_eq!((report.files, report.present), (world.count() - 60, 60));
    assert_eq!(visible(&store).await, world.expected());
    world.assert_one_live_shard_each(&store).await;
}

#[tokio::test]
async fn every_codec_and_frame_size_reads_back() {
    let world = World::mixed(4, 80);
    for choice in [CodecChoice::Auto, CodecChoice::Zstd, CodecChoice::Lz4, CodecChoice::Stored] {
        for frame_size in [0, 512, 8 << 10, 1 << 20] {
            let store = testing::memory();
            let mut config = world.config();
            config.compression.choice = choice;
            config.framing = FrameSize::new(frame_size).unwrap().into();

            assert!(world.pack_as(config, &store).await.unwrap().is_clean());

            assert_eq!(visible(&store).await, world.expected(), "{choice:?} {frame_size}");
        }
    }
}

#[tokio::test]
async fn other_content_under_a_known_uid_is_a_conflict_and_the_stored_one_stays() {
    let mut world = World::new();
    world.add("20240301", "a", b"first");
    world.add("20240301", "b", b"same");
    let store = testing::memory();
    world.pack(&store).await.unwrap();
    let stored = visible(&store).await;
    let mut second = World::new();
    second.add("20240301", "a", b"FIRST");
    second.add("20240301", "b", b"same");
    second.add("20240302", "a", b"another day");

    let report = second.pack(&store).await.unwrap();

    assert_eq!((report.files, report.present, report.conflicts), (1, 1, 1));
    assert_eq!((report.issues[0].outcome, report.issues[0].uid.as_deref()), (Outcome::Conflict, Some("a")));
    let mut expected = stored;
    expected.extend(second.expected().into_iter().filter(|((day, _), _)| day == "20240302"));
    assert_eq!(visible(&store).await, expected);
}

#[tokio::test]
async fn a_source_that_is_gone_fails_only_where_the_archive_does_not_have_it() {
    let mut world = World::new();
    world.add("20240301", "packed", b"content");
    world.add("20240301", "longer", b"as packed");
    let store = testing::memory();
    world.pack(&store).await.unwrap();
    let stored = visible(&store).await;
    let mut second = World::new();
    for (uid, content) in [("packed", "CONTENT"), ("longer", "of another length"), ("absent", "lost")] {
        second.add("20240301", uid, content.as_bytes());
        fs::remove_file(second.source(uid)).unwrap();
    }

    let report = second.pack(&store).await.unwrap();

    assert_eq!((report.present, report.sources_gone, report.failed), (1, 1, 2));
    assert!(report.to_string().contains("present    1, 1 of them with a source that is gone"), "{report}");
    assert_eq!(visible(&store).await, stored);
}

#[tokio::test]
async fn a_source_that_is_there_and_cannot_be_read_is_not_gone() {
    let mut world = World::new();
    world.add("20240301", "a", b"content");
    let store = testing::memory();
    world.pack(&store).await.unwrap();
    fs::remove_file(world.source("a")).unwrap();
    fs::create_dir(world.source("a")).unwrap();

    let report = world.pack(&store).await.unwrap();

    assert_eq!((report.present, report.sources_gone, report.failed), (0, 0, 1));
}

#[tokio::test]
async fn a_deleted_uid_does_not_come_back() {
    let mut world = World::new();
    world.add("20240301", "gone", b"secret");
    world.add("20240301", "kept", b"open");
    let store = testing::memory();
    world.pack(&store).await.unwrap();
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom));
    let archive = Archive::open(Arc::clone(&store), ReadOptions::default(), clock, random).await.unwrap();
    let deletion = Deletion { actor: "test".to_owned(), reason: "test".to_owned(), ticket: None };
    archive.delete("20240301".parse().unwrap(), &Uid::new("gone").unwrap(), &deletion).await.unwrap();

    let report = world.pack(&store).await.unwrap();

    assert_eq!((report.files, report.present, report.deleted), (0, 1, 1));
    assert!(!report.is_clean());
    assert_eq!(visible(&store).await.len(), 1);
}

#[tokio::test]
async fn bad_files_are_left_out_and_named() {
    let mut world = World::mixed(5, 30);
    let expected = world.expected();
    world.add("20240301", "absent", b"x");
    world.add("20240301", "longer", b"x");
    world.add("20240301", "shorter", b"xxx");
    world.add("20240301", "\u{b2}", b"unroutable");
    fs::remove_file(world.source("absent")).unwrap();
    fs::write(world.source("longer"), b"longer than its row").unwrap();
    fs::write(world.source("shorter"), b"").unwrap();
    let store = testing::memory();
    let report_file = world.path("report.json");
    let config = Config { report: Some(report_file.clone()), ..world.config() };

    let report = world.pack_as(config, &store).await.unwrap();

    assert_eq!((report.failed, report.rows), (4, world.count()));
    assert_eq!(visible(&store).await, expected);
    let told: serde_json::Value = serde_json::from_slice(&fs::read(report_file).unwrap()).unwrap();
    let uids: Vec<_> = told["rows"].as_array().unwrap().iter().map(|row| row["uid"].as_str().unwrap()).collect();
    for uid in ["absent", "longer", "shorter", "\u{b2}"] {
        assert!(uids.contains(&uid), "{uid}: {uids:?}");
    }
    assert_eq!(told["summary"]["failed"], 4);
}

#[tokio::test]
async fn a_shard_of_nothing_but_bad_files_is_no_shard() {
    let mut world = World::new();
    world.add("20240301", "absent", b"x");
    fs::remove_file(world.source("absent")).unwrap();
    let store = testing::memory();

    let report = world.pack(&store).await.unwrap();

    assert_eq!((report.failed, report.shards), (1, 0));
    assert!(visible(&store).await.is_empty());
}

#[tokio::test]
async fn equal_contents_are_stored_once() {
    let noise = testing::noise(6, 40_000);
    let mut world = World::new();
    for number in 0..100 {
        world.add("20240301", &format!("copy-{number}"), &noise);
    }
    let store = testing::memory();
    let config = Config { bits: BucketBits::new(0), ..world.config() };

    let report = world.pack_as(config, &store).await.unwrap();

    assert_eq!((report.shards, report.bytes_in), (1, 4_000_000));
    assert!(report.bytes_out < 60_000, "{}", report.bytes_out);
    assert_eq!(visible(&store).await, world.expected());
}

#[tokio::test]
async fn large_files_are_streamed_and_shared() {
    let (first, second) = (testing::noise(7, 3_300_000), testing::noise(8, 3_300_000));
    let mut world = World::new();
    for (uid, content) in [("1", &first), ("2", &first), ("3", &second), ("4", &second)] {
        world.add("20240301", uid, content);
    }
    let store = testing::memory();
    let config = Config { bits: BucketBits::new(0), ..world.config() };

    let report = world.pack_as(config, &store).await.unwrap();

    assert_eq!(report.shards, 1);
    assert!((6_600_000..6_700_000).contains(&report.bytes_out), "{}", report.bytes_out);
    assert_eq!(visible(&store).await, world.expected());
}

#[tokio::test]
async fn shards_are_split_at_their_limits() {
    let world = World::mixed(9, 200);
    let store = testing::memory();
    let shard_limits = ShardLimits { bytes: 20_000, entries: 7 };

    let report = world.pack_as(Config { shard_limits, ..world.config() }, &store).await.unwrap();

    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for (_, shard) in entries(&store).await {
        *sizes.entry(shard).or_default() += 1;
    }
    assert!(sizes.len() > 30 && sizes.values().all(|count| *count <= 7), "{sizes:?}");
    assert_eq!(report.shards, u64::try_from(sizes.len()).unwrap());
    assert_eq!(visible(&store).await, world.expected());
}

#[tokio::test]
async fn an_archive_keeps_its_number_of_bits() {
    let world = World::mixed(10, 20);
    let store = testing::memory();
    let with_bits = |bits| Config { bits: BucketBits::new(bits), ..world.config() };
    assert_eq!(world.pack_as(with_bits(6), &store).await.unwrap().n_bits, 6);

    let refused = world.pack_as(with_bits(7), &store).await.unwrap_err();

    assert!(matches!(&refused, PackError::Refused { reason } if reason.contains('6')), "{refused}");
    assert_eq!(world.pack(&store).await.unwrap().n_bits, 6);
}

#[tokio::test]
async fn what_is_not_an_empty_place_is_not_made_an_archive() {
    let world = World::mixed(15, 10);
    for (key, reason) in [("20240301_0A_0000.des", "--format 2"), ("manifests/20240301.json", "lost its identity")] {
        let store = testing::memory();
        let key = desfmt::ObjectKey::new(key).unwrap();
        store.put(&key, desstore::Payload::Bytes(bytes::Bytes::from_static(b"x"))).await.unwrap();

        let error = world.pack(&store).await.unwrap_err();

        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(store.list("", Depth::Recursive, None).await.unwrap().objects.len(), 1);
    }
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let world = World::mixed(11, 20);
    let store = testing::memory();

    let report = world.pack_as(Config { dry_run: true, ..world.config() }, &store).await.unwrap();

    assert_eq!(report.plan.as_ref().unwrap().volume().files, world.count());
    assert_eq!(report.files, 0);
    assert_eq!(store.list("", Depth::Recursive, None).await.unwrap().objects, []);
}

#[tokio::test]
async fn workers_fill_an_archive_together() {
    let world = World::mixed(12, 100);
    let store = testing::memory();
    let count = NonZeroU32::new(3).unwrap();
    for index in 0..3 {
        let share = Share { index, count };
        let report = world.pack_as(Config { share, ..world.config() }, &store).await.unwrap();
        assert!(report.files > 0 && report.files + report.of_others == world.count());
    }
    assert_eq!(visible(&store).await, world.expected());
    world.assert_one_live_shard_each(&store).await;
}

#[tokio::test]
async fn a_broken_manifest_publishes_nothing() {
    let world = World::mixed(13, 20);
    let manifest = world.manifest();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.trim_end_matches(']')).unwrap();
    let store = testing::memory();
    let report = world.path("report.json");
    let input = Input::Manifest { file: Some(manifest) };
    let config = Config { input, report: Some(report.clone()), ..world.config() };

    let error = world.pack_as(config, &store).await.unwrap_err();

    assert!(matches!(error, PackError::Input { .. }), "{error}");
    let told: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert!(told["summary"]["error"].as_str().unwrap().contains("input"), "{told}");
    assert_eq!(store.list("", Depth::Recursive, None).await.unwrap().objects, []);
}

#[tokio::test]
async fn nothing_stays_in_the_spool() {
    let world = World::mixed(14, 50);
    world.pack(&testing::memory()).await.unwrap();
    let left: Vec<_> = fs::read_dir(world.path("spool")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}
