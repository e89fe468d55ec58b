//! The first pass over the input: every row is checked and spooled, and the volume of each day is summed up.

use std::collections::BTreeMap;
use std::io;

use desfmt::Date;

use super::{Config, Run};
use crate::error::PackError;
use crate::input::RowSink;
use crate::issue::{Issue, IssueLog, Outcome};
use crate::plan::Volume;
use crate::progress::Progress;
use crate::rows::{Row, RowLog, RowLogWriter};

/// The rows of the input that can be packed.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) rows: RowLog,
    pub(crate) days: BTreeMap<Date, Volume>,
    /// All rows, also those that cannot.
    pub(crate) count: u64,
}

struct Spooling<'a> {
    writer: RowLogWriter<'a>,
    days: BTreeMap<Date, Volume>,
    count: u64,
    issues: &'a IssueLog,
    progress: &'a Progress,
}

impl Run {
    /// Reads the whole input; blocks.
    pub(crate) fn read_input(&self) -> Result<Intake, PackError> {
        self.pool.install(|| self.read_rows())
    }

    fn read_rows(&self) -> Result<Intake, PackError> {
        let mut spooling = Spooling {
            writer: RowLogWriter::new(&self.spool),
            days: BTreeMap::new(),
            count: 0,
            issues: &self.issues,
            progress: &self.progress,
        };
        let Config { input, times, sources, .. } = &self.config;
        input.read(times, sources.buckets.as_ref(), &mut spooling)?;
        let rows = spooling.writer.finish().map_err(|source| PackError::spool("rows", source))?;
        Ok(Intake { rows, days: spooling.days, count: spooling.count })
    }
}

impl RowSink for Spooling<'_> {
    fn accept(&mut self, row: Row) -> io::Result<()> {
        self.count += 1;
        self.progress.row_read();
        if let Err(error) = self.writer.encode(&row)? {
            self.issues.leave_out(Outcome::Failed, &row, error.to_string());
            return Ok(());
        }
        self.days.entry(row.date).or_default().add(row.len);
        Ok(())
    }

    fn reject(&mut self, issue: Issue) {
        self.count += 1;
        self.progress.row_read();
        self.issues.push(issue);
    }
}
