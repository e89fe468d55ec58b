//! One archive in two zones, by one configuration file for all programs.

use std::fs;
use std::path::{Path, PathBuf};

use des_tests::{Corpus, Mount, command, contents, desfs, files_below, objects_below, run, scratch, shown_name};
use tempfile::TempDir;

/// Two directories as zones, each with copies of the other.
struct TwoZones {
    directory: TempDir,
    corpus: Corpus,
}

impl TwoZones {
    fn packed(seed: u64) -> Self {
        let directory = scratch();
        let mut corpus = Corpus::new(&directory.path().join("source"));
        corpus.add_random(seed, 60);
        let zones = Self { directory, corpus };
        zones.configure("range: {start: 0, end: 7}", "range: {start: 8, end: 15}", 4);
        let manifest = zones.corpus.manifest("all");
        run(command("des-pack")
            .arg("--config")
            .arg(zones.config())
            .arg("--input-json")
            .arg(manifest)
            .args(["--n-bits", "4"]))
        .success();
        zones
    }

    fn configure(&self, first: &str, second: &str, bits: u8) {
        let text = format!(
            "n_bits: {bits}\nzones:\n- {{name: a, archive: {a}, {first}, copies: [b]}}\n- {{name: b, archive: {b}, {second}, copies: [a]}}\n",
            a = self.zone("a").display(),
            b = self.zone("b").display(),
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("archive.yaml")
    }

    fn zone(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn refusal(&self) -> String {
        let point = des_tests::mount_point();
        let outcome = run(desfs().arg(self.config()).arg(point.path()));
        assert!(outcome.code() != 0);
        outcome.one_line_of_reason().to_owned()
    }
}

fn assert_shows(mount: &Path, corpus: &Corpus) {
    let found = contents(mount);
    let expected = corpus.expected();
    assert_eq!(found.len(), expected.len());
    for ((day, uid), bytes) in expected {
        assert_eq!(found[&Path::new(&day).join(shown_name(&uid))], *bytes, "{day}/{uid}");
    }
}

#[test]
fn an_archive_in_two_zones_is_packed_mounted_and_changed_by_one_file() {
    let zones = TwoZones::packed(301);
    let (a, b) = (zones.zone("a"), zones.zone("b"));
    for part in ["shards", "manifests"] {
        assert!(!objects_below(&a, part).is_empty());
        assert_eq!(objects_below(&a, part), objects_below(&b, part), "{part}");
    }

    let mount = Mount::new(&zones.config(), "");
    assert_shows(mount.path(), &zones.corpus);
    let gone = &zones.corpus.files[0];
    fs::remove_file(mount.file(&gone.day, &gone.uid)).unwrap();
    mount.unmount();

    assert_eq!(objects_below(&a, "tombstones").len(), 1);
    assert_eq!(objects_below(&a, "tombstones"), objects_below(&b, "tombstones"));
    assert_eq!(objects_below(&a, "debts"), Vec::<PathBuf>::new());
}

#[test]
fn shards_that_one_zone_has_lost_are_read_from_the_other() {
    let zones = TwoZones::packed(302);
    fs::remove_dir_all(zones.zone("a").join("shards")).unwrap();
    fs::create_dir(zones.zone("a").join("shards")).unwrap();

    let mount = Mount::new(&zones.config(), "");

    assert_shows(mount.path(), &zones.corpus);
}

#[test]
fn zones_that_do_not_belong_together_are_refused_in_words() {
    let zones = TwoZones::packed(303);
    let (home, copy) = (zones.zone("a").join("des.json"), zones.zone("b").join("des.json"));
    let identity = fs::read_to_string(&home).unwrap();
    let other = scratch();
    let mut corpus = Corpus::new(&other.path().join("source"));
    corpus.add("20240301", "x", "x");
    let manifest = corpus.manifest("all");
    let elsewhere = other.path().join("archive");
    run(des_tests::des_pack(&elsewhere).arg("--input-json").arg(manifest).args(["--n-bits", "4"])).success();

    // Another archive under one of the names.
    fs::copy(elsewhere.join("des.json"), &copy).unwrap();
    let refused = zones.refusal();
    assert!(refused.contains("zone b holds archive") && refused.contains("wrong bucket or prefix"), "{refused}");

    // The home has lost its identity.
    fs::write(&copy, &identity).unwrap();
    fs::remove_file(&home).unwrap();
    let refused = zones.refusal();
    assert!(refused.contains("home zone a has no des.json"), "{refused}");

    // Written by a later version.
    fs::write(&home, identity.replace("\"version\":1", "\"version\":9")).unwrap();
    let refused = zones.refusal();
    assert!(refused.contains("des.json of zone a") && refused.contains("version 9"), "{refused}");

    // Ranges for another number of buckets.
    fs::write(&home, &identity).unwrap();
    zones.configure("range: {start: 0, end: 15}", "range: {start: 16, end: 31}", 5);
    let refused = zones.refusal();
    assert!(refused.contains("n_bits = 5, but the archive has 4"), "{refused}");
}

#[test]
fn an_archive_of_the_ancestor_in_zones_is_shown_as_a_whole() {
    let directory = scratch();
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add_random(305, 80);
    // Above this the ancestor keeps a file beside its shard.
    corpus.add("20240302", "large.tiff", vec![7; 11 << 20]);
    let flat = directory.path().join("flat");
    let manifest = corpus.manifest("all");
    run(des_tests::des_pack(&flat).args(["--format", "2", "--n-bits", "8", "--input-json"]).arg(manifest)).success();
    let zone = |name: &str| directory.path().join(name);
    for path in files_below(&flat) {
        let name = path.to_str().unwrap();
        let bucket = name.split('_').nth(1).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        // Large files may lie anywhere.
        let place = zone(if bucket.is_some_and(|bucket| bucket < 128) { "a" } else { "b" }).join(&path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::rename(flat.join(&path), place).unwrap();
    }
    assert!(zone("b").join("_bigFiles").is_dir() && zone("a").is_dir());
    let config = directory.path().join("zones.yaml");
    let text = format!(
        "zones:\n- {{name: a, archive: {}, range: {{start: 0, end: 127}}}}\n- {{name: b, archive: {}, range: {{start: 128, end: 255}}}}\n",
        zone("a").display(),
        zone("b").display()
    );
    fs::write(&config, text).unwrap();

    let mount = Mount::new(&config, "");

    assert_shows(mount.path(), &corpus);
}

#[test]
fn a_probe_speaks_of_each_zone() {
    let zones = TwoZones::packed(306);
    let probe = || run(command("des-verify").arg("--config").arg(zones.config()).arg("--probe"));

    let said = probe().success();
    assert_eq!(said.stdout, "zone a honours conditional writes\nzone b honours conditional writes\n");
}

#[test]
fn a_gap_between_ranges_is_named_by_every_program() {
    let zones = TwoZones::packed(304);
    zones.configure("range: {start: 0, end: 6}", "range: {start: 8, end: 15}", 4);

    let refused = zones.refusal();
    assert!(refused.contains("zones: bucket 7 (7) belongs to no zone"), "{refused}");
    let manifest = zones.corpus.manifest("again");
    let packed =
        run(command("des-pack").arg("--config").arg(zones.config()).arg("--input-json").arg(manifest)).exits(2);
    assert!(packed.stderr.contains("bucket 7 (7) belongs to no zone"), "{}", packed.stderr);
}
