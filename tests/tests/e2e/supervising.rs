//! A mount under supervision: what systemd is told, and what signals and chores do.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use des_tests::{Mount, Packed, command, daemons_on, desfs, eventually, mount_point, run, run_within, scratch};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// A mount in the foreground with a supervisor that writes down what it is told.
struct Supervised {
    daemon: Child,
    socket: UnixDatagram,
    point: TempDir,
    place: TempDir,
    guard: Mount,
}

impl Supervised {
    fn new(source: &Path, options: &str, watchdog: Option<Duration>) -> Self {
        let (point, place) = (mount_point(), scratch());
        let guard = Mount::guard(point.path());
        // The path of a socket must be short.
        let address = point.path().with_extension("notify");
        let socket = UnixDatagram::bind(&address).unwrap();
        let log = fs::File::create(place.path().join("log")).unwrap();
        let mut daemon = desfs();
        daemon.arg("--foreground").arg(source).arg(point.path()).args(["-o", options]);
        daemon.env("NOTIFY_SOCKET", &address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(watchdog) = watchdog {
            daemon.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        Self { daemon: daemon.spawn().unwrap(), socket, point, place, guard }
    }

    /// What is told within a time, until something of it will do.
    fn told_until(&self, limit: Duration, mut is_enough: impl FnMut(&[String]) -> bool) -> Vec<String> {
        let (began, mut told) = (Instant::now(), Vec::new());
        let mut buffer = [0; 4_096];
        while !is_enough(&told) {
            let Some(left) = limit.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else { break };
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.socket.recv(&mut buffer) {
                Ok(count) => told.extend(std::str::from_utf8(&buffer[..count]).unwrap().lines().map(str::to_owned)),
                Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
            }
        }
        told
    }

    fn told(&self, line: &'static str) -> Vec<String> {
        let told = self.told_until(SOON, |told| told.iter().any(|one| one == line));
        assert!(told.iter().any(|one| one == line), "{line} in {told:?}");
        told
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.daemon), signal).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap()
    }

    fn ends_with(mut self, code: i32) {
        let mut status = None;
        eventually(SOON, "the daemon ends", || {
            status = self.daemon.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(code), "{}", self.log());
        fs::remove_file(self.point.path().with_extension("notify")).unwrap();
        drop(self.guard);
    }
}

fn count(told: &[String], line: &str) -> usize {
    told.iter().filter(|one| *one == line).count()
}

#[test]
fn systemd_is_told_of_beginning_life_and_end() {
    let packed = Packed::random(81, 20);
    let mount = Supervised::new(&packed.archive(), "", Some(Duration::from_millis(400)));

    mount.told("READY=1");
    packed.assert_shown_in(mount.point.path(), &[]);
    let told = mount.told_until(SOON, |told| count(told, "WATCHDOG=1") >= 5);

    assert!(count(&told, "WATCHDOG=1") >= 5, "{told:?}\n{}", mount.log());
    let status = told.iter().rev().find(|line| line.starts_with("STATUS=")).unwrap();
    let what = format!("STATUS={} on {}", packed.archive().display(), mount.point.path().display());
    assert!(status.starts_with(&what) && status.contains(" requests, 0 failed, "), "{status}");
    mount.signal(Signal::TERM);
    mount.told("STOPPING=1");
    mount.ends_with(0);
}

#[test]
fn without_a_watchdog_no_sign_of_life_is_given() {
    let packed = Packed::random(82, 5);
    let mount = Supervised::new(&packed.archive(), "", None);

    mount.told("READY=1");
    let told = mount.told_until(Duration::from_secs(2), |_| false);

    assert_eq!(count(&told, "WATCHDOG=1"), 0, "{told:?}");
    assert_eq!(told.iter().filter(|line| line.starts_with("STATUS=")).count(), 1, "{told:?}");
    mount.signal(Signal::TERM);
    mount.ends_with(0);
}

#[test]
fn a_probe_waits_as_long_as_the_mount_does_not_answer() {
    let packed = Packed::random(83, 5);
    let mount = packed.mount("");
    let daemon = mount.daemon();
    let probe = || desfs().arg("--probe-mount").arg(mount.path()).spawn().unwrap();
    assert!(probe().wait().unwrap().success());

    kill_process(daemon, Signal::STOP).unwrap();
    let mut waiting = probe();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(waiting.try_wait().unwrap(), None);
    kill_process(daemon, Signal::CONT).unwrap();

    assert!(waiting.wait().unwrap().success());
    mount.unmount();
}

#[test]
fn hang_up_shows_at_once_what_was_changed_elsewhere() {
    let packed = Packed::random(84, 30);
    let here = packed.mount("ttl=1h");
    let elsewhere = packed.mount("");
    let victim = packed.corpus.files[0].clone();
    let seen = here.file(&victim.day, &victim.uid);
    assert_eq!(fs::read(&seen).unwrap(), victim.bytes);
    fs::remove_file(elsewhere.file(&victim.day, &victim.uid)).unwrap();
    assert!(fs::metadata(&seen).is_ok(), "known for an hour");

    kill_process(here.daemon(), Signal::HUP).unwrap();

    eventually(SOON, "the deletion is seen", || fs::metadata(&seen).is_err());
    packed.assert_shown_in(here.path(), &[(&victim.day, &victim.uid)]);
    here.unmount();
}

#[test]
fn hang_up_begins_the_log_again() {
    let packed = Packed::random(85, 5);
    let place = scratch();
    let (log, moved) = (place.path().join("log"), place.path().join("log.1"));
    let mount = packed.mount(&format!("log={}", log.display()));
    eventually(SOON, "the log begins", || fs::read_to_string(&log).is_ok_and(|text| text.contains("mounted")));
    fs::rename(&log, &moved).unwrap();

    kill_process(mount.daemon(), Signal::HUP).unwrap();

    eventually(SOON, "a new log", || fs::read_to_string(&log).is_ok_and(|text| text.contains("caches dropped")));
    assert!(!fs::read_to_string(&moved).unwrap().contains("caches dropped"));
    mount.unmount();
}

#[test]
fn a_thousand_failed_reads_are_one_line_in_the_log_and_a_figure() {
    let packed = Packed::random(86, 60);
    let place = scratch();
    let log = place.path().join("log");
    let mount = packed.mount(&format!("log={}", log.display()));
    let names: Vec<PathBuf> = packed.corpus.files.iter().map(|file| mount.file(&file.day, &file.uid)).collect();
    for day in ["20240301", "20240302", "20240303"] {
        fs::write(packed.archive().join(format!("manifests/{day}.json")), "{").unwrap();
    }

    for _ in 0..20 {
        for name in &names {
            assert!(fs::read(name).is_err());
        }
    }
    kill_process(mount.daemon(), Signal::TERM).unwrap();
    eventually(SOON, "the daemon ends", || daemons_on(mount.path()).is_empty());

    let text = fs::read_to_string(&log).unwrap();
    let lines = text.lines().filter(|line| line.contains("request not served")).count();
    assert_eq!(lines, 3, "one for each manifest:\n{text}");
    assert!(text.contains(" 1200 failed, "), "{text}");
}

#[test]
fn writes_that_reach_the_mount_are_dropped_and_counted() {
    let packed = Packed::of(|corpus| {
        corpus.add("20240301", "a", *b"content");
    });
    let place = scratch();
    let log = place.path().join("log");
    let mount = packed.mount(&format!("log={}", log.display()));
    let file = mount.file("20240301", "a");

    for _ in 0..3 {
        let write = run(command("dd").arg("if=/dev/zero").arg(format!("of={}", file.display())).args([
            "conv=notrunc",
            "bs=1",
            "count=1",
        ]));
        assert_ne!(write.code(), 0);
    }
    run_within(SOON, command("umount").arg(mount.path())).success();
    eventually(SOON, "the daemon ends", || daemons_on(mount.path()).is_empty());

    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.matches("something writes to files").count(), 1, "{text}");
    assert!(text.contains(" 3 writes dropped"), "{text}");
}
