//! Bombs in compressed data: frames, columns and payloads that claim or hold far more than they may.

use bytes::Bytes;
use desfmt::FormatError;
use desfmt::legacy::{COMPRESSED_PLAIN_LEN_MAX, LegacyCodec, decode_payload};
use desfmt::v3::{Codec, check_object};

use super::Bomb;
use crate::forge::{self, Parts, column};
use crate::samples;
use crate::walk::walk;

const COMPRESSED: u32 = 1 << 31;

pub(super) fn bombs() -> Vec<Bomb> {
    let bomb = |what, build, read| Bomb { what, build, read };
    let mut bombs = vec![
        bomb("frame: zstd, 1 KB that claims 10 GB", || frame_shard(&claiming(10 << 30), 1 << 20), read_all),
        bomb("frame: zstd, 64 KB that is 2 GB", || frame_shard(&repeating(2 << 30), 1 << 20), read_all),
        bomb("frame: zstd, a window of 2 GB", || frame_shard(&wide(), 1 << 20), read_all),
        bomb("frame: lz4, 1 MB that is 250 MB", || lz4_shard(&lz4_run(1 << 20)), read_all),
        bomb("frame: plain length 2 GB", || frame_shard(&repeating(1 << 20), u32::MAX >> 1), read_all),
        bomb("column: zstd that claims 10 GB", || column_shard(&claiming(10 << 30)), read_all),
        bomb("column: zstd, 64 KB that is 2 GB", || column_shard(&repeating(2 << 30)), read_all),
        bomb("column: zstd, a window of 2 GB", || column_shard(&wide()), read_all),
        bomb("dictionary: zstd that is 2 GB", || dictionary_shard(&repeating(2 << 30), 128 << 10), read_all),
        bomb("dictionary: a length of 2^60", || dictionary_shard(&repeating(1 << 20), 1 << 60), read_all),
        bomb("400 frames of 1 MB in 30 KB, checked whole", many_frames, check),
    ];
    bombs.extend([
        bomb(
            "payload: zstd that claims 10 GB",
            || claiming(10 << 30),
            |bytes| payload(bytes, LegacyCodec::Zstd, 10 << 30),
        ),
        bomb("payload: zstd, 64 KB that is 2 GB", || repeating(2 << 30), zstd_payload),
        bomb("payload: zstd, a window of 2 GB", wide, zstd_payload),
        bomb("payload: zstd, 2 GB in 17,000 frames", many_zstd_frames, zstd_payload),
        bomb("payload: lz4, 4 MB that is 1 GB", || lz4_frame(&lz4_run(16 << 10), 256), lz4_payload),
        bomb("payload: lz4, blocks of nothing", || lz4_frame(&[0], 1 << 20), lz4_payload),
    ]);
    bombs
}

fn read_all(object: &Bytes) -> Result<(), FormatError> {
    match walk(object)? {
        0 => Ok(()),
        refused => Err(FormatError::damaged("test", format!("{refused} parts"))),
    }
}

fn check(object: &Bytes) -> Result<(), FormatError> {
    check_object(object).map(drop)
}

fn payload(bytes: &[u8], codec: LegacyCodec, plain_len: u64) -> Result<(), FormatError> {
    decode_payload(codec, bytes, plain_len).map(drop)
}

fn zstd_payload(bytes: &Bytes) -> Result<(), FormatError> {
    payload(bytes, LegacyCodec::Zstd, COMPRESSED_PLAIN_LEN_MAX - (1 << 20))
}

fn lz4_payload(bytes: &Bytes) -> Result<(), FormatError> {
    payload(bytes, LegacyCodec::Lz4, COMPRESSED_PLAIN_LEN_MAX - (1 << 20))
}

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BLOCK: u32 = 128 << 10;

/// Blocks of one repeated byte, 128 KiB each in four bytes.
fn repeated_blocks(len: u64) -> Vec<u8> {
    let count = len.div_ceil(u64::from(BLOCK));
    let blocks = (1..=count).flat_map(|number| {
        let header = BLOCK << 3 | 1 << 1 | u32::from(number == count);
        let [low, middle, high, _] = header.to_le_bytes();
        [low, middle, high, b'x']
    });
    blocks.collect()
}

/// A frame that says how much it is, in eight bytes, and is one block of that.
fn claiming(len: u64) -> Vec<u8> {
    let mut frame = [&MAGIC[..], &[0b1110_0000], &len.to_le_bytes(), &repeated_blocks(u64::from(BLOCK))].concat();
    frame.resize(1_024, 0);
    frame
}

/// A frame of so many bytes that does not say so.
fn repeating(len: u64) -> Vec<u8> {
    [&MAGIC[..], &[0, 10 << 3], &repeated_blocks(len)].concat()
}

/// A frame with a window of 2 GB.
fn wide() -> Vec<u8> {
    [&MAGIC[..], &[0, 21 << 3], &repeated_blocks(4 << 20)].concat()
}

fn many_zstd_frames() -> Vec<u8> {
    repeating(u64::from(BLOCK)).repeat(17_000)
}

/// A block of lz4: one literal, and a match that goes on for 255 bytes with each byte of the block.
fn lz4_run(len: usize) -> Vec<u8> {
    let mut block = vec![0x1f, b'x', 1, 0];
    block.resize(len, 0xff);
    block.extend([0, 0x50, 1, 2, 3, 4, 5]);
    block
}

/// A frame of lz4 with blocks of up to 4 MiB, so many times the same one.
fn lz4_frame(block: &[u8], count: usize) -> Vec<u8> {
    let len = u32::try_from(block.len()).unwrap().to_le_bytes();
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73];
    for _ in 0..count {
        frame.extend(len);
        frame.extend(block);
    }
    frame.extend([0; 4]);
    frame
}

/// A sound shard of which everything but the frames is kept.
fn parts_of(codec: Codec) -> Parts {
    let samples = samples::small();
    let sample = match codec {
        Codec::Stored => &samples[0],
        Codec::Lz4 => &samples[1],
        Codec::Zstd => &samples[2],
    };
    Parts::of(&sample.object).unwrap()
}

fn with_frame(codec: Codec, frame: Vec<u8>) -> Vec<u8> {
    let mut parts = parts_of(codec);
    parts.frames = vec![frame];
    parts.describe_frames();
    parts.assemble().to_vec()
}

fn frame_shard(payload: &[u8], plain_len: u32) -> Vec<u8> {
    with_frame(Codec::Zstd, forge::frame(0, payload, plain_len | COMPRESSED))
}

fn lz4_shard(payload: &[u8]) -> Vec<u8> {
    with_frame(Codec::Lz4, forge::frame(0, payload, 1 << 20 | COMPRESSED))
}

/// The uids of the index page are a bomb.
fn column_shard(frame: &[u8]) -> Vec<u8> {
    let mut parts = parts_of(Codec::Zstd);
    let mut page = column::varint(0);
    page.extend(column::constant(0));
    page.extend(column::constant(10));
    page.extend(column::compressed(frame));
    parts.index = vec![page];
    parts.assemble().to_vec()
}

fn dictionary_shard(frame: &[u8], len: u64) -> Vec<u8> {
    let mut parts = parts_of(Codec::Zstd);
    parts.dictionary = [column::varint(len), column::compressed(frame)].concat();
    parts.assemble().to_vec()
}

/// Frames that are sound, each far smaller than its content: together more than fits.
fn many_frames() -> Vec<u8> {
    let mut parts = parts_of(Codec::Zstd);
    let payload = repeating(1 << 20);
    parts.frames = (0..400).map(|number| forge::frame(number, &payload, 1 << 20 | COMPRESSED)).collect();
    parts.describe_frames();
    parts.assemble().to_vec()
}
