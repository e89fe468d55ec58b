//! What only the ancestor would write.

use desfmt::legacy::{LegacyCodec, LegacyWriter, StoredPayload};
use desfmt::{Date, Uid};

use super::{World, all};
use crate::adopt::fixture::{Content, shard};
use crate::archive::Details;
use crate::repack::Repacked;

/// A shard with one file, of a codec, whose content takes so many bytes, and which is said to be so long.
fn shard_of_one(uid: &str, codec: LegacyCodec, stored: &[u8], plain_len: u64, metadata: Option<&str>) -> Vec<u8> {
    let mut writer = LegacyWriter::new();
    let stored_len = u64::try_from(stored.len()).unwrap();
    let payload = StoredPayload { codec, stored_len, plain_len };
    writer.push_inline(&Uid::new(uid).unwrap(), payload, metadata).unwrap();
    [LegacyWriter::HEADER.as_slice(), stored, &writer.finish()].concat()
}

async fn details(world: &World, date: Date, uid: &str) -> Details {
    let reader = world.reader().await;
    let file = reader.lookup(date, &Uid::new(uid).unwrap()).await.unwrap().unwrap();
    reader.details(date, file.birth).await.unwrap().unwrap()
}

#[tokio::test]
async fn metadata_stay_as_they_are_and_what_is_json_to_the_ancestor_alone_becomes_a_text() {
    let json = shard_of_one("63", LegacyCodec::Stored, b"x", 1, Some("{\"a\":[1,\"b\"]}"));
    let not_json = shard_of_one("63", LegacyCodec::Stored, b"x", 1, Some("{\"a\":123}"));
    let at = not_json.windows(3).position(|bytes| bytes == b"123").unwrap();
    let not_json = [&not_json[..at], b"NaN", &not_json[at + 3..]].concat();
    let world = World::with(&[("20240120_3F_0000.des", json), ("20240121_3F_0000.des", not_json)]).await;
    let dates: [Date; 2] = ["20240120".parse().unwrap(), "20240121".parse().unwrap()];
    assert_eq!(details(&world, dates[1], "63").await.metadata.as_deref(), Some("{\"a\":NaN}"));

    for date in dates {
        let outcomes = world.repack(date, &all()).await;
        assert!(matches!(outcomes.as_slice(), [(_, Repacked::Swapped(_))]), "{outcomes:?}");
    }

    assert_eq!(details(&world, dates[0], "63").await.metadata.as_deref(), Some("{\"a\":[1,\"b\"]}"));
    assert_eq!(details(&world, dates[1], "63").await.metadata.as_deref(), Some("{\"des.legacy\":\"{\\\"a\\\":NaN}\"}"));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_shard_with_a_content_that_is_too_long_to_be_decoded_is_left_as_it_is() {
    let too_long = vec![0; (50 << 20) + 1];
    let date: Date = "20240120".parse().unwrap();
    for (codec, stored, plain_len) in [(LegacyCodec::Lz4, too_long.as_slice(), 1), (LegacyCodec::Zstd, b"x", 49 << 20)]
    {
        let key = "20240120_3F_0000.des";
        let world = World::with(&[(key, shard_of_one("63", codec, stored, plain_len, None))]).await;

        let refused = world.repack_as(&world.writer().await, date, &all()).await.unwrap_err();

        let reason = refused.to_string();
        let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
        assert!(reason.contains(key) && format!("{reason}{cause}").contains("at most"), "{reason} {cause}");
        assert!(world.flat().await.contains(&key.to_owned()));
        assert!(details(&world, date, "63").await.key.as_str() == key);
    }
}

#[tokio::test]
async fn splits_count_by_their_numbers_and_not_by_their_names() {
    let earlier = shard(&[("319", Content::Inline(b"the one that counts"))]);
    let later = shard(&[("319", Content::Inline(b"hidden")), ("831", Content::Inline(b"831"))]);
    let world = World::with(&[("20240118_3F_9999.des", earlier), ("20240118_3F_10000.des", later)]).await;
    let date: Date = "20240118".parse().unwrap();
    let before = world.shown().await;
    let counts = before.get(&(date, "319".to_owned())).map(Vec::as_slice);
    assert_eq!(counts, Some(b"the one that counts".as_slice()));

    let outcomes = world.repack(date, &all()).await;

    let [(_, Repacked::Swapped(done))] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((done.files_dropped, done.files_kept), (1, 2));
    assert_eq!(world.shown().await, before);
    world.assert_sound().await;
}
