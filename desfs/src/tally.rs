//! What a mount has done, in figures, and its trouble, in a log that trouble cannot flood.
//!
//! A cause is logged when it turns up. While it goes on only its requests are counted, and told now and then by
//! [`Tally::settle`]: a store that is down is one line every few minutes and not one for each read.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use desstore::Clock;

use crate::core::FsError;
use crate::limits::{CAUSE_SILENCE, CAUSES_MAX};
use crate::metrics::MountMetrics;

/// The figures and the trouble of one mount.
#[derive(Debug)]
pub struct Tally {
    clock: Arc<dyn Clock>,
    answered: AtomicU64,
    failed: AtomicU64,
    deleted: AtomicU64,
    writes_dropped: AtomicU64,
    causes: Mutex<Causes>,
    metrics: Option<MountMetrics>,
}

/// What a mount has done since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Requests that needed the archive.
    pub answered: u64,
    /// Those of them that could not be served.
    pub failed: u64,
    /// Files deleted.
    pub deleted: u64,
    /// Writes that reached the mount, which root's can without `strict`, and were refused.
    pub writes_dropped: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, failed, deleted, writes_dropped } = self;
        write!(f, "{answered} requests, {failed} failed, {deleted} files deleted, {writes_dropped} writes dropped")
    }
}

impl Tally {
    /// Begins at nothing.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            writes_dropped: AtomicU64::new(0),
            causes: Mutex::default(),
            metrics: None,
        }
    }

    /// The same, counting for others too.
    #[must_use]
    pub fn counting(mut self, metrics: MountMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// What has been done so far.
    pub fn figures(&self) -> Figures {
        Figures {
            answered: self.answered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            deleted: self.deleted.load(Ordering::Relaxed),
            writes_dropped: self.writes_dropped.load(Ordering::Relaxed),
        }
    }

    /// Notes what became of a request that began at `began`. Trouble is logged here, where it ends.
    pub(crate) fn note<T>(&self, operation: &'static str, result: &Result<T, FsError>, began: Duration) {
        if let Some(metrics) = &self.metrics {
            metrics.note(operation, result, self.clock.monotonic().saturating_sub(began));
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result
            && error.is_trouble()
        {
            self.failed.fetch_add(1, Ordering::Relaxed);
            let cause = cause_of(error);
            if self.causes().admit(&cause, self.clock.monotonic()) {
                tracing::warn!(operation, cause, "request not served");
            }
        }
    }

    /// Notes a deletion.
    pub(crate) fn deleted(&self) {
        self.deleted.fetch_add(1, Ordering::Relaxed);
        if let Some(metrics) = &self.metrics {
            metrics.deleted();
        }
    }

    /// Notes a write whose bytes are dropped.
    pub(crate) fn write_dropped(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.write_dropped();
        }
        if self.writes_dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("something writes to files; what it writes is dropped, and further writes are only counted");
        }
    }

    /// Tells how often old trouble came again. To be called now and then.
    pub fn settle(&self) {
        let (again, others) = self.causes().settle(self.clock.monotonic());
        for (cause, requests) in again {
            tracing::warn!(cause, requests, "more requests not served since");
        }
        if others > 0 {
            tracing::warn!(requests = others, "requests not served for still other causes");
        }
    }

    fn causes(&self) -> std::sync::MutexGuard<'_, Causes> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes, in words.
fn cause_of(error: &FsError) -> String {
    let FsError::Archive(error) = error else { return error.to_string() };
    crate::exit::reason_of(error)
}

/// The causes that were logged lately.
#[derive(Debug, Default)]
struct Causes {
    known: HashMap<String, Known>,
    /// Requests that failed while there was no room for another cause.
    others: u64,
}

#[derive(Debug)]
struct Known {
    logged_at: Duration,
    again: u64,
}

impl Causes {
    /// True when a cause is to be logged.
    fn admit(&mut self, cause: &str, now: Duration) -> bool {
        if let Some(known) = self.known.get_mut(cause) {
            known.again += 1;
            return false;
        }
        if self.known.len() >= CAUSES_MAX {
            self.others += 1;
            return false;
        }
        self.known.insert(cause.to_owned(), Known { logged_at: now, again: 0 });
        true
    }

    /// Forgets causes that are old enough, and returns those that came again, and how many requests had no room.
    fn settle(&mut self, now: Duration) -> (Vec<(String, u64)>, u64) {
        let is_old = |known: &Known| now.saturating_sub(known.logged_at) >= CAUSE_SILENCE;
        let mut again: Vec<_> = self.known.extract_if(|_, known| is_old(known)).collect();
        again.retain(|(_, known)| known.again > 0);
        again.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (cause, _) in &again {
            // It is known to go on.
            self.known.insert(cause.clone(), Known { logged_at: now, again: 0 });
        }
        (again.into_iter().map(|(cause, known)| (cause, known.again)).collect(), std::mem::take(&mut self.others))
    }
}

#[cfg(test)]
mod tests {
    use desfmt::Timestamp;
    use desstore::ManualClock;

    use super::*;

    const START: Duration = Duration::ZERO;

    #[test]
    fn a_cause_is_logged_once_and_then_counted() {
        let mut causes = Causes::default();
        assert!(causes.admit("store down", START));
        assert!(causes.admit("another", START));
        for _ in 0..1_000 {
            assert!(!causes.admit("store down", START));
        }

        assert_eq!(causes.settle(START), (Vec::new(), 0));
        assert_eq!(causes.settle(CAUSE_SILENCE), (vec![("store down".to_owned(), 1_000)], 0));
    }

    #[test]
    fn a_cause_that_goes_on_stays_known_and_one_that_ended_is_news_again() {
        let mut causes = Causes::default();
        causes.admit("on", START);
        causes.admit("on", START);
        causes.admit("off", START);
        causes.settle(CAUSE_SILENCE);

        assert!(!causes.admit("on", CAUSE_SILENCE));
        assert!(causes.admit("off", CAUSE_SILENCE));
    }

    #[test]
    fn many_causes_do_not_flood_the_log_or_memory() {
        let mut causes = Causes::default();

        let logged = (0..100_000).filter(|number| causes.admit(&format!("cause {number}"), START)).count();

        assert_eq!((logged, causes.known.len()), (CAUSES_MAX, CAUSES_MAX));
        let (again, others) = causes.settle(CAUSE_SILENCE);
        assert_eq!((again.len(), usize::try_from(others).unwrap()), (0, 100_000 - CAUSES_MAX));
        assert!(causes.known.is_empty());
    }

    #[test]
    fn only_trouble_counts_as_failed() {
        let tally = Tally::new(Arc::new(ManualClock::new(Timestamp::from_micros(0))));

        tally.note("read", &Ok(()), START);
        tally.note::<()>("lookup", &Err(FsError::NoEntry), START);
        tally.note::<()>("read", &Err(FsError::DeadlineExceeded), START);
        tally.write_dropped();
        tally.deleted();

        let figures = tally.figures();
        assert_eq!(figures, Figures { answered: 3, failed: 1, deleted: 1, writes_dropped: 1 });
        assert_eq!(figures.to_string(), "3 requests, 1 failed, 1 files deleted, 1 writes dropped");
    }
}
