use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::legacy::{LegacyIndex, Location};

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn stored(len: u64) -> StoredPayload {
    StoredPayload { codec: LegacyCodec::Stored, stored_len: len, plain_len: len }
}

/// Reads what a writer gathered, as if its payloads were before it.
fn read_back(writer: LegacyWriter) -> LegacyIndex {
    let (position, file_len) = (writer.position(), writer.file_len());
    let trailer = writer.finish();
    assert_eq!(position.checked_add(u64::try_from(trailer.len()).unwrap()), Some(file_len));
    let range = LegacyFooter::decode(trailer.last_chunk().unwrap()).unwrap().index_range(file_len).unwrap();
    assert_eq!(range.start, position);
    let (index, _footer) = trailer.split_last_chunk::<{ LegacyFooter::LEN }>().unwrap();
    LegacyIndex::parse(LegacyVersion::V2, Bytes::copy_from_slice(index), position).unwrap()
}

#[test]
fn a_shard_of_nothing_has_24_bytes() {
    let writer = LegacyWriter::new();
    assert!(writer.is_empty());
    let mut shard = LegacyWriter::HEADER.to_vec();
    shard.extend(writer.finish());
    assert_eq!(shard, b"DES2\x02\0\0\0\0\0\0\0DESI\x04\0\0\0\0\0\0\0");
}

#[test]
fn metadata_is_kept_compact_and_an_empty_object_is_none() {
    let mut writer = LegacyWriter::new();
    writer.push_inline(&uid("a"), stored(3), Some("{ \"k\" : \"\u{e9}\" }")).unwrap();
    writer.push_big_file(&uid("b"), &BigFileHash::of(b"b"), 1, Some("{ }")).unwrap();
    let index = read_back(writer);
    assert_eq!(index.find("a").unwrap().metadata, Some(r#"{"k":"\u00e9"}"#));
    assert_eq!(index.find("b").unwrap().metadata, None);
}

#[test]
fn what_could_not_be_read_back_is_refused_and_changes_nothing() {
    let mut writer = LegacyWriter::new();
    writer.push_inline(&uid("a"), stored(3), None).unwrap();
    let before = writer.file_len();
    assert!(writer.push_inline(&uid("a"), stored(3), None).is_err());
    assert!(writer.push_big_file(&uid("a"), &BigFileHash::of(b"a"), 1, None).is_err());
    assert!(writer.push_inline(&uid("b"), stored(3), Some("[]")).is_err());
    assert!(writer.push_inline(&uid("b"), stored(u64::MAX), None).is_err());
    assert!(writer.push_inline(&uid("b"), StoredPayload { plain_len: 4, ..stored(3) }, None).is_err());
    assert_eq!((writer.file_len(), writer.len()), (before, 1));
    writer.push_inline(&uid("b"), stored(3), None).unwrap();
    assert_eq!(read_back(writer).len(), 2);
}

/// Names, each with a stored length, a plain length, and a codec's number or 3 for a big file.
fn files() -> impl Strategy<Value = BTreeMap<String, (u64, u64, u8)>> {
    prop::collection::btree_map("\\PC{1,40}", (0_u64..1 << 40, 0_u64..1 << 40, 0..4_u8), 0..40)
}

proptest! {
    #[test]
    fn what_is_written_reads_back(files in files()) {
        let mut writer = LegacyWriter::new();
        let mut expected = Vec::new();
        for (ordinal, (name, (stored_len, plain_len, kind))) in files.iter().enumerate() {
            let (stored_len, plain_len) = (*stored_len, *plain_len);
            let metadata = (kind % 2 == 0).then_some(r#"{"n":1}"#);
            let location = if let Some(codec) = LegacyCodec::from_number(*kind) {
                    let plain_len = if codec == LegacyCodec::Stored { stored_len } else { plain_len };
                    let payload = StoredPayload { codec, stored_len, plain_len };
                    let offset = writer.push_inline(&uid(name), payload, metadata).unwrap();
                    Location::Inline { offset, stored_len, codec, plain_len }
                } else {
                    let hash = BigFileHash::of(name.as_bytes());
                    writer.push_big_file(&uid(name), &hash, plain_len, metadata).unwrap();
                    Location::BigFile { hash, len: plain_len }
                };
            expected.push((name.as_str(), u32::try_from(ordinal).unwrap(), location, metadata));
        }
        let index = read_back(writer);
        let found: Vec<_> = index.iter().map(|entry| (entry.uid, entry.ordinal, entry.location, entry.metadata)).collect();
        prop_assert_eq!(found, expected);
    }
}
