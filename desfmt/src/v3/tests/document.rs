//! The test vectors of `docs/format.md`: what stands there is what is written and read.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::building::{DAY_START, File, Opened, ShardBuilder, file, name};
use crate::time::Timestamp;
use crate::v3::column::{ColumnEncoder, decode_bytes, decode_ints};
use crate::v3::cursor::Cursor;
use crate::v3::frame::FrameRef;
use crate::v3::frame::prove;
use crate::v3::{Codec, FOOTER_LEN, HEADER_LEN, Header, Lineage, Mtime, PageNumber, check_object, to_u64};

const DOCUMENT: &str = include_str!("../../../../docs/format.md");

/// The fenced blocks labelled `hex NAME`: hexadecimal digits, with notes after semicolons.
fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let mut vectors = BTreeMap::new();
    for block in DOCUMENT.split("\n```hex ").skip(1) {
        let (label, rest) = block.split_once('\n').unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let digits: String = text.lines().filter_map(|line| line.split(';').next()).collect();
        let digits: Vec<char> = digits.chars().filter(|character| !character.is_whitespace()).collect();
        let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap());
        assert!(vectors.insert(label, bytes.collect()).is_none(), "{label} stands there twice");
    }
    vectors
}

#[track_caller]
fn assert_vector(label: &str, bytes: &[u8]) {
    let lines =
        bytes.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
    let text = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(vectors().get(label).map(Vec::as_slice), Some(bytes), "{label} should be\n```hex {label}\n{text}\n```");
}

/// The files of the example shard.
fn files() -> Vec<File> {
    let mut files =
        vec![file("INV-1", b"first"), file("INV-2", b""), file("INV-30", b"third file"), file("INV-4", b"first")];
    for (number, file) in (0..).zip(&mut files) {
        file.created_at = Timestamp::from_micros(DAY_START + number * 1_000_001);
        file.mtime = Mtime { seconds: file.created_at.seconds() - 1, nanos: 0 };
    }
    files[2].metadata = Some("{\"user.lang\":\"de\"}".to_owned());
    files
}

#[test]
fn the_example_shard_is_written_and_read_as_the_document_says() {
    let object = ShardBuilder { codec: Codec::Stored, ..ShardBuilder::default() }.build(&files());
    let opened = Opened::new(&object);
    let sections = opened.index.footer().sections;

    assert_vector("header", opened.part(0..to_u64(HEADER_LEN)));
    assert_vector("frame", opened.part(to_u64(HEADER_LEN)..sections.cold));
    assert_vector("cold-page", opened.part(sections.cold..sections.index));
    assert_vector("index-page", opened.part(sections.index..sections.frame_table));
    assert_vector("frame-page", opened.part(sections.frame_table..sections.dictionary));
    assert_vector("directory", opened.part(sections.directory..sections.footer));
    assert_vector("footer", opened.part(sections.footer..to_u64(object.len())));

    let vectors = vectors();
    let parts = ["header", "frame", "cold-page", "index-page", "frame-page", "directory", "footer"];
    let read = Bytes::from(parts.map(|part| vectors[part].as_slice()).concat());
    assert_eq!(check_object(&read).unwrap().entries, 4);
    let opened = Opened::new(&read);
    for file in files() {
        let entry = opened.find(file.uid.as_str()).unwrap();
        assert_eq!(opened.read(&entry, 0, u64::MAX), file.content);
        assert_eq!((entry.created_at, entry.mtime), (file.created_at, file.mtime));
        assert_eq!(opened.metadata(&entry), file.metadata);
    }
    assert_eq!(Header::decode(&vectors["header"]).unwrap().archive, super::building::ARCHIVE);
    assert_eq!(opened.index.footer().name, name());
}

#[test]
fn a_repacked_shard_has_births_as_the_document_says() {
    let mut files = files();
    files.truncate(2);
    files[0].birth = Some((1, 0));
    files[1].birth = Some((0, 7));
    let lineage = Lineage { serials: vec![12, 3], parents: Vec::new() };
    let builder = ShardBuilder { codec: Codec::Stored, lineage, ..ShardBuilder::default() };
    let opened = Opened::new(&builder.build(&files));
    let sections = opened.index.footer().sections;

    assert_vector("repacked-index-page", opened.part(sections.index..sections.frame_table));
    assert_vector("repacked-directory", opened.part(sections.directory..sections.footer));
}

#[test]
fn columns_are_encoded_as_the_document_says() {
    let ints = |label: &str, values: &[i64]| {
        let mut bytes = Vec::new();
        ColumnEncoder::new().unwrap().ints(&mut bytes, values).unwrap();
        assert_vector(label, &bytes);
        assert_eq!(decode_ints(&mut Cursor::new("test", &bytes), values.len()).unwrap(), values);
    };
    ints("ints-constant", &[-3; 9]);
    ints("ints-packed", &[1_000, 1_005, 1_001, 1_000]);
    ints("ints-differences", &(0..16).map(|number| 100 + number * 512).collect::<Vec<_>>());
    let planes = (0..24).map(|number| if number == 11 { 1 << 32 } else { i64::from(number % 2 == 0) });
    ints("ints-planes", &planes.collect::<Vec<_>>());

    let bytes = |label: &str, values: &[u8]| {
        let mut encoded = Vec::new();
        ColumnEncoder::new().unwrap().bytes(&mut encoded, values).unwrap();
        assert_vector(label, &encoded);
        assert_eq!(decode_bytes(&mut Cursor::new("test", &encoded), values.len()).unwrap(), values);
    };
    bytes("bytes-raw", b"INV");
    bytes("bytes-repeated", b"00000000");
    bytes("bytes-packed", b"0123456789abcdef0123456789abcdef0123456789abcdef");
}

#[test]
fn compressed_frames_are_read_as_the_document_says() {
    let vectors = vectors();
    for (label, codec) in [("frame-zstd", Codec::Zstd), ("frame-lz4", Codec::Lz4)] {
        let plain = "all work and no play ".repeat(20);
        let encoder = crate::v3::FrameEncoder::new(codec, 3, None).unwrap();
        assert_vector(label, &encoder.encode(plain.as_bytes()).unwrap().bind(3));
        let stored = vectors[label].as_slice();
        let frame = FrameRef::new(3, 0..to_u64(stored.len()));

        let read = prove(&frame, stored).unwrap().decode(codec, None).unwrap();

        assert_eq!(read, plain, "{label}");
    }
}

#[test]
fn the_document_names_the_limits_that_hold() {
    use crate::v3::limits;
    for (name, figure) in [
        ("entries of a shard", u64::from(limits::ENTRIES_MAX)),
        ("frames of a shard", u64::from(limits::FRAMES_MAX)),
        ("plain bytes of a frame", limits::SLOT_LEN),
        ("entries of an index page", u64::from(limits::PAGE_ENTRIES_MAX)),
        ("frames of a page of the frame table", u64::from(limits::PAGE_FRAMES)),
        ("bytes of uids in an index page", limits::PAGE_UIDS_LEN_MAX),
        ("bytes of metadata of an entry", to_u64(limits::METADATA_LEN_MAX)),
        ("bytes of metadata in a cold page", limits::PAGE_METADATA_LEN_MAX),
        ("bytes of a page as stored", limits::PAGE_STORED_LEN_MAX),
        ("index pages of a shard", u64::from(limits::INDEX_PAGES_MAX)),
        ("bytes of separators", limits::SEPARATORS_LEN_MAX),
        ("bytes of the directory", limits::DIRECTORY_LEN_MAX),
        ("origins of a shard; parents", u64::from(limits::ORIGINS_MAX)),
        ("origins times index pages", limits::ORIGIN_CELLS_MAX),
        ("bytes of a dictionary", to_u64(limits::DICTIONARY_LEN_MAX)),
        ("bytes of the tail", limits::TAIL_LEN_MAX),
    ] {
        let row = format!("| {name} | {figure} |");
        assert!(DOCUMENT.contains(&row), "{row}");
    }
    assert_eq!(PageNumber(7).to_string(), "7");
    assert_eq!((HEADER_LEN, FOOTER_LEN), (64, 256));
}
