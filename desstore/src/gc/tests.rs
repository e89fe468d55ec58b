//! What the collection leaves behind when others have deleted before it.

use std::time::Duration;

use crate::archive::Deletion;
use crate::fixture::{Fixture, day, uid};
use crate::inventory::ReadManifest;
use crate::publish::change::{Change, Decision};
use crate::store::{ObjectStore, Payload};

const DAY: Duration = Duration::from_hours(24);

/// An archive whose only shard was deleted from, dropped, and taken away without a word to the manifest.
async fn with_a_shard_that_is_gone() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.pack(&[("a", b"1"), ("b", b"2")]).await;
    let reader = fixture.reader().await;
    reader.delete_many(day(), &[uid("a"), uid("b")], &Deletion::default()).await.unwrap();
    fixture.writer.fold(day()).await.unwrap();
    let shard = fixture.manifest().await.shards.remove(0);
    let dropped = Change::Swap { old: vec![(shard.key.clone(), shard.shard)], new: Vec::new() };
    assert_eq!(fixture.writer.request(day(), dropped).await.unwrap(), Decision::Committed(0));
    fixture.store.delete(&shard.key).await.unwrap();
    fixture
}

async fn retired(fixture: &Fixture) -> usize {
    ReadManifest::read(fixture.store.as_ref(), day()).await.unwrap().unwrap().manifest.retired.len()
}

#[tokio::test]
async fn older_versions_of_an_object_that_is_gone_are_deleted_before_it_is_forgotten() {
    let fixture = with_a_shard_that_is_gone().await;
    fixture.clock.advance(DAY);
    fixture.store.take_calls();

    let garbage = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    let collected = fixture.writer.collect(&garbage, DAY).await.unwrap();

    let calls = fixture.store.take_calls();
    assert!(calls.contains(&"purge shards/20240115/20240115_0_0000.des".to_owned()), "{calls:?}");
    assert_eq!((collected.forgotten, collected.erased, retired(&fixture).await), (1, 2, 0));
}

#[tokio::test]
async fn an_object_that_is_gone_within_its_grace_period_is_not_forgotten_and_its_deletions_are_not_proven() {
    let fixture = with_a_shard_that_is_gone().await;
    fixture.store.take_calls();

    let garbage = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    let collected = fixture.writer.collect(&garbage, DAY).await.unwrap();

    let calls = fixture.store.take_calls();
    assert!(!calls.iter().any(|call| call.starts_with("purge")), "{calls:?}");
    assert_eq!((garbage.waiting, collected.forgotten, collected.erased, retired(&fixture).await), (1, 0, 0, 1));
    assert!(fixture.writer.oldest_deletion(day()).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_there_after_all_is_left_to_its_proof() {
    let fixture = with_a_shard_that_is_gone().await;
    fixture.clock.advance(DAY);
    let garbage = fixture.writer.plan_gc(day(), DAY).await.unwrap().unwrap();
    assert_eq!(garbage.gone.len(), 1);
    let key = garbage.gone[0].clone();
    let late = Payload::Bytes(bytes::Bytes::from_static(b"an upload that woke up late"));
    fixture.store.put(&key, late).await.unwrap();

    let collected = fixture.writer.collect(&garbage, DAY).await.unwrap();

    assert_eq!((collected.forgotten, retired(&fixture).await), (0, 1));
    assert!(fixture.store.head(&key).await.is_ok());
}
