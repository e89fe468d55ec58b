//! When a zone is left alone, and how it comes back.

use super::*;

fn breaker(ground: &Ground) -> BreakerStore {
    let raw: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&ground.faults);
    BreakerStore::new(raw, StackSettings::default().breaker, ground.clock(), ground.metrics.clone())
}

async fn fail(ground: &Ground, store: &BreakerStore, times: usize) {
    for _ in 0..times {
        ground.faults.refuse_next(Operation::Head, StoreErrorKind::Unavailable);
        store.head(&key("k")).await.unwrap_err();
    }
}

fn state(ground: &Ground) -> u64 {
    ground.metric(r#"des_circuit_breaker_state{zone="a"}"#)
}

async fn is_left_alone(store: &BreakerStore) -> bool {
    store.head(&key("k")).await.is_err_and(|error| BreakerOpen::refused(&error))
}

#[tokio::test]
async fn a_zone_that_fails_again_and_again_is_left_alone() {
    let ground = Ground::new();
    let store = breaker(&ground);
    fail(&ground, &store, 7).await;
    assert!(!is_left_alone(&store).await);
    fail(&ground, &store, 8).await;

    let made = ground.faults.call_count();
    assert!(is_left_alone(&store).await);

    assert_eq!((ground.faults.call_count(), state(&ground)), (made, 1));
}

#[tokio::test]
async fn few_requests_that_all_fail_open_it_too_after_a_while() {
    let ground = Ground::new();
    let store = breaker(&ground);

    fail(&ground, &store, 2).await;
    ground.clock.advance(Duration::from_secs(3));
    assert_eq!(state(&ground), 0);
    fail(&ground, &store, 1).await;

    assert_eq!(state(&ground), 1);
}

#[tokio::test]
async fn an_answer_of_any_kind_shows_that_the_zone_is_there() {
    let ground = Ground::new();
    let store = breaker(&ground);
    for _ in 0..10 {
        fail(&ground, &store, 7).await;
        assert_eq!(store.head(&key("k")).await.unwrap_err().kind, StoreErrorKind::NotFound);
    }
    assert_eq!(state(&ground), 0);
}

#[tokio::test]
async fn one_request_tries_whether_the_zone_is_back() {
    let ground = Ground::new();
    ground.memory.put(&key("k"), payload("x")).await.unwrap();
    let store = breaker(&ground);
    fail(&ground, &store, 8).await;
    ground.clock.advance(Duration::from_millis(500));

    // The trial is under way while another one asks.
    let (trial, other) = join(store.head(&key("k")), async { state(&ground) }).await;

    assert_eq!((trial.is_ok(), other, state(&ground)), (true, 0, 0));
    assert!(store.head(&key("k")).await.is_ok());
}

#[tokio::test]
async fn while_a_trial_is_under_way_nobody_else_goes_through() {
    let ground = Ground::new();
    ground.memory.put(&key("k"), payload("x")).await.unwrap();
    let clock = Arc::clone(&ground.clock);
    let faults: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&ground.faults);
    let slow = Arc::new(SlowStore { inner: faults, delay: Duration::from_millis(10), clock });
    let settings = StackSettings::default().breaker;
    let store = BreakerStore::new(slow, settings, ground.clock(), ground.metrics.clone());
    fail(&ground, &store, 8).await;
    ground.clock.advance(Duration::from_secs(1));

    let target = key("k");
    let outcomes = join_all((0..5).map(|_| store.head(&target))).await;

    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

#[tokio::test]
async fn each_trial_that_fails_doubles_the_recovery_time_up_to_the_most() {
    let ground = Ground::new();
    let store = breaker(&ground);
    fail(&ground, &store, 8).await;

    for millis in [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
        ground.clock.advance(Duration::from_millis(millis - 1));
        assert!(is_left_alone(&store).await, "{millis}");
        ground.clock.advance(Duration::from_millis(1));
        fail(&ground, &store, 1).await;
    }
}

#[tokio::test]
async fn a_trial_that_nobody_waits_for_makes_way_for_the_next() {
    let ground = Ground::new();
    ground.memory.put(&key("k"), payload("x")).await.unwrap();
    let clock = Arc::clone(&ground.clock);
    let faults: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&ground.faults);
    let slow = Arc::new(SlowStore { inner: faults, delay: Duration::from_millis(10), clock });
    let settings = StackSettings::default().breaker;
    let store = BreakerStore::new(slow, settings, ground.clock(), ground.metrics.clone());
    fail(&ground, &store, 8).await;
    ground.clock.advance(Duration::from_secs(1));
    let target = key("k");
    let mut trial = Box::pin(store.head(&target));
    assert!(trial.as_mut().now_or_never().is_none());

    drop(trial);

    assert!(store.head(&key("k")).await.is_ok());
}

#[tokio::test]
async fn an_impatient_stack_does_not_wait_for_an_open_breaker_and_a_patient_one_does() {
    for is_patient in [false, true] {
        let ground = Ground::new();
        ground.memory.put(&key("k"), payload("x")).await.unwrap();
        let mut settings = StackSettings::default();
        settings.retry.is_patient = is_patient;
        settings.retry.attempts_max = 1;
        let store = ground.stack(&settings);
        for _ in 0..8 {
            ground.faults.refuse_next(Operation::Head, StoreErrorKind::Unavailable);
            store.head(&key("k")).await.unwrap_err();
        }

        let began = ground.clock.monotonic();
        let outcome = store.head(&key("k")).await;

        let waited = ground.clock.monotonic().saturating_sub(began);
        assert_eq!((outcome.is_ok(), waited >= Duration::from_millis(500)), (is_patient, is_patient));
    }
}
