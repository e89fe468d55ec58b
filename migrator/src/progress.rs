//! How far a migration is, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use packer::ByteSize;

/// Counters that a migration moves and others read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    expected: AtomicU64,
    rows: AtomicU64,
    days: AtomicU64,
    bytes: AtomicU64,
    exceptions: AtomicU64,
    packing: Mutex<Option<Arc<packer::Progress>>>,
}

/// What the counters say at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// About how many rows there are to be moved.
    pub expected: u64,
    /// Rows that were dealt with, those of the batch in hand included.
    pub rows: u64,
    /// Days that were marked.
    pub days: u64,
    /// Bytes that were packed.
    pub bytes: u64,
    /// Rows that became exceptions.
    pub exceptions: u64,
}

impl Progress {
    /// What the counters say now.
    pub fn snapshot(&self) -> Snapshot {
        let packing = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        let in_hand = packing.as_ref().map(|progress| progress.snapshot());
        let (files, bytes) = in_hand.map_or((0, 0), |now| (now.files_done, now.bytes_done));
        Snapshot {
            expected: self.expected.load(Relaxed),
            rows: self.rows.load(Relaxed).saturating_add(files),
            days: self.days.load(Relaxed),
            bytes: self.bytes.load(Relaxed).saturating_add(bytes),
            exceptions: self.exceptions.load(Relaxed),
        }
    }

    pub(crate) fn expect(&self, rows: u64) {
        self.expected.store(rows.saturating_add(self.rows.load(Relaxed)), Relaxed);
    }

    pub(crate) fn begin_packing(&self, progress: &Arc<packer::Progress>) {
        *self.packing.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(progress));
    }

    pub(crate) fn end_packing(&self, rows: u64, bytes: u64, exceptions: u64) {
        *self.packing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.rows.fetch_add(rows, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.exceptions.fetch_add(exceptions, Relaxed);
    }

    pub(crate) fn end_days(&self, days: u64) {
        self.days.fetch_add(days, Relaxed);
    }
}

impl Snapshot {
    /// One line about what is done; with an earlier one also how fast, and how long it will take.
    pub fn line(&self, since: Option<(&Self, Duration)>) -> String {
        let mut parts = vec![format!("{} of about {} rows", self.rows, self.expected.max(self.rows))];
        parts.push(format!("{} days", self.days));
        parts.push(ByteSize(self.bytes).to_string());
        if self.exceptions > 0 {
            parts.push(format!("{} exceptions", self.exceptions));
        }
        if let Some((then, elapsed)) = since {
            let moved = u128::from(self.rows.saturating_sub(then.rows));
            let rate = moved.saturating_mul(1_000).checked_div(elapsed.as_millis()).unwrap_or(0);
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            parts.push(format!("{rate} rows/s"));
            let left = self.expected.saturating_sub(self.rows);
            parts.extend(left.checked_div(rate).map(|seconds| format!("{seconds} s left")));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let then = Snapshot { expected: 1_000, rows: 100, days: 1, bytes: 2_048, exceptions: 0 };
        let now = Snapshot { rows: 300, exceptions: 2, ..then };
        let line = now.line(Some((&then, Duration::from_secs(2))));
        assert_eq!(line, "300 of about 1000 rows, 1 days, 2.0 KiB, 2 exceptions, 100 rows/s, 7 s left");
        assert_eq!(then.line(None), "100 of about 1000 rows, 1 days, 2.0 KiB");
    }
}
