use proptest::prelude::*;

use super::*;

/// A plain row for tests.
pub(crate) fn row(uid: &str, day: u32, len: u64) -> Row {
    let date = Date::from_number(738_000 + day).unwrap();
    Row {
        date,
        uid: Uid::new(uid).unwrap(),
        created_at: date.start(),
        len,
        source: PathBuf::from(format!("/data/{uid}")),
        metadata: None,
        checksum: None,
        number: 1,
    }
}

prop_compose! {
    /// Any row that can be routed.
    pub(crate) fn any_row()(
        uid in "[a-z0-9/ ]{1,12}|[0-9]{1,9}|\\PC{1,40}".prop_filter("routable", |uid| bucket_of(uid, WIDEST).is_ok()),
        day in 0_u32..4,
        len in 0_u64..2_000,
        metadata in proptest::option::of(Just("{\"a\":1}".into())),
        checksum in proptest::option::of(any::<[u8; 16]>().prop_map(Checksum::Md5)),
        number: u64,
    ) -> Row {
        Row { metadata, checksum, number, ..row(&uid, day, len) }
    }
}

proptest! {
    #[test]
    fn rows_read_back_from_memory_and_from_disk(
        rows in proptest::collection::vec(any_row(), 0..60),
        memory in prop_oneof![Just(0), Just(1_usize << 20)],
        buffer in 1_usize..200,
    ) {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        let mut writer = RowLogWriter::with_memory(&spool, memory);
        for row in &rows {
            writer.encode(row).unwrap().unwrap();
        }
        let log = writer.finish().unwrap();

        let mut reader = log.read(0..log.len(), buffer);
        let mut read = Vec::new();
        while let Some(row) = reader.next_row().unwrap() {
            prop_assert_eq!(row.file_len(), row.decode().unwrap().len);
            read.push(row.decode().unwrap());
        }

        prop_assert_eq!(read, rows);
    }

    #[test]
    fn the_group_of_an_encoded_row_is_that_of_its_uid(row in any_row(), bits in 0_u8..=16) {
        let bits = BucketBits::new(bits).unwrap();
        let mut bytes = Vec::new();
        row.encode(&mut bytes).unwrap();

        let group = EncodedRow(&bytes[4..]).group(bits).unwrap();

        prop_assert_eq!(group, Group::of(row.date, row.uid.as_str(), bits).unwrap());
    }
}
