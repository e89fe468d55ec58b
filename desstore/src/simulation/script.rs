//! One story without chance: all that can happen to a few files. It is told once for each call that is made in it and
//! each way to die there; whoever died is started again, and everything must come right.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::dice::Dice;
use super::files::Sources;
use super::jobs::{self, GRACE, RepackOrder};
use super::mount;
use super::process::Process;
use super::profile::{Kind, Profile};
use super::world::{Task, World};
use crate::fault::Phase;
use crate::fold::FOLD_AGE_MIN;
use crate::repack::Thresholds;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A batch is packed.
    Pack(usize),
    /// Two batches are packed by one process.
    PackBoth(usize, usize),
    /// A file is deleted.
    Delete(usize),
    /// Files are deleted as a batch.
    DeleteMany(usize, usize),
    Fold,
    /// What is due is repacked.
    Repack,
    /// Everything is compressed anew.
    RepackAll,
    RollBack,
    Collect,
    /// Everything is read.
    Read,
    Later(Duration),
}

/// Batches of files, by number.
const BATCHES: [&[u64]; 5] = [&[0, 1, 2, 3], &[4, 5], &[2, 6], &[7], &[8, 9]];

const STORY: [Step; 24] = [
    Step::Pack(0),
    Step::PackBoth(1, 2),
    Step::Delete(1),
    Step::DeleteMany(4, 5),
    Step::Fold,
    Step::Later(FOLD_AGE_MIN),
    Step::Delete(6),
    Step::Fold,
    Step::Repack,
    Step::Pack(3),
    Step::Read,
    Step::RepackAll,
    Step::RollBack,
    Step::Later(GRACE),
    Step::Collect,
    Step::Pack(4),
    Step::Delete(0),
    Step::Repack,
    Step::Fold,
    Step::Later(GRACE),
    Step::Fold,
    Step::Collect,
    Step::Pack(0),
    Step::Read,
];

/// A death: in which step, at which call of it, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) step: usize,
    pub(super) call: u64,
    pub(super) phase: Phase,
}

/// How many calls each step makes while nobody dies.
pub(super) fn calls(spool: &Path) -> Result<Vec<u64>, String> {
    let mut world = world(spool);
    let mut calls = Vec::new();
    for step in STORY {
        let process = world.process(step.kind(), 0, true);
        world.take(step, Arc::clone(&process))?.map_err(|error| format!("{step:?}: {error}"))?;
        calls.push(process.faults.call_count());
    }
    world.calm()?;
    Ok(calls)
}

/// Tells the story with one death in it.
pub(super) fn tell(death: Death, spool: &Path) -> Result<(), String> {
    let mut world = world(spool);
    let outcome = tell_in(&mut world, death);
    outcome.map_err(|what| format!("{death:?} in {:?}: {what}\n{}", STORY[death.step], world.shared.book().history()))
}

fn tell_in(world: &mut World<'_>, death: Death) -> Result<(), String> {
    for (at, step) in STORY.into_iter().enumerate() {
        let process = world.process(step.kind(), 0, true);
        if at == death.step {
            process.doom(death.call, death.phase);
        }
        let Err(error) = world.take(step, process)? else { continue };
        if at != death.step {
            return Err(format!("{step:?} failed though nothing disturbed it: {error}"));
        }
        let process = world.process(step.kind(), 0, true);
        let again = world.take(step, process)?;
        again.map_err(|error| format!("{step:?} failed though it was only done once more: {error}"))?;
    }
    world.calm()
}

fn world(spool: &Path) -> World<'_> {
    World::with(Dice::new(1), Profile::quiet(), Sources::of(&BATCHES), spool)
}

impl Step {
    const fn kind(self) -> Kind {
        match self {
            Self::Pack(_) | Self::PackBoth(..) => Kind::Pack,
            Self::Delete(_) | Self::Read | Self::Later(_) => Kind::Mount,
            Self::DeleteMany(..) => Kind::Delete,
            Self::Fold => Kind::Fold,
            Self::Repack | Self::RepackAll => Kind::Repack,
            Self::RollBack => Kind::RollBack,
            Self::Collect => Kind::Collect,
        }
    }
}

impl World<'_> {
    fn take(&self, step: Step, process: Arc<Process>) -> Result<Result<(), crate::archive::ArchiveError>, String> {
        let batch = |at: usize| self.sources.batches[at].clone();
        let uid = |number: usize| crate::fixture::uid(&format!("uid-{number:02}"));
        let order = |all| {
            let thresholds = Thresholds { dead_percent: 1, group_shards_max: 1, ..Thresholds::default() };
            RepackOrder { folds: false, all, thresholds }
        };
        self.attempt(process, |process| -> Task {
            match step {
                Step::Pack(at) => Box::pin(jobs::pack(process, vec![batch(at)])),
                Step::PackBoth(one, two) => Box::pin(jobs::pack(process, vec![batch(one), batch(two)])),
                Step::Delete(number) => Box::pin(mount::delete(process, uid(number))),
                Step::DeleteMany(one, two) => Box::pin(jobs::delete_many(process, vec![uid(one), uid(two)])),
                Step::Fold => Box::pin(jobs::fold(process)),
                Step::Repack => Box::pin(jobs::repack(process, order(false))),
                Step::RepackAll => Box::pin(jobs::repack(process, order(true))),
                Step::RollBack => Box::pin(jobs::roll_back(process, 0)),
                Step::Collect => Box::pin(jobs::collect(process)),
                Step::Read => Box::pin(mount::read_all(process, self.sources.uids.clone())),
                Step::Later(by) => {
                    self.later(by);
                    Box::pin(async { Ok(()) })
                }
            }
        })
    }
}
