//! Where the old shards are read, and what is made of damaged ones.

use std::sync::Arc;

use super::{DAY, borrowed, corpus, delete, settings, shard_keys, visible};
use crate::archive::ArchiveError;
use crate::error::StoreErrorKind;
use crate::fixture::{Fixture, day};
use crate::local::LocalStore;
use crate::repack::{RepackSettings, Repacked, Thresholds};
use crate::store::{ObjectStore, Payload};

#[tokio::test]
async fn damage_in_an_old_shard_stops_its_repack_and_a_sound_copy_heals_it() {
    let fixture = Fixture::new().await;
    fixture.pack(&borrowed(&corpus(50))).await;
    delete(&fixture, ["uid-00001"]).await;
    fixture.clock.advance(DAY);
    let key = shard_keys(&fixture).await[0].clone();
    let sound = fixture.store.inner.get(&key, 1 << 30).await.unwrap().bytes;
    let healer = Arc::new(crate::MemoryStore::new(Arc::<crate::ManualClock>::clone(&fixture.clock)));
    healer.put(&key, Payload::Bytes(sound.clone())).await.unwrap();
    let mut broken = sound.to_vec();
    broken[500] ^= 1;
    fixture.store.inner.put(&key, Payload::Bytes(broken.into())).await.unwrap();
    let plan = fixture.writer.plan_repack(day(), &Thresholds::default()).await.unwrap().unwrap();

    let refused = fixture.writer.repack(day(), &plan.jobs[0], &settings(&fixture)).await.unwrap_err();
    assert!(refused.to_string().contains("des-verify"), "{refused}");
    let with_copies = RepackSettings { healers: vec![healer], ..settings(&fixture) };
    let outcome = fixture.writer.repack(day(), &plan.jobs[0], &with_copies).await.unwrap();

    assert!(matches!(outcome, Repacked::Swapped(_)));
    assert_eq!(visible(&fixture).await.len(), 49);
}

#[tokio::test]
async fn a_shard_of_a_directory_is_read_where_it_lies_and_proven_all_the_same() {
    let fixture = Fixture::new().await;
    fixture.pack(&borrowed(&corpus(50))).await;
    delete(&fixture, ["uid-00001"]).await;
    fixture.clock.advance(DAY);
    let key = shard_keys(&fixture).await[0].clone();
    let sound = fixture.store.inner.get(&key, 1 << 30).await.unwrap().bytes;
    let mut broken = sound.to_vec();
    broken[500] ^= 1;
    let clock = Arc::<crate::ManualClock>::clone(&fixture.clock);
    let directory = LocalStore::create(fixture.scratch.path().join("archive"), clock).unwrap();
    let in_place = RepackSettings { directory: Some(directory.clone()), ..settings(&fixture) };
    let plan = fixture.writer.plan_repack(day(), &Thresholds::default()).await.unwrap().unwrap();

    let missing = fixture.writer.repack(day(), &plan.jobs[0], &in_place).await.unwrap_err();
    assert!(matches!(missing, ArchiveError::Store(error) if error.kind == StoreErrorKind::NotFound));
    for (wrong, complaint) in [(broken, "its bytes are not those"), (sound[1..].to_vec(), "the manifest says")] {
        directory.put(&key, Payload::Bytes(wrong.into())).await.unwrap();
        let refused = fixture.writer.repack(day(), &plan.jobs[0], &in_place).await.unwrap_err();
        assert!(refused.to_string().contains(complaint), "{refused}");
    }
    directory.put(&key, Payload::Bytes(sound)).await.unwrap();
    fixture.store.take_calls();
    let outcome = fixture.writer.repack(day(), &plan.jobs[0], &in_place).await.unwrap();

    assert!(matches!(outcome, Repacked::Swapped(_)));
    assert!(
        !fixture.store.take_calls().iter().any(|call| call.contains(key.as_str())),
        "it was not asked of the store"
    );
    assert_eq!(visible(&fixture).await.len(), 49);
}
