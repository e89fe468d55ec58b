//! `log=FILE`: a log that can be moved away while it is written, as logrotate(8) does.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tracing_subscriber::fmt::MakeWriter;

/// A log file, shared by all who write to it.
#[derive(Debug, Clone)]
pub struct LogFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: RwLock<Arc<File>>,
}

impl LogFile {
    /// Opens a file, to append to it.
    pub fn open(path: &Path) -> io::Result<Self> {
        // The daemon leaves the directory that it was started in.
        let path = std::path::absolute(path)?;
        let file = RwLock::new(Arc::new(append(&path)?));
        Ok(Self(Arc::new(Inner { path, file })))
    }

    /// Opens what has the name now. Goes on with the old file where that cannot be done.
    pub fn reopen(&self) -> io::Result<()> {
        let file = Arc::new(append(&self.0.path)?);
        *self.0.file.write().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Arc<File>;

    fn make_writer(&'a self) -> Self::Writer {
        Arc::clone(&self.0.file.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_that_was_moved_away_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let log = LogFile::open(&path).unwrap();
        log.make_writer().write_all(b"one").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.make_writer().write_all(b" two").unwrap();

        log.reopen().unwrap();
        log.make_writer().write_all(b"three").unwrap();

        assert_eq!(std::fs::read_to_string(moved).unwrap(), "one two");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three");
    }
}
