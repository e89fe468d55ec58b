//! What programs tell about themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use des_tests::{Mount, Packed, ask_http, desfs, free_port, mount_point, run, scratch};

/// The value of the first line that begins so.
fn value(metrics: &str, line: &str) -> f64 {
    let found = metrics.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in:\n{metrics}")).parse().unwrap()
}

#[test]
fn a_mount_tells_what_it_does() {
    let packed = Packed::random(311, 20);
    let point = mount_point();
    let mount = Mount::guard(point.path());
    let port = free_port();

    run(desfs().arg(packed.archive()).arg(point.path()).arg("--http").arg(port.to_string())).success();
    packed.assert_shown_in(mount.path(), &[]);
    let gone = &packed.corpus.files[0];
    fs::remove_file(mount.file(&gone.day, &gone.uid)).unwrap();

    let metrics = ask_http(port, "/metrics");
    assert!(value(&metrics, r#"des_retrievals_total{backend="local",status="ok"}"#) > 0.0);
    assert!(value(&metrics, r#"des_retrieval_seconds_count{backend="local"}"#) > 0.0);
    assert!(value(&metrics, r#"des_mount_requests_total{operation="lookup"}"#) > 0.0);
    assert!((value(&metrics, "des_mount_files_deleted_total") - 1.0).abs() < f64::EPSILON);
    assert!(ask_http(port, "/health").starts_with("HTTP/1.1 200"));
    assert!(ask_http(port, "/ready").contains(r#"{"status":"ok"}"#));
}

#[test]
fn an_address_that_is_taken_is_refused_in_words() {
    let packed = Packed::random(312, 3);
    let point = mount_point();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let refused = run(desfs().arg(packed.archive()).arg(point.path()).arg("--http").arg(&address)).exits(1);

    assert!(refused.one_line_of_reason().contains(&format!("--http {address}: ")), "{}", refused.stderr);
}

#[test]
fn packing_leaves_its_metrics_in_a_file() {
    let directory = scratch();
    let file = directory.path().join("des.prom");
    let packed = Packed::random(313, 20);
    let manifest = packed.corpus.manifest("again");
    let archive = directory.path().join("archive");

    run(des_tests::des_pack(&archive).arg("--input-json").arg(manifest).arg("--metrics-file").arg(&file)).success();

    let metrics = fs::read_to_string(&file).unwrap();
    assert!((value(&metrics, "des_shard_files_total") - 20.0).abs() < f64::EPSILON);
    assert!(value(&metrics, "des_shard_size_bytes_count") > 0.0);
    assert!(value(&metrics, "des_compression_ratio") > 0.0);
    assert!(value(&metrics, "des_shard_plain_bytes_total") > 0.0);
    assert!(value(&metrics, "des_bytes_saved_total") >= 0.0);
}

/// All names that a text spells.
fn names(text: &str, before: char) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in text.split(&format!("{before}des_")).skip(1) {
        let end = part.find(|one: char| !(one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_')).unwrap();
        if part[end..].starts_with(before) {
            names.insert(format!("des_{}", &part[..end]));
        }
    }
    names
}

fn spelled_below(directory: &Path, names_found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            spelled_below(&path, names_found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // Only files that register something, and only what stands before their tests.
            if text.contains("Registry") {
                let code = text.split("#[cfg(test)]").next().unwrap();
                names_found.extend(names(code, '"'));
            }
        }
    }
}

#[test]
fn the_list_of_metrics_is_true() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut spelled = BTreeSet::new();
    for member in ["desstore", "desfs", "packer", "migrator"] {
        spelled_below(&workspace.join(member).join("src"), &mut spelled);
    }
    let page = fs::read_to_string(workspace.join("docs/metrics.md")).unwrap();

    assert!(spelled.len() > 15, "{spelled:?}");
    assert_eq!(spelled, names(&page, '`'), "docs/metrics.md lists what there is");
}

#[test]
fn a_log_may_be_json() {
    let packed = Packed::random(314, 3);
    let point = mount_point();
    let mount = Mount::guard(point.path());
    let log = packed.place().join("log");
    let options = format!("log={}", log.display());

    run(desfs().arg(packed.archive()).arg(point.path()).args(["--log-format", "json", "-o", &options])).success();
    drop(mount);

    let text = fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["fields"]["message"], "mounted", "{text}");
}
