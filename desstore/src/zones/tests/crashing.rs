//! A writer dies at every call it makes: whatever the home then holds is in the copy, or owed to it.

use super::*;

/// Checks what must always hold. The documents that home and copy do not share, each with a debt.
async fn ensure_nothing_is_behind_unnoticed(ground: &Ground, told: &str) {
    ground.heal(A);
    ground.heal(B);
    let store = ground.open().await;
    let owed = debts(&store).await.unwrap();
    for prefix in ["manifests/", "tombstones/", "des.json"] {
        for key in ground.keys(A, prefix).await {
            let key = ObjectKey::new(&key).unwrap();
            let home = ground.memory[A].get(&key, 1 << 20).await.unwrap().bytes;
            let copy = ground.memory[B].get(&key, 1 << 20).await.map(|copy| copy.bytes);
            let is_equal = copy.is_ok_and(|copy| copy == home);
            assert!(is_equal || owed.iter().any(|debt| debt.key == key), "{told}: {key} is behind");
        }
    }
    let live = ground.manifest(A).await.map(|manifest| manifest.shards).unwrap_or_default();
    for shard in live {
        for zone in [A, B] {
            let is_there = ground.memory[zone].head(&shard.key).await.is_ok();
            assert!(is_there || owed.iter().any(|debt| debt.key == shard.key), "{told}: {} is missing", shard.key);
        }
    }
}

async fn run(ground: &Ground) -> Result<(), ArchiveError> {
    let store = ground.try_open().await.map_err(|error| ArchiveError::Refused { reason: error.to_string() })?;
    let shared: Arc<dyn ObjectStore> = Arc::<ZoneStore>::clone(&store);
    let bits = BucketBits::new(1).unwrap();
    let writer = ArchiveWriter::create(Arc::clone(&shared), bits, ground.clock(), Ground::random()).await?;
    for files in [[("2", b"even".as_slice())], [("3", b"odd".as_slice())]] {
        ground.pack(&writer, &files).await?;
    }
    let archive = Archive::open(shared, ReadOptions::default(), ground.clock(), Ground::random()).await?;
    delete(&archive, "2").await.map(drop)
}

#[tokio::test]
async fn whatever_the_home_holds_is_in_the_copy_or_owed_to_it() {
    let whole = Ground::new();
    run(&whole).await.unwrap();
    let calls = [A, B].map(|zone| whole.faults[zone].call_count());
    assert!(calls[A] > 30 && calls[B] > 8, "{calls:?}");

    for zone in [A, B] {
        for number in 0..calls[zone] {
            for phase in Phase::ALL {
                let ground = Ground::new();
                ground.faults[zone].crash_at(number, phase);
                // It may succeed or fail; a death of the home is that of the writer, one of the copy only an outage.
                drop(run(&ground).await);
                let told = format!("call {number} of zone {zone}, {phase:?}");
                ensure_nothing_is_behind_unnoticed(&ground, &told).await;

                run(&ground).await.unwrap();
                ensure_nothing_is_behind_unnoticed(&ground, &told).await;
            }
        }
    }
}

#[tokio::test]
async fn a_debt_that_cannot_be_recorded_fails_the_write() {
    let ground = Ground::new();
    let (store, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    let archive = ground.reader(&store).await;
    ground.cut(B);
    ground.faults[A].refuse_next(Operation::Put, StoreErrorKind::Unavailable);

    let failed = delete(&archive, "2").await;

    assert!(failed.is_err());
    assert_eq!(ground.keys(A, "tombstones/").await, Vec::<String>::new());
}
