//! How rough a run is: each seed has its own mixture, so that some are long quiet races and others storms.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::dice::Dice;
use super::jobs::{GRACE, RepackOrder};
use crate::fault::{Operation, Phase};
use crate::fold::FOLD_AGE_MIN;
use crate::repack::Thresholds;

/// What a run is like.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    /// How many processes are at work at once.
    pub(super) processes: usize,
    /// How many calls are let through before everything calms down.
    pub(super) calls: u64,
    /// How many keys a page of a listing has.
    pub(super) page_len: NonZeroUsize,
    /// How many calls in a thousand go wrong.
    faults_permille: u64,
    /// How many calls in a thousand are preceded by a long time.
    leaps_permille: u64,
    /// How many calls in a thousand put their process to sleep.
    pub(super) freezes_permille: u64,
    /// How many processes in a thousand have a wrong clock.
    skewed_permille: u64,
    /// The call after which a live object gets lost.
    pub(super) loses_after: Option<u64>,
    thresholds: Thresholds,
    jobs: Vec<(u64, Kind)>,
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pack,
    Mount,
    Delete,
    Fold,
    Repack,
    Collect,
    RollBack,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Plain,
    /// The process dies, or the answer is lost.
    Crash(Phase),
    Refused,
    ShortRead,
    FlippedBit,
    Stray,
    Spoilt,
}

impl Profile {
    /// Nothing but what is asked for.
    pub(super) fn quiet() -> Self {
        let thresholds = Thresholds { group_shards_max: 1, ..Thresholds::default() };
        Self {
            processes: 0,
            calls: 0,
            page_len: NonZeroUsize::MIN,
            faults_permille: 0,
            leaps_permille: 0,
            freezes_permille: 0,
            skewed_permille: 0,
            loses_after: None,
            thresholds,
            jobs: Vec::new(),
        }
    }

    pub(super) fn new(dice: &mut Dice) -> Self {
        let calls = 150 + dice.below(250);
        let weight = |dice: &mut Dice, usual: u64| usual * (1 + dice.below(4));
        let page_lens = [(2, 1_000), (1, 3), (1, 2)];
        Self {
            processes: 2 + dice.place(4),
            calls,
            page_len: NonZeroUsize::new(dice.choose(&page_lens)).unwrap(),
            faults_permille: dice.choose(&[(2, 0), (3, 15), (2, 40), (1, 100)]),
            leaps_permille: dice.choose(&[(1, 5), (2, 20), (1, 50)]),
            freezes_permille: dice.choose(&[(1, 0), (2, 10), (1, 30)]),
            skewed_permille: dice.choose(&[(2, 0), (1, 250)]),
            loses_after: dice.permille(150).then(|| calls * 2 / 3),
            thresholds: Thresholds {
                dead_percent: 20,
                age_max: Duration::from_mins(30),
                group_shards_max: dice.choose(&[(1, 1), (1, 2), (1, 4)]),
                merged_bytes_max: 256 << 20,
                all: false,
                convert: false,
            },
            jobs: vec![
                (weight(dice, 3), Kind::Pack),
                (weight(dice, 3), Kind::Mount),
                (weight(dice, 1), Kind::Delete),
                (weight(dice, 2), Kind::Fold),
                (weight(dice, 3), Kind::Repack),
                (weight(dice, 3), Kind::Collect),
                (dice.below(3), Kind::RollBack),
            ],
        }
    }

    pub(super) fn job(&self, dice: &mut Dice) -> Kind {
        dice.choose(&self.jobs)
    }

    pub(super) fn order(&self, dice: &mut Dice) -> RepackOrder {
        RepackOrder { folds: dice.permille(500), all: dice.permille(150), thresholds: self.thresholds }
    }

    /// How wrong the clock of a host is, in microseconds.
    pub(super) fn skew(&self, dice: &mut Dice) -> i64 {
        if !dice.permille(self.skewed_permille) {
            return 0;
        }
        let minutes = dice.choose(&[(1, 2), (1, 10), (2, 90)]);
        let sign = if dice.permille(500) { 1 } else { -1 };
        sign * minutes * 60_000_000
    }

    /// How long nothing happens before a call.
    pub(super) fn pause(&self, dice: &mut Dice) -> Pause {
        if !dice.permille(self.leaps_permille) {
            return Pause::Short(Duration::from_millis(dice.below(100)));
        }
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60 + 1);
        Pause::Long(dice.choose(&[(3, minutes(1)), (3, FOLD_AGE_MIN), (1, minutes(40)), (3, GRACE)]))
    }

    /// What becomes of a call.
    pub(super) fn fate(&self, dice: &mut Dice, operation: Operation, is_shard: bool) -> Fate {
        if !dice.permille(self.faults_permille) {
            return Fate::Plain;
        }
        if operation.is_write() {
            let spoilt = u64::from(is_shard && operation == Operation::PutIfAbsent) * 2;
            return dice.choose(&[
                (2, Fate::Crash(Phase::Before)),
                (3, Fate::Crash(Phase::After)),
                (3, Fate::Crash(Phase::AckLost)),
                (1, Fate::Refused),
                (3, Fate::Stray),
                (spoilt, Fate::Spoilt),
            ]);
        }
        dice.choose(&[(2, Fate::Crash(Phase::Before)), (2, Fate::Refused), (1, Fate::ShortRead), (2, Fate::FlippedBit)])
    }
}

/// A time in which nothing happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pause {
    /// As between any two calls.
    Short(Duration),
    /// Longer than a listing may take.
    Long(Duration),
}
