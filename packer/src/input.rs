//! What is to be packed, as a stream of rows: a manifest, a directory that is walked, or rows that another program feeds.
//!
//! A row that cannot be packed is handed on with its reason and is never fatal. A manifest that is not JSON at all is:
//! nothing is packed before the whole input was read.

mod directory;
mod manifest;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use desfmt::{Date, Timestamp};

use crate::issue::{Issue, Outcome};
use crate::rows::Row;
use crate::source::{BucketError, Buckets};
use crate::source_time::TimeRules;

/// Where rows come from.
#[derive(Debug, Clone)]
pub enum Input {
    /// A JSON array of rows, or rows one after the other (JSON lines).
    Manifest {
        /// The file, or `s3://BUCKET/KEY`; standard input where none is given.
        file: Option<PathBuf>,
    },
    /// All regular files below a directory.
    Directory {
        /// The directory.
        root: PathBuf,
        /// How a file is named in the archive.
        naming: Naming,
        /// How a file is dated.
        dating: Dating,
        /// A directory below that is left out: the archive itself.
        except: Option<PathBuf>,
    },
    /// Rows that another program hands over.
    Feed(Arc<dyn Feed>),
}

/// How a file of a directory is named in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// By its path relative to the directory.
    RelativePath,
    /// By its file name.
    FileName,
    /// By its file name without the last extension.
    Stem,
}

/// How a file of a directory is dated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dating {
    /// By the time of its last modification.
    Modified,
    /// All files by the same time.
    At(Timestamp),
}

/// An input that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file or directory cannot be read.
    #[error("{}", name.display())]
    Unreadable {
        /// What was to be read.
        name: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The manifest is not what a manifest must be.
    #[error("{}: row {row}: not a manifest", name.display())]
    Syntax {
        /// The manifest.
        name: PathBuf,
        /// The row that was being read.
        row: u64,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// Whoever feeds rows cannot go on.
    #[error("rows are no longer fed")]
    Feed {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row could not be handed on.
    #[error("rows cannot be spooled")]
    Spool {
        /// Why not.
        source: io::Error,
    },
}

/// Rows from elsewhere, such as a database.
pub trait Feed: Send + Sync + fmt::Debug {
    /// Hands over all rows, in any order, on a thread that may wait. Called once.
    fn read(&self, sink: &mut dyn RowSink) -> Result<(), InputError>;
}

/// Takes what an input yields.
pub trait RowSink {
    /// Takes a row.
    fn accept(&mut self, row: Row) -> io::Result<()>;

    /// Takes a row that cannot be packed.
    fn reject(&mut self, issue: Issue);
}

impl Input {
    /// Makes sure that there is something to read, before anything is made for it.
    pub async fn check(&self, buckets: &Buckets) -> Result<(), InputError> {
        let unreadable = |name: &Path, source| InputError::Unreadable { name: name.to_owned(), source };
        match self {
            Self::Manifest { file: None } | Self::Feed(_) => Ok(()),
            Self::Manifest { file: Some(file) } if Buckets::holds(file) => {
                buckets.look_up(file).await.map_err(|reason| unreadable(file, io::Error::other(reason)))
            }
            Self::Manifest { file: Some(file) } => {
                std::fs::File::open(file).map(drop).map_err(|source| unreadable(file, source))
            }
            Self::Directory { root, .. } => {
                std::fs::read_dir(root).map(drop).map_err(|source| unreadable(root, source))
            }
        }
    }

    /// Reads all rows. A manifest in a bucket is read by `buckets`.
    pub(crate) fn read(
        &self,
        rules: &TimeRules,
        buckets: Option<&Arc<Buckets>>,
        sink: &mut dyn RowSink,
    ) -> Result<(), InputError> {
        match self {
            Self::Manifest { file: Some(file) } if Buckets::holds(file) => {
                let opened =
                    buckets.ok_or_else(|| BucketError::Failed("manifests in buckets cannot be read here".to_owned()));
                let opened = opened.and_then(|buckets| buckets.stream(file)).map_err(|reason| {
                    InputError::Unreadable { name: file.clone(), source: io::Error::other(reason) }
                })?;
                // What is said relative to the manifest lies in its bucket.
                let base = file.parent().unwrap_or(file);
                manifest::read(opened, &manifest::Manifest { name: file, base, rules }, sink)
            }
            Self::Manifest { file: Some(file) } => {
                let unreadable = |source| InputError::Unreadable { name: file.clone(), source };
                let opened = std::fs::File::open(file).map_err(unreadable)?;
                let base = std::path::absolute(file).map_err(unreadable)?;
                let base = base.parent().unwrap_or(Path::new("/"));
                manifest::read(opened, &manifest::Manifest { name: file, base, rules }, sink)
            }
            Self::Manifest { file: None } => {
                let name = Path::new("standard input");
                let unreadable = |source| InputError::Unreadable { name: name.to_owned(), source };
                let base = std::env::current_dir().map_err(unreadable)?;
                manifest::read(io::stdin().lock(), &manifest::Manifest { name, base: &base, rules }, sink)
            }
            Self::Feed(feed) => feed.read(sink),
            Self::Directory { root, naming, dating, except } => {
                directory::Walk { root, naming: *naming, dating: *dating, except: except.as_deref() }.read(sink)
            }
        }
    }
}

/// A row that is broken, before it has become one.
fn broken(row: Option<u64>, uid: Option<String>, source: Option<String>, reason: impl Into<String>) -> Issue {
    Issue { outcome: Outcome::Failed, row, uid, source, reason: reason.into() }
}

/// The day of a time, where there is one.
fn day_of(time: Timestamp) -> Result<Date, String> {
    Date::of(time).ok_or_else(|| "the time is before year 1 or after year 9999".to_owned())
}

#[cfg(test)]
mod tests;
