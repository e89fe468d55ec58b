//! What is done with bytes that somebody else chose, one function for each decoder. The fuzzer calls them with inputs of
//! its own making, the tests with the inputs that once made one of them fail.
//!
//! Where checksums would keep chosen bytes from the code behind them, they are made right first.

use std::sync::LazyLock;

use bytes::Bytes;
use desfmt::document::{self, Document, FoldedTombstones, Identity, Manifest, Tombstone, TombstoneBatch};
use desfmt::legacy::{
    BIG_FILES_PREFIX, BigFileHash, LegacyCodec, LegacyFooter, LegacyHeader, LegacyIndex, LegacyName, LegacyVersion,
    Location, Sidecar, decode_payload,
};
use desfmt::v3::{FOOTER_LEN, Footer, HEADER_LEN, Header, check_object};
use desfmt::{BucketBits, Date, ObjectKey, ShardName, Uid, bucket_of, instant, layout};

use crate::forge::{self, Parts};
use crate::samples;
use crate::walk::walk;

/// Takes bytes, must not panic, and checks what holds whatever they are.
pub(crate) type Target = fn(&[u8]);

/// All targets by name.
pub(crate) const ALL: [(&str, Target); 15] = [
    ("v3_footer", v3_footer),
    ("v3_object", v3_object),
    ("v3_directory", v3_directory),
    ("v3_index_page", v3_index_page),
    ("v3_cold_page", v3_cold_page),
    ("v3_frame_page", v3_frame_page),
    ("v3_frame", v3_frame),
    ("v3_dictionary", v3_dictionary),
    ("legacy_shard", legacy_shard),
    ("legacy_payload", legacy_payload),
    ("legacy_sidecar", legacy_sidecar),
    ("legacy_names", legacy_names),
    ("documents", documents),
    ("names", names),
    ("instants", instants),
];

/// Small shards in parts: those whose parts are replaced.
static PARTS: LazyLock<Vec<Parts>> =
    LazyLock::new(|| samples::small().iter().map(|sample| Parts::of(&sample.object).unwrap()).collect());

/// The sample that the first byte chooses, and the other bytes. Never the last sample, which has no pages.
fn choose(data: &[u8]) -> Option<(Parts, &[u8])> {
    let (first, rest) = data.split_first()?;
    let choices = PARTS.len() - 1;
    Some((PARTS[usize::from(*first) % choices].clone(), rest))
}

/// A number below 2^16 and the other bytes.
fn number(data: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = data.split_first_chunk()?;
    Some((u16::from_le_bytes(*number), rest))
}

/// Footers and headers, with their checksums as they are and right.
pub(crate) fn v3_footer(data: &[u8]) {
    drop(Footer::decode(data));
    drop(Header::decode(data));
    let Some(mut footer) = data.get(..FOOTER_LEN).and_then(|bytes| <[u8; FOOTER_LEN]>::try_from(bytes).ok()) else {
        return;
    };
    let mut header = footer[..HEADER_LEN].to_vec();
    let crc = crc32c::crc32c(&header[..HEADER_LEN - 4]);
    header[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    if let Ok(decoded) = Header::decode(&header) {
        assert!(decoded.encode() == header || decoded.features.compatible != 0);
    }
    forge::seal_footer(&mut footer);
    if let Ok(decoded) = Footer::decode(&footer) {
        assert!(decoded.encode() == footer || decoded.features.compatible != 0);
        assert!(decoded.tail_range().end == decoded.object_len);
        assert!(decoded.frames_range().end <= decoded.object_len);
    }
}

/// Whole shards: first as they are, then with the checksums right that the footer holds.
pub(crate) fn v3_object(data: &[u8]) {
    let mut object = data.to_vec();
    drop(walk(&Bytes::copy_from_slice(&object)));
    forge::seal(&mut object);
    let object = Bytes::from(object);
    drop(walk(&object));
    drop(check_object(&object));
}

/// A directory, between sound parts, all checksums right.
pub(crate) fn v3_directory(data: &[u8]) {
    if let Some((parts, directory)) = choose(data) {
        drop(walk(&parts.assemble_with(directory)));
    }
}

/// An index page that says how many entries it has, all checksums right.
pub(crate) fn v3_index_page(data: &[u8]) {
    let Some((mut parts, rest)) = choose(data) else { return };
    let Some((count, page)) = number(rest) else { return };
    parts.counts = vec![i64::from(count)];
    parts.index = vec![page.to_vec()];
    drop(walk(&parts.assemble()));
}

/// A cold page beside a sound index page, all checksums right.
pub(crate) fn v3_cold_page(data: &[u8]) {
    if let Some((mut parts, page)) = choose(data) {
        parts.cold = vec![page.to_vec()];
        drop(walk(&parts.assemble()));
    }
}

/// A page of the frame table for up to 129 frames, all checksums right.
pub(crate) fn v3_frame_page(data: &[u8]) {
    let Some((mut parts, rest)) = choose(data) else { return };
    let Some((count, page)) = number(rest) else { return };
    let frame = parts.frames[0].clone();
    parts.frames = vec![frame; usize::from(count % 130)];
    parts.describe_frames();
    if let Some(first) = parts.frame_table.first_mut() {
        *first = page.to_vec();
    }
    drop(walk(&parts.assemble()));
}

/// A frame, all checksums right. The first byte chooses codec and dictionary, the next four are its plain length.
pub(crate) fn v3_frame(data: &[u8]) {
    let Some((mut parts, rest)) = choose(data) else { return };
    let Some((field, payload)) = rest.split_first_chunk() else { return };
    parts.frames = vec![forge::frame(0, payload, u32::from_le_bytes(*field))];
    parts.describe_frames();
    drop(walk(&parts.assemble()));
}

/// A dictionary: first as a section, then as the bytes of a well-formed one.
pub(crate) fn v3_dictionary(data: &[u8]) {
    let Some((mut parts, section)) = choose(data) else { return };
    parts.dictionary = section.to_vec();
    drop(walk(&parts.assemble()));
    let len = forge::column::varint(u64::try_from(section.len()).unwrap());
    parts.dictionary = [len, forge::column::raw(section)].concat();
    drop(walk(&parts.assemble()));
}

/// The ancestor's header, footer and index. What can be reached by its place can be reached by its name.
pub(crate) fn legacy_shard(data: &[u8]) {
    if let Some(header) = data.first_chunk() {
        drop(LegacyHeader::decode(header));
    }
    if let Some(footer) = data.last_chunk()
        && let Ok(footer) = LegacyFooter::decode(footer)
        && let Ok(range) = footer.index_range(u64::try_from(data.len()).unwrap())
    {
        assert!(range.start >= 8 && range.end <= u64::try_from(data.len()).unwrap());
        let index = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let version = if data[4] == 1 { LegacyVersion::V1 } else { LegacyVersion::V2 };
        legacy_index(version, &data[index], range.start);
    }
    legacy_index(LegacyVersion::V1, data, 1 << 20);
    legacy_index(LegacyVersion::V2, data, 1 << 20);
}

fn legacy_index(version: LegacyVersion, bytes: &[u8], index_offset: u64) {
    let Ok(index) = LegacyIndex::parse(version, Bytes::copy_from_slice(bytes), index_offset) else { return };
    assert_eq!(index.iter().count(), index.len());
    let mut before = None;
    for entry in index.iter() {
        assert!(before < Some(entry.uid), "uids ascend");
        before = Some(entry.uid);
        assert_eq!(index.find(entry.uid), Some(entry));
        assert_eq!(index.by_ordinal(entry.ordinal), Some(entry));
        let _ = entry.created_at();
        match entry.location {
            Location::Inline { offset, stored_len, .. } => assert!(offset + stored_len <= index_offset),
            Location::BigFile { hash, .. } => assert_is_beside(hash),
        }
    }
}

/// A big file lies in its folder beside the shard, whatever the shard says.
fn assert_is_beside(hash: BigFileHash) {
    let key = hash.key(&ObjectKey::new("a/b.des").unwrap(), BIG_FILES_PREFIX).unwrap();
    let digits = key.as_str().strip_prefix("a/_bigFiles/").unwrap();
    assert!(digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
}

/// A payload of the ancestor. The first byte chooses the codec, the next two how long it claims to be.
pub(crate) fn legacy_payload(data: &[u8]) {
    let Some((codec, rest)) = data.split_first() else { return };
    let Some((plain_len, stored)) = number(rest) else { return };
    let codec = LegacyCodec::from_number(codec % 3).unwrap();
    if let Ok(plain) = decode_payload(codec, stored, u64::from(plain_len)) {
        assert_eq!(plain.len(), usize::from(plain_len));
    }
}

/// The ancestor's record of deletions.
pub(crate) fn legacy_sidecar(data: &[u8]) {
    if let Ok(sidecar) = Sidecar::parse(data) {
        assert!(sidecar.tombstones.len() * 50 <= data.len(), "each was there");
    }
}

/// The ancestor's names: only the spelling that is written is read.
pub(crate) fn legacy_names(data: &[u8]) {
    if let Ok(hash) = BigFileHash::parse(data) {
        assert_eq!(hash.to_string().as_bytes(), data);
        assert_is_beside(hash);
    }
    let Some((bits, text)) = bits_and_text(data) else { return };
    if let Ok(name) = LegacyName::parse(text, bits) {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(name) = LegacyName::parse_sidecar(text, bits) {
        assert_eq!(name.sidecar(), text);
    }
}

/// The documents of an archive. The first byte chooses the kind; the others are tried as a whole and as a body whose
/// digest is right.
pub(crate) fn documents(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => one_document::<Identity>(bytes),
        1 => one_document::<Manifest>(bytes),
        2 => one_document::<Tombstone>(bytes),
        3 => one_document::<TombstoneBatch>(bytes),
        _ => one_document::<FoldedTombstones>(bytes),
    }
}

fn one_document<D: Document + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    drop(document::decode::<D>(bytes));
    if let Ok(decoded) = document::decode::<D>(&with_head::<D>(bytes)) {
        let encoded = document::encode(&decoded).unwrap();
        assert_eq!(document::decode::<D>(&encoded), Ok(decoded));
    }
}

/// A document with this body and a head that proves it.
pub(crate) fn with_head<D: Document>(body: &[u8]) -> Vec<u8> {
    let (kind, version, digest) = (D::KIND, D::VERSION, blake3::hash(body).to_hex());
    let head = format!("{{\"des\":\"{kind}\",\"version\":{version},\"blake3\":\"{digest}\"}}\n");
    [head.as_bytes(), body, b"\n"].concat()
}

/// Names of objects and shards, uids and their routes. A key never leaves the root.
pub(crate) fn names(data: &[u8]) {
    let Some((bits, text)) = bits_and_text(data) else { return };
    if let Ok(key) = ObjectKey::new(text) {
        assert_is_below_root(&key);
    }
    if let Some(name) = ShardName::parse(text, bits) {
        assert_eq!(name.to_string(), text);
        assert_is_below_root(&layout::shard(&name));
    }
    if let Some(name) = layout::parse_shard(text, bits) {
        assert_eq!(layout::shard(&name).as_str(), text);
    }
    if let Some(date) = layout::parse_manifest(text) {
        assert_eq!(layout::manifest(date).as_str(), text);
    }
    if let Some(key) = layout::parse_tombstone(text, bits) {
        let built = match key {
            layout::TombstoneKey::Folded(group) => layout::folded_tombstones(&group),
            layout::TombstoneKey::Record(group, operation, uid) => layout::tombstone_record(&group, operation, uid),
            layout::TombstoneKey::Batch(group, operation) => layout::tombstone_batch(&group, operation),
        };
        assert_is_below_root(&built);
    }
    if let Ok(date) = text.parse::<Date>() {
        assert_eq!(date.to_string(), text);
    }
    if let Ok(uid) = Uid::new(text)
        && let Ok(bucket) = bucket_of(uid.as_str(), bits)
    {
        assert!(u32::from(bucket.number()) < 1 << bits.get());
    }
}

/// Nothing that is opened below a directory by this key can be outside of it.
pub(crate) fn assert_is_below_root(key: &ObjectKey) {
    let path = std::path::Path::new(key.as_str());
    assert!(!key.as_str().is_empty() && !key.as_str().contains('\0'));
    assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{key}");
}

/// Times as people write them.
pub(crate) fn instants(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(parsed) = instant::parse_created_at(text) {
        let day = parsed.wall_date().unwrap();
        assert_eq!(day.to_string().parse::<Date>(), Ok(day));
        assert!(parsed.zoned().is_none_or(|time| time == parsed.or_utc()));
    }
}

fn bits_and_text(data: &[u8]) -> Option<(BucketBits, &str)> {
    let (bits, text) = data.split_first()?;
    Some((BucketBits::new(bits % 17)?, std::str::from_utf8(text).ok()?))
}
