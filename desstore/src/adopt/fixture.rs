//! An archive of the ancestor for tests: shards of two days, a big file, and a sidecar.

use std::sync::Arc;

use bytes::Bytes;
use desfmt::legacy::{BigFileHash, LegacyCodec, LegacyWriter, StoredPayload};
use desfmt::{BucketBits, Date, ObjectKey, Timestamp, Uid};

use super::{Adopted, adopt};
use crate::archive::ArchiveError;
use crate::clock::{Clock, ManualClock, Randomness, SeededRandom};
use crate::memory::MemoryStore;
use crate::store::{ObjectStore, Payload};

pub(crate) const BIG: &[u8] = b"kept beside the shards";

/// The content of a file of the ancestor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    Inline(&'a [u8]),
    Big(&'a [u8]),
}

/// A shard of version 2 with these files in this order.
pub(crate) fn shard(files: &[(&str, Content<'_>)]) -> Vec<u8> {
    let mut writer = LegacyWriter::new();
    let mut bytes = LegacyWriter::HEADER.to_vec();
    for (uid, content) in files {
        let uid = Uid::new(uid).unwrap();
        match content {
            Content::Inline(content) => {
                let len = u64::try_from(content.len()).unwrap();
                let payload = StoredPayload { codec: LegacyCodec::Stored, stored_len: len, plain_len: len };
                writer.push_inline(&uid, payload, None).unwrap();
                bytes.extend(*content);
            }
            Content::Big(content) => {
                let len = u64::try_from(content.len()).unwrap();
                writer.push_big_file(&uid, &BigFileHash::of(content), len, None).unwrap();
            }
        }
    }
    bytes.extend(writer.finish());
    bytes
}

/// Adopts it.
pub(crate) async fn adopted(
    store: &Arc<dyn ObjectStore>,
    clock: &Arc<dyn Clock>,
    seed: u64,
) -> Result<Adopted, ArchiveError> {
    let random: Arc<dyn Randomness> = Arc::new(SeededRandom::new(seed));
    adopt(store, bits(), (clock, &random), false).await
}

pub(crate) fn bits() -> BucketBits {
    BucketBits::new(8).unwrap()
}

pub(crate) fn day() -> Date {
    "20240115".parse().unwrap()
}

pub(crate) async fn put(store: &dyn ObjectStore, key: &str, bytes: impl Into<Bytes>) {
    store.put(&ObjectKey::new(key).unwrap(), Payload::Bytes(bytes.into())).await.unwrap();
}

/// Shards of two days, a big file, a uid that is in two splits, and a sidecar that deletes two uids.
pub(crate) async fn ancestor() -> (Arc<dyn ObjectStore>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_705_300_000_000_000)));
    let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(shared));
    // All of these are in bucket 3F: 63 modulo 256.
    for (key, uids) in [
        ("20240115_3F_0000.des", vec!["63", "319", "575"]),
        ("20240115_3F_0001.des", vec!["319", "831"]),
        ("20240116_3F_0000.des", vec!["63"]),
    ] {
        let mut files: Vec<(&str, Content<'_>)> = Vec::new();
        let contents: Vec<String> = uids.iter().map(|uid| format!("{uid} in {key}")).collect();
        files.extend(uids.iter().zip(&contents).map(|(uid, content)| (*uid, Content::Inline(content.as_bytes()))));
        if key.starts_with("20240116") {
            files.push(("319", Content::Big(BIG)));
        }
        put(store.as_ref(), key, shard(&files)).await;
    }
    put(store.as_ref(), &format!("_bigFiles/{}", BigFileHash::of(BIG)), BIG).await;
    let record = |uid: &str| {
        serde_json::json!({
            "uid": uid, "created_at": "2024-01-15T00:00:00+00:00", "deleted_at": "2024-02-01T00:00:00+00:00",
            "deleted_by": "somebody", "reason": "asked", "ticket_id": "T-9",
        })
    };
    let sidecar = serde_json::json!({
        "version": 1, "shard_file": "20240115_3F_0000.des", "shard_size": 1, "created_at": "x", "last_updated": "x",
        "index": {}, "tombstones": {"63:2024-01-15T00:00:00+00:00": record("63"), "831:x": record("831")},
    });
    put(store.as_ref(), "20240115_3F_0000.meta", serde_json::to_vec(&sidecar).unwrap()).await;
    (store, clock)
}
