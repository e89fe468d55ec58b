//! What a bucket denies, and what lies in one that is no archive: one clear line, the right error, and work goes on when
//! the trouble is over.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use des_tests::{
    ChaosProxy, Corpus, Fault, Kind, Mount, Outcome, Rule, S3Place, Script, TlsFront, command, contents, eventually,
    mount_point, mounts_on, run, run_within, s3_server, scratch,
};
use desfmt::ObjectKey;
use desstore::{Depth, ObjectStore, Payload, Randomness, SeededRandom};
use tempfile::TempDir;

const DAY: &str = "20240301";
const SOON: Duration = Duration::from_mins(1);

/// An archive of one small file in a bucket.
struct Small {
    place: S3Place,
    corpus: Corpus,
    directory: TempDir,
}

impl Small {
    fn packed() -> Self {
        let (place, directory) = (s3_server().place(), scratch());
        let mut corpus = Corpus::new(&directory.path().join("source"));
        corpus.add(DAY, "only", "content");
        let small = Self { place, corpus, directory };
        run(&mut small.pack(&small.place)).success();
        small
    }

    fn pack(&self, place: &S3Place) -> Command {
        let mut pack = place.program("des-pack");
        pack.arg("--input-json").arg(self.corpus.manifest("all"));
        pack
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Replaces an object, or takes it away.
    fn replace(&self, key: &str, content: Option<&str>) {
        let key = ObjectKey::new(key).unwrap();
        runtime().block_on(async {
            let store = self.place.store().await;
            match content {
                Some(content) => drop(store.put(&key, Payload::Bytes(content.to_owned().into())).await.unwrap()),
                None => store.delete(&key).await.unwrap(),
            }
        });
    }

    fn text_of(&self, key: &str) -> String {
        let key = ObjectKey::new(key).unwrap();
        let fetched = runtime().block_on(async { self.place.store().await.get(&key, 1 << 20).await.unwrap() });
        String::from_utf8(fetched.bytes.to_vec()).unwrap()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// What mounting says when it must not succeed.
fn refusal(uri: &str, options: &str) -> String {
    let point = mount_point();
    let outcome = run_within(SOON, &mut Mount::command(Path::new(uri), point.path(), options));
    assert_ne!(outcome.code(), 0, "{uri} {options}");
    outcome.one_line_of_reason().to_owned()
}

fn always(fault: Fault) -> Script {
    Script { rules: vec![Rule::always(fault)], ..Script::default() }
}

#[test]
fn packing_tells_each_way_of_not_reaching_a_bucket_in_one_line() {
    let (server, small) = (s3_server(), Small::packed());
    let closed = format!("http://127.0.0.1:{}", des_tests::free_port());
    let tls = TlsFront::start(server.endpoint(), small.directory.path());
    let missing = format!("s3://no-such-bucket-{}", std::process::id());
    let (uri, endpoint, manifest) = (small.place.uri.as_str(), server.endpoint(), small.corpus.manifest("again"));
    let pack = |uri: &str, endpoint: &str, more: &[&str]| -> Outcome {
        let mut pack = command("des-pack");
        pack.args(["--archive", uri, "--endpoint", endpoint, "--store-option", "retry_attempts=2"]);
        pack.arg("--credentials-file").arg(server.credentials()).arg("--input-json").arg(&manifest).args(more);
        run_within(SOON, &mut pack)
    };
    for (uri, endpoint, more, reason) in [
        (missing.as_str(), endpoint, &[][..], "has no bucket"),
        (uri, endpoint, &["--profile", "stranger"], "does not know these credentials"),
        (uri, endpoint, &["--profile", "mistyped"], "secret key is not the right one"),
        (uri, endpoint, &["--profile", "nobody"], "do not allow s3:"),
        (uri, endpoint, &["--profile", "reader"], "do not allow s3:PutObject"),
        (uri, endpoint, &["--profile", "absent"], "no credentials were found"),
        (uri, &closed, &[], "cannot be reached"),
        (uri, "http://192.0.2.1", &[], "insecure"),
        (uri, endpoint, &["--ca-file", "/nonexistent"], "ca_file /nonexistent"),
        (uri, &tls.endpoint(), &[], "is not trusted"),
    ] {
        let outcome = pack(uri, endpoint, more).exits(1);
        assert!(outcome.one_line_of_reason().contains(reason), "{more:?}: {}", outcome.stderr);
    }
    pack(uri, &tls.endpoint(), &["--ca-file", tls.authority().to_str().unwrap()]).success();
}

#[test]
fn a_prefix_that_may_not_be_written_to_stops_packing_in_words_and_is_packed_later() {
    let small = Small::packed();
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let through = small.place.through(&proxy.endpoint());
    let mut more = Corpus::new(&small.directory.path().join("more"));
    more.add("20240302", "second", "more content");
    let pack = || {
        let mut pack = through.program("des-pack");
        run(pack.arg("--input-json").arg(more.manifest("more")))
    };
    for prefix in ["/shards/", "/manifests/"] {
        let rule = Rule::always(Fault::Status(403, None)).on(&[Kind::Put]).at(prefix);
        proxy.follow(Script { rules: vec![rule], ..Script::default() });

        let denied = pack().exits(1);
        assert!(denied.stderr.contains("the credentials do not allow s3:PutObject"), "{prefix}: {}", denied.stderr);
    }

    proxy.follow(Script::default());
    pack().success();

    let mount = Mount::new(Path::new(&small.place.uri), &small.place.options());
    assert_eq!(contents(mount.path()).len(), 2);
}

#[test]
fn another_region_is_named_and_reached_once_it_is_said() {
    let small = Small::packed();
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let rule = Rule::always(Fault::OtherRegion("eu-central-1")).signed("/us-east-1/");
    proxy.follow(Script { rules: vec![rule], ..Script::default() });
    let through = small.place.through(&proxy.endpoint());
    let remedy = "lies in region eu-central-1; say region=eu-central-1";

    let refused = refusal(&small.place.uri, &through.options());
    assert!(refused.contains(remedy), "{refused}");
    let packed = run(&mut small.pack(&through)).exits(1);
    assert!(packed.one_line_of_reason().contains(remedy), "{}", packed.stderr);

    run(small.pack(&through).args(["--region", "eu-central-1"])).success();
    let mount = Mount::new(Path::new(&small.place.uri), &format!("{},region=eu-central-1", through.options()));
    assert_eq!(fs::read(mount.file(DAY, "only")).unwrap(), b"content");
}

#[test]
fn keys_that_expire_are_told_and_those_that_replace_them_are_used_by_the_same_mount() {
    let small = Small::packed();
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let credentials = small.directory.path().join("credentials");
    let keys = |key: &str, secret: &str| {
        let beside = small.directory.path().join("credentials.new");
        fs::write(&beside, format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"))
            .unwrap();
        fs::rename(beside, &credentials).unwrap();
    };
    keys("testkey", "testsecret123");
    let options = format!(
        "endpoint={},credentials_file={},ttl=0,deadline=2s,log={}",
        proxy.endpoint(),
        credentials.display(),
        small.log().display()
    );
    let mount = Mount::new(Path::new(&small.place.uri), &options);
    let (file, daemon) = (mount.file(DAY, "only"), mount.daemon());
    assert_eq!(fs::read(&file).unwrap(), b"content");

    let rule = Rule::always(Fault::Status(400, None)).signed("testkey/");
    proxy.follow(Script { rules: vec![rule], ..Script::default() });
    assert_eq!(fs::metadata(&file).unwrap_err().raw_os_error(), Some(5));
    let logged = fs::read_to_string(small.log()).unwrap();
    assert!(logged.contains("the credentials have expired; renew them"), "{logged}");
    let packed = run(&mut small.pack(&small.place.through(&proxy.endpoint()))).exits(1);
    assert!(packed.one_line_of_reason().contains("the credentials have expired"), "{}", packed.stderr);

    keys("readkey", "readsecret123");
    eventually(SOON, "the mount reads its new keys", || fs::metadata(&file).is_ok());
    assert_eq!((fs::read(&file).unwrap(), mount.daemon()), (b"content".to_vec(), daemon));
}

#[test]
fn a_server_that_is_away_is_told_and_used_again_when_it_is_back() {
    let small = Small::packed();
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let address: SocketAddr = proxy.endpoint().trim_start_matches("http://").parse().unwrap();
    let back = || ChaosProxy::start_at(address, s3_server().endpoint(), Script::default());
    let through = small.place.through(&proxy.endpoint());
    let options = format!("{},ttl=0,deadline=2s", through.options());
    drop(proxy);

    let refused = refusal(&small.place.uri, &options);
    assert!(refused.contains("cannot be reached"), "{refused}");

    let proxy = back();
    let mount = Mount::new(Path::new(&small.place.uri), &options);
    let (file, daemon) = (mount.file(DAY, "only"), mount.daemon());
    assert_eq!(fs::read(&file).unwrap(), b"content");

    drop(proxy);
    assert_eq!(fs::metadata(&file).unwrap_err().raw_os_error(), Some(5));
    let packed = run(small.pack(&through).args(["--store-option", "retry_attempts=2"])).exits(1);
    assert!(packed.one_line_of_reason().contains("cannot be reached"), "{}", packed.stderr);

    let _proxy = back();
    eventually(SOON, "the server is used again", || fs::metadata(&file).is_ok());
    assert_eq!((fs::read(&file).unwrap(), mount.daemon()), (b"content".to_vec(), daemon));
    run(&mut small.pack(&through)).success();
}

#[test]
fn what_is_no_archive_of_this_version_is_refused_in_words_by_mounting_and_packing() {
    let small = Small::packed();
    let identity = small.text_of("des.json");
    let other_bits = run(small.pack(&small.place).args(["--n-bits", "5"])).exits(1);
    let reason = "n_bits 4, which never changes; 5 was asked for";
    assert!(other_bits.one_line_of_reason().contains(reason), "{}", other_bits.stderr);

    for (content, mounting, packing) in [
        (Some(identity.replace("\"version\":1", "\"version\":9")), "version 9", "version 9"),
        (Some(r#"{"name": "a web page"}"#.to_owned()), "des.json", "des.json"),
        (Some("<html>not found</html>".to_owned()), "des.json", "des.json"),
        (Some(String::new()), "des.json", "des.json"),
        (None, "has lost its des.json; restore it", "an archive that has lost its identity"),
    ] {
        small.replace("des.json", content.as_deref());

        let refused = refusal(&small.place.uri, &small.place.options());
        assert!(refused.contains(mounting), "{content:?}: {refused}");
        let packed = run(&mut small.pack(&small.place)).exits(1);
        assert!(packed.one_line_of_reason().contains(packing), "{content:?}: {}", packed.stderr);
    }

    small.replace("des.json", Some(&identity));
    let mount = Mount::new(Path::new(&small.place.uri), &small.place.options());
    assert_eq!(fs::read(mount.file(DAY, "only")).unwrap(), b"content");
}

#[test]
fn ranges_for_other_buckets_than_the_archive_has_are_refused_in_words() {
    let small = Small::packed();
    let config = small.directory.path().join("archive.yaml");
    let text = format!(
        "n_bits: 5\nzones:\n- name: a\n  archive: {}\n  range: {{start: 0, end: 31}}\n  store: {{endpoint: \"{}\", credentials_file: \"{}\"}}\n",
        small.place.uri,
        s3_server().endpoint(),
        s3_server().credentials().display()
    );
    fs::write(&config, text).unwrap();

    let refused = refusal(config.to_str().unwrap(), "");

    assert!(refused.contains("n_bits = 5, but the archive has 4"), "{refused}");
}

#[test]
fn a_shard_of_another_archive_is_an_error_and_never_its_content() {
    let (small, other) = (Small::packed(), Small::packed());
    let shard_of = |of: &Small| {
        runtime().block_on(async {
            let store = of.place.store().await;
            let page = store.list("shards/", Depth::Recursive, None).await.unwrap();
            assert_eq!(page.objects.len(), 1);
            let key = page.objects[0].key.clone();
            let bytes = store.get(&key, 1 << 20).await.unwrap().bytes;
            (key, bytes)
        })
    };
    let ((key, _), (foreign, bytes)) = (shard_of(&small), shard_of(&other));
    assert_eq!(key, foreign, "they are called alike");
    runtime().block_on(async { small.place.store().await.put(&key, Payload::Bytes(bytes)).await.unwrap() });

    let options = format!("{},log={}", small.place.options(), small.log().display());
    let mount = Mount::new(Path::new(&small.place.uri), &options);

    assert_eq!(fs::read(mount.file(DAY, "only")).unwrap_err().raw_os_error(), Some(5));
    let logged = fs::read_to_string(small.log()).unwrap();
    assert!(logged.contains(key.as_str()), "{logged}");
}

#[test]
fn a_mount_finds_its_archive_by_the_environment_as_packing_does() {
    let small = Small::packed();
    let prefix = small.place.uri.trim_start_matches("s3://des-tests/");
    let (endpoint, credentials) = (s3_server().endpoint(), s3_server().credentials());
    for variables in [
        &[("DES_ARCHIVE", small.place.uri.as_str()), ("DES_ENDPOINT", endpoint)][..],
        &[
            ("DES_BACKEND", "s3"),
            ("DES_S3_BUCKET", "des-tests"),
            ("DES_S3_PREFIX", prefix),
            ("DES_S3_ENDPOINT_URL", endpoint),
        ],
    ] {
        let point = mount_point();
        let mount = Mount::guard(point.path());
        let with = |program: &str| {
            let mut program = command(program);
            program.envs(variables.iter().copied()).env("AWS_SHARED_CREDENTIALS_FILE", credentials);
            program
        };

        run(with("des-pack").arg("--input-json").arg(small.corpus.manifest("again"))).success();
        run_within(SOON, with("desfs").arg(point.path())).success();

        assert_eq!(fs::read(mount.file(DAY, "only")).unwrap(), b"content");
        assert_eq!(mounts_on(point.path()), [("fuse.desfs".to_owned(), small.place.uri.clone())]);
        run(with("desfs").arg("check")).success();
    }
}

/// The headers of a write that say how it is to be kept.
fn dress(seen: &des_tests::Seen) -> [Option<&str>; 3] {
    let names = ["storage-class", "server-side-encryption", "server-side-encryption-aws-kms-key-id"];
    names.map(|name| seen.asked.header(&format!("x-amz-{name}")))
}

#[test]
fn storage_class_and_encryption_are_asked_for_with_every_write() {
    let (place, directory) = (s3_server().place(), scratch());
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let through = place.through(&proxy.endpoint());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add(DAY, "small", "content");
    for number in 0..12_u64 {
        let mut bytes = vec![0; 1 << 20];
        SeededRandom::new(number).fill(&mut bytes);
        corpus.add("20240302", &format!("scan-{number}"), bytes);
    }
    let manifest = corpus.manifest("all");
    let mut pack = through.program("des-pack");
    pack.arg("--input-json").arg(&manifest).args(["--n-bits", "0", "--store-option", "part_size=5M"]);
    run(pack.args(["--storage-class", "STANDARD_IA", "--sse", "AES256"])).success();
    let options = format!("{},storage_class=STANDARD_IA,sse=AES256", through.options());
    let mount = Mount::new(Path::new(&place.uri), &options);
    fs::remove_file(mount.file(DAY, "small")).unwrap();

    let seen = proxy.take_seen();
    let writes: Vec<_> = seen.iter().filter(|seen| matches!(seen.asked.kind, Kind::Put | Kind::CreateUpload)).collect();
    for write in &writes {
        let class = write.asked.path.contains("/shards/").then_some("STANDARD_IA");
        assert_eq!(dress(write), [class, Some("AES256"), None], "{} {:?}", write.asked.path, write.asked.kind);
    }
    for what in ["/shards/20240301/", "/shards/20240302/", "/manifests/", "/tombstones/", "/des.json"] {
        assert!(writes.iter().any(|write| write.asked.path.contains(what)), "{what} was written");
    }
    assert!(writes.iter().any(|write| write.asked.kind == Kind::CreateUpload));
}

#[test]
fn a_key_of_the_key_service_is_named_with_every_write() {
    let (place, directory) = (s3_server().place(), scratch());
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add(DAY, "small", "content");
    let mut pack = place.through(&proxy.endpoint()).program("des-pack");
    pack.arg("--input-json").arg(corpus.manifest("all")).args(["--sse", "aws:kms", "--sse-kms-key", "alias/des"]);

    // The server has no key service; it is asked in any case.
    let _outcome = run_within(SOON, &mut pack);

    let seen = proxy.take_seen();
    let writes: Vec<_> = seen.iter().filter(|seen| seen.asked.kind == Kind::Put).collect();
    assert!(!writes.is_empty());
    for write in writes {
        assert_eq!(dress(write), [None, Some("aws:kms"), Some("alias/des")], "{}", write.asked.path);
    }
}

#[test]
fn a_store_that_is_away_for_good_ends_packing_and_nothing_is_lost() {
    let small = Small::packed();
    let proxy = ChaosProxy::start(s3_server().endpoint(), always(Fault::Status(503, None)));
    let through = small.place.through(&proxy.endpoint());

    let packed = run_within(Duration::from_mins(2), small.pack(&through).args(["--store-option", "retry_deadline=3s"]));

    let packed = packed.exits(1);
    assert!(packed.one_line_of_reason().contains("asks for fewer requests"), "{}", packed.stderr);
    let mount = Mount::new(Path::new(&small.place.uri), &small.place.options());
    assert_eq!(fs::read(mount.file(DAY, "only")).unwrap(), b"content");
}
