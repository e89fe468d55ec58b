//! Walks that go on from one shard into the next.

use super::{KIB, listed, noise, read};
use crate::archive::ReadOptions;
use crate::fixture::{Fixture, day};

/// An archive with so many shards of the same group, and what is in their files.
async fn packed_in_shards(shards: usize, files: usize) -> (Fixture, Vec<Vec<u8>>) {
    let fixture = Fixture::new().await;
    let mut contents = Vec::new();
    for shard in 0..shards {
        let names: Vec<String> = (0..files).map(|number| format!("file-{shard}-{number:06}")).collect();
        let first = contents.len();
        contents.extend((first..).take(files).map(|number| noise(u64::try_from(number).unwrap(), 12 * KIB)));
        let all: Vec<(&str, &[u8])> =
            names.iter().zip(&contents[first..]).map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        fixture.pack(&all).await;
    }
    fixture.store.take_calls();
    fixture.store.take_ranges();
    (fixture, contents)
}

#[tokio::test]
async fn who_walks_on_into_the_next_shard_finds_its_beginning_on_its_way() {
    let (fixture, contents) = packed_in_shards(3, 100).await;
    let reader = fixture.reader().await;
    fixture.store.let_others_in_between();
    let entries = listed(&reader).await;
    fixture.store.take_ranges();

    for (entry, content) in entries.iter().zip(&contents) {
        assert!(read(&reader, entry).await == *content, "{}", entry.uid);
    }

    // The first frame, before there was a walk, a window for the rest of its shard, and one for each of the others.
    assert_eq!(fixture.store.take_ranges().len(), 1 + 1 + 2);
    let stats = reader.cache_stats().ahead;
    assert_eq!((stats.windows, stats.windows_failed), (3, 0));
}

#[tokio::test]
async fn who_walks_on_into_the_next_shard_goes_on_at_his_pace() {
    let (fixture, contents) = packed_in_shards(3, 1_400).await;
    let reader = fixture.reader().await;
    fixture.store.let_others_in_between();
    let entries = listed(&reader).await;
    fixture.store.take_ranges();

    for (entry, content) in entries.iter().zip(&contents) {
        assert!(read(&reader, entry).await == *content, "{}", entry.uid);
    }

    // Each has 16.8 MiB: the first file, windows of 1, 2, 4 and 8 MiB, and the rest; two windows for each of the others.
    assert_eq!(fixture.store.take_ranges().len(), 1 + 5 + 2 * 2);
}

#[tokio::test]
async fn who_hurries_through_many_shards_leaves_none_of_their_windows_in_his_way() {
    let (fixture, contents) = packed_in_shards(6, 100).await;
    // There is room for windows of two shards. The clock stands still, so that nothing has rested.
    let options = ReadOptions { memory_bytes: 12 << 20, ..ReadOptions::default() };
    let reader = fixture.reader_with(options).await;
    fixture.store.let_others_in_between();
    let entries = listed(&reader).await;
    fixture.store.take_ranges();

    for (entry, content) in entries.iter().zip(&contents) {
        assert!(read(&reader, entry).await == *content, "{}", entry.uid);
    }

    assert_eq!(reader.cache_stats().ahead.windows_refused, 0);
    // The first frame, before there was a walk, and a window for each shard.
    assert_eq!(fixture.store.take_ranges().len(), 1 + 6);
}

#[tokio::test]
async fn who_reads_one_file_after_the_other_of_the_last_shard_enters_no_other() {
    let (fixture, contents) = packed_in_shards(2, 100).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    fixture.store.take_ranges();

    for (entry, content) in entries.iter().zip(&contents).skip(100) {
        assert!(read(&reader, entry).await == *content, "{}", entry.uid);
    }

    assert_eq!(reader.cache_stats().ahead.windows, 1);
}

#[tokio::test]
async fn the_next_shard_is_not_fetched_where_its_files_are_at_hand() {
    let (fixture, _) = packed_in_shards(2, 100).await;
    let reader = fixture.reader().await;
    let entries = listed(&reader).await;
    // In no order that shows a walk.
    for entry in entries.iter().skip(100).rev() {
        reader.read(day(), entry.birth, 0, 1 << 10).await.unwrap();
    }
    let before = reader.cache_stats().ahead.windows;

    for entry in entries.iter().take(100) {
        read(&reader, entry).await;
    }

    assert_eq!(reader.cache_stats().ahead.windows, before + 1);
}

#[tokio::test]
async fn a_listing_opens_small_shards_together_and_a_glance_only_the_first() {
    let (fixture, _) = packed_in_shards(3, 2).await;
    let tails = || fixture.store.take_calls().iter().filter(|call| call.contains("shards/")).count();

    assert_eq!(fixture.reader().await.list(day(), None, 1).await.unwrap().len(), 1);
    assert_eq!(tails(), 1);

    let reader = fixture.reader().await;
    assert_eq!(reader.list(day(), None, 2).await.unwrap().len(), 2);
    assert_eq!(tails(), 3);

    assert_eq!(listed(&reader).await.len(), 6);
    assert_eq!(tails(), 0, "each is opened once");
}
