//! What all processes share: the store with its clock, and the book in which every operation is entered and judged.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};

use super::gate::bytes_of;
use super::oracle::{By, Oracle};
use crate::clock::{Clock, ManualClock};
use crate::error::{StoreError, StoreErrorKind};
use crate::memory::MemoryStore;
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// How many entries of the history are kept.
const HISTORY_LEN: usize = 120;

/// The ground that processes stand on.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) memory: MemoryStore,
    pub(super) clock: Arc<ManualClock>,
    book: Mutex<Book>,
}

/// Everything that has happened.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) oracle: Oracle,
    /// When a deletion was acknowledged, and by which process.
    pub(super) deleted: BTreeMap<String, Vec<(Timestamp, Arc<str>)>>,
    /// The first rule that was broken.
    pub(super) violation: Option<String>,
    history: VecDeque<Event>,
    /// Every entry of the history goes in, those that are forgotten too.
    fingerprint: blake3::Hasher,
}

#[derive(Debug)]
enum Event {
    Call { at: Timestamp, process: Arc<str>, call: &'static str, key: Arc<str>, failure: Option<StoreErrorKind> },
    Note { at: Timestamp, text: String },
}

impl Shared {
    pub(super) fn new(memory: MemoryStore, clock: Arc<ManualClock>, oracle: Oracle) -> Self {
        let book = Book {
            oracle,
            deleted: BTreeMap::new(),
            violation: None,
            history: VecDeque::new(),
            fingerprint: blake3::Hasher::new(),
        };
        Self { memory, clock, book: Mutex::new(book) }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Enters something into the history that is no call.
    pub(super) fn note(&self, text: String) {
        let at = self.now();
        self.book().enter(Event::Note { at, text });
    }

    /// Moves the clock further than an operation usually takes.
    pub(super) fn leap(&self, by: Duration) {
        self.clock.advance(by);
        self.note(format!("{} s later", by.as_secs()));
    }
}

impl Book {
    fn enter(&mut self, event: Event) {
        match &event {
            Event::Call { process, call, key, failure, .. } => {
                for text in [process.as_bytes(), call.as_bytes(), key.as_bytes(), &[u8::from(failure.is_some())]] {
                    self.fingerprint.update(text);
                }
            }
            Event::Note { text, .. } => drop(self.fingerprint.update(text.as_bytes())),
        }
        if self.history.len() == HISTORY_LEN {
            self.history.pop_front();
        }
        self.history.push_back(event);
    }

    fn judge(&mut self, judgement: Result<(), String>) {
        if let Err(broken) = judgement {
            self.violation.get_or_insert(broken);
        }
    }

    /// Stands for everything that has happened.
    pub(super) fn fingerprint(&self) -> blake3::Hash {
        self.fingerprint.finalize()
    }

    /// The last events, one a line.
    pub(super) fn history(&self) -> String {
        let lines: Vec<String> = self.history.iter().map(|event| format!("    {event}")).collect();
        lines.join("\n")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |at: &Timestamp| {
            let seconds = at.seconds().rem_euclid(86_400);
            format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
        };
        match self {
            Self::Call { at, process, call, key, failure } => {
                write!(f, "{} {process:<12} {call:<14} {key}", clock(at))?;
                failure.map_or(Ok(()), |failure| write!(f, ": {failure}"))
            }
            Self::Note { at, text } => write!(f, "{} {text}", clock(at)),
        }
    }
}

/// The store itself, as one process reaches it: whatever arrives is entered and judged.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) shared: Arc<Shared>,
    pub(super) process: Arc<str>,
    /// The operation with which the job of the process began.
    pub(super) job_began: u64,
    /// How many of its calls went wrong.
    pub(super) troubles: Arc<AtomicU64>,
}

impl Watched {
    fn by(&self) -> By {
        By { job_began: self.job_began, troubles: self.troubles.load(Ordering::Relaxed) }
    }

    fn enter<T>(&self, call: &'static str, key: &str, outcome: &Result<T, StoreError>) -> MutexGuard<'_, Book> {
        let mut book = self.shared.book();
        book.oracle.operation += 1;
        let failure = outcome.as_ref().err().map(|error| error.kind);
        let (at, process) = (self.shared.now(), Arc::clone(&self.process));
        book.enter(Event::Call { at, process, call, key: key.into(), failure });
        book
    }

    fn wrote(&self, call: &'static str, key: &ObjectKey, bytes: &Bytes, outcome: &Result<Receipt, StoreError>) {
        let mut book = self.enter(call, key.as_str(), outcome);
        if let Ok(receipt) = outcome {
            let judgement = book.oracle.wrote(key, bytes, receipt.at, self.by());
            book.judge(judgement);
        }
    }

    fn removed(&self, call: &'static str, key: &ObjectKey, outcome: &Result<(), StoreError>) {
        let mut book = self.enter(call, key.as_str(), outcome);
        let judgement = book.oracle.removed(key, self.shared.now(), self.by());
        book.judge(judgement);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Watched {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        let outcome = self.shared.memory.get(key, len_max).await;
        drop(self.enter("get", key.as_str(), &outcome));
        outcome
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        let outcome = self.shared.memory.get_if_changed(key, etag, len_max).await;
        drop(self.enter("get_if_changed", key.as_str(), &outcome));
        outcome
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        let outcome = self.shared.memory.get_range(key, range, etag).await;
        drop(self.enter("get_range", key.as_str(), &outcome));
        outcome
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        let outcome = self.shared.memory.get_tail(key, len).await;
        drop(self.enter("get_tail", key.as_str(), &outcome));
        outcome
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let outcome = self.shared.memory.head(key).await;
        drop(self.enter("head", key.as_str(), &outcome));
        outcome
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let bytes = bytes_of(payload);
        let outcome = self.shared.memory.put_if_absent(key, Payload::Bytes(bytes.clone())).await;
        self.wrote("put_if_absent", key, &bytes, &outcome);
        outcome
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        let bytes = bytes_of(payload);
        let outcome = self.shared.memory.put_if_match(key, etag, Payload::Bytes(bytes.clone())).await;
        self.wrote("put_if_match", key, &bytes, &outcome);
        outcome
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let bytes = bytes_of(payload);
        let outcome = self.shared.memory.put(key, Payload::Bytes(bytes.clone())).await;
        self.wrote("put", key, &bytes, &outcome);
        outcome
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let outcome = self.shared.memory.delete(key).await;
        self.removed("delete", key, &outcome);
        outcome
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let outcome = self.shared.memory.purge(key).await;
        self.removed("purge", key, &outcome);
        outcome
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        let outcome = self.shared.memory.time().await;
        drop(self.enter("time", "", &outcome));
        outcome
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        let outcome = self.shared.memory.list(prefix, depth, token).await;
        drop(self.enter("list", prefix, &outcome));
        outcome
    }
}
