//! Bombs in figures: counts, lengths and borders that are not true, behind checksums that are right.

use bytes::Bytes;
use desfmt::FormatError;
use desfmt::document::{self, Manifest};
use desfmt::legacy::{LegacyIndex, LegacyVersion, Sidecar};
use desfmt::v3::{Footer, PageNumber, ShardIndex};

use super::Bomb;
use crate::forge::{self, Parts, column};
use crate::random::Random;
use crate::samples;
use crate::targets::with_head;
use crate::walk::walk;

pub(super) fn bombs() -> Vec<Bomb> {
    let bomb = |what, build, read| Bomb { what, build, read };
    vec![
        bomb("4,000,000 entries in a directory of 700 KB", most_entries, read_part_by_part),
        bomb("1,024 origins in 2,048 pages", most_origins, read_part_by_part),
        bomb("67,000,000 frames in a directory of 1 KB", most_frames, open_the_tail),
        bomb("a directory of 24 MB of noise", noise, open_the_tail),
        bomb("a page of 4,096 uids of 64 KB", || page_of_uids(4_096, 65_535), read_part_by_part),
        bomb("a page of 65,535 entries", || page_of_uids(65_535, 16), read_part_by_part),
        bomb("a cold page of 2^60 bytes of metadata", metadata, read_part_by_part),
        bomb("a file of 64 TB", huge_file, read_part_by_part),
        bomb("manifest: 64 MB of brackets", || document_of(&"[".repeat(64 << 20)), manifest),
        bomb("manifest: 16,000,000 serials", || document_of(&serials(16_000_000)), manifest),
        bomb("index: a count of 2^32", || [&[0xff; 4][..], &[0; 4_096]].concat(), legacy_index),
        bomb("index: 1,000,000 entries of one uid", same_uids, legacy_index),
        bomb("index: metadata 32 MB deep", || legacy_entry(&format!("{{\"a\":{}", "[".repeat(32 << 20))), legacy_index),
        bomb("index: metadata of NaNs", || legacy_entry(&format!("{{\"a\":[{}", "NaN,".repeat(4 << 20))), legacy_index),
        bomb("sidecar: 32 MB deep", || format!("{{\"index\":{}", "[".repeat(32 << 20)).into_bytes(), sidecar),
        bomb("sidecar: NaNs", || format!("{{\"index\":[{}", "NaN,".repeat(4 << 20)).into_bytes(), sidecar),
    ]
}

/// A bomb that lies about what is in other parts can be opened; then those are refused.
fn read_part_by_part(object: &Bytes) -> Result<(), FormatError> {
    match walk(object)? {
        0 => Ok(()),
        refused => Err(FormatError::damaged("test", format!("{refused} parts"))),
    }
}

/// For shards that claim to be longer than anything that a test can hold.
fn open_the_tail(tail: &Bytes) -> Result<(), FormatError> {
    let footer = Footer::decode(tail.last_chunk::<256>().unwrap())?;
    let index = ShardIndex::open(tail.clone(), footer.object_len)?;
    let page = PageNumber(index.frame_pages() - 1);
    index.decode_frame_page(page, &index.resident_frame_page(page).unwrap()).map(drop)
}

fn parts() -> Parts {
    Parts::of(&samples::small()[2].object).unwrap()
}

/// A directory of its own making: the columns that its parts are told by, each as somebody likes them.
#[derive(Default)]
struct Directory {
    serials: Vec<u8>,
    separators: Vec<u8>,
    counts: Vec<u8>,
    next_births: Vec<u8>,
}

impl Directory {
    /// All pages are empty, and their checksum, which is zero, is right.
    fn encode(self, frames: &Parts) -> Vec<u8> {
        let empty_pages = [0, 0, 0, 0].map(column::constant).concat();
        let lens: Vec<i64> = frames.frame_table.iter().map(|page| i64::try_from(page.len()).unwrap()).collect();
        let crcs: Vec<i64> = frames.frame_table.iter().map(|page| i64::from(crc32c::crc32c(page))).collect();
        let last_uid = [column::varint(3), b"zzz".to_vec()].concat();
        let frame_table = [column::ints(&lens), column::ints(&crcs), column::ints(&frames.frame_lens)].concat();
        let no_parents = column::varint(0);
        [self.serials, no_parents, self.separators, last_uid, self.counts, empty_pages, self.next_births, frame_table]
            .concat()
    }
}

/// Separators of 127 bytes of which 7 differ at most.
fn separators(count: i64) -> Vec<u8> {
    let (mut shared, mut rest, mut before) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let text = format!("{}{number:07}", "x".repeat(120)).into_bytes();
        let common = text.iter().zip(&before).take_while(|(left, right)| left == right).count();
        shared.push(i64::try_from(common).unwrap());
        rest.extend(&text[common..]);
        before = text;
    }
    [column::ints(&shared), column::constant(127), column::raw(&rest)].concat()
}

fn with_empty_pages(count: usize, entries: i64) -> Parts {
    let mut parts = parts();
    parts.counts = vec![entries; count];
    parts.index = vec![Vec::new(); count];
    parts.cold = vec![Vec::new(); count];
    parts
}

/// The most pages with 64 entries each.
fn most_entries() -> Vec<u8> {
    let parts = with_empty_pages(65_536, 64);
    let directory = Directory {
        serials: column::varint(0),
        separators: separators(65_536),
        counts: column::constant(64),
        next_births: Vec::new(),
    };
    parts.assemble_with(&directory.encode(&parts)).to_vec()
}

/// The most origins and pages that go together.
fn most_origins() -> Vec<u8> {
    let mut parts = with_empty_pages(2_048, 1);
    parts.serials = (1..=1_024).collect();
    let directory = Directory {
        serials: [column::varint(1_024), column::ints(&parts.serials)].concat(),
        separators: separators(2_048),
        counts: column::constant(1),
        next_births: column::constant(1 << 22).repeat(1_024),
    };
    parts.assemble_with(&directory.encode(&parts)).to_vec()
}

/// The most frames. Their pages are not there; the object claims to be 64 TB long.
fn most_frames() -> Vec<u8> {
    let pages: i64 = 65_536;
    let page = column::constant(9);
    let stored = 1_024 * 9;
    let directory = [
        column::varint(0),
        column::varint(0),
        column::constant(i64::try_from(page.len()).unwrap()),
        column::constant(i64::from(crc32c::crc32c(&page)) + 1),
        column::constant(stored),
    ]
    .concat();
    let frames_end = 64 + u64::try_from(pages * stored).unwrap();
    let table = page.repeat(65_536);
    let dictionary = frames_end + u64::try_from(table.len()).unwrap();
    let footer_start = dictionary + u64::try_from(directory.len()).unwrap();
    let tail_len = footer_start + 256 - frames_end;
    let empty = samples::small().pop().unwrap().object;
    let sound = Footer::decode(&empty[empty.len() - 256..]).unwrap();
    let footer = forge::footer_with(
        &sound,
        &[
            (104, &(1_u32 << 26).to_le_bytes()),
            (116, &0_u32.to_le_bytes()),
            (120, &crc32c::crc32c(&directory).to_le_bytes()),
            (140, &(footer_start + 256).to_le_bytes()),
            (148, &frames_end.to_le_bytes()),
            (156, &frames_end.to_le_bytes()),
            (164, &frames_end.to_le_bytes()),
            (172, &dictionary.to_le_bytes()),
            (180, &dictionary.to_le_bytes()),
            (188, &tail_len.to_le_bytes()),
        ],
    );
    [&table[..], &directory, &footer].concat()
}

fn noise() -> Vec<u8> {
    let mut random = Random(1);
    let noise: Vec<u8> = (0..3 << 20).flat_map(|_| random.next().to_le_bytes()).collect();
    let directory = [&column::varint(0)[..], &column::varint(0), &noise[..(24 << 20) - 64]].concat();
    parts().assemble_with(&directory).to_vec()
}

/// A page that says to hold so many uids of one letter.
fn page_of_uids(count: u16, len: i64) -> Vec<u8> {
    let mut parts = parts();
    let uids = [column::constant(0), column::constant(len), column::repeated(b'x')].concat();
    parts.index = vec![[column::varint(0), uids].concat()];
    parts.counts = vec![i64::from(count)];
    parts.assemble().to_vec()
}

fn metadata() -> Vec<u8> {
    let mut parts = parts();
    let digests = &parts.cold[0][..6 * 32];
    parts.cold = vec![[digests, &column::constant(1 << 60), &column::repeated(b' ')].concat()];
    parts.assemble().to_vec()
}

/// One file in as many frames as there may be, of which none is there.
fn huge_file() -> Vec<u8> {
    let mut parts = parts();
    let zero = column::constant(0);
    let uids = column::texts(&[parts.last_uid.clone().unwrap()]);
    let times = zero.repeat(3);
    parts.separators.clone_from(&vec![parts.last_uid.clone().unwrap()]);
    parts.counts = vec![1];
    parts.index = vec![[column::varint(0), uids, times, column::constant(1 << 46), zero].concat()];
    parts.assemble().to_vec()
}

fn document_of(body: &str) -> Vec<u8> {
    with_head::<Manifest>(body.as_bytes())
}

fn serials(count: usize) -> String {
    format!("{{\"date\":\"20240115\",\"shards\":[{{\"serials\":[{}1]}}]}}", "1,".repeat(count))
}

fn manifest(bytes: &Bytes) -> Result<(), FormatError> {
    document::decode::<Manifest>(bytes).map(drop)
}

fn legacy_index(bytes: &Bytes) -> Result<(), FormatError> {
    let index = LegacyIndex::parse(LegacyVersion::V2, bytes.clone(), 1 << 40)?;
    // An index of one uid in a million entries is sound: the last one counts.
    if index.shadowed() > 0 { Err(FormatError::damaged("test", "shadowed entries")) } else { Ok(()) }
}

/// An entry of version 2 without content.
fn legacy_entry(metadata: &str) -> Vec<u8> {
    let meta_len = u32::try_from(metadata.len()).unwrap().to_le_bytes();
    [&1_u32.to_le_bytes()[..], &one_entry(), &meta_len, metadata.as_bytes()].concat()
}

fn one_entry() -> Vec<u8> {
    let mut entry = vec![1, 0, b'x', 0];
    entry.extend(8_u64.to_le_bytes());
    entry.extend([0; 25]);
    entry
}

fn same_uids() -> Vec<u8> {
    let entry = [&one_entry()[..], &[0; 4]].concat();
    [&1_000_000_u32.to_le_bytes()[..], &entry.repeat(1_000_000)].concat()
}

fn sidecar(bytes: &Bytes) -> Result<(), FormatError> {
    Sidecar::parse(bytes).map(drop)
}
