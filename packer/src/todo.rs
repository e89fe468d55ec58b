//! What of a planned shard is still to be done. A row that was settled stays so, however often the shard is built again.

use std::io;
use std::sync::Arc;

use desfmt::{Digest, ShardName, Uid};

use crate::error::PackError;
use crate::issue::{IssueLog, Outcome};
use crate::pack::Run;
use crate::plan::ShardPlan;
use crate::progress::Progress;
use crate::rows::{Row, RowLog, RowReader};
use crate::source::Sources;
use crate::witness::Fate;

/// The rows of one planned shard, and which of them are settled.
#[derive(Debug)]
pub(crate) struct Todo {
    log: RowLog,
    plan: ShardPlan,
    settled: Vec<bool>,
    bytes_left: u64,
    issues: Arc<IssueLog>,
    progress: Arc<Progress>,
    sources: Sources,
    /// Files and bytes that this attempt has told the progress of.
    told: (u64, u64),
}

impl Todo {
    pub(crate) fn new(log: RowLog, plan: ShardPlan, run: &Run) -> Self {
        let (issues, progress) = (Arc::clone(&run.issues), Arc::clone(&run.progress));
        let sources = run.config.sources.clone();
        let settled = vec![false; usize::try_from(plan.volume.files).unwrap_or(usize::MAX)];
        let bytes_left = plan.volume.bytes;
        Self { log, plan, settled, bytes_left, issues, progress, sources, told: (0, 0) }
    }

    /// Declared bytes of what is not settled.
    pub(crate) const fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    /// Walks over what is not settled.
    pub(crate) fn rows(&self) -> TodoRows {
        TodoRows { reader: self.log.read(self.plan.rows.clone(), 64 << 10), position: 0 }
    }

    /// The uids of what is not settled.
    pub(crate) fn uids(&self) -> Result<Vec<Uid>, PackError> {
        let mut rows = self.rows();
        let mut uids = Vec::new();
        while let Some((_, row)) = rows.next_row(self)? {
            uids.push(row.uid);
        }
        Ok(uids)
    }

    /// Settles a row with an issue.
    pub(crate) fn settle(&mut self, position: usize, outcome: Outcome, row: &Row, reason: impl Into<String>) {
        self.issues.leave_out(outcome, row, reason);
        self.settle_quietly(position, row);
    }

    /// Settles a row that the archive holds already.
    pub(crate) fn settle_present(&mut self, position: usize, row: &Row, digest: Digest) {
        self.issues.tell(row, &Fate::Present { digest });
        self.settle_quietly(position, row);
    }

    /// Tells the witness that what was not settled is published, with these digests, in a shard.
    pub(crate) fn tell_packed(&self, digests: &[Digest], shard: ShardName) -> Result<(), PackError> {
        let mut rows = self.rows();
        for digest in digests {
            let Some((_, row)) = rows.next_row(self)? else { break };
            self.issues.tell(&row, &Fate::Packed { digest: *digest, shard });
        }
        Ok(())
    }

    /// True where somebody wants to know of every row.
    pub(crate) fn has_witness(&self) -> bool {
        self.issues.has_witness()
    }

    /// Where the bytes of its rows are read from.
    pub(crate) const fn sources(&self) -> &Sources {
        &self.sources
    }

    fn settle_quietly(&mut self, position: usize, row: &Row) {
        if let Some(settled) = self.settled.get_mut(position) {
            *settled = true;
        }
        self.bytes_left = self.bytes_left.saturating_sub(row.len);
        self.progress.done(1, row.len);
    }

    /// Shows that a row was packed; it is settled only when its shard is published.
    pub(crate) fn progressed(&mut self, row: &Row) {
        self.told = (self.told.0 + 1, self.told.1 + row.len);
        self.progress.done(1, row.len);
    }

    /// What was packed and not published must be done once more.
    pub(crate) fn start_again(&mut self) {
        let (files, bytes) = std::mem::take(&mut self.told);
        self.progress.undone(files, bytes);
    }
}

/// A walk over rows that are not settled.
#[derive(Debug)]
pub(crate) struct TodoRows {
    reader: RowReader,
    position: usize,
}

impl TodoRows {
    /// The next row that is not settled, with its place in the shard.
    pub(crate) fn next_row(&mut self, todo: &Todo) -> Result<Option<(usize, Row)>, PackError> {
        loop {
            let Some(row) = self.reader.next_row().map_err(rows_error)? else {
                return Ok(None);
            };
            let position = self.position;
            self.position += 1;
            if !todo.settled.get(position).copied().unwrap_or(true) {
                return Ok(Some((position, row.decode().map_err(rows_error)?)));
            }
        }
    }
}

fn rows_error(source: io::Error) -> PackError {
    PackError::spool("rows", source)
}
