//! Every figure that programs tell of themselves moves when what it counts happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use des_tests::{
    ChaosProxy, Corpus, Fault, Kind, Metrics, Mount, Rule, S3Place, Script, ask_http, command, contents, desfs,
    eventually, free_port, mount_point, run, run_within, s3_server, scratch,
};
use desstore::{Randomness, SeededRandom};

/// A day of small texts, and one of files that are a frame each.
const SMALL: &str = "20240304";
const LARGE: &str = "20240305";

/// An archive in a bucket, and a proxy before it.
struct Metered {
    corpus: Corpus,
    place: S3Place,
    proxy: ChaosProxy,
    cache: PathBuf,
    directory: tempfile::TempDir,
}

/// A mount that tells its metrics.
struct Told {
    mount: Mount,
    port: u16,
    _point: tempfile::TempDir,
}

impl Metered {
    fn packed() -> (Self, Metrics) {
        let directory = scratch();
        let mut corpus = Corpus::new(&directory.path().join("source"));
        for number in 0..3_000 {
            corpus.add(SMALL, &format!("mail-{number:05}"), format!("mail {number}: ").repeat(50));
        }
        for number in 0..300_u64 {
            let mut bytes = vec![0; 20_000];
            SeededRandom::new(number).fill(&mut bytes);
            corpus.add(LARGE, &format!("scan-{number:03}"), bytes);
        }
        let (place, told) = (s3_server().place(), directory.path().join("pack.prom"));
        let mut pack = place.program("des-pack");
        pack.arg("--input-json").arg(corpus.manifest("all")).args(["--n-bits", "0", "--metrics-file"]).arg(&told);
        run(&mut pack).success();
        let packing = Metrics::in_text(&fs::read_to_string(told).unwrap());
        let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
        let (place, cache) = (place.through(&proxy.endpoint()), directory.path().join("cache"));
        (Self { corpus, place, proxy, cache, directory }, packing)
    }

    fn mount(&self, options: &str) -> Told {
        let (point, port) = (mount_point(), free_port());
        let mount = Mount::guard(point.path());
        let log = self.directory.path().join("log");
        let options = format!(
            "{},deadline=3s,memory=1M,cache_dir={},cache_size=16M,log={},{options}",
            self.place.options(),
            self.cache.display(),
            log.display()
        );
        run(desfs().arg(&self.place.uri).arg(point.path()).args(["--http", &port.to_string(), "-o", &options]))
            .success();
        Told { mount, port, _point: point }
    }

    fn strike(&self, rule: Rule) {
        self.proxy.follow(Script { rules: vec![rule], ..Script::default() });
    }
}

impl Told {
    fn metrics(&self) -> Metrics {
        Metrics::of(self.port)
    }
}

#[test]
fn each_figure_of_packing_and_of_a_mount_moves() {
    let (metered, packing) = Metered::packed();
    packing.assert_grown_since(
        &Metrics::in_text(""),
        &[
            ("des_bytes_saved_total", &[]),
            ("des_compression_ratio", &[]),
            ("des_shard_size_bytes_count", &[]),
            ("des_shard_files_total", &[]),
            ("des_shard_plain_bytes_total", &[]),
            ("des_shard_stored_bytes_total", &[]),
            ("des_s3_bytes_total", &[r#"direction="written""#, r#"zone="des-tests""#]),
            ("des_s3_requests_total", &[r#"operation="put_if_absent""#, r#"outcome="ok""#]),
        ],
    );

    let told = metered.mount("ttl=1s");
    let before = told.metrics();
    metered.corpus.assert_shown_in(told.mount.path(), &[]);
    told.metrics().assert_grown_since(
        &before,
        &[
            ("des_retrievals_total", &[r#"backend="s3""#, r#"status="ok""#]),
            ("des_retrieval_seconds_count", &[r#"backend="s3""#]),
            ("des_mount_requests_total", &[r#"operation="read""#]),
            ("des_s3_requests_total", &[r#"outcome="ok""#]),
            ("des_s3_request_seconds_count", &[r#"operation="get_range""#]),
            ("des_s3_bytes_total", &[r#"direction="read""#]),
            ("des_s3_range_calls_total", &[r#"zone="des-tests""#, r#"type="range""#]),
            ("des_s3_range_calls_total", &[r#"zone="des-tests""#, r#"type="tail""#]),
            ("des_cache_hit_total", &[]),
            ("des_cache_miss_total", &[]),
            ("des_cache_memory_bytes", &[]),
            ("des_cache_eviction_total", &[r#"reason="size""#]),
            ("des_read_ahead_windows_total", &[]),
            ("des_read_ahead_bytes_total", &[]),
            ("des_read_ahead_frames_total", &[]),
            ("des_disk_cache_miss_total", &[]),
            ("des_disk_cache_written_total", &[]),
            ("des_disk_cache_bytes", &[]),
        ],
    );
    deleting_moves_what_it_must(&told);
    an_attempt_more_is_counted(&metered, &told);
    told.mount.unmount();

    let told = metered.mount("ttl=1m");
    what_is_on_disk_is_found_there_and_what_is_deleted_goes(&told);
    a_byte_that_turned_on_its_way_is_counted(&metered, &told);
}

fn deleting_moves_what_it_must(told: &Told) {
    let before = told.metrics();
    fs::remove_file(told.mount.file(SMALL, "mail-00007")).unwrap();
    let target = format!("of={}", told.mount.file(SMALL, "mail-00008").display());
    let write = run(command("dd").args(["if=/dev/zero", &target, "conv=notrunc", "bs=1", "count=1"]));
    assert_ne!(write.code(), 0);

    told.metrics().assert_grown_since(
        &before,
        &[
            ("des_mount_files_deleted_total", &[]),
            ("des_mount_writes_dropped_total", &[]),
            ("des_s3_bytes_total", &[r#"direction="written""#]),
        ],
    );
}

/// The day is looked at again each `ttl`; the first attempt fails.
fn an_attempt_more_is_counted(metered: &Metered, told: &Told) {
    let retries = || told.metrics().sum("des_s3_retries_total", &[]);
    let before = retries();
    metered.strike(Rule::always(Fault::Status(503, None)).on(&[Kind::GetIfChanged]).times(1));

    eventually(Duration::from_secs(20), "an attempt after the first", || {
        fs::metadata(told.mount.file(SMALL, "mail-00009")).unwrap();
        retries() > before
    });
    assert!(told.metrics().sum("des_s3_requests_total", &[r#"outcome="throttled""#]) > 0.0);
}

fn what_is_on_disk_is_found_there_and_what_is_deleted_goes(told: &Told) {
    let before = told.metrics();
    assert_eq!(contents(&told.mount.path().join(SMALL)).len(), 2_999);

    // What was read last is in memory still, and is not kept when it is deleted.
    fs::remove_file(told.mount.file(SMALL, "mail-02999")).unwrap();
    told.metrics().assert_grown_since(
        &before,
        &[("des_disk_cache_hit_total", &[]), ("des_cache_eviction_total", &[r#"reason="removed""#])],
    );
}

fn a_byte_that_turned_on_its_way_is_counted(metered: &Metered, told: &Told) {
    // Names are known, contents are not; and what was kept on disk is lost.
    let day = told.mount.path().join(LARGE);
    let files: Vec<PathBuf> = fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.iter().all(|file| fs::metadata(file).is_ok()));
    garble(&metered.cache);
    let before = told.metrics();

    metered.strike(Rule::always(Fault::FlipByte).on(&[Kind::GetRange]).times(1));
    fs::read(&files[7]).unwrap();
    told.metrics().assert_grown_since(&before, &[("des_shard_corruption_total", &[])]);
}

/// Garbles all that the cache on disk holds.
fn garble(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            garble(&path);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            for byte in &mut bytes {
                *byte ^= 0x55;
            }
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn health_and_readiness_tell_an_outage_from_the_end() {
    let (place, directory) = (s3_server().place(), scratch());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add("20240301", "only", "content");
    run(place.program("des-pack").arg("--input-json").arg(corpus.manifest("all"))).success();
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let (point, port) = (mount_point(), free_port());
    let mount = Mount::guard(point.path());
    let options = format!("{},ttl=0,deadline=2s", place.through(&proxy.endpoint()).options());
    let mut daemon = desfs();
    daemon.arg(&place.uri).arg(point.path()).args(["--http", &port.to_string(), "-o", &options]);
    run_within(Duration::from_secs(30), &mut daemon).success();
    let is_good = |path: &str| ask_http(port, path).starts_with("HTTP/1.1 200");
    assert!(is_good("/health") && is_good("/ready"));

    proxy.follow(Script { rules: vec![Rule::always(Fault::Close)], ..Script::default() });
    let file = mount.file("20240301", "only");
    eventually(Duration::from_secs(30), "the store is left alone", || {
        assert!(fs::metadata(&file).is_err());
        ask_http(port, "/ready").starts_with("HTTP/1.1 503")
    });
    assert!(is_good("/health"), "it would not help to start the mount again");

    proxy.follow(Script::default());
    eventually(Duration::from_secs(30), "the store is back", || fs::metadata(&file).is_ok());
    assert!(is_good("/ready"));
}
