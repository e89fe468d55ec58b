//! What a run of des-repack has done or would do, for people and as JSON.

use std::error::Error;
use std::fmt;

use desfmt::{Date, Timestamp};
use desstore::Folded;
use desstore::repack::{Job, Repacked};
use serde::Serialize;

use crate::program::reason_of;
use crate::size::ByteSize;

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobLine {
    /// The day, YYYYMMDD.
    pub date: String,
    /// The shards that give way.
    pub shards: Vec<String>,
    /// Why.
    pub reason: String,
    /// `planned`, `swapped`, `dropped`, `nothing` or `overtaken`.
    pub outcome: &'static str,
    /// Files taken out.
    pub files_dropped: u64,
    /// Bytes read from the store; when planned, an estimate.
    pub bytes_read: u64,
    /// Bytes written to the store, and read back; when planned, an estimate.
    pub bytes_written: u64,
    /// How much smaller the archive is when the old version is gone.
    pub bytes_saved: u64,
    /// Requests; an estimate always.
    pub requests: u64,
    /// Frames taken over as they were stored.
    pub frames_copied: u64,
    /// Frames compressed anew.
    pub frames_encoded: u64,
}

impl JobLine {
    /// What a job will come to, about.
    pub fn planned(date: Date, job: &Job) -> Self {
        let old: u64 = job.shards.iter().map(|shard| shard.len).sum();
        Self {
            date: date.to_string(),
            shards: job.shards.iter().map(|shard| shard.key.to_string()).collect(),
            reason: job.reason.to_string(),
            outcome: "planned",
            files_dropped: job.dead_entries,
            bytes_read: job.bytes_read(),
            bytes_written: job.bytes_written(),
            bytes_saved: old.saturating_sub(job.bytes_written()),
            requests: job.requests(),
            frames_copied: 0,
            frames_encoded: 0,
        }
    }
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepackReport {
    /// True when nothing was changed.
    pub dry_run: bool,
    /// Records of deletions taken into folded sets.
    pub records_folded: u64,
    /// Records removed that had been taken in before.
    pub records_removed: u64,
    /// All jobs.
    pub jobs: Vec<JobLine>,
    /// Days and shards that failed, and why.
    pub failures: Vec<(String, String)>,
    /// When the oldest deletion was made that is not proven to be carried out, in microseconds since 1970.
    pub oldest_deletion: Option<i64>,
}

impl RepackReport {
    pub(super) fn folded(&mut self, folded: Folded) {
        self.records_folded += folded.taken_in;
        self.records_removed += folded.removed;
    }

    pub(super) fn failed(&mut self, what: String, error: &(dyn Error + 'static)) {
        self.failures.push((what, reason_of(error)));
    }

    pub(super) fn planned(&mut self, line: JobLine) {
        self.jobs.push(line);
    }

    pub(super) fn done(&mut self, planned: JobLine, repacked: &Repacked) {
        let old = planned.bytes_read.max(planned.bytes_saved + planned.bytes_written);
        let (outcome, done) = match repacked {
            Repacked::Swapped(done) => ("swapped", *done),
            Repacked::Dropped(done) => ("dropped", *done),
            Repacked::Nothing => ("nothing", desstore::repack::Done::default()),
            Repacked::Overtaken => ("overtaken", desstore::repack::Done::default()),
        };
        let is_done = matches!(repacked, Repacked::Swapped(_) | Repacked::Dropped(_));
        self.jobs.push(JobLine {
            outcome,
            files_dropped: done.files_dropped,
            bytes_read: done.bytes_read,
            bytes_written: done.bytes_written,
            bytes_saved: if is_done { old.saturating_sub(done.bytes_written) } else { 0 },
            frames_copied: done.frames_copied,
            frames_encoded: done.frames_encoded,
            ..planned
        });
    }

    pub(super) fn note_oldest(&mut self, oldest: Option<Timestamp>) {
        let both = self.oldest_deletion.into_iter().chain(oldest.map(Timestamp::micros));
        self.oldest_deletion = both.min();
    }

    /// True when nothing failed.
    pub const fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }

    fn sum(&self, of: impl Fn(&JobLine) -> u64) -> u64 {
        self.jobs.iter().map(of).sum()
    }
}

impl fmt::Display for RepackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.jobs {
            writeln!(
                f,
                "{}: {} for {}: {} files out, {} read, {} written, {} saved",
                line.shards.join(" + "),
                line.outcome,
                line.reason,
                line.files_dropped,
                ByteSize(line.bytes_read),
                ByteSize(line.bytes_written),
                ByteSize(line.bytes_saved),
            )?;
        }
        let verb = if self.dry_run { "would repack" } else { "repacked" };
        write!(
            f,
            "{verb} {} shards: {} files out, {} read, {} written, {} saved",
            self.jobs.iter().map(|line| line.shards.len()).sum::<usize>(),
            self.sum(|line| line.files_dropped),
            ByteSize(self.sum(|line| line.bytes_read)),
            ByteSize(self.sum(|line| line.bytes_written)),
            ByteSize(self.sum(|line| line.bytes_saved)),
        )?;
        if self.dry_run {
            write!(f, ", about {} requests", self.sum(|line| line.requests))
        } else {
            write!(f, "; {} records folded, {} removed", self.records_folded, self.records_removed)
        }
    }
}
