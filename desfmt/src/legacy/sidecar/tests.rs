use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A sidecar with the fields that the ancestor writes, two deletions among them.
fn sidecar() -> Value {
    json!({
        "version": 1,
        "shard_file": "20240301_0A_0000.des",
        "shard_size": 769,
        "created_at": "2024-03-02T00:00:00Z",
        "last_updated": "2024-03-05T01:02:03.000004Z",
        "index": {
            "a:b": {
                "uid": "a:b", "offset": 8, "length": 700, "codec": "none", "compressed_size": 700,
                "uncompressed_size": 700, "is_bigfile": false, "bigfile_hash": null, "bigfile_size": null,
                "meta": {}, "checksum": "c651", "checksum_algo": "sha256"
            }
        },
        "tombstones": {
            "a:b:2024-03-01T12:34:56.789000Z": {
                "uid": "a:b", "created_at": "2024-03-01T12:34:56.789000Z", "deleted_at": "2024-03-05T01:02:03.000004Z",
                "deleted_by": "dpo", "reason": "GDPR", "ticket_id": "T-1"
            },
            "c:2024-03-01T00:00:00Z": {
                "uid": "c", "created_at": "2024-03-01T00:00:00Z", "deleted_at": "2024-03-05T00:00:00Z",
                "deleted_by": "dpo", "reason": "user_request", "ticket_id": null
            }
        },
        "stats": {"entries": 1, "deleted_files": 2, "deletion_ratio": 2.0}
    })
}

fn parse(value: &Value) -> Result<Sidecar, FormatError> {
    Sidecar::parse(serde_json::to_string_pretty(value).unwrap().as_bytes())
}

/// The sidecar with one change made to it.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Sidecar, FormatError> {
    let mut value = sidecar();
    change(&mut value);
    parse(&value)
}

#[test]
fn all_tombstones_are_read() {
    let sidecar = parse(&sidecar()).unwrap();
    assert_eq!((sidecar.version, sidecar.shard_file.as_str()), (1, "20240301_0A_0000.des"));
    let [first, second] = sidecar.tombstones.as_slice() else { panic!("{sidecar:?}") };
    assert_eq!((first.uid.as_str(), first.ticket.as_deref()), ("a:b", Some("T-1")));
    assert_eq!((first.deleted_by.as_str(), first.reason.as_str()), ("dpo", "GDPR"));
    assert_eq!(first.created_at.to_string(), "2024-03-01T12:34:56.789000Z");
    assert_eq!(first.deleted_at.to_string(), "2024-03-05T01:02:03.000004Z");
    assert_eq!((second.uid.as_str(), second.ticket.as_deref()), ("c", None));
}

#[test]
fn tombstones_with_equal_keys_are_all_kept() {
    let text = serde_json::to_string(&sidecar()).unwrap();
    let record = r#""c:2024-03-01T00:00:00Z":"#;
    let doubled =
        text.replace(record, &format!("{record}{},{record}", sidecar()["tombstones"]["c:2024-03-01T00:00:00Z"]));
    assert_eq!(Sidecar::parse(doubled.as_bytes()).unwrap().tombstones.len(), 3);
}

#[test]
fn another_version_is_read_where_nothing_is_missing() {
    assert_eq!(changed(|value| value["version"] = json!(7)).unwrap().version, 7);
    assert!(changed(|value| value["version"] = json!("1")).is_err());
    assert!(changed(|value| drop(value.as_object_mut().unwrap().remove("stats"))).is_ok());
    for field in ["version", "shard_file", "shard_size", "created_at", "last_updated", "index", "tombstones"] {
        assert!(changed(|value| drop(value.as_object_mut().unwrap().remove(field))).is_err(), "{field}");
    }
}

#[test]
fn whatever_is_not_understood_is_an_error() {
    let key = "c:2024-03-01T00:00:00Z";
    assert!(changed(|value| value["more_tombstones"] = json!({})).is_err());
    assert!(changed(|value| value["tombstones"] = json!([])).is_err());
    assert!(changed(|value| value["tombstones"] = json!(null)).is_err());
    assert!(changed(|value| value["tombstones"]["x"] = json!({})).is_err());
    assert!(changed(|value| value["tombstones"][key]["until"] = json!("2025-01-01")).is_err());
    assert!(changed(|value| value["tombstones"][key]["uid"] = json!("d")).is_err());
    assert!(changed(|value| value["tombstones"][key]["uid"] = json!(1)).is_err());
    assert!(changed(|value| value["tombstones"][key]["deleted_at"] = json!("soon")).is_err());
    assert!(changed(|value| drop(value["tombstones"][key].as_object_mut().unwrap().remove("uid"))).is_err());
    for text in ["", "[]", "null", "{}", "<html>", "[1,\"x\",1,\"\",\"\",{},{}]"] {
        assert!(matches!(Sidecar::parse(text.as_bytes()), Err(FormatError::Damaged { .. })), "{text}");
    }
}

#[test]
fn metadata_in_the_index_may_hold_what_no_strict_parser_takes() {
    let text =
        serde_json::to_string(&sidecar()).unwrap().replace("\"meta\":{}", "\"meta\":{\"NaN\":NaN,\"x\":-Infinity}");
    assert_eq!(Sidecar::parse(text.as_bytes()).unwrap().tombstones.len(), 2);
}

#[test]
fn depth_costs_no_stack() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let text = serde_json::to_string(&sidecar()).unwrap();
    assert!(Sidecar::parse(text.replace("\"meta\":{}", &format!("\"meta\":{deep}")).as_bytes()).is_ok());
    assert!(Sidecar::parse(text.replace("\"T-1\"", &deep).as_bytes()).is_err());
}

#[test]
fn a_sidecar_cut_anywhere_is_refused() {
    let bytes = serde_json::to_vec_pretty(&sidecar()).unwrap();
    for end in 0..bytes.len() {
        assert!(Sidecar::parse(&bytes[..end]).is_err(), "cut at {end}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, at: prop::sample::Index, value: u8) {
        Sidecar::parse(&bytes).ok();
        let mut damaged = serde_json::to_vec(&sidecar()).unwrap();
        *at.get_mut(&mut damaged) = value;
        Sidecar::parse(&damaged).ok();
    }
}
