//! What is tried again, and what was done although nobody said so.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again() {
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Throttled, StoreErrorKind::Corrupt] {
        let ground = Ground::new();
        ground.memory.put(&key("k"), payload("x")).await.unwrap();
        for _ in 0..2 {
            ground.faults.refuse_next(Operation::Get, kind);
        }

        let fetched = ground.stack(&StackSettings::default()).get(&key("k"), 10).await.unwrap();

        assert_eq!(fetched.bytes, "x");
        assert_eq!(ground.faults.call_count(), 3);
        assert_eq!(ground.metric(r#"des_s3_retries_total{operation="get",zone="a"}"#), 2);
    }
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    for kind in [StoreErrorKind::Denied, StoreErrorKind::NotFound, StoreErrorKind::Full] {
        let ground = Ground::new();
        ground.faults.refuse_next(Operation::Head, kind);

        let refused = ground.stack(&StackSettings::default()).head(&key("k")).await.unwrap_err();

        assert_eq!((refused.kind, ground.faults.call_count()), (kind, 1));
    }
}

#[tokio::test]
async fn attempts_are_counted_and_pauses_grow_by_chance() {
    let ground = Ground::new();
    for _ in 0..9 {
        ground.faults.refuse_next(Operation::Head, StoreErrorKind::Throttled);
    }

    let failed = ground.stack(&StackSettings::default()).head(&key("k")).await.unwrap_err();

    assert_eq!((failed.kind, ground.faults.call_count()), (StoreErrorKind::Throttled, 5));
    // Parts of 0.1, 0.2, 0.4 and 0.8 s.
    let spent = ground.clock.monotonic();
    assert!(spent > Duration::from_millis(50) && spent < Duration::from_millis(1_500), "{spent:?}");
}

#[tokio::test]
async fn no_attempt_is_begun_after_the_deadline() {
    let ground = Ground::new();
    for _ in 0..1_000 {
        ground.faults.refuse_next(Operation::Head, StoreErrorKind::Throttled);
    }
    let mut settings = StackSettings::default();
    settings.retry.attempts_max = 1_000;

    ground.stack(&settings).head(&key("k")).await.unwrap_err();

    assert!(ground.clock.monotonic() < settings.retry.deadline, "{:?}", ground.clock.monotonic());
    assert!(ground.faults.call_count() < 50, "{}", ground.faults.call_count());
}

/// A store that asks to be left alone, a few times.
#[derive(Debug)]
struct BusyStore {
    inner: Arc<dyn ObjectStore>,
    refusals: AtomicU32,
    pause: Duration,
}

impl BusyStore {
    async fn run<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let refusal = StoreError::new(StoreErrorKind::Throttled, call.operation.name(), call.key);
            return Err(refusal.to_be_repeated_after(self.pause));
        }
        attempt.await
    }
}

implement_by_run!(BusyStore);

#[tokio::test]
async fn a_store_is_left_alone_for_as_long_as_it_asks_if_there_is_time() {
    for (pause, is_waited_for) in [(4, true), (60, false)] {
        let ground = Ground::new();
        ground.memory.put(&key("k"), payload("x")).await.unwrap();
        let pause = Duration::from_secs(pause);
        let busy = BusyStore { inner: Arc::<MemoryStore>::clone(&ground.memory), refusals: AtomicU32::new(2), pause };
        let settings = StackSettings::default();
        let store = build(Arc::new(busy), &settings, &ground.clock(), &Ground::random(), &ground.metrics);

        let outcome = store.head(&key("k")).await;

        let waited = ground.clock.monotonic();
        assert_eq!(outcome.is_ok(), is_waited_for, "{outcome:?}");
        assert_eq!(waited >= pause * 2, is_waited_for, "{waited:?}");
        assert!(waited < settings.retry.deadline, "{waited:?}");
    }
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_known_as_ours() {
    let ground = Ground::new();
    ground.faults.crash_at(0, Phase::AckLost);
    let store = ground.stack(&StackSettings::default());

    let receipt = store.put_if_absent(&key("k"), payload("ours")).await.unwrap();

    assert_eq!(receipt.etag, ground.memory.head(&key("k")).await.unwrap().etag);
    let again = store.put_if_absent(&key("k"), payload("ours")).await.unwrap_err();
    assert_eq!(again.kind, StoreErrorKind::AlreadyExists, "nothing was lost the second time");
}

#[tokio::test]
async fn a_large_create_whose_answer_was_lost_is_known_as_ours() {
    let ground = Ground::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shard");
    let content: Vec<u8> = (0..20_000_000_u32).map(|index| u8::try_from(index % 251).unwrap()).collect();
    std::fs::write(&file, &content).unwrap();
    ground.faults.crash_at(0, Phase::AckLost);

    let store = ground.stack(&StackSettings::default());
    store.put_if_absent(&key("k"), Payload::File(file)).await.unwrap();

    assert_eq!(store.get(&key("k"), 20_000_000).await.unwrap().bytes, content);
}

#[tokio::test]
async fn a_create_that_another_won_meanwhile_is_not_ours() {
    let ground = Ground::new();
    ground.memory.put(&key("k"), payload("them")).await.unwrap();
    ground.faults.refuse_next(Operation::PutIfAbsent, StoreErrorKind::Unavailable);

    let lost = ground.stack(&StackSettings::default()).put_if_absent(&key("k"), payload("ours")).await.unwrap_err();

    assert_eq!(lost.kind, StoreErrorKind::AlreadyExists);
}

#[tokio::test]
async fn a_replacement_whose_answer_was_lost_is_known_as_ours() {
    let ground = Ground::new();
    let first = ground.memory.put(&key("k"), payload("1")).await.unwrap();
    ground.faults.crash_at(0, Phase::AckLost);

    let receipt =
        ground.stack(&StackSettings::default()).put_if_match(&key("k"), &first.etag, payload("2")).await.unwrap();

    assert_eq!(receipt.etag, ground.memory.head(&key("k")).await.unwrap().etag);
}

#[tokio::test]
async fn a_replacement_that_another_has_replaced_since_is_not_claimed() {
    let ground = Ground::new();
    let first = ground.memory.put(&key("k"), payload("1")).await.unwrap();
    ground.memory.put(&key("k"), payload("3")).await.unwrap();
    ground.faults.refuse_next(Operation::PutIfMatch, StoreErrorKind::Unavailable);

    let lost =
        ground.stack(&StackSettings::default()).put_if_match(&key("k"), &first.etag, payload("2")).await.unwrap_err();

    assert_eq!(lost.kind, StoreErrorKind::PreconditionFailed);
}

#[tokio::test]
async fn a_create_whose_every_answer_was_lost_is_looked_for_at_the_end() {
    let ground = Ground::new();
    ground.faults.crash_at(0, Phase::AckLost);
    for _ in 0..4 {
        ground.faults.refuse_next(Operation::PutIfAbsent, StoreErrorKind::Unavailable);
    }

    let store = ground.stack(&StackSettings::default());

    store.put_if_absent(&key("k"), payload("ours")).await.unwrap();
    let absent = ground.memory.get(&key("k"), 10).await.unwrap();
    assert_eq!(absent.bytes, "ours");
}

#[tokio::test]
async fn a_create_that_never_took_effect_stays_a_failure() {
    let ground = Ground::new();
    for _ in 0..5 {
        ground.faults.refuse_next(Operation::PutIfAbsent, StoreErrorKind::Unavailable);
    }

    let failed = ground.stack(&StackSettings::default()).put_if_absent(&key("k"), payload("ours")).await.unwrap_err();

    assert_eq!(failed.kind, StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_given_up() {
    let ground = Ground::new();
    let clock = Arc::clone(&ground.clock);
    let slow = SlowStore { inner: Arc::<MemoryStore>::clone(&ground.memory), delay: Duration::from_mins(5), clock };
    let store = TimeoutStore::new(Arc::new(slow), Duration::from_secs(15), ground.clock());

    let failed = store.head(&key("k")).await.unwrap_err();

    assert_eq!(failed.kind, StoreErrorKind::Unavailable);
    let cause = failed.cause().and_then(|cause| cause.downcast_ref::<TimedOut>());
    assert_eq!(cause, Some(&TimedOut { after: Duration::from_secs(15) }));
}
