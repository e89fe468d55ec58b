//! One archive in two zones, each on an S3 server of its own, one of which dies while the archive is read, deleted from and
//! packed into.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use des_tests::{
    Corpus, Metrics, Mount, Outcome, S3Server, SourceFile, command, desfs, eventually, free_port, mount_point, run,
    scratch,
};
use desstore::{Randomness, S3Store, SeededRandom};
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

/// What any change may take to show itself on a busy machine. The times that it should take are in `docs/s3.md`.
const LIMIT: Duration = Duration::from_mins(2);

/// Where the archive lies on both servers.
const PREFIX: &str = "archive";

/// Two servers: the home of the documents, and one that holds copies.
struct Stage {
    home: S3Server,
    copy: S3Server,
    directory: TempDir,
    corpus: Corpus,
}

impl Stage {
    /// Packs an archive. With `share` below 1 the rest of the groups has its home on the server of the copies.
    fn packed(share: f64, fill: impl FnOnce(&mut Corpus)) -> Self {
        let (home, copy, directory) = (S3Server::start(), S3Server::start(), scratch());
        let mut corpus = Corpus::new(&directory.path().join("source"));
        fill(&mut corpus);
        let stage = Self { home, copy, directory, corpus };
        let zone = |name: &str, other: &str, server: &S3Server, range: Option<(f64, f64)>| {
            let range =
                range.map(|(from, to)| format!("range = {{ from = {from}, to = {to} }}\ncopies = [\"{other}\"]\n"));
            format!(
                "[[zones]]\nname = \"{name}\"\narchive = \"s3://{}/{PREFIX}\"\n{}store = {{ endpoint = \"{}\" }}\n\n",
                server.bucket(),
                range.unwrap_or_default(),
                server.endpoint(),
            )
        };
        let text = format!(
            "[store]\ncredentials_file = \"{}\"\n\n{}{}",
            stage.home.credentials().display(),
            zone("home", "copy", &stage.home, Some((0.0, share))),
            zone("copy", "home", &stage.copy, (share < 1.0).then_some((share, 1.0))),
        );
        fs::write(stage.config(), text).unwrap();
        stage.pack(&stage.corpus, "all").success();
        stage
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("archive.toml")
    }

    fn pack(&self, corpus: &Corpus, name: &str) -> Outcome {
        let manifest = corpus.manifest(name);
        let mut pack = command("des-pack");
        pack.arg("--config").arg(self.config()).arg("--input-json").arg(manifest).args(["--n-bits", "4"]);
        run(&mut pack)
    }

    /// Mounts the archive. Little is cached, and names are asked for again each second.
    fn mount(&self) -> (Mount, u16) {
        let (point, port) = (mount_point().keep(), free_port());
        let mount = Mount::guard(&point);
        let mut mounting = desfs();
        mounting.arg(self.config()).arg(&point).args(["-o", "ttl=1s,memory=1M"]).arg("--http").arg(port.to_string());
        run(&mut mounting).success();
        (mount, port)
    }
}

/// What lies on a server.
fn keys(server: &S3Server, part: &str) -> Vec<String> {
    server.place_at(&format!("s3://{}/{PREFIX}", server.bucket())).keys(part)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

/// Reads a file whose pages the kernel has not kept.
fn read_anew(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    fs::read(path)
}

/// Threads that read an archive all the time, and what came of it.
struct Readers {
    ended: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    reads: usize,
    slowest: Duration,
    failures: Vec<String>,
}

impl Readers {
    fn start(mount: &Mount, files: &[SourceFile], count: u64) -> Self {
        let (ended, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Told::default())));
        let files: Arc<[(PathBuf, Vec<u8>)]> =
            files.iter().map(|file| (mount.file(&file.day, &file.uid), file.bytes.clone())).collect();
        let threads = (0..count).map(|number| {
            let (ended, told, files) = (Arc::clone(&ended), Arc::clone(&told), Arc::clone(&files));
            std::thread::spawn(move || {
                let random = SeededRandom::new(number);
                while !ended.load(Ordering::Relaxed) {
                    let (path, bytes) = &files[usize::try_from(random.next()).unwrap_or_default() % files.len()];
                    let began = Instant::now();
                    let read = read_anew(path);
                    let spent = began.elapsed();
                    let mut told = told.lock().unwrap();
                    told.reads += 1;
                    told.slowest = told.slowest.max(spent);
                    match read {
                        Ok(found) if found == *bytes => {}
                        Ok(found) => told.failures.push(format!("{}: {} wrong bytes", path.display(), found.len())),
                        Err(error) => told.failures.push(format!("{}: {error} after {spent:?}", path.display())),
                    }
                    drop(told);
                    // A steady load, and something left of the processor for others.
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        });
        let threads = threads.collect();
        Self { ended, told, threads }
    }

    fn reads(&self) -> usize {
        self.told.lock().unwrap().reads
    }

    /// Waits until so many more files were read.
    fn go_on(&self, more: usize) {
        let before = self.reads();
        eventually(LIMIT, "reads go on", || self.reads() >= before + more);
    }

    fn end(mut self) -> Told {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

fn breaker(port: u16, zone: &str) -> f64 {
    Metrics::of(port).sum("des_circuit_breaker_state", &[&format!("zone=\"{zone}\"")])
}

/// Reads all the time while the home goes down and comes back; there must be no error, and it must be used again. How long what
/// took.
fn read_through(down: fn(&mut S3Server), up: fn(&mut S3Server)) -> String {
    let mut stage = Stage::packed(0.5, |corpus| {
        for number in 0..400 {
            let day = ["20240301", "20240302"][usize::try_from(number % 2).unwrap()];
            corpus.add(day, &format!("scan-{number:03}"), noise(number, 20_000));
        }
    });
    assert_eq!(keys(&stage.home, "debts/"), Vec::<String>::new());
    let (mount, port) = stage.mount();
    let readers = Readers::start(&mount, &stage.corpus.files, 4);
    readers.go_on(200);

    down(&mut stage.home);
    let went = Instant::now();
    eventually(LIMIT, "the breaker opens", || breaker(port, "home") > 0.5);
    let opened = went.elapsed();
    readers.go_on(400);

    let restarted = Instant::now();
    up(&mut stage.home);
    let back = Instant::now();
    eventually(LIMIT, "the breaker closes", || breaker(port, "home") < 0.5);
    let closed = back.elapsed();
    readers.go_on(200);
    let before = Metrics::of(port);
    readers.go_on(200);
    let after = Metrics::of(port);
    let told = readers.end();

    assert_eq!(told.failures, Vec::<String>::new());
    let home = ["zone=\"home\"", "outcome=\"ok\""];
    after.assert_grown_since(&before, &[("des_s3_requests_total", &home)]);
    let started = back.duration_since(restarted);
    let Told { reads, slowest, .. } = told;
    format!(
        "breaker open after {opened:?}; the server took {started:?} to start; closed {closed:?} after that; {reads} reads, \
         the slowest {slowest:?}"
    )
}

#[test]
fn reads_go_on_without_an_error_while_the_primary_zone_is_dead_and_it_is_used_again_when_it_is_back() {
    println!("{}", read_through(S3Server::kill, S3Server::restart));
}

#[test]
fn reads_go_on_without_an_error_while_the_primary_zone_answers_nothing() {
    println!("{}", read_through(S3Server::freeze, S3Server::thaw));
}

#[test]
fn what_a_dead_zone_misses_is_owed_to_it_never_shown_and_made_up_for() {
    let mut stage = Stage::packed(1.0, |corpus| {
        for number in 0..40 {
            let day = ["20240301", "20240302"][usize::try_from(number % 2).unwrap()];
            corpus.add(day, &format!("scan-{number:03}"), noise(number, 5_000));
        }
    });
    let (mount, _) = stage.mount();
    let (gone, other) = (stage.corpus.files[0].clone(), stage.corpus.files[1].clone());
    let (path, other_path) = (mount.file(&gone.day, &gone.uid), mount.file(&other.day, &other.uid));
    assert_eq!(fs::read(&path).unwrap(), gone.bytes);

    // The copy misses a deletion.
    stage.copy.kill();
    fs::remove_file(&path).unwrap();
    assert!(!path.try_exists().unwrap());
    assert_eq!(keys(&stage.home, "debts/copy/20240301/").len(), 1);
    stage.copy.restart();

    // Now it alone can be asked, and it has never heard of the deletion.
    stage.home.kill();
    let fresh = stage.mount().0;
    for _ in 0..20 {
        assert!(fs::read(&path).is_err(), "a deleted file is back");
        assert!(fs::read(fresh.file(&gone.day, &gone.uid)).is_err(), "a deleted file is back in another mount");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(fs::read(&other_path).unwrap(), other.bytes, "of another day the copy has missed nothing");
    stage.home.restart();
    eventually(LIMIT, "the home is asked again", || fs::metadata(mount.file(&gone.day, "scan-002")).is_ok());
    assert!(!path.try_exists().unwrap());

    // It misses a whole run of the packer.
    stage.copy.kill();
    let mut more = Corpus::new(&stage.directory.path().join("more"));
    for number in 100..120 {
        more.add("20240303", &format!("scan-{number:03}"), noise(number, 5_000));
    }
    let packed = stage.pack(&more, "more").success();
    assert!(packed.stderr.contains("could not be paid") && packed.stderr.contains("zone copy"), "{}", packed.stderr);
    let owed = keys(&stage.home, "debts/").len();
    assert!(owed > 2, "{owed}");

    // A run with nothing to do pays for all of it.
    stage.copy.restart();
    let again = stage.pack(&more, "more").success();
    assert!(again.stderr.contains(&format!("paid {owed} debts of zones")), "{}", again.stderr);
    for part in ["des.json", "manifests/", "shards/", "tombstones/"] {
        assert_eq!(keys(&stage.home, part), keys(&stage.copy, part), "{part}");
        assert!(!keys(&stage.copy, part).is_empty(), "{part}");
    }
    assert_eq!(keys(&stage.home, "debts/"), Vec::<String>::new());
    drop(fresh);

    // So a program that opens the archive now can do without the home.
    let (mount, _) = stage.mount();
    stage.home.kill();
    for file in more.files.iter().chain(&stage.corpus.files[1..]) {
        assert_eq!(fs::read(mount.file(&file.day, &file.uid)).unwrap(), file.bytes, "{}", file.uid);
    }
    assert!(!mount.file(&gone.day, &gone.uid).try_exists().unwrap());
}

/// Counts the unfinished uploads of the archive on a server.
struct Uploads {
    store: S3Store,
    runtime: tokio::runtime::Runtime,
}

impl Uploads {
    fn on(server: &S3Server) -> Self {
        let place = server.place_at(&format!("s3://{}/{PREFIX}", server.bucket()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { store: runtime.block_on(place.store()), runtime }
    }

    fn count(&self) -> usize {
        self.runtime.block_on(self.store.uploads_below("")).unwrap()
    }
}

#[test]
fn what_a_killed_packer_had_begun_to_upload_is_taken_back_in_every_zone() {
    let stage = Stage::packed(0.5, |corpus| {
        corpus.add("20240301", "first", "the archive is there");
    });
    let mut large = Corpus::new(&stage.directory.path().join("large"));
    for number in 0..8 {
        large.add("20240302", &format!("scan-{number}"), noise(number, 24 << 20));
    }
    let servers = [Uploads::on(&stage.home), Uploads::on(&stage.copy)];
    for server in &servers {
        die_while_uploading(&stage, &large, server);
    }

    stage.pack(&large, "large").success();

    assert_eq!(servers.map(|server| server.count()), [0, 0]);
    let (mount, _) = stage.mount();
    for file in &large.files {
        assert!(fs::read(mount.file(&file.day, &file.uid)).unwrap() == file.bytes, "{}", file.uid);
    }
}

/// Kills a packer that has begun to upload to a server.
fn die_while_uploading(stage: &Stage, large: &Corpus, server: &Uploads) {
    eventually(LIMIT, "a packer that dies amid an upload", || {
        let mut pack = command("des-pack");
        pack.arg("--config").arg(stage.config()).arg("--input-json").arg(large.manifest("large"));
        let mut packing = pack.args(["--codec", "none"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while packing.try_wait().unwrap().is_none() && server.count() == 0 {}
        packing.kill().unwrap();
        packing.wait().unwrap();
        server.count() > 0
    });
}
