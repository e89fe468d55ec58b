//! Two zones are compared by `des-verify --level zones`; what one is owed is told, and paid by the next `des-repack`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use des_tests::{Corpus, Mount, command, contents, des_pack, files_below, objects_below, run, scratch};
use serde_json::Value;
use tempfile::TempDir;

/// An archive in two directories, each with copies of the other.
struct TwoZones {
    directory: TempDir,
    corpus: Corpus,
}

impl TwoZones {
    fn packed() -> Self {
        let directory = scratch();
        let mut corpus = Corpus::new(&directory.path().join("source"));
        corpus.add_random(901, 120);
        let zones = Self { directory, corpus };
        let text = format!(
            "n_bits: 4\nzones:\n- {{name: a, archive: {}, range: {{start: 0, end: 7}}, copies: [b]}}\n\
             - {{name: b, archive: {}, range: {{start: 8, end: 15}}, copies: [a]}}\n",
            zones.zone("a").display(),
            zones.zone("b").display(),
        );
        fs::write(zones.config(), text).unwrap();
        let manifest = zones.corpus.manifest("all");
        run(zones.program("des-pack").arg("--input-json").arg(manifest).args(["--n-bits", "4"])).success();
        zones
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("archive.yaml")
    }

    fn zone(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self, name: &str) -> Command {
        let mut program = command(name);
        program.arg("--config").arg(self.config());
        program
    }

    /// Compares the zones, which must end with a code; the report.
    #[track_caller]
    fn compared(&self, code: i32) -> Value {
        let report = self.directory.path().join("report.json");
        run(self.program("des-verify").args(["--level", "zones", "--report"]).arg(&report)).exits(code);
        serde_json::from_slice(&fs::read(&report).unwrap()).unwrap()
    }

    fn repack(&self) -> Command {
        let mut repack = self.program("des-repack");
        repack.arg("--spool").arg(self.directory.path().join("spool"));
        repack
    }
}

/// What was found: kind and object of each.
fn findings(report: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| (text(finding, "kind"), text(finding, "object"))).collect()
}

/// Makes all files below a directory older.
fn age(directory: &Path, by: Duration) {
    for name in files_below(directory) {
        let file = File::options().write(true).open(directory.join(name)).unwrap();
        file.set_modified(SystemTime::now() - by).unwrap();
    }
}

#[test]
fn zones_that_agree_are_sound_and_a_copy_that_does_not_is_named() {
    let zones = TwoZones::packed();
    let report = zones.compared(0);
    assert_eq!((report["level"].as_str(), report["verdict"].as_str()), (Some("zones"), Some("sound")));
    assert_eq!(report["findings"], Value::Array(Vec::new()));
    assert!(
        report["checked"]["bytes_read"].as_u64() >= report["checked"]["stored_bytes"].as_u64().map(|bytes| 2 * bytes)
    );

    for zone in ["a", "b"] {
        let name = objects_below(&zones.zone(zone), "shards").remove(0);
        let (path, key) = (zones.zone(zone).join("shards").join(&name), format!("shards/{}", name.display()));
        let sound = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let report = zones.compared(1);
        let expected = ("missing".to_owned(), key.clone());
        assert!(findings(&report).contains(&expected), "{report}");
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 1;
        fs::write(&path, flipped).unwrap();
        let report = zones.compared(1);
        assert_eq!(findings(&report), [("damaged".to_owned(), key)]);
        assert!(report["findings"][0]["problem"].as_str().unwrap().contains(&format!("zone {zone}")), "{report}");
        fs::write(&path, sound).unwrap();
    }
    zones.compared(0);
}

#[test]
fn what_cannot_be_compared_is_not_called_damaged() {
    let zones = TwoZones::packed();
    fs::rename(zones.zone("b"), zones.zone("away")).unwrap();
    run(zones.program("des-verify").args(["--level", "zones"])).exits(2);
    fs::rename(zones.zone("away"), zones.zone("b")).unwrap();
    zones.compared(0);

    let alone = zones.directory.path().join("alone");
    run(des_pack(&alone).arg("--input-json").arg(zones.corpus.manifest("alone"))).success();
    let refused = run(command("des-verify").arg("--archive").arg(&alone).args(["--level", "zones"])).exits(2);
    assert!(refused.one_line_of_reason().contains("no zones to compare"), "{}", refused.stderr);
    run(zones.program("des-verify").args(["--level", "zones", "--sample", "5"])).exits(2);
}

#[test]
fn what_a_zone_is_owed_is_told_and_the_next_repack_pays_it() {
    let zones = TwoZones::packed();
    let (a, b) = (zones.zone("a"), zones.zone("b"));
    let mount = Mount::new(&zones.config(), "");
    // Zone b takes no tombstones: a file stands in their way.
    fs::write(b.join("tombstones"), "").unwrap();
    let gone = zones.corpus.files[0].clone();
    fs::remove_file(mount.file(&gone.day, &gone.uid)).unwrap();
    mount.unmount();
    fs::remove_file(b.join("tombstones")).unwrap();
    assert!(objects_below(&b, "tombstones").is_empty());

    let young = zones.compared(0);
    let owed = findings(&young);
    assert_eq!(owed.len(), 1, "{young}");
    assert!(owed[0].0 == "owed" && owed[0].1.starts_with("tombstones/"), "{owed:?}");

    age(&a.join("debts"), Duration::from_mins(20));
    let old = zones.compared(1);
    assert_eq!(findings(&old), owed);
    let told = run(&mut zones.repack()).success();
    assert!(told.stdout.contains("paid 1 debts of zones"), "{}", told.stdout);

    zones.compared(0);
    assert_eq!(objects_below(&a, "debts"), Vec::<PathBuf>::new());
    let shown = contents(Mount::new(&zones.config(), "").path());
    assert_eq!(shown.len(), zones.corpus.files.len() - 1);
}
