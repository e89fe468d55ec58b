//! The files of a cache: for each segment one of data and one of records, in a directory that one process uses.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};

use super::make_private;
use super::record::{RECORD_LEN, Record};

/// What the file system keeps for a file beside its bytes, rounded up: an inode, a name, the rest of the last block.
const FILE_OVERHEAD: u64 = 8 << 10;

/// The directory of a cache, held by a lock.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    lock: File,
}

/// A segment on disk.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u32,
    pub(super) data: Arc<File>,
    records: File,
    pub(super) data_len: u64,
    pub(super) record_count: u32,
}

impl Directory {
    /// Opens the directory, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        make_private(path)?;
        let lock = private(OpenOptions::new().write(true).create(true).truncate(false)).open(path.join("lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::other("another process uses it")),
            Err(error) => Err(error.into()),
        }
    }

    /// The segments that are there, and what each takes; files of other names are left alone.
    pub(super) fn segments(&self) -> io::Result<Vec<(u32, u64)>> {
        let mut segments: Vec<(u32, u64)> = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(parse_name) else { continue };
            let bytes = entry.metadata()?.len().saturating_add(FILE_OVERHEAD);
            match segments.iter_mut().find(|(other, _)| *other == id) {
                Some((_, total)) => *total = total.saturating_add(bytes),
                None => segments.push((id, bytes)),
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// How many bytes its file system has left.
    pub(super) fn bytes_free(&self) -> io::Result<u64> {
        let left = rustix::fs::fstatvfs(&self.lock)?;
        Ok(left.f_bavail.saturating_mul(left.f_frsize))
    }

    pub(super) fn create(&self, id: u32) -> io::Result<Segment> {
        let mut options = OpenOptions::new();
        let options = private(options.read(true).write(true).create_new(true));
        let records = options.open(self.records_path(id))?;
        let data = options.open(self.data_path(id))?;
        Ok(Segment { id, data: Arc::new(data), records, data_len: 0, record_count: 0 })
    }

    /// Opens a segment that is there, with the records of it that can be believed.
    pub(super) fn reopen(&self, id: u32) -> io::Result<(Segment, Vec<Record>)> {
        let mut options = OpenOptions::new();
        let options = private(options.read(true).write(true));
        let mut records = options.open(self.records_path(id))?;
        let data = options.open(self.data_path(id))?;
        let (data_len, records_len) = (data.metadata()?.len(), records.metadata()?.len());
        if !data.metadata()?.is_file() || records_len > RECORDS_LEN_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut bytes = Vec::new();
        records.by_ref().take(RECORDS_LEN_MAX).read_to_end(&mut bytes)?;
        let (chunks, _) = bytes.as_chunks::<RECORD_LEN>();
        let decoded = chunks.iter().zip(0_u32..).filter_map(|(chunk, number)| Record::decode(chunk, id, number));
        let decoded = decoded.filter(|record| record.end() <= data_len).collect();
        let record_count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        Ok((Segment { id, data: Arc::new(data), records, data_len, record_count }, decoded))
    }

    pub(super) fn remove(&self, id: u32) -> io::Result<()> {
        // The records first: data without them is nothing.
        let records = ignore_missing(std::fs::remove_file(self.records_path(id)));
        let data = ignore_missing(std::fs::remove_file(self.data_path(id)));
        records.and(data)
    }

    fn data_path(&self, id: u32) -> PathBuf {
        self.path.join(format!("{id:010}.data"))
    }

    fn records_path(&self, id: u32) -> PathBuf {
        self.path.join(format!("{id:010}.records"))
    }
}

/// Records of a segment at most, in bytes: of one with 64 MiB of pieces of 1 KiB.
const RECORDS_LEN_MAX: u64 = 4 << 20;

impl Segment {
    /// What it takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.data_len.saturating_add(record_place(self.record_count)).saturating_add(2 * FILE_OVERHEAD)
    }

    /// What it takes at most when it is full.
    pub(super) const fn bytes_max(data_len_max: u64) -> u64 {
        data_len_max.saturating_add(data_len_max / 16).saturating_add(2 * FILE_OVERHEAD)
    }

    /// True when there is room for so many bytes more.
    pub(super) fn has_room(&self, len: u64, data_len_max: u64) -> bool {
        self.data_len.saturating_add(len) <= data_len_max
            && record_place(self.record_count.saturating_add(1)) <= (data_len_max / 16).min(RECORDS_LEN_MAX)
    }

    /// Appends a piece: first its bytes, then the record that makes them count.
    pub(super) fn append(&mut self, record: &mut Record, bytes: &[u8]) -> io::Result<()> {
        let full = || io::Error::from(io::ErrorKind::FileTooLarge);
        record.segment = self.id;
        record.number = self.record_count;
        record.offset = u32::try_from(self.data_len).map_err(|_| full())?;
        record.len = u32::try_from(bytes.len()).map_err(|_| full())?;
        self.data.write_all_at(bytes, self.data_len)?;
        self.records.write_all_at(&record.encode(), record_place(record.number))?;
        self.data_len = record.end();
        self.record_count = self.record_count.saturating_add(1);
        Ok(())
    }

    /// Takes a piece off the disk.
    pub(super) fn erase(&self, record: &Record) -> io::Result<()> {
        self.records.write_all_at(&[0; RECORD_LEN], record_place(record.number))?;
        let (offset, len) = (u64::from(record.offset), u64::from(record.len));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.data, flags, offset, len).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; usize::try_from(len).unwrap_or_default()];
        self.data.write_all_at(&zeros, offset)
    }
}

fn record_place(number: u32) -> u64 {
    u64::from(number).saturating_mul(u64::try_from(RECORD_LEN).unwrap_or(u64::MAX))
}

/// For its owner alone, and never through a link that a stranger has laid.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    options.mode(0o600).custom_flags(no_follow)
}

fn parse_name(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".data").or_else(|| name.strip_suffix(".records"))?;
    let is_ours = number.len() == 10 && number.bytes().all(|byte| byte.is_ascii_digit());
    if is_ours { number.parse().ok() } else { None }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
