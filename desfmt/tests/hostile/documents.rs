//! Documents: every flipped bit and every cut is found, caps hold, and nothing in one becomes a path.

use desfmt::FormatError;
use desfmt::document::{
    self, DOCUMENT_LEN_MAX, Document, FoldedTombstones, Identity, Manifest, Tombstone, TombstoneBatch,
};

use crate::seeds;
use crate::targets::{assert_is_below_root, with_head};

/// Every flipped bit and every cut of a document is refused or changes nothing.
fn assert_proven<D: Document + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let sound = document::decode::<D>(bytes).unwrap();
    for place in 0..bytes.len() {
        assert!(document::decode::<D>(&bytes[..place]).is_err(), "{} cut at {place}", D::KIND);
        assert!(document::decode::<D>(&bytes[place + 1..]).is_err(), "{} cut before {place}", D::KIND);
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            flipped[place] ^= 1 << bit;
            if let Ok(decoded) = document::decode::<D>(&flipped) {
                assert_eq!(decoded, sound, "bit {bit} of byte {place} of a {}", D::KIND);
            }
        }
    }
}

#[test]
fn no_flipped_bit_and_no_cut_changes_a_document() {
    let [identity, manifest, tombstone, batch, folded] = seeds::documents();
    assert_proven::<Identity>(&identity);
    assert_proven::<Manifest>(&manifest);
    assert_proven::<Tombstone>(&tombstone);
    assert_proven::<TombstoneBatch>(&batch);
    assert_proven::<FoldedTombstones>(&folded);
}

fn manifest_with(change: impl FnOnce(&str) -> String) -> Result<Manifest, FormatError> {
    let [_, manifest, ..] = seeds::documents();
    let body = manifest.split(|byte| *byte == b'\n').nth(1).unwrap();
    document::decode(&with_head::<Manifest>(change(std::str::from_utf8(body).unwrap()).as_bytes()))
}

#[test]
fn a_manifest_cannot_name_an_object_outside_the_archive() {
    let key = "shards/20240115/20240115_3F_0007_R002.des";
    assert_is_below_root(&manifest_with(str::to_owned).unwrap().shards[0].key);
    for hostile in
        ["/etc/passwd", "../x", "shards/../../x", "shards//x", "", "a\\\\b", "shards/\\u0000", ".", "shards/./x"]
    {
        let refused = manifest_with(|body| body.replace(key, hostile));
        assert!(matches!(refused, Err(FormatError::Damaged { .. })), "{hostile}: {refused:?}");
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    type Change = fn(&str) -> String;
    let changes: [(&str, Change); 7] = [
        ("a tail longer than its shard", |body| body.replace("\"tail_len\":400", "\"tail_len\":1001")),
        ("a serial that was not given out", |body| body.replace("\"serials\":[1,2]", "\"serials\":[1,3]")),
        ("a serial twice", |body| body.replace("\"serials\":[1,2]", "\"serials\":[1,1]")),
        ("no serial", |body| body.replace("\"serials\":[1,2]", "\"serials\":[]")),
        ("an unknown field", |body| body.replacen('{', "{\"x\":1,", 1)),
        ("a field twice", |body| body.replacen('{', "{\"generation\":1,", 1)),
        ("an impossible day", |body| body.replace("\"20240115\"", "\"20240230\"")),
    ];
    for (what, change) in changes {
        assert!(manifest_with(change).is_err(), "{what}");
    }
}

#[test]
fn depth_costs_no_stack_and_length_is_capped() {
    for nested in ["[", "{\"a\":"] {
        let deep = format!("{{\"date\":{}", nested.repeat(2_000_000));
        assert!(document::decode::<Manifest>(&with_head::<Manifest>(deep.as_bytes())).is_err());
        assert!(document::decode::<Tombstone>(deep.as_bytes()).is_err());
    }
    let long = vec![b' '; usize::try_from(DOCUMENT_LEN_MAX).unwrap() + 1];
    assert!(matches!(document::decode::<Manifest>(&long), Err(FormatError::BeyondLimits { .. })));
}
