//! A concurrent cache bounded in bytes.

use std::hash::Hash;

use moka::sync::Cache;

/// A cache whose entries together weigh at most a number of bytes; the least recently used go first.
pub(crate) struct ByteCache<K, V> {
    cache: Cache<K, (V, u32)>,
}

impl<K, V> std::fmt::Debug for ByteCache<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByteCache")
    }
}

/// What an entry costs beyond its weight, in bytes.
const ENTRY_OVERHEAD: usize = 200;

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> ByteCache<K, V> {
    /// An empty cache of a size.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { cache: Cache::builder().weigher(|_, (_, weight): &(V, u32)| *weight).max_capacity(bytes_max).build() }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.cache.get(key).map(|(value, _)| value)
    }

    /// Keeps a value that weighs so many bytes.
    pub(crate) fn insert(&self, key: K, value: V, weight: usize) {
        self.cache.insert(key, (value, u32::try_from(weight.saturating_add(ENTRY_OVERHEAD)).unwrap_or(u32::MAX)));
    }

    /// Forgets a key.
    pub(crate) fn remove(&self, key: &K) {
        self.cache.invalidate(key);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.cache.invalidate_all();
    }
}
