//! What the migrators of an archive know together: which days are whose, what was proven, what is wrong, and the cutoff.
//!
//! Everything before the cutoff is readable in the archive, was deleted there, or is an exception that somebody has
//! acknowledged. One transaction says so, guarded by the epoch of the claim, and the cutoff only moves forward.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use desfmt::{Date, Timestamp};

use crate::error::DatabaseError;

/// How far an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutoff {
    /// All rows before are dealt with.
    pub archived_until: Option<Timestamp>,
    /// All days with rows before are listed.
    pub planned_until: Option<Timestamp>,
    /// How many days a row must be old.
    pub lag_days: u32,
    /// The identity of the archive that this is about, once there is one.
    pub archive: Option<String>,
}

/// The right to move a day, for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The day.
    pub day: Date,
    /// Which claim of this day it is; whoever has an older one is too late.
    pub epoch: i64,
}

/// What became of the rows of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows that the table has.
    pub rows: u64,
    /// Rows that were packed now, and proven.
    pub packed: u64,
    /// Rows that the archive had already, proven.
    pub present: u64,
    /// Rows whose uid was deleted from its day.
    pub deleted: u64,
    /// Rows that say what another one says.
    pub repeated: u64,
    /// Rows that could not be moved.
    pub exceptions: u64,
    /// The lengths of what was packed now.
    pub bytes: u64,
}

impl Tally {
    /// Rows whose fate is known.
    pub const fn accounted(&self) -> u64 {
        self.packed
            .saturating_add(self.present)
            .saturating_add(self.deleted)
            .saturating_add(self.repeated)
            .saturating_add(self.exceptions)
    }

    /// Adds another one.
    pub const fn add(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.packed = self.packed.saturating_add(other.packed);
        self.present = self.present.saturating_add(other.present);
        self.deleted = self.deleted.saturating_add(other.deleted);
        self.repeated = self.repeated.saturating_add(other.repeated);
        self.exceptions = self.exceptions.saturating_add(other.exceptions);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The record of what was proven at once: some rows of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The day.
    pub day: Date,
    /// Over uids, times, lengths and digests, in whatever order.
    pub input_hash: [u8; 32],
    /// The shards that were published.
    pub shards: BTreeSet<String>,
    /// How many files.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
    /// Over the uids alone.
    pub uid_digest: [u8; 32],
}

/// What is to be marked of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayMark {
    /// The claim that it is done under.
    pub claim: Claim,
    /// What became of its rows.
    pub tally: Tally,
    /// What was proven.
    pub receipt: Option<Receipt>,
}

/// What came of asking for days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claims {
    /// These are taken, at least one.
    Taken(Vec<Claim>),
    /// Some are free, but other sessions hold their rows just now: those of processes that claim or mark them, or have died
    /// while the server was writing.
    Held,
    /// None is free.
    None,
}

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// It is set.
    Done,
    /// The claim of this day is somebody else's, so nothing was changed.
    Overtaken(Date),
}

/// Where in the life of a file an exception arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Moving it: holds the cutoff until it is acknowledged.
    Migrate,
    /// Looking for late rows.
    Sweep,
    /// Removing its source.
    Cleanup,
}

impl Stage {
    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Migrate => "migrate",
            Self::Sweep => "sweep",
            Self::Cleanup => "cleanup",
        }
    }
}

/// Why a row is an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The row cannot be understood.
    Row,
    /// Its file cannot be read as the row describes it.
    File,
    /// The archive holds other content under the uid.
    Conflict,
    /// It did not read back as it was packed.
    Unproven,
    /// The source is not what the archive holds, so it stays.
    SourceChanged,
    /// The uid was deleted from the archive, so its source stays unless told otherwise.
    SourceOfDeleted,
    /// The archive does not hold it, so its source stays.
    NotArchived,
}

impl Kind {
    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::File => "file",
            Self::Conflict => "conflict",
            Self::Unproven => "unproven",
            Self::SourceChanged => "source_changed",
            Self::SourceOfDeleted => "source_of_deleted",
            Self::NotArchived => "not_archived",
        }
    }
}

/// A row that could not be moved, or whose source could not be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Its uid; empty where it has none.
    pub uid: String,
    /// Its time; none where it has none.
    pub created_at: Option<Timestamp>,
    /// Its day.
    pub day: Option<Date>,
    /// Where it arose.
    pub stage: Stage,
    /// Why, for programs.
    pub kind: Kind,
    /// Why, for people.
    pub reason: String,
    /// Where its bytes should be.
    pub source: String,
    /// How many rows it stands for.
    pub rows: u64,
}

/// An exception as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedException {
    /// Its uid.
    pub uid: String,
    /// Its time.
    pub created_at: Option<String>,
    /// Its day.
    pub day: Option<String>,
    /// Where it arose.
    pub stage: String,
    /// Why, for programs.
    pub kind: String,
    /// Why, for people.
    pub reason: String,
    /// Where its bytes should be.
    pub source: String,
    /// How many rows it stands for.
    pub rows: i64,
    /// When it was first seen.
    pub first_seen: String,
    /// Who has acknowledged it.
    pub acked_by: Option<String>,
}

/// Which exceptions are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only those of this uid.
    pub uid: Option<String>,
    /// Only those of this day.
    pub day: Option<Date>,
    /// Only those of this stage.
    pub stage: Option<Stage>,
    /// Those too that are acknowledged.
    pub acked: bool,
}

/// What a cleanup pass did with a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Sources that were removed.
    pub removed: u64,
    /// Their lengths together.
    pub bytes: u64,
    /// Sources that were gone already.
    pub gone: u64,
    /// Sources that stay.
    pub kept: u64,
}

/// What all migrators of an archive share. All methods wait; none tries anything twice, all may be tried again.
pub trait StateStore: Send + Sync + fmt::Debug {
    /// How far the archive is.
    fn cutoff(&self) -> Result<Cutoff, DatabaseError>;

    /// Notes which archive this is about; false where it is another one.
    fn bind(&self, archive: &str) -> Result<bool, DatabaseError>;

    /// Makes sure that no other process works under this name; false where one does.
    fn hold_name(&self, worker: &str) -> Result<bool, DatabaseError>;

    /// Lists days that have rows: all of them up to `planned_until`.
    fn plan(&self, days: &[Date], planned_until: Timestamp) -> Result<(), DatabaseError>;

    /// Takes some days that nobody works at, the oldest first: at most `count`, and no more than a quarter of what is
    /// open, so that others find some too.
    fn claim(&self, worker: &str, last: Option<Date>, count: u32, lease: Duration) -> Result<Claims, DatabaseError>;

    /// Holds claims for longer; false where one of them is lost.
    fn renew(&self, worker: &str, claims: &[Claim], lease: Duration) -> Result<bool, DatabaseError>;

    /// Gives claims back.
    fn release(&self, worker: &str, claims: &[Claim]) -> Result<(), DatabaseError>;

    /// Notes exceptions, again or for the first time. `epoch` is that of the claim they were seen under.
    fn note(&self, exceptions: &[Exception], epoch: i64) -> Result<(), DatabaseError>;

    /// Marks days as moved, in one transaction, and moves the cutoff over all that are finished.
    fn mark(&self, worker: &str, marks: &[DayMark]) -> Result<Marked, DatabaseError>;

    /// Notes what a sweep has packed.
    fn add_receipts(&self, receipts: &[Receipt]) -> Result<(), DatabaseError>;

    /// How many exceptions nobody has acknowledged.
    fn open_exceptions(&self) -> Result<u64, DatabaseError>;

    /// The exceptions of a day, acknowledged or not, of one stage.
    fn excepted(&self, day: Date, stage: Stage) -> Result<BTreeSet<String>, DatabaseError>;

    /// Lists exceptions, at most so many.
    fn list(&self, selection: &Selection, count: u32) -> Result<Vec<ListedException>, DatabaseError>;

    /// Acknowledges exceptions; says how many.
    fn acknowledge(&self, selection: &Selection, by: &str) -> Result<u64, DatabaseError>;

    /// Lets the days of exceptions be moved, or their sources be removed, again; says how many days.
    fn retry(&self, selection: &Selection) -> Result<u64, DatabaseError>;

    /// Takes the oldest day whose sources may go and that nobody works at.
    fn claim_cleanup(&self, worker: &str, delay: Duration, lease: Duration) -> Result<Claims, DatabaseError>;

    /// Ends the cleanup of a day; false where the claim is lost.
    fn mark_cleaned(&self, worker: &str, claim: Claim, cleaned: &Cleaned) -> Result<bool, DatabaseError>;
}
