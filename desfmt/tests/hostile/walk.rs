//! Reads a shard as a mount does, believing nothing, and checks that its readers agree with one another.

use std::ops::Range;

use bytes::Bytes;
use desfmt::FormatError;
use desfmt::v3::{Entry, FOOTER_LEN, Footer, FramePage, IndexPage, PageNumber, ShardIndex};

/// Most of what is read of one file: a shard can claim far more than it has.
const READ_MAX: u64 = 3 << 20;

/// An opened shard and its bytes.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) index: ShardIndex,
    object: &'a Bytes,
}

impl<'a> Opened<'a> {
    /// Opens a shard by its tail alone.
    pub(crate) fn new(object: &'a Bytes) -> Result<Self, FormatError> {
        let footer = Footer::decode(object.get(object.len().saturating_sub(FOOTER_LEN)..).unwrap_or(&[]))?;
        let tail_len = usize::try_from(footer.tail_len).unwrap();
        let tail = object.slice(object.len().saturating_sub(tail_len)..);
        Ok(Self { index: ShardIndex::open(tail, u64::try_from(object.len()).unwrap())?, object })
    }

    fn part(&self, range: Option<Range<u64>>) -> Result<&'a [u8], FormatError> {
        let lost = || FormatError::damaged("test", "a part lies outside the object");
        let range = range.ok_or_else(lost)?;
        let end = usize::try_from(range.end).unwrap();
        self.object.get(usize::try_from(range.start).unwrap()..end).ok_or_else(lost)
    }

    pub(crate) fn index_page(&self, page: PageNumber) -> Result<IndexPage, FormatError> {
        self.index.decode_index_page(page, self.part(self.index.index_page_range(page))?)
    }

    pub(crate) fn frame_page(&self, page: PageNumber) -> Result<FramePage, FormatError> {
        self.index.decode_frame_page(page, self.part(self.index.frame_page_range(page))?)
    }

    /// What a lookup finds.
    pub(crate) fn find(&self, uid: &str) -> Result<Option<Entry>, FormatError> {
        match self.index.page_of_uid(uid) {
            Some(page) => Ok(self.index_page(page)?.find(uid)),
            None => Ok(None),
        }
    }

    /// What an inode number leads to.
    pub(crate) fn find_birth(&self, origin: u16, ordinal: u32) -> Result<Option<Entry>, FormatError> {
        match self.index.page_of_birth(origin, ordinal) {
            Some(page) => Ok(self.index_page(page)?.find_birth(origin, ordinal)),
            None => Ok(None),
        }
    }

    /// The metadata of an entry.
    pub(crate) fn metadata(&self, entry: &Entry) -> Result<Option<String>, FormatError> {
        let page = self.index.page_of_position(entry.position).unwrap();
        let place = entry.position - self.index_page(page)?.first_position();
        let cold = self.index.decode_cold_page(page, self.part(self.index.cold_page_range(page))?)?;
        Ok(cold.metadata(usize::try_from(place).unwrap()).map(ToOwned::to_owned))
    }

    /// The content of an entry, or as much of it as a test can afford.
    pub(crate) fn content(&self, entry: &Entry) -> Result<Vec<u8>, FormatError> {
        let lost = || FormatError::damaged("test", "no frame holds this");
        let end = entry.offset.checked_add(entry.len.min(READ_MAX)).unwrap();
        let (mut address, mut content) = (entry.offset, Vec::new());
        while address < end {
            let page = self.frame_page(self.index.frame_page_of(address).ok_or_else(lost)?)?;
            let frame = page.find(address).ok_or_else(lost)?;
            let plain = self.index.decode_frame(&frame, self.part(Some(frame.stored.clone()))?)?;
            let from = usize::try_from(address - frame.plain.start).unwrap();
            let until = end.min(frame.plain.end);
            let until_in_frame = usize::try_from(until - frame.plain.start).unwrap();
            content.extend_from_slice(plain.get(from..until_in_frame).ok_or_else(lost)?);
            address = until;
        }
        Ok(content)
    }
}

/// Reads all pages and frames, each on its own, so that one refused part does not hide the next. What an index page
/// shows must be found by its name too. Returns how many parts were refused.
pub(crate) fn walk(object: &Bytes) -> Result<usize, FormatError> {
    let opened = Opened::new(object)?;
    let mut refused = 0;
    for number in (0..opened.index.frame_pages()).map(PageNumber) {
        match opened.frame_page(number) {
            Ok(page) => refused += walk_frames(&opened, &page),
            Err(_) => refused += 1,
        }
    }
    for number in (0..opened.index.index_pages()).map(PageNumber) {
        match opened.index_page(number) {
            Ok(page) => refused += walk_entries(&opened, number, &page),
            Err(_) => refused += 1,
        }
        match opened.part(opened.index.cold_page_range(number)) {
            Ok(bytes) => refused += usize::from(opened.index.decode_cold_page(number, bytes).is_err()),
            Err(_) => refused += 1,
        }
    }
    Ok(refused)
}

fn walk_frames(opened: &Opened<'_>, page: &FramePage) -> usize {
    let mut refused = 0;
    for frame in (0..page.len()).map(|place| page.frame(place).unwrap()) {
        assert_eq!(page.find(frame.plain.start).as_ref(), Some(&frame));
        assert!(opened.index.footer().frames_range().end >= frame.stored.end, "a frame ends within the frames");
        let plain = opened.part(Some(frame.stored.clone())).and_then(|bytes| opened.index.decode_frame(&frame, bytes));
        match plain {
            Ok(plain) => assert!((1..=1 << 20).contains(&plain.len())),
            Err(_) => refused += 1,
        }
    }
    refused
}

fn walk_entries(opened: &Opened<'_>, number: PageNumber, page: &IndexPage) -> usize {
    let mut refused = 0;
    let entries: Vec<Entry> = page.entries().collect();
    assert_eq!(entries.len(), page.len());
    for (place, entry) in entries.iter().enumerate() {
        assert!(place == 0 || entries[place - 1].uid < entry.uid, "uids ascend");
        assert_eq!(opened.index.page_of_position(entry.position), Some(number));
        assert_eq!(opened.index.page_of_uid(entry.uid.as_str()), Some(number), "{:?}", entry.uid);
        assert_eq!(page.find(entry.uid.as_str()).as_ref(), Some(entry));
        // Reading everything would take as long as a shard likes to claim.
        if place % 64 == 0 {
            match opened.content(entry) {
                Ok(content) => assert_eq!(u64::try_from(content.len()).unwrap(), entry.len.min(READ_MAX)),
                Err(_) => refused += 1,
            }
        }
    }
    refused
}
