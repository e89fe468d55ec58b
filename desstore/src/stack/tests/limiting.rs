//! How many requests go through.

use super::*;

fn limit(ground: &Ground, settings: LimitSettings) -> RateLimitStore {
    let raw: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&ground.faults);
    RateLimitStore::new(raw, settings, ground.clock())
}

fn settings() -> LimitSettings {
    LimitSettings { per_second: 10, burst: 5, in_flight_max: 4, wait_max: Duration::from_secs(30) }
}

async fn ask(store: &dyn ObjectStore, times: usize) {
    for _ in 0..times {
        drop(store.head(&key("k")).await);
    }
}

#[tokio::test]
async fn what_was_saved_up_goes_at_once_and_the_rest_waits_its_turn() {
    let ground = Ground::new();
    ground.clock.advance(Duration::from_secs(100));
    let store = limit(&ground, settings());
    let began = ground.clock.monotonic();

    ask(&store, 5).await;
    assert_eq!(ground.clock.monotonic(), began);
    ask(&store, 10).await;

    let spent = ground.clock.monotonic().saturating_sub(began);
    assert_eq!(spent.as_millis(), 1_000);
}

#[tokio::test]
async fn a_throttled_request_halves_the_rate_and_it_grows_back() {
    let ground = Ground::new();
    ground.clock.advance(Duration::from_secs(100));
    let store = limit(&ground, settings());
    ask(&store, 30).await;

    ground.faults.refuse_next(Operation::Head, StoreErrorKind::Throttled);
    ask(&store, 1).await;
    let slowed = store.rate();
    assert!(slowed <= 5.5, "{slowed}");

    ground.clock.advance(Duration::from_secs(1));
    ask(&store, 1).await;
    assert!(store.rate() > slowed && store.rate() < 10.0, "{}", store.rate());
    ground.clock.advance(Duration::from_mins(1));
    ask(&store, 1).await;
    assert!((store.rate() - 10.0).abs() < 1e-9, "{}", store.rate());
}

#[tokio::test]
async fn the_rate_never_falls_to_nothing() {
    let ground = Ground::new();
    ground.clock.advance(Duration::from_secs(100));
    let store = limit(&ground, settings());
    for _ in 0..50 {
        ground.faults.refuse_next(Operation::Head, StoreErrorKind::Throttled);
        ask(&store, 1).await;
    }
    assert!(store.rate() >= 1.0, "{}", store.rate());
}

#[tokio::test]
async fn a_line_that_is_too_long_refuses_newcomers() {
    let ground = Ground::new();
    let store = limit(&ground, LimitSettings { wait_max: Duration::from_millis(50), ..settings() });
    // The waits are planned before anybody sleeps.
    let outcomes = join_all((0..20).map(|_| async { store.head(&key("k")).await.unwrap_err().kind })).await;

    assert!(outcomes.contains(&StoreErrorKind::NotFound));
    let refused = RateLimitStore::new(
        Arc::<FaultStore>::clone(&ground.faults),
        LimitSettings { per_second: 1, burst: 1, in_flight_max: 1, wait_max: Duration::ZERO },
        ground.clock(),
    );
    drop(refused.head(&key("k")).await);
    assert_eq!(refused.head(&key("k")).await.unwrap_err().kind, StoreErrorKind::Throttled);
}

#[tokio::test]
async fn no_more_requests_than_allowed_are_under_way() {
    let ground = Ground::new();
    ground.clock.advance(Duration::from_secs(100));
    let clock = Arc::clone(&ground.clock);
    let slow = SlowStore { inner: Arc::<MemoryStore>::clone(&ground.memory), delay: Duration::from_secs(1), clock };
    let generous = LimitSettings { per_second: 1_000_000, burst: 1_000, in_flight_max: 1, ..settings() };
    let store = RateLimitStore::new(Arc::new(slow), generous, ground.clock());
    let began = ground.clock.monotonic();

    let target = key("k");
    join_all((0..5).map(|_| store.head(&target))).await;

    assert!(ground.clock.monotonic().saturating_sub(began) >= Duration::from_secs(5));
}
