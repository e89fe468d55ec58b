//! The shards that the Python ancestor wrote, read byte for byte, and written again.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a test: whatever is wrong must stop it"
)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use desfmt::legacy::{
    BIG_FILES_PREFIX, BigFileHash, LegacyCodec, LegacyEntry, LegacyFooter, LegacyHeader, LegacyIndex, LegacyName,
    LegacyWriter, Location, StoredPayload, decode_payload, is_never_compressed,
};
use desfmt::{BucketBits, FormatError, Group, ObjectKey, Uid};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
struct Manifest {
    shards: Vec<Shard>,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct Shard {
    #[serde(rename = "file")]
    name: String,
    version: u8,
    size: usize,
    sha256: String,
    entries: u32,
    index_offset: Option<u64>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default, deserialize_with = "text_or_null")]
    uid: String,
    /// Instead of a uid: a text and how often it stands there.
    uid_repeat: Option<(String, usize)>,
    created_at: String,
    sha256: String,
    size: u64,
    /// None where the uid cannot be routed.
    shard_key: Option<String>,
    #[serde(rename = "shard_file")]
    shard: Option<String>,
    is_bigfile: bool,
    codec: Option<String>,
    offset: Option<u64>,
    length: Option<u64>,
    bigfile_hash: Option<String>,
    bigfile_size: Option<u64>,
    meta_raw: String,
}

const CASES: [&str; 4] = ["pack-nbits08", "v1-writer-zstd", "v2-bigfiles", "v2-zstd-default"];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden").join(case)
}

fn manifest(case: &str) -> Manifest {
    let mut manifest: Manifest =
        serde_json::from_slice(&fs::read(folder(case).join("manifest.json")).unwrap()).unwrap();
    for file in &mut manifest.files {
        if let Some((text, count)) = &file.uid_repeat {
            file.uid = text.repeat(*count);
        }
    }
    manifest
}

fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// All that a reader does before it can look a uid up.
fn open(bytes: &[u8]) -> Result<(LegacyIndex, u64), FormatError> {
    let short = || FormatError::damaged("shard", "it is too short");
    let header = LegacyHeader::decode(bytes.first_chunk().ok_or_else(short)?)?;
    let footer = LegacyFooter::decode(bytes.last_chunk().ok_or_else(short)?)?;
    let range = footer.index_range(bytes.len() as u64)?;
    let index = Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize]);
    Ok((LegacyIndex::parse(header.version, index, range.start)?, range.start))
}

fn sha256(bytes: &[u8]) -> String {
    BigFileHash::of(bytes).to_string()
}

/// The content of an entry, read with every check that there is.
fn content(case: &str, shard: &[u8], entry: &LegacyEntry<'_>) -> Result<Vec<u8>, FormatError> {
    match entry.location {
        Location::Inline { offset, stored_len, codec, plain_len } => {
            decode_payload(codec, &shard[offset as usize..(offset + stored_len) as usize], plain_len)
        }
        Location::BigFile { hash, len } => {
            let key = hash.key(&ObjectKey::new("shard.des").unwrap(), BIG_FILES_PREFIX).unwrap();
            let bytes = fs::read(folder(case).join(key.as_str())).unwrap();
            assert_eq!(bytes.len() as u64, len);
            hash.verify(&bytes)?;
            Ok(bytes)
        }
    }
}

#[test]
fn golden_shards_read_byte_for_byte() {
    for case in CASES {
        let manifest = manifest(case);
        let mut read = 0;
        for shard in &manifest.shards {
            let bytes = fs::read(folder(case).join(&shard.name)).unwrap();
            let (index, index_offset) = open(&bytes).unwrap();
            assert_eq!((bytes.len(), sha256(&bytes)), (shard.size, shard.sha256.clone()), "{case}/{}", shard.name);
            assert_eq!(bytes[4], shard.version);
            assert_eq!(shard.index_offset.unwrap_or(index_offset), index_offset);
            assert_eq!((index.ordinals(), index.shadowed()), (shard.entries, 0));
            let files = manifest.files.iter().filter(|file| file.shard.as_ref().is_none_or(|f| *f == shard.name));
            for (ordinal, file) in files.enumerate() {
                if file.uid.is_empty() {
                    assert_eq!((index.skipped(), index.by_ordinal(ordinal as u32)), (1, None));
                    continue;
                }
                let entry = index.find(&file.uid).unwrap();
                assert_eq!(entry.ordinal, ordinal as u32, "{case}: {}", file.uid);
                assert_eq!(index.by_ordinal(entry.ordinal), Some(entry));
                assert_entry_is(&entry, file);
                let plain = content(case, &bytes, &entry).unwrap();
                assert_eq!((plain.len() as u64, sha256(&plain)), (file.size, file.sha256.clone()), "{}", file.uid);
                read += 1;
            }
            let uids: Vec<_> = index.iter().map(|entry| entry.uid).collect();
            assert!(uids.is_sorted() && uids.len() == index.len());
            assert_eq!(index.find("no such uid"), None);
        }
        assert!(read >= manifest.files.len() - 1, "{case}: {read} files read");
    }
}

fn assert_entry_is(entry: &LegacyEntry<'_>, file: &File) {
    match entry.location {
        Location::Inline { offset, stored_len, codec, plain_len } => {
            assert!(!file.is_bigfile);
            assert_eq!((Some(offset), Some(stored_len)), (file.offset, file.length), "{}", file.uid);
            assert_eq!((Some(codec.name()), plain_len), (file.codec.as_deref(), file.size), "{}", file.uid);
        }
        Location::BigFile { hash, len } => {
            assert!(file.is_bigfile);
            assert_eq!((Some(hash.to_string()), Some(len)), (file.bigfile_hash.clone(), file.bigfile_size));
        }
    }
    assert_eq!(entry.metadata.unwrap_or(""), file.meta_raw);
    assert_eq!(entry.location.plain_len(), file.size);
}

#[test]
fn routing_and_names_find_the_shards_that_the_ancestor_packed() {
    let bits = BucketBits::new(8).unwrap();
    for file in manifest("pack-nbits08").files {
        let date = desfmt::instant::parse_created_at(&file.created_at).unwrap().wall_date().unwrap();
        let group = Group::of(date, &file.uid, bits).unwrap();
        let name = LegacyName::parse(file.shard.as_deref().unwrap(), bits).unwrap();
        assert_eq!(name, LegacyName { group, split: 0 }, "{}", file.uid);
        assert_eq!(format!("{date}/{}.des", group.bucket.hex(bits)), file.shard_key.unwrap());
    }
}

#[test]
fn shards_written_again_are_the_ancestors_byte_for_byte() {
    let mut written = 0;
    for case in ["pack-nbits08", "v2-zstd-default", "v2-bigfiles"] {
        for shard in manifest(case).shards {
            let bytes = fs::read(folder(case).join(&shard.name)).unwrap();
            let (index, _) = open(&bytes).unwrap();
            if index.skipped() > 0 {
                continue; // an empty uid, which we do not write
            }
            assert_eq!(rewrite(&bytes, &index), bytes, "{case}/{}", shard.name);
            written += 1;
        }
    }
    assert_eq!(written, 73);
}

/// The same payloads in the same order through our writer.
fn rewrite(bytes: &[u8], index: &LegacyIndex) -> Vec<u8> {
    let mut writer = LegacyWriter::new();
    let mut shard = LegacyWriter::HEADER.to_vec();
    for ordinal in 0..index.ordinals() {
        let entry = index.by_ordinal(ordinal).unwrap();
        let uid = Uid::new(entry.uid).unwrap();
        match entry.location {
            Location::Inline { offset, stored_len, codec, plain_len } => {
                let payload = StoredPayload { codec, stored_len, plain_len };
                assert_eq!(writer.push_inline(&uid, payload, entry.metadata), Ok(shard.len() as u64));
                shard.extend_from_slice(&bytes[offset as usize..(offset + stored_len) as usize]);
            }
            Location::BigFile { hash, len } => writer.push_big_file(&uid, &hash, len, entry.metadata).unwrap(),
        }
    }
    assert_eq!(writer.position(), shard.len() as u64);
    let file_len = writer.file_len();
    shard.extend_from_slice(&writer.finish());
    assert_eq!(shard.len() as u64, file_len);
    shard
}

#[test]
fn the_ancestor_compressed_what_we_would() {
    for case in ["v1-writer-zstd", "v2-zstd-default"] {
        for file in manifest(case).files {
            let stored = file.codec.as_deref() == Some(LegacyCodec::Stored.name());
            assert_eq!(is_never_compressed(&file.uid), stored, "{case}: {}", file.uid);
        }
    }
}

#[test]
fn golden_shards_cut_anywhere_are_refused() {
    for (case, shard) in [("pack-nbits08", "20240301_00_0000.des"), ("v2-bigfiles", "shard.des")] {
        let bytes = fs::read(folder(case).join(shard)).unwrap();
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len]).is_err(), "{case} cut at {len}");
        }
    }
}

#[test]
fn golden_shards_with_a_flipped_bit_give_the_content_or_an_error() {
    let shards: HashMap<_, _> = CASES.iter().map(|case| (*case, manifest(case).shards)).collect();
    for case in CASES {
        for shard in shards[case].iter().take(8) {
            let bytes = fs::read(folder(case).join(&shard.name)).unwrap();
            // Every byte of the small ones; of the large ones a share, ends and all.
            let step = if bytes.len() < 10_000 { 1 } else { 997 };
            for at in (0..bytes.len()).rev().step_by(step) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                let Ok((index, _)) = open(&flipped) else { continue };
                for entry in index.iter() {
                    if let Location::Inline { .. } = entry.location {
                        content(case, &flipped, &entry).ok();
                    }
                }
            }
        }
    }
}
