//! How long what an archive has said may be believed, for who keeps it: names in the kernel.
//!
//! What is known of a day is looked at afresh after `ttl`. A name that is found meanwhile is good for what is left of that
//! time and no longer, so that keeping it never adds to the time that a deletion elsewhere goes unseen.

use std::time::Duration;

use desfmt::Date;

use crate::archive::{Archive, CacheKey, Cached};

/// Until when an answer is good. Take it before asking: an answer is at least as new as its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    date: Option<Date>,
    until: Option<Duration>,
}

impl Archive {
    /// The lease of the names of a day, or of the days themselves.
    pub fn lease(&self, date: Option<Date>) -> Lease {
        Lease { date, until: self.known_until(date) }
    }

    /// What is left of it.
    pub fn left_of(&self, lease: Lease) -> Duration {
        // Where nothing was known, the answer comes from a look that began after the lease was taken.
        let until = lease.until.or_else(|| self.known_until(lease.date)).unwrap_or_default();
        until.saturating_sub(self.clock.monotonic())
    }

    /// When what is known has to be looked at afresh; `None` where nothing is known, or that time is over.
    fn known_until(&self, date: Option<Date>) -> Option<Duration> {
        let key = date.map_or(CacheKey::Days, CacheKey::Day);
        let checked = match self.cache.get(&key)? {
            Cached::Day(day) => day.checked(),
            Cached::NoDay(checked) => checked,
            Cached::Days(days) => days.checked,
            Cached::Shard(_)
            | Cached::IndexPage(_)
            | Cached::FramePage(_)
            | Cached::ColdPage(_)
            | Cached::Frame(_)
            | Cached::BigFile(_) => return None,
        };
        let until = checked.saturating_add(self.options.ttl);
        (until > self.clock.monotonic()).then_some(until)
    }
}
