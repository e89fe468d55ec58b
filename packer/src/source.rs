//! Reads the files that are to be packed, and refuses those that are not what their row says or that change meanwhile.

mod buckets;
mod roots;
mod stream;

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use desfmt::v3::Mtime;
use desfmt::{Digest, Timestamp};
use rustix::io::Errno;

pub(crate) use self::buckets::SCHEME;
pub use self::buckets::{BucketError, Buckets, FetchedSource};
pub use self::roots::{BeneathError, RootError, Roots};
use crate::checksum::{Checksum, ChecksumCheck};
use crate::limits;
use crate::rows::Row;

/// A file that cannot be packed, with the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpackable(pub(crate) String);

/// Where the bytes of rows are read from, and which of them may be.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Files may be opened beneath these only; anywhere where there are none.
    pub roots: Option<Arc<Roots>>,
    /// How `s3://` sources are reached; they are refused where there is no way.
    pub buckets: Option<Arc<Buckets>>,
}

impl Sources {
    /// True where there is nothing under a name, rather than something that cannot be read. Waits; not to be called on a
    /// thread of the runtime.
    pub fn is_missing(&self, source: &Path) -> bool {
        if Buckets::holds(source) {
            let looked = self.buckets.as_ref().map(|buckets| buckets.look_waiting(source));
            return matches!(looked, Some(Err(BucketError::Missing)));
        }
        let opened = open_file(source, self);
        matches!(opened, Err(BeneathError::Missing | BeneathError::System(Errno::NOENT | Errno::NOTDIR)))
    }
}

/// An open source file.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    opened: Metadata,
    /// When an object was written, where the file is a copy of one.
    written: Option<Timestamp>,
    checksum: Option<Checksum>,
}

impl Source {
    /// Opens the file of a row. A symbolic link is refused, so that nobody who may write to a source directory can have
    /// other people's files packed; so is anything that is not a regular file, without waiting for it.
    pub(crate) fn open(row: &Row, sources: &Sources) -> Result<Self, Unpackable> {
        let (file, written) = if Buckets::holds(&row.source) {
            let buckets = sources.buckets.as_ref();
            let buckets = buckets.ok_or_else(|| Unpackable("sources in buckets cannot be read here".to_owned()))?;
            let fetched = buckets.open(&row.source, row.len).map_err(|error| Unpackable(error.to_string()))?;
            (fetched.file, Some(fetched.meta.modified))
        } else {
            (open_file(&row.source, sources).map_err(|error| Unpackable(error.to_string()))?, None)
        };
        let opened = file.metadata().map_err(|error| unreadable(&error))?;
        if !opened.is_file() {
            return Err(Unpackable("the source is not a regular file".to_owned()));
        }
        if opened.len() != row.len {
            return Err(Unpackable(format!("the source has {} bytes, its row says {}", opened.len(), row.len)));
        }
        Ok(Self { file, opened, written, checksum: row.checksum })
    }

    /// When it was last changed.
    pub(crate) fn mtime(&self) -> Mtime {
        if let Some(written) = self.written {
            return Mtime { seconds: written.seconds(), nanos: 0 };
        }
        Mtime { seconds: self.opened.mtime(), nanos: u32::try_from(self.opened.mtime_nsec()).unwrap_or(0) }
    }

    /// Hands out its bytes, a piece at a time, and returns their digest once it is certain that they are one state of
    /// the file.
    pub(crate) fn read<E>(
        mut self,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<Digest, Unpackable>, E> {
        let mut hasher = blake3::Hasher::new();
        let mut check = self.checksum.map(ChecksumCheck::new);
        let mut left = self.opened.len();
        buffer.clear();
        while left > 0 {
            let want = usize::try_from(left.min(limits::WHOLE_FILE_BYTES)).unwrap_or(usize::MAX);
            buffer.resize(want, 0);
            match read_full(&mut self.file, buffer) {
                Ok(count) if count == want => {}
                Ok(_) => return Ok(Err(Unpackable("the source became shorter while it was read".to_owned()))),
                Err(error) => return Ok(Err(unreadable(&error))),
            }
            hasher.update(buffer);
            if let Some(check) = &mut check {
                check.update(buffer);
            }
            take(buffer)?;
            left -= u64::try_from(want).unwrap_or(u64::MAX);
        }
        let digest = hasher.finalize();
        if let Err(changed) = self.unchanged() {
            return Ok(Err(changed));
        }
        if let (Some(check), Some(expected)) = (check, self.checksum)
            && !check.is_met(&digest)
        {
            return Ok(Err(Unpackable(format!("the source has another {expected} than its row says"))));
        }
        Ok(Ok(digest))
    }

    /// Its first bytes, to judge it by.
    pub(crate) fn head(&mut self, len: u64) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        (&mut self.file).take(len).read_to_end(&mut head)?;
        Ok(head)
    }

    /// Makes sure that what was read is one state of the file.
    fn unchanged(&self) -> Result<(), Unpackable> {
        let now = self.file.metadata().map_err(|error| unreadable(&error))?;
        let state = |of: &Metadata| (of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec());
        if state(&now) != state(&self.opened) {
            return Err(Unpackable("the source changed while it was read".to_owned()));
        }
        Ok(())
    }
}

fn open_file(source: &Path, sources: &Sources) -> Result<File, BeneathError> {
    match &sources.roots {
        Some(roots) => roots.open_file(source),
        None => roots::open_anywhere(source),
    }
}

/// The digest of a file's content, without keeping any of it.
pub(crate) fn digest_of(row: &Row, sources: &Sources, buffer: &mut Vec<u8>) -> Result<Digest, Unpackable> {
    match Source::open(row, sources)?.read(buffer, |_| Ok::<(), std::convert::Infallible>(())) {
        Ok(result) => result,
    }
}

fn unreadable(error: &io::Error) -> Unpackable {
    Unpackable(format!("the source cannot be read: {error}"))
}

/// Fills the buffer as far as the file goes.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
        match file.read(space) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use rustix::fs::Mode;

    use super::*;
    use crate::rows::tests::row;

    fn anywhere() -> Sources {
        Sources::default()
    }

    fn row_of(source: PathBuf, len: u64) -> Row {
        Row { source, ..row("a", 0, len) }
    }

    #[test]
    fn only_regular_files_of_the_right_length_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "12345").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();

        let mut buffer = Vec::new();
        let digest = digest_of(&row_of(path("file"), 5), &anywhere(), &mut buffer).unwrap();

        assert_eq!(digest, blake3::hash(b"12345"));
        for (name, len, reason) in [
            ("file", 4, "has 5 bytes"),
            ("link", 5, "symbolic link"),
            ("pipe", 0, "not a regular file"),
            ("absent", 0, "cannot be opened"),
            (".", 0, "not a regular file"),
        ] {
            let Unpackable(found) = Source::open(&row_of(path(name), len), &anywhere()).unwrap_err();
            assert!(found.contains(reason), "{name}: {found}");
        }
    }

    #[test]
    fn a_file_that_does_not_hash_to_its_checksum_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        for (content, is_right) in [("12345", true), ("54321", false)] {
            let checksum = Some(Checksum::Blake3(*blake3::hash(content.as_bytes()).as_bytes()));
            let row = Row { checksum, ..row_of(path.clone(), 5) };
            let found = digest_of(&row, &anywhere(), &mut Vec::new());
            assert_eq!(found.is_ok(), is_right, "{found:?}");
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for changed in ["12", "1234567", "54321"] {
            fs::write(&path, "12345").unwrap();
            let source = Source::open(&row_of(path.clone(), 5), &anywhere()).unwrap();
            let read = source.read(&mut Vec::new(), |_| fs::write(&path, changed)).unwrap();
            assert!(read.is_err(), "{changed}");
        }
    }
}
