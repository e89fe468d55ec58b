//! Which reads are one request.

use super::*;

struct Shared {
    ground: Ground,
    store: SingleFlightStore,
    shard: ObjectKey,
    etag: ETag,
}

async fn shared() -> Shared {
    let ground = Ground::new();
    let shard = key("shards/20240115/20240115_3F_0000.des");
    let etag = ground.memory.put(&shard, payload("0123456789")).await.unwrap().etag;
    let faults: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&ground.faults);
    let clock = Arc::clone(&ground.clock);
    let slow = SlowStore { inner: faults, delay: Duration::from_millis(10), clock };
    let store = SingleFlightStore::new(Arc::new(slow), ground.metrics.clone());
    Shared { ground, store, shard, etag }
}

#[tokio::test]
async fn equal_reads_are_one_request() {
    let Shared { ground, store, shard, etag } = shared().await;

    let ranges = join_all((0..8).map(|_| store.get_range(&shard, 2..5, Some(&etag)))).await;
    let tails = join_all((0..8).map(|_| store.get_tail(&shard, 3))).await;

    assert!(ranges.iter().all(|read| read.as_ref().unwrap() == "234"));
    assert!(tails.iter().all(|read| read.as_ref().unwrap().bytes == "789"));
    assert_eq!(ground.faults.call_count(), 2);
    assert_eq!(ground.metric(r#"des_s3_shared_reads_total{zone="a"}"#), 14);
}

#[tokio::test]
async fn a_failure_is_everybodys_and_nobody_inherits_it_later() {
    let Shared { ground, store, shard, etag } = shared().await;
    ground.faults.refuse_next(Operation::GetRange, StoreErrorKind::Unavailable);

    let reads = join_all((0..8).map(|_| store.get_range(&shard, 0..4, Some(&etag)))).await;

    assert!(reads.iter().all(|read| read.as_ref().is_err_and(|error| error.kind == StoreErrorKind::Unavailable)));
    assert_eq!(ground.faults.call_count(), 1);
    assert_eq!(store.get_range(&shard, 0..4, Some(&etag)).await.unwrap(), "0123");
}

#[tokio::test]
async fn different_reads_and_documents_are_not_shared() {
    let Shared { ground, store, shard, etag } = shared().await;
    ground.memory.put(&key("manifests/20240115.json"), payload("{}")).await.unwrap();
    let manifest = key("manifests/20240115.json");

    let ranges = [0..4, 0..5, 1..4];
    join_all(ranges.map(|range| store.get_range(&shard, range, Some(&etag)))).await;
    join_all((0..3).map(|_| store.get(&manifest, 10))).await;
    join_all((0..3).map(|_| store.get_tail(&manifest, 10))).await;

    assert_eq!(ground.faults.call_count(), 9);
}

#[tokio::test]
async fn a_reader_that_gives_up_does_not_take_the_others_with_it() {
    let Shared { ground, store, shard, etag } = shared().await;
    let mut first = Box::pin(store.get_range(&shard, 0..4, Some(&etag)));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(store.get_range(&shard, 0..4, Some(&etag)));
    assert!(second.as_mut().now_or_never().is_none());

    drop(first);

    assert_eq!(second.await.unwrap(), "0123");
    assert_eq!(ground.faults.call_count(), 1);
}

#[tokio::test]
async fn a_read_that_everybody_gave_up_is_made_anew() {
    let Shared { ground, store, shard, etag } = shared().await;
    let mut read = Box::pin(store.get_range(&shard, 0..4, Some(&etag)));
    assert!(read.as_mut().now_or_never().is_none());

    drop(read);

    assert_eq!(store.get_range(&shard, 0..4, Some(&etag)).await.unwrap(), "0123");
    assert_eq!(ground.faults.call_count(), 1, "the first never got so far");
}
