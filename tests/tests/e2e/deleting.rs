//! `rm`: gone at once here, durably, soon elsewhere; never by anyone but root and the owner; never anything else.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use des_tests::{
    NOBODY, Packed, SOMEBODY, as_user, command, contents, des_pack, eventually, objects_below, run, run_within,
};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

#[test]
fn rm_hides_a_file_at_once_and_for_good() {
    let packed = Packed::random(11, 60);
    let mount = packed.mount("");
    let victim = packed.corpus.files[17].clone();
    let path = mount.file(&victim.day, &victim.uid);
    assert_eq!(fs::read(&path).unwrap(), victim.bytes);

    run(command("rm").arg(&path)).success();

    assert_eq!(objects_below(&packed.archive(), "tombstones").len(), 1, "the record is there when rm returns");
    let gone = [(victim.day.as_str(), victim.uid.as_str())];
    packed.assert_shown_in(mount.path(), &gone);
    for error in [fs::metadata(&path).unwrap_err(), File::open(&path).unwrap_err(), fs::remove_file(&path).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    mount.unmount();
    packed.assert_shown_in(packed.mount("").path(), &gone);
}

#[test]
fn a_deletion_survives_the_death_of_the_daemon() {
    let packed = Packed::random(12, 20);
    let mount = packed.mount("");
    let victim = packed.corpus.files[3].clone();

    fs::remove_file(mount.file(&victim.day, &victim.uid)).unwrap();
    kill_process(mount.daemon(), Signal::KILL).unwrap();

    let again = packed.mount("");
    packed.assert_shown_in(again.path(), &[(&victim.day, &victim.uid)]);
}

#[test]
fn the_record_and_its_directory_are_synced_before_rm_returns() {
    let packed = Packed::random(13, 20);
    let mount = packed.mount("");
    let victim = mount.file(&packed.corpus.files[0].day, &packed.corpus.files[0].uid);
    let log = packed.place().join("strace.log");
    let mut strace = command("strace");
    strace.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs", "-o"]).arg(&log);
    strace.args(["-p", &mount.daemon().as_raw_nonzero().to_string()]);
    let mut strace = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = || fs::read_to_string(format!("/proc/{}/status", mount.daemon().as_raw_nonzero())).unwrap();
    eventually(Duration::from_secs(10), "strace is attached", || !status().contains("TracerPid:\t0\n"));

    fs::remove_file(&victim).unwrap();

    let process = rustix::process::Pid::from_child(&strace);
    kill_process(process, Signal::INT).unwrap();
    strace.wait().unwrap();
    let log = fs::read_to_string(log).unwrap();
    let synced = log.lines().filter(|line| line.contains("sync(") && line.ends_with("= 0")).count();
    assert!(synced >= 2, "a file and its directory: {log}");
}

#[test]
fn another_mount_stops_showing_it_within_its_ttl() {
    let packed = Packed::random(14, 30);
    let (here, there) = (packed.mount(""), packed.mount("ttl=1s"));
    let victim = packed.corpus.files[5].clone();
    let seen = there.file(&victim.day, &victim.uid);
    assert_eq!(fs::read(&seen).unwrap(), victim.bytes);

    fs::remove_file(here.file(&victim.day, &victim.uid)).unwrap();

    let is_gone = || fs::metadata(&seen).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    eventually(Duration::from_secs(4), "the deletion is seen in the other mount", is_gone);
    packed.assert_shown_in(there.path(), &[(&victim.day, &victim.uid)]);
}

#[test]
fn what_is_open_reads_on() {
    let packed = Packed::of(|corpus| {
        corpus.add("20240301", "open", vec![b'o'; 3_000_000]);
        corpus.add("20240301", "other", "other");
    });
    let mount = packed.mount("");
    let path = mount.file("20240301", "open");
    let mut open = File::open(&path).unwrap();
    let mut head = [0; 10];
    open.read_exact(&mut head).unwrap();

    fs::remove_file(&path).unwrap();

    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, vec![b'o'; 3_000_000 - 10]);
    assert_eq!(fs::metadata(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_owner_of_the_mount_deletes_without_being_root() {
    let packed = Packed::random(15, 20);
    let mount = packed.mount(&format!("allow_other,uid={SOMEBODY}"));
    let victim = packed.corpus.files[2].clone();
    let path = mount.file(&victim.day, &victim.uid);

    as_user(SOMEBODY, || fs::remove_file(&path)).unwrap();

    packed.assert_shown_in(mount.path(), &[(&victim.day, &victim.uid)]);
}

#[test]
fn nobody_else_deletes_anything() {
    let packed = Packed::random(16, 20);
    for options in ["allow_other".to_owned(), format!("allow_other,uid={SOMEBODY}")] {
        let mount = packed.mount(&options);
        let victim = &packed.corpus.files[2];
        let path = mount.file(&victim.day, &victim.uid);

        assert_eq!(as_user(NOBODY, || fs::read(&path)).unwrap(), victim.bytes, "but everyone reads");
        assert_eq!(as_user(NOBODY, || rustix::fs::unlink(&path)), Err(Errno::ACCESS), "{options}");
        let day = mount.path().join(&victim.day);
        assert_eq!(as_user(NOBODY, || rustix::fs::rmdir(&day)), Err(Errno::ACCESS), "{options}");
        packed.assert_shown_in(mount.path(), &[]);
    }
    assert_eq!(objects_below(&packed.archive(), "tombstones").len(), 0);
}

#[test]
fn without_allow_other_nobody_else_looks_in() {
    let packed = Packed::random(17, 5);
    let mount = packed.mount("");

    assert_eq!(
        as_user(NOBODY, || fs::read_dir(mount.path()).map(drop)).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
}

#[test]
fn rm_r_of_a_day_succeeds_and_the_day_is_gone() {
    let packed = Packed::random(18, 300);
    let mount = packed.mount("");
    let day = mount.path().join("20240302");
    let count = fs::read_dir(&day).unwrap().count();
    assert!(count > 50);

    run(command("rm").args(["-r"]).arg(&day)).success();

    let days = |mount: &Path| contents(mount).into_keys().map(|path| path.to_str().unwrap()[..8].to_owned());
    assert!(!day.try_exists().unwrap());
    assert!(days(mount.path()).all(|day| day != "20240302"));
    mount.unmount();
    let again = packed.mount("");
    assert!(days(again.path()).all(|day| day != "20240302"));
    let names: Vec<_> = fs::read_dir(again.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["20240301", "20240303"]);
    assert_eq!(contents(again.path()).len(), 300 - count);
}

#[test]
fn a_day_that_holds_files_is_not_removed() {
    let packed = Packed::random(19, 30);
    let mount = packed.mount("");

    assert_eq!(rustix::fs::rmdir(mount.path().join("20240301")), Err(Errno::NOTEMPTY));

    packed.assert_shown_in(mount.path(), &[]);
}

#[test]
fn a_mount_that_is_read_only_deletes_nothing() {
    let packed = Packed::random(20, 30);
    let mount = packed.mount("ro");
    let victim = &packed.corpus.files[4];

    assert_eq!(rustix::fs::unlink(mount.file(&victim.day, &victim.uid)), Err(Errno::ROFS));
    assert_eq!(rustix::fs::rmdir(mount.path().join(&victim.day)), Err(Errno::ROFS));

    packed.assert_shown_in(mount.path(), &[]);
}

#[test]
fn a_deleted_uid_cannot_come_back_on_its_day() {
    let packed = Packed::random(21, 30);
    let mount = packed.mount("ttl=1s");
    let victim = packed.corpus.files[4].clone();
    fs::remove_file(mount.file(&victim.day, &victim.uid)).unwrap();
    let report = packed.place().join("report.json");
    let mut pack = des_pack(&packed.archive());
    pack.arg("--input-json").arg(packed.corpus.manifest("again")).arg("--report").arg(&report);

    run(&mut pack).exits(1);

    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0]["uid"].as_str(), rows[0]["outcome"].as_str()), (Some(victim.uid.as_str()), Some("deleted")));
    packed.assert_shown_in(packed.mount("").path(), &[(&victim.day, &victim.uid)]);
}

#[test]
fn files_packed_later_appear_within_the_ttl() {
    let mut packed = Packed::random(22, 10);
    let mount = packed.mount("ttl=1s");
    packed.assert_shown_in(mount.path(), &[]);
    packed.corpus.add("20240301", "later", "later");
    packed.corpus.add("20250101", "on a new day", "new");

    packed.pack("more");

    let shows_both =
        || ["20240301/later", "20250101/on a new day"].iter().all(|path| mount.path().join(path).try_exists().unwrap());
    eventually(Duration::from_secs(4), "the new files are seen", shows_both);
    packed.assert_shown_in(mount.path(), &[]);
}

#[test]
fn four_who_delete_at_once_each_succeed_once() {
    let packed = Packed::random(23, 200);
    let (one, two) = (packed.mount("ttl=1s"), packed.mount("ttl=1s"));
    let removed = std::sync::atomic::AtomicUsize::new(0);

    std::thread::scope(|scope| {
        for mount in [&one, &one, &two, &two] {
            scope.spawn(|| {
                for file in &packed.corpus.files {
                    match fs::remove_file(mount.file(&file.day, &file.uid)) {
                        Ok(()) => drop(removed.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
                    }
                }
            });
        }
    });

    // Two hosts that do not know of each other's deletion yet may both succeed.
    assert!((200..=400).contains(&removed.into_inner()));
    assert!(contents(packed.mount("").path()).is_empty());
    run_within(Duration::from_secs(10), command("find").arg(one.path())).success();
}
