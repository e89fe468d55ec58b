//! des-verify on archives with planted damage, and on those that cannot be reached.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use des_tests::{Corpus, Mount, Outcome, Packed, command, contents, des_pack, golden, objects_below, run, scratch};
use serde_json::Value;

fn verify(archive: &Path, words: &[&str]) -> Command {
    let mut program = command("des-verify");
    program.arg("--archive").arg(archive).args(words);
    program
}

/// The shards of an archive that hold more than one file, by path.
fn shards(archive: &Path) -> Vec<PathBuf> {
    let mut shards: Vec<_> =
        objects_below(archive, "shards").iter().map(|path| archive.join("shards").join(path)).collect();
    shards.sort();
    shards
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Writes a file anew: objects are read-only.
fn write(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn names_it(outcome: &Outcome, object: &Path) -> bool {
    outcome.stdout.lines().any(|line| line.contains(name(object)))
}

#[test]
fn every_planted_damage_is_named() {
    let packed = Packed::random(31, 400);
    let archive = packed.archive();
    for level in ["manifest", "index", "content"] {
        run(&mut verify(&archive, &["--level", level])).success();
    }
    let shards = shards(&archive);
    let victim = &shards[3];
    let sound = fs::read(victim).unwrap();
    let regions = [("header", 20), ("frames", 60), ("tail", sound.len() - 400), ("footer", sound.len() - 100)];
    for (region, place) in regions {
        let mut damaged = sound.clone();
        damaged[place] ^= 4;
        write(victim, &damaged);
        let found = run(&mut verify(&archive, &["--level", "content"])).exits(1);
        assert!(names_it(&found, victim), "{region}: {}", found.stdout);
    }
    write(victim, &sound);

    let orphan = victim.with_file_name("20240301_0_0777.des");
    fs::write(&orphan, b"left by nobody").unwrap();
    let found = run(&mut verify(&archive, &["--level", "manifest"])).exits(1);
    assert!(names_it(&found, &orphan) && found.stdout.contains("orphan: "), "{}", found.stdout);
    fs::remove_file(&orphan).unwrap();

    let other = &shards[4];
    let bytes = fs::read(other).unwrap();
    write(victim, &bytes);
    write(other, &sound);
    let found = run(&mut verify(&archive, &["--level", "index"])).exits(1);
    assert!(names_it(&found, victim) && names_it(&found, other), "{}", found.stdout);
    write(victim, &sound);
    write(other, &bytes);

    fs::remove_file(victim).unwrap();
    let found = run(&mut verify(&archive, &["--level", "manifest"])).exits(1);
    assert!(names_it(&found, victim) && found.stdout.contains("missing: "), "{}", found.stdout);
    fs::write(victim, &sound).unwrap();
    run(&mut verify(&archive, &["--level", "content"])).success();
}

#[test]
fn what_cannot_be_reached_is_not_called_damaged() {
    let packed = Packed::random(32, 20);
    let nowhere = packed.place().join("nowhere");
    run(&mut verify(&nowhere, &[])).exits(2);
    let mut unreachable = command("des-verify");
    unreachable.args(["--archive", "s3://bucket/archive", "--endpoint", "http://127.0.0.1:9", "--region", "x"]);
    unreachable.args(["--store-option", "path_style=yes"]);
    unreachable.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x");
    run(&mut unreachable).exits(2);
    run(&mut verify(&packed.archive(), &["--level", "deep"])).exits(2);
    let empty = scratch();
    run(&mut verify(empty.path(), &[])).exits(2);

    fs::remove_file(packed.archive().join("des.json")).unwrap();
    let lost = run(&mut verify(&packed.archive(), &[])).exits(1);
    assert!(lost.stdout.contains("des.json"), "{}", lost.stdout);
}

#[test]
fn a_report_the_metrics_and_the_state_say_what_was_found() {
    let packed = Packed::random(33, 300);
    let archive = packed.archive();
    let place = |name: &str| packed.place().join(name).to_str().unwrap().to_owned();
    let (report, metrics, state) = (place("report.json"), place("des.prom"), place("state"));
    let words = ["--level", "content", "--report", &report, "--metrics", &metrics, "--state", &state, "--rate", "1G/s"];
    let read = |path: &str| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };

    run(&mut verify(&archive, &words)).success();
    let all = read(&report)["checked"]["shards"].as_u64().unwrap();
    assert_eq!(read(&report)["checked"]["shards_examined"].as_u64(), Some(all));
    let again = [&words[..], &["--again-after", "1d"]].concat();
    run(&mut verify(&archive, &again)).success();
    assert_eq!(read(&report)["checked"]["shards_examined"].as_u64(), Some(0), "all were sound a moment ago");

    let shards = shards(&archive);
    let mut bytes = fs::read(&shards[0]).unwrap();
    bytes[50] ^= 1;
    write(&shards[0], &bytes);
    run(&mut verify(&archive, &words)).exits(1);
    let found = read(&report);
    assert_eq!((found["verdict"].as_str(), found["exit_code"].as_u64()), (Some("damaged"), Some(1)));
    assert!(found["findings"][0]["object"].as_str().unwrap().ends_with(name(&shards[0])), "{found}");
    let text = fs::read_to_string(&metrics).unwrap();
    let rate = text.lines().find_map(|line| line.strip_prefix("des_shard_corruption_rate ")).unwrap();
    assert!(rate.parse::<f64>().unwrap() > 0.0, "{text}");
    assert!(text.contains("\ndes_scrub_oldest_seconds "), "{text}");
    run(&mut verify(&archive, &again)).exits(1);
    assert_eq!(read(&report)["checked"]["shards_examined"].as_u64(), Some(1), "what was damaged is looked at again");
}

#[test]
fn an_archive_of_the_ancestor_is_checked_as_it_is() {
    let source = golden("pack-nbits08");
    for level in ["manifest", "index", "content"] {
        run(&mut verify(&source, &["--level", level])).success();
    }
    run(&mut verify(&source, &["--n-bits", "4"])).exits(1);
}

#[test]
fn a_probe_says_whether_conditions_are_honoured() {
    let packed = Packed::random(34, 5);
    let said = run(&mut verify(&packed.archive(), &["--probe"])).success();
    assert!(said.stdout.contains("honours conditional writes"), "{}", said.stdout);
}

#[test]
fn a_manifest_made_anew_shows_what_the_lost_one_showed() {
    let packed = Packed::random(35, 200);
    let archive = packed.archive();
    let mount = packed.mount("");
    let victim = packed.corpus.files[9].clone();
    fs::remove_file(mount.file(&victim.day, &victim.uid)).unwrap();
    mount.unmount();
    fs::remove_file(archive.join("manifests/20240302.json")).unwrap();
    run(&mut verify(&archive, &["--level", "manifest"])).exits(1);
    run(&mut verify(&archive, &["--rebuild-manifest", "20240302", "--dry-run"])).success();
    run(&mut verify(&archive, &["--level", "manifest"])).exits(1);

    run(&mut verify(&archive, &["--rebuild-manifest", "20240302"])).success();

    packed.assert_shown_in(packed.mount("").path(), &[(&victim.day, &victim.uid)]);
    run(&mut verify(&archive, &["--level", "content"])).success();
    let again = run(&mut verify(&archive, &["--rebuild-manifest", "20240302"])).exits(1);
    assert!(again.one_line_of_reason().contains("nothing to make anew"), "{}", again.stderr);
}

#[test]
fn an_adopted_archive_of_the_ancestor_is_mounted_deleted_from_and_packed_into() {
    let place = scratch();
    let archive = place.path().join("archive");
    run(command("cp").arg("-a").arg(golden("pack-nbits08")).arg(&archive)).success();
    let mount = Mount::new(&archive, "n_bits=8");
    // A name that is cut ends in a hash that is keyed by the archive's identity, which is new.
    let whole = |mount: &Mount| -> BTreeMap<PathBuf, Vec<u8>> {
        contents(mount.path()).into_iter().filter(|(path, _)| path.as_os_str().len() < 240).collect()
    };
    let (before, count) = (whole(&mount), contents(mount.path()).len());
    let inode = |mount: &Mount, path: &Path| fs::metadata(mount.path().join(path)).unwrap().ino();
    let numbers: Vec<_> = before.keys().map(|path| inode(&mount, path)).collect();
    mount.unmount();
    run(&mut verify(&archive, &["--adopt", "--dry-run"])).success();
    assert!(!archive.join("des.json").try_exists().unwrap());

    run(&mut verify(&archive, &["--adopt"])).success();

    let mount = Mount::new(&archive, "");
    assert_eq!(whole(&mount), before);
    assert_eq!(contents(mount.path()).len(), count);
    assert_eq!(before.keys().map(|path| inode(&mount, path)).collect::<Vec<_>>(), numbers);
    let victim = before.keys().next().unwrap();
    fs::remove_file(mount.path().join(victim)).unwrap();
    mount.unmount();
    run(&mut verify(&archive, &["--level", "content"])).success();
    let mut corpus = Corpus::new(&place.path().join("source"));
    corpus.add("20240301", "packed later", "new");
    run(des_pack(&archive).arg("--input-json").arg(corpus.manifest("more"))).success();
    let mount = Mount::new(&archive, "");
    let mut expected = before.clone();
    expected.remove(victim);
    expected.insert("20240301/packed later".into(), b"new".to_vec());
    assert_eq!(whole(&mount), expected);

    let flat = archive.join("20240301_00_0000.des");
    let mut bytes = fs::read(&flat).unwrap();
    bytes[9] ^= 1;
    write(&flat, &bytes);
    let found = run(&mut verify(&archive, &["--level", "content"])).exits(1);
    assert!(names_it(&found, &flat), "a flipped bit is found from now on: {}", found.stdout);
}
