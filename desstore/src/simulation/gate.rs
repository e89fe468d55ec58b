//! The door between a process and the store: each call waits until it is let through, so that a seed decides whose call
//! is next and what becomes of it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};

use crate::error::{StoreError, StoreErrorKind};
use crate::fault::{FaultStore, Operation};
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// How a call is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// As it is.
    Plain,
    /// A write stays on its way: its caller is told that the store is unavailable, and it may arrive at any time.
    Stray,
    /// What is uploaded arrives with a wrong byte.
    Spoilt,
}

/// A call that waits.
#[derive(Debug, Clone)]
pub(super) struct WaitingCall {
    pub(super) number: u64,
    pub(super) operation: Operation,
    pub(super) key: String,
    /// True for the further pages of a listing.
    pub(super) continues: bool,
}

#[derive(Debug)]
struct Waiting {
    call: WaitingCall,
    passage: Option<Passage>,
    waker: Waker,
}

/// A write that its caller has given up on.
#[derive(Debug, Clone)]
pub(super) enum StrayWrite {
    PutIfAbsent(ObjectKey, Bytes),
    PutIfMatch(ObjectKey, ETag, Bytes),
    Put(ObjectKey, Bytes),
    Delete(ObjectKey),
}

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    calls: u64,
    waiting: Vec<Waiting>,
    strays: VecDeque<StrayWrite>,
}

/// The store as one process sees it.
#[derive(Debug)]
pub(super) struct Gate {
    inner: Arc<FaultStore>,
    state: Mutex<State>,
}

impl Gate {
    /// A gate that is open lets every call through at once.
    pub(super) fn new(inner: Arc<FaultStore>, is_open: bool) -> Self {
        Self { inner, state: Mutex::new(State { is_open, ..State::default() }) }
    }

    /// The calls that wait, in the order in which they came.
    pub(super) fn waiting(&self) -> Vec<WaitingCall> {
        self.state().waiting.iter().map(|one| one.call.clone()).collect()
    }

    /// Lets a call through; the task that made it is woken.
    pub(super) fn let_through(&self, number: u64, passage: Passage) {
        let mut state = self.state();
        if let Some(one) = state.waiting.iter_mut().find(|one| one.call.number == number) {
            one.passage = Some(passage);
            one.waker.wake_by_ref();
        }
    }

    /// Writes that were given up on since the last time.
    pub(super) fn take_strays(&self) -> VecDeque<StrayWrite> {
        std::mem::take(&mut self.state().strays)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self, operation: Operation, key: &str, continues: bool) -> Passage {
        let mut turn = Turn { gate: self, number: None };
        poll_fn(|context| {
            let mut state = self.state();
            if state.is_open {
                return Poll::Ready(Passage::Plain);
            }
            let Some(number) = turn.number else {
                let number = state.calls;
                state.calls += 1;
                let call = WaitingCall { number, operation, key: key.to_owned(), continues };
                state.waiting.push(Waiting { call, passage: None, waker: context.waker().clone() });
                turn.number = Some(number);
                return Poll::Pending;
            };
            let Some(one) = state.waiting.iter_mut().find(|one| one.call.number == number) else {
                return Poll::Ready(Passage::Plain);
            };
            if one.passage.is_none() {
                one.waker.clone_from(context.waker());
            }
            one.passage.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn give_up(&self, write: StrayWrite, operation: Operation, key: &ObjectKey) -> StoreError {
        self.state().strays.push_back(write);
        StoreError::new(StoreErrorKind::Unavailable, operation.name(), key)
    }
}

/// Its place in the line is given up with the call.
struct Turn<'a> {
    gate: &'a Gate,
    number: Option<u64>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.gate.state().waiting.retain(|one| Some(one.call.number) != self.number);
    }
}

/// The bytes of a payload as they are now.
pub(super) fn bytes_of(payload: Payload) -> Bytes {
    match payload {
        Payload::Bytes(bytes) => bytes,
        Payload::File(path) => std::fs::read(path).unwrap().into(),
    }
}

fn spoil(payload: Payload) -> Payload {
    let mut bytes = bytes_of(payload).to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    Payload::Bytes(bytes.into())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Gate {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.pass(Operation::Get, key.as_str(), false).await;
        self.inner.get(key, len_max).await
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.pass(Operation::GetIfChanged, key.as_str(), false).await;
        self.inner.get_if_changed(key, etag, len_max).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.pass(Operation::GetRange, key.as_str(), false).await;
        self.inner.get_range(key, range, etag).await
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        self.pass(Operation::GetTail, key.as_str(), false).await;
        self.inner.get_tail(key, len).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.pass(Operation::Head, key.as_str(), false).await;
        self.inner.head(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let operation = Operation::PutIfAbsent;
        match self.pass(operation, key.as_str(), false).await {
            Passage::Plain => self.inner.put_if_absent(key, payload).await,
            Passage::Spoilt => self.inner.put_if_absent(key, spoil(payload)).await,
            Passage::Stray => {
                Err(self.give_up(StrayWrite::PutIfAbsent(key.clone(), bytes_of(payload)), operation, key))
            }
        }
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        let operation = Operation::PutIfMatch;
        match self.pass(operation, key.as_str(), false).await {
            Passage::Plain | Passage::Spoilt => self.inner.put_if_match(key, etag, payload).await,
            Passage::Stray => {
                let write = StrayWrite::PutIfMatch(key.clone(), etag.clone(), bytes_of(payload));
                Err(self.give_up(write, operation, key))
            }
        }
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let operation = Operation::Put;
        match self.pass(operation, key.as_str(), false).await {
            Passage::Plain => self.inner.put(key, payload).await,
            Passage::Spoilt => self.inner.put(key, spoil(payload)).await,
            Passage::Stray => Err(self.give_up(StrayWrite::Put(key.clone(), bytes_of(payload)), operation, key)),
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        match self.pass(Operation::Delete, key.as_str(), false).await {
            Passage::Plain | Passage::Spoilt => self.inner.delete(key).await,
            Passage::Stray => Err(self.give_up(StrayWrite::Delete(key.clone()), Operation::Delete, key)),
        }
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        match self.pass(Operation::Purge, key.as_str(), false).await {
            Passage::Plain | Passage::Spoilt => self.inner.purge(key).await,
            Passage::Stray => Err(self.give_up(StrayWrite::Delete(key.clone()), Operation::Purge, key)),
        }
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.pass(Operation::Time, "", false).await;
        self.inner.time().await
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.pass(Operation::List, prefix, token.is_some()).await;
        self.inner.list(prefix, depth, token).await
    }
}
