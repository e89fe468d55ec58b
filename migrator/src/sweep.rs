//! Late rows: those that came below the cutoff after their day was moved. They are found by looking up every row, and moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use desfmt::{Date, Uid};
use desstore::{Archive, ArchiveError};

use crate::batch::{Position, RowChoice};
use crate::days::Window;
use crate::error::MigrateError;
use crate::found::DayFound;
use crate::migrator::Migrator;
use crate::rows::SourceRow;
use crate::state::{Receipt, Stage, Tally};
use crate::verify::Reading;

/// What a sweep has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Late rows, by what became of them; rows that were in their place are not counted.
    pub late: Tally,
}

impl Migrator {
    /// Finds late rows and moves them.
    pub async fn sweep(&self) -> Result<SweepReport, MigrateError> {
        self.hold_name().await?;
        self.bind().await?;
        let cutoff = self.ask(|state| state.cutoff()).await?;
        let Some(until) = cutoff.archived_until else { return Ok(SweepReport::default()) };
        let archive = match self.reading().open().await {
            Ok(archive) => Some(archive),
            Err(ArchiveError::Refused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let missing = Arc::new(Missing { reading: self.reading(), archive });
        let (exceptions, noting) = self.take_exceptions(&[]);
        let swept = self.sweep_window(Window::until(until), &missing, &exceptions).await;
        drop(exceptions);
        noting.await.map_err(MigrateError::died)??;
        let late = swept?;
        self.metrics.late_files.inc_by(late.packed);
        Ok(SweepReport { late })
    }

    async fn sweep_window(
        &self,
        window: Window,
        missing: &Arc<Missing>,
        exceptions: &crate::verify::Exceptions,
    ) -> Result<Tally, MigrateError> {
        let mut late = Tally::default();
        let mut position = Position::start(vec![window]);
        while !position.is_at_end() {
            let part;
            let choice: Arc<dyn RowChoice> = Arc::<Missing>::clone(missing);
            (position, part) = self.segment(position, Some(choice), exceptions, Stage::Sweep).await?;
            let days: BTreeMap<Date, DayFound> = part.found.days;
            let receipts: Vec<Receipt> = days.iter().filter_map(|(day, found)| found.receipt(*day)).collect();
            if !receipts.is_empty() {
                self.ask(move |state| state.add_receipts(&receipts)).await?;
            }
            for found in days.values() {
                late.add(&found.tally);
            }
            if self.is_stopping() {
                break;
            }
        }
        Ok(late)
    }
}

/// Chooses the rows that the archive does not hold.
#[derive(Debug)]
struct Missing {
    reading: Reading,
    archive: Option<Arc<Archive>>,
}

impl Missing {
    async fn is_missing(&self, row: &SourceRow) -> Result<bool, ArchiveError> {
        let (Some(archive), Ok(uid), Some(day)) = (&self.archive, Uid::new(row.uid.as_str()), Date::of(row.created_at))
        else {
            return Ok(true);
        };
        if archive.lookup(day, &uid).await?.is_some() {
            return Ok(false);
        }
        Ok(!self.reading.is_deleted(day, &uid).await?)
    }
}

#[async_trait::async_trait]
impl RowChoice for Missing {
    async fn choose(&self, rows: Vec<SourceRow>) -> Result<Vec<SourceRow>, MigrateError> {
        let mut missing = Vec::new();
        for row in rows {
            if self.is_missing(&row).await? {
                missing.push(row);
            }
        }
        Ok(missing)
    }
}
