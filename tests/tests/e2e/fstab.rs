//! Lines in fstab: what mount(8), findmnt(8) and systemd make of each option that speaks to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use des_tests::{
    Mount, NOBODY, Outcome, Packed, command, daemons_on, eventually, files_below, mount_point, mounts_on, run,
    run_within,
};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// An archive, a mount point, and a table with a line for both.
struct Table {
    packed: Packed,
    point: TempDir,
    _guard: Mount,
}

impl Table {
    fn new(seed: u64, options: &str) -> Self {
        let (packed, point) = (Packed::random(seed, 10), mount_point());
        let guard = Mount::guard(point.path());
        let table = Self { packed, point, _guard: guard };
        table.write(&[(&table.packed.archive(), table.path(), options)]);
        table
    }

    fn path(&self) -> &Path {
        self.point.path()
    }

    fn file(&self) -> PathBuf {
        self.packed.place().join("fstab")
    }

    fn write(&self, lines: &[(&Path, &Path, &str)]) {
        let line = |(source, point, options): &(&Path, &Path, &str)| {
            format!("{} {} fuse.desfs {options} 0 0\n", source.display(), point.display())
        };
        fs::write(self.file(), lines.iter().map(line).collect::<String>()).unwrap();
    }

    fn mount(&self, arguments: &[&str]) -> Outcome {
        run_within(SOON, command("mount").arg("-T").arg(self.file()).args(arguments))
    }

    fn named(&self) -> Outcome {
        self.mount(&[self.path().to_str().unwrap()])
    }

    fn is_mounted(&self) -> bool {
        !mounts_on(self.path()).is_empty()
    }

    fn unmount(&self) {
        run_within(SOON, command("umount").arg(self.path())).success();
        eventually(SOON, "the daemon ends", || daemons_on(self.path()).is_empty());
    }
}

#[test]
fn noauto_waits_until_its_mount_point_is_named() {
    let table = Table::new(101, "noauto,nofail");

    table.mount(&["-a"]).success();
    assert!(!table.is_mounted());
    table.named().success();

    table.packed.assert_shown_in(table.path(), &[]);
    table.unmount();
}

#[test]
fn netdev_is_mounted_with_the_network_and_not_before() {
    let table = Table::new(102, "_netdev,allow_other");

    table.mount(&["-a", "-O", "no_netdev"]).success();
    assert!(!table.is_mounted());
    table.mount(&["-a", "-O", "_netdev"]).success();

    table.packed.assert_shown_in(table.path(), &[]);
    let found = run(command("findmnt").args(["-n", "-t", "fuse.desfs", "-o", "TARGET"]).arg(table.path())).success();
    assert_eq!(found.stdout.trim_end(), table.path().to_str().unwrap());
    table.unmount();
}

#[test]
fn a_line_that_fails_is_told_and_keeps_no_other_from_being_mounted() {
    let table = Table::new(103, "");
    let broken = mount_point();
    let nowhere = table.packed.place().join("nowhere");
    let archive = table.packed.archive();
    table.write(&[(&nowhere, broken.path(), "nofail"), (&archive, table.path(), "defaults")]);

    // 64: some of them were mounted.
    let some = table.mount(&["-a"]).exits(64);
    assert!(some.one_line_of_reason().contains("nowhere"), "{some:?}");
    assert!(mounts_on(broken.path()).is_empty());
    table.packed.assert_shown_in(table.path(), &[]);

    table.write(&[(&nowhere, broken.path(), "nofail")]);
    table.mount(&["-a"]).exits(32);
    table.unmount();
}

#[test]
fn a_dead_mount_is_replaced_when_its_mount_point_is_named_and_passed_over_by_mount_a() {
    let table = Table::new(104, "defaults");
    table.named().success();
    kill_process(daemons_on(table.path())[0], Signal::KILL).unwrap();
    eventually(SOON, "the daemon is dead", || daemons_on(table.path()).is_empty());

    // mount(8) does not call its helper for what the mount table lists.
    table.mount(&["-a"]).success();
    assert!(fs::read_dir(table.path()).is_err());
    table.named().success();

    table.packed.assert_shown_in(table.path(), &[]);
    table.unmount();
}

#[test]
fn findmnt_finds_no_error_in_the_line() {
    let table = Table::new(105, "allow_other,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=60,user,noauto");

    let verified = run(command("findmnt").args(["--verify", "--tab-file"]).arg(table.file())).success();

    assert!(verified.stderr.contains("0 parse errors, 0 errors"), "{verified:?}");
}

#[test]
fn a_user_whom_fstab_lets_mount_can_mount_read_and_unmount() {
    let table = Table::new(106, "user,noauto");
    table.packed.give_to(NOBODY, table.path());
    let file = &table.packed.corpus.files[0];
    // An ordinary user cannot choose the table, so it lies over the real one in a namespace of its own.
    let script = "mount --bind \"$1\" /etc/fstab && cd / && \
                  exec setpriv --reuid=65534 --regid=65534 --clear-groups bash -c '\
                  mount \"$2\" && findmnt -n -o FSTYPE,SOURCE \"$2\" && cat \"$2/$3\" && umount \"$2\"' bash \"$@\"";
    assert_eq!(NOBODY, 65_534);
    let mut mount = command("unshare");
    mount.args(["--mount", "--propagation=private", "bash", "-c", script, "bash"]).arg(table.file()).arg(table.path());
    mount.arg(format!("{}/{}", file.day, des_tests::shown_name(&file.uid)));

    let outcome = run_within(SOON, &mut mount).success();

    let shown = format!("fuse.desfs {}\n{}", table.packed.archive().display(), String::from_utf8_lossy(&file.bytes));
    assert_eq!(outcome.stdout, shown);
    eventually(SOON, "the daemon ends", || daemons_on(table.path()).is_empty());
    // Root can, with the same line.
    table.named().success();
    table.packed.assert_shown_in(table.path(), &[]);
    table.unmount();
}

/// The units that systemd makes of the table, by their paths below the directory of the generator, and the main one.
fn units_of(table: &Table) -> (Vec<String>, String) {
    let place = table.packed.place().join("units");
    fs::create_dir(&place).unwrap();
    let mut generator = command("/lib/systemd/system-generators/systemd-fstab-generator");
    run(generator.args([&place, &place, &place]).env("SYSTEMD_FSTAB", table.file())).success();
    let escaped = run(command("systemd-escape").args(["--path", "--suffix=mount"]).arg(table.path())).success().stdout;
    let unit = place.join(escaped.trim_end());
    let verified = run(command("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
    assert_eq!((verified.code(), verified.stderr.as_str()), (0, ""));
    let mut paths: Vec<String> = files_below(&place).iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    for directory in fs::read_dir(&place).unwrap().map(|entry| entry.unwrap()) {
        if directory.file_type().unwrap().is_dir() {
            let below = fs::read_dir(directory.path()).unwrap().map(|link| link.unwrap().file_name());
            let name = directory.file_name();
            paths.extend(below.map(|link| format!("{}/{}", name.to_str().unwrap(), link.to_str().unwrap())));
        }
    }
    (paths, fs::read_to_string(unit).unwrap())
}

/// True for a link to a unit of a kind in a directory.
fn is_link(path: &str, directory: &str, kind: &str) -> bool {
    let path = Path::new(path);
    path.starts_with(directory) && path.extension().is_some_and(|extension| extension == kind)
}

#[test]
fn systemd_makes_units_of_the_line_and_passes_the_options_on() {
    let table = Table::new(107, "allow_other,_netdev,nofail,x-systemd.automount,x-systemd.requires=time-sync.target");

    let (paths, unit) = units_of(&table);

    assert!(unit.contains("\nType=fuse.desfs\n") && unit.contains("\nRequires=time-sync.target\n"), "{unit}");
    let automount = paths.iter().any(|path| is_link(path, "remote-fs.target.wants", "automount"));
    assert!(automount, "with the network, and not needed for booting: {paths:?}");
    let line = unit.lines().find_map(|line| line.strip_prefix("Options=")).unwrap();
    // What systemd would run.
    let mut mount = command("mount");
    mount.arg(table.packed.archive()).arg(table.path()).args(["-t", "fuse.desfs", "-o", line]);
    run_within(SOON, &mut mount).success();
    table.packed.assert_shown_in(table.path(), &[]);
    table.unmount();
}

#[test]
fn systemd_boots_without_a_line_only_where_it_says_nofail() {
    for (seed, options, expected) in
        [(108, "_netdev", "remote-fs.target.requires"), (109, "_netdev,nofail", "remote-fs.target.wants")]
    {
        let (paths, _) = units_of(&Table::new(seed, options));
        assert!(paths.iter().any(|path| is_link(path, expected, "mount")), "{options}: {paths:?}");
    }
}
