//! That faults come when they are ordered, and only then.

use std::error::Error;

use super::*;
use crate::clock::ManualClock;
use crate::memory::MemoryStore;

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_micros(0)))))
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn payload(text: &'static str) -> Payload {
    Payload::Bytes(Bytes::from_static(text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_orders_the_contract_holds() {
    let scratch = tempfile::tempdir().unwrap();

    crate::conformance::run(|| Arc::new(FaultStore::new(memory(), 1)), scratch.path()).await.unwrap();
}

#[tokio::test]
async fn the_trace_names_every_call() {
    let store = FaultStore::new(memory(), 1);
    let etag = store.put_if_absent(&key("a"), payload("x")).await.unwrap().etag;
    store.put_if_match(&key("a"), &etag, payload("y")).await.unwrap();
    store.put(&key("a"), payload("z")).await.unwrap();
    store.get(&key("a"), 10).await.unwrap();
    store.get_if_changed(&key("a"), &etag, 10).await.unwrap();
    store.get_range(&key("a"), 0..1, None).await.unwrap();
    store.get_tail(&key("a"), 1).await.unwrap();
    store.head(&key("a")).await.unwrap();
    store.list("pre", Depth::Direct, None).await.unwrap();
    store.delete(&key("a")).await.unwrap();

    let told: Vec<String> =
        store.calls().iter().map(|call| format!("{} {} {}", call.number, call.operation.name(), call.key)).collect();

    let expected = [
        "0 put_if_absent a",
        "1 put_if_match a",
        "2 put a",
        "3 get a",
        "4 get_if_changed a",
        "5 get_range a",
        "6 get_tail a",
        "7 head a",
        "8 list pre",
        "9 delete a",
    ];
    assert_eq!(told, expected);
    assert_eq!(store.call_count(), 10);
}

#[tokio::test]
async fn a_crash_before_a_call_leaves_nothing_of_it() {
    let inner = memory();
    let store = FaultStore::new(Arc::clone(&inner), 1);
    store.crash_at(1, Phase::Before);

    store.put(&key("a"), payload("x")).await.unwrap();
    assert_eq!(store.put(&key("b"), payload("x")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(store.head(&key("a")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert!(store.is_dead());

    store.revive();
    store.head(&key("a")).await.unwrap();
    assert_eq!(inner.head(&key("b")).await.unwrap_err().kind, StoreErrorKind::NotFound);
}

#[tokio::test]
async fn a_crash_after_a_call_leaves_all_of_it() {
    let inner = memory();
    let store = FaultStore::new(Arc::clone(&inner), 1);
    store.crash_at(0, Phase::After);

    assert_eq!(store.put(&key("a"), payload("x")).await.unwrap_err().kind, StoreErrorKind::Unavailable);

    assert!(store.is_dead());
    inner.head(&key("a")).await.unwrap();
}

#[tokio::test]
async fn after_a_lost_answer_the_process_lives_on() {
    let store = FaultStore::new(memory(), 1);
    store.crash_at(0, Phase::AckLost);

    let lost = store.put_if_absent(&key("a"), payload("x")).await;

    assert_eq!(lost.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert!(!store.is_dead());
    let again = store.put_if_absent(&key("a"), payload("x")).await;
    assert_eq!(again.unwrap_err().kind, StoreErrorKind::AlreadyExists);
}

#[tokio::test]
async fn a_refusal_meets_the_next_call_of_its_operation() {
    let store = FaultStore::new(memory(), 1);
    store.refuse_next(Operation::Delete, StoreErrorKind::Denied);

    store.put(&key("a"), payload("x")).await.unwrap();
    assert_eq!(store.delete(&key("a")).await.unwrap_err().kind, StoreErrorKind::Denied);
    store.head(&key("a")).await.unwrap();
    store.delete(&key("a")).await.unwrap();
}

#[tokio::test]
async fn a_fault_names_its_seed_and_call() {
    let store = FaultStore::new(memory(), 4_711);
    store.crash_at(0, Phase::Before);

    let error = store.head(&key("a")).await.unwrap_err();

    let cause = error.source().unwrap();
    assert_eq!(cause.to_string(), "injected with seed 4711 at call 0: Crash(Before)");
    assert!(format!("{store:?}").contains("seed: 4711"));
}

async fn outcomes(seed: u64) -> Vec<String> {
    let rates = FaultRates {
        throttled: 50_000,
        unavailable: 50_000,
        ack_lost: 50_000,
        short_read: 50_000,
        flipped_bit: 50_000,
    };
    let store = FaultStore::new(memory(), seed).with_rates(rates);
    for _ in 0..1_000 {
        store.put(&key("a"), payload("0123456789")).await.ok();
        store.get(&key("a"), 10).await.ok();
    }
    store.calls().iter().map(|call| format!("{:?}", call.fault)).collect()
}

#[tokio::test]
async fn a_seed_decides_all_faults() {
    let first = outcomes(7).await;
    assert_eq!(first, outcomes(7).await);
    assert_ne!(first, outcomes(8).await);

    for fault in ["Refused(Throttled)", "Refused(Unavailable)", "Crash(AckLost)", "ShortRead", "FlippedBit"]
        .map(|it| format!("Some({it})"))
    {
        let count = first.iter().filter(|it| **it == fault).count();
        assert!((20..200).contains(&count), "{fault}: {count} of 2,000");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_one_bit() {
    let rates = FaultRates { flipped_bit: 1_000_000, ..FaultRates::default() };
    let store = FaultStore::new(memory(), 3).with_rates(rates);
    let content = vec![0; 1_000];
    store.put(&key("a"), Payload::Bytes(content.into())).await.unwrap();
    let mut places = std::collections::HashSet::new();
    for _ in 0..50 {
        for bytes in [
            store.get(&key("a"), 1_000).await.unwrap().bytes,
            store.get_range(&key("a"), 0..1_000, None).await.unwrap(),
            store.get_tail(&key("a"), 1_000).await.unwrap().bytes,
        ] {
            assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
            places.insert(bytes.iter().position(|byte| *byte != 0));
        }
    }
    assert!(places.len() > 100, "{} places", places.len());
    store.put(&key("empty"), payload("")).await.unwrap();
    assert!(store.get(&key("empty"), 1).await.unwrap().bytes.is_empty());
}
