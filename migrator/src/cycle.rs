//! A cycle: list the days that are due, then claim and move batch after batch until nothing is left.

use desfmt::document::{DOCUMENT_LEN_MAX, Identity};
use desfmt::{Date, Timestamp, layout};
use desstore::StoreErrorKind;

use crate::days::{Window, end_of, horizon};
use crate::error::MigrateError;
use crate::migrator::Migrator;
use crate::state::{Cutoff, Tally};
use crate::verify::unnamed;

/// Days that are listed in one transaction.
const DAYS_LISTED: usize = 1_000;

/// What a cycle has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CycleReport {
    /// What became of the rows of the days that were moved.
    pub tally: Tally,
    /// How many days that are.
    pub days: u64,
    /// How far the archive is now.
    pub archived_until: Option<Timestamp>,
    /// Exceptions that nobody has acknowledged.
    pub exceptions: u64,
    /// True where days are left, since the end was asked for.
    pub was_stopped: bool,
}

impl Migrator {
    /// Moves all that is due. What was marked stays, whatever comes after.
    pub async fn cycle(&self) -> Result<CycleReport, MigrateError> {
        let began = self.clock.monotonic();
        let outcome = Box::pin(self.run_cycle()).await;
        let status = if outcome.is_ok() { "success" } else { "failure" };
        self.metrics.cycles.with_label_values(&[status]).inc();
        self.metrics.duration.observe(self.clock.monotonic().saturating_sub(began).as_secs_f64());
        outcome
    }

    async fn run_cycle(&self) -> Result<CycleReport, MigrateError> {
        self.hold_name().await?;
        self.bind().await?;
        let cutoff = self.list_days().await?;
        self.look_ahead(&cutoff).await?;
        let (mut tally, mut days) = (Tally::default(), 0);
        let was_stopped = loop {
            if self.is_stopping() {
                break true;
            }
            let (worker, last) = (self.plan.worker.clone(), self.plan.last);
            let (count, lease) = (self.plan.batch_days, self.plan.lease);
            let claims = self.claimed(move |state| state.claim(&worker, last, count, lease)).await?;
            if claims.is_empty() {
                break false;
            }
            match Box::pin(self.batch(&claims)).await {
                Ok(moved) => {
                    tally.add(&moved);
                    days += u64::try_from(claims.len()).unwrap_or(u64::MAX);
                    self.bind().await?;
                }
                // Somebody else has the day: that is no failure, and there may be others.
                Err(MigrateError::Overtaken { day }) => tracing::warn!(%day, "another worker took this day over"),
                Err(error) => return Err(error),
            }
        };
        let archived_until = self.ask(|state| state.cutoff()).await?.archived_until;
        self.tell_lag(archived_until).await?;
        let exceptions = self.ask(|state| state.open_exceptions()).await?;
        self.metrics.exceptions.set(i64::try_from(exceptions).unwrap_or(i64::MAX));
        Ok(CycleReport { tally, days, archived_until, exceptions, was_stopped })
    }

    /// Makes sure that the tables of state are about this archive, once there is one.
    pub(crate) async fn bind(&self) -> Result<(), MigrateError> {
        let key = layout::identity();
        let identity = match self.store.get(&key, DOCUMENT_LEN_MAX).await {
            Ok(fetched) => fetched.bytes,
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(desstore::ArchiveError::from(error).into()),
        };
        let identity: Identity = desfmt::document::decode(&identity)
            .map_err(|error| MigrateError::refused(format!("{key} cannot be read: {error}")))?;
        let archive = identity.archive.to_string();
        let noted = archive.clone();
        if self.ask(move |state| state.bind(&noted)).await? {
            return Ok(());
        }
        Err(MigrateError::refused(format!(
            "the tables of state are about another archive than {archive}; each archive needs its own (state.schema)"
        )))
    }

    /// Lists the days with rows up to the horizon.
    async fn list_days(&self) -> Result<Cutoff, MigrateError> {
        let now = self.ask_source(|source| source.now()).await?;
        let undated = self.ask_source(|source| source.undated()).await?;
        if undated > 0 {
            let reason = format!("{undated} rows have no time, or one that is in no day");
            let exception = [unnamed(None, undated, reason)];
            self.ask(move |state| state.note(&exception, 0)).await?;
        }
        loop {
            let cutoff = self.ask(|state| state.cutoff()).await?;
            let end = horizon(now, cutoff.lag_days, self.plan.last);
            let mut window = Window::until(end);
            window.start = cutoff.planned_until.unwrap_or(window.start).max(window.start);
            let mut days = Vec::new();
            while days.len() < DAYS_LISTED && !window.is_empty() {
                let first = self.ask_source(move |source| source.first(window)).await?;
                let Some(day) = first.and_then(Date::of) else {
                    window.start = end;
                    break;
                };
                days.push(day);
                window.start = end_of(day);
            }
            let (listed, until) = (days.clone(), window.start);
            if cutoff.planned_until.is_none_or(|planned| planned < until) && until <= end {
                self.ask(move |state| state.plan(&listed, until)).await?;
            }
            if days.len() < DAYS_LISTED {
                return Ok(cutoff);
            }
        }
    }

    /// Estimates how much there is to do.
    async fn look_ahead(&self, cutoff: &Cutoff) -> Result<(), MigrateError> {
        let now = self.ask_source(|source| source.now()).await?;
        let mut window = Window::until(horizon(now, cutoff.lag_days, self.plan.last));
        window.start = cutoff.archived_until.unwrap_or(window.start);
        let rows = if window.is_empty() { 0 } else { self.ask_source(move |source| source.estimate(window)).await? };
        self.progress.expect(rows);
        self.metrics.pending.set(i64::try_from(rows).unwrap_or(i64::MAX));
        self.tell_lag(cutoff.archived_until).await
    }

    async fn tell_lag(&self, archived_until: Option<Timestamp>) -> Result<(), MigrateError> {
        if let Some(until) = archived_until {
            let now = self.ask_source(|source| source.now()).await?;
            self.metrics.lag.set(now.since(until).as_secs_f64());
        }
        Ok(())
    }
}
