//! Where the old shards are read, and what is made of damaged ones.

use std::sync::Arc;

use bytes::Bytes;
use desfmt::ObjectKey;

use super::{DAY, borrowed, corpus, delete, settings, shard_keys, visible};
use crate::archive::ArchiveError;
use crate::error::StoreErrorKind;
use crate::fixture::{Fixture, day};
use crate::local::LocalStore;
use crate::repack::{Job, RepackSettings, Repacked, Thresholds};
use crate::store::{ObjectStore, Payload};

/// A shard with a deleted file, due to be repacked: where it lies, its bytes, and bytes that are damaged.
struct Due {
    fixture: Fixture,
    job: Job,
    key: ObjectKey,
    sound: Bytes,
    damaged: Bytes,
}

impl Due {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        fixture.pack(&borrowed(&corpus(50))).await;
        delete(&fixture, ["uid-00001"]).await;
        fixture.clock.advance(DAY);
        let key = shard_keys(&fixture).await[0].clone();
        let sound = fixture.store.inner.get(&key, 1 << 30).await.unwrap().bytes;
        let mut damaged = sound.to_vec();
        damaged[500] ^= 1;
        let plan = fixture.writer.plan_repack(day(), &Thresholds::default()).await.unwrap().unwrap();
        Self { fixture, job: plan.jobs[0].clone(), key, sound, damaged: damaged.into() }
    }

    async fn repack(&self, settings: &RepackSettings) -> Result<Repacked, ArchiveError> {
        self.fixture.writer.repack(day(), &self.job, settings).await
    }

    async fn assert_repacked(&self, settings: &RepackSettings) {
        assert!(matches!(self.repack(settings).await.unwrap(), Repacked::Swapped(_)));
        assert_eq!(visible(&self.fixture).await.len(), 49);
    }
}

#[tokio::test]
async fn damage_in_an_old_shard_stops_its_repack_and_a_sound_copy_heals_it() {
    let due = Due::new().await;
    let healer = Arc::new(crate::MemoryStore::new(Arc::<crate::ManualClock>::clone(&due.fixture.clock)));
    healer.put(&due.key, Payload::Bytes(due.sound.clone())).await.unwrap();
    due.fixture.store.inner.put(&due.key, Payload::Bytes(due.damaged.clone())).await.unwrap();

    let refused = due.repack(&settings(&due.fixture)).await.unwrap_err();
    assert!(refused.to_string().contains("des-verify"), "{refused}");

    due.assert_repacked(&RepackSettings { healers: vec![healer], ..settings(&due.fixture) }).await;
}

#[tokio::test]
async fn a_shard_of_a_directory_is_read_where_it_lies_and_proven_all_the_same() {
    let due = Due::new().await;
    let clock = Arc::<crate::ManualClock>::clone(&due.fixture.clock);
    let directory = LocalStore::create(due.fixture.scratch.path().join("archive"), clock).unwrap();
    let in_place = RepackSettings { directory: Some(directory.clone()), ..settings(&due.fixture) };

    let missing = due.repack(&in_place).await.unwrap_err();
    assert!(matches!(missing, ArchiveError::Store(error) if error.kind == StoreErrorKind::NotFound));
    for (wrong, complaint) in
        [(due.damaged.clone(), "its bytes are not those"), (due.sound.slice(1..), "the manifest says")]
    {
        directory.put(&due.key, Payload::Bytes(wrong)).await.unwrap();
        let refused = due.repack(&in_place).await.unwrap_err();
        assert!(refused.to_string().contains(complaint), "{refused}");
    }

    directory.put(&due.key, Payload::Bytes(due.sound.clone())).await.unwrap();
    due.fixture.store.take_calls();
    due.assert_repacked(&in_place).await;
    let calls = due.fixture.store.take_calls();
    assert!(!calls.iter().any(|call| call.contains(due.key.as_str())), "it was not asked of the store");
}
