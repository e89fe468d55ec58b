//! Archives that the Python ancestor wrote, mounted as they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use des_tests::{Mount, Packed, command, contents, des_pack, files_below, golden, run, s3_server, scratch, shown_name};
use rustix::io::Errno;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A file of the ancestor's archive as its own manifest tells it.
struct Known {
    uid: String,
    created_at: String,
    sha256: String,
    shard: String,
}

impl Known {
    fn path(&self) -> PathBuf {
        Path::new(&self.shard[..8]).join(shown_name(&self.uid))
    }

    /// An empty uid cannot be shown at all, a very long one not whole.
    fn is_shown_whole(&self) -> bool {
        !self.uid.is_empty() && !self.is_cut()
    }

    fn is_cut(&self) -> bool {
        shown_name(&self.uid).len() > 255
    }
}

/// A copy of the archive that was packed with eight bits, and what is in it.
fn archive() -> (TempDir, Vec<Known>) {
    let place = scratch();
    let source = golden("pack-nbits08");
    for path in files_below(&source) {
        if path.extension().is_some_and(|extension| extension == "des") {
            fs::copy(source.join(&path), place.path().join(&path)).unwrap();
        }
    }
    let manifest: Value = serde_json::from_slice(&fs::read(source.join("manifest.json")).unwrap()).unwrap();
    let text = |file: &Value, field: &str| file[field].as_str().unwrap().to_owned();
    let known = |file: &Value| Known {
        uid: text(file, "uid"),
        created_at: text(file, "created_at"),
        sha256: text(file, "sha256"),
        shard: text(file, "shard_file"),
    };
    let files: Vec<_> = manifest["files"].as_array().unwrap().iter().map(known).collect();
    assert!(files.len() > 50);
    (place, files)
}

/// Writes the sidecar of a shard with the tombstone of one uid.
fn write_sidecar(archive: &Path, shard: &str, uid: &str, created_at: &str) {
    let sidecar = json!({
        "version": 1,
        "shard_file": shard,
        "shard_size": fs::metadata(archive.join(shard)).unwrap().len(),
        "created_at": "2024-04-01T00:00:00Z",
        "last_updated": "2024-04-02T00:00:00.123456Z",
        "index": {},
        "tombstones": {
            format!("{uid}:{created_at}"): {
                "uid": uid,
                "created_at": created_at,
                "deleted_at": "2024-04-02T00:00:00.123456Z",
                "deleted_by": "clerk",
                "reason": "GDPR",
                "ticket_id": null,
            },
        },
        "stats": {"entries": 1, "deleted_files": 1, "deletion_ratio": 1.0},
    });
    fs::write(archive.join(shard).with_extension("meta"), serde_json::to_vec_pretty(&sidecar).unwrap()).unwrap();
}

#[test]
fn an_archive_of_the_ancestor_reads_byte_for_byte() {
    let (place, known) = archive();
    let mount = Mount::new(place.path(), "n_bits=8");

    let sum_of = |path: &Path| {
        let summed = run(command("sha256sum").arg("--").arg(mount.path().join(path))).success().stdout;
        // A name that must be escaped makes sha256sum put a backslash in front.
        summed.trim_start_matches('\\')[..64].to_owned()
    };
    let mut listed: BTreeSet<_> = files_below(mount.path()).into_iter().collect();
    for file in &known {
        if file.is_shown_whole() {
            assert_eq!(sum_of(&file.path()), file.sha256, "{:?}", file.uid);
            assert!(listed.remove(&file.path()), "{:?} is listed", file.uid);
        }
    }
    let mut sums: Vec<_> = listed.iter().map(|path| sum_of(path)).collect();
    let mut expected: Vec<_> = known.iter().filter(|file| file.is_cut()).map(|file| file.sha256.clone()).collect();
    sums.sort();
    expected.sort();
    assert_eq!(sums, expected, "names that are shown cut");
}

#[test]
fn an_archive_of_the_ancestor_in_a_bucket_shows_what_it_shows_on_disk_and_cannot_be_changed() {
    let (directory, known) = archive();
    let deleted = known.iter().find(|file| file.is_shown_whole()).unwrap();
    write_sidecar(directory.path(), &deleted.shard, &deleted.uid, &deleted.created_at);
    let big = golden("v2-bigfiles");
    for path in files_below(&big.join("_bigFiles")) {
        fs::create_dir_all(directory.path().join("_bigFiles")).unwrap();
        fs::copy(big.join("_bigFiles").join(&path), directory.path().join("_bigFiles").join(&path)).unwrap();
    }
    let place = s3_server().place();
    place.fill(directory.path());
    let local = Mount::new(directory.path(), "n_bits=8");
    let mount = Mount::new(Path::new(&place.uri), &format!("{},n_bits=8", place.options()));

    let shown = contents(mount.path());

    assert!(shown.len() > 40 && !shown.contains_key(&deleted.path()));
    assert_eq!(shown, contents(local.path()));
    let (path, _) = shown.first_key_value().unwrap();
    assert!(fs::remove_file(mount.path().join(path)).is_err());
}

#[test]
fn eight_bits_are_assumed_for_an_archive_of_the_ancestor() {
    let (place, _) = archive();

    let shown = contents(Mount::new(place.path(), "").path());

    assert_eq!(shown, contents(Mount::new(place.path(), "n_bits=8").path()));
}

#[test]
fn a_tombstone_in_a_sidecar_hides_its_uid_whatever_time_it_names() {
    let (place, known) = archive();
    let victim = known.iter().find(|file| file.uid == "12345").unwrap();
    let all: BTreeSet<_> = files_below(Mount::new(place.path(), "n_bits=8").path()).into_iter().collect();
    for created_at in [victim.created_at.replace("+00:00", "Z"), "2024-03-01T23:59:59Z".to_owned()] {
        write_sidecar(place.path(), &victim.shard, &victim.uid, &created_at);
        let mount = Mount::new(place.path(), "n_bits=8");

        assert_eq!(fs::metadata(mount.path().join(victim.path())).unwrap_err().kind(), std::io::ErrorKind::NotFound);
        let hidden = all.difference(&files_below(mount.path()).into_iter().collect()).cloned().collect::<Vec<_>>();
        assert_eq!(hidden, [victim.path()], "{created_at}");
    }
}

#[test]
fn a_sidecar_that_cannot_be_read_is_an_error_and_never_ignored() {
    let (place, known) = archive();
    let victim = known.iter().find(|file| file.uid == "12345").unwrap();
    for garbage in ["", "{", "not json", "{\"version\": 1}", "[]"] {
        fs::write(place.path().join(&victim.shard).with_extension("meta"), garbage).unwrap();
        let mount = Mount::new(place.path(), "n_bits=8");

        let error = fs::read(mount.path().join(victim.path())).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{garbage:?}");
        let listing = fs::read_dir(mount.path().join("20240301")).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert_eq!(Errno::from_io_error(&listing.unwrap_err()), Some(Errno::IO), "{garbage:?}");
        for file in known.iter().filter(|file| file.is_shown_whole() && file.shard.starts_with("20240302")).take(5) {
            assert!(fs::read(mount.path().join(file.path())).is_ok(), "{:?} is of another day", file.uid);
        }
    }
}

#[test]
fn nothing_can_be_deleted_from_an_archive_of_the_ancestor() {
    let (place, known) = archive();
    let mount = Mount::new(place.path(), "n_bits=8");
    let before = files_below(place.path());

    for file in known.iter().filter(|file| file.is_shown_whole()).take(3) {
        assert_eq!(rustix::fs::unlink(mount.path().join(file.path())), Err(Errno::ROFS));
    }

    assert_eq!(files_below(place.path()), before);
}

#[test]
fn a_shard_cut_short_is_an_error_for_its_files_only() {
    let (place, known) = archive();
    let victim = known.iter().find(|file| file.uid == "12345").unwrap();
    let shard = place.path().join(&victim.shard);
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 5]).unwrap();
    let mount = Mount::new(place.path(), "n_bits=8");

    let error = fs::read(mount.path().join(victim.path())).unwrap_err();

    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
    let other = known.iter().find(|file| file.shard[..11] != victim.shard[..11] && file.shard.starts_with("20240301"));
    assert!(fs::read(mount.path().join(other.unwrap().path())).is_ok());
}

#[test]
fn what_is_written_in_format_2_reads_back() {
    let mut packed = Packed::random(91, 3);
    packed.corpus.add_random(92, 300);
    packed.corpus.add("20240301", "big", vec![b'b'; (10 << 20) + 1]);
    packed.corpus.add("20240302", "the same again", vec![b'b'; (10 << 20) + 1]);
    packed.corpus.add("20240302", "just not big", vec![b'c'; 10 << 20]);
    let flat = packed.place().join("flat");
    let pack = |manifest: &str| {
        let mut pack = des_pack(&flat);
        pack.args(["--format", "2", "--n-bits", "6", "--input-json"]).arg(packed.corpus.manifest(manifest));
        run(&mut pack).success();
        files_below(&flat)
    };

    let files = pack("first");

    assert_eq!(files.iter().filter(|path| path.starts_with("_bigFiles")).count(), 1, "the same content, once");
    let is_known = |path: &&PathBuf| {
        path.starts_with("_bigFiles")
            || path.extension().is_some_and(|end| end == "des")
            || path.ends_with(".spool/lock")
    };
    let others: Vec<_> = files.iter().filter(|path| !is_known(path)).collect();
    assert!(others.is_empty(), "{others:?}");
    packed.assert_shown_in(Mount::new(&flat, "n_bits=6").path(), &[]);
    assert_eq!(pack("second"), files, "packing the same again adds nothing");
}

#[test]
fn a_big_file_that_was_changed_is_an_error_and_its_name_is_never_a_path() {
    let packed = Packed::of(|corpus| {
        corpus.add("20240301", "big", vec![b'b'; (10 << 20) + 1]);
        corpus.add("20240301", "small", "small");
    });
    let flat = packed.place().join("flat");
    run(des_pack(&flat).args(["--format", "2", "--input-json"]).arg(packed.corpus.manifest("flat"))).success();
    let big = files_below(&flat).into_iter().find(|path| path.starts_with("_bigFiles")).unwrap();
    let mut bytes = fs::read(flat.join(&big)).unwrap();
    bytes[5_000_000] ^= 1;
    fs::write(flat.join(&big), bytes).unwrap();
    let mount = Mount::new(&flat, "");

    let error = fs::read(mount.file("20240301", "big")).expect_err("changed bytes were served");

    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
    assert_eq!(fs::read(mount.file("20240301", "small")).unwrap(), b"small");
}
