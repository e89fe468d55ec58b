//! Deleting on order with des-tombstones, as a mount sees it, and what the program says of it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use des_tests::{Packed, command, contents, objects_below, run};
use serde_json::Value;

fn tombstones(archive: &Path, words: &[&str]) -> Command {
    let mut program = command("des-tombstones");
    program.arg("--archive").arg(archive).args(words);
    program
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// So many small files of one day.
fn day_of(count: usize) -> Packed {
    Packed::of(|corpus| {
        for number in 0..count {
            corpus.add("20240301", &format!("INV-{number:05}"), format!("invoice {number}"));
        }
    })
}

#[test]
fn five_thousand_files_are_deleted_by_few_writes_and_a_mount_stops_showing_them() {
    let packed = day_of(6_000);
    let mount = packed.mount("ttl=1s");
    assert_eq!(fs::read(mount.file("20240301", "INV-00007")).unwrap(), b"invoice 7");
    let order = packed.place().join("order");
    let lines: Vec<_> = (0..5_000).map(|number| format!("INV-{number:05} 20240301\n")).collect();
    fs::write(&order, lines.concat()).unwrap();
    let order = order.to_str().unwrap();

    let refused = run(&mut tombstones(&packed.archive(), &["add", "--from-file", order])).exits(2);
    assert!(refused.one_line_of_reason().contains("5000 of the 6000 files"), "{}", refused.stderr);
    assert_eq!(objects_below(&packed.archive(), "tombstones").len(), 0, "without --yes nothing is deleted");

    let words = ["add", "--from-file", order, "--yes", "--json", "--ticket", "GDPR-7"];
    let done = json(&run(&mut tombstones(&packed.archive(), &words)).success().stdout);

    assert_eq!((done["visible"].as_u64(), done["recorded"].as_u64()), (Some(5_000), Some(5_000)));
    // 16 groups of some 312 files each.
    assert_eq!(done["writes"].as_u64(), Some(16));
    assert_eq!(objects_below(&packed.archive(), "tombstones").len(), 16);
    let gone = || fs::metadata(mount.file("20240301", "INV-00007")).is_err_and(|e| e.kind() == ErrorKind::NotFound);
    des_tests::eventually(std::time::Duration::from_secs(5), "the mount hides it", gone);
    assert_eq!(contents(mount.path()).len(), 1_000);
    assert_eq!(contents(packed.mount("").path()).len(), 1_000);

    let again = json(&run(&mut tombstones(&packed.archive(), &words)).success().stdout);
    assert_eq!((again["already_deleted"].as_u64(), again["writes"].as_u64()), (Some(5_000), Some(0)));
    let listed = run(&mut tombstones(&packed.archive(), &["list", "--json"])).success().stdout;
    assert_eq!(listed.lines().count(), 5_000);
    assert!(listed.lines().all(|line| json(line)["ticket"] == "GDPR-7"));
    let stats = || json(&run(&mut tombstones(&packed.archive(), &["stats", "--json"])).success().stdout);
    assert_eq!((stats()["files"].as_u64(), stats()["unfolded"].as_u64()), (Some(5_000), Some(5_000)));
    let folded = json(&run(&mut tombstones(&packed.archive(), &["fold", "--json"])).success().stdout);
    assert_eq!(folded["taken_in"].as_u64(), Some(16));
    assert_eq!((stats()["files"].as_u64(), stats()["unfolded"].as_u64()), (Some(5_000), Some(0)));
}

#[test]
fn a_receipt_says_how_far_an_erasure_has_come() {
    let packed = day_of(20);
    let archive = packed.archive();
    let status =
        |words: &[&str]| run(&mut tombstones(&archive, &[&["status", "INV-00003", "2024-03-01"], words].concat()));
    assert_eq!(json(&status(&["--json"]).success().stdout)["state"], "not requested");
    status(&["--expect", "requested"]).exits(1);

    let words = ["add", "INV-00003", "2024-03-01T10:00:00Z", "--reason", "asked\nfor", "--actor", "the office"];
    run(&mut tombstones(&archive, &words)).success();

    let text = status(&["--expect", "requested"]).success().stdout;
    assert!(text.contains("requested  ") && text.contains("by the office: asked\\nfor"), "{text}");
    let receipt = json(&status(&["--json"]).success().stdout);
    assert_eq!((&receipt["state"], &receipt["hidden"]), (&Value::from("requested"), &Value::from(false)));
    assert_eq!(receipt["holders"][0]["role"], "live");
    status(&["--expect", "gone"]).exits(1);
    let listed = run(&mut tombstones(&archive, &["list", "--state", "requested"])).success().stdout;
    assert!(listed.contains("INV-00003"), "{listed}");
    assert_eq!(run(&mut tombstones(&archive, &["list", "--state", "gone"])).success().stdout, "");

    run(&mut tombstones(&archive, &["add", "nowhere", "20240301"])).success();
    assert_eq!(objects_below(&archive, "tombstones").len(), 1, "what is not there is not recorded");
    run(&mut tombstones(&archive, &["add", "nowhere", "20240301", "--always"])).success();
    assert_eq!(objects_below(&archive, "tombstones").len(), 2, "unless asked for");
}

#[test]
fn retention_deletes_whole_days_by_a_record_a_shard() {
    let packed = Packed::of(|corpus| {
        for number in 0..300 {
            corpus.add("20010301", &format!("old-{number}"), "old");
        }
        corpus.add("20240301", "young", "young");
    });
    let archive = packed.archive();
    let words = ["add", "--delete-older-than", "20y"];
    run(&mut tombstones(&archive, &words)).exits(2);
    let plan = run(&mut tombstones(&archive, &["expire", "--older-than", "20y", "--dry-run"])).success().stdout;
    assert!(plan.contains("would delete 20010301: 16 shards, 300 files"), "{plan}");
    assert_eq!(objects_below(&archive, "tombstones").len(), 0);

    run(&mut tombstones(&archive, &[&words[..], &["--yes"]].concat())).success();

    assert_eq!(objects_below(&archive, "tombstones").len(), 16);
    let shown: Vec<_> = contents(packed.mount("").path()).into_keys().collect();
    assert_eq!(shown, [Path::new("20240301/young")]);
}

#[test]
fn a_copy_of_yesterday_with_the_tombstones_of_today_shows_no_deleted_file() {
    let packed = day_of(200);
    let archive = packed.archive();
    let yesterday = packed.place().join("yesterday");
    run(command("cp").arg("-a").arg(&archive).arg(&yesterday)).success();
    let order = packed.place().join("order");
    let lines: Vec<_> = (0..150).map(|number| format!("INV-{number:05} 20240301\n")).collect();
    fs::write(&order, lines.concat()).unwrap();
    let words = ["add", "--from-file", order.to_str().unwrap(), "--yes"];
    run(&mut tombstones(&archive, &words)).success();
    let mount = packed.mount("");
    fs::remove_file(mount.file("20240301", "INV-00199")).unwrap();
    mount.unmount();

    fs::remove_dir_all(archive.join("shards")).unwrap();
    fs::remove_dir_all(archive.join("manifests")).unwrap();
    for part in ["shards", "manifests"] {
        run(command("cp").arg("-a").arg(yesterday.join(part)).arg(&archive)).success();
    }

    let shown = contents(packed.mount("").path());
    assert_eq!(shown.len(), 49);
    assert!(shown.keys().all(|path| path.to_str().unwrap() >= "20240301/INV-00150"), "{shown:?}");
}

#[test]
fn what_is_asked_for_wrongly_is_refused_in_words() {
    let packed = day_of(3);
    let order = packed.place().join("order");
    fs::write(&order, "INV-00000 20240301\nINV-00001\n").unwrap();
    let wrong = run(&mut tombstones(&packed.archive(), &["add", "--from-file", order.to_str().unwrap()])).exits(1);
    assert!(wrong.one_line_of_reason().contains("line 2: it names no day"), "{}", wrong.stderr);
    assert_eq!(objects_below(&packed.archive(), "tombstones").len(), 0, "and nothing of it is done");
    run(&mut tombstones(&packed.archive(), &["add", "INV-00000", "yesterday"])).exits(2);
    let nowhere = packed.place().join("nowhere");
    assert!(run(&mut tombstones(&nowhere, &["stats"])).exits(1).one_line_of_reason().contains("nowhere"));
}
