//! The systemd units: accepted by systemd as they are, hardened, and in agreement with the programs that they start.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use des_tests::{command, desfs, run, scratch};

/// What `systemd-analyze security` may say of the unit of the mount, in tenths.
const MOUNT_EXPOSURE: u32 = 24;

/// The same of all other services.
const EXPOSURE: u32 = 12;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where the programs under test lie.
fn programs() -> PathBuf {
    PathBuf::from(desfs().get_program()).parent().unwrap().to_owned()
}

/// The programs of the workspace.
fn known_programs() -> BTreeSet<String> {
    let mut known = BTreeSet::from(["desfs".to_owned()]);
    for directory in ["packer/src/bin", "migrator/src/bin"].map(|path| root().join(path)) {
        // A crate without programs has no such directory.
        let Ok(entries) = fs::read_dir(directory) else { continue };
        known.extend(entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()));
    }
    assert!(known.contains("des-pack"), "{known:?}");
    known
}

/// The units of the programs that there are, with those that are examples.
fn units() -> Vec<PathBuf> {
    let systemd = root().join("systemd");
    let in_directory = |directory: PathBuf| fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_unit = |path: &PathBuf| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("service" | "timer" | "mount" | "automount"))
    };
    let known = known_programs();
    let is_ready = |path: &PathBuf| {
        let service = path.with_extension("service");
        let text = fs::read_to_string(service).unwrap_or_default();
        started(&text).iter().all(|(program, _)| known.contains(program))
    };
    let all = in_directory(systemd.clone()).chain(in_directory(systemd.join("examples")));
    let found: Vec<_> = all.filter(is_unit).filter(is_ready).collect();
    assert!(found.len() >= 6, "{found:?}");
    found
}

fn name(unit: &Path) -> &str {
    unit.file_name().unwrap().to_str().unwrap()
}

#[test]
fn systemd_accepts_the_units() {
    let place = scratch();
    let programs = format!("{}/", programs().display());
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        fs::write(place.path().join(name(&unit)), text.replace("/usr/bin/des", &format!("{programs}des"))).unwrap();
    }
    for unit in units() {
        let copy = place.path().join(name(&unit));
        let verified = run(command("systemd-analyze").args(["verify", "--man=no"]).arg(&copy));

        assert_eq!((verified.code(), verified.stderr.as_str()), (0, ""), "{unit:?}");
    }
}

#[test]
fn the_services_stay_within_their_exposure() {
    for unit in units().iter().filter(|unit| unit.extension().is_some_and(|kind| kind == "service")) {
        let limit = if name(unit) == "desfs@.service" { MOUNT_EXPOSURE } else { EXPOSURE };
        let mut security = command("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", &format!("--threshold={limit}")]).arg(unit);

        run(&mut security).success();
    }
}

/// What a unit starts of ours: each program, and the words behind it.
fn started(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("ExecStart")) {
        let before = found.len();
        for word in line.split(|one: char| one.is_whitespace() || "='\"".contains(one)) {
            let path = word.trim_start_matches(['-', '+']);
            if path.starts_with("/usr/bin/des") {
                found.push((path.rsplit('/').next().unwrap().to_owned(), Vec::new()));
            } else if found.len() > before {
                found.last_mut().unwrap().1.push(word.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_units_start_programs_with_options_that_these_have() {
    let mut seen = BTreeSet::new();
    for unit in units().iter().filter(|unit| unit.extension().is_some_and(|kind| kind == "service")) {
        let lines = started(&fs::read_to_string(unit).unwrap());
        assert!(!lines.is_empty(), "{unit:?} starts no program");
        for (program, words) in lines {
            let mut help = command(&program);
            // A word that comes first and is no option is a sub-command.
            help.args(
                words.first().filter(|word| word.chars().all(|one| one.is_ascii_lowercase()) && !word.is_empty()),
            );
            let known = run(help.arg("--help")).success().stdout;
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(known.contains(option.as_str()), "{unit:?}: {program} has no {option}");
            }
            seen.insert(program);
        }
    }
    assert!(seen.contains("desfs") && seen.contains("des-pack"), "{seen:?}");
}

/// All files and links below a directory.
fn below(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                found.insert(entry.path().strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn what_is_installed_can_be_taken_away_without_a_trace() {
    let place = scratch();
    let install = |arguments: &[&str]| {
        let mut install = command(root().join("scripts/install").to_str().unwrap());
        run(install.args(arguments).env("DESTDIR", place.path())).success();
    };

    install(&["--from", programs().to_str().unwrap()]);

    let installed = below(place.path());
    for expected in [
        "usr/bin/desfs",
        "usr/bin/des-pack",
        "usr/sbin/mount.fuse.desfs",
        "usr/lib/systemd/system/desfs@.service",
        "usr/lib/systemd/system/des-pack.timer",
        "usr/lib/sysusers.d/des.conf",
        "usr/lib/tmpfiles.d/des.conf",
        "usr/share/doc/des/examples/fstab",
    ] {
        assert!(installed.contains(expected), "{expected} in {installed:?}");
    }
    let helper = place.path().join("usr/sbin/mount.fuse.desfs");
    assert_eq!(fs::read_link(helper).unwrap(), Path::new("/usr/bin/desfs"));

    // What belongs to others stays.
    fs::write(place.path().join("usr/bin/other"), "").unwrap();
    install(&["--uninstall"]);
    assert_eq!(below(place.path()), BTreeSet::from(["usr/bin/other".to_owned()]));
    fs::remove_file(place.path().join("usr/bin/other")).unwrap();
    install(&["--from", programs().to_str().unwrap()]);
    install(&["--uninstall"]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}
