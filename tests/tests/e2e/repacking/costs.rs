//! What deleting costs over a bucket that is far: writes are counted, times are told.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use des_tests::{ChaosProxy, Corpus, Kind, Mount, S3Place, Script, command, run, s3_server, scratch};
use desfmt::ObjectKey;
use desstore::{ObjectStore, Payload};
use tempfile::TempDir;

use super::stage::amount;

/// How long every answer takes, in addition.
const LATENCY: Duration = Duration::from_millis(20);

/// `DES_DELETED_FILES=10000` deletes as many.
fn files() -> usize {
    amount("DES_DELETED_FILES", 600)
}

/// An archive behind a slow proxy that counts.
struct Far {
    place: S3Place,
    proxy: ChaosProxy,
    directory: TempDir,
}

impl Far {
    fn packed(count: usize, bits: &str) -> Self {
        let (place, directory) = (s3_server().place(), scratch());
        let mut corpus = Corpus::new(&directory.path().join("source"));
        for number in 0..count {
            corpus.add("20240301", &format!("INV-{number:06}"), format!("invoice {number}"));
        }
        let mut pack = place.program("des-pack");
        run(pack.arg("--input-json").arg(corpus.manifest("all")).args(["--n-bits", bits])).success();
        let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
        Self { place: place.through(&proxy.endpoint()), proxy, directory }
    }

    fn mount(&self, more: &str) -> Mount {
        Mount::new(Path::new(&self.place.uri), &format!("{}{more}", self.place.options()))
    }

    /// Counts what is asked for from now on, and lets every answer be late.
    fn count(&self) {
        self.proxy.follow(Script { latency: LATENCY, ..Script::default() });
        self.proxy.take_seen();
    }

    /// How many objects were written since; nothing else may have been changed.
    #[track_caller]
    fn writes(&self) -> usize {
        let counts: BTreeMap<Kind, usize> = self.proxy.take_counts();
        let changes = [Kind::Delete, Kind::DeleteMany, Kind::CreateUpload, Kind::Part];
        assert!(changes.iter().all(|kind| !counts.contains_key(kind)), "{counts:?}");
        counts.get(&Kind::Put).copied().unwrap_or_default()
    }

    /// How long one write takes here, on average.
    fn write_time(&self) -> Duration {
        const WRITES: u32 = 50;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = self.place.store().await;
            let write = async |number: u32| {
                let key = ObjectKey::new(&format!("yardstick-{number}")).unwrap();
                store
                    .put_if_absent(&key, Payload::Bytes("a record of some hundred bytes".repeat(10).into()))
                    .await
                    .unwrap();
            };
            write(WRITES).await;
            let began = Instant::now();
            for number in 0..WRITES {
                write(number).await;
            }
            began.elapsed() / WRITES
        })
    }
}

#[test]
fn rm_r_costs_one_write_a_file() {
    let far = Far::packed(files(), "2");
    let mount = far.mount("");
    let day = mount.path().join("20240301");
    assert_eq!(fs::read_dir(&day).unwrap().count(), files());
    far.count();
    let write = far.write_time();
    far.proxy.take_seen();

    let began = Instant::now();
    run(command("rm").arg("-r").arg(&day)).success();
    let took = began.elapsed();

    assert_eq!(far.writes(), files());
    let each = took / u32::try_from(files()).unwrap();
    println!(
        "rm -r: {} files in {took:?}, {each:?} each; one write alone takes {write:?}: {:.2} of its rate",
        files(),
        write.as_secs_f64() / each.as_secs_f64()
    );
}

#[test]
fn a_journal_makes_one_write_of_at_least_a_hundred_deletions() {
    let count = files() * 5;
    let far = Far::packed(count, "0");
    let journal = far.directory.path().join("journal");
    let mount = far.mount(&format!(",unlink=journal,journal={}", journal.display()));
    let day = mount.path().join("20240301");
    let names: Vec<_> = fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().path()).collect();
    far.count();

    let began = Instant::now();
    for name in &names {
        fs::remove_file(name).unwrap();
    }
    let took = began.elapsed();
    File::open(&day).unwrap().sync_all().unwrap();

    let writes = far.writes();
    println!("unlink=journal: {count} files in {took:?}, {writes} writes");
    assert!(writes * 100 <= count, "{writes} writes for {count} deletions");
}

#[test]
fn an_order_costs_one_write_for_each_thousand_of_a_group() {
    let count = 2_500;
    let far = Far::packed(count, "0");
    let order = far.directory.path().join("order");
    let lines: Vec<_> = (0..count).map(|number| format!("INV-{number:06} 20240301")).collect();
    fs::write(&order, lines.join("\n")).unwrap();
    far.count();

    let began = Instant::now();
    run(far.place.program("des-tombstones").args(["add", "--yes", "--from-file"]).arg(&order)).success();
    let took = began.elapsed();

    assert_eq!(far.writes(), 3);
    println!("des-tombstones add --from-file: {count} files in {took:?}, 3 writes");
}
