use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};
use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use prometheus::Registry;

use super::layer::{Answer, Call, implement_by_run};
use super::*;
use crate::clock::{ManualClock, SeededRandom, SystemClock};
use crate::error::{StoreError, StoreErrorKind};
use crate::fault::{FaultRates, FaultStore, Operation, Phase};
use crate::memory::MemoryStore;
use crate::store::{ETag, Payload};

mod breaking;
mod limiting;
mod retrying;
mod sharing;

/// A store that takes its time.
#[derive(Debug)]
struct SlowStore {
    inner: Arc<dyn ObjectStore>,
    delay: Duration,
    clock: Arc<ManualClock>,
}

impl SlowStore {
    async fn run<T: Answer>(
        &self,
        _call: Call<'_>,
        attempt: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        // In slices, so that others get their turn in between.
        let slice = self.delay.checked_div(10).unwrap();
        for _ in 0..10 {
            self.clock.sleep(slice).await;
        }
        attempt.await
    }
}

implement_by_run!(SlowStore);

/// What the tests stand on: a store in memory that fails when told to.
struct Ground {
    clock: Arc<ManualClock>,
    memory: Arc<MemoryStore>,
    faults: Arc<FaultStore>,
    registry: Registry,
    metrics: ZoneMetrics,
}

impl Ground {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let memory = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
        let faults = Arc::new(FaultStore::new(Arc::<MemoryStore>::clone(&memory), 7));
        let registry = Registry::new();
        let metrics = StackMetrics::register(&registry).unwrap().zone("a");
        Self { clock, memory, faults, registry, metrics }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<ManualClock>::clone(&self.clock)
    }

    fn random() -> Arc<dyn Randomness> {
        Arc::new(SeededRandom::new(3))
    }

    fn stack(&self, settings: &StackSettings) -> Arc<dyn ObjectStore> {
        let raw: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&self.faults);
        build(raw, settings, &self.clock(), &Self::random(), &self.metrics)
    }

    /// The value of a counter or gauge, found by how its line begins.
    fn metric(&self, line: &str) -> u64 {
        let mut text = Vec::new();
        prometheus::Encoder::encode(&prometheus::TextEncoder::new(), &self.registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |value| value.parse().unwrap())
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn payload(text: &'static str) -> Payload {
    Payload::Bytes(Bytes::from_static(text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_whole_stack_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let make = || -> Arc<dyn ObjectStore> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let memory = MemoryStore::new(Arc::clone(&clock)).with_page_len(NonZeroUsize::new(7).unwrap());
        let metrics = StackMetrics::unregistered().zone("a");
        build(Arc::new(memory), &StackSettings::default(), &clock, &Ground::random(), &metrics)
    };

    crate::conformance::run(make, scratch.path()).await.unwrap();
}

#[tokio::test]
async fn the_stack_of_a_failing_store_loses_and_garbles_nothing() {
    let ground = Ground::new();
    let rates =
        FaultRates { throttled: 50_000, unavailable: 50_000, ack_lost: 50_000, short_read: 50_000, flipped_bit: 0 };
    ground.faults.set_rates(rates);
    let mut settings = StackSettings::default();
    settings.retry.attempts_max = 12;
    settings.retry.deadline = Duration::from_hours(1);
    let store = ground.stack(&settings);

    for number in 0..200 {
        let key = key(&format!("k/{number}"));
        let first = store.put_if_absent(&key, Payload::Bytes(number.to_string().into())).await.unwrap();
        store.put_if_match(&key, &first.etag, Payload::Bytes(format!("{number}!").into())).await.unwrap();
        assert_eq!(store.get(&key, 100).await.unwrap().bytes, format!("{number}!"));
    }

    let injected = ground.faults.calls().iter().filter(|call| call.fault.is_some()).count();
    assert!(injected > 50, "{injected}");
}
