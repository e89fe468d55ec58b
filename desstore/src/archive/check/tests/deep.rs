//! What the levels below manifests find, and what they read.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use desfmt::{ObjectKey, ShardId, v3};

use super::{put, shard_of};
use crate::archive::{Archive, CheckEvent, CheckLevel, CheckOptions, Checked, Finding, FindingKind, Sample, Verdict};
use crate::clock::Clock;
use crate::fault::{FaultStore, Operation};
use crate::fixture::{Fixture, day};
use crate::inventory::ReadManifest;
use crate::store::ObjectStore;
use crate::{ReadOptions, SeededRandom, StoreErrorKind};

async fn verify(archive: &Archive, options: &CheckOptions) -> (Checked, Vec<Finding>, Vec<(ShardId, bool)>) {
    let (mut found, mut examined) = (Vec::new(), Vec::new());
    let mut tell = |event: CheckEvent<'_>| match event {
        CheckEvent::Found(finding) => found.push(finding.clone()),
        CheckEvent::Examined(shard, is_sound) => examined.push((shard, is_sound)),
        CheckEvent::Listed(_) => {}
    };
    let checked = archive.verify(options, &mut tell).await;
    (checked, found, examined)
}

fn at(level: CheckLevel) -> CheckOptions {
    CheckOptions { level, ..CheckOptions::default() }
}

async fn bytes_of(fixture: &Fixture, key: &ObjectKey) -> Vec<u8> {
    fixture.store.inner.get(key, 1 << 30).await.unwrap().bytes.to_vec()
}

/// A shard with many files, some of them equal, and one larger than a window.
async fn archive() -> Fixture {
    let fixture = Fixture::new().await;
    let mut large = vec![0; 9 << 20];
    crate::Randomness::fill(&SeededRandom::new(3), &mut large);
    let names: Vec<_> = (0..700).map(|number| format!("f{number:04}")).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    files.push(("a large one", &large));
    files.push(("an empty one", b""));
    fixture.pack(&files).await;
    fixture
}

#[tokio::test]
async fn a_sound_shard_is_read_once_and_has_no_findings() {
    let fixture = archive().await;
    let key = shard_of(&fixture).await;
    let len = u64::try_from(bytes_of(&fixture, &key).await.len()).unwrap();

    let (index, found, examined) = verify(&*fixture.reader().await, &at(CheckLevel::Index)).await;
    assert_eq!((found, examined.len(), index.examined, index.damaged), (Vec::new(), 1, 1, 0));
    assert!(index.bytes_read < 200_000, "{index:?}");

    let (content, found, examined) = verify(&*fixture.reader().await, &at(CheckLevel::Content)).await;
    assert_eq!((found, content.examined), (Vec::new(), 1));
    assert!(examined[0].1);
    assert!(content.bytes_read >= len && content.bytes_read < len + len / 10, "{} of {len}", content.bytes_read);
}

#[tokio::test]
async fn a_flipped_bit_in_any_region_is_found() {
    let fixture = Fixture::new().await;
    let names: Vec<_> = (0..700).map(|number| format!("f{number:04}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    fixture.pack(&files).await;
    let key = shard_of(&fixture).await;
    let sound = bytes_of(&fixture, &key).await;
    let footer_at = sound.len() - v3::FOOTER_LEN;
    let listed = ReadManifest::read(fixture.store.as_ref(), day()).await.unwrap().unwrap().manifest.shards;
    let index_at = sound.len() - usize::try_from(listed[0].tail_len).unwrap();
    let random = SeededRandom::new(17);
    let mut places = vec![0, 5, 40, 100, footer_at - 1, footer_at, sound.len() - 1];
    places.extend((0..60).map(|_| usize::try_from(crate::Randomness::next(&random)).unwrap() % sound.len()));
    for place in places {
        let mut damaged = sound.clone();
        damaged[place] ^= 0x10;
        put(&fixture.store.inner, key.as_str(), damaged).await;

        let (checked, found, examined) = verify(&*fixture.reader().await, &at(CheckLevel::Content)).await;

        assert!(checked.wrong > 0 && checked.unchecked == 0, "byte {place}: {found:?}");
        assert!(found.iter().all(|finding| finding.object == key.as_str()), "byte {place}: {found:?}");
        assert_eq!((checked.damaged, examined.len()), (1, 1), "byte {place}");
        if place >= index_at {
            let (checked, found, _) = verify(&*fixture.reader().await, &at(CheckLevel::Index)).await;
            assert!(checked.wrong > 0, "byte {place} is part of what opens the shard: {found:?}");
        }
    }
}

#[tokio::test]
async fn the_files_of_a_damaged_frame_are_named() {
    let fixture = archive().await;
    let key = shard_of(&fixture).await;
    let mut bytes = bytes_of(&fixture, &key).await;
    bytes[5 << 20] ^= 1;
    put(&fixture.store.inner, key.as_str(), bytes).await;

    let (_, found, _) = verify(&*fixture.reader().await, &at(CheckLevel::Content)).await;

    assert!(found[0].problem.starts_with("the file \"a large one\" is damaged"), "{found:?}");
    assert!(!found.iter().any(|finding| finding.problem.contains("f0000")), "{found:?}");
}

#[tokio::test]
async fn two_shards_that_were_swapped_are_told_by_their_identities() {
    let fixture = Fixture::new().await;
    for number in 0..10 {
        fixture.pack(&[(&format!("f{number}"), b"the same")]).await;
    }
    let listed = ReadManifest::read(fixture.store.as_ref(), day()).await.unwrap().unwrap().manifest.shards;
    // Lengths that do not tell: ten shards that differ by a digit have a few lengths at most.
    let pairs = (0..10).flat_map(|one| (0..one).map(move |two| (one, two)));
    let (one, two) = pairs.into_iter().find(|(one, two)| listed[*one].len == listed[*two].len).unwrap();
    let (first, second) = (bytes_of(&fixture, &listed[one].key).await, bytes_of(&fixture, &listed[two].key).await);
    put(&fixture.store.inner, listed[one].key.as_str(), second).await;
    put(&fixture.store.inner, listed[two].key.as_str(), first).await;

    let (checked, found, _) = verify(&*fixture.reader().await, &at(CheckLevel::Index)).await;

    assert_eq!((checked.wrong, found.len()), (2, 2), "{found:?}");
    assert!(found.iter().all(|finding| finding.kind == FindingKind::Mismatch), "{found:?}");
}

#[tokio::test]
async fn an_orphan_is_damage_when_it_is_old_or_no_shard() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let shard = shard_of(&fixture).await;
    let copy = "shards/20240115/20240115_0_0007.des";
    put(&fixture.store.inner, copy, bytes_of(&fixture, &shard).await).await;
    // An upload whose commit is still to come.
    let manifest = desfmt::layout::manifest(day());
    let before = fixture.store.inner.get(&manifest, 1 << 20).await.unwrap().bytes;
    fixture.pack(&[("later", b"1")]).await;
    put(&fixture.store.inner, manifest.as_str(), before).await;
    let upload = "shards/20240115/20240115_0_0008.des";
    let options = CheckOptions { orphans_older_than: Some(Duration::from_hours(1)), ..at(CheckLevel::Manifest) };

    let (checked, found, _) = verify(&*fixture.reader().await, &options).await;
    assert_eq!((checked.wrong, checked.unlisted), (1, 2), "{found:?}");
    let of = |found: &[Finding], object: &str| found.iter().find(|one| one.object == object).map(|one| one.verdict);
    assert_eq!(of(&found, copy), Some(Verdict::Wrong), "a copy of another shard is no upload");
    assert_eq!(of(&found, upload), Some(Verdict::Harmless));

    fixture.clock.advance(Duration::from_hours(2));
    let (checked, found, _) = verify(&*fixture.reader().await, &options).await;
    assert_eq!(checked.wrong, 2, "{found:?}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_proves_nothing() {
    for level in [CheckLevel::Manifest, CheckLevel::Index, CheckLevel::Content] {
        for operation in [Operation::List, Operation::Get, Operation::GetTail, Operation::GetRange] {
            let fixture = archive().await;
            let inner: Arc<dyn ObjectStore> = Arc::<crate::fixture::Observed>::clone(&fixture.store);
            let faults = Arc::new(FaultStore::new(inner, 1));
            let store: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
            let clock: Arc<dyn Clock> = Arc::<crate::clock::ManualClock>::clone(&fixture.clock);
            let random = Arc::new(SeededRandom::new(2));
            let reader = Archive::open(store, ReadOptions::default(), clock, random).await.unwrap();
            faults.refuse_next(operation, StoreErrorKind::Unavailable);

            let (checked, found, _) = verify(&reader, &at(level)).await;

            assert_eq!(checked.wrong, 0, "{level:?} {operation:?}: {found:?}");
            let is_asked = faults.calls().iter().any(|call| call.fault.is_some());
            assert_eq!(checked.unchecked > 0, is_asked, "{level:?} {operation:?}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_sample_is_decided_by_its_seed_and_the_longest_unchecked_come_first() {
    let fixture = Fixture::new().await;
    for number in 0..40 {
        fixture.pack(&[(&format!("f{number}"), b"x")]).await;
    }
    let reader = fixture.reader().await;
    let half = |seed| CheckOptions { sample: Some(Sample { millionths: 500_000, seed }), ..at(CheckLevel::Index) };
    let (checked, found, one) = verify(&reader, &half(1)).await;
    assert!(found.is_empty() && (10..30).contains(&checked.examined), "{checked:?}");
    assert_eq!(verify(&reader, &half(1)).await.2, one);
    assert_ne!(verify(&reader, &half(2)).await.2, one);
    let few = CheckOptions { sample: Some(Sample { millionths: 1, seed: 1 }), ..at(CheckLevel::Index) };
    assert_eq!(verify(&reader, &few).await.0.examined, 1, "never none at all");

    let known: HashMap<_, _> = one
        .iter()
        .zip(0_i64..)
        .map(|((shard, _), age)| (*shard, desfmt::Timestamp::from_micros(1_000 - age)))
        .collect();
    let oldest_first = CheckOptions { checked_before: known.clone(), ..at(CheckLevel::Index) };
    let order: Vec<_> = verify(&reader, &oldest_first).await.2.into_iter().map(|(shard, _)| shard).collect();
    let mut expected: Vec<_> = known.iter().map(|(shard, at)| (*at, *shard)).collect();
    expected.sort_unstable();
    assert!(order[..40 - known.len()].iter().all(|shard| !known.contains_key(shard)));
    assert_eq!(order[40 - known.len()..], expected.iter().map(|(_, shard)| *shard).collect::<Vec<_>>());
    let due = CheckOptions { leave_out_since: Some(desfmt::Timestamp::from_micros(0)), ..oldest_first };
    assert_eq!(verify(&reader, &due).await.0.examined, 40 - u64::try_from(known.len()).unwrap());
}

#[tokio::test]
async fn a_rate_and_a_time_limit_what_is_read() {
    let fixture = archive().await;
    fixture.pack(&[("another", b"1")]).await;
    let slow = CheckOptions { bytes_per_second: NonZeroU64::new(1 << 20), ..at(CheckLevel::Content) };
    let began = fixture.clock.monotonic();
    let (checked, _, _) = verify(&*fixture.reader().await, &slow).await;
    let took = fixture.clock.monotonic().saturating_sub(began).as_secs();
    assert!(checked.bytes_read > 9 << 20 && (1..=10).contains(&took), "{took} s for {} bytes", checked.bytes_read);

    let over = CheckOptions { until: Some(fixture.clock.monotonic()), ..at(CheckLevel::Content) };
    let (checked, _, _) = verify(&*fixture.reader().await, &over).await;
    assert_eq!((checked.examined, checked.left_out), (0, 2));
}

#[tokio::test]
async fn a_shard_that_is_replaced_during_the_check_is_no_finding() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1")]).await;
    let listed = ReadManifest::read(fixture.store.as_ref(), day()).await.unwrap().unwrap().manifest.shards;
    let manifest = desfmt::layout::manifest(day());
    let before = fixture.store.inner.get(&manifest, 1 << 20).await.unwrap().bytes;
    let old = vec![(listed[0].key.clone(), listed[0].shard)];
    fixture.writer.swap(day(), old, Vec::new()).await.unwrap();
    let after = fixture.store.inner.get(&manifest, 1 << 20).await.unwrap().bytes;
    put(&fixture.store.inner, manifest.as_str(), before).await;
    let (key, reader) = (listed[0].key.clone(), fixture.reader().await);
    let store = Arc::<crate::fixture::Observed>::clone(&fixture.store);
    let mut tell = |event: CheckEvent<'_>| match event {
        // Between the level of manifests and that of shards it is swapped and its old version deleted.
        CheckEvent::Listed(_) => {
            let put = store.inner.put(&manifest, crate::Payload::Bytes(after.clone()));
            futures_util::FutureExt::now_or_never(put).unwrap().unwrap();
            futures_util::FutureExt::now_or_never(store.inner.delete(&key)).unwrap().unwrap();
        }
        CheckEvent::Found(finding) => panic!("{finding:?}"),
        CheckEvent::Examined(..) => panic!("it is not live"),
    };

    let checked = reader.verify(&at(CheckLevel::Content), &mut tell).await;

    assert_eq!((checked.shards, checked.examined, checked.wrong), (1, 0, 0));
}
