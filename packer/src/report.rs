//! The outcome of a run, for people and for machines.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::issue::{Issue, IssueCounts};
use crate::plan::Plan;
use crate::size::ByteSize;

/// What a run did. As JSON it is the `summary` of the report file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// True when nothing was to be written.
    pub dry_run: bool,
    /// The archive's number of bits.
    pub n_bits: u8,
    /// Rows of the input.
    pub rows: u64,
    /// Files that were published.
    pub files: u64,
    /// Their lengths together.
    pub bytes_in: u64,
    /// The lengths of the objects that hold them.
    pub bytes_out: u64,
    /// Shards that were published.
    pub shards: u64,
    /// Those of them that an earlier run had uploaded already.
    pub adopted: u64,
    /// Files that the archive held already, with the same content.
    pub present: u64,
    /// Those of them whose source is gone, so that only what the row says could be compared.
    pub sources_gone: u64,
    /// Rows that repeat another one.
    pub repeated: u64,
    /// Files in groups that other workers pack.
    pub of_others: u64,
    /// Rows whose uid was deleted from its day.
    pub deleted: u64,
    /// Rows whose uid stands for other content already.
    pub conflicts: u64,
    /// Rows that are broken, or whose file is.
    pub failed: u64,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// What was planned.
    #[serde(skip)]
    pub plan: Option<Plan>,
    /// The first rows that were left out; the report file has all.
    #[serde(skip)]
    pub issues: Vec<Issue>,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// What was published so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) files: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) shards: u64,
    pub(crate) adopted: u64,
    pub(crate) present: u64,
    pub(crate) sources_gone: u64,
}

impl Published {
    pub(crate) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.shards += other.shards;
        self.adopted += other.adopted;
        self.present += other.present;
        self.sources_gone += other.sources_gone;
    }
}

impl Report {
    /// True when every row is in the archive, or would be.
    pub const fn is_clean(&self) -> bool {
        self.left_out() == 0
    }

    /// How many rows were left out.
    pub const fn left_out(&self) -> u64 {
        self.failed.saturating_add(self.conflicts).saturating_add(self.deleted)
    }

    pub(crate) fn new(rows: u64, plan: Plan, published: Published, issues: IssueCounts) -> Self {
        Self {
            dry_run: false,
            n_bits: plan.bits.get(),
            rows,
            files: published.files,
            bytes_in: published.bytes_in,
            bytes_out: published.bytes_out,
            shards: published.shards,
            adopted: published.adopted,
            present: published.present,
            sources_gone: published.sources_gone,
            repeated: plan.repeated,
            of_others: plan.of_others.files,
            deleted: issues.deleted,
            conflicts: issues.conflicts,
            failed: issues.failed,
            elapsed: Duration::ZERO,
            plan: Some(plan),
            issues: Vec::new(),
        }
    }

    fn ratio(&self) -> String {
        let hundredths = u128::from(self.bytes_in) * 100 / u128::from(self.bytes_out.max(1));
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    }

    fn rate(&self) -> ByteSize {
        let millis = self.elapsed.as_millis().max(1);
        ByteSize(u64::try_from(u128::from(self.bytes_in) * 1_000 / millis).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = self.elapsed.as_secs_f64();
        if self.dry_run {
            if let Some(plan) = &self.plan {
                writeln!(f, "{plan}")?;
            }
            writeln!(f, "dry run: nothing was written")?;
        } else {
            let (bytes_in, bytes_out) = (ByteSize(self.bytes_in), ByteSize(self.bytes_out));
            write!(f, "packed     {} files", self.files)?;
            if self.files > 0 {
                write!(f, ", {bytes_in} into {bytes_out}, ratio {}", self.ratio())?;
            }
            writeln!(f)?;
            write!(f, "shards     {}", self.shards)?;
            if self.adopted > 0 {
                write!(f, ", {} of them uploaded by an earlier run", self.adopted)?;
            }
            writeln!(f)?;
            write!(f, "present    {}", self.present)?;
            if self.sources_gone > 0 {
                write!(f, ", {} of them with a source that is gone", self.sources_gone)?;
            }
            writeln!(f)?;
        }
        for (name, count) in [("repeated", self.repeated), ("others", self.of_others)] {
            if count > 0 {
                writeln!(f, "{name:10} {count}")?;
            }
        }
        writeln!(f, "deleted    {}", self.deleted)?;
        writeln!(f, "conflicts  {}", self.conflicts)?;
        writeln!(f, "failed     {}", self.failed)?;
        write!(f, "time       {elapsed:.2} s")?;
        if self.files > 0 {
            write!(f, ", {}/s", self.rate())?;
        }
        Ok(())
    }
}
