//! Directories: every regular file below a root. Symbolic links are not followed, and neither they nor devices, pipes
//! and sockets are packed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use desfmt::{Timestamp, Uid};
use rayon::iter::{ParallelDrainRange, ParallelIterator};
use walkdir::{DirEntry, WalkDir};

use super::{Dating, InputError, Naming, RowSink, broken, day_of};
use crate::limits;
use crate::rows::Row;

/// How a directory is to be walked.
pub(super) struct Walk<'a> {
    pub(super) root: &'a Path,
    pub(super) naming: Naming,
    pub(super) dating: Dating,
    pub(super) except: Option<&'a Path>,
}

impl Walk<'_> {
    /// Hands on all files.
    pub(super) fn read(&self, sink: &mut dyn RowSink) -> Result<(), InputError> {
        let unreadable = |source| InputError::Unreadable { name: self.root.to_owned(), source };
        let root = self.root.canonicalize().map_err(unreadable)?;
        // Also where it may not be listed: a root that cannot be read is no empty root.
        drop(std::fs::read_dir(&root).map_err(unreadable)?);
        let except = self.except.and_then(|path| path.canonicalize().ok());
        let is_wanted = |entry: &DirEntry| except.as_deref() != Some(entry.path());
        let mut files = Vec::with_capacity(limits::FILES_WALKED_AT_ONCE);
        for entry in WalkDir::new(&root).into_iter().filter_entry(is_wanted) {
            match entry {
                Ok(entry) if entry.file_type().is_file() => {
                    files.push(entry);
                    if files.len() == limits::FILES_WALKED_AT_ONCE {
                        self.hand_on(&root, &mut files, sink)?;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    let path = error.path().map(|path| path.to_string_lossy().into_owned());
                    sink.reject(broken(None, None, path, error.to_string()));
                }
            }
        }
        self.hand_on(&root, &mut files, sink)
    }

    /// Makes rows of files by all threads of the pool that this runs in: asking for the attributes of a file takes longer
    /// than finding it.
    fn hand_on(&self, root: &Path, files: &mut Vec<DirEntry>, sink: &mut dyn RowSink) -> Result<(), InputError> {
        let rows: Vec<_> = files.par_drain(..).map(|file| (self.row(root, &file), file)).collect();
        for (row, file) in rows {
            match row {
                Ok(row) => sink.accept(row).map_err(|source| InputError::Spool { source })?,
                Err(reason) => {
                    let path = file.path().to_string_lossy().into_owned();
                    sink.reject(broken(None, None, Some(path), reason));
                }
            }
        }
        Ok(())
    }

    fn row(&self, root: &Path, entry: &DirEntry) -> Result<Row, String> {
        let name = match self.naming {
            Naming::RelativePath => entry.path().strip_prefix(root).map_err(|error| error.to_string())?.as_os_str(),
            Naming::FileName => entry.file_name(),
            Naming::Stem => Path::new(entry.file_name()).file_stem().unwrap_or(entry.file_name()),
        };
        let uid = Uid::new(name.to_str().ok_or("the name is not UTF-8")?).map_err(|error| error.to_string())?;
        if entry.path().as_os_str().len() > limits::PATH_BYTES {
            return Err("the path is too long to be opened".to_owned());
        }
        let metadata = entry.metadata().map_err(|error| error.to_string())?;
        let created_at = match self.dating {
            Dating::Modified => modified(&metadata),
            Dating::At(time) => time,
        };
        let source = entry.path().to_owned();
        let date = day_of(created_at)?;
        Ok(Row { date, uid, created_at, len: metadata.len(), source, metadata: None, checksum: None, number: 0 })
    }
}

fn modified(metadata: &Metadata) -> Timestamp {
    Timestamp::from_micros(metadata.mtime().saturating_mul(1_000_000).saturating_add(metadata.mtime_nsec() / 1_000))
}
