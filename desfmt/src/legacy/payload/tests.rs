use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// A frame that the ancestor's libraries made, by `tests/data/make_frames.py`.
#[derive(Deserialize)]
struct Frame {
    codec: String,
    note: String,
    plain: (String, usize),
    stored: String,
}

impl Frame {
    fn all() -> Vec<Self> {
        let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/frames.jsonl");
        fs::read_to_string(table).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn codec(&self) -> LegacyCodec {
        [LegacyCodec::Zstd, LegacyCodec::Lz4].into_iter().find(|codec| codec.name() == self.codec).unwrap()
    }

    fn plain(&self) -> Vec<u8> {
        self.plain.0.repeat(self.plain.1).into_bytes()
    }

    fn stored(&self) -> Vec<u8> {
        let pair = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        self.stored.as_bytes().chunks(2).map(pair).collect()
    }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

fn encode(compression: LegacyCompression, plain: &[u8]) -> Vec<u8> {
    PayloadEncoder::new(compression).unwrap().encode(plain).unwrap()
}

fn assert_damaged(found: Result<Vec<u8>, FormatError>, why: &str) {
    match found {
        Err(FormatError::Damaged { detail, .. }) => assert!(detail.contains(why), "{detail:?} speaks of {why:?}"),
        Err(other) => panic!("{why}: {other}"),
        Ok(plain) => panic!("{why}: {} bytes", plain.len()),
    }
}

const ALL: [LegacyCompression; 4] = [
    LegacyCompression::Stored,
    LegacyCompression::Zstd { level: 3 },
    LegacyCompression::Zstd { level: 9 },
    LegacyCompression::Lz4,
];

#[test]
fn frames_of_the_ancestors_libraries_are_read() {
    let frames = Frame::all();
    for frame in &frames {
        let (plain, stored) = (frame.plain(), frame.stored());
        assert_eq!(
            decode_payload(frame.codec(), &stored, len(&plain)).unwrap(),
            plain,
            "{} {}",
            frame.codec,
            frame.note
        );
    }
    assert!(frames.len() >= 48);
}

#[test]
fn frames_are_headed_as_the_ancestors_libraries_head_them() {
    for frame in Frame::all() {
        let (compression, head) = match (frame.codec(), frame.note.as_str()) {
            (LegacyCodec::Zstd, "level 3") => (LegacyCompression::Zstd { level: 0 }, 9),
            (LegacyCodec::Lz4, "default") => (LegacyCompression::Lz4, 11),
            _ => continue,
        };
        let (expected, found) = (frame.stored(), encode(compression, &frame.plain()));
        assert_eq!(found[..head.min(found.len())], expected[..head.min(expected.len())], "{:?}", frame.plain);
        if frame.plain.1 == 0 {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_content_of_another_length_than_the_index_says_is_refused() {
    for frame in Frame::all() {
        let (plain, stored) = (frame.plain(), frame.stored());
        for wrong in [len(&plain) + 1, len(&plain).wrapping_sub(1).min(COMPRESSED_PLAIN_LEN_MAX), 7] {
            let found = decode_payload(frame.codec(), &stored, wrong);
            assert!(matches!(found, Err(FormatError::Damaged { .. })), "{} {} as {wrong}", frame.codec, frame.note);
        }
    }
    assert_damaged(decode_payload(LegacyCodec::Stored, b"abc", 4), "it holds 3 bytes, the index says 4");
}

#[test]
fn only_the_first_frame_counts() {
    for frame in Frame::all() {
        let (plain, mut stored) = (frame.plain(), frame.stored());
        stored.extend(frame.stored());
        assert_eq!(decode_payload(frame.codec(), &stored, len(&plain)).unwrap(), plain, "{}", frame.note);
        if !plain.is_empty() {
            assert!(decode_payload(frame.codec(), &stored, 2 * len(&plain)).is_err(), "{}", frame.note);
        }
    }
}

#[test]
fn a_frame_that_is_cut_anywhere_is_refused() {
    for frame in Frame::all() {
        let stored = frame.stored();
        for end in 0..stored.len() {
            let found = decode_payload(frame.codec(), &stored[..end], len(&frame.plain()));
            assert!(matches!(found, Err(FormatError::Damaged { .. })), "{} {} at {end}", frame.codec, frame.note);
        }
    }
}

#[test]
fn bombs_are_refused_by_the_figure_in_the_index() {
    let zeros = vec![0; 32 << 20];
    for compression in [LegacyCompression::Zstd { level: 3 }, LegacyCompression::Lz4] {
        let bomb = encode(compression, &zeros);
        assert!(bomb.len() < zeros.len() / 200);
        assert_damaged(decode_payload(compression.codec(), &bomb, 6_000), "it claims 33554432 bytes");
        let huge = decode_payload(compression.codec(), &bomb, COMPRESSED_PLAIN_LEN_MAX + 1).unwrap_err();
        assert!(matches!(&huge, FormatError::BeyondLimits { detail, .. } if detail.contains("pack the file again")));
    }
    // The same without a claim: decoding stops as soon as there is too much.
    let mut lz4 = FrameEncoder::with_frame_info(FrameInfo::new(), Vec::new());
    std::io::Write::write_all(&mut lz4, &zeros).unwrap();
    assert_damaged(decode_payload(LegacyCodec::Lz4, &lz4.finish().unwrap(), 6_000), "it holds 6001 bytes");
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    std::io::Write::write_all(&mut zstd, &zeros).unwrap();
    assert_damaged(decode_payload(LegacyCodec::Zstd, &zstd.finish().unwrap(), 6_000), "too small");
}

#[test]
fn other_frames_are_not_taken_for_these() {
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    let old_lz4 = [0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0];
    for codec in [LegacyCodec::Zstd, LegacyCodec::Lz4] {
        for bytes in [&skippable[..], &old_lz4[..], b"", b"plain"] {
            assert_damaged(decode_payload(codec, bytes, 0), "does not begin like one");
        }
    }
    let with_dictionary = [0x04, 0x22, 0x4d, 0x18, 0x61, 0x40, 1, 2, 3, 4, 0, 0, 0, 0, 0];
    assert_damaged(decode_payload(LegacyCodec::Lz4, &with_dictionary, 0), "dictionary");
}

#[test]
fn there_is_no_zstd_level_99() {
    assert!(PayloadEncoder::new(LegacyCompression::Zstd { level: 99 }).is_err());
}

#[test]
fn the_ending_of_a_uid_decides_whether_it_is_compressed() {
    for uid in ["a.jpg", "a.JPEG", "x/y.png", "a.tar.gz", "a.jpg/", "a.jpg/.", "..zip", "\u{e9}.xz"] {
        assert!(is_never_compressed(uid), "{uid}");
    }
    for uid in [".jpg", "a.jpg ", "a.pdf", "jpg", "12345", "a.jpg/b", "a.", "", "/", "a.jpg.txt", "x/.png"] {
        assert!(!is_never_compressed(uid), "{uid}");
    }
}

proptest! {
    #[test]
    fn a_content_reads_back_as_it_is_written(head: Vec<u8>, repeated in 0_usize..200_000) {
        let mut plain = head;
        plain.resize(plain.len().saturating_add(repeated), b'r');
        for compression in ALL {
            let stored = encode(compression, &plain);
            prop_assert_eq!(&decode_payload(compression.codec(), &stored, len(&plain)).unwrap(), &plain);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, plain_len in 0_u64..100_000) {
        for (codec, magic) in [(LegacyCodec::Zstd, ZSTD_MAGIC), (LegacyCodec::Lz4, LZ4_MAGIC)] {
            decode_payload(codec, &bytes, plain_len).ok();
            let mut begun = magic.to_vec();
            begun.extend(&bytes);
            decode_payload(codec, &begun, plain_len).ok();
        }
    }

    #[test]
    fn a_damaged_frame_gives_bytes_of_the_right_length_or_an_error(choice: prop::sample::Index, at: prop::sample::Index, value: u8) {
        let frames = Frame::all();
        let frame = choice.get(&frames);
        let mut stored = frame.stored();
        *at.get_mut(&mut stored) = value;
        let plain_len = len(&frame.plain());
        if let Ok(plain) = decode_payload(frame.codec(), &stored, plain_len) {
            prop_assert_eq!(len(&plain), plain_len);
        }
    }
}
