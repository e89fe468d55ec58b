//! Uids that hurt: each comes back under the name that `docs/semantics.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use des_tests::{Packed, shown_name};

const DAY: &str = "20240301";

/// Uids whose names fit into 255 bytes.
fn shown_whole() -> Vec<String> {
    let mut uids: Vec<String> = [
        "plain",
        "a/b/c.txt",
        "/absolute",
        "trailing/",
        "//",
        "with space",
        " leading",
        "trailing ",
        "new\nline",
        "tab\tand\rreturn",
        "100%",
        "%2F",
        "%",
        "%25",
        ".",
        "..",
        "...",
        "../../etc/passwd",
        ".hidden",
        "7",
        "007",
        "0007",
        "18446744073709551616",
        "-rf",
        "--help",
        "-5",
        "\u{661}\u{662}\u{663}",
        "\u{ff11}\u{ff12}\u{ff13}",
        "1\u{968}3",
        "\u{bd}",
        "\u{2167}",
        "e\u{301}",
        "\u{e9}",
        "a\0b",
        "\u{1}\u{7f}\u{9f}",
        "\u{202e}drawkcab",
        "\u{feff}",
        "\u{1f980}",
        "case",
        "CASE",
        "back\\slash",
        "*?[a-z]",
        "it's \"quoted\"",
        "$(reboot)`reboot`",
        "20240301_00_0000.des",
        "des.json",
        "~",
        "~0001-0123456789abcdef",
    ]
    .map(str::to_owned)
    .to_vec();
    uids.push("x".repeat(254));
    uids.push("x".repeat(255));
    uids.push("\u{e9}".repeat(127));
    uids.push("1".repeat(250));
    uids
}

/// Uids whose names are cut.
fn shown_cut() -> Vec<String> {
    vec![
        "x".repeat(256),
        format!("{}y", "x".repeat(256)),
        "\u{e9}".repeat(128),
        "%".repeat(200),
        "/".repeat(255),
        "1".repeat(4_300),
        "z".repeat(65_535),
        format!("{}/y", "z".repeat(65_533)),
    ]
}

fn bytes_of(uid: &str) -> Vec<u8> {
    format!("{} bytes: {uid}", uid.len()).into_bytes()
}

#[test]
fn a_uid_that_fits_is_read_under_its_shown_name() {
    let packed = Packed::of(|corpus| {
        for uid in shown_whole() {
            corpus.add(DAY, &uid, bytes_of(&uid));
        }
    });
    let mount = packed.mount("");

    for uid in shown_whole() {
        let found = fs::read(mount.file(DAY, &uid)).unwrap_or_else(|error| panic!("{uid:?}: {error}"));
        assert_eq!(found, bytes_of(&uid), "{uid:?}");
    }

    let listed: BTreeSet<_> =
        fs::read_dir(mount.path().join(DAY)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let expected: BTreeSet<_> = shown_whole().iter().map(|uid| shown_name(uid).into()).collect();
    assert_eq!(listed, expected);
}

#[test]
fn a_uid_that_is_too_long_is_listed_cut_and_read_under_that_name() {
    let packed = Packed::of(|corpus| {
        for uid in shown_cut() {
            corpus.add(DAY, &uid, bytes_of(&uid));
        }
    });
    let listed = |options| {
        let mount = packed.mount(options);
        let mut by_name = BTreeMap::new();
        for entry in fs::read_dir(mount.path().join(DAY)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().expect("names are UTF-8");
            let bytes = fs::read(entry.path()).unwrap_or_else(|error| panic!("{name:?}: {error}"));
            by_name.insert(name, bytes);
        }
        by_name
    };

    let by_name = listed("");

    let expected: BTreeSet<_> = shown_cut().iter().map(|uid| bytes_of(uid)).collect();
    assert_eq!(by_name.values().cloned().collect::<BTreeSet<_>>(), expected);
    for name in by_name.keys() {
        assert!(name.len() <= 255, "{} bytes", name.len());
        let (_, tail) = name.rsplit_once('~').expect("a cut name says so");
        assert!(tail.len() == 21 && tail.as_bytes()[4] == b'-', "{tail}");
    }
    assert_eq!(listed("ro"), by_name, "names are the same on every mount");
}

#[test]
fn a_cut_name_can_be_removed() {
    let packed = Packed::of(|corpus| {
        for uid in shown_cut() {
            corpus.add(DAY, &uid, bytes_of(&uid));
        }
    });
    let mount = packed.mount("");
    let day = mount.path().join(DAY);
    let names: Vec<_> = fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().file_name()).collect();

    fs::remove_file(day.join(&names[0])).unwrap();

    let left: Vec<_> = fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, names[1..]);
}

#[test]
fn names_that_no_uid_has_are_not_found() {
    let packed = Packed::of(|corpus| {
        corpus.add(DAY, "a/b", "x");
    });
    let mount = packed.mount("");

    for name in
        ["a%2fb", "a%252Fb", "%61%2Fb", "a%2Fb ", "A%2FB", "a%2", "%", "a%ZZb", "~0000-0123456789abcdef", "des.json"]
    {
        let error = fs::metadata(mount.path().join(DAY).join(name)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{name}");
    }
    for day in ["20240302", "00000000", "20241301", "2024-03-01", "20240301x", "shards", "des.json"] {
        let error = fs::metadata(mount.path().join(day)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{day}");
    }
    assert_eq!(fs::read(mount.file(DAY, "a/b")).unwrap(), b"x");
}
