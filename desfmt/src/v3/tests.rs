//! Whole shards: built, opened, searched, read.

use super::*;

pub(super) mod building;
mod damage;
mod document;
mod index_cost;
mod whole;

use building::{Opened, ShardBuilder, file};

#[test]
fn a_small_shard_reads_back() {
    let files = vec![file("a", b"first"), file("b", b""), file("c", b"third")];
    let object = ShardBuilder::default().build(&files);

    let report = check_object(&object).unwrap();

    assert_eq!((report.entries, report.frames, report.content_len), (3, 1, 10));
    let opened = Opened::new(&object);
    for (position, file) in files.iter().enumerate() {
        let entry = opened.find(file.uid.as_str()).unwrap();
        assert_eq!(opened.read(&entry, 0, u64::MAX), file.content);
        assert_eq!(opened.find_birth(0, u32::try_from(position).unwrap()), Some(entry.clone()));
        assert_eq!(opened.metadata(&entry), None);
    }
    assert_eq!(opened.find("bb"), None);
}
