//! `desfs check`, from outside.

use std::fs;
use std::path::Path;

use des_tests::{Outcome, Packed, desfs, golden, objects_below, run, scratch};

fn check(source: &Path, options: &[&str]) -> Outcome {
    run(desfs().arg("check").arg(source).args(options))
}

#[test]
fn a_sound_archive_is_summed_up_in_one_line() {
    let packed = Packed::random(71, 30);

    let outcome = check(&packed.archive(), &["-o", "ro,allow_other,nofail"]).success();

    assert_eq!((outcome.stdout.lines().count(), outcome.stderr.as_str()), (1, ""));
    assert!(outcome.stdout.contains(": sound; 3 days, "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains(", 30 files, "), "{}", outcome.stdout);
}

#[test]
fn each_thing_that_is_wrong_takes_one_line() {
    let packed = Packed::random(72, 30);
    let shard = objects_below(&packed.archive(), "shards").into_iter().next().unwrap();
    fs::remove_file(packed.archive().join("shards").join(&shard)).unwrap();
    fs::write(packed.archive().join("manifests/20240303.json"), "{").unwrap();

    let outcome = check(&packed.archive(), &[]).exits(1);

    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with(&format!("shards/{}: it is missing", shard.display())), "{lines:?}");
    assert!(lines[1].starts_with("manifests/20240303.json: "), "{lines:?}");
    assert!(lines[2].contains(": 2 wrong; "), "{lines:?}");
    assert!(check(&packed.archive(), &["--newest", "1"]).exits(1).stdout.contains("2 older days left out"));
}

#[test]
fn an_identity_that_cannot_be_used_is_wrong_and_a_missing_archive_cannot_be_checked() {
    let place = scratch();
    check(&place.path().join("nowhere"), &[]).exits(2).one_line_of_reason();
    check(place.path(), &[]).exits(2).one_line_of_reason();
    check(place.path(), &["-o", "colour=blue"]).exits(2).one_line_of_reason();

    fs::write(place.path().join("des.json"), "{\"des\":\"archive\",\"version\":9,\"blake3\":\"\"}\n{}\n").unwrap();

    let outcome = check(place.path(), &[]).exits(1);
    assert!(outcome.stdout.starts_with("des.json: ") && outcome.stdout.contains("version 9"), "{}", outcome.stdout);
}

#[test]
fn an_archive_of_the_ancestor_is_sound_with_its_own_bits_only() {
    let is_sound = |bits: u8| check(&golden("pack-nbits08"), &["-o", &format!("n_bits={bits}")]).code() == 0;

    let sound: Vec<u8> = (4..=16).filter(|bits| is_sound(*bits)).collect();

    assert_eq!(sound, [8]);
}
