//! A store that fails on purpose: by a seed, at a chosen call, or as if the process had died there.
//!
//! A test first runs a program over it and reads [`FaultStore::calls`]; then it runs the program once for each call and
//! [`Phase`], lets it die there with [`FaultStore::crash_at`], and runs it again after [`FaultStore::revive`]. A program
//! that makes a new call makes a new case.

mod call;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use desfmt::{ObjectKey, Timestamp};

pub use self::call::{Call, Fault, FaultRates, InjectedFault, Operation, Phase};
use crate::clock::{Randomness, SeededRandom};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// Calls that are remembered; older ones are forgotten.
const CALLS_MAX: usize = 1_000_000;

/// A store over another one that fails on purpose. The same seed and the same calls give the same faults.
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    seed: u64,
    random: SeededRandom,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rates: FaultRates,
    calls: VecDeque<Call>,
    calls_begun: u64,
    crash: Option<(u64, Phase)>,
    refusals: Vec<(Operation, StoreErrorKind)>,
    is_dead: bool,
}

impl FaultStore {
    /// A store without faults until told otherwise.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        Self { inner, seed, random: SeededRandom::new(seed), state: Mutex::default() }
    }

    /// The same with faults by chance.
    #[must_use]
    pub fn with_rates(self, rates: FaultRates) -> Self {
        self.set_rates(rates);
        self
    }

    /// Changes how often calls fail by chance from now on.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state().rates = rates;
    }

    /// Lets the call with this number die in this phase. Replaces what was planned before.
    pub fn crash_at(&self, number: u64, phase: Phase) {
        self.state().crash = Some((number, phase));
    }

    /// Refuses the next call of this operation, which takes no effect. Several wait in line.
    pub fn refuse_next(&self, operation: Operation, kind: StoreErrorKind) {
        self.state().refusals.push((operation, kind));
    }

    /// Starts the process again: calls go through, and no crash is planned. Numbers go on.
    pub fn revive(&self) {
        let mut state = self.state();
        state.is_dead = false;
        state.crash = None;
    }

    /// True between a crash and [`FaultStore::revive`].
    pub fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// The calls so far, the last million of them.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.iter().cloned().collect()
    }

    /// How many calls have begun; the number of the next one.
    pub fn call_count(&self) -> u64 {
        self.state().calls_begun
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a call and decides its fate.
    fn begin(&self, operation: Operation, key: &str) -> Decision {
        let mut state = self.state();
        let number = state.calls_begun;
        state.calls_begun = number.saturating_add(1);
        let chance = self.random.next();
        let fault = state.fate(operation, number, chance);
        if let Some(Fault::Crash(Phase::Before)) = fault {
            state.is_dead = true;
        }
        if state.calls.len() >= CALLS_MAX {
            state.calls.pop_front();
        }
        state.calls.push_back(Call { number, operation, key: key.to_owned(), fault });
        Decision { number, fault, chance }
    }

    fn error(&self, decision: &Decision, fault: Fault, operation: Operation, key: &str) -> StoreError {
        let kind = match fault {
            Fault::Refused(kind) => kind,
            Fault::ShortRead | Fault::FlippedBit => StoreErrorKind::Corrupt,
            Fault::Crash(_) | Fault::Dead => StoreErrorKind::Unavailable,
        };
        let cause = InjectedFault { seed: self.seed, number: decision.number, fault };
        StoreError::new(kind, operation.name(), key).caused_by(cause)
    }

    async fn run<T: Damage + Send>(
        &self,
        operation: Operation,
        key: &str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let decision = self.begin(operation, key);
        match decision.fault {
            Some(fault @ (Fault::Crash(Phase::Before) | Fault::Refused(_) | Fault::Dead)) => {
                return Err(self.error(&decision, fault, operation, key));
            }
            Some(Fault::Crash(Phase::After | Phase::AckLost) | Fault::ShortRead | Fault::FlippedBit) | None => {}
        }
        let outcome = call.await;
        if decision.fault == Some(Fault::Crash(Phase::After)) {
            self.state().is_dead = true;
        }
        match decision.fault {
            Some(Fault::FlippedBit) => outcome.map(|mut found| {
                found.flip_bit(decision.chance);
                found
            }),
            Some(fault @ (Fault::Crash(_) | Fault::ShortRead | Fault::Refused(_) | Fault::Dead)) => {
                Err(self.error(&decision, fault, operation, key))
            }
            // A call that was under way when its process died answers nobody.
            None if self.is_dead() => Err(self.error(&decision, Fault::Dead, operation, key)),
            None => outcome,
        }
    }
}

/// What happens to one call.
struct Decision {
    number: u64,
    fault: Option<Fault>,
    chance: u64,
}

impl State {
    fn fate(&mut self, operation: Operation, number: u64, chance: u64) -> Option<Fault> {
        if self.is_dead {
            return Some(Fault::Dead);
        }
        if let Some((_, phase)) = self.crash.filter(|(at, _)| *at == number) {
            return Some(Fault::Crash(phase));
        }
        if let Some(index) = self.refusals.iter().position(|(refused, _)| *refused == operation) {
            return Some(Fault::Refused(self.refusals.remove(index).1));
        }
        self.by_chance(operation, chance)
    }

    fn by_chance(&self, operation: Operation, chance: u64) -> Option<Fault> {
        let reads = u32::from(matches!(
            operation,
            Operation::Get | Operation::GetIfChanged | Operation::GetRange | Operation::GetTail
        ));
        let rates = self.rates;
        let shares = [
            (rates.throttled, Fault::Refused(StoreErrorKind::Throttled)),
            (rates.unavailable, Fault::Refused(StoreErrorKind::Unavailable)),
            (rates.ack_lost, Fault::Crash(Phase::AckLost)),
            (rates.short_read.saturating_mul(reads), Fault::ShortRead),
            (rates.flipped_bit.saturating_mul(reads), Fault::FlippedBit),
        ];
        let mut rest = chance.checked_rem(1_000_000)?;
        for (share, fault) in shares {
            match rest.checked_sub(u64::from(share)) {
                Some(above) => rest = above,
                None => return Some(fault),
            }
        }
        None
    }
}

/// An answer in which a bit may turn unnoticed.
trait Damage {
    fn flip_bit(&mut self, _chance: u64) {}
}

impl Damage for () {}
impl Damage for ObjectMeta {}
impl Damage for Receipt {}
impl Damage for Page {}
impl Damage for Timestamp {}

impl Damage for Bytes {
    fn flip_bit(&mut self, chance: u64) {
        let mut bytes = BytesMut::from(&**self);
        // The low digits have decided which fault it is.
        let chance = usize::try_from(chance >> 24).unwrap_or(0);
        let index = (chance >> 3).checked_rem(bytes.len()).unwrap_or(0);
        if let Some(byte) = bytes.get_mut(index) {
            *byte ^= 1 << (chance & 7);
        }
        *self = bytes.freeze();
    }
}

impl Damage for Fetched {
    fn flip_bit(&mut self, chance: u64) {
        self.bytes.flip_bit(chance);
    }
}

impl Damage for Option<Fetched> {
    fn flip_bit(&mut self, chance: u64) {
        if let Some(fetched) = self {
            fetched.flip_bit(chance);
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.run(Operation::Get, key.as_str(), self.inner.get(key, len_max)).await
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.run(Operation::GetIfChanged, key.as_str(), self.inner.get_if_changed(key, etag, len_max)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.run(Operation::GetRange, key.as_str(), self.inner.get_range(key, range, etag)).await
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        self.run(Operation::GetTail, key.as_str(), self.inner.get_tail(key, len)).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.run(Operation::Head, key.as_str(), self.inner.head(key)).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.run(Operation::PutIfAbsent, key.as_str(), self.inner.put_if_absent(key, payload)).await
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        self.run(Operation::PutIfMatch, key.as_str(), self.inner.put_if_match(key, etag, payload)).await
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.run(Operation::Put, key.as_str(), self.inner.put(key, payload)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.run(Operation::Delete, key.as_str(), self.inner.delete(key)).await
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.run(Operation::Purge, key.as_str(), self.inner.purge(key)).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.run(Operation::Time, "", self.inner.time()).await
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.run(Operation::List, prefix, self.inner.list(prefix, depth, token)).await
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("FaultStore")
            .field("seed", &self.seed)
            .field("calls_begun", &state.calls_begun)
            .field("last_call", &state.calls.back())
            .field("crash", &state.crash)
            .field("is_dead", &state.is_dead)
            .field("rates", &state.rates)
            .finish_non_exhaustive()
    }
}
