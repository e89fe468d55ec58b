//! Frames of large files that are decoded ahead of who walks through them.

use std::sync::Arc;

use desfmt::v3;

use super::{KIB, listed, noise, packed_of, read, shard_len};
use crate::archive::{Archive, ArchiveError, Deletion, FileEntry, ReadOptions};
use crate::fixture::{Fixture, day};

/// Text, so that it is compressed.
fn text(number: usize, len: usize) -> Vec<u8> {
    format!("line of file {number}, which says little more than that it is one; ").repeat(len / 60).into_bytes()
}

/// An archive with one shard of files with a frame each, and what is in them.
async fn packed_large(files: usize) -> (Fixture, Vec<Vec<u8>>) {
    packed_of((0..files).map(|number| text(number, 300 * KIB)).collect()).await
}

fn near() -> ReadOptions {
    ReadOptions { store_is_near: true, ..ReadOptions::default() }
}

/// What is decoded now, in frames.
fn held(reader: &Archive) -> u64 {
    reader.cache_stats().ahead.bytes / v3::limits::SLOT_LEN
}

/// Lets what goes on by itself go on.
async fn pause() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Reads files one after the other, with pauses.
async fn walk(reader: &Archive, entries: &[FileEntry], contents: &[Vec<u8>]) {
    for (entry, content) in entries.iter().zip(contents) {
        assert!(read(reader, entry).await == *content, "{}", entry.uid);
        pause().await;
    }
}

#[tokio::test]
async fn who_walks_through_large_files_finds_them_decoded() {
    for options in [ReadOptions::default(), near()] {
        let (fixture, contents) = packed_large(20).await;
        let reader = fixture.reader_with(options).await;
        let entries = listed(&reader).await;
        fixture.store.take_ranges();

        walk(&reader, &entries, &contents).await;

        // Two files show the walk.
        assert_eq!(reader.cache_stats().ahead.frames_decoded, 18);
        let fetched: u64 = fixture.store.take_ranges().iter().map(|range| range.end - range.start).sum();
        assert!(fetched <= shard_len(&fixture).await, "nothing is fetched twice");
    }
}

#[tokio::test]
async fn who_reads_one_large_file_from_its_beginning_finds_it_decoded() {
    for options in [ReadOptions::default(), near()] {
        let fixture = Fixture::new().await;
        let large = text(1, 12 << 20);
        fixture.pack(&[("a", &large), ("b", &large)]).await;
        let reader = fixture.reader_with(options).await;
        let entry = listed(&reader).await.remove(0);

        let mut at = 0;
        while at < large.len() {
            let offset = u64::try_from(at).unwrap();
            let bytes = reader.read(day(), entry.birth, offset, 128 * KIB).await.unwrap();
            assert!(bytes == large[at..large.len().min(at + 128 * KIB)]);
            at += bytes.len();
            pause().await;
        }

        let frames = u64::try_from(large.len()).unwrap().div_ceil(v3::limits::SLOT_LEN);
        assert_eq!(reader.cache_stats().ahead.frames_decoded, frames - 1);
        assert_eq!(held(&reader), 1, "the one that he read last: of another file nothing is decoded");
    }
}

#[tokio::test]
async fn who_reads_large_files_in_no_order_or_small_ones_has_nothing_decoded() {
    let (fixture, contents) = packed_large(20).await;
    for options in [ReadOptions::default(), near()] {
        let reader = fixture.reader_with(options).await;
        let entries = listed(&reader).await;
        for number in (0..20).rev() {
            assert!(read(&reader, &entries[number]).await == contents[number]);
            assert_eq!(held(&reader), 0);
        }
    }
}

#[tokio::test]
async fn small_files_and_what_is_stored_as_it_is_are_not_decoded_ahead() {
    let small = packed_of((0..100).map(|number| text(number, 12 * KIB)).collect()).await;
    let stored = packed_of((0..12).map(|number| noise(number, 1 << 20)).collect()).await;
    for (fixture, contents) in [small, stored] {
        for options in [ReadOptions::default(), near()] {
            let reader = fixture.reader_with(options).await;
            walk(&reader, &listed(&reader).await, &contents).await;
            assert_eq!(reader.cache_stats().ahead.frames_decoded, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_side_by_side_get_the_right_bytes_from_what_is_being_decoded() {
    for options in [ReadOptions::default(), near()] {
        let (fixture, contents) = packed_large(60).await;
        let reader = fixture.reader_with(options).await;
        let entries: Arc<[FileEntry]> = listed(&reader).await.into();
        let contents = Arc::new(contents);
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (reader, entries, contents) = (Arc::clone(&reader), Arc::clone(&entries), Arc::clone(&contents));
                tokio::spawn(async move {
                    for (entry, content) in entries.iter().zip(contents.iter()) {
                        assert!(read(&reader, entry).await == *content, "{}", entry.uid);
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_decoded_goes_with_its_file() {
    let (fixture, contents) = packed_large(20).await;
    let reader = fixture.reader_with(near()).await;
    let entries = listed(&reader).await;
    walk(&reader, &entries[..3], &contents).await;
    assert_eq!(held(&reader), 3, "that of the file which was read last, and two beyond it");

    let deletion = Deletion { actor: "tests".to_owned(), reason: "asked".to_owned(), ticket: None };
    reader.delete(day(), &entries[3].uid, &deletion).await.unwrap();

    assert_eq!(held(&reader), 2);
    reader.drop_caches();
    assert_eq!(held(&reader), 0);
}

#[tokio::test]
async fn what_is_decoded_stays_within_its_share_of_the_budget() {
    let (fixture, contents) = packed_large(60).await;
    // Room for five.
    let options = ReadOptions { memory_bytes: 80 << 20, ..near() };
    let reader = fixture.reader_with(options).await;
    let entries = listed(&reader).await;
    assert_eq!(reader.cache_stats().ahead.bytes_max, 5 << 20);

    for at in 0..20 {
        for number in [at, at + 20, at + 40] {
            assert!(read(&reader, &entries[number]).await == contents[number]);
            pause().await;
            assert!(held(&reader) <= 5, "{}", held(&reader));
        }
    }
    assert!(reader.cache_stats().ahead.frames_decoded > 0);

    reader.set_memory_bytes(16 << 20);
    assert!(held(&reader) <= 1, "{}", held(&reader));
    fixture.clock.advance(std::time::Duration::from_secs(31));
    reader.tend();
    assert_eq!(held(&reader), 0);
}

#[tokio::test]
async fn a_bit_that_flips_in_what_is_decoded_ahead_is_no_error_and_no_wrong_data() {
    let (fixture, contents) = packed_large(20).await;
    let reader = fixture.reader_with(near()).await;
    let entries = listed(&reader).await;
    walk(&reader, &entries[..3], &contents).await;
    fixture.store.flip_next_ranges(1);

    walk(&reader, &entries[3..], &contents[3..]).await;

    // What stays damaged is told by who reads it.
    let reader = fixture.reader_with(near()).await;
    walk(&reader, &entries[..3], &contents).await;
    fixture.store.flip_next_ranges(100);
    walk(&reader, &entries[3..5], &contents[3..]).await;
    let refused = reader.read(day(), entries[5].birth, 0, 1 << 20).await;
    assert!(matches!(refused, Err(ArchiveError::Damaged { .. })), "{refused:?}");
}
