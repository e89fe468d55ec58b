//! Reading: any range of any file, by every way the kernel offers.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use des_tests::{Packed, command, run};
use desstore::{Randomness, SeededRandom};

const DAY: &str = "20240301";

/// Bytes that compress in parts: noise and text by turns.
fn mixture(seed: u64, len: usize) -> Vec<u8> {
    let random = SeededRandom::new(seed);
    let mut bytes = vec![0; len];
    for (index, chunk) in bytes.chunks_mut(100_000).enumerate() {
        if index % 3 == 0 {
            random.fill(chunk);
        } else {
            for (offset, byte) in chunk.iter_mut().enumerate() {
                *byte = b"the quick brown fox jumps over the lazy dog. "[(offset + offset / 45 * index) % 45];
            }
        }
    }
    bytes
}

#[test]
fn any_range_of_a_hundred_megabytes_is_read_right() {
    let bytes = mixture(1, 100 << 20);
    let packed = Packed::of(|corpus| {
        corpus.add(DAY, "large", bytes.clone());
    });
    let mount = packed.mount("");
    let file = File::open(mount.file(DAY, "large")).unwrap();
    let random = SeededRandom::new(2);
    let below = |bound: usize| usize::try_from(random.next() % u64::try_from(bound).unwrap()).unwrap();

    for round in 0..400 {
        let start = if round % 4 == 0 { below(200) << 19 } else { below(bytes.len()) };
        let len = [1, 4_095, 4_096, 4_097, 131_072, 1_048_577][below(6)];
        let mut buffer = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let count = file.read_at(&mut buffer[filled..], u64::try_from(start + filled).unwrap()).unwrap();
            if count == 0 {
                break;
            }
            filled += count;
        }
        let end = (start + len).min(bytes.len());
        assert!(buffer[..filled] == bytes[start..end], "{start}+{len} (seed 2, round {round})");
    }
    let mut whole = Vec::new();
    (&file).read_to_end(&mut whole).unwrap();
    assert!(whole == bytes);
}

#[test]
fn seeking_behaves_as_on_any_file() {
    let bytes = mixture(3, 300_001);
    let packed = Packed::of(|corpus| {
        corpus.add(DAY, "file", bytes.clone());
        corpus.add(DAY, "empty", "");
    });
    let mount = packed.mount("");
    let mut file = File::open(mount.file(DAY, "file")).unwrap();
    let mut last = [0; 1];

    assert_eq!(file.seek(SeekFrom::End(-1)).unwrap(), 300_000);
    file.read_exact(&mut last).unwrap();
    assert_eq!(last[0], bytes[300_000]);
    assert_eq!(file.read(&mut last).unwrap(), 0, "the end");
    assert_eq!(file.seek(SeekFrom::Start(1 << 40)).unwrap(), 1 << 40);
    assert_eq!(file.read(&mut last).unwrap(), 0, "beyond the end");
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(1_000)).unwrap(), 1_000);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(1_000)).unwrap(), 300_001);
    assert_eq!(fs::read(mount.file(DAY, "empty")).unwrap(), b"");
    assert_eq!(fs::metadata(mount.file(DAY, "empty")).unwrap().len(), 0);
}

#[test]
fn mapped_memory_holds_the_file() {
    let bytes = mixture(4, 5_000_003);
    let packed = Packed::of(|corpus| {
        corpus.add(DAY, "mapped", bytes.clone());
    });
    let mount = packed.mount("");
    let script = "import mmap, sys\n\
                  with open(sys.argv[1], 'rb') as found, open(sys.argv[2], 'rb') as expected:\n\
                  \x20   pages = mmap.mmap(found.fileno(), 0, prot=mmap.PROT_READ)\n\
                  \x20   truth = expected.read()\n\
                  \x20   assert len(pages) == len(truth)\n\
                  \x20   for start in list(range(0, len(truth), 99991))[::-1]:\n\
                  \x20       assert pages[start:start + 5000] == truth[start:start + 5000], start\n\
                  \x20   assert pages[:] == truth\n";
    let mut python = command("python3");
    python.args(["-c", script]).arg(mount.file(DAY, "mapped")).arg(&packed.corpus.files[0].path);

    run(&mut python).success();
}

#[test]
fn fio_verifies_what_it_wrote_before_packing() {
    let packed = Packed::of(|corpus| {
        let path = corpus.add(DAY, "fio", "").path.clone();
        let mut write = command("fio");
        write.args(["--name=v", "--rw=write", "--bs=4k", "--size=24m", "--verify=crc32c", "--do_verify=0"]);
        write.args(["--verify_state_save=0", "--ioengine=psync"]).arg(format!("--filename={}", path.display()));
        run(&mut write).success();
        let written = fs::read(&path).unwrap();
        corpus.files.last_mut().unwrap().bytes = written;
    });
    let mount = packed.mount("");

    for engine in ["psync", "mmap", "libaio"] {
        let mut verify = command("fio");
        verify.args(["--name=v", "--readonly", "--verify_only", "--bs=4k", "--size=24m", "--verify=crc32c"]);
        verify.args(["--rw=randread", "--verify_state_save=0"]).arg(format!("--ioengine={engine}"));
        verify.arg(format!("--filename={}", mount.file(DAY, "fio").display()));
        run(&mut verify).success();
    }
}

#[test]
fn many_readers_at_once_each_read_right() {
    let packed = Packed::random(41, 400);
    let mount = packed.mount("");

    std::thread::scope(|scope| {
        for reader in 0..8_usize {
            let (mount, files) = (&mount, &packed.corpus.files);
            scope.spawn(move || {
                for step in 0..files.len() {
                    let file = &files[(step * (2 * reader + 1) + reader * 37) % files.len()];
                    assert!(fs::read(mount.file(&file.day, &file.uid)).unwrap() == file.bytes, "{}", file.uid);
                }
            });
        }
    });
}

#[test]
fn every_codec_and_frame_size_reads_back() {
    let mut packed = Packed::random(42, 5);
    packed.corpus.add_random(43, 300);
    packed.corpus.add(DAY, "large", mixture(44, 3_500_000));
    let manifest = packed.corpus.manifest("codecs");
    for options in [
        &["--codec", "none"][..],
        &["--codec", "lz4"],
        &["--codec", "zstd", "--level", "9"],
        &["--codec", "zstd", "--frame-size", "0"],
        &["--codec", "lz4", "--frame-size", "64K", "--n-bits", "0"],
        &["--codec", "zstd", "--n-bits", "10", "--max-shard-size", "100K"],
    ] {
        let archive = packed.place().join(options.join(""));
        run(des_tests::des_pack(&archive).args(options).arg("--input-json").arg(&manifest)).success();

        packed.assert_shown_in(des_tests::Mount::new(&archive, "").path(), &[]);
    }
}

#[test]
fn statfs_tells_real_totals() {
    let packed = Packed::random(45, 250);
    let mount = packed.mount("");
    let shard_bytes =
        |path: &std::path::PathBuf| fs::metadata(packed.archive().join("shards").join(path)).unwrap().len();
    let stored: u64 = des_tests::objects_below(&packed.archive(), "shards").iter().map(shard_bytes).sum();

    let found = rustix::fs::statvfs(mount.path()).unwrap();

    assert_eq!(found.f_blocks, stored.div_ceil(found.f_frsize), "{stored} bytes are stored");
    assert_eq!(found.f_files, 250);
    assert_eq!((found.f_bavail, found.f_favail), (0, 0));
    assert_eq!(found.f_namemax, 255);
    run(command("df").args(["-h"]).arg(mount.path())).success();
    run(command("df").args(["-i"]).arg(mount.path())).success();
}

#[test]
fn extended_attributes_tell_where_a_file_is_when_asked_for() {
    let packed = Packed::random(46, 30);
    let mount = packed.mount("xattr");
    let file = packed.corpus.files.iter().find(|file| file.bytes.len() > 100).unwrap();
    let mut getfattr = command("getfattr");
    getfattr.args(["--dump", "--absolute-names"]).arg(mount.file(&file.day, &file.uid));

    let shown = run(&mut getfattr).success().stdout;

    for name in ["shard", "codec", "digest", "created_at"] {
        assert!(shown.contains(&format!("user.des.{name}=\"")), "{name} in {shown}");
    }
    assert!(shown.contains(&file.bytes.len().to_string()), "{shown}");
    assert!(shown.contains(&format!("{}_", file.day)), "{shown}");
}

#[test]
fn extended_attributes_are_off_unless_asked_for() {
    let packed = Packed::random(47, 3);
    let mount = packed.mount("");
    let file = &packed.corpus.files[0];

    let outcome = run(command("getfattr").args(["--dump"]).arg(mount.file(&file.day, &file.uid)));

    assert_eq!(outcome.stdout, "");
}

#[test]
fn damaged_bytes_are_an_error_and_never_wrong_data() {
    let packed = Packed::of(|corpus| {
        corpus.add(DAY, "file", mixture(48, 400_000));
        corpus.add("20240302", "sound", "sound");
    });
    let shards = des_tests::objects_below(&packed.archive(), "shards");
    let shard = shards.iter().find(|path| path.starts_with(DAY)).unwrap();
    let shard = packed.archive().join("shards").join(shard);
    let mut bytes = fs::read(&shard).unwrap();
    for offset in [300, 50_000, 120_000, 200_000, 300_000] {
        if let Some(byte) = bytes.get_mut(offset) {
            *byte ^= 0x10;
        }
    }
    fs::write(&shard, bytes).unwrap();
    let mount = packed.mount("");

    let outcome = fs::read(mount.file(DAY, "file"));

    let error = outcome.expect_err("damaged data was served");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert_eq!(fs::read(mount.file("20240302", "sound")).unwrap(), b"sound");
}

#[test]
fn a_lost_manifest_is_an_error_and_never_an_empty_day() {
    let packed = Packed::random(49, 30);
    fs::remove_file(packed.archive().join("manifests/20240301.json")).unwrap();
    let mount = packed.mount("");

    let outcome = fs::read_dir(mount.path().join(DAY)).and_then(Iterator::collect::<Result<Vec<_>, _>>);

    let error = outcome.expect_err("an unreadable day was shown");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(fs::read_dir(mount.path().join("20240302")).unwrap().count() > 0);
}
