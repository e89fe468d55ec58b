//! What repacking, folding and collecting garbage leave behind, on a store in memory.
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

mod converting;
mod cost;
mod sources;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use desfmt::v3::{self, Codec, Dictionary, FrameSize};
use desfmt::{Birth, Digest, ObjectKey, layout};

use crate::archive::{ArchiveError, Deletion};
use crate::deletions::Deletions;
use crate::fixture::{Fixture, day, uid};
use crate::gc::Unproven;
use crate::inventory::ReadManifest;
use crate::publish::Outcome;
use crate::repack::{Chooser, Chosen, Done, Job, LiveFiles, Reason, RepackSettings, Repacked, Thresholds};
use crate::store::{Depth, ObjectStore, Payload, list_all};

const DAY: Duration = Duration::from_hours(24);

/// Makes a dictionary of the first live files.
#[derive(Debug)]
struct FirstFiles;

impl Chooser for FirstFiles {
    fn choose(&self, files: &mut LiveFiles<'_>) -> Result<Chosen, ArchiveError> {
        let mut bytes = Vec::new();
        files.for_each(&mut |len| len, &mut |head| bytes.extend(head))?;
        bytes.truncate(4_096);
        Ok(Chosen {
            codec: Codec::Zstd,
            level: 1,
            dictionary: Dictionary::from_bytes(&bytes),
            frame_size: FrameSize::default(),
        })
    }
}

fn settings(fixture: &Fixture) -> RepackSettings {
    RepackSettings {
        spool: fixture.scratch.path().join("spool"),
        directory: None,
        threads: 2,
        frame_size: FrameSize::default(),
        level: 1,
        recompress: false,
        chooser: Arc::new(FirstFiles),
        rate: None,
        healers: Vec::new(),
    }
}

async fn delete(fixture: &Fixture, names: impl IntoIterator<Item = &str>) {
    let reader = fixture.reader().await;
    for name in names {
        reader.delete(day(), &uid(name), &Deletion::default()).await.unwrap();
    }
}

/// Repacks what is due; what became of each job.
async fn repack(fixture: &Fixture, settings: &RepackSettings) -> Vec<(Job, Repacked)> {
    let plan = fixture.writer.plan_repack(day(), &Thresholds::default()).await.unwrap().unwrap();
    let mut outcomes = Vec::new();
    for job in plan.jobs {
        let repacked = fixture.writer.repack(day(), &job, settings).await.unwrap();
        outcomes.push((job, repacked));
    }
    outcomes
}

fn done(outcome: &(Job, Repacked)) -> Done {
    match &outcome.1 {
        Repacked::Swapped(done) | Repacked::Dropped(done) => *done,
        other @ (Repacked::Nothing | Repacked::Overtaken) => panic!("{other:?}"),
    }
}

/// Everything visible, with births and the digests of the contents.
async fn visible(fixture: &Fixture) -> BTreeMap<String, (Birth, Digest)> {
    let reader = fixture.reader().await;
    let mut all = BTreeMap::new();
    for entry in reader.list(day(), None, 100_000).await.unwrap() {
        let content = reader.read(day(), entry.birth, 0, 1 << 30).await.unwrap();
        assert_eq!(reader.lookup(day(), &entry.uid).await.unwrap().as_ref(), Some(&entry));
        let details = reader.details(day(), entry.birth).await.unwrap().unwrap();
        assert_eq!(details.digest, Some(blake3::hash(&content)));
        all.insert(entry.uid.to_string(), (entry.birth, blake3::hash(&content)));
    }
    all
}

async fn shard_keys(fixture: &Fixture) -> Vec<ObjectKey> {
    let prefix = layout::shards_prefix(day());
    let listed = list_all(fixture.store.as_ref(), &prefix, Depth::Recursive, 1_000).await.unwrap();
    listed.into_iter().map(|meta| meta.key).collect()
}

/// True when any object of the store holds these bytes: as they are stored, in a decoded frame or in a dictionary.
async fn any_object_holds(fixture: &Fixture, needle: &[u8]) -> bool {
    let has = |hay: &[u8]| hay.windows(needle.len()).any(|window| window == needle);
    for key in shard_keys(fixture).await {
        let object = fixture.store.inner.get(&key, 1 << 30).await.unwrap().bytes;
        let index = v3::ShardIndex::open(object.clone(), u64::try_from(object.len()).unwrap()).unwrap();
        let dictionary = index.dictionary().is_some_and(|dictionary| has(dictionary.as_bytes()));
        let page = |number| {
            let range = index.frame_page_range(number).unwrap();
            let bytes = object.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
            index.decode_frame_page(number, &bytes).unwrap()
        };
        let frames = (0..index.frame_pages()).map(v3::PageNumber).map(page).any(|page| {
            (0..page.len()).any(|place| {
                let frame = page.frame(place).unwrap();
                let (start, end) = (frame.stored.start, frame.stored.end);
                let stored = object.slice(usize::try_from(start).unwrap()..usize::try_from(end).unwrap());
                has(&index.decode_frame(&frame, &stored).unwrap())
            })
        });
        if dictionary || frames || has(&object) {
            return true;
        }
    }
    false
}

/// Files of many sizes; each third has a marker in it.
fn corpus(count: usize) -> Vec<(String, Vec<u8>)> {
    let file = |number: usize| {
        let len = [10, 700, 3_000, 9_000, 20_000, 0][number % 6];
        let mut content = format!("<file number=\"{number}\">").repeat(1 + len / 20).into_bytes();
        if number % 3 == 1 {
            content.extend_from_slice(b"the marker of a deleted file");
        }
        if number % 37 == 5 {
            content = content.repeat(1 + (1_300_000 / content.len()));
        }
        (format!("uid-{number:05}"), content)
    };
    (0..count).map(file).collect()
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect()
}

#[tokio::test]
async fn a_repack_drops_what_is_deleted_and_keeps_everything_else_with_its_birth() {
    for (codec, has_dictionary) in
        [(Codec::Stored, false), (Codec::Zstd, false), (Codec::Lz4, false), (Codec::Zstd, true)]
    {
        let fixture = Fixture::new().await;
        let files = corpus(200);
        let dictionary = b"the marker of a deleted file, in a dictionary".repeat(20);
        let dictionary = has_dictionary.then(|| Dictionary::from_bytes(&dictionary).unwrap());
        let shard = fixture.build_with(&fixture.writer, &borrowed(&files), codec, dictionary.as_ref()).await;
        fixture.writer.publish(&shard).await.unwrap();
        let before = visible(&fixture).await;
        let dead = |name: &str| name[4..].parse::<usize>().unwrap() % 3 == 1;
        delete(&fixture, files.iter().map(|(name, _)| name.as_str()).filter(|name| dead(name))).await;

        let outcomes = repack(&fixture, &settings(&fixture)).await;

        let done = done(&outcomes[0]);
        assert_eq!((outcomes.len(), outcomes[0].0.reason), (1, Reason::DeadShare));
        assert_eq!((done.files_dropped, done.files_kept), (67, 133), "{codec} {has_dictionary}");
        assert_eq!(done.frames_copied == 0, has_dictionary, "{done:?}");
        let mut expected = before.clone();
        expected.retain(|name, _| !dead(name));
        assert_eq!(visible(&fixture).await, expected);
        // Until the garbage is collected, the old version still has them.
        assert!(any_object_holds(&fixture, b"the marker of a deleted file").await);

        fixture.clock.advance(DAY);
        let garbage = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
        let collected = fixture.writer.collect(&garbage, DAY).await.unwrap();

        assert_eq!((collected.purged, collected.forgotten, collected.held_back.len()), (1, 1, 0));
        assert!(!any_object_holds(&fixture, b"the marker of a deleted file").await, "{codec} {has_dictionary}");
        assert_eq!(visible(&fixture).await, expected);
        let spool = std::fs::read_dir(fixture.scratch.path().join("spool")).unwrap();
        assert_eq!(spool.count(), 0);
    }
}

#[tokio::test]
async fn frames_without_a_deleted_file_are_taken_over_as_they_are() {
    let fixture = Fixture::new().await;
    let files = corpus(300);
    fixture.pack(&borrowed(&files)).await;
    delete(&fixture, ["uid-00100", "uid-00005"]).await;
    fixture.clock.advance(Duration::from_hours(12));

    let outcomes = repack(&fixture, &settings(&fixture)).await;

    let done = done(&outcomes[0]);
    assert_eq!((outcomes[0].0.reason, done.files_dropped), (Reason::Age, 2));
    assert!(done.frames_encoded <= 2, "{done:?}");
    assert!(done.frames_copied > 50, "{done:?}");
}

#[tokio::test]
async fn the_tail_of_a_large_file_is_written_anew_where_it_shares_a_frame_with_a_deleted_one() {
    let fixture = Fixture::new().await;
    let mut large: Vec<u8> =
        (0..3_u32 << 20).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    large.extend_from_slice(b"and a tail");
    let files: Vec<(&str, &[u8])> = vec![("a", &large), ("b", b"small, deleted"), ("c", b"small, kept")];
    let shard = fixture.build_with(&fixture.writer, &files, Codec::Zstd, None).await;
    fixture.writer.publish(&shard).await.unwrap();
    let before = visible(&fixture).await;
    delete(&fixture, ["b"]).await;

    let outcomes = repack(&fixture, &settings(&fixture)).await;

    let done = done(&outcomes[0]);
    assert_eq!((done.frames_copied, done.frames_encoded), (3, 1));
    let after = visible(&fixture).await;
    assert_eq!(after.get("a"), before.get("a"));
    assert_eq!(after.get("c"), before.get("c"));
    assert!(!after.contains_key("b"));
}

#[tokio::test]
async fn a_shard_of_which_nothing_is_left_has_no_successor() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    delete(&fixture, ["a", "b"]).await;

    let outcomes = repack(&fixture, &settings(&fixture)).await;

    assert_eq!(outcomes[0].0.reason, Reason::Empty);
    assert!(matches!(outcomes[0].1, Repacked::Dropped(_)));
    assert!(visible(&fixture).await.is_empty());
    assert!(fixture.reader().await.day_is_empty(day()).await.unwrap());
}

#[tokio::test]
async fn groups_of_many_shards_are_merged_and_births_survive() {
    let fixture = Fixture::new().await;
    let files = corpus(60);
    for part in 0..6 {
        let some: Vec<_> = borrowed(&files).into_iter().skip(part).step_by(6).collect();
        fixture.pack(&some).await;
    }
    delete(&fixture, ["uid-00007"]).await;
    let before = visible(&fixture).await;

    let outcomes = repack(&fixture, &settings(&fixture)).await;

    assert_eq!((outcomes.len(), outcomes[0].0.reason, outcomes[0].0.shards.len()), (1, Reason::Merge, 6));
    let read = ReadManifest::read(fixture.store.as_ref(), day()).await.unwrap().unwrap();
    assert_eq!((read.manifest.shards.len(), read.manifest.retired.len()), (1, 6));
    assert_eq!(visible(&fixture).await, before);
    // Once more, of what was merged.
    let doomed: Vec<_> = files.iter().map(|(name, _)| name.as_str()).filter(|name| name.ends_with('3')).collect();
    delete(&fixture, doomed.clone()).await;
    fixture.clock.advance(Duration::from_hours(13));
    repack(&fixture, &settings(&fixture)).await;
    let mut expected = before;
    expected.retain(|name, _| !doomed.contains(&name.as_str()));
    assert_eq!(visible(&fixture).await, expected);
}

#[tokio::test]
async fn a_file_that_is_open_can_be_read_over_a_swap_and_its_collection() {
    let fixture = Fixture::new().await;
    let files = corpus(40);
    fixture.pack(&borrowed(&files)).await;
    let reader = fixture.reader().await;
    let entry = reader.lookup(day(), &uid("uid-00003")).await.unwrap().unwrap();
    let gone = reader.lookup(day(), &uid("uid-00004")).await.unwrap().unwrap();
    let first = reader.read(day(), entry.birth, 0, 100).await.unwrap();
    delete(&fixture, files.iter().skip(4).map(|(name, _)| name.as_str())).await;

    repack(&fixture, &settings(&fixture)).await;
    fixture.clock.advance(DAY);
    let garbage = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    assert_eq!(fixture.writer.collect(&garbage, DAY).await.unwrap().purged, 1);
    reader.drop_caches();

    assert_eq!(&files[3].1[..100], &first[..]);
    assert_eq!(reader.read(day(), entry.birth, 0, 1 << 20).await.unwrap(), files[3].1);
    let refused = reader.read(day(), gone.birth, 0, 10).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::Gone { .. }), "{refused:?}");
}

#[tokio::test]
async fn nothing_is_deleted_before_its_time_or_without_proof() {
    let fixture = Fixture::new().await;
    fixture.pack(&borrowed(&corpus(30))).await;
    delete(&fixture, ["uid-00001"]).await;
    fixture.clock.advance(DAY);
    repack(&fixture, &settings(&fixture)).await;
    let hour = Duration::from_hours(1);

    fixture.clock.advance(Duration::from_hours(23));
    let early = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    assert_eq!((early.due.len(), early.waiting), (0, 1));
    fixture.clock.advance(hour);
    let due = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    assert_eq!(due.due.len(), 1);
    // The successor is lost before the old version goes.
    let read = ReadManifest::read(fixture.store.as_ref(), day()).await.unwrap().unwrap();
    fixture.store.inner.delete(&read.manifest.shards[0].key).await.unwrap();
    let collected = fixture.writer.collect(&due, DAY).await.unwrap();

    assert_eq!(collected.purged, 0);
    assert!(matches!(collected.held_back[0].1, Unproven::SuccessorBroken(_)), "{collected:?}");
    let outcome = fixture.writer.roll_back(day(), &due.due[0].0, &settings(&fixture)).await.unwrap();
    assert!(matches!(outcome, Repacked::Swapped(_)));
    assert_eq!(visible(&fixture).await.len(), 29);
    let read = ReadManifest::read(fixture.store.as_ref(), day()).await.unwrap().unwrap();
    assert_eq!(read.manifest.shards[0].repack, 2);
}

#[tokio::test]
async fn a_lost_shard_is_told_and_holds_up_no_other() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"deleted"), ("b", b"kept")]).await;
    fixture.pack(&[("c", b"lost")]).await;
    fixture.pack(&[("d", b"deleted too"), ("e", b"kept too")]).await;
    delete(&fixture, ["a", "d"]).await;
    let lost = fixture.manifest().await.shards.remove(1);
    fixture.store.inner.delete(&lost.key).await.unwrap();

    let plan = fixture.writer.plan_repack(day(), &Thresholds::default()).await.unwrap().unwrap();

    assert_eq!(plan.unknown.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&lost.key]);
    assert_eq!(plan.jobs.len(), 2);
    for job in &plan.jobs {
        let repacked = fixture.writer.repack(day(), job, &settings(&fixture)).await.unwrap();
        assert!(matches!(repacked, Repacked::Swapped(_)), "{repacked:?}");
    }
}

#[tokio::test]
async fn what_was_merged_can_be_brought_back_although_all_of_one_part_is_deleted() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"deleted later")]).await;
    fixture.pack(&[("b", b"kept")]).await;
    let thresholds = Thresholds { group_shards_max: 1, ..Thresholds::default() };
    let plan = fixture.writer.plan_repack(day(), &thresholds).await.unwrap().unwrap();
    let merged = fixture.writer.repack(day(), &plan.jobs[0], &settings(&fixture)).await.unwrap();
    assert!(matches!(merged, Repacked::Swapped(_)), "{merged:?}");
    delete(&fixture, ["a"]).await;
    let lost = fixture.manifest().await.shards.remove(0);
    fixture.store.inner.delete(&lost.key).await.unwrap();

    fixture.clock.advance(DAY);
    let garbage = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    let collected = fixture.writer.collect(&garbage, DAY).await.unwrap();

    assert_eq!((garbage.due.len(), collected.purged, collected.held_back.len()), (2, 0, 2), "{collected:?}");
    let outcome = fixture.writer.roll_back(day(), &garbage.due[1].0, &settings(&fixture)).await.unwrap();
    assert!(matches!(outcome, Repacked::Swapped(_)));
    assert_eq!(visible(&fixture).await.keys().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn an_orphan_is_condemned_waits_and_goes_and_one_that_is_needed_stays() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    let copy = |key: &ObjectKey, to: u32| {
        let name = layout::parse_shard(key.as_str(), fixture.writer.identity().bits()).unwrap();
        layout::shard(&desfmt::ShardName { split: to, ..name })
    };
    let key = shard_keys(&fixture).await[0].clone();
    // Uploaded and never published: files that nobody else has.
    let other = fixture.build(&fixture.writer, &[("c", b"only here")]).await;
    let mut bytes = std::fs::read(&other.file).unwrap();
    let name = desfmt::ShardName { split: 7, repack: 0, group: other.group };
    bytes.extend_from_slice(&other.body.footer_bytes(&name));
    fixture.store.put(&copy(&key, 7), Payload::Bytes(bytes.into())).await.unwrap();
    let twice = fixture.build(&fixture.writer, &[("d", b"twice")]).await;
    let Outcome::Published { .. } = fixture.writer.publish(&twice).await.unwrap() else { panic!() };
    let mut bytes = std::fs::read(&twice.file).unwrap();
    bytes.truncate(usize::try_from(twice.body.len()).unwrap());
    let name = desfmt::ShardName { split: 9, repack: 0, group: other.group };
    bytes.extend_from_slice(&twice.body.footer_bytes(&name));
    fixture.store.put(&copy(&key, 9), Payload::Bytes(bytes.into())).await.unwrap();

    let young = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    assert!(young.orphans.is_empty());
    fixture.clock.advance(DAY);
    let first = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    let condemned = fixture.writer.collect(&first, DAY).await.unwrap();
    fixture.clock.advance(DAY);
    let second = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    let purged = fixture.writer.collect(&second, DAY).await.unwrap();

    assert_eq!((first.orphans.len(), condemned.condemned, condemned.purged), (2, 1, 0));
    assert!(matches!(condemned.held_back[0].1, Unproven::OnlyHere(_)));
    assert_eq!((purged.purged, purged.condemned), (1, 0));
    assert_eq!(visible(&fixture).await.len(), 3);
}

#[tokio::test]
async fn records_are_folded_removed_later_and_shrink_when_the_bytes_are_gone() {
    let fixture = Fixture::new().await;
    fixture.pack(&borrowed(&corpus(20))).await;
    delete(&fixture, ["uid-00001", "uid-00002"]).await;
    let prefix = layout::tombstones_prefix(day());
    let listed = || async { list_all(fixture.store.as_ref(), &prefix, Depth::Recursive, 100).await.unwrap().len() };

    let first = fixture.writer.fold(day()).await.unwrap();
    assert_eq!((first.taken_in, first.removed, listed().await), (2, 0, 3));
    let again = fixture.writer.fold(day()).await.unwrap();
    assert_eq!((again.taken_in, again.removed, listed().await), (0, 0, 3));
    fixture.clock.advance(crate::FOLD_AGE_MIN);
    let later = fixture.writer.fold(day()).await.unwrap();
    assert_eq!((later.taken_in, later.removed, listed().await), (0, 2, 1));

    assert_eq!(fixture.writer.shrink(day(), DAY).await.unwrap(), 0);
    fixture.clock.advance(DAY);
    repack(&fixture, &settings(&fixture)).await;
    assert_eq!(fixture.writer.shrink(day(), DAY).await.unwrap(), 0);
    fixture.clock.advance(DAY);
    let garbage = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    assert!(garbage.oldest.is_some());
    assert_eq!(fixture.writer.collect(&garbage, DAY).await.unwrap().erased, 2);
    assert_eq!(visible(&fixture).await.len(), 18);
    let bits = fixture.writer.identity().bits();
    assert_eq!(Deletions::read(fixture.store.as_ref(), bits, day()).await.unwrap().oldest(), None);
}

#[tokio::test]
async fn the_waits_of_an_erasure_add_up_to_less_than_forty_hours() {
    let fixture = Fixture::new().await;
    fixture.pack(&borrowed(&corpus(200))).await;
    // Just after a run, so that every wait is as long as it can be; far too few for the dead share.
    delete(&fixture, ["uid-00001"]).await;
    let hour = Duration::from_hours(1);
    let mut hours = 0;
    loop {
        fixture.clock.advance(hour);
        hours += 1;
        fixture.writer.fold(day()).await.unwrap();
        repack(&fixture, &settings(&fixture)).await;
        let garbage = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
        fixture.writer.collect(&garbage, DAY).await.unwrap();
        if !any_object_holds(&fixture, b"<file number=\"1\">").await {
            break;
        }
        assert!(hours < 40, "still there after {hours} hours");
    }
    let bits = fixture.writer.identity().bits();
    assert_eq!(Deletions::read(fixture.store.as_ref(), bits, day()).await.unwrap().oldest(), None);
    assert!(hours >= 24 + 12, "{hours}");
}
