//! Deleting files on order: who is asked for, what that would delete, and doing it.
//!
//! A [`Plan`] only reads. It says how many files would go and whether somebody should be asked first; [`Plan::execute`]
//! writes the tombstones, a thousand of a group at a time, and may be repeated after any failure.

mod age;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use desfmt::{Date, Uid};
use desstore::{Archive, ArchiveError, Deletion, ExpiringDay, Standing};
use serde::Serialize;

pub use age::{Age, AgeError};
pub use requests::{RequestError, day_of, read_requests};

/// More files than this are not deleted without asking.
pub const UNASKED_MAX: u64 = 1_000;

/// A larger part of a day or of the archive is not deleted without asking, in percent.
pub const UNASKED_PERCENT_MAX: u64 = 10;

/// So few files are deleted without asking whatever part of a day they are.
pub const UNASKED_FEW: u64 = 10;

/// What is asked for in one day.
#[derive(Debug, Clone, Default)]
struct DayPlan {
    visible: Vec<Uid>,
    deleted: Vec<Uid>,
    absent: Vec<Uid>,
    /// How many files the day's live shards hold.
    files: u64,
}

/// What an order would delete.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    days: BTreeMap<Date, DayPlan>,
    files: u64,
}

/// How many files were in which standing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Files that were visible.
    pub visible: u64,
    /// Files that were deleted before.
    pub already_deleted: u64,
    /// Files that are not there.
    pub absent: u64,
}

/// What an order has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// What was asked for.
    #[serde(flatten)]
    pub asked: Tally,
    /// How many tombstones are durable now that were not before.
    pub recorded: u64,
    /// How many writes that took.
    pub writes: u64,
}

impl Plan {
    /// Looks up everything that is asked for. Uids asked for twice count once.
    pub async fn new(archive: &Arc<Archive>, asked: BTreeMap<Date, Vec<Uid>>) -> Result<Self, ArchiveError> {
        let mut plan = Self { days: BTreeMap::new(), files: archive.totals().await?.files };
        for (date, mut uids) in asked {
            uids.sort_unstable();
            uids.dedup();
            let mut day = DayPlan { files: archive.files_of(date).await?, ..DayPlan::default() };
            for (uid, standing) in uids.iter().zip(archive.standings(date, &uids).await?) {
                match standing {
                    Standing::Visible => day.visible.push(uid.clone()),
                    Standing::Deleted => day.deleted.push(uid.clone()),
                    Standing::Absent => day.absent.push(uid.clone()),
                }
            }
            plan.days.insert(date, day);
        }
        Ok(plan)
    }

    /// What was found.
    pub fn tally(&self) -> Tally {
        let count = |of: fn(&DayPlan) -> &Vec<Uid>| self.days.values().map(|day| length(of(day))).sum();
        Tally {
            visible: count(|day| &day.visible),
            already_deleted: count(|day| &day.deleted),
            absent: count(|day| &day.absent),
        }
    }

    /// The uids that are not there.
    pub fn absent(&self) -> impl Iterator<Item = (Date, &Uid)> {
        self.days.iter().flat_map(|(date, day)| day.absent.iter().map(|uid| (*date, uid)))
    }

    /// Why somebody should be asked before this is done; none where it is little.
    pub fn doubt(&self) -> Option<String> {
        let tally = self.tally();
        let of_days = self.days.iter().find_map(|(date, day)| {
            doubt(length(&day.visible), day.files).map(|doubt| format!("{doubt} of the day {date}"))
        });
        doubt(tally.visible, self.files).map(|doubt| format!("{doubt} of the archive")).or(of_days)
    }

    /// Deletes what is visible; with `always` also records what is not there, so that it can never be packed.
    pub async fn execute(&self, archive: &Archive, deletion: &Deletion, always: bool) -> Result<Done, ArchiveError> {
        let mut done = Done { asked: self.tally(), ..Done::default() };
        for (date, day) in &self.days {
            let absent = day.absent.iter().filter(|_| always);
            let uids: Vec<Uid> = day.visible.iter().chain(absent).cloned().collect();
            done.writes += archive.delete_many(*date, &uids, deletion).await?;
            done.recorded += length(&uids);
        }
        Ok(done)
    }
}

/// Why somebody should be asked before days are deleted whole; none where that is little.
pub fn doubt_of_expiry(days: &[ExpiringDay], files: u64) -> Option<String> {
    let expiring = days.iter().map(|day| day.files).sum();
    doubt(expiring, files).map(|doubt| format!("{doubt} of the archive"))
}

fn doubt(deleted: u64, files: u64) -> Option<String> {
    let is_large = u128::from(deleted) * 100 > u128::from(files) * u128::from(UNASKED_PERCENT_MAX);
    let is_much = deleted > UNASKED_MAX || deleted > UNASKED_FEW && is_large;
    is_much.then(|| format!("{deleted} of the {files} files"))
}

fn length<T>(of: &[T]) -> u64 {
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}
