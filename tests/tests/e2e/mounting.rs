//! The contract of mount(8): what is said, what is left behind, and that nothing is.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use des_tests::{
    Mount, Packed, command, daemons_on, desfs, eventually, mount_point, mounts_on, run, run_within, scratch,
};
use rustix::process::{Signal, kill_process};

const SOON: Duration = Duration::from_secs(20);

/// Both ways to mount: through mount(8), and directly.
fn both_ways(source: &Path, point: &Path, options: &str) -> [Command; 2] {
    let mut direct = desfs();
    direct.arg(source).arg(point);
    if !options.is_empty() {
        direct.args(["-o", options]);
    }
    [Mount::command(source, point, options), direct]
}

#[test]
fn the_mount_table_shows_type_and_source_as_typed() {
    let packed = Packed::random(51, 5);
    let mount = packed.mount("");
    let source = packed.archive().to_str().unwrap().to_owned();

    assert_eq!(mounts_on(mount.path()), [("fuse.desfs".to_owned(), source.clone())]);
    let findmnt =
        run(command("findmnt").args(["-n", "-o", "FSTYPE,SOURCE,OPTIONS"]).arg(mount.path())).success().stdout;
    let words: Vec<_> = findmnt.split_whitespace().collect();
    assert_eq!(words[..2], ["fuse.desfs", source.as_str()]);
    for option in ["nosuid", "nodev", "default_permissions"] {
        assert!(words[2].split(',').any(|word| word == option), "{option} in {}", words[2]);
    }
}

#[test]
fn a_source_is_shown_as_it_was_typed() {
    let packed = Packed::random(52, 5);
    let point = mount_point();
    let mut mount = desfs();
    mount.current_dir(packed.place()).arg("./archive/").arg(point.path());
    let guard = Mount::guard(point.path());

    run_within(SOON, &mut mount).success();

    assert_eq!(mounts_on(point.path()), [("fuse.desfs".to_owned(), "./archive/".to_owned())]);
    packed.assert_shown_in(point.path(), &[]);
    drop(guard);
}

#[test]
fn umount_ends_the_daemon() {
    let packed = Packed::random(53, 5);
    let mount = packed.mount("");

    mount.unmount();
}

#[test]
fn a_busy_mount_is_not_unmounted_and_goes_on() {
    let packed = Packed::random(54, 5);
    let mount = packed.mount("");
    let file = &packed.corpus.files[0];
    let held = fs::File::open(mount.file(&file.day, &file.uid)).unwrap();

    assert_eq!(mount.try_unmount().code(), 32);

    packed.assert_shown_in(mount.path(), &[]);
    drop(held);
    mount.unmount();
}

#[test]
fn term_and_int_end_it_cleanly() {
    let packed = Packed::random(55, 5);
    for signal in [Signal::TERM, Signal::INT] {
        let mount = packed.mount("");
        let daemon = mount.daemon();

        kill_process(daemon, signal).unwrap();

        eventually(SOON, "the mount goes", || mounts_on(mount.path()).is_empty());
        eventually(SOON, "the daemon ends", || daemons_on(mount.path()).is_empty());
    }
}

#[test]
fn in_the_foreground_it_says_when_it_is_ready_and_ends_with_0() {
    let packed = Packed::random(56, 5);
    for signal in [Signal::TERM, Signal::INT] {
        let (point, place) = (mount_point(), scratch());
        let guard = Mount::guard(point.path());
        let address = Path::new("/tmp").join(format!("des-notify-{}-{}", std::process::id(), signal.as_raw()));
        drop(fs::remove_file(&address));
        let socket = UnixDatagram::bind(&address).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut daemon = desfs();
        daemon.arg("--foreground").arg(packed.archive()).arg(point.path()).env("NOTIFY_SOCKET", &address);
        let log = fs::File::create(place.path().join("log")).unwrap();
        let mut daemon = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut buffer = [0; 4_096];
        let mut said = String::new();

        while !said.contains("READY=1") {
            let count = socket.recv(&mut buffer).expect("READY=1 within its time");
            said.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            said.push('\n');
        }

        packed.assert_shown_in(point.path(), &[]);
        kill_process(rustix::process::Pid::from_child(&daemon), signal).unwrap();
        let mut status = None;
        eventually(SOON, "the daemon ends", || {
            status = daemon.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0), "{}", fs::read_to_string(place.path().join("log")).unwrap());
        assert!(mounts_on(point.path()).is_empty());
        drop((guard, fs::remove_file(&address)));
    }
}

#[test]
fn whatever_is_wrong_is_told_in_one_line_with_an_exit_code_of_mount() {
    let packed = Packed::random(57, 5);
    let point = mount_point();
    let place = scratch();
    let (archive, nowhere) = (packed.archive(), place.path().join("nowhere"));
    let file = packed.corpus.files[0].path.clone();
    let newer = place.path().join("newer");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("des.json"), "{\"des\":\"archive\",\"version\":9,\"blake3\":\"\"}\n{}\n").unwrap();
    let garbage = place.path().join("garbage");
    fs::create_dir(&garbage).unwrap();
    fs::write(garbage.join("des.json"), "not what it should be").unwrap();
    let at = point.path();
    for (what, source, mount_on, options, said) in [
        ("a source that is not there", nowhere.as_path(), at, "", "nowhere"),
        ("a source that is a file", &file, at, "", ""),
        ("a source of a newer version", &newer, at, "", "version"),
        ("a source with a broken identity", &garbage, at, "", "des.json"),
        ("a mount point that is not there", &archive, &nowhere, "", "nowhere"),
        ("an unknown option", &archive, at, "colour=blue", "colour"),
        ("a misspelled option", &archive, at, "alow_other", "allow_other"),
        ("a value out of range", &archive, at, "umask=999", "umask"),
        ("a missing value", &archive, at, "uid", "uid"),
    ] {
        for mut mount in both_ways(source, mount_on, options) {
            let outcome = run_within(SOON, &mut mount);

            assert!(matches!(outcome.code(), 1 | 2 | 32), "{what}: {outcome:?}");
            // mount(8) itself refuses a mount point that is not there, in words of its own.
            if !(what.starts_with("a mount point") && mount.get_program() == "mount") {
                let reason = outcome.one_line_of_reason();
                assert!(reason.contains(said), "{what}: {reason}");
            }
            assert!(mounts_on(at).is_empty(), "{what}");
            eventually(SOON, what, || daemons_on(mount_on).is_empty());
        }
    }
}

#[test]
fn a_mount_point_that_is_a_file_is_refused() {
    let packed = Packed::random(58, 2);
    let file = packed.corpus.files[0].path.clone();

    let outcome = run_within(SOON, desfs().arg(packed.archive()).arg(&file));

    assert_ne!(outcome.code(), 0);
    outcome.one_line_of_reason();
    assert!(mounts_on(&file).is_empty());
}

#[test]
fn without_arguments_it_says_how_it_is_used() {
    let outcome = run_within(SOON, &mut desfs());

    assert!(matches!(outcome.code(), 1 | 2), "{outcome:?}");
    assert!(outcome.stderr.contains("Usage"), "{outcome:?}");
    for arguments in [["--help"], ["--version"]] {
        assert!(run_within(SOON, desfs().args(arguments)).success().stdout.contains("desfs"));
        assert!(run_within(SOON, command("des-pack").args(arguments)).success().stdout.contains("des-pack"));
    }
}

#[test]
fn options_meant_for_others_are_accepted() {
    let packed = Packed::random(59, 5);
    let options =
        "rw,nodev,nosuid,noexec,noatime,_netdev,nofail,noauto,x-systemd.automount,x-gvfs-show,comment=archive";

    let mount = packed.mount(options);

    packed.assert_shown_in(mount.path(), &[]);
}

#[test]
fn mounting_twice_mounts_once() {
    let packed = Packed::random(60, 5);
    let mount = packed.mount("");

    for mut again in both_ways(&packed.archive(), mount.path(), "") {
        let outcome = run_within(SOON, &mut again);
        assert_eq!(mounts_on(mount.path()).len(), 1, "{outcome:?}");
        eventually(SOON, "one daemon serves the mount", || daemons_on(mount.path()).len() == 1);
    }

    packed.assert_shown_in(mount.path(), &[]);
    mount.unmount();
}

#[test]
fn a_line_in_fstab_is_mounted_once_by_mount_a_and_taken_down_by_umount() {
    let packed = Packed::random(61, 5);
    let point = mount_point();
    let _guard = Mount::guard(point.path());
    let fstab = packed.place().join("fstab");
    let line = format!("{} {} fuse.desfs allow_other,nofail 0 0\n", packed.archive().display(), point.path().display());
    fs::write(&fstab, line).unwrap();
    let mount_all = || run_within(SOON, command("mount").args(["-a", "-T"]).arg(&fstab)).success();

    mount_all();
    mount_all();

    assert_eq!(mounts_on(point.path()).len(), 1);
    packed.assert_shown_in(point.path(), &[]);
    run_within(SOON, command("umount").arg(point.path())).success();
    eventually(SOON, "the daemon ends", || daemons_on(point.path()).is_empty());
    assert!(mounts_on(point.path()).is_empty());
}

#[test]
fn a_mount_left_dead_by_a_crash_is_replaced() {
    let packed = Packed::random(62, 20);
    let mount = packed.mount("");
    let dead = mount.daemon();

    kill_process(dead, Signal::KILL).unwrap();
    eventually(SOON, "the daemon is dead", || daemons_on(mount.path()).is_empty());
    let again = Mount::at(&packed.archive(), mount.path(), "");

    packed.assert_shown_in(again.path(), &[]);
    assert_eq!(mounts_on(again.path()).len(), 1);
    assert_ne!(again.daemon(), dead);
    again.unmount();
}

#[test]
fn it_needs_no_environment_and_leaves_the_directory_that_it_was_started_in() {
    let packed = Packed::random(63, 5);
    let point = mount_point();
    let _guard = Mount::guard(point.path());
    let program = desfs().get_program().to_owned();
    let mut bare = command("env");
    bare.args(["-i"]).arg(program).arg(packed.archive()).arg(point.path()).current_dir("/");

    run_within(SOON, &mut bare).success();

    packed.assert_shown_in(point.path(), &[]);
    let daemon = daemons_on(point.path())[0].as_raw_nonzero();
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), Path::new("/"));
    for number in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{daemon}/fd/{number}")).unwrap(), Path::new("/dev/null"));
    }
}

#[test]
fn what_reads_its_output_is_not_held_up() {
    let packed = Packed::random(64, 5);
    let point = mount_point();
    let _guard = Mount::guard(point.path());
    let mut mount = Mount::command(&packed.archive(), point.path(), "");
    mount.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());

    // Returns only when nobody holds the pipes any more.
    let outcome = mount.output().unwrap();

    assert!(outcome.status.success());
    assert_eq!((outcome.stdout, outcome.stderr), (Vec::new(), Vec::new()));
}

#[test]
fn it_works_as_the_helper_that_mount_calls_directly() {
    let packed = Packed::random(65, 5);
    let point = mount_point();
    let _guard = Mount::guard(point.path());
    let helper = packed.place().join("mount.fuse.desfs");
    std::os::unix::fs::symlink(desfs().get_program(), &helper).unwrap();

    // What mount(8) runs where /sbin/mount.fuse.desfs is there.
    let mut mount = command(helper.to_str().unwrap());
    mount.arg(packed.archive()).arg(point.path()).args(["-v", "-o", "rw,_netdev"]);
    run_within(SOON, &mut mount).success();

    packed.assert_shown_in(point.path(), &[]);
    assert_eq!(mounts_on(point.path())[0].0, "fuse.desfs");
}

#[test]
fn a_remount_is_answered_clearly() {
    let packed = Packed::random(66, 5);
    let mount = packed.mount("");

    for mut remount in both_ways(&packed.archive(), mount.path(), "remount,ro") {
        let outcome = run_within(SOON, &mut remount).exits(1);
        assert!(outcome.one_line_of_reason().contains("remount: nothing can be changed"), "{outcome:?}");
    }
    packed.assert_shown_in(mount.path(), &[]);
}

#[test]
fn a_mount_for_reading_that_the_kernel_alone_remounts_lets_nothing_be_deleted() {
    let packed = Packed::random(68, 5);
    let mount = packed.mount("ro");
    let file = packed.corpus.files[0].clone();

    // With both of them and no type, mount(8) does not ask the helper.
    run_within(SOON, command("mount").args(["-o", "remount,rw"]).arg(packed.archive()).arg(mount.path())).success();

    let refused = fs::remove_file(mount.file(&file.day, &file.uid)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    packed.assert_shown_in(mount.path(), &[]);
}

#[test]
fn a_signal_under_load_lets_readers_finish_or_fail_and_never_lie() {
    let packed = Packed::random(67, 300);
    let mount = packed.mount("");
    let daemon = mount.daemon();

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for file in packed.corpus.files.iter().cycle().take(20_000) {
                    match fs::read(mount.file(&file.day, &file.uid)) {
                        Ok(bytes) => assert!(bytes == file.bytes, "{}", file.uid),
                        Err(_) => break,
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        kill_process(daemon, Signal::TERM).unwrap();
        eventually(SOON, "the daemon ends", || daemons_on(mount.path()).is_empty());
    });

    eventually(SOON, "the mount goes", || mounts_on(mount.path()).is_empty());
}
