//! Debts are left, listed and paid.

use super::*;

#[tokio::test]
async fn a_zone_that_was_away_is_owed_what_it_missed_and_gets_it() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let archive = ground.reader(&store).await;
    ground.cut(B);
    ground.pack(&writer, &[("4", b"even too")]).await.unwrap();
    delete(&archive, "2").await.unwrap();
    ground.heal(B);
    let owed = debts(&store).await.unwrap();
    let (is_shard, is_manifest, is_record) = (
        |debt: &&Debt| debt.key.as_str().starts_with("shards/"),
        |debt: &&Debt| debt.key == layout::manifest(day()),
        |debt: &&Debt| debt.key.as_str().starts_with("tombstones/"),
    );
    assert_eq!(owed.iter().filter(is_shard).count(), 1);
    assert_eq!(owed.iter().filter(is_manifest).count(), 1);
    assert_eq!(owed.iter().filter(is_record).count(), 1);
    assert!(owed.iter().all(|debt| debt.zone == "b"));

    let paid = pay(&store, ground.spool()).await.unwrap();

    assert_eq!((paid.paid, paid.young, paid.failed.len()), (3, 0, 0));
    assert_eq!(debts(&store).await.unwrap(), []);
    assert_eq!(ground.keys(A, "").await, ground.keys(B, "").await);
    assert_eq!(ground.manifest(A).await, ground.manifest(B).await);
    ground.cut(A);
    let archive = ground.reader(&store).await;
    assert_eq!(content(&archive, "2").await.unwrap(), None);
    assert_eq!(content(&archive, "4").await.unwrap().unwrap(), "even too");
}

#[tokio::test]
async fn a_zone_that_is_still_away_stays_owed() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.cut(B);
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.clock.advance(Duration::from_mins(11));
    let owed = debts(&store).await.unwrap().len();

    let paid = pay(&store, ground.spool()).await.unwrap();

    assert_eq!((paid.paid, paid.failed.len()), (0, owed));
    assert_eq!(debts(&store).await.unwrap().len(), owed);
}

#[tokio::test]
async fn what_is_removed_while_a_zone_is_away_is_removed_there_later() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let shard = ObjectKey::new("shards/20240115/20240115_0_0000.des").unwrap();
    ground.cut(B);

    store.purge(&shard).await.unwrap();
    assert_eq!(debts(&store).await.unwrap()[0].task, document::DebtTask::Remove);
    ground.heal(B);
    pay(&store, ground.spool()).await.unwrap();

    for zone in [A, B] {
        assert_eq!(ground.keys(zone, "shards/").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_copy_that_is_owed_is_never_removed_because_the_home_has_lost_its_own() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.cut(B);
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.heal(B);
    let shard = ObjectKey::new("shards/20240115/20240115_0_0000.des").unwrap();
    let bytes = ground.memory[A].get(&shard, 1 << 20).await.unwrap().bytes;
    ground.memory[B].put(&shard, Payload::Bytes(bytes)).await.unwrap();
    ground.memory[A].delete(&shard).await.unwrap();
    ground.clock.advance(Duration::from_mins(11));

    let paid = pay(&store, ground.spool()).await.unwrap();

    assert_eq!(ground.keys(B, "shards/").await.len(), 1);
    assert_eq!(paid.failed.len(), 1, "a live shard that its home has lost is told");
}

/// Leaves the debt of a writer that has not written yet.
async fn intend(store: &ZoneStore, key: &ObjectKey, generation: Option<u64>) {
    store.owe(B, layout::DebtScope::Day(day()), (key, document::DebtTask::Copy), generation).await.unwrap();
}

#[tokio::test]
async fn the_intent_of_a_writer_that_may_still_write_is_left_alone_while_it_is_young() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let next = ground.manifest(A).await.unwrap().generation + 1;
    intend(&store, &layout::manifest(day()), Some(next)).await;
    intend(&store, &layout::manifest(day()), None).await;

    assert_eq!(pay(&store, ground.spool()).await.unwrap().young, 2);
    ground.clock.advance(Duration::from_mins(11));
    assert_eq!(pay(&store, ground.spool()).await.unwrap().paid, 2);
}

#[tokio::test]
async fn an_intent_is_done_with_as_soon_as_the_home_has_got_so_far() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let reached = ground.manifest(A).await.unwrap().generation;

    intend(&store, &layout::manifest(day()), Some(reached)).await;

    assert_eq!(pay(&store, ground.spool()).await.unwrap().paid, 1);
}

#[tokio::test]
async fn a_shard_that_no_manifest_lists_stays_owed_until_it_is_decided_what_becomes_of_it() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    let shard = ground.build(&writer, &[("2", b"even")]).await.unwrap();
    ground.cut(B);
    ground.faults[A].refuse_next(Operation::PutIfMatch, StoreErrorKind::Denied);
    writer.publish(&shard).await.unwrap_err();
    ground.heal(B);
    ground.clock.advance(Duration::from_hours(24));

    assert_eq!(pay(&store, ground.spool()).await.unwrap().young, 1);
    assert_eq!((ground.keys(A, "shards/").await.len(), ground.keys(B, "shards/").await.len()), (1, 0));
    writer.publish(&shard).await.unwrap();

    let paid = pay(&store, ground.spool()).await.unwrap();
    assert_eq!((paid.paid, paid.young), (1, 0));
    assert_eq!(ground.keys(B, "shards/").await, ground.keys(A, "shards/").await);
}

#[tokio::test]
async fn a_shard_that_is_damaged_at_home_is_not_copied() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.cut(B);
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.heal(B);
    let shard = ObjectKey::new("shards/20240115/20240115_0_0000.des").unwrap();
    let mut bytes = ground.memory[A].get(&shard, 1 << 20).await.unwrap().bytes.to_vec();
    bytes[100] ^= 1;
    ground.memory[A].put(&shard, Payload::Bytes(bytes.into())).await.unwrap();

    let paid = pay(&store, ground.spool()).await.unwrap();

    assert_eq!(paid.failed.iter().map(|(_, error)| error.kind).collect::<Vec<_>>(), [StoreErrorKind::Corrupt]);
    assert_eq!(ground.keys(B, "shards/").await, Vec::<String>::new());
}
