//! Reads a whole shard in memory and proves that everything in it agrees.

use bytes::Bytes;

use super::footer::FOOTER_LEN;
use super::header::{HEADER_LEN, Header};
use super::limits::SLOT_LEN;
use super::reader::{PageNumber, ShardIndex};
use crate::FormatError;
use crate::ids::Digest;
use crate::uid::Uid;
use crate::v3::{Entry, to_u64, to_usize};

/// What was found in a shard that is in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Files.
    pub entries: u32,
    /// Frames.
    pub frames: u32,
    /// Plain bytes of all frames.
    pub plain_len: u64,
    /// Plain bytes of all files.
    pub content_len: u64,
    /// Bytes of metadata.
    pub metadata_len: u64,
}

/// Decodes everything in a shard and compares all that is said twice: the digest of the body and of every content,
/// sums, counts, borders and births. Memory: the shard's plain bytes once more.
pub fn check_object(object: &Bytes) -> Result<Report, FormatError> {
    let body = object.get(..object.len().saturating_sub(FOOTER_LEN)).unwrap_or(&[]);
    let index = ShardIndex::open(object.clone(), to_u64(object.len()))?;
    let report = read_everything(&index, object)?;
    if blake3::hash(body) != index.footer().body_digest {
        return Err(FormatError::damaged("shard", "the digest of its body is wrong"));
    }
    Ok(report)
}

/// All checks but the digest of the body, so that tests can show what these find on their own.
pub(super) fn read_everything(index: &ShardIndex, object: &[u8]) -> Result<Report, FormatError> {
    let footer = index.footer();
    let header = Header::decode(object.get(..HEADER_LEN).unwrap_or(object))?;
    if (header.archive, header.features) != (footer.archive, footer.features) {
        return Err(FormatError::damaged("shard", "header and footer disagree"));
    }
    let frames = decode_frames(index, object)?;
    let mut found = Report { entries: 0, frames: footer.frames, plain_len: 0, content_len: 0, metadata_len: 0 };
    found.plain_len = frames.iter().map(|frame| to_u64(frame.len())).fold(0, u64::saturating_add);
    let mut last_uid: Option<Uid> = None;
    let mut births = vec![None; index.lineage().serials.len().max(1)];
    for page in (0..index.index_pages()).map(PageNumber) {
        let entries = index.decode_index_page(page, part(object, index.index_page_range(page))?)?;
        let cold = index.decode_cold_page(page, part(object, index.cold_page_range(page))?)?;
        for (place, entry) in entries.entries().enumerate() {
            check_content(&frames, &entry, cold.digest(place))?;
            if last_uid.as_ref() >= Some(&entry.uid) {
                return Err(FormatError::damaged("index page", format!("{:?} out of order", entry.uid)));
            }
            check_birth(index, page, &entry, &mut births)?;
            found.entries = found.entries.saturating_add(1);
            found.content_len = found.content_len.saturating_add(entry.len);
            found.metadata_len = found.metadata_len.saturating_add(to_u64(cold.metadata(place).map_or(0, str::len)));
            last_uid = Some(entry.uid);
        }
    }
    let promised = (footer.entries, footer.plain_len, footer.content_len);
    let counted = (found.entries, found.plain_len, found.content_len);
    if promised != counted {
        return Err(FormatError::damaged("shard", format!("{counted:?} counted where its footer says {promised:?}")));
    }
    Ok(found)
}

fn part(object: &[u8], range: Option<std::ops::Range<u64>>) -> Result<&[u8], FormatError> {
    let part = range.and_then(|range| object.get(to_usize(range.start)..to_usize(range.end)));
    part.ok_or_else(|| FormatError::damaged("shard", "a part lies outside"))
}

fn decode_frames(index: &ShardIndex, object: &[u8]) -> Result<Vec<Bytes>, FormatError> {
    let mut frames = Vec::new();
    for page in (0..index.frame_pages()).map(PageNumber) {
        let page = index.decode_frame_page(page, part(object, index.frame_page_range(page))?)?;
        for frame in (0..page.len()).filter_map(|place| page.frame(place)) {
            frames.push(index.decode_frame(&frame, part(object, Some(frame.stored.clone()))?)?);
        }
    }
    Ok(frames)
}

/// Hashes a file's content frame by frame.
fn check_content(frames: &[Bytes], entry: &Entry, digest: Option<Digest>) -> Result<(), FormatError> {
    let mut hasher = blake3::Hasher::new();
    let (mut address, mut left) = (entry.offset, entry.len);
    while left > 0 {
        let frame = frames.get(to_usize(address / SLOT_LEN)).map_or(&[][..], |frame| frame);
        let skip = to_usize(address % SLOT_LEN);
        let len = left.min(SLOT_LEN.saturating_sub(address % SLOT_LEN));
        let Some(piece) = frame.get(skip..skip.saturating_add(to_usize(len))) else {
            let detail = format!("content of {:?} lies beyond the end of its frame", entry.uid);
            return Err(FormatError::damaged("index page", detail));
        };
        hasher.update(piece);
        address = address.saturating_add(len);
        left = left.saturating_sub(len);
    }
    if digest != Some(hasher.finalize()) {
        return Err(FormatError::damaged("content", format!("the digest of {:?} is wrong", entry.uid)));
    }
    Ok(())
}

/// Births ascend, and the directory finds them.
fn check_birth(
    index: &ShardIndex,
    page: PageNumber,
    entry: &Entry,
    births: &mut [Option<u32>],
) -> Result<(), FormatError> {
    let last = births.get_mut(usize::from(entry.origin));
    if let Some(last) = last.filter(|last| **last < Some(entry.ordinal))
        && index.page_of_birth(entry.origin, entry.ordinal) == Some(page)
    {
        *last = Some(entry.ordinal);
        return Ok(());
    }
    Err(FormatError::damaged("index page", format!("birth of {:?} out of order", entry.uid)))
}
