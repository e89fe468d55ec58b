//! Reads a whole shard and proves that everything in it agrees, without holding more than a few frames of it.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::footer::FOOTER_LEN;
use super::frame::FrameRef;
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

/// Where the bytes of a shard come from while it is checked. Frames are asked for in the order in which they lie, but for
/// those that several files share.
pub trait ShardSource {
    /// Why bytes cannot be had.
    type Error;

    /// The bytes of a page, or of the header.
    fn page(&mut self, range: Range<u64>) -> Result<Bytes, Self::Error>;

    /// The stored bytes of a frame.
    fn frame(&mut self, range: Range<u64>) -> Result<Bytes, Self::Error>;
}

/// How deep a shard is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDepth {
    /// Its index and its frame table: what a lookup needs.
    Index,
    /// All of it: every frame is decoded and every content hashed.
    Content,
}

/// Something that a check comes across.
#[derive(Debug)]
pub enum Seen<'a> {
    /// An entry that the index holds, with the digest of its content where contents are looked at.
    Entry(&'a Entry, Option<Digest>),
    /// The content of a file is damaged. The check goes on.
    Damaged(&'a Entry, FormatError),
}

/// Why a check ended early.
#[derive(Debug)]
pub enum CheckError<E> {
    /// The shard is damaged where that keeps more from being read.
    Damaged(FormatError),
    /// Bytes could not be had.
    Source(E),
}

impl<E> From<FormatError> for CheckError<E> {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error)
    }
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

/// A shard in memory.
struct InMemory<'a>(&'a [u8]);

impl ShardSource for InMemory<'_> {
    type Error = FormatError;

    fn page(&mut self, range: Range<u64>) -> Result<Bytes, FormatError> {
        let part = self.0.get(to_usize(range.start)..to_usize(range.end));
        part.map(Bytes::copy_from_slice).ok_or_else(|| FormatError::damaged("shard", "a part lies outside"))
    }

    fn frame(&mut self, range: Range<u64>) -> Result<Bytes, FormatError> {
        self.page(range)
    }
}

/// All checks but the digest of the body, so that tests can show what these find on their own.
pub(super) fn read_everything(index: &ShardIndex, object: &[u8]) -> Result<Report, FormatError> {
    let mut first = None;
    let mut see = |seen: Seen<'_>| match seen {
        Seen::Damaged(_, error) => drop(first.get_or_insert(error)),
        Seen::Entry(..) => {}
    };
    let checked = check_shard(index, &mut InMemory(object), CheckDepth::Content, &mut see);
    match (first, checked) {
        (Some(error), _) | (None, Err(CheckError::Damaged(error) | CheckError::Source(error))) => Err(error),
        (None, Ok(report)) => Ok(report),
    }
}

/// Checks an opened shard, all but its digests as a whole, and hands out its entries and what of them is damaged.
pub fn check_shard<S: ShardSource>(
    index: &ShardIndex,
    source: &mut S,
    depth: CheckDepth,
    see: &mut dyn FnMut(Seen<'_>),
) -> Result<Report, CheckError<S::Error>> {
    let footer = index.footer();
    let header = Header::decode(&source.page(0..to_u64(HEADER_LEN)).map_err(CheckError::Source)?)?;
    if (header.archive, header.features) != (footer.archive, footer.features) {
        return Err(FormatError::damaged("shard", "header and footer disagree").into());
    }
    let mut frames = Frames::new(index, source);
    let mut found = Report { entries: 0, frames: footer.frames, plain_len: 0, content_len: 0, metadata_len: 0 };
    let mut is_damaged = false;
    let mut last_uid: Option<Uid> = None;
    let mut births = vec![None; index.lineage().serials.len().max(1)];
    for page in (0..index.index_pages()).map(PageNumber) {
        let bytes = frames.page_bytes(index.resident_index_page(page), index.index_page_range(page))?;
        let entries = index.decode_index_page(page, &bytes)?;
        let cold = match depth {
            CheckDepth::Index => None,
            CheckDepth::Content => {
                Some(index.decode_cold_page(page, &frames.page_bytes(None, index.cold_page_range(page))?)?)
            }
        };
        for (place, entry) in entries.entries().enumerate() {
            if let Some(cold) = &cold {
                match check_content(&mut frames, &entry, cold.digest(place)) {
                    Err(CheckError::Damaged(error)) => {
                        is_damaged = true;
                        see(Seen::Damaged(&entry, error));
                    }
                    other => other?,
                }
                let metadata_len = to_u64(cold.metadata(place).map_or(0, str::len));
                found.metadata_len = found.metadata_len.saturating_add(metadata_len);
            }
            if last_uid.as_ref() >= Some(&entry.uid) {
                return Err(FormatError::damaged("index page", format!("{:?} out of order", entry.uid)).into());
            }
            check_birth(index, page, &entry, &mut births)?;
            see(Seen::Entry(&entry, cold.as_ref().and_then(|cold| cold.digest(place))));
            found.entries = found.entries.saturating_add(1);
            found.content_len = found.content_len.saturating_add(entry.len);
            last_uid = Some(entry.uid);
        }
    }
    found.plain_len = match depth {
        CheckDepth::Index => frames.walk_table().map(|()| footer.plain_len)?,
        CheckDepth::Content => frames.decode_others()?,
    };
    let promised = (footer.entries, footer.plain_len, footer.content_len);
    let counted = (found.entries, found.plain_len, found.content_len);
    if promised != counted && !is_damaged {
        let detail = format!("{counted:?} counted where its footer says {promised:?}");
        return Err(FormatError::damaged("shard", detail).into());
    }
    Ok(found)
}

/// The frames of a shard, decoded when a content needs them. Contents lie in the order of their entries, but for shared
/// ones, so that most frames are decoded once.
struct Frames<'a, S> {
    index: &'a ShardIndex,
    source: &'a mut S,
    page: Option<(PageNumber, FramePage)>,
    /// Those decoded last, the newest at the end.
    held: VecDeque<(u32, Bytes)>,
    /// A bit for each frame that was looked at.
    seen: Vec<u64>,
    plain_len: u64,
}

/// Contents that many files share come back at any time; most often they are those of a moment ago.
const FRAMES_HELD: usize = 8;

impl<'a, S: ShardSource> Frames<'a, S> {
    fn new(index: &'a ShardIndex, source: &'a mut S) -> Self {
        let seen = vec![0; to_usize(u64::from(index.footer().frames)).div_ceil(64)];
        Self { index, source, page: None, held: VecDeque::with_capacity(FRAMES_HELD), seen, plain_len: 0 }
    }

    /// The bytes of a page that may be loaded already.
    fn page_bytes(
        &mut self,
        resident: Option<Bytes>,
        range: Option<Range<u64>>,
    ) -> Result<Bytes, CheckError<S::Error>> {
        match (resident, range) {
            (Some(bytes), _) => Ok(bytes),
            (None, Some(range)) => self.source.page(range).map_err(CheckError::Source),
            (None, None) => Err(FormatError::damaged("shard", "a part lies outside").into()),
        }
    }

    /// The plain bytes of the frame of an address.
    fn at(&mut self, address: u64) -> Result<Bytes, CheckError<S::Error>> {
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

    /// Where a frame lies.
    fn find(&mut self, number: u32) -> Result<FrameRef, CheckError<S::Error>> {
        let wanted = PageNumber(number / PAGE_FRAMES);
        let page = match self.page.take() {
            Some((held, page)) if held == wanted => page,
            Some(_) | None => {
                let resident = self.index.resident_frame_page(wanted);
                let bytes = self.page_bytes(resident, self.index.frame_page_range(wanted))?;
                self.index.decode_frame_page(wanted, &bytes)?
            }
        };
        let frame = page.frame(to_usize(u64::from(number % PAGE_FRAMES)));
        self.page = Some((wanted, page));
        Ok(frame.ok_or_else(|| no_frame(number))?)
    }

    fn decode(&mut self, number: u32) -> Result<Bytes, CheckError<S::Error>> {
        let frame = self.find(number)?;
        let (word, bit) = (to_usize(u64::from(number / 64)), 1_u64 << (number % 64));
        let seen = self.seen.get_mut(word).ok_or_else(|| no_frame(number))?;
        let is_new = *seen & bit == 0;
        *seen |= bit;
        let stored = self.source.frame(frame.stored.clone()).map_err(CheckError::Source)?;
        let plain = self.index.decode_frame(&frame, &stored)?;
        if is_new {
            self.plain_len = self.plain_len.saturating_add(to_u64(plain.len()));
        }
        Ok(plain)
    }

    /// Decodes what no content needed. Returns the plain length of all frames.
    fn decode_others(mut self) -> Result<u64, CheckError<S::Error>> {
        for number in 0..self.index.footer().frames {
            let word = self.seen.get(to_usize(u64::from(number / 64))).copied().unwrap_or(0);
            if word & (1 << (number % 64)) == 0 {
                self.decode(number)?;
            }
        }
        Ok(self.plain_len)
    }

    /// Finds every frame in its table. Only decoding tells how long they are.
    fn walk_table(mut self) -> Result<(), CheckError<S::Error>> {
        (0..self.index.footer().frames).try_for_each(|number| self.find(number).map(drop))
    }
}

fn no_frame(number: u32) -> FormatError {
    FormatError::damaged("shard", format!("there is no frame {number}"))
}

/// Hashes a file's content frame by frame.
fn check_content<S: ShardSource>(
    frames: &mut Frames<'_, S>,
    entry: &Entry,
    digest: Option<Digest>,
) -> Result<(), CheckError<S::Error>> {
    let mut hasher = blake3::Hasher::new();
    let (mut address, mut left) = (entry.offset, entry.len);
    while left > 0 {
        let frame = frames.at(address)?;
        let skip = to_usize(address % SLOT_LEN);
        let len = left.min(SLOT_LEN.saturating_sub(address % SLOT_LEN));
        let Some(piece) = frame.get(skip..skip.saturating_add(to_usize(len))) else {
            let detail = format!("content of {:?} lies beyond the end of its frame", entry.uid);
            return Err(FormatError::damaged("index page", detail).into());
        };
        hasher.update(piece);
        address = address.saturating_add(len);
        left = left.saturating_sub(len);
    }
    if digest != Some(hasher.finalize()) {
        let detail = format!("the digest of {:?} is wrong", entry.uid);
        return Err(FormatError::damaged("content", detail).into());
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
