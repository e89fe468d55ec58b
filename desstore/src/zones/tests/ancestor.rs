//! An archive of the ancestor, which has no identity, in several zones.

use super::*;

#[tokio::test]
async fn flat_shards_are_found_in_the_zones_of_their_range() {
    let ground = Ground::new();
    let key = |text: &str| ObjectKey::new(text).unwrap();
    let put = async |zone: usize, name: &str| {
        ground.memory[zone].put(&key(name), Payload::Bytes(name.to_owned().into())).await.unwrap();
    };
    for (zone, name) in [
        (A, "20240115_00_0000.des"),
        (A, "20240115_00_0000.meta"),
        (B, "20240115_80_0000.des"),
        (B, "20240115_FF_0001.des"),
        (B, "_bigFiles/aa"),
        // A copy, and one that lies where it does not belong.
        (A, "20240115_FF_0001.des"),
        (B, "20240115_01_0000.des"),
    ] {
        put(zone, name).await;
    }
    let store = ground.open().await;

    let listed = list_all(store.as_ref(), "20240115_", Depth::Direct, 100).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(
        listed,
        ["20240115_00_0000.des", "20240115_00_0000.meta", "20240115_80_0000.des", "20240115_FF_0001.des"]
    );
    for name in ["20240115_00_0000.meta", "20240115_FF_0001.des", "_bigFiles/aa"] {
        assert_eq!(store.get(&key(name), 100).await.unwrap().bytes, name);
    }
    ground.cut(B);
    assert_eq!(store.get(&key("20240115_FF_0001.des"), 100).await.unwrap().bytes, "20240115_FF_0001.des");
    let written = store.put(&key("20240115_00_0007.des"), Payload::Bytes("x".into())).await;
    assert_eq!(written.unwrap_err().kind, StoreErrorKind::Unsupported, "it is read as it is");
}
