//! The end of a mount under load, by signal or by force: what was acknowledged is true, and nothing else has changed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use des_tests::{
    Mount, Packed, SourceFile, contents, daemons_on, desfs, eventually, mount_point, mounts_on, scratch, shown_name,
};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(20);

/// What the clients of a mount were told.
#[derive(Debug, Default)]
struct Told {
    /// Files whose deletion was acknowledged.
    deleted: BTreeSet<String>,
    /// Files whose deletion may or may not have happened.
    unknown: BTreeSet<String>,
    /// Files that were read whole.
    read: usize,
}

/// Reads, lists and deletes files of a slice each, then reads what is left of it until the mount fails; all at once.
fn load(root: &Path, slices: &[&[SourceFile]], told: &Mutex<Told>) {
    std::thread::scope(|scope| {
        for slice in slices {
            scope.spawn(move || {
                for (number, file) in slice.iter().enumerate() {
                    let path = root.join(&file.day).join(shown_name(&file.uid));
                    match fs::read(&path) {
                        Ok(bytes) => assert!(bytes == file.bytes, "{}", file.uid),
                        Err(_) => return,
                    }
                    told.lock().unwrap().read += 1;
                    if number % 16 == 0 {
                        let Ok(mut listing) = fs::read_dir(root.join(&file.day)) else { return };
                        if listing.any(|entry| entry.is_err()) {
                            return;
                        }
                    }
                    if number % 2 == 0 {
                        let outcome = fs::remove_file(&path);
                        let mut told = told.lock().unwrap();
                        if outcome.is_ok() {
                            told.deleted.insert(file.uid.clone());
                        } else {
                            told.unknown.insert(file.uid.clone());
                            return;
                        }
                    }
                }
                for file in slice.iter().skip(1).step_by(2).cycle() {
                    match fs::read(root.join(&file.day).join(shown_name(&file.uid))) {
                        Ok(bytes) => assert!(bytes == file.bytes, "{}", file.uid),
                        Err(_) => return,
                    }
                }
            });
        }
    });
}

/// Asserts that a mount shows what the clients of an earlier one were told.
fn assert_true(packed: &Packed, root: &Path, told: &Told) {
    let mut found = contents(root);
    for file in &packed.corpus.files {
        let there = found.remove(&Path::new(&file.day).join(shown_name(&file.uid)));
        if told.deleted.contains(&file.uid) {
            assert_eq!(there, None, "{} was deleted", file.uid);
        } else if !(told.unknown.contains(&file.uid) && there.is_none()) {
            assert!(there.as_ref() == Some(&file.bytes), "{}", file.uid);
        }
    }
    assert!(found.is_empty(), "{:?}", found.keys());
}

#[test]
fn what_was_acknowledged_before_the_daemon_was_killed_under_load_is_there_on_the_same_path() {
    let packed = Packed::random(111, 3_000);
    let point = mount_point();
    let mut all = Told::default();

    for slices in packed.corpus.files.chunks(600) {
        let mount = Mount::at(&packed.archive(), point.path(), "");
        let daemon = mount.daemon();
        let told = Mutex::new(Told::default());
        let slices: Vec<_> = slices.chunks(75).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| load(point.path(), &slices, &told));
            // Well before all of it is done.
            eventually(SOON, "some work is done", || told.lock().unwrap().deleted.len() > 20);
            kill_process(daemon, Signal::KILL).unwrap();
        });
        eventually(SOON, "the daemon is dead", || daemons_on(point.path()).is_empty());
        let told = told.into_inner().unwrap();
        all.deleted.extend(told.deleted);
        all.unknown.extend(told.unknown);

        // On the same path, over the dead mount.
        let again = Mount::at(&packed.archive(), point.path(), "");
        assert_eq!(mounts_on(point.path()).len(), 1);
        assert_true(&packed, again.path(), &all);
        again.unmount();
    }
}

/// A mount in the foreground.
fn in_the_foreground(source: &Path, point: &Path, log: &Path) -> Child {
    let mut daemon = desfs();
    daemon.arg("--foreground").arg(source).arg(point).stdin(Stdio::null()).stdout(Stdio::null());
    let daemon = daemon.stderr(File::create(log).unwrap()).spawn().unwrap();
    eventually(SOON, "it is mounted", || fs::read_to_string(log).unwrap().contains("mounted"));
    daemon
}

fn exit_code(daemon: &mut Child, limit: Duration) -> Option<i32> {
    let mut status = None;
    eventually(limit, "the daemon ends", || {
        status = daemon.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

#[test]
fn term_under_load_finishes_what_is_under_way_and_exits_with_0() {
    let packed = Packed::random(112, 1_200);
    let (point, place) = (mount_point(), scratch());
    let _guard = Mount::guard(point.path());
    let mut daemon = in_the_foreground(&packed.archive(), point.path(), &place.path().join("log"));
    let told = Mutex::new(Told::default());
    let slices: Vec<_> = packed.corpus.files.chunks(150).collect();

    std::thread::scope(|scope| {
        scope.spawn(|| load(point.path(), &slices, &told));
        eventually(SOON, "some work is done", || told.lock().unwrap().deleted.len() > 50);
        kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
        assert_eq!(exit_code(&mut daemon, SOON), Some(0));
    });

    assert!(mounts_on(point.path()).is_empty());
    let told = told.into_inner().unwrap();
    assert_true(&packed, packed.mount("").path(), &told);
}

#[test]
fn term_while_a_file_is_open_detaches_the_mount_and_exits_with_0_in_time() {
    let packed = Packed::of(|corpus| {
        corpus.add("20240301", "held", vec![b'h'; 3_000_000]);
        corpus.add("20240301", "other", "other");
    });
    let (point, place) = (mount_point(), scratch());
    let guard = Mount::guard(point.path());
    let mut daemon = in_the_foreground(&packed.archive(), point.path(), &place.path().join("log"));
    let held = File::open(guard.file("20240301", "held")).unwrap();
    let mut byte = [0; 1];
    let began = Instant::now();

    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();

    // Who has it open reads on until then.
    held.read_exact_at(&mut byte, 2_500_000).unwrap();
    eventually(SOON, "the mount is detached", || mounts_on(point.path()).is_empty());
    assert!(began.elapsed() >= Duration::from_secs(4), "five seconds of patience");
    assert!(fs::read_dir(point.path()).unwrap().next().is_none(), "nobody comes in any more");
    held.read_exact_at(&mut byte, 1_500_000).unwrap();
    assert_eq!(exit_code(&mut daemon, SOON), Some(0));
    assert!(held.read_exact_at(&mut byte, 10).is_err() || byte == [b'h'], "an error or the truth");
}

#[test]
fn term_before_anything_is_open_ends_within_a_second_or_two() {
    let packed = Packed::random(113, 20);
    let (point, place) = (mount_point(), scratch());
    let _guard = Mount::guard(point.path());
    let mut daemon = in_the_foreground(&packed.archive(), point.path(), &place.path().join("log"));
    packed.assert_shown_in(point.path(), &[]);

    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();

    assert_eq!(exit_code(&mut daemon, Duration::from_secs(4)), Some(0));
}
