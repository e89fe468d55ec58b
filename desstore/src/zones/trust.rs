//! How far the copies of the documents may be trusted while their home is away.
//!
//! Whatever the home zone holds is in every other zone, or a debt in the home zone says that it is not. So who has read the
//! debts a while ago knows which copies were complete then, and what was deleted since is younger than that.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use desfmt::Date;
use desfmt::layout::{self, DebtScope};

use crate::store::ObjectMeta;

/// What documents are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The identity, which never changes.
    Identity,
    /// Those of one day.
    Day(Date),
    /// Those of all days.
    All,
}

/// What is known of the debts.
#[derive(Debug, Default)]
pub(super) struct Trust {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the debts were asked for the last time that they came.
    asked: Option<Duration>,
    /// By the zone's place.
    owed: Vec<Owed>,
}

#[derive(Debug, Clone, Default)]
struct Owed {
    everything: bool,
    days: HashSet<Date>,
}

impl Owed {
    fn add(&mut self, scope: DebtScope) {
        match scope {
            DebtScope::Day(date) => drop(self.days.insert(date)),
            DebtScope::Identity => self.everything = true,
            // A shard that is missing is looked for in the next zone.
            DebtScope::Shards => {}
        }
    }
}

impl Trust {
    /// True when the debts were read at most so long ago.
    pub(super) fn is_informed(&self, now: Duration, age_max: Duration) -> bool {
        self.known().asked.is_some_and(|asked| now.saturating_sub(asked) <= age_max)
    }

    /// Takes in a listing of the debts that was begun at `asked`; `names` are the zones.
    pub(super) fn learn(&self, asked: Duration, listing: &[ObjectMeta], names: &[&str]) {
        let mut owed = vec![Owed::default(); names.len()];
        for object in listing {
            let Some((zone, scope)) = layout::parse_debt(object.key.as_str()) else {
                // Nothing that we understand: it might be about any zone.
                for owed in &mut owed {
                    owed.everything = true;
                }
                continue;
            };
            let zone = names.iter().position(|name| *name == zone);
            // A zone that is not part of the configuration is not read.
            if let Some(owed) = zone.and_then(|zone| owed.get_mut(zone)) {
                owed.add(scope);
            }
        }
        let mut known = self.known();
        if known.asked.is_none_or(|before| before <= asked) {
            *known = Known { asked: Some(asked), owed };
        }
    }

    /// Takes in that there are too many debts to tell apart.
    pub(super) fn distrust(&self, asked: Duration, zones: usize) {
        let owed = vec![Owed { everything: true, days: HashSet::new() }; zones];
        *self.known() = Known { asked: Some(asked), owed };
    }

    /// Notes a debt of our own, which the next listing will show.
    pub(super) fn note(&self, zone: usize, scope: DebtScope) {
        let mut known = self.known();
        if known.owed.len() <= zone {
            known.owed.resize(zone.saturating_add(1), Owed::default());
        }
        if let Some(owed) = known.owed.get_mut(zone) {
            owed.add(scope);
        }
    }

    /// True when the zone was owed nothing that matters here when the debts were read.
    pub(super) fn is_complete(&self, zone: usize, scope: Scope) -> bool {
        let known = self.known();
        let Some(owed) = known.owed.get(zone) else { return scope == Scope::Identity };
        match scope {
            Scope::Identity => true,
            Scope::Day(date) => !owed.everything && !owed.days.contains(&date),
            Scope::All => !owed.everything && owed.days.is_empty(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
