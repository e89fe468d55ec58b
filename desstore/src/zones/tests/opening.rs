//! What does not belong together is refused in words.

use super::*;

async fn put_identity(ground: &Ground, zone: usize, archive: u8, bits: u8) {
    let identity =
        IdentityDocument::new(ArchiveId::from_bytes([archive; 16]), BucketBits::new(bits).unwrap(), ground.clock.now());
    let body = document::encode(&identity).unwrap();
    ground.memory[zone].put(&layout::identity(), Payload::Bytes(body.into())).await.unwrap();
}

#[tokio::test]
async fn a_zone_with_another_archive_is_refused() {
    let ground = Ground::new();
    put_identity(&ground, A, 1, 8).await;
    put_identity(&ground, B, 2, 8).await;

    let refused = ground.try_open().await.unwrap_err().to_string();

    assert!(refused.contains("zone b holds archive 02020202"), "{refused}");
    assert!(refused.contains("zone a archive 01010101"), "{refused}");
}

#[tokio::test]
async fn a_home_without_des_json_is_refused_where_a_copy_has_one() {
    let ground = Ground::new();
    put_identity(&ground, B, 1, 8).await;

    let refused = ground.try_open().await.unwrap_err().to_string();

    assert!(refused.contains("home zone a has no des.json"), "{refused}");
}

#[tokio::test]
async fn ranges_for_another_number_of_buckets_are_refused() {
    let ground = Ground::new();
    let bits = BucketBits::new(4).unwrap();
    let ranges = vec![ZoneRange { from: 0, to: 0x10000, zones: vec![A, B] }];
    let map = ZoneMap::new(ranges, A, Some(bits)).unwrap();
    let open = async |map: &ZoneMap| {
        let settings = ZoneSettings::default();
        ZoneStore::open(ground.zones(), map.clone(), settings, ground.clock(), Ground::random()).await
    };

    let store: Arc<dyn ObjectStore> = open(&map).await.unwrap();
    let eight = BucketBits::new(8).unwrap();
    let created = ArchiveWriter::create(store, eight, ground.clock(), Ground::random()).await.unwrap_err();
    put_identity(&ground, A, 1, 8).await;
    let opened = open(&map).await.unwrap_err();

    let told = "n_bits = 4, but the archive has 8";
    assert!(format!("{created:?}").contains("OtherBits"), "{created:?}");
    assert!(opened.to_string().contains(told), "{opened}");
}

#[tokio::test]
async fn a_des_json_of_a_future_version_or_a_damaged_one_is_refused() {
    let ground = Ground::new();
    put_identity(&ground, A, 1, 8).await;
    let bytes = ground.memory[A].get(&layout::identity(), 1_000).await.unwrap().bytes;
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    for (changed, reason) in
        [(text.replace("\"version\":1", "\"version\":2"), "TooNew"), (text.replace("n_bits", "m_bits"), "Damaged")]
    {
        ground.memory[A].put(&layout::identity(), Payload::Bytes(changed.into())).await.unwrap();

        let refused = ground.try_open().await.unwrap_err();

        assert!(refused.to_string().contains("des.json of zone a"), "{refused}");
        assert!(format!("{refused:?}").contains(reason), "{refused:?}");
    }
}

#[tokio::test]
async fn zones_that_are_all_away_are_said_to_be() {
    let ground = Ground::new();
    ground.cut(A);
    ground.cut(B);

    assert!(matches!(ground.try_open().await, Err(ZoneError::Unreachable { .. })));
}

#[tokio::test]
async fn a_zone_that_turns_out_to_be_foreign_later_is_not_read() {
    let ground = Ground::new();
    let (_, writer) = ground.create().await;
    ground.pack(&writer, &[("2", b"even")]).await.unwrap();
    ground.cut(B);
    let store = ground.open().await;
    let archive = ground.reader(&store).await;
    ground.heal(B);
    put_identity(&ground, B, 9, 1).await;
    ground.cut(A);

    assert!(content(&archive, "2").await.is_err());
}
