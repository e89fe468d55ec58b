//! A run: processes at work on one archive, whose calls a seed lets through one by one.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use desfmt::document::RetiredObject;
use desfmt::{BucketBits, ObjectKey, Timestamp, layout};
use futures_util::FutureExt;

use super::dice::Dice;
use super::files::{Sources, day};
use super::gate::{Passage, StrayWrite, WaitingCall};
use super::jobs::{self, GRACE};
use super::mount;
use super::oracle::{Oracle, Reached};
use super::process::{Birthright, Process, Trouble, Woken};
use super::profile::{Fate, Kind, Pause, Profile};
use super::shared::Shared;
use crate::clock::{ManualClock, SeededRandom};
use crate::error::StoreErrorKind;
use crate::fault::FaultRates;
use crate::memory::MemoryStore;
use crate::publish::ArchiveWriter;
use crate::store::{ObjectStore, Payload};

pub(super) type Task = Pin<Box<dyn Future<Output = Result<(), Trouble>>>>;

/// A run that is under way.
pub(super) struct World<'a> {
    pub(super) shared: Arc<Shared>,
    pub(super) sources: Sources,
    pub(super) dice: Dice,
    pub(super) spool: &'a Path,
    profile: Profile,
    running: Vec<Running>,
    strays: Vec<StrayWrite>,
    /// How many calls were let through.
    calls: u64,
    started: u64,
    pub(super) jobs: BTreeMap<Kind, Ends>,
}

/// How jobs of a kind have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ends {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) died: u64,
}

struct Running {
    kind: Kind,
    process: Arc<Process>,
    task: Task,
    woken: Arc<Woken>,
    /// It gets no turn before so many calls were let through.
    frozen_until: u64,
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Ended {
    /// The first thing that was not as it must be.
    pub(super) violation: Option<String>,
    /// What happened before.
    pub(super) history: String,
    pub(super) fingerprint: blake3::Hash,
    pub(super) reached: Reached,
    pub(super) jobs: BTreeMap<Kind, Ends>,
}

/// Runs a seed to its end. `spool` is a directory of its own.
pub(super) fn run(seed: u64, spool: &Path) -> Ended {
    let mut world = World::new(seed, spool);
    let outcome = world.storm().and_then(|()| world.calm());
    let mut book = world.shared.book();
    let violation = book.violation.take().or(outcome.err());
    Ended {
        violation,
        history: book.history(),
        fingerprint: book.fingerprint(),
        reached: book.oracle.reached,
        jobs: std::mem::take(&mut world.jobs),
    }
}

impl<'a> World<'a> {
    /// A world of a seed.
    fn new(seed: u64, spool: &'a Path) -> Self {
        let mut dice = Dice::new(seed);
        let profile = Profile::new(&mut dice);
        let sources = Sources::new(&mut dice);
        Self::with(dice, profile, sources, spool)
    }

    /// A world with an empty archive.
    pub(super) fn with(mut dice: Dice, profile: Profile, sources: Sources, spool: &'a Path) -> Self {
        Self {
            shared: found(&profile, dice.any()),
            sources,
            spool,
            profile,
            running: Vec::new(),
            strays: Vec::new(),
            calls: 0,
            started: 0,
            jobs: BTreeMap::new(),
            dice,
        }
    }

    /// Everything at once, until enough calls were made; then what is under way comes to its end.
    fn storm(&mut self) -> Result<(), String> {
        while self.calls < self.profile.calls {
            while self.running.len() < self.profile.processes {
                self.start()?;
            }
            self.lose_one();
            self.step(true)?;
        }
        self.shared.note("the storm is over".to_owned());
        while !self.running.is_empty() {
            self.step(false)?;
        }
        while let Some(write) = self.strays.pop() {
            self.arrive(write)?;
        }
        Ok(())
    }

    /// A process of any kind begins.
    fn start(&mut self) -> Result<(), String> {
        let kind = self.profile.job(&mut self.dice);
        let skew = self.profile.skew(&mut self.dice);
        let process = self.process(kind, skew, false);
        let uids = self.sources.uids.clone();
        let task: Task = match kind {
            Kind::Pack => {
                let count = 1 + self.dice.place(2);
                let batches = &self.sources.batches;
                let chosen = (0..count).map(|_| batches[self.dice.place(batches.len())].clone()).collect();
                Box::pin(jobs::pack(Arc::clone(&process), chosen))
            }
            Kind::Mount => {
                let operations = 1 + self.dice.below(8);
                Box::pin(mount::mount(Arc::clone(&process), uids, self.dice.split(), operations))
            }
            Kind::Delete => {
                let chosen = uids.into_iter().filter(|_| self.dice.permille(250)).collect();
                Box::pin(jobs::delete_many(Arc::clone(&process), chosen))
            }
            Kind::Fold => Box::pin(jobs::fold(Arc::clone(&process))),
            Kind::Repack => {
                let order = self.profile.order(&mut self.dice);
                Box::pin(jobs::repack(Arc::clone(&process), order))
            }
            Kind::Collect => Box::pin(jobs::collect(Arc::clone(&process))),
            Kind::RollBack => Box::pin(jobs::roll_back(Arc::clone(&process), self.dice.place(8))),
        };
        let running = Running { kind, process, task, woken: Arc::new(Woken::new()), frozen_until: 0 };
        self.running.push(running);
        self.drive(self.running.len() - 1)
    }

    /// A process that does nothing yet.
    pub(super) fn process(&mut self, kind: Kind, skew_micros: i64, is_free: bool) -> Arc<Process> {
        self.started += 1;
        let name = format!("{kind:?}-{}", self.started).to_lowercase();
        let birthright = Birthright { name, seed: self.dice.any(), skew_micros, spool: self.spool.to_owned(), is_free };
        Process::start(&self.shared, birthright)
    }

    /// Lets one call through.
    fn step(&mut self, is_storm: bool) -> Result<(), String> {
        self.calls += 1;
        if !self.strays.is_empty() && self.dice.permille(50) {
            let write = self.strays.swap_remove(self.dice.place(self.strays.len()));
            self.arrive(write)?;
        }
        let Some((at, call)) = self.choose_call() else { return Err("nobody waits, and nobody is done".to_owned()) };
        if is_storm && self.dice.permille(self.profile.freezes_permille) {
            self.running[at].frozen_until = self.calls + 10 + self.dice.below(100);
            return Ok(());
        }
        self.pass_time(is_storm);
        let is_shard = call.key.starts_with(layout::SHARDS);
        let fate = if is_storm { self.profile.fate(&mut self.dice, call.operation, is_shard) } else { Fate::Plain };
        self.let_through(at, &call, fate);
        self.drive(at)
    }

    /// Any call of any process that is awake.
    fn choose_call(&mut self) -> Option<(usize, WaitingCall)> {
        let mut calls: Vec<(usize, WaitingCall)> = Vec::new();
        for is_awake in [true, false] {
            for (at, one) in self.running.iter().enumerate() {
                if !is_awake || one.frozen_until <= self.calls {
                    calls.extend(one.process.gate.waiting().into_iter().map(|call| (at, call)));
                }
            }
            if !calls.is_empty() {
                let place = self.dice.place(calls.len());
                return Some(calls.swap_remove(place));
            }
        }
        None
    }

    /// The clock goes on; far only where no listing is under way, which may take less than ten minutes.
    fn pass_time(&mut self, is_storm: bool) {
        let pause = self.profile.pause(&mut self.dice);
        let is_listing = || self.running.iter().any(|one| one.process.gate.waiting().iter().any(|call| call.continues));
        match pause {
            Pause::Short(by) => self.shared.clock.advance(by),
            Pause::Long(by) if is_storm && !is_listing() => self.shared.leap(by),
            Pause::Long(_) => {}
        }
    }

    fn let_through(&self, at: usize, call: &WaitingCall, fate: Fate) {
        let process = &self.running[at].process;
        let faults = &process.faults;
        if fate != Fate::Plain {
            process.trouble();
            let operation = call.operation.name();
            self.shared.note(format!("{}: {fate:?} at {operation} {}", process.name, call.key));
        }
        let mut passage = Passage::Plain;
        match fate {
            Fate::Plain => {}
            Fate::Crash(phase) => faults.crash_at(faults.call_count(), phase),
            Fate::Refused => faults.refuse_next(call.operation, StoreErrorKind::Unavailable),
            Fate::ShortRead => faults.set_rates(FaultRates { short_read: 1_000_000, ..FaultRates::default() }),
            Fate::FlippedBit => faults.set_rates(FaultRates { flipped_bit: 1_000_000, ..FaultRates::default() }),
            Fate::Stray => passage = Passage::Stray,
            Fate::Spoilt => passage = Passage::Spoilt,
        }
        process.gate.let_through(call.number, passage);
    }

    /// Lets a task go on until it waits, and sees what became of it.
    fn drive(&mut self, at: usize) -> Result<(), String> {
        let running = &mut self.running[at];
        let waker = Waker::from(Arc::clone(&running.woken));
        let mut context = Context::from_waker(&waker);
        let mut end = None;
        while end.is_none() && running.woken.take() {
            if let Poll::Ready(outcome) = running.task.as_mut().poll(&mut context) {
                end = Some(outcome);
            }
        }
        running.process.faults.set_rates(FaultRates::default());
        self.strays.extend(running.process.gate.take_strays());
        let ends = self.jobs.entry(running.kind).or_default();
        let name = &running.process.name;
        let violated = match end {
            _ if running.process.faults.is_dead() => {
                ends.died += 1;
                self.shared.note(format!("{name} is dead"));
                drop(self.running.swap_remove(at));
                None
            }
            Some(outcome) => {
                let violated = match outcome {
                    Ok(()) => {
                        ends.done += 1;
                        self.shared.note(format!("{name} is done"));
                        None
                    }
                    Err(Trouble::Failed(error)) => {
                        ends.failed += 1;
                        self.shared.note(format!("{name} failed: {error}"));
                        None
                    }
                    Err(Trouble::Violated(what)) => Some(what),
                };
                drop(self.running.swap_remove(at));
                violated
            }
            None => None,
        };
        violated.map_or_else(|| self.judge(), Err)
    }

    /// The first rule that was broken so far.
    pub(super) fn judge(&self) -> Result<(), String> {
        self.shared.book().violation.clone().map_or(Ok(()), Err)
    }

    /// A write that was given up on takes effect after all, if its condition still holds.
    fn arrive(&mut self, write: StrayWrite) -> Result<(), String> {
        let process = self.process(Kind::Mount, 0, true);
        let store = &process.gate;
        self.shared.note(format!("{} brings what was given up on", process.name));
        let arrived = async {
            match write {
                StrayWrite::PutIfAbsent(key, bytes) => drop(store.put_if_absent(&key, Payload::Bytes(bytes)).await),
                StrayWrite::PutIfMatch(key, etag, bytes) => {
                    drop(store.put_if_match(&key, &etag, Payload::Bytes(bytes)).await);
                }
                StrayWrite::Put(key, bytes) => drop(store.put(&key, Payload::Bytes(bytes)).await),
                StrayWrite::Delete(key) => drop(store.purge(&key).await),
            }
        };
        arrived.now_or_never().ok_or("a stray write waits")?;
        self.judge()
    }

    /// Now and then a live object gets lost whose predecessor is still there and nobody is about to delete.
    fn lose_one(&mut self) {
        let is_due = self.profile.loses_after.is_some_and(|after| after <= self.calls);
        let deletes = self.running.iter().any(|one| matches!(one.kind, Kind::Collect | Kind::RollBack));
        let has_strays = self.strays.iter().any(|write| matches!(write, StrayWrite::Delete(_)));
        if !is_due || deletes || has_strays {
            return;
        }
        let Some(key) = self.losable() else { return };
        self.profile.loses_after = None;
        self.shared.note(format!("{key} gets lost"));
        let lost = self.shared.memory.delete(&key).now_or_never();
        lost.unwrap().unwrap();
        self.shared.book().oracle.lose(&key);
    }

    /// A live object whose files could all be brought back by undoing one commit.
    fn losable(&self) -> Option<ObjectKey> {
        let book = self.shared.book();
        let manifest = book.oracle.manifest.as_ref()?;
        let has_way_back = |serials: &[u32]| {
            let newest = manifest.retired.iter().filter(|object| {
                let entry = object.entry.as_ref();
                entry.is_some_and(|entry| entry.serials.iter().any(|serial| serials.contains(serial)))
            });
            let Some(generation) = newest.map(|object| object.generation).max() else { return false };
            // Whoever undid a merge before has others that would have to go back too.
            let is_shared = |object: &&RetiredObject| {
                let entry = object.entry.as_ref();
                entry.is_some_and(|entry| entry.serials.iter().any(|one| serials.contains(one)))
            };
            let live_elsewhere = |serial: &u32| {
                let others = manifest.shards.iter().filter(|shard| shard.serials != serials);
                others.flat_map(|shard| &shard.serials).any(|other| other == serial)
            };
            let peers: Vec<_> =
                manifest.retired.iter().filter(|object| object.generation == generation).filter(is_shared).collect();
            let covers = |serial: &u32| {
                peers.iter().any(|object| object.entry.as_ref().is_some_and(|entry| entry.serials.contains(serial)))
            };
            let reaches_further = peers.iter().filter_map(|object| object.entry.as_ref());
            let reaches_further = reaches_further.flat_map(|entry| &entry.serials).any(live_elsewhere);
            !reaches_further
                && serials.iter().all(covers)
                && peers.iter().all(|object| book.oracle.shards.contains_key(&object.key))
        };
        manifest.shards.iter().find(|shard| has_way_back(&shard.serials)).map(|shard| shard.key.clone())
    }
}

/// An empty archive, and the book that everything in it is entered into.
#[expect(clippy::clone_on_ref_ptr, reason = "`Arc::clone` does not turn an Arc of a clock into one of any clock")]
fn found(profile: &Profile, seed: u64) -> Arc<Shared> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_705_300_000_000_000)));
    let store = Arc::new(MemoryStore::new(clock.clone()).with_page_len(profile.page_len));
    let bits = BucketBits::new(0).unwrap();
    let created = ArchiveWriter::create(store.clone(), bits, clock.clone(), Arc::new(SeededRandom::new(seed)));
    let writer = created.now_or_never().unwrap().unwrap();
    let oracle = Oracle::new(writer.identity().archive, bits, day(), GRACE);
    drop(writer);
    let memory = Arc::into_inner(store).unwrap();
    Arc::new(Shared::new(memory, clock, oracle))
}
