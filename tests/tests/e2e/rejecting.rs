//! What cannot be packed is refused by name; whole manifests that cannot be understood publish nothing.

use std::fs;

use des_tests::{Corpus, Mount, contents, des_pack, objects_below, run, scratch};
use serde_json::{Value, json};

#[test]
fn a_bad_row_is_reported_by_name_and_the_good_ones_are_packed() {
    let place = scratch();
    let mut corpus = Corpus::new(&place.path().join("source"));
    let good = corpus.add("20240301", "good", "good").clone();
    let (source, length) = (good.path.to_str().unwrap().to_owned(), good.bytes.len());
    let row = |changes: &[(&str, Value)]| {
        let mut row = good.row();
        for (field, value) in changes {
            if value.is_null() {
                row.as_object_mut().unwrap().remove(*field);
            } else {
                row[*field] = value.clone();
            }
        }
        row
    };
    let too_long = "x".repeat(65_536);
    let too_many_digits = "1".repeat(4_301);
    let directory = place.path().to_str().unwrap().to_owned();
    let bad = [
        row(&[("uid", json!(""))]),
        row(&[("uid", json!(too_long))]),
        row(&[("uid", json!("\u{b2}"))]),
        row(&[("uid", json!(too_many_digits))]),
        row(&[("uid", json!(null))]),
        row(&[("uid", json!(["list"]))]),
        row(&[("uid", json!("no time")), ("created_at", json!(null))]),
        row(&[("uid", json!("no such time")), ("created_at", json!("2024-02-30T00:00:00Z"))]),
        row(&[("uid", json!("no zone")), ("created_at", json!("2024-03-01T12:00:00"))]),
        row(&[("uid", json!("not a time")), ("created_at", json!("yesterday"))]),
        row(&[("uid", json!("no source")), ("source_path", json!(null))]),
        row(&[("uid", json!("missing source")), ("source_path", json!(format!("{source}.gone")))]),
        row(&[("uid", json!("directory")), ("source_path", json!(directory))]),
        row(&[("uid", json!("device")), ("source_path", json!("/dev/zero"))]),
        row(&[("uid", json!("too small")), ("size_bytes", json!(length - 1))]),
        row(&[("uid", json!("too large")), ("size_bytes", json!(length + 1))]),
        row(&[("uid", json!("negative")), ("size_bytes", json!(-1))]),
    ];
    let mut rows = vec![good.row()];
    rows.extend(bad.iter().cloned());
    let (manifest, report) = (place.path().join("manifest.json"), place.path().join("report.json"));
    fs::write(&manifest, serde_json::to_vec(&rows).unwrap()).unwrap();
    let archive = place.path().join("archive");

    run(des_pack(&archive).arg("--input-json").arg(&manifest).arg("--report").arg(&report)).exits(1);

    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let refused = report["rows"].as_array().unwrap();
    for (index, row) in bad.iter().enumerate() {
        let number = index + 2;
        let found = refused.iter().find(|issue| issue["row"] == json!(number));
        let issue = found.unwrap_or_else(|| panic!("row {number} is not in the report: {row:.200}"));
        assert!(issue["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "row {number}: {issue}");
    }
    assert_eq!(refused.len(), bad.len(), "{refused:?}");
    let mount = Mount::new(&archive, "");
    let found: Vec<_> = contents(mount.path()).into_iter().collect();
    assert_eq!(found, [("20240301/good".into(), b"good".to_vec())]);
}

#[test]
fn the_same_uid_with_other_content_is_a_conflict_and_what_is_stored_stays() {
    let place = scratch();
    let mut corpus = Corpus::new(&place.path().join("source"));
    corpus.add("20240301", "twice", "first");
    corpus.add("20240301", "once", "only");
    let archive = place.path().join("archive");
    run(des_pack(&archive).arg("--input-json").arg(corpus.manifest("first"))).success();
    let mut second = Corpus::new(&place.path().join("second"));
    second.add("20240301", "twice", "SECOND");
    second.add("20240302", "twice", "another day");
    let report = place.path().join("report.json");

    run(des_pack(&archive).arg("--input-json").arg(second.manifest("second")).arg("--report").arg(&report)).exits(1);

    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["uid"], &rows[0]["outcome"]), (&json!("twice"), &json!("conflict")));
    let mount = Mount::new(&archive, "");
    assert_eq!(fs::read(mount.file("20240301", "twice")).unwrap(), b"first");
    assert_eq!(fs::read(mount.file("20240302", "twice")).unwrap(), b"another day");
}

#[test]
fn a_manifest_that_cannot_be_understood_publishes_nothing() {
    let place = scratch();
    let mut corpus = Corpus::new(&place.path().join("source"));
    let good = corpus.add("20240301", "good", "good").row().to_string();
    let deep = "[".repeat(100_000);
    for (what, text) in [
        ("empty", String::new()),
        ("prose", "These are my files".to_owned()),
        ("truncated", format!("[{good},{}", &good[..good.len() / 2])),
        ("unclosed", format!("[{good}")),
        ("trailing", format!("[{good}] and more")),
        ("deep", deep),
        ("a string", "\"files\"".to_owned()),
        ("not UTF-8", String::new()),
    ] {
        let manifest = place.path().join(format!("{what}.json"));
        let bytes = if what == "not UTF-8" { b"[{\"uid\": \"\xff\xfe\"}]".to_vec() } else { text.into_bytes() };
        fs::write(&manifest, bytes).unwrap();
        let archive = place.path().join(format!("archive of {what}"));

        let outcome = run(des_pack(&archive).arg("--input-json").arg(&manifest));

        assert!(matches!(outcome.code(), 1 | 2), "{what}: {outcome:?}");
        assert!(outcome.stderr.contains(&format!("{what}.json")), "{what}: the manifest is named: {outcome:?}");
        assert_eq!(objects_below(&archive, "shards"), Vec::<std::path::PathBuf>::new(), "{what}");
    }
}

#[test]
fn a_missing_input_is_named() {
    let place = scratch();
    let archive = place.path().join("archive");
    for option in ["--input-json", "--input-dir"] {
        let outcome = run(des_pack(&archive).args([option, "/no/such/place"])).exits(1);

        assert!(outcome.stderr.contains("/no/such/place"), "{outcome:?}");
        assert!(!archive.try_exists().unwrap(), "nothing is made for a missing input");
    }
}
