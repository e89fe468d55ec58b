//! Many files read by many readers through bad weather: every kind of failure all the time, and the figures that the mount tells
//! of it.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use des_tests::{
    ChaosProxy, Corpus, Fault, Kind, Metrics, Mount, Rule, S3Place, Script, Seen, desfs, eventually, free_port,
    mount_point, run, s3_server, scratch, seed,
};
use desstore::{Randomness, SeededRandom};

const DAY: &str = "20240301";
const READERS: usize = 8;

/// How many files are read, unless `DES_TEST_FILES` says it.
const FILES: usize = 2_000;

/// A stall is longer than anybody waits.
const STALL: Duration = Duration::from_mins(2);

fn file_count() -> usize {
    std::env::var("DES_TEST_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(FILES)
}

/// What a file holds: noise of some 1 to 5 KiB.
fn noise(seed: u64) -> Vec<u8> {
    let random = SeededRandom::new(seed);
    let mut bytes = vec![0; 1_000 + usize::try_from(random.next() % 4_096).unwrap()];
    random.fill(&mut bytes);
    bytes
}

/// An order in which nobody walks.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let random = SeededRandom::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, usize::try_from(random.next()).unwrap_or_default() % (last + 1));
    }
    order
}

fn weather(seed: u64) -> Script {
    let of_bodies = |percent, fault| Rule::percent(percent, fault).on(&[Kind::GetRange]);
    let rules = vec![
        Rule::percent(5, Fault::Status(503, None)),
        Rule::percent(2, Fault::Close),
        of_bodies(2, Fault::ShortBody),
        of_bodies(1, Fault::FlipByte),
        of_bodies(1, Fault::Stall(STALL)),
    ];
    Script { seed, rules, ..Script::default() }
}

/// How many requests the proxy did this to.
fn struck(seen: &[Seen], is_it: impl Fn(&Fault) -> bool) -> usize {
    seen.iter().filter(|one| one.fault.as_ref().is_some_and(&is_it)).count()
}

/// A figure that counts something.
fn whole(figure: f64) -> usize {
    figure.to_string().parse().unwrap()
}

/// An archive of so many files, each a frame and so a request.
fn packed(directory: &Path, seed: u64, files: usize) -> (S3Place, Corpus) {
    let place = s3_server().place();
    let mut corpus = Corpus::new(&directory.join("source"));
    for number in 0..files {
        let bytes = noise(seed + u64::try_from(number).unwrap());
        corpus.add(DAY, &format!("scan-{number:06}"), bytes);
    }
    let mut pack = place.program("des-pack");
    let manifest = corpus.manifest("all");
    run(pack.arg("--input-json").arg(manifest).args(["--n-bits", "2", "--frame-size", "0"])).success();
    (place, corpus)
}

#[test]
fn in_bad_weather_no_byte_is_wrong_next_to_nothing_fails_and_the_figures_are_right() {
    let (seed, files) = (seed(), file_count());
    let directory = scratch();
    let (place, corpus) = packed(directory.path(), seed, files);
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let (point, port) = (mount_point(), free_port());
    let mount = Mount::guard(point.path());
    let options = format!("{},ttl=1h,stall_timeout=1s", place.through(&proxy.endpoint()).options());
    let mut mounting = desfs();
    mounting.arg(&place.uri).arg(point.path()).args(["-o", &options]).arg("--http").arg(port.to_string());
    run(&mut mounting).success();
    proxy.take_seen();
    let before = Metrics::of(port);
    proxy.follow(weather(seed));

    let (order, next) = (shuffled(files, seed), AtomicUsize::new(0));
    let failures: Mutex<Vec<(String, Option<i32>)>> = Mutex::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                while let Some(place) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let file = &corpus.files[*place];
                    match fs::read(mount.file(DAY, &file.uid)) {
                        Ok(read) => assert!(read == file.bytes, "{}: wrong bytes, seed {seed}", file.uid),
                        Err(error) => failures.lock().unwrap().push((file.uid.clone(), error.raw_os_error())),
                    }
                }
            });
        }
    });
    let elapsed = began.elapsed();

    let failures = failures.into_inner().unwrap();
    assert!(failures.iter().all(|(_, errno)| *errno == Some(5)), "{failures:?}");
    assert!(
        failures.len() <= files.div_ceil(10_000),
        "{} of {files} failed, seed {seed}: {failures:?}",
        failures.len()
    );

    // What is still under way is none of the readers' any more.
    let sum = |name: &str, labels: &[&str]| whole(Metrics::of(port).sum(name, labels) - before.sum(name, labels));
    let mut requests = Vec::new();
    eventually(Duration::from_mins(1), "the mount has counted what the proxy has seen", || {
        requests.extend(proxy.take_seen());
        sum("des_s3_requests_total", &[]) == requests.len()
    });
    let outcome = |name: &str| sum("des_s3_requests_total", &[&format!("outcome=\"{name}\"")]);
    let told = [outcome("throttled"), outcome("unavailable"), outcome("corrupt")];
    let expected = [
        struck(&requests, |fault| matches!(fault, Fault::Status(..))),
        struck(&requests, |fault| matches!(fault, Fault::Close | Fault::Stall(_))),
        struck(&requests, |fault| *fault == Fault::ShortBody),
    ];
    assert_eq!(told, expected, "throttled, unavailable and corrupt, seed {seed}");
    let (retried, failed) = (sum("des_s3_retries_total", &[]), told.iter().sum::<usize>());
    // What was given up was not tried again.
    assert!(failed > 0 && retried <= failed && failed - retried <= 2, "{retried} of {failed}, seed {seed}");
    let ranges = requests.iter().filter(|one| one.asked.kind == Kind::GetRange).count();
    assert_eq!(sum("des_s3_range_calls_total", &[]), ranges);
    // The kernel asks once more by itself before a program is told.
    let refused = sum("des_retrieval_errors_total", &[]);
    let unread = failures.len();
    assert!(refused >= unread && refused <= 2 * unread + 3, "{refused} requests refused, {unread} files not read");

    println!(
        "{files} files by {READERS} readers in {elapsed:?}: {} requests, of which 503 {}, reset or stalled {}, short {}, \
         with a wrong byte {}; {retried} tried again; {refused} requests refused, {unread} files failed",
        requests.len(),
        expected[0],
        expected[1],
        expected[2],
        struck(&requests, |fault| *fault == Fault::FlipByte),
    );
}
