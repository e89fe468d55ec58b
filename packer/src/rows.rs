//! The rows of the input in a compact binary form, in memory while they are few and on disk when they are many.
//!
//! ```text
//! length    u32     of all that follows
//! date      u32     number of the day
//! hash      u16     bucket number with 16 bits; the low n bits are the bucket in an archive of n bits
//! uid       u16 length and bytes
//! created   i64     microseconds
//! len       u64     declared length of the file
//! source    u32 length and bytes
//! metadata  u32 length and bytes; none where the length is zero
//! checksum  u32 length and bytes, the first of which tells the algorithm; none where the length is zero
//! number    u64     which row of the input
//! ```

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use desfmt::{Bucket, BucketBits, Date, Digest, Group, RoutingError, Timestamp, Uid, bucket_of};

use crate::checksum::Checksum;
use crate::limits;
use crate::spool::Spool;

/// One file that is to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The day it belongs to.
    pub date: Date,
    /// Its name within the day.
    pub uid: Uid,
    /// When it was created, says the input.
    pub created_at: Timestamp,
    /// How long it is, says the input.
    pub len: u64,
    /// Where its bytes are.
    pub source: PathBuf,
    /// A JSON object to keep with it.
    pub metadata: Option<Box<str>>,
    /// What its content must hash to, where the input says so.
    pub checksum: Option<Checksum>,
    /// Which row of the input it is, from 1.
    pub number: u64,
}

/// A row in its binary form, without the length in front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedRow<'a>(&'a [u8]);

impl Row {
    /// True where the row demands another content than one of this digest.
    pub(crate) fn denies(&self, digest: &Digest) -> bool {
        matches!(self.checksum, Some(Checksum::Blake3(expected)) if expected != *digest.as_bytes())
    }

    /// Appends the row to a buffer. Fails where the uid cannot be routed.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), RoutingError> {
        let bucket = bucket_of(self.uid.as_str(), WIDEST)?;
        let source = self.source.as_os_str().as_bytes();
        let metadata = self.metadata.as_deref().unwrap_or_default().as_bytes();
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.date.number().to_le_bytes());
        out.extend_from_slice(&bucket.number().to_le_bytes());
        out.extend_from_slice(&u16::try_from(self.uid.as_str().len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(self.uid.as_str().as_bytes());
        out.extend_from_slice(&self.created_at.micros().to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        let checksum = self.checksum.map(Checksum::encode).unwrap_or_default();
        for part in [source, metadata, &checksum] {
            out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&self.number.to_le_bytes());
        let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(slot) = out.get_mut(start..start + 4) {
            slot.copy_from_slice(&len.to_le_bytes());
        }
        Ok(())
    }
}

/// A bucket number with all bits is kept; that of an archive with fewer bits is its low end.
const WIDEST: BucketBits = match BucketBits::new(BucketBits::MAX) {
    Some(bits) => bits,
    None => unreachable!(),
};

/// Takes fixed-size parts from the front. What it reads was written by this process, so a wrong length is a broken disk.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn long_bytes(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(self.array()?);
        self.bytes(usize::try_from(len).ok()?)
    }
}

impl<'a> EncodedRow<'a> {
    /// Takes bytes that [`Self::bytes`] gave.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The day and the bucket in an archive of so many bits, as one number that sorts like them.
    pub(crate) fn group_key(self, bits: BucketBits) -> u64 {
        let mut parts = Parts(self.0);
        let date = parts.array().map_or(0, u32::from_le_bytes);
        let hash = parts.array().map_or(0, u16::from_le_bytes);
        (u64::from(date) << 16) | (u64::from(hash) & u64::from(bits.buckets() - 1))
    }

    /// The uid's bytes, and all that follows them.
    fn uid_and_rest(self) -> (&'a [u8], &'a [u8]) {
        let mut parts = Parts(self.0.get(6..).unwrap_or_default());
        let len = parts.array().map_or(0, u16::from_le_bytes);
        let uid = parts.bytes(usize::from(len)).unwrap_or_default();
        (uid, parts.0)
    }

    /// The order of packing: day, bucket, uid. Rows of one uid are ordered by what else they say, so that the order of
    /// the input never matters.
    pub(crate) fn compare(self, other: Self, bits: BucketBits) -> Ordering {
        let keys = self.group_key(bits).cmp(&other.group_key(bits));
        keys.then_with(|| self.uid_and_rest().cmp(&other.uid_and_rest()))
    }

    /// True where both rows are of one uid of one day.
    pub(crate) fn is_same_uid(self, other: Self) -> bool {
        self.0.get(..4) == other.0.get(..4) && self.uid_and_rest().0 == other.uid_and_rest().0
    }

    /// True where both rows say the same: all but their number is equal.
    pub(crate) fn is_repetition_of(self, other: Self) -> bool {
        let without_number = |row: &'a [u8]| row.split_last_chunk::<8>().map(|(head, _)| head);
        without_number(self.0) == without_number(other.0)
    }

    /// The row as it was encoded.
    pub(crate) fn decode(self) -> io::Result<Row> {
        self.parts().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a spooled row does not read back"))
    }

    fn parts(self) -> Option<Row> {
        let mut parts = Parts(self.0);
        let date = Date::from_number(u32::from_le_bytes(parts.array()?))?;
        let _hash: [u8; 2] = parts.array()?;
        let uid_len = u16::from_le_bytes(parts.array()?);
        let uid = Uid::new(str::from_utf8(parts.bytes(usize::from(uid_len))?).ok()?).ok()?;
        let created_at = Timestamp::from_micros(i64::from_le_bytes(parts.array()?));
        let len = u64::from_le_bytes(parts.array()?);
        let source = Path::new(OsStr::from_bytes(parts.long_bytes()?)).to_owned();
        let metadata = str::from_utf8(parts.long_bytes()?).ok()?;
        let metadata = (!metadata.is_empty()).then(|| Box::from(metadata));
        let checksum = parts.long_bytes()?;
        let checksum = if checksum.is_empty() { None } else { Some(Checksum::decode(checksum)?) };
        let number = u64::from_le_bytes(parts.array()?);
        Some(Row { date, uid, created_at, len, source, metadata, checksum, number })
    }

    /// The declared length of the file.
    pub(crate) fn file_len(self) -> u64 {
        let rest = self.uid_and_rest().1;
        rest.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    /// What the row weighs in the index of its shard: its texts, and its share of the uids that tell pages apart, of
    /// which long ones make many.
    pub(crate) fn index_cost(self) -> u64 {
        let (uid, rest) = self.uid_and_rest();
        let mut parts = Parts(rest.get(16..).unwrap_or_default());
        let metadata = parts.long_bytes().and_then(|_| parts.long_bytes()).unwrap_or_default();
        let len = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let texts = len(uid) + len(metadata);
        texts + len(uid) * texts / 16_384
    }

    /// The group in an archive of so many bits.
    pub(crate) fn group(self, bits: BucketBits) -> Option<Group> {
        let key = self.group_key(bits);
        let date = Date::from_number(u32::try_from(key >> 16).ok()?)?;
        let bucket = Bucket::new(u32::try_from(key & 0xffff).ok()?, bits)?;
        Some(Group { date, bucket, bits })
    }

    /// Its bytes with the length in front.
    pub(crate) fn append_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(self.0);
    }
}

/// Rows that were written once and can be read any number of times, by several threads.
#[derive(Debug, Clone)]
pub(crate) struct RowLog {
    place: Place,
    len: u64,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<[u8]>),
    Disk(Arc<File>),
}

/// Writes a log: in memory up to [`limits::LOG_BYTES`], on disk beyond.
#[derive(Debug)]
pub(crate) struct RowLogWriter<'a> {
    spool: &'a Spool,
    memory_max: usize,
    pending: Vec<u8>,
    file: Option<File>,
    len: u64,
}

impl<'a> RowLogWriter<'a> {
    pub(crate) fn new(spool: &'a Spool) -> Self {
        Self::with_memory(spool, limits::LOG_BYTES)
    }

    pub(crate) fn with_memory(spool: &'a Spool, memory_max: usize) -> Self {
        Self { spool, memory_max, pending: Vec::new(), file: None, len: 0 }
    }

    /// Where the next row will begin.
    pub(crate) const fn position(&self) -> u64 {
        self.len
    }

    /// Appends one row.
    pub(crate) fn push(&mut self, row: EncodedRow<'_>) -> io::Result<()> {
        row.append_to(&mut self.pending);
        self.account(row.0.len() + 4)
    }

    /// Encodes a row and appends it.
    pub(crate) fn encode(&mut self, row: &Row) -> io::Result<Result<(), RoutingError>> {
        let before = self.pending.len();
        if let Err(error) = row.encode(&mut self.pending) {
            return Ok(Err(error));
        }
        let grown = self.pending.len() - before;
        self.account(grown).map(Ok)
    }

    fn account(&mut self, grown: usize) -> io::Result<()> {
        self.len += u64::try_from(grown).unwrap_or(u64::MAX);
        // Once on disk, a megabyte at a time goes there.
        let pending_max = if self.file.is_some() { 1 << 20 } else { self.memory_max };
        if self.pending.len() > pending_max { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(self.spool.nameless_file()?),
        };
        file.write_all(&self.pending)?;
        self.pending.clear();
        self.pending.shrink_to(1 << 20);
        Ok(())
    }

    /// Ends the log.
    pub(crate) fn finish(mut self) -> io::Result<RowLog> {
        if self.file.is_some() {
            self.spill()?;
        }
        let place = match self.file {
            Some(file) => Place::Disk(Arc::new(file)),
            None => Place::Memory(Arc::from(self.pending)),
        };
        Ok(RowLog { place, len: self.len })
    }
}

impl RowLog {
    /// Its length in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Reads the rows between two positions, through a buffer of about so many bytes.
    pub(crate) fn read(&self, range: Range<u64>, buffer_bytes: usize) -> RowReader {
        RowReader { log: self.clone(), next: range.start, end: range.end, buffer_bytes, buffer: Vec::new(), taken: 0 }
    }

    /// Reads all rows.
    pub(crate) fn read_all(&self) -> RowReader {
        self.read(0..self.len, 256 << 10)
    }

    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.place {
            Place::Disk(file) => file.read_exact_at(buffer, at),
            Place::Memory(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX);
                let part = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// Walks through rows of a log.
#[derive(Debug)]
pub(crate) struct RowReader {
    log: RowLog,
    next: u64,
    end: u64,
    buffer_bytes: usize,
    buffer: Vec<u8>,
    taken: usize,
}

impl RowReader {
    /// The next row, or `None` at the end.
    pub(crate) fn next_row(&mut self) -> io::Result<Option<EncodedRow<'_>>> {
        if !self.ensure(4)? {
            return Ok(None);
        }
        let head = self.buffer.get(self.taken..).and_then(|rest| rest.first_chunk::<4>());
        let len = head.map_or(0, |head| u32::from_le_bytes(*head));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !self.ensure(4 + len)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = self.taken + 4;
        self.taken = start + len;
        Ok(self.buffer.get(start..self.taken).map(EncodedRow))
    }

    /// Makes `len` unread bytes available; false at the end of the range.
    fn ensure(&mut self, len: usize) -> io::Result<bool> {
        let unread = self.buffer.len() - self.taken;
        if unread >= len {
            return Ok(true);
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let ahead = u64::try_from(len.max(self.buffer_bytes) - unread).unwrap_or(u64::MAX);
        let more = ahead.min(self.end - self.next);
        self.buffer.resize(unread + usize::try_from(more).unwrap_or(usize::MAX), 0);
        if let Some(space) = self.buffer.get_mut(unread..) {
            self.log.fill(self.next, space)?;
        }
        self.next += more;
        Ok(self.buffer.len() >= len)
    }
}

#[cfg(test)]
pub(crate) mod tests;
