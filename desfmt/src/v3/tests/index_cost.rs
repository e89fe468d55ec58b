//! What the index costs a file, on the wire and in memory, against the budget of the design.

use super::building::{ARCHIVE, DAY_START, Opened, name};
use crate::time::Timestamp;
use crate::uid::Uid;
use crate::v3::frame::EncodedFrame;
use crate::v3::{BodySettings, BodyWriter, Codec, Encoding, FrameCutter, FrameSize, Lineage, Mtime, NewEntry, to_u64};
use bytes::Bytes;

/// About what fills a shard of 64 MiB with files of 12 KiB.
const FILES: u64 = 5_333;

/// A reproducible sequence of evenly spread numbers (`SplitMix64`, Steele et al. 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Lengths with a mean of 12 KiB: many small ones, a few of more than 64 KiB.
    fn file_len(&mut self) -> u64 {
        let halvings = u64::from(self.next().leading_zeros());
        halvings * 8_517 + self.below(8_517)
    }
}

fn base62(numbers: &mut Numbers, len: usize) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    (0..len).map(|_| char::from(LETTERS[usize::try_from(numbers.below(62)).unwrap()])).collect()
}

/// Builds a shard of the uids and gives the bytes a file that its index takes: on the wire and in memory.
fn cost(kind: &str, mut uids: Vec<String>, lag: impl Fn(&mut Numbers, i64) -> i64) -> (f64, f64) {
    uids.sort_unstable();
    let numbers = &mut Numbers(7);
    let settings = BodySettings { archive: ARCHIVE, codec: Codec::Zstd };
    let mut writer = BodyWriter::new(settings, None, Lineage::default()).unwrap();
    let (mut cutter, mut frames) = (FrameCutter::new(FrameSize::default()), Vec::new());
    let mut object = writer.header();
    let mut lens = 0;
    for uid in &uids {
        let len = numbers.file_len();
        lens += len;
        cutter.push(&vec![0; usize::try_from(len).unwrap()], &mut frames).unwrap();
        let placement = cutter.end_file(&mut frames).unwrap();
        let created_at = Timestamp::from_micros(DAY_START + numbers.below(86_400_000_000).cast_signed());
        let mtime = Mtime { seconds: lag(numbers, created_at.seconds()), nanos: 0 };
        let uid = &Uid::new(uid).unwrap();
        let (offset, len, digest) = (placement.offset, placement.len, blake3::hash(b""));
        let entry = NewEntry { uid, created_at, mtime, offset, len, digest, metadata: None, birth: None };
        writer.push_entry(entry).unwrap();
    }
    cutter.finish(&mut frames).unwrap();
    let frame_count = frames.len();
    for frame in frames {
        // As if compressed to a fifth up to four fifths.
        let payload =
            vec![0; frame.len() / 5 + usize::try_from(numbers.below(to_u64(frame.len()) * 3 / 5 + 1)).unwrap()];
        let frame = EncodedFrame::new(payload, frame.len(), Encoding::Compressed);
        object.extend(writer.push_frame(frame).unwrap());
    }
    let body = writer.finish().unwrap();
    object.extend(body.trailer());
    object.extend(body.footer_bytes(&name()));
    let opened = Opened::new(&Bytes::from(object));

    let count = f64::from(u32::try_from(uids.len()).unwrap());
    let bytes = |len: u64| f64::from(u32::try_from(len).unwrap()) / count;
    let sections = opened.index.footer().sections;
    let wire = bytes(body.tail_len());
    let memory = bytes(to_u64(opened.index.memory_bytes()));
    println!(
        "{kind:<44} {wire:>6.2} on the wire (index pages {:.2}, frame table {:.2} for {:.2} frames, directory {:.2}), \
         {memory:.2} in memory; mean file {}",
        bytes(sections.frame_table - sections.index),
        bytes(sections.dictionary - sections.frame_table),
        f64::from(u32::try_from(frame_count).unwrap()) / count,
        bytes(sections.footer - sections.directory),
        lens / to_u64(uids.len()),
    );
    (wire, memory)
}

#[test]
fn index_cost_stays_within_the_budget() {
    let numbers = &mut Numbers(1);
    let sequential = (1..=FILES).map(|number| format!("INV-2024-{number:06}")).collect();
    let hexadecimal = |numbers: &mut Numbers| {
        (0..FILES).map(|_| format!("{:016x}{:016x}", numbers.next(), numbers.next())).collect::<Vec<_>>()
    };
    let random = |numbers: &mut Numbers| (0..FILES).map(|_| base62(numbers, 22)).collect::<Vec<_>>();
    let same = |_: &mut Numbers, created_at: i64| created_at;
    let soon = |numbers: &mut Numbers, created_at: i64| created_at + numbers.below(4).cast_signed() - 1;
    let any = |numbers: &mut Numbers, _: i64| (DAY_START / 1_000_000) + numbers.below(86_400).cast_signed();

    for (kind, uids, budget) in [
        ("sequential", sequential, 24.0),
        ("32 hexadecimal digits", hexadecimal(numbers), 24.0),
        ("22 random base-62 digits", random(numbers), 30.0),
    ] {
        for (lag, (wire, memory)) in [
            ("mtime = created_at", cost(&format!("{kind}, mtime = created_at"), uids.clone(), same)),
            ("mtime within 4 s", cost(&format!("{kind}, mtime within 4 s"), uids.clone(), soon)),
        ] {
            assert!(wire <= budget, "{kind}, {lag}: {wire} bytes on the wire");
            assert!(memory <= 40.0, "{kind}, {lag}: {memory} bytes in memory");
        }
        let (_, memory) = cost(&format!("{kind}, mtime anywhere in the day"), uids, any);
        assert!(memory <= 40.0, "{kind}: {memory} bytes in memory");
    }
}
