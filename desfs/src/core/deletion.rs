//! unlink(2) and rmdir(2): who may, how many, and what is recorded of it.
//!
//! The kernel has asked the modes of the directory before a request comes here (`default_permissions`); what is decided
//! here only narrows that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use desstore::{Clock, Deleted, Deletion};

use crate::core::{FileSystem, FsError};
use crate::inode::Node;
use crate::options::{DeleteLimit, MountOptions, Permission};

/// Who asks for a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user's number.
    pub user: u32,
}

/// What a mount lets be deleted: `ro`, `delete=` and `delete_limit=`.
#[derive(Debug)]
pub struct DeletionPolicy {
    /// The users that may delete where the modes let them; `None` for all.
    users: Option<BTreeSet<u32>>,
    possible: bool,
    limiter: Option<Limiter>,
    /// Where deletions come from, for the record.
    host: String,
}

impl DeletionPolicy {
    /// The policy that mount options ask for.
    pub fn new(options: &MountOptions, host: String, clock: Arc<dyn Clock>) -> Self {
        let (possible, users) = match &options.delete {
            Permission::Everyone => (true, None),
            Permission::Nobody => (false, None),
            Permission::Users(users) => (true, Some(users.clone())),
        };
        let limiter = options.delete_limit.map(|limit| Limiter::new(limit, clock));
        Self { users, possible: possible && !options.read_only, limiter, host }
    }

    /// True when anybody can delete anything.
    pub const fn is_possible(&self) -> bool {
        self.possible
    }

    fn admit(&self, caller: Caller) -> Result<(), FsError> {
        match &self.users {
            Some(users) if !users.contains(&caller.user) => Err(FsError::NotPermitted),
            Some(_) | None => Ok(()),
        }
    }
}

impl FileSystem {
    /// Deletes a file. `Ok` once its tombstone is durable, with the node that is gone.
    ///
    /// Not to be cancelled: whoever waits too long goes away, but the deletion runs to its end.
    pub async fn unlink(&self, parent: u64, name: &[u8], caller: Caller) -> Result<Node, FsError> {
        let date = match self.node(parent)? {
            Node::Day(date) => date,
            Node::Root => {
                self.lookup_day(name).await?;
                return Err(FsError::IsADirectory);
            }
            Node::File(..) => return Err(FsError::NotADirectory),
        };
        let file = self.lookup_file(date, name).await?;
        if !self.can_delete() {
            return Err(FsError::ReadOnly);
        }
        self.deletion.admit(caller)?;
        if self.deletion.limiter.as_ref().is_some_and(|limiter| !limiter.admit()) {
            return Err(FsError::DeletionsUsedUp);
        }
        let deletion = Deletion {
            actor: format!("uid {} on {}", caller.user, self.deletion.host),
            reason: "unlink".to_owned(),
            ticket: None,
        };
        let deleted = match &self.journal {
            Some(journal) => journal.delete(date, &file.uid, &deletion).await?,
            None => self.archive.delete(date, &file.uid, &deletion).await?,
        };
        match deleted {
            Deleted::Now => {
                tracing::debug!(%date, user = caller.user, "deleted");
                self.thinned_days.insert(date);
                Ok(Node::File(date, file.birth))
            }
            Deleted::NotFound => Err(FsError::NoEntry),
        }
    }

    /// Removes a day in which nothing visible is left from this mount. The archive is not changed.
    pub async fn remove_directory(&self, parent: u64, name: &[u8], caller: Caller) -> Result<(), FsError> {
        match self.node(parent)? {
            Node::Root => {}
            Node::Day(date) => {
                self.lookup_file(date, name).await?;
                return Err(FsError::NotADirectory);
            }
            Node::File(..) => return Err(FsError::NotADirectory),
        }
        let date = self.lookup_day(name).await?;
        if !self.can_delete() {
            return Err(FsError::ReadOnly);
        }
        self.deletion.admit(caller)?;
        if !self.archive.day_is_empty(date).await? {
            return Err(FsError::NotEmpty);
        }
        self.thinned_days.remove(date);
        Ok(())
    }
}

/// A bucket of tokens that holds as many as one period brings (GCRA: only the time at which it will be full is kept).
#[derive(Debug)]
struct Limiter {
    interval: Duration,
    period: Duration,
    full_at: Mutex<Duration>,
    clock: Arc<dyn Clock>,
}

impl Limiter {
    fn new(limit: DeleteLimit, clock: Arc<dyn Clock>) -> Self {
        let interval = limit.period / limit.count.max(1);
        Self { interval, period: limit.period, full_at: Mutex::new(Duration::ZERO), clock }
    }

    fn admit(&self) -> bool {
        let now = self.clock.monotonic();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full_at).max(now).saturating_add(self.interval);
        let admitted = next.saturating_sub(now) <= self.period;
        if admitted {
            *full_at = next;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use desfmt::Timestamp;
    use desstore::ManualClock;

    use super::*;

    #[test]
    fn a_limit_lets_a_burst_through_and_then_its_rate() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let limit = DeleteLimit { count: 3, period: Duration::from_hours(1) };
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let limiter = Limiter::new(limit, shared);

        assert_eq!([limiter.admit(), limiter.admit(), limiter.admit(), limiter.admit()], [true, true, true, false]);

        clock.advance(Duration::from_mins(20));
        assert_eq!([limiter.admit(), limiter.admit()], [true, false]);
    }
}
