//! Writers are refused where any of the zones does not honour conditions.

use super::*;

/// A store that takes conditions and ignores them.
#[derive(Debug)]
struct Heedless(Arc<MemoryStore>);

#[async_trait]
impl ObjectStore for Heedless {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.0.get(key, len_max).await
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.0.get_if_changed(key, etag, len_max).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.0.get_range(key, range, etag).await
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        self.0.get_tail(key, len).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.0.head(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.0.put(key, payload).await
    }

    async fn put_if_match(&self, key: &ObjectKey, _etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        self.0.put(key, payload).await
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.0.put(key, payload).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.0.delete(key).await
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.0.purge(key).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.0.time().await
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.0.list(prefix, depth, token).await
    }
}

#[tokio::test]
async fn a_zone_that_ignores_conditions_is_named() {
    for heedless in [A, B] {
        let ground = Ground::new();
        let mut zones = ground.zones();
        zones[heedless].store = Arc::new(Heedless(Arc::clone(&ground.memory[heedless])));
        let settings = ZoneSettings::default();
        let store = ZoneStore::open(zones, map(), settings, ground.clock(), Ground::random()).await.unwrap();

        let refused = store.demand_conditions(&SeededRandom::new(1)).await.unwrap_err().to_string();

        let name = ["a", "b"][heedless];
        assert!(
            refused.starts_with(&format!("zone {name}: the store does not honour conditional writes")),
            "{refused}"
        );
        for zone in [A, B] {
            assert_eq!(ground.keys(zone, "").await, Vec::<String>::new(), "nothing is left");
        }
    }
}

#[tokio::test]
async fn a_copy_that_is_away_does_not_stop_writers_and_the_home_does() {
    let ground = Ground::new();
    let (store, _) = ground.create().await;
    let random = SeededRandom::new(1);
    store.demand_conditions(&random).await.unwrap();

    ground.cut(B);
    store.demand_conditions(&random).await.unwrap();
    ground.heal(B);
    ground.cut(A);

    assert!(matches!(store.demand_conditions(&random).await, Err(ArchiveError::Store(_))));
}
