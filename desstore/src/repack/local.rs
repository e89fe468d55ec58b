//! A shard in a local file, read page by page and frame by frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use desfmt::v3::limits::PAGE_FRAMES;
use desfmt::v3::{ColdPage, EncodedFrame, FOOTER_LEN, FramePage, FrameRef, IndexPage, PageNumber, ShardIndex};
use desfmt::{FormatError, v3};

use crate::archive::ArchiveError;
use crate::error::{StoreError, StoreErrorKind};

/// A shard file that is open.
#[derive(Debug)]
pub(super) struct LocalShard {
    file: File,
    index: ShardIndex,
    /// What errors call it.
    name: String,
    frames: Option<(PageNumber, FramePage)>,
    /// The frame that was decoded last.
    decoded: Option<(u32, Bytes)>,
}

impl LocalShard {
    /// Opens a file that holds a whole shard.
    pub(super) fn open(file: File, name: String) -> Result<Self, ArchiveError> {
        let damaged = |error: FormatError| ArchiveError::damaged(&name, error);
        let len = file.metadata().map_err(|error| spool_error(Path::new(&name), error))?.len();
        let footer_len = u64::try_from(FOOTER_LEN).unwrap_or(u64::MAX);
        let tail = read_at(&file, len.saturating_sub(footer_len)..len, &name)?;
        let footer = v3::Footer::decode(&tail).map_err(damaged)?;
        let tail = read_at(&file, len.saturating_sub(footer.tail_len)..len, &name)?;
        let index = ShardIndex::open(Bytes::from(tail), len).map_err(damaged)?;
        Ok(Self { file, index, name, frames: None, decoded: None })
    }

    /// Another handle on the same shard, with caches of its own.
    pub(super) fn reopen(&self) -> Result<Self, ArchiveError> {
        let file = self.file.try_clone().map_err(|error| spool_error(Path::new(&self.name), error))?;
        Self::open(file, self.name.clone())
    }

    pub(super) const fn index(&self) -> &ShardIndex {
        &self.index
    }

    /// Names damage that was found in it.
    pub(super) fn damaged(&self, error: FormatError) -> ArchiveError {
        ArchiveError::damaged(&self.name, error)
    }

    /// Names a contradiction that was found in it.
    pub(super) fn inconsistent(&self, detail: impl Into<String>) -> ArchiveError {
        ArchiveError::inconsistent(&self.name, detail)
    }

    pub(super) fn index_page(&self, number: PageNumber) -> Result<IndexPage, ArchiveError> {
        let bytes = match self.index.resident_index_page(number) {
            Some(bytes) => bytes,
            None => self.part(self.index.index_page_range(number))?,
        };
        self.index.decode_index_page(number, &bytes).map_err(|error| self.damaged(error))
    }

    pub(super) fn cold_page(&self, number: PageNumber) -> Result<ColdPage, ArchiveError> {
        let bytes = self.part(self.index.cold_page_range(number))?;
        self.index.decode_cold_page(number, &bytes).map_err(|error| self.damaged(error))
    }

    /// A frame as it is stored, for a shard of the same codec; none where a dictionary is in play.
    pub(super) fn copy_frame(&mut self, number: u32) -> Result<Option<EncodedFrame>, ArchiveError> {
        let frame = self.frame_ref(number)?;
        let stored = self.part(Some(frame.stored.clone()))?;
        self.index.copy_frame(&frame, &stored).map_err(|error| self.damaged(error))
    }

    /// The plain bytes of a frame.
    pub(super) fn frame(&mut self, number: u32) -> Result<Bytes, ArchiveError> {
        if let Some((_, plain)) = self.decoded.as_ref().filter(|(held, _)| *held == number) {
            return Ok(plain.clone());
        }
        let frame = self.frame_ref(number)?;
        let stored = self.part(Some(frame.stored.clone()))?;
        let plain = self.index.decode_frame_in_place(&frame, &stored).map_err(|error| self.damaged(error))?;
        self.decoded = Some((number, plain.clone()));
        Ok(plain)
    }

    fn frame_ref(&mut self, number: u32) -> Result<FrameRef, ArchiveError> {
        let wanted = PageNumber(number.checked_div(PAGE_FRAMES).unwrap_or(0));
        let held = self.frames.take().filter(|(held, _)| *held == wanted);
        let (_, page) = if let Some(held) = held {
            self.frames.insert(held)
        } else {
            let bytes = match self.index.resident_frame_page(wanted) {
                Some(bytes) => bytes,
                None => self.part(self.index.frame_page_range(wanted))?,
            };
            let page = self.index.decode_frame_page(wanted, &bytes).map_err(|error| self.damaged(error))?;
            self.frames.insert((wanted, page))
        };
        let place = usize::try_from(number.checked_rem(PAGE_FRAMES).unwrap_or(0)).unwrap_or(usize::MAX);
        page.frame(place).ok_or_else(|| ArchiveError::inconsistent(&self.name, format!("there is no frame {number}")))
    }

    fn part(&self, range: Option<std::ops::Range<u64>>) -> Result<Bytes, ArchiveError> {
        let range = range.ok_or_else(|| self.inconsistent("a part was looked for that it does not have"))?;
        Ok(Bytes::from(read_at(&self.file, range, &self.name)?))
    }
}

pub(super) fn read_at(file: &File, range: std::ops::Range<u64>, name: &str) -> Result<Vec<u8>, ArchiveError> {
    let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, range.start).map_err(|error| spool_error(Path::new(name), error))?;
    Ok(bytes)
}

/// A file that is removed when it is no longer needed.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    path: PathBuf,
}

impl SpoolFile {
    /// Creates an empty file that nobody else has.
    pub(super) fn create(dir: &Path, name: &str) -> Result<(Self, File), ArchiveError> {
        std::fs::create_dir_all(dir).map_err(|error| spool_error(dir, error))?;
        let path = dir.join(name);
        let created = File::options().read(true).write(true).create_new(true).open(&path);
        let file = created.map_err(|error| spool_error(&path, error))?;
        Ok((Self { path }, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes into it.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), ArchiveError> {
        let written = File::options().write(true).open(&self.path).and_then(|file| file.write_all_at(bytes, offset));
        written.map_err(|error| self.error(error))
    }

    /// Waits until its bytes are on the disk. A failure is told once, to whoever waits first, so that it must not be ignored.
    pub(super) fn sync(&self) -> Result<(), ArchiveError> {
        File::open(&self.path).and_then(|file| file.sync_data()).map_err(|error| self.error(error))
    }

    /// Trouble with it.
    pub(crate) fn error(&self, error: io::Error) -> ArchiveError {
        spool_error(&self.path, error)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(file = %self.path.display(), %error, "spool file stays");
        }
    }
}

/// Trouble with the local disk.
pub(super) fn spool_error(path: &Path, error: io::Error) -> ArchiveError {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let kind = if is_full { StoreErrorKind::Full } else { StoreErrorKind::Unavailable };
    StoreError::new(kind, "spool", path.display()).caused_by(error).into()
}
