//! Reads a whole shard in memory and proves that everything in it agrees.

use std::collections::VecDeque;

use bytes::Bytes;

use super::footer::FOOTER_LEN;
use super::frame_page::FramePage;
use super::header::{HEADER_LEN, Header};
use super::limits::{PAGE_FRAMES, SLOT_LEN};
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
/// sums, counts, borders and births. Memory: the index, and a few frames. Time: that of reading all contents, as many
/// as the shard claims to have.
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
    let mut frames = Frames::new(index, object);
    let mut found = Report { entries: 0, frames: footer.frames, plain_len: 0, content_len: 0, metadata_len: 0 };
    let mut last_uid: Option<Uid> = None;
    let mut births = vec![None; index.lineage().serials.len().max(1)];
    for page in (0..index.index_pages()).map(PageNumber) {
        let entries = index.decode_index_page(page, part(object, index.index_page_range(page))?)?;
        let cold = index.decode_cold_page(page, part(object, index.cold_page_range(page))?)?;
        for (place, entry) in entries.entries().enumerate() {
            check_content(&mut frames, &entry, cold.digest(place))?;
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
    found.plain_len = frames.decode_others()?;
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

/// The frames of a shard, decoded when a content needs them. Contents lie in the order of their entries, but for shared
/// ones, so that most frames are decoded once.
struct Frames<'a> {
    index: &'a ShardIndex,
    object: &'a [u8],
    page: Option<(PageNumber, FramePage)>,
    /// Those decoded last, the newest at the end.
    held: VecDeque<(u32, Bytes)>,
    /// A bit for each frame that was decoded at least once.
    seen: Vec<u64>,
    plain_len: u64,
}

/// Contents that many files share come back at any time; most often they are those of a moment ago.
const FRAMES_HELD: usize = 8;

impl<'a> Frames<'a> {
    fn new(index: &'a ShardIndex, object: &'a [u8]) -> Self {
        let seen = vec![0; to_usize(u64::from(index.footer().frames)).div_ceil(64)];
        Self { index, object, page: None, held: VecDeque::with_capacity(FRAMES_HELD), seen, plain_len: 0 }
    }

    /// The plain bytes of the frame of an address.
    fn at(&mut self, address: u64) -> Result<Bytes, FormatError> {
        let number = u32::try_from(address / SLOT_LEN).unwrap_or(u32::MAX);
        if let Some((_, plain)) = self.held.iter().find(|(held, _)| *held == number) {
            return Ok(plain.clone());
        }
        let plain = self.decode(number)?;
        if self.held.len() >= FRAMES_HELD {
            self.held.pop_front();
        }
        self.held.push_back((number, plain.clone()));
        Ok(plain)
    }

    fn decode(&mut self, number: u32) -> Result<Bytes, FormatError> {
        let none = || FormatError::damaged("shard", format!("there is no frame {number}"));
        let wanted = PageNumber(number / PAGE_FRAMES);
        let page = match self.page.take() {
            Some((held, page)) if held == wanted => page,
            Some(_) | None => {
                self.index.decode_frame_page(wanted, part(self.object, self.index.frame_page_range(wanted))?)?
            }
        };
        let frame = page.frame(to_usize(u64::from(number % PAGE_FRAMES))).ok_or_else(none)?;
        self.page = Some((wanted, page));
        let plain = self.index.decode_frame(&frame, part(self.object, Some(frame.stored.clone()))?)?;
        let (word, bit) = (to_usize(u64::from(number / 64)), 1_u64 << (number % 64));
        let seen = self.seen.get_mut(word).ok_or_else(none)?;
        if *seen & bit == 0 {
            *seen |= bit;
            self.plain_len = self.plain_len.saturating_add(to_u64(plain.len()));
        }
        Ok(plain)
    }

    /// Decodes what no content needed. Returns the plain length of all frames.
    fn decode_others(mut self) -> Result<u64, FormatError> {
        for number in 0..self.index.footer().frames {
            let word = self.seen.get(to_usize(u64::from(number / 64))).copied().unwrap_or(0);
            if word & (1 << (number % 64)) == 0 {
                self.decode(number)?;
            }
        }
        Ok(self.plain_len)
    }
}

/// Hashes a file's content frame by frame.
fn check_content(frames: &mut Frames<'_>, entry: &Entry, digest: Option<Digest>) -> Result<(), FormatError> {
    let mut hasher = blake3::Hasher::new();
    let (mut address, mut left) = (entry.offset, entry.len);
    while left > 0 {
        let frame = frames.at(address)?;
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
