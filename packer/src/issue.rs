//! What became of the rows that were not packed: counted, the first thousand kept, all of them in the report file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::limits;
use crate::rows::Row;
use crate::witness::{Fate, Witness};

/// Why a row was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The row is broken, or its file cannot be read as the row describes it.
    Failed,
    /// The archive holds other content under this uid; it stays.
    Conflict,
    /// The uid was deleted from its day and cannot come back.
    Deleted,
}

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// What became of it.
    pub outcome: Outcome,
    /// Which row of the input, from 1; none for what a directory walk met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// Its uid, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Where its bytes are, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why, in words.
    pub reason: String,
}

impl Issue {
    /// What became of a row that was understood.
    pub(crate) fn of_row(outcome: Outcome, row: &Row, reason: impl Into<String>) -> Self {
        Self {
            outcome,
            row: Some(row.number).filter(|number| *number > 0),
            uid: Some(row.uid.to_string()),
            source: Some(row.source.to_string_lossy().into_owned()),
            reason: reason.into(),
        }
    }
}

/// How many rows were left out, by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IssueCounts {
    /// See [`Outcome::Failed`].
    pub failed: u64,
    /// See [`Outcome::Conflict`].
    pub conflicts: u64,
    /// See [`Outcome::Deleted`].
    pub deleted: u64,
}

/// Gathers issues from all threads.
#[derive(Debug)]
pub(crate) struct IssueLog {
    state: Mutex<State>,
    witness: Option<Arc<dyn Witness>>,
}

#[derive(Debug, Default)]
struct State {
    counts: IssueCounts,
    kept: Vec<Issue>,
    file: Option<ReportFile>,
    broken: Option<io::Error>,
}

/// The report while it is written: beside its final name, so that a report of that name is always whole.
#[derive(Debug)]
struct ReportFile {
    out: BufWriter<File>,
    rows: u64,
    rename: Option<(PathBuf, PathBuf)>,
}

impl IssueLog {
    /// Starts a log that also writes to a report file and tells a witness.
    pub(crate) fn open(report: Option<&Path>, witness: Option<Arc<dyn Witness>>) -> io::Result<Self> {
        let file = report.map(ReportFile::create).transpose()?;
        Ok(Self { state: Mutex::new(State { file, ..State::default() }), witness })
    }

    /// Leaves out a row that was understood. A witness that cannot take it is told by [`Self::finish`].
    pub(crate) fn leave_out(&self, outcome: Outcome, row: &Row, reason: impl Into<String>) {
        let reason = reason.into();
        self.tell(row, &Fate::LeftOut { outcome, reason: &reason });
        self.push(Issue::of_row(outcome, row, reason));
    }

    /// Tells the witness, if there is one.
    pub(crate) fn tell(&self, row: &Row, fate: &Fate<'_>) {
        if let Some(witness) = &self.witness
            && let Err(error) = witness.settled(row, fate)
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.broken.get_or_insert(error);
        }
    }

    /// True where somebody wants to know of every row.
    pub(crate) const fn has_witness(&self) -> bool {
        self.witness.is_some()
    }

    /// Takes one issue. A report file that cannot be written is told by [`Self::finish`].
    pub(crate) fn push(&self, issue: Issue) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match issue.outcome {
            Outcome::Failed => state.counts.failed += 1,
            Outcome::Conflict => state.counts.conflicts += 1,
            Outcome::Deleted => state.counts.deleted += 1,
        }
        if state.broken.is_none()
            && let Some(file) = &mut state.file
            && let Err(error) = file.push(&issue)
        {
            state.broken = Some(error);
        }
        if state.kept.len() < limits::ISSUES_KEPT {
            state.kept.push(issue);
        }
    }

    /// What was counted so far.
    pub(crate) fn counts(&self) -> IssueCounts {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// The first issues, of bounded number.
    pub(crate) fn kept(&self) -> Vec<Issue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
    }

    /// Ends the report file with a summary.
    pub(crate) fn finish(&self, summary: &impl Serialize) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.broken.take() {
            return Err(error);
        }
        state.file.take().map_or(Ok(()), |file| file.finish(summary))
    }
}

impl ReportFile {
    fn create(path: &Path) -> io::Result<Self> {
        // A pipe or a terminal is written to directly; only a file can be put in place whole.
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let (target, rename) = if is_special {
            (path.to_owned(), None)
        } else {
            let mut beside = path.as_os_str().to_owned();
            beside.push(".part");
            (PathBuf::from(&beside), Some((PathBuf::from(beside), path.to_owned())))
        };
        let mut out = BufWriter::new(File::create(target)?);
        out.write_all(b"{\"rows\":[")?;
        Ok(Self { out, rows: 0, rename })
    }

    fn push(&mut self, issue: &Issue) -> io::Result<()> {
        self.out.write_all(if self.rows == 0 { b"\n" } else { b",\n" })?;
        self.rows += 1;
        Ok(serde_json::to_writer(&mut self.out, issue)?)
    }

    fn finish(mut self, summary: &impl Serialize) -> io::Result<()> {
        self.out.write_all(b"],\n\"summary\":")?;
        serde_json::to_writer(&mut self.out, summary)?;
        self.out.write_all(b"}\n")?;
        self.out.flush()?;
        self.rename.map_or(Ok(()), |(from, to)| fs::rename(from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(number: u64) -> Issue {
        Issue { outcome: Outcome::Failed, row: Some(number), uid: None, source: None, reason: "no uid".to_owned() }
    }

    #[test]
    fn the_report_holds_every_issue_and_the_summary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let log = IssueLog::open(Some(&path), None).unwrap();
        for number in 1..=1_500 {
            log.push(issue(number));
        }

        log.finish(&serde_json::json!({"failed": log.counts().failed})).unwrap();

        let report: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(report["rows"].as_array().unwrap().len(), 1_500);
        assert_eq!(report["rows"][7]["row"], 8);
        assert_eq!(report["summary"]["failed"], 1_500);
        assert_eq!(log.kept().len(), limits::ISSUES_KEPT);
        assert!(!dir.path().join("report.json.part").try_exists().unwrap());
    }
}
