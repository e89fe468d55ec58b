//! Walks over a store in memory that writes down what it is asked.

mod decoding;
mod leaving;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join, join_all};

use crate::archive::{Archive, ArchiveError, FileEntry, ReadOptions};
use crate::clock::{Randomness, SeededRandom};
use crate::fixture::{Fixture, day, uid};

const KIB: usize = 1 << 10;

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

/// An archive with one shard of files of that length, and what is in them.
async fn packed(files: usize, len: usize) -> (Fixture, Vec<Vec<u8>>) {
    packed_of((0..files).map(|number| noise(u64::try_from(number).unwrap(), len)).collect()).await
}

/// The same of files with these contents.
async fn packed_of(contents: Vec<Vec<u8>>) -> (Fixture, Vec<Vec<u8>>) {
    let fixture = Fixture::new().await;
    let names: Vec<String> = (0..contents.len()).map(|number| format!("file-{number:06}")).collect();
    let all: Vec<(&str, &[u8])> =
        names.iter().zip(&contents).map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    fixture.pack(&all).await;
    fixture.store.take_calls();
    fixture.store.take_ranges();
    (fixture, contents)
}

async fn read(reader: &Archive, entry: &FileEntry) -> Vec<u8> {
    reader.read(day(), entry.birth, 0, 1 << 20).await.unwrap().to_vec()
}

async fn listed(reader: &Archive) -> Vec<FileEntry> {
    reader.list(day(), None, 1_000_000).await.unwrap()
}

/// The length of the only shard.
async fn shard_len(fixture: &Fixture) -> u64 {
    use crate::store::{Depth, list_all};
    list_all(fixture.store.as_ref(), "shards/", Depth::Recursive, 9).await.unwrap().iter().map(|one| one.len).sum()
}

fn requests_max(stored: u64) -> usize {
    usize::try_from(stored / (8 << 20)).unwrap().saturating_add(6)
}

#[tokio::test]
async fn a_random_reader_gets_exactly_the_frames_of_each_file() {
    let (fixture, contents) = packed(300, 12 * KIB).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    fixture.store.take_ranges();

    let random = SeededRandom::new(7);
    let mut order: Vec<usize> = (0..300).collect();
    order.sort_by_cached_key(|_| random.next());
    for (step, number) in order.into_iter().enumerate() {
        assert_eq!(read(&reader, &entries[number]).await, contents[number]);
        let ranges = fixture.store.take_ranges();
        assert_eq!(ranges.iter().map(|range| range.end - range.start).collect::<Vec<_>>(), [12 * 1024 + 8], "{step}");
    }
    assert_eq!(reader.cache_stats().ahead.windows, 0);
}

#[tokio::test]
async fn who_walks_forwards_needs_a_request_for_eight_mebibytes() {
    let (fixture, contents) = packed(2_600, 12 * KIB).await;
    let stored = shard_len(&fixture).await;
    let reader = fixture.reader().await;
    fixture.store.let_others_in_between();
    fixture.store.take_calls();

    let entries = listed(&reader).await;
    for (entry, content) in entries.iter().zip(&contents) {
        assert!(read(&reader, entry).await == *content, "{}", entry.uid);
    }

    let calls = fixture.store.take_calls();
    // The manifest and the tombstones are of the day.
    let of_the_shard = calls.iter().filter(|call| call.contains("shards/")).count();
    assert!(of_the_shard <= requests_max(stored), "{of_the_shard} for {stored} bytes");
    assert_eq!(calls.len(), of_the_shard + 2);
    let ranges = fixture.store.take_ranges();
    let fetched: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert!(fetched <= stored, "nothing is fetched twice: {fetched} of {stored}");
    assert!(ranges.iter().all(|range| range.end - range.start <= 9 << 20));
}

#[tokio::test]
async fn a_large_file_is_read_ahead_up_to_its_end() {
    let fixture = Fixture::new().await;
    let (large, other) = (noise(1, 20 << 20), noise(2, 20 << 20));
    fixture.pack(&[("a", &large), ("b", &other)]).await;
    let reader = fixture.reader().await;
    fixture.store.let_others_in_between();
    let entry = reader.lookup(day(), &uid("a")).await.unwrap().unwrap();
    fixture.store.take_ranges();

    let mut read = Vec::new();
    while read.len() < large.len() {
        let offset = u64::try_from(read.len()).unwrap();
        read.extend_from_slice(&reader.read(day(), entry.birth, offset, 100_000).await.unwrap());
    }

    assert!(read == large);
    let ranges = fixture.store.take_ranges();
    let fetched: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert!(fetched <= (20 << 20) + 20 * 8, "{fetched}");
    assert!(ranges.len() <= 7, "{ranges:?}");
}

#[tokio::test]
async fn readers_side_by_side_share_what_is_on_its_way() {
    let (fixture, contents) = packed(600, 12 * KIB).await;
    let stored = shard_len(&fixture).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    fixture.store.let_others_in_between();
    fixture.store.take_calls();

    for (entries, contents) in entries.chunks(8).zip(contents.chunks(8)) {
        let read = join_all(entries.iter().map(|entry| read(&reader, entry))).await;
        assert!(read == contents);
    }

    let calls = fixture.store.take_calls();
    assert!(calls.len() <= requests_max(stored) + 8, "{}", calls.len());
}

#[tokio::test]
async fn two_who_want_one_frame_at_once_share_its_request() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"first"), ("b", b"second")]).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    fixture.store.let_others_in_between();
    fixture.store.take_calls();

    let (first, second) = join(read(&reader, &entries[1]), read(&reader, &entries[0])).await;

    assert_eq!((first.as_slice(), second.as_slice()), (b"second".as_slice(), b"first".as_slice()));
    assert_eq!(fixture.store.take_calls().len(), 1);
    assert_eq!(reader.cache_stats().ahead.frames_shared, 1);
}

#[tokio::test]
async fn one_who_gives_up_waiting_takes_nothing_from_those_who_share_the_request() {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"first"), ("b", b"second")]).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    fixture.store.let_others_in_between();
    fixture.store.take_calls();

    let mut first = Box::pin(read(&reader, &entries[0]));
    let mut second = Box::pin(read(&reader, &entries[1]));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    // As the deadline of a mount does it.
    drop(first);

    assert_eq!(second.await, b"second");
    assert_eq!(fixture.store.take_calls().len(), 1);
}

#[tokio::test]
async fn a_window_that_does_not_arrive_fails_nobody() {
    let (fixture, contents) = packed(300, 12 * KIB).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    fixture.store.refuse_ranges_beyond(100_000);

    for (entry, content) in entries.iter().zip(&contents) {
        assert!(read(&reader, entry).await == *content);
    }

    let stats = reader.cache_stats().ahead;
    assert!(stats.windows > 0 && stats.windows_failed > 0, "{stats:?}");
}

#[tokio::test]
async fn what_is_read_ahead_stays_within_its_share_of_the_budget() {
    let (fixture, contents) = packed(1_500, 12 * KIB).await;
    let options = ReadOptions { memory_bytes: 8 << 20, ..ReadOptions::default() };
    let reader = fixture.reader_with(options).await;
    let entries = listed(&reader).await;
    fixture.store.let_others_in_between();

    // Three readers, each somewhere else.
    for at in 0..500 {
        for number in [at, at + 500, at + 1_000] {
            assert!(read(&reader, &entries[number]).await == contents[number]);
            let stats = reader.cache_stats();
            assert_eq!(stats.ahead.bytes_max, 2 << 20);
            assert!(stats.ahead.bytes <= stats.ahead.bytes_max, "{stats:?}");
            assert!(stats.memory.bytes_max + stats.ahead.bytes_max <= 8 << 20);
        }
    }
    assert!(reader.cache_stats().ahead.windows > 0);
}

#[tokio::test]
async fn a_walk_that_was_left_gives_its_memory_back() {
    let (fixture, _) = packed(300, 12 * KIB).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    for entry in &entries[..9] {
        read(&reader, entry).await;
    }
    assert!(reader.cache_stats().ahead.bytes > 0);

    fixture.clock.advance(Duration::from_secs(31));
    reader.tend();

    assert_eq!(reader.cache_stats().ahead.bytes, 0);
}

#[tokio::test]
async fn a_bit_that_flips_on_its_way_is_no_error_and_no_wrong_data() {
    let (fixture, contents) = packed(300, 12 * KIB).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    fixture.store.flip_next_ranges(1);
    assert!(read(&reader, &entries[9]).await == contents[9]);
    assert_eq!(reader.cache_stats().damage_met, 1);

    // The same in what is read ahead.
    for (entry, content) in entries.iter().zip(&contents) {
        if reader.cache_stats().ahead.windows == 0 {
            fixture.store.flip_next_ranges(1);
        }
        assert!(read(&reader, entry).await == *content);
    }

    fixture.store.flip_next_ranges(2);
    let fresh = fixture.reader().await;
    fixture.store.flip_next_ranges(2);
    let refused = fresh.read(day(), entries[9].birth, 0, 1 << 20).await;
    assert!(matches!(refused, Err(ArchiveError::Damaged { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_reader_of_a_large_file_in_a_near_store_keeps_none_of_it() {
    let fixture = Fixture::new().await;
    let large = noise(1, 12 << 20);
    fixture.pack(&[("a", &large)]).await;
    let reader = fixture.reader_with(ReadOptions { store_is_near: true, ..ReadOptions::default() }).await;
    let entry = reader.lookup(day(), &uid("a")).await.unwrap().unwrap();

    // As the kernel asks when it did not begin where a frame does.
    let mut at = 0;
    for size in std::iter::once(300_000).chain(std::iter::repeat(1 << 20)) {
        let offset = u64::try_from(at).unwrap();
        let read = reader.read(day(), entry.birth, offset, size).await.unwrap();
        assert!(read == large[at..large.len().min(at + size)]);
        let bytes = reader.cache_stats().memory.bytes;
        assert!(bytes < 2 << 20, "{bytes} bytes are kept at {at}");
        at += size;
        if at >= large.len() {
            break;
        }
    }
}

#[tokio::test]
async fn dropping_the_archive_ends_what_is_on_its_way() {
    let (fixture, _) = packed(300, 12 * KIB).await;
    let without = Arc::strong_count(&fixture.store);
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    fixture.store.let_others_in_between();
    for entry in &entries[..3] {
        read(&reader, entry).await;
    }
    // The archive's own, and that of a window under way.
    assert!(Arc::strong_count(&fixture.store) > without + 1);

    drop(reader);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }

    assert_eq!(Arc::strong_count(&fixture.store), without);
}
