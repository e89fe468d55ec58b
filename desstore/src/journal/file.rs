//! The file of a journal: a line that says of which archive it is, then a line for each deletion, with its checksum.
//!
//! ```text
//! des journal 1 <archive id>
//! <32 digits: head of BLAKE3 of the JSON> <a tombstone as JSON>
//! ```
//!
//! A process holds a lock on its file for as long as it lives, so that a file without a lock is one that was left.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use desfmt::document::Tombstone;
use desfmt::{ArchiveId, UidHasher};
use rustix::fs::{FlockOperation, flock};

/// The longest file that is read, in bytes: far more than may wait.
const FILE_LEN_MAX: u64 = 1 << 30;

/// A journal that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system does not let it be used.
    #[error("journal {}", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds what no journal holds, and something behind it. What it holds was promised to be deleted, so it is kept.
    #[error("journal {}: line {line} is damaged; see which files it names, delete them, then remove it", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// A file of a journal, locked by this process.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    archive: ArchiveId,
    file: File,
    /// How much of it is whole.
    len: u64,
    /// True when what is behind `len` could not be taken away.
    is_broken: bool,
}

impl JournalFile {
    /// Makes a new file, and the directory where there is none.
    pub(super) fn create(directory: &Path, archive: ArchiveId, number: u64) -> Result<Self, JournalError> {
        let path = directory.join(format!("{archive}-{number:016x}.journal"));
        let failed = |source: io::Error| JournalError::File { path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        let head = head(archive);
        file.write_all(head.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(Self { path, archive, file, len: length(head.as_bytes()), is_broken: false })
    }

    /// Locks the files that dead processes have left for an archive.
    pub(super) fn take_over(directory: &Path, archive: ArchiveId) -> Result<Vec<Self>, JournalError> {
        let failed = |path: &Path, source: io::Error| JournalError::File { path: path.to_owned(), source };
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(directory, error)),
        };
        let mut left = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(directory, error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !(name.starts_with(&format!("{archive}-")) && name.ends_with(".journal")) {
                continue;
            }
            let file = match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => file,
                // Its owner has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&path, error)),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => left.push(Self { path, archive, file, len: 0, is_broken: false }),
                // A process that lives holds it.
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(failed(&path, error.into())),
            }
        }
        left.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(left)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The deletions in it. A last line that was never finished was never acknowledged either.
    pub(super) fn read(&mut self) -> Result<Vec<Tombstone>, JournalError> {
        let failed = |source: io::Error| JournalError::File { path: self.path.clone(), source };
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        (&mut self.file).take(FILE_LEN_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let head = head(self.archive);
        if head.as_bytes().starts_with(&bytes) && bytes.len() < head.len() {
            // Its owner died while it was made.
            return Ok(Vec::new());
        }
        let Some(rest) = bytes.strip_prefix(head.as_bytes()) else { return Err(self.damaged(1)) };
        let hasher = UidHasher::new(self.archive);
        let lines: Vec<_> = rest.split_inclusive(|byte| *byte == b'\n').collect();
        let mut found = Vec::with_capacity(lines.len());
        for (number, line) in (2_usize..).zip(&lines) {
            match parse(line) {
                Some(tombstone) if hasher.hash(tombstone.uid.as_str()) == tombstone.uid_hash => found.push(tombstone),
                // Torn: nothing that was synced comes behind.
                None if number > lines.len() => break,
                Some(_) | None => return Err(self.damaged(number)),
            }
        }
        Ok(found)
    }

    fn damaged(&self, line: usize) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), line }
    }

    /// Adds a deletion, durably. After a failure the file is as it was before.
    pub(super) fn append(&mut self, tombstone: &Tombstone) -> io::Result<()> {
        if self.is_broken {
            self.cut()?;
        }
        let line = line_of(tombstone)?;
        let written = self.file.seek(SeekFrom::Start(self.len)).and_then(|_| self.file.write_all(&line));
        match written.and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.len = self.len.saturating_add(length(&line));
                Ok(())
            }
            Err(error) => {
                self.is_broken = true;
                drop(self.cut());
                Err(error)
            }
        }
    }

    /// Takes away what is behind the last line that is whole.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync_data()?;
        self.is_broken = false;
        Ok(())
    }

    /// Takes all deletions out.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.len = length(head(self.archive).as_bytes());
        self.cut()
    }

    /// Removes the file.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

impl Drop for JournalFile {
    fn drop(&mut self) {
        // Empty, it is of no use to the next mount. Where it cannot be removed, it harms nothing.
        if self.len == length(head(self.archive).as_bytes()) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn head(archive: ArchiveId) -> String {
    format!("des journal 1 {archive}\n")
}

fn line_of(tombstone: &Tombstone) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(tombstone)?;
    Ok(format!("{} {json}\n", sum_of(json.as_bytes())).into_bytes())
}

fn parse(line: &[u8]) -> Option<Tombstone> {
    let text = str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, json) = text.split_once(' ')?;
    if sum != sum_of(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}

fn sum_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().as_str().chars().take(32).collect()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
