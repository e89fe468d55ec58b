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

    assert_eq!(pay(&store, ground.spool()).await.unwrap().young, 3, "a writer might be at it");
    ground.clock.advance(Duration::from_mins(11));
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
    ground.clock.advance(Duration::from_mins(11));
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

    pay(&store, ground.spool()).await.unwrap();

    assert_eq!(ground.keys(B, "shards/").await.len(), 1);
}
