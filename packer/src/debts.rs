//! Bringing zones that were away to what their homes hold: paying what they are owed.

use std::fmt;
use std::path::Path;

use desfmt::document::DebtTask;
use desstore::zones::{Debt, Paid, ZoneStore, pay};
use serde::Serialize;

use crate::error::PackError;
use crate::program::reason_of;
use crate::spool::Spool;

/// What paying came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DebtsReport {
    /// Debts that are no more.
    pub debts_paid: u64,
    /// Debts that are left alone for ten minutes: a writer may be at it.
    pub debts_young: u64,
    /// Debts that could not be paid, and why.
    pub failures: Vec<(String, String)>,
}

impl DebtsReport {
    /// True when there was nothing to be paid.
    pub const fn is_empty(&self) -> bool {
        self.debts_paid == 0 && self.debts_young == 0 && self.failures.is_empty()
    }
}

/// Pays what zones are owed. Shards on their way lie in a directory of their own below `spool`. Safe to be killed and
/// repeated at any time, and to be done by several at once.
pub async fn pay_debts(zones: &ZoneStore, spool: &Path) -> Result<DebtsReport, PackError> {
    let spool = Spool::open(spool).map_err(|source| PackError::spool(spool, source))?;
    let Paid { paid, young, failed } = pay(zones, spool.directory()).await?;
    let failures = failed.iter().map(|(debt, error)| (owed(debt), reason_of(error)));
    Ok(DebtsReport { debts_paid: paid, debts_young: young, failures: failures.collect() })
}

/// What a debt is about, in words.
pub fn owed(debt: &Debt) -> String {
    let task = match debt.task {
        DebtTask::Copy => "is owed a copy of",
        DebtTask::Remove => "has still to lose",
    };
    format!("zone {} {task} {}", debt.zone, debt.key)
}

impl fmt::Display for DebtsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "paid {} debts of zones; {} are too young to be paid, {} could not be paid",
            self.debts_paid,
            self.debts_young,
            self.failures.len()
        )
    }
}
