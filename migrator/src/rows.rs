//! The rows of the source table, whatever holds the table.

pub mod postgres;

use std::fmt;
use std::ops::ControlFlow;

use desfmt::Timestamp;
use packer::Checksum;

use crate::days::Window;
use crate::error::DatabaseError;

/// One row of the source table, as far as it can be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// The uid.
    pub uid: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where its bytes are; none where the column is NULL.
    pub location: Option<String>,
    /// How long it is, where the table says so; or why that cannot be used.
    pub len: Result<Option<u64>, String>,
    /// What it must hash to, where the table says so; or why that cannot be used.
    pub checksum: Result<Option<Checksum>, String>,
}

/// A place in the order of a scan: everything up to it was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The time of the last row.
    pub created_at: Timestamp,
    /// The uid of the last row.
    pub uid: String,
}

impl SourceRow {
    /// Its place in the order of a scan.
    pub fn key(&self) -> Key {
        Key { created_at: self.created_at, uid: self.uid.clone() }
    }

    /// Where its bytes are, as a path or `s3://BUCKET/KEY`; empty where the row does not say it.
    pub fn source(&self) -> &str {
        let location = self.location.as_deref().unwrap_or_default();
        location.strip_prefix("file://").unwrap_or(location)
    }
}

/// Rows that no scan can hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nameless {
    /// The time that they share.
    pub created_at: Timestamp,
    /// How many.
    pub rows: u64,
}

/// How many files of a day have what length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayVolume {
    /// The start of the day.
    pub day: Timestamp,
    /// Which class of lengths: the index of the first bound above it.
    pub class: usize,
    /// How many files.
    pub files: u64,
    /// Their lengths together; 0 where the table does not tell lengths.
    pub bytes: u64,
    /// The oldest of them.
    pub oldest: Timestamp,
    /// The newest of them.
    pub newest: Timestamp,
}

/// Which rows a scan hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are not marked as archived.
    Waiting,
    /// Those too.
    All,
}

/// Takes pages of rows.
pub type TakePage<'a> = &'a mut dyn FnMut(Vec<SourceRow>) -> ControlFlow<()>;

/// A table that lists files. All methods wait; none tries anything twice.
pub trait RowSource: Send + Sync + fmt::Debug {
    /// The time by the database's clock.
    fn now(&self) -> Result<Timestamp, DatabaseError>;

    /// The time of the first row within a window.
    fn first(&self, window: Window) -> Result<Option<Timestamp>, DatabaseError>;

    /// Hands out the rows of a window after a place, ordered by time and uid, as they are at one moment, until there are
    /// no more or nobody wants more.
    fn scan(&self, window: Window, which: Which, after: Option<Key>, take: TakePage<'_>) -> Result<(), DatabaseError>;

    /// Rows of a window without a uid.
    fn nameless(&self, window: Window) -> Result<Vec<Nameless>, DatabaseError>;

    /// How many rows have no time, or one that is in no day.
    fn undated(&self) -> Result<u64, DatabaseError>;

    /// About how many rows a window has, at the price of a plan.
    fn estimate(&self, window: Window) -> Result<u64, DatabaseError>;

    /// What the table holds, by days and by classes of lengths.
    fn volumes(&self, window: Window, class_bounds: &[u64]) -> Result<Vec<DayVolume>, DatabaseError>;

    /// Marks rows as archived in the table itself.
    fn mark_archived(&self, rows: &[Key]) -> Result<(), DatabaseError>;
}
