use proptest::prelude::*;

use super::*;

/// An index put together by hand, field by field.
struct Crafted(Vec<u8>);

impl Crafted {
    fn new(count: u32) -> Self {
        Self(count.to_le_bytes().to_vec())
    }

    fn uid(mut self, uid: &[u8]) -> Self {
        self.0.extend(u16::try_from(uid.len()).unwrap().to_le_bytes());
        self.0.extend(uid);
        self
    }

    fn inline(mut self, offset: u64, len: u64, codec: u8, plain_len: u64) -> Self {
        self.0.extend(offset.to_le_bytes());
        self.0.extend(len.to_le_bytes());
        self.0.push(codec);
        self.0.extend(len.to_le_bytes());
        self.0.extend(plain_len.to_le_bytes());
        self
    }

    fn flags(mut self, flags: u8) -> Self {
        self.0.push(flags);
        self
    }

    fn big_file(mut self, hash: &str, len: u64) -> Self {
        self.0.extend(u16::try_from(hash.len()).unwrap().to_le_bytes());
        self.0.extend(hash.as_bytes());
        self.0.extend(len.to_le_bytes());
        self
    }

    fn metadata(mut self, text: &[u8]) -> Self {
        self.0.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        self.0.extend(text);
        self
    }

    fn parse(self, version: LegacyVersion) -> Result<LegacyIndex, FormatError> {
        LegacyIndex::parse(version, self.0.into(), 1_000)
    }

    fn v1(self) -> Result<LegacyIndex, FormatError> {
        self.parse(LegacyVersion::V1)
    }

    fn v2(self) -> Result<LegacyIndex, FormatError> {
        self.parse(LegacyVersion::V2)
    }

    fn one(uid: &str) -> Self {
        Self::new(1).uid(uid.as_bytes()).flags(0)
    }
}

fn assert_damaged(found: Result<LegacyIndex, FormatError>, why: &str) {
    match found {
        Err(FormatError::Damaged { detail, .. }) => assert!(detail.contains(why), "{detail:?} speaks of {why:?}"),
        other => panic!("{why}: {other:?}"),
    }
}

#[test]
fn an_entry_is_found_by_uid_by_place_and_by_ordinal() {
    let index = Crafted::new(3)
        .uid(b"b")
        .inline(8, 10, 0, 10)
        .uid(b"c")
        .inline(18, 5, 1, 100)
        .uid(b"a")
        .inline(23, 1, 2, 7)
        .v1()
        .unwrap();

    let b = index.find("b").unwrap();
    let location = Location::Inline { offset: 8, stored_len: 10, codec: LegacyCodec::Stored, plain_len: 10 };
    assert_eq!(b, LegacyEntry { uid: "b", ordinal: 0, location, metadata: None });
    assert_eq!(
        index.iter().map(|entry| (entry.uid, entry.ordinal)).collect::<Vec<_>>(),
        [("a", 2), ("b", 0), ("c", 1)]
    );
    assert_eq!(index.entry(1), Some(b));
    assert_eq!(index.by_ordinal(0), Some(b));
    assert_eq!((index.find("aa"), index.entry(3), index.by_ordinal(3)), (None, None, None));
    assert_eq!((index.lower_bound(""), index.lower_bound("aa"), index.lower_bound("d")), (0, 1, 3));
    assert_eq!((index.len(), index.ordinals(), index.is_empty()), (3, 3, false));
}

#[test]
fn of_two_entries_with_one_uid_the_later_counts() {
    let index = Crafted::new(3)
        .uid(b"x")
        .inline(8, 1, 0, 1)
        .uid(b"x")
        .inline(9, 2, 0, 2)
        .uid(b"x")
        .inline(11, 3, 0, 3)
        .v1()
        .unwrap();
    assert_eq!(index.find("x").unwrap().location.plain_len(), 3);
    assert_eq!((index.by_ordinal(0), index.by_ordinal(1)), (None, None));
    assert_eq!(index.by_ordinal(2).unwrap().uid, "x");
    assert_eq!((index.len(), index.shadowed(), index.ordinals()), (1, 2, 3));
}

#[test]
fn an_entry_without_a_uid_is_counted_and_cannot_be_reached() {
    let index = Crafted::new(2).uid(b"").inline(8, 1, 0, 1).uid(b"y").inline(9, 1, 0, 1).v1().unwrap();
    assert_eq!((index.skipped(), index.len(), index.find(""), index.by_ordinal(0)), (1, 1, None, None));
    assert_eq!(index.find("y").unwrap().ordinal, 1);
}

#[test]
fn an_index_of_nothing_is_an_index() {
    let index = Crafted::new(0).v2().unwrap();
    assert!(index.is_empty() && index.iter().next().is_none());
}

#[test]
fn metadata_may_say_when_a_file_was_created() {
    let entry = |metadata: &str| {
        let index = Crafted::one("x").inline(8, 0, 0, 0).metadata(metadata.as_bytes()).v2().unwrap();
        (index.find("x").unwrap().metadata.map(str::to_owned), index.find("x").unwrap().created_at())
    };
    let text = r#"{"ratio":NaN,"created_at":"2024-03-01T12:34:56.789Z","\ud800":1}"#;
    assert_eq!(entry(text).0.as_deref(), Some(text));
    assert_eq!(entry(""), (None, None));
    let time = |metadata| entry(metadata).1.map(|time| time.to_string());
    assert_eq!(time(r#"{"created_at":"2024-03-01T12:34:56+02:00"}"#).as_deref(), Some("2024-03-01T10:34:56Z"));
    assert_eq!(time(r#"{"created_at":"2024-03-01"}"#).as_deref(), Some("2024-03-01T00:00:00Z"));
    assert_eq!(time(r#"{"r":NaN,"created_at":"1","created_at":"20240301"}"#).as_deref(), Some("2024-03-01T00:00:00Z"));
    for none in ["{}", r#"{"created_at":1}"#, r#"{"created_at":"soon"}"#, r#"{"a":{"created_at":"20240301"}}"#] {
        assert_eq!(time(none), None, "{none}");
    }
}

#[test]
fn a_big_file_is_named_by_a_hash_and_by_nothing_else() {
    let hash = "0f".repeat(32);
    let index = Crafted::new(1).uid(b"x").flags(0xff).big_file(&hash, 9).metadata(b"").v2().unwrap();
    let location = Location::BigFile { hash: BigFileHash::parse(hash.as_bytes()).unwrap(), len: 9 };
    assert_eq!(index.find("x").unwrap().location, location);
    let long = "a".repeat(65);
    for name in ["", "../victim", "/etc/passwd", "..", hash.to_uppercase().as_str(), &hash[1..], long.as_str()] {
        let crafted = Crafted::new(1).uid(&[b'x'; 40]).flags(1).big_file(name, 9).metadata(b"");
        assert_damaged(crafted.v2(), "is not 64 lower-case hexadecimal digits");
    }
}

#[test]
fn flags_that_mean_nothing_are_ignored() {
    let index = Crafted::new(1).uid(b"x").flags(0xfe).inline(8, 1, 0, 1).metadata(b"").v2().unwrap();
    assert_eq!(index.find("x").unwrap().location.plain_len(), 1);
}

#[test]
fn payloads_lie_between_the_header_and_the_index() {
    assert!(Crafted::new(1).uid(b"x").inline(8, 992, 0, 992).v1().is_ok());
    assert!(Crafted::new(1).uid(b"x").inline(1_000, 0, 0, 0).v1().is_ok());
    for (offset, len) in [(7, 1), (0, 0), (8, 993), (1_001, 0), (1_000, 1), (u64::MAX, 1), (8, u64::MAX), (u64::MAX, 0)]
    {
        assert_damaged(Crafted::new(1).uid(b"x").inline(offset, len, 0, len).v1(), "before the index");
    }
}

#[test]
fn an_entry_that_contradicts_itself_is_refused() {
    assert_damaged(Crafted::new(1).uid(b"x").inline(8, 5, 0, 6).v1(), "stored uncompressed");
    assert_damaged(Crafted::new(1).uid(b"x").inline(8, 5, 3, 5).v1(), "codec 3");
    assert_damaged(Crafted::new(1).uid(b"\xff").inline(8, 5, 0, 5).v1(), "uid: invalid utf-8");
    let mut differs = Crafted::new(1).uid(b"x").inline(8, 5, 1, 5);
    differs.0[24] = 6; // the compressed size
    assert_damaged(differs.v1(), "length is 5 and the compressed size 6");
    for metadata in [b"[]".as_slice(), b"1", b"{", b"{} x", b"\xff", b"\"{}\""] {
        assert_damaged(Crafted::one("x").inline(8, 5, 0, 5).metadata(metadata).v2(), "metadata");
    }
}

#[test]
fn a_count_is_believed_only_where_its_entries_can_be() {
    assert_damaged(Crafted::new(u32::MAX).v2(), "4294967295 entries in 0 bytes");
    assert_damaged(Crafted::new(2).uid(b"x").inline(8, 1, 0, 1).v1(), "2 entries in 36 bytes");
    assert_damaged(Crafted::new(0).uid(b"x").inline(8, 1, 0, 1).v1(), "36 bytes are left over");
    assert_damaged(LegacyIndex::parse(LegacyVersion::V2, Bytes::new(), 1_000), "no count");
    let mut huge = Crafted::new(Birth::ORDINAL_MAX + 2);
    huge.0.resize(4 + 35 * 4_194_305, 0);
    assert!(matches!(huge.v1(), Err(FormatError::BeyondLimits { .. })));
}

#[test]
fn memory_is_the_bytes_and_eight_more_for_each_file() {
    let index = Crafted::new(2).uid(b"x").inline(8, 1, 0, 1).uid(b"y").inline(9, 1, 0, 1).v1().unwrap();
    assert_eq!(index.memory_bytes(), 4 + 2 * 36 + 2 * 8 + size_of::<LegacyIndex>());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, count in 0_u32..4, is_v1: bool) {
        let version = if is_v1 { LegacyVersion::V1 } else { LegacyVersion::V2 };
        let mut crafted = Crafted::new(count).0;
        crafted.extend(&bytes);
        for bytes in [bytes, crafted] {
            LegacyIndex::parse(version, bytes.into(), 1_000).ok();
        }
    }

    #[test]
    fn damage_in_an_index_gives_an_error_or_entries_within_bounds(
        at in 0_usize..190,
        value: u8,
        cut in 0_usize..200,
    ) {
        let whole = Crafted::new(2)
            .uid(b"first").flags(0).inline(8, 10, 1, 100).metadata(br#"{"a":"b"}"#)
            .uid(b"second").flags(1).big_file(&"ab".repeat(32), 77).metadata(b"").0;
        prop_assert!(LegacyIndex::parse(LegacyVersion::V2, whole.clone().into(), 1_000).is_ok());
        if cut < whole.len() {
            prop_assert!(LegacyIndex::parse(LegacyVersion::V2, whole[..cut].to_vec().into(), 1_000).is_err());
        }
        let mut changed = whole;
        if let Some(byte) = changed.get_mut(at) {
            *byte = value;
        }
        if let Ok(index) = LegacyIndex::parse(LegacyVersion::V2, changed.into(), 1_000) {
            for entry in index.iter() {
                if let Location::Inline { offset, stored_len, .. } = entry.location {
                    prop_assert!(offset >= 8 && offset.saturating_add(stored_len) <= 1_000);
                }
                prop_assert_eq!(index.find(entry.uid), Some(entry));
            }
        }
    }
}
