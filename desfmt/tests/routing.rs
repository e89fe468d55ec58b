//! Routing against a table of what the ancestor's rules say, computed by an interpreter of its kind.

use std::fs;
use std::path::Path;

use desfmt::{BucketBits, bucket_of};

#[test]
fn uids_route_as_the_ancestor_routes_them() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/routing.jsonl");
    let (mut routed, mut refused) = (0, 0);
    for line in fs::read_to_string(table).unwrap().lines() {
        let (uid, expected): (String, Option<String>) = serde_json::from_str(line).unwrap();
        let names: Option<Vec<String>> = (4..=16)
            .map(|n_bits| {
                let bits = BucketBits::new(n_bits).unwrap();
                bucket_of(&uid, bits).ok().map(|bucket| bucket.hex(bits))
            })
            .collect();
        assert_eq!(names.map(|names| names.join(" ")), expected, "{uid:?}");
        if expected.is_some() { routed += 1 } else { refused += 1 }
    }
    assert!(routed > 2_000 && refused > 100, "the table has {routed} uids and {refused} that cannot be routed");
}
