//! Each way in which a server or a network can lie or fail, by itself: it is noticed, made good where that is possible, and
//! never passes for content.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use des_tests::{
    ChaosProxy, Corpus, Fault, Kind, Mount, Rule, S3Place, Script, Seen, desfs, eventually, run, s3_server, scratch,
};
use desstore::{Randomness, SeededRandom};
use tempfile::TempDir;

const DAY: &str = "20240301";

/// An archive in a bucket, reached through a proxy.
struct Stage {
    place: S3Place,
    proxy: ChaosProxy,
    corpus: Corpus,
    _directory: TempDir,
}

impl Stage {
    /// An archive of files that are a frame and so a request each.
    fn packed(files: u64) -> Self {
        let stage = Self::new(files);
        stage.pack(&stage.place, "all");
        stage
    }

    fn new(files: u64) -> Self {
        let (place, directory) = (s3_server().place(), scratch());
        let mut corpus = Corpus::new(&directory.path().join("source"));
        for number in 0..files {
            let mut bytes = vec![0; 20_000];
            SeededRandom::new(number).fill(&mut bytes);
            corpus.add(DAY, &format!("scan-{number:03}"), bytes);
        }
        let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
        Self { place, proxy, corpus, _directory: directory }
    }

    fn pack(&self, place: &S3Place, manifest: &str) {
        let manifest = self.corpus.manifest(manifest);
        let mut pack = place.program("des-pack");
        run(pack.arg("--input-json").arg(manifest).args(["--n-bits", "0", "--store-option", "part_size=5M"])).success();
    }

    fn through(&self) -> S3Place {
        self.place.through(&self.proxy.endpoint())
    }

    fn mount(&self, options: &str) -> Mount {
        Mount::new(Path::new(&self.place.uri), &format!("{},{options}", self.through().options()))
    }

    fn follow(&self, rules: &[Rule]) {
        self.proxy.follow(Script { rules: rules.to_vec(), ..Script::default() });
        self.proxy.take_seen();
    }

    /// Asserts that the archive is sound, with all files in one live shard each.
    fn assert_sound(&self) {
        let checked = run(desfs().args(["check", &self.place.uri, "-o", &self.place.options()])).success();
        let summary = checked.stdout.lines().last().unwrap().to_owned();
        let files = format!(" {} files", self.corpus.files.len());
        assert!(summary.contains("sound") && summary.contains(&files), "{summary}");
    }
}

/// The requests that something was done to.
fn struck(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|one| one.fault.is_some()).collect()
}

/// What can happen to the content of an answer.
fn faults_of_content() -> [Fault; 6] {
    [
        Fault::FlipByte,
        Fault::ShortBody,
        Fault::WrongContentRange,
        Fault::WholeForRange,
        Fault::CloseInBody,
        Fault::Stall(Duration::from_mins(1)),
    ]
}

#[test]
fn an_answer_that_is_wrong_once_is_asked_for_again() {
    let stage = Stage::packed(12);
    let mount = stage.mount("stall_timeout=1s");
    let others =
        [Fault::Delay(Duration::from_millis(300)), Fault::Status(500, None), Fault::Status(503, None), Fault::Close];
    // Backwards, since for who walks forwards there would be other requests.
    for (fault, file) in faults_of_content().into_iter().chain(others).zip(stage.corpus.files.iter().rev()) {
        assert!(mount.file(DAY, &file.uid).try_exists().unwrap());
        stage.follow(&[Rule::always(fault.clone()).on(&[Kind::GetRange]).times(1)]);

        let read = fs::read(mount.file(DAY, &file.uid)).unwrap();

        assert_eq!(read, file.bytes, "{fault:?}");
        let seen = stage.proxy.take_seen();
        assert_eq!(struck(&seen).len(), 1, "{fault:?}: {seen:?}");
        let is_good_as_it_is = matches!(fault, Fault::Delay(_));
        assert!(seen.len() > 1 || is_good_as_it_is, "{fault:?}: {seen:?}");
    }
}

#[test]
fn an_index_that_arrives_wrong_once_is_asked_for_again() {
    for fault in faults_of_content() {
        let stage = Stage::packed(2);
        let mount = stage.mount("stall_timeout=1s");
        let rule = |kinds: &[Kind], holds: &str| Rule::always(fault.clone()).on(kinds).at(holds).times(1);
        stage.follow(&[rule(&[Kind::Get], "/manifests/"), rule(&[Kind::GetRange], "/shards/")]);

        let found = fs::read(mount.file(DAY, "scan-001")).unwrap();

        assert_eq!(found, stage.corpus.files[1].bytes, "{fault:?}");
        assert_eq!(struck(&stage.proxy.take_seen()).len(), 2, "{fault:?}");
    }
}

#[test]
fn an_answer_that_is_wrong_each_time_is_an_error_and_never_content() {
    let stage = Stage::packed(8);
    let mount = stage.mount("stall_timeout=1s,deadline=3s,breaker_recovery=1s");
    assert_eq!(fs::read(mount.file(DAY, "scan-007")).unwrap(), stage.corpus.files[7].bytes);
    for (fault, file) in faults_of_content().into_iter().zip(stage.corpus.files.iter().rev().skip(1)) {
        let path = mount.file(DAY, &file.uid);
        stage.follow(&[Rule::always(fault.clone()).on(&[Kind::GetRange])]);

        let refused = fs::read(&path).unwrap_err();

        assert_eq!(refused.raw_os_error(), Some(5), "{fault:?}: {refused}");
        assert!(!struck(&stage.proxy.take_seen()).is_empty(), "{fault:?}");
        stage.follow(&[]);
        eventually(Duration::from_secs(30), "it is read when the server is well", || {
            fs::read(&path).is_ok_and(|read| read == file.bytes)
        });
    }
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let stage = Stage::packed(4);
    // Without being asked nobody waits.
    let mount = stage.mount("retry_base=1ms");
    assert_eq!(fs::read(mount.file(DAY, "scan-003")).unwrap(), stage.corpus.files[3].bytes);
    for (status, file) in [429, 503].into_iter().zip(stage.corpus.files.iter().rev().skip(1)) {
        stage.follow(&[Rule::always(Fault::Status(status, Some(1))).on(&[Kind::GetRange]).times(2)]);
        let began = Instant::now();

        let read = fs::read(mount.file(DAY, &file.uid)).unwrap();

        assert_eq!(read, file.bytes);
        assert!(began.elapsed() >= Duration::from_secs(2), "{status}: after {:?}", began.elapsed());
        assert_eq!(struck(&stage.proxy.take_seen()).len(), 2, "{status}");
    }
}

#[test]
fn a_manifest_from_the_past_is_not_believed() {
    let mut stage = Stage::packed(3);
    let mount = stage.mount("ttl=1s");
    assert!(mount.file(DAY, "scan-000").try_exists().unwrap());
    stage.corpus.add(DAY, "later", "later");
    stage.pack(&stage.place, "later");
    let later = mount.file(DAY, "later");
    eventually(Duration::from_secs(30), "the new file is seen", || later.try_exists().unwrap());

    // A server behind the others answers from now on.
    stage.follow(&[Rule::always(Fault::Stale).at("/manifests/")]);
    let mut refused = 0;
    for _ in 0..30 {
        match fs::metadata(&later) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "a file that was seen is said never to have been: {error}");
                refused += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    let seen = stage.proxy.take_seen();
    assert!(!struck(&seen).is_empty() && refused > 0, "{refused} refused: {seen:?}");
    stage.follow(&[]);
    eventually(Duration::from_secs(30), "the newest manifest is believed again", || {
        fs::read(&later).is_ok_and(|read| read == b"later")
    });
}

#[test]
fn writes_whose_answers_are_lost_are_neither_lost_nor_done_twice() {
    let mut stage = Stage::new(20);
    let lose = |kind: Kind, at: &str, times: u64| Rule::always(Fault::LoseAnswer).on(&[kind]).at(at).times(times);
    // The identity, a shard by one request, and its manifest created and replaced.
    let rules = [lose(Kind::Put, "/des.json", 1), lose(Kind::Put, "/shards/", 1), lose(Kind::Put, "/manifests/", 2)];
    stage.follow(&rules);
    stage.pack(&stage.through(), "small");
    let lost_answers = |seen: &[Seen]| seen.iter().filter(|one| one.fault == Some(Fault::LoseAnswer)).count();
    assert_eq!(lost_answers(&stage.proxy.take_seen()), 4);
    stage.assert_sound();

    // A shard in parts: of a part, and of what makes it an object.
    let mut large = vec![0; 12 << 20];
    SeededRandom::new(99).fill(&mut large);
    stage.corpus.add(DAY, "large", large);
    stage.follow(&[lose(Kind::Part, "/shards/", 1), lose(Kind::CompleteUpload, "/shards/", 1)]);
    stage.pack(&stage.through(), "large");
    assert_eq!(lost_answers(&stage.proxy.take_seen()), 2);
    stage.assert_sound();
    assert_eq!(stage.place.keys("shards/").len(), 2);
    stage.corpus.assert_shown_in(stage.mount("").path(), &[]);

    // A deletion.
    let mount = stage.mount("");
    stage.follow(&[lose(Kind::Put, "/tombstones/", 1)]);
    fs::remove_file(mount.file(DAY, "large")).unwrap();
    assert_eq!(lost_answers(&stage.proxy.take_seen()), 1);
    assert_eq!(stage.place.keys("tombstones/").len(), 1);
    stage.corpus.assert_shown_in(stage.mount("").path(), &[(DAY, "large")]);
}
