//! A batch: some claimed days from their rows to the mark. Steps M1 to M6 of `docs/protocol.md`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use desfmt::Date;
use packer::{PackError, Proof, Report};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::days::Window;
use crate::error::MigrateError;
use crate::feed::{Page, Pages, RowFeed};
use crate::found::{DayFound, Found};
use crate::ledger::Ledger;
use crate::migrator::{Migrator, blocking};
use crate::rows::{Key, SourceRow, Which};
use crate::state::{Claim, DayMark, Exception, Marked, Stage, Tally};
use crate::verify::{Exceptions, Verifier, unnamed};

/// Pages that wait for the packer.
const PAGES_AHEAD: usize = 4;

/// Exceptions that are noted at once.
const EXCEPTIONS_AHEAD: usize = 4;

/// Where a scan over several windows is.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) windows: Vec<Window>,
    pub(crate) after: Option<Key>,
}

impl Position {
    /// Before the first row of some windows.
    pub(crate) fn start(mut windows: Vec<Window>) -> Self {
        windows.reverse();
        Self { windows, after: None }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.windows.is_empty()
    }
}

/// What a scan has handed out.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) rows: BTreeMap<Date, u64>,
}

/// Chooses which rows of a page are fed.
pub(crate) type Choice = Arc<dyn RowChoice>;

/// See [`Choice`].
#[async_trait::async_trait]
pub(crate) trait RowChoice: Send + Sync + std::fmt::Debug {
    /// The rows that are wanted.
    async fn choose(&self, rows: Vec<SourceRow>) -> Result<Vec<SourceRow>, MigrateError>;
}

impl Migrator {
    /// Moves some days and marks them. Not to be cancelled: its claims would stay until their lease runs out.
    pub(crate) async fn batch(&self, claims: &[Claim]) -> Result<Tally, MigrateError> {
        let keeper = self.keep(claims);
        let outcome = self.move_days(claims).await;
        keeper.abort();
        if outcome.is_err() {
            let (worker, claims) = (self.plan.worker.clone(), claims.to_vec());
            let state = Arc::clone(&self.state);
            // As far as possible: who cannot be told waits for the lease.
            if let Err(error) = blocking(move || state.release(&worker, &claims)).await? {
                tracing::debug!(%error, "claims stay until their lease runs out");
            }
        }
        outcome
    }

    /// Renews the leases until it is aborted.
    fn keep(&self, claims: &[Claim]) -> JoinHandle<()> {
        let (migrator, claims) = (self.clone(), claims.to_vec());
        tokio::spawn(async move {
            loop {
                migrator.clock.sleep(migrator.plan.lease / 4).await;
                let (worker, claims, lease) = (migrator.plan.worker.clone(), claims.clone(), migrator.plan.lease);
                let renewed = migrator.ask(move |state| state.renew(&worker, &claims, lease)).await;
                if !matches!(renewed, Ok(true)) {
                    // The mark will find out.
                    tracing::warn!("a lease was lost");
                    return;
                }
            }
        })
    }

    async fn move_days(&self, claims: &[Claim]) -> Result<Tally, MigrateError> {
        let (exceptions, noting) = self.take_exceptions(claims);
        let moved = self.move_rows(claims, &exceptions).await;
        drop(exceptions);
        // Where exceptions cannot be noted, that is the reason for whatever went wrong after.
        noting.await.map_err(MigrateError::died)??;
        let (mut days, nameless) = moved?;
        let marks = claims.iter().map(|claim| {
            let day = days.remove(&claim.day).unwrap_or_default();
            let mut tally = day.tally;
            let unnamed = nameless.get(&claim.day).copied().unwrap_or(0);
            tally.rows += unnamed;
            tally.exceptions += unnamed;
            DayMark { claim: *claim, tally, receipt: day.receipt(claim.day) }
        });
        let marks: Vec<DayMark> = marks.collect();
        self.mark(&marks).await
    }

    /// Packs and proves all rows of some days; says what became of them, and how many have no uid.
    async fn move_rows(
        &self,
        claims: &[Claim],
        exceptions: &Exceptions,
    ) -> Result<(BTreeMap<Date, DayFound>, BTreeMap<Date, u64>), MigrateError> {
        let mut days: BTreeMap<Date, DayFound> = BTreeMap::new();
        let mut position = Position::start(claims.iter().map(|claim| Window::of(claim.day)).collect());
        while !position.is_at_end() {
            let part;
            (position, part) = self.segment(position, None, exceptions, Stage::Migrate).await?;
            for (day, found) in part.into_days()? {
                days.entry(day).or_default().merge(found);
            }
        }
        Ok((days, self.nameless(claims, exceptions).await?))
    }

    async fn mark(&self, marks: &[DayMark]) -> Result<Tally, MigrateError> {
        let mut sum = Tally::default();
        for mark in marks {
            if mark.tally.accounted() != mark.tally.rows {
                let (rows, accounted) = (mark.tally.rows, mark.tally.accounted());
                return Err(MigrateError::Unaccounted { rows, accounted });
            }
            sum.add(&mark.tally);
        }
        let (worker, all) = (self.plan.worker.clone(), marks.to_vec());
        match self.ask(move |state| state.mark(&worker, &all)).await? {
            Marked::Done => {
                self.metrics.files.inc_by(sum.packed);
                self.metrics.bytes.inc_by(sum.bytes);
                let shards = marks.iter().filter_map(|mark| mark.receipt.as_ref()).map(|receipt| receipt.shards.len());
                self.metrics.shards.inc_by(u64::try_from(shards.sum::<usize>()).unwrap_or(u64::MAX));
                self.metrics.files_failed.inc_by(sum.exceptions);
                self.progress.end_days(u64::try_from(marks.len()).unwrap_or(u64::MAX));
                Ok(sum)
            }
            Marked::Overtaken(day) => Err(MigrateError::Overtaken { day }),
        }
    }

    /// Counts rows without a uid as exceptions.
    async fn nameless(&self, claims: &[Claim], exceptions: &Exceptions) -> Result<BTreeMap<Date, u64>, MigrateError> {
        let mut counts = BTreeMap::new();
        for claim in claims {
            let day = claim.day;
            let found = self.ask_source(move |source| source.nameless(Window::of(day))).await?;
            let note = |one: &crate::rows::Nameless| {
                unnamed(Some(one.created_at), one.rows, format!("{} rows of this time have no uid", one.rows))
            };
            let noted: Vec<Exception> = found.iter().map(note).collect();
            counts.insert(day, found.iter().map(|one| one.rows).sum());
            // Whoever takes them has failed, and tells why.
            drop(exceptions.send(noted).await);
        }
        Ok(counts)
    }

    /// Notes exceptions as they come, each under the claim of its day.
    pub(crate) fn take_exceptions(&self, claims: &[Claim]) -> (Exceptions, JoinHandle<Result<(), MigrateError>>) {
        let (exceptions, mut taken) = mpsc::channel::<Vec<Exception>>(EXCEPTIONS_AHEAD);
        let migrator = self.clone();
        let epochs: BTreeMap<Date, i64> = claims.iter().map(|claim| (claim.day, claim.epoch)).collect();
        let noting = tokio::spawn(async move {
            while let Some(some) = taken.recv().await {
                let mut by_epoch: BTreeMap<i64, Vec<Exception>> = BTreeMap::new();
                for exception in some {
                    let epoch = exception.day.and_then(|day| epochs.get(&day).copied()).unwrap_or(0);
                    by_epoch.entry(epoch).or_default().push(exception);
                }
                for (epoch, some) in by_epoch {
                    migrator.ask(move |state| state.note(&some, epoch)).await?;
                }
            }
            Ok(())
        });
        (exceptions, noting)
    }

    /// Packs and proves the next rows, as many as a batch may have.
    pub(crate) async fn segment(
        &self,
        position: Position,
        choice: Option<Choice>,
        exceptions: &Exceptions,
        stage: Stage,
    ) -> Result<(Position, Segment), MigrateError> {
        let (ledger, rest) = (self.ledger().await?, self.ledger().await?);
        let (sender, pages) = mpsc::channel(PAGES_AHEAD);
        let migrator = self.clone();
        let scanning = tokio::spawn(async move { migrator.scan(position, choice, sender).await });
        let verifier = Verifier { migrator: self.clone(), exceptions: exceptions.clone(), stage };
        // Ends with this function, whatever happens.
        let mut proving = JoinSet::new();
        proving.spawn(verifier.clone().prove(Arc::clone(&ledger), Arc::clone(&rest)));
        let packed = self.pack(pages, &ledger).await;
        // The scan's own error says more than that the packer got no more rows.
        let (position, scanned) = scanning.await.map_err(MigrateError::died)??;
        let repeated = packed?.repeated;
        let mut found = Found::default();
        while let Some(proven) = proving.join_next().await {
            found.merge(proven.map_err(MigrateError::died)??);
        }
        rest.end();
        found.merge(verifier.decide(rest).await?);
        let sum = |of: fn(&Tally) -> u64| found.days.values().map(|day| of(&day.tally)).sum();
        self.progress.end_packing(sum(Tally::accounted), sum(|tally| tally.bytes), sum(|tally| tally.exceptions));
        Ok((position, Segment { rows: scanned.rows, found, repeated }))
    }

    async fn ledger(&self) -> Result<Arc<Ledger>, MigrateError> {
        let spool = self.packing.spool.clone();
        let ledger = blocking(move || Ledger::create(&spool)).await?;
        ledger.map(Arc::new).map_err(MigrateError::disk("beginning a ledger in the spool"))
    }

    /// Packs all rows that come, and ends their ledger in any case.
    async fn pack(&self, pages: Pages, ledger: &Arc<Ledger>) -> Result<Report, PackError> {
        let _end = EndOf(Arc::clone(ledger));
        let feed = Arc::new(RowFeed::new(pages, Arc::clone(ledger), self.sources.clone()));
        let config = self.pack_config(feed, Arc::<Ledger>::clone(ledger));
        let packing = Arc::new(packer::Progress::counting(self.metrics.packing.clone()));
        self.progress.begin_packing(&packing);
        let (store, clock, random) = (Arc::clone(&self.store), Arc::clone(&self.clock), Arc::clone(&self.random));
        Box::pin(packer::pack::run(config, (store, Proof::given()), clock, random, packing)).await
    }

    /// Reads rows from a position on, until a batch is full; goes on where it was when the database comes back.
    async fn scan(
        &self,
        mut position: Position,
        choice: Option<Choice>,
        pages: mpsc::Sender<Page>,
    ) -> Result<(Position, Scanned), MigrateError> {
        let mut scanned = Scanned::default();
        let mut left = self.plan.batch_rows.max(1);
        while let Some(window) = position.windows.last().copied() {
            let (chosen, choosing) = choose(choice.clone(), pages.clone());
            let mut waiting = self.waiting();
            loop {
                let (source, sender, after) = (Arc::clone(&self.source), chosen.clone(), position.after.clone());
                let part = blocking(move || scan_part(source.as_ref(), window, (after, left), &sender)).await?;
                position.after = part.last;
                left = left.saturating_sub(part.rows);
                if part.rows > 0 {
                    waiting = self.waiting();
                }
                if let Some(day) = Date::of(window.start) {
                    *scanned.rows.entry(day).or_default() += part.rows;
                }
                match part.outcome {
                    Ok(()) => break,
                    Err(error) if error.is_transient() => waiting.pause(error).await?,
                    Err(error) => return Err(error.into()),
                }
            }
            drop(chosen);
            choosing.await.map_err(MigrateError::died)??;
            if left == 0 {
                break;
            }
            position.windows.pop();
            position.after = None;
        }
        let all: u64 = scanned.rows.values().sum();
        self.metrics.batch_size.set(i64::try_from(all).unwrap_or(i64::MAX));
        // The packer may have failed and want no more.
        drop(pages.send(Page::End).await);
        Ok((position, scanned))
    }
}

/// Ends a ledger whatever happens: somebody waits for the end.
struct EndOf(Arc<Ledger>);

impl Drop for EndOf {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Puts a choice between the scan and the packer, where there is one.
fn choose(
    choice: Option<Choice>,
    pages: mpsc::Sender<Page>,
) -> (mpsc::Sender<Vec<SourceRow>>, JoinHandle<Result<(), MigrateError>>) {
    let (sender, mut rows) = mpsc::channel::<Vec<SourceRow>>(PAGES_AHEAD);
    let choosing = tokio::spawn(async move {
        while let Some(page) = rows.recv().await {
            let page = match &choice {
                Some(choice) => choice.choose(page).await?,
                None => page,
            };
            if !page.is_empty() && pages.send(Page::Rows(page)).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    (sender, choosing)
}

/// What one attempt at a scan has given.
struct Part {
    last: Option<Key>,
    rows: u64,
    outcome: Result<(), crate::error::DatabaseError>,
}

fn scan_part(
    source: &dyn crate::rows::RowSource,
    window: Window,
    (mut last, left): (Option<Key>, u64),
    pages: &mpsc::Sender<Vec<SourceRow>>,
) -> Part {
    let mut rows = 0_u64;
    let outcome = source.scan(window, Which::Waiting, last.clone(), &mut |page| {
        let Some(end) = page.last().map(SourceRow::key) else { return ControlFlow::Continue(()) };
        let count = u64::try_from(page.len()).unwrap_or(u64::MAX);
        if pages.blocking_send(page).is_err() {
            return ControlFlow::Break(());
        }
        rows += count;
        last = Some(end);
        if rows >= left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    Part { last, rows, outcome }
}

/// What was read, and what became of it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) rows: BTreeMap<Date, u64>,
    pub(crate) found: Found,
    /// Rows that say what others say; the packer tells of them only how many they are.
    repeated: u64,
}

impl Segment {
    /// What was found by days, with all rows accounted for.
    pub(crate) fn into_days(mut self) -> Result<BTreeMap<Date, DayFound>, MigrateError> {
        let mut repeated = 0_u64;
        for (day, rows) in &self.rows {
            let part = self.found.days.entry(*day).or_default();
            let accounted = part.tally.accounted();
            part.tally.rows = *rows;
            let more = rows.checked_sub(accounted);
            part.tally.repeated = more.ok_or(MigrateError::Unaccounted { rows: *rows, accounted })?;
            repeated += part.tally.repeated;
        }
        if repeated != self.repeated {
            let rows = self.rows.values().sum();
            return Err(MigrateError::Unaccounted { rows, accounted: self.found.accounted() });
        }
        Ok(self.found.days)
    }
}
