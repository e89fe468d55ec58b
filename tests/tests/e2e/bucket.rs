//! The archive in a bucket of a real S3 server.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use des_tests::{
    ChaosProxy, Corpus, Fault, Kind, Mount, Rule, S3Place, S3Server, Script, TlsFront, contents, desfs, eventually,
    mount_point, mounts_on, run, run_within, s3_server, scratch, seed, shown_name,
};
use desfmt::ObjectKey;
use desstore::conformance::{self, Traits};
use desstore::{Conditions, Depth, ObjectStore, Payload, Randomness, SeededRandom, SystemRandom};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

#[test]
fn a_bucket_keeps_the_promises_of_a_store() {
    let server: &S3Server = s3_server();
    let scratch = scratch();
    runtime().block_on(async {
        let store = server.place().store().await;
        let count = std::sync::atomic::AtomicU32::new(0);
        let make = || -> Arc<dyn ObjectStore> {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Arc::new(store.below(&format!("check-{number}")))
        };
        conformance::run_with(Traits::BUCKET, make, scratch.path()).await.unwrap();
        assert_eq!(desstore::probe(&store, &SystemRandom).await.unwrap(), Conditions::Honoured);
    });
}

/// What a list of archive objects must be: every file in one live shard, and no upload left half-way.
fn assert_sound(place: &S3Place, files: u64) {
    let checked = run(desfs().args(["check", &place.uri, "-o", &place.options()])).success();
    let summary = checked.stdout.lines().last().unwrap().to_owned();
    assert!(summary.contains("sound") && summary.contains(&format!(" {files} files")), "{summary}");
}

#[test]
fn an_archive_in_a_bucket_is_packed_mounted_read_and_deleted_from_like_a_local_one() {
    let (place, directory) = (s3_server().place(), scratch());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add_random(4, 300);
    let mut large = vec![0; 3 << 20];
    SeededRandom::new(5).fill(&mut large);
    corpus.add("20240302", "large.tiff", large);
    let manifest = corpus.manifest("all");

    run(place.program("des-pack").arg("--input-json").arg(&manifest)).success();
    let again = run(place.program("des-pack").arg("--input-json").arg(&manifest)).success();
    assert_sound(&place, 301);
    let mount = Mount::new(Path::new(&place.uri), &place.options());
    corpus.assert_shown_in(mount.path(), &[]);
    assert_eq!(mounts_on(mount.path()), [("fuse.desfs".to_owned(), place.uri.clone())], "{again:?}");

    let other = Mount::new(Path::new(&place.uri), &format!("{},ttl=1s", place.options()));
    corpus.assert_shown_in(other.path(), &[]);
    let gone = [(corpus.files[0].day.as_str(), corpus.files[0].uid.as_str()), ("20240302", "large.tiff")];
    for (day, uid) in gone {
        fs::remove_file(mount.file(day, uid)).unwrap();
        assert!(!mount.file(day, uid).try_exists().unwrap());
        eventually(Duration::from_secs(10), "the other mount stops showing it", || {
            !other.file(day, uid).try_exists().unwrap()
        });
    }
    corpus.assert_shown_in(other.path(), &gone);
    mount.unmount();
    let mount = Mount::new(Path::new(&place.uri), &place.options());
    corpus.assert_shown_in(mount.path(), &gone);

    let repacked = run(place.program("des-pack").arg("--input-json").arg(&manifest)).exits(1);
    assert!(repacked.stderr.contains("was deleted"), "{repacked:?}");
    let where_it_is =
        ["path", "--archive", &place.uri, "-o", &place.options(), "--", "large.tiff", "2024-03-02T00:00Z"];
    assert_eq!(run(desfs().args(where_it_is)).success().stdout, "20240302/large.tiff\n");
}

#[test]
fn a_shard_above_a_part_is_uploaded_in_parts_and_reads_back() {
    let (place, directory) = (s3_server().place(), scratch());
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    for number in 0..12_u64 {
        let mut bytes = vec![0; 1 << 20];
        SeededRandom::new(number).fill(&mut bytes);
        corpus.add("20240302", &format!("scan-{number}"), bytes);
    }
    let manifest = corpus.manifest("all");
    // One part fails and is sent again, alone.
    proxy.follow(Script {
        rules: vec![Rule::always(Fault::Status(500, None)).on(&[Kind::Part]).times(1)],
        ..Script::default()
    });
    let through = place.through(&proxy.endpoint());
    let mut pack = through.program("des-pack");
    pack.arg("--input-json").arg(manifest).args(["--n-bits", "0", "--store-option", "part_size=5M"]);

    run(&mut pack).success();

    let counts = proxy.take_counts();
    assert_eq!((counts[&Kind::CreateUpload], counts[&Kind::Part], counts[&Kind::CompleteUpload]), (1, 4, 1));
    assert_sound(&place, 12);
    corpus.assert_shown_in(Mount::new(Path::new(&place.uri), &place.options()).path(), &[]);
}

/// `DES_TEST_KILLS` says how many; 10 if it does not.
#[test]
fn packing_that_is_killed_loses_nothing_doubles_nothing_and_leaves_no_upload() {
    let wanted = std::env::var("DES_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let seed = seed();
    let random = SeededRandom::new(seed);
    let (directory, bucket) = (scratch(), s3_server().place());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add_random(seed, 600);
    for number in 0..16_u64 {
        let mut bytes = vec![0; 1 << 20];
        SeededRandom::new(number).fill(&mut bytes);
        corpus.add("20240302", &format!("scan-{number}"), bytes);
    }
    let files = corpus.files.len();
    let manifest = corpus.manifest("kill");
    let spool = directory.path().join("spool");
    let pack = |place: &S3Place| {
        let mut pack = place.program("des-pack");
        pack.arg("--input-json").arg(&manifest).args(["--jobs", "2", "--n-bits", "1"]);
        // Small parts, so that kills come amid uploads.
        pack.args(["--store-option", "part_size=5M", "--spool"]).arg(&spool);
        pack
    };
    let began = Instant::now();
    run(&mut pack(&bucket)).success();
    let whole = began.elapsed();

    let mut kills = 0;
    while kills < wanted {
        let place = s3_server().place();
        for _ in 0..10 {
            let mut packing = pack(&place).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(random.next() % u64::try_from(whole.as_micros()).unwrap()));
            // It may have ended by itself; that is no kill.
            if packing.try_wait().unwrap().is_none() {
                packing.kill().unwrap();
                kills += 1;
            }
            packing.wait().unwrap();
        }

        run(&mut pack(&place)).success();

        assert_sound(&place, u64::try_from(files).unwrap());
        corpus.assert_shown_in(Mount::new(Path::new(&place.uri), &place.options()).path(), &[]);
        runtime().block_on(async {
            assert_eq!(place.store().await.uploads_below("").await.unwrap(), 0, "uploads were left, seed {seed}");
        });
    }
    let left: Vec<_> = fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn each_way_of_not_reaching_a_bucket_is_told_in_one_line() {
    let server = s3_server();
    let place = server.place();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", silent.local_addr().unwrap());
    drop(silent);
    let reach = |endpoint: &str, more: &str| {
        format!("endpoint={endpoint},credentials_file={}{more}", server.credentials().display())
    };
    let endpoint = server.endpoint();
    let missing = format!("s3://no-such-bucket-{}", std::process::id());
    for (uri, options, reason) in [
        (missing.as_str(), reach(endpoint, ""), "has no bucket"),
        (&place.uri, reach(endpoint, ",profile=stranger"), "does not know these credentials"),
        (&place.uri, reach(endpoint, ",profile=mistyped"), "secret key is not the right one"),
        (&place.uri, reach(endpoint, ",profile=nobody"), "do not allow s3:GetObject"),
        (&place.uri, reach(endpoint, ""), "holds neither des.json"),
        (&place.uri, reach(&closed, ",deadline=2s"), "cannot be reached"),
        (&place.uri, reach("http://192.0.2.1", ""), "insecure"),
        (&place.uri, reach(endpoint, ",ca_file=/nonexistent"), "ca_file /nonexistent"),
        (&place.uri, format!("endpoint={endpoint},credentials_file=/nonexistent"), "credentials_file /nonexistent"),
        (&place.uri, reach(endpoint, ",part_size=1"), "part_size"),
    ] {
        let point = mount_point();
        let mounted = run_within(Duration::from_mins(1), &mut Mount::command(Path::new(uri), point.path(), &options));
        assert_ne!(mounted.code(), 0, "{options}");
        assert!(mounted.one_line_of_reason().contains(reason), "{options}: {}", mounted.stderr);
    }
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_and_one_that_is_named_is_taken() {
    let server = s3_server();
    let (place, directory) = (server.place(), scratch());
    run(place.program("des-pack").arg("--input-json").arg(one_file(directory.path()))).success();
    let tls = TlsFront::start(server.endpoint(), directory.path());
    let secure = place.through(&tls.endpoint());

    let point = mount_point();
    let refused =
        run_within(Duration::from_mins(1), &mut Mount::command(Path::new(&place.uri), point.path(), &secure.options()));
    assert_ne!(refused.code(), 0);
    assert!(refused.one_line_of_reason().contains("is not trusted"), "{}", refused.stderr);

    let options = format!("{},ca_file={}", secure.options(), tls.authority().display());
    let mount = Mount::new(Path::new(&place.uri), &options);
    assert_eq!(contents(mount.path()).len(), 1);
}

#[test]
fn a_mount_recovers_when_server_and_credentials_do() {
    let server = s3_server();
    let (place, directory) = (server.place(), scratch());
    run(place.program("des-pack").arg("--input-json").arg(one_file(directory.path()))).success();
    let proxy = ChaosProxy::start(server.endpoint(), Script::default());
    let through = place.through(&proxy.endpoint());
    let mount = Mount::new(Path::new(&place.uri), &format!("{},ttl=0,deadline=2s", through.options()));
    let file = mount.file("20240301", "only");
    assert_eq!(fs::read(&file).unwrap(), b"content");

    for fault in [Fault::Status(503, None), Fault::Status(403, None), Fault::Status(400, None), Fault::Close] {
        proxy.follow(Script { rules: vec![Rule::always(fault.clone())], ..Script::default() });
        let failed = fs::metadata(&file).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(5), "{fault:?}: {failed}");

        proxy.follow(Script::default());
        eventually(Duration::from_secs(30), "the mount recovers", || fs::metadata(&file).is_ok());
        assert_eq!(fs::read(&file).unwrap(), b"content", "{fault:?}");
    }
}

#[test]
fn a_prefix_that_may_not_be_read_is_an_error_and_never_a_missing_file() {
    let server = s3_server();
    let (place, directory) = (server.place(), scratch());
    run(place.program("des-pack").arg("--input-json").arg(one_file(directory.path()))).success();
    let proxy = ChaosProxy::start(server.endpoint(), Script::default());
    let through = place.through(&proxy.endpoint());
    for denied in ["shards%2F", "/shards/", "/manifests/", "tombstones%2F"] {
        proxy.follow(Script { rules: vec![Rule::always(Fault::Status(403, None)).at(denied)], ..Script::default() });
        let log = directory.path().join(format!("log-{}", denied.trim_matches('/')));
        let options = format!("{},deadline=5s,log={}", through.options(), log.display());
        let mount = Mount::new(Path::new(&place.uri), &options);

        let read = fs::read(mount.file("20240301", "only"));

        if denied == "shards%2F" {
            // Only a day without manifest is looked for among the shards.
            assert_eq!(read.unwrap(), b"content");
            assert_eq!(fs::metadata(mount.path().join("19990101")).unwrap_err().raw_os_error(), Some(5));
        } else {
            assert_eq!(read.unwrap_err().raw_os_error(), Some(5), "{denied}");
        }
        let logged = fs::read_to_string(&log).unwrap();
        assert!(logged.contains("the credentials do not allow s3:"), "{denied}: {logged}");
    }
}

fn one_file(directory: &Path) -> std::path::PathBuf {
    let mut corpus = Corpus::new(&directory.join("one"));
    corpus.add("20240301", "only", b"content");
    corpus.manifest("one")
}

#[test]
fn sources_in_buckets_are_packed_like_files() {
    let (place, directory) = (s3_server().place(), scratch());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add_random(8, 40);
    let mut rows = Vec::new();
    runtime().block_on(async {
        let store = place.store().await.below("sources");
        for (number, file) in corpus.files.iter().enumerate() {
            let key = ObjectKey::new(&format!("{number}.bin")).unwrap();
            store.put(&key, Payload::Bytes(file.bytes.clone().into())).await.unwrap();
            let mut row = file.row();
            // Some lie in the bucket, some on disk.
            if number % 4 != 0 {
                row["source_path"] = format!("{}/sources/{key}", place.uri).into();
            }
            rows.push(row);
        }
    });
    let missing = serde_json::json!({"uid": "missing", "created_at": "2024-03-01T00:00:00Z", "size_bytes": 1,
        "source_path": format!("{}/sources/missing", place.uri)});
    rows.push(missing);
    let manifest = directory.path().join("mixed.json");
    fs::write(&manifest, serde_json::to_vec(&rows).unwrap()).unwrap();
    let archive = s3_server().place();
    let mut pack = archive.program("des-pack");
    pack.arg("--input-json").arg(&manifest).args(["--spool-size", "1M", "--spool"]).arg(directory.path().join("spool"));

    let packed = run(&mut pack).exits(1);

    assert!(packed.stderr.contains("\"missing\": the source does not exist"), "{}", packed.stderr);
    corpus.assert_shown_in(Mount::new(Path::new(&archive.uri), &archive.options()).path(), &[]);
}

#[test]
fn a_manifest_in_a_bucket_is_packed_like_one_on_disk() {
    let (place, directory) = (s3_server().place(), scratch());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add_random(9, 40);
    // More than one piece of the stream.
    let padding = "x".repeat(4_000);
    let mut rows = Vec::new();
    runtime().block_on(async {
        let store = place.store().await.below("lists");
        for (number, file) in corpus.files.iter().enumerate() {
            let mut row = file.row();
            row["padding"] = padding.clone().into();
            if number % 4 == 0 {
                // Beside the manifest.
                let key = ObjectKey::new(&format!("files/{number}.bin")).unwrap();
                store.put(&key, Payload::Bytes(file.bytes.clone().into())).await.unwrap();
                row["source_path"] = key.as_str().into();
            }
            rows.push(row);
        }
        for number in 0..3_000 {
            let mut row = corpus.files[1].row();
            row["uid"] = format!("same-{number}").into();
            row["padding"] = padding.clone().into();
            rows.push(row);
        }
        let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
        for (name, text) in [
            ("array.json", serde_json::to_string(&rows).unwrap()),
            ("lines.jsonl", lines.join("\n")),
            ("broken.json", lines[..7].join("\n") + "\n{\"uid\": "),
        ] {
            store.put(&ObjectKey::new(name).unwrap(), Payload::Bytes(text.into())).await.unwrap();
        }
    });
    let archive = s3_server().place();
    let pack = |name: &str| {
        let mut pack = archive.program("des-pack");
        pack.arg("--input-json").arg(format!("{}/lists/{name}", place.uri));
        run(&mut pack)
    };

    let broken = pack("broken.json").exits(1);
    assert!(broken.stderr.contains("/lists/broken.json: row 8: not a manifest"), "{}", broken.stderr);
    let missing = pack("missing.json").exits(1);
    assert!(missing.one_line_of_reason().contains("/lists/missing.json"), "{}", missing.stderr);
    assert!(
        runtime().block_on(async {
            archive.store().await.list("", Depth::Recursive, None).await.unwrap().objects.is_empty()
        })
    );

    let first = pack("array.json").success();
    let second = pack("lines.jsonl").success();

    assert!(first.stdout.contains("packed     3040 files"), "{}", first.stdout);
    assert!(second.stdout.contains("present    3040"), "{}", second.stdout);
    let mount = Mount::new(Path::new(&archive.uri), &archive.options());
    let found = contents(mount.path());
    assert_eq!(found.len(), 3_040);
    for file in &corpus.files {
        assert_eq!(found[&Path::new(&file.day).join(shown_name(&file.uid))], file.bytes, "{}", file.uid);
    }
}
