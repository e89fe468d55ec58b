//! 64 clients read, list and delete under a memory limit: no error, and the daemon does not grow.
//!
//! `DES_SOAK_SECONDS` says for how long; 20 if it does not.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use des_tests::{
    MemoryLimit, Mount, Packed, Resident, command, desfs, eventually, mount_point, resident, run_within, seed,
    shown_name,
};
use desstore::{Randomness, SeededRandom};
use rustix::fs::{Advice, fadvise};
use rustix::process::Pid;

const CLIENTS: usize = 64;
const FILES: usize = 12_000;
/// What the caches may hold, and the whole process beside them.
const CACHES_MIB: u64 = 48;
const LIMIT_MIB: u64 = CACHES_MIB + 64;
/// How much more the daemon may have in the second half than in the first: what the allocator does not give back.
const GROWTH_MAX: u64 = 8 << 20;

const THERE: u8 = 0;
const BEING_DELETED: u8 = 1;
const GONE: u8 = 2;

/// A mount that is used, and what is known of its files.
struct Soak<'a> {
    mount: &'a Mount,
    packed: &'a Packed,
    states: Vec<AtomicU8>,
    began: Instant,
    lasts: Duration,
    is_over: AtomicBool,
    reads: AtomicUsize,
    listings: AtomicUsize,
    deletions: AtomicUsize,
}

impl Soak<'_> {
    fn state(&self, file: usize) -> u8 {
        self.states[file].load(Ordering::SeqCst)
    }

    fn client(&self, number: usize, random: &SeededRandom) {
        let below = |bound: usize| usize::try_from(random.next() % u64::try_from(bound).unwrap()).unwrap();
        let share = FILES / CLIENTS;
        let mut deleted = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            match below(200) {
                0 => self.list(below(3)),
                1..100 => self.read(below(FILES)),
                _ => self.read(number * share + below(share)),
            }
            // A third of its files by the end, at an even pace.
            let due = self.began.elapsed().as_secs_f64() / self.lasts.as_secs_f64();
            if f64::from(u32::try_from(deleted * 3).unwrap()) < due * f64::from(u32::try_from(share).unwrap()) {
                self.delete(number * share + deleted * 2);
                deleted += 1;
            }
        }
    }

    fn read(&self, number: usize) {
        let file = &self.packed.corpus.files[number];
        let mut bytes = Vec::new();
        let outcome = File::open(self.mount.file(&file.day, &file.uid)).and_then(|mut open| {
            open.read_to_end(&mut bytes)?;
            // Not from the kernel's cache the next time.
            Ok(fadvise(&open, 0, None, Advice::DontNeed)?)
        });
        match outcome {
            Ok(()) => assert!(bytes == file.bytes, "{}", file.uid),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{}: {error}", file.uid);
                assert_ne!(self.state(number), THERE, "{} is there", file.uid);
            }
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    fn list(&self, day: usize) {
        let day = ["20240301", "20240302", "20240303"][day];
        let of_day = || self.packed.corpus.files.iter().enumerate().filter(|(_, file)| file.day == day);
        let gone: Vec<_> = of_day().filter(|(number, _)| self.state(*number) == GONE).collect();
        let entries = fs::read_dir(self.mount.path().join(day)).unwrap_or_else(|error| panic!("{day}: {error}"));
        let names: std::collections::HashSet<_> =
            entries.map(|entry| entry.unwrap_or_else(|error| panic!("{day}: {error}")).file_name()).collect();
        let is_listed = |uid: &str| names.contains(std::ffi::OsStr::new(&shown_name(uid)));
        for (_, file) in gone {
            assert!(!is_listed(&file.uid), "{} was deleted before", file.uid);
        }
        for (_, file) in of_day().filter(|(number, _)| self.state(*number) == THERE) {
            assert!(is_listed(&file.uid), "{} is there", file.uid);
        }
        self.listings.fetch_add(1, Ordering::Relaxed);
    }

    fn delete(&self, number: usize) {
        let file = &self.packed.corpus.files[number];
        self.states[number].store(BEING_DELETED, Ordering::SeqCst);
        fs::remove_file(self.mount.file(&file.day, &file.uid)).unwrap_or_else(|error| panic!("{}: {error}", file.uid));
        self.states[number].store(GONE, Ordering::SeqCst);
        self.deletions.fetch_add(1, Ordering::Relaxed);
    }

    /// Plays all clients; what the daemon had in memory, twenty times.
    fn play(&self, daemon: Pid, seed: u64) -> Vec<Resident> {
        let mut samples = Vec::new();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let random = SeededRandom::new(seed + u64::try_from(number).unwrap());
                    scope.spawn(move || self.client(number, &random))
                })
                .collect();
            for _ in 0..20 {
                std::thread::sleep(self.lasts / 20);
                samples.push(resident(daemon));
                if clients.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                    break;
                }
            }
            self.is_over.store(true, Ordering::Relaxed);
        });
        samples
    }
}

/// The last part of a path, which is unlike that of any other test.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// A mount in the foreground within a control group.
fn mounted_within(limit: &MemoryLimit, packed: &Packed, mount: &Mount) -> Child {
    let script = "echo $$ > \"$1\" && shift && exec \"$@\"";
    let mut daemon = command("bash");
    daemon.args(["-c", script, "bash"]).arg(limit.door()).arg(desfs().get_program()).arg("--foreground");
    daemon.arg(packed.archive()).arg(mount.path()).args(["-o", &format!("memory={CACHES_MIB}M,ttl=2s")]);
    let log = File::create(packed.place().join("log")).unwrap();
    let daemon = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let log = packed.place().join("log");
    eventually(Duration::from_secs(20), "it is mounted", || fs::read_to_string(&log).unwrap().contains("mounted"));
    daemon
}

#[test]
fn sixty_four_clients_meet_no_error_and_the_daemon_does_not_grow() {
    let seconds = std::env::var("DES_SOAK_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    let seed = seed();
    let packed = Packed::random(seed, FILES);
    let point = mount_point();
    let mount = Mount::guard(point.path());
    let limit = MemoryLimit::new(&name_of(point.path()), LIMIT_MIB << 20);
    let mut daemon = mounted_within(&limit, &packed, &mount);
    let soak = Soak {
        mount: &mount,
        packed: &packed,
        states: (0..FILES).map(|_| AtomicU8::new(THERE)).collect(),
        began: Instant::now(),
        lasts: Duration::from_secs(seconds),
        is_over: AtomicBool::new(false),
        reads: AtomicUsize::new(0),
        listings: AtomicUsize::new(0),
        deletions: AtomicUsize::new(0),
    };

    let samples = soak.play(Pid::from_child(&daemon), seed);

    let (early, late) = samples.split_at(samples.len() / 2);
    let most = |samples: &[Resident]| samples.iter().map(|sample| sample.bytes).max().unwrap();
    let peak = samples.last().unwrap().bytes_max;
    println!(
        "{seconds} s, {} reads, {} listings, {} deletions; resident KiB at most {} in the first half, {} in the second, \
         {} ever; the group uses {} KiB of {}",
        soak.reads.load(Ordering::Relaxed),
        soak.listings.load(Ordering::Relaxed),
        soak.deletions.load(Ordering::Relaxed),
        most(early) >> 10,
        most(late) >> 10,
        peak >> 10,
        limit.used_bytes() >> 10,
        LIMIT_MIB << 10,
    );
    assert_eq!(limit.kills(), 0);
    assert!(most(late) <= most(early) + GROWTH_MAX, "{samples:?}");
    assert!(peak <= LIMIT_MIB << 20, "{samples:?}");
    let deleted = packed.corpus.files.iter().enumerate().filter(|(number, _)| soak.state(*number) == GONE);
    let gone: Vec<_> = deleted.map(|(_, file)| (file.day.as_str(), file.uid.as_str())).collect();
    assert!(!gone.is_empty());
    packed.assert_shown_in(mount.path(), &gone);
    run_within(Duration::from_secs(20), command("umount").arg(mount.path())).success();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    let log = fs::read_to_string(packed.place().join("log")).unwrap();
    assert!(log.contains(" 0 failed, ") && !log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
