//! Listing: complete, resumable anywhere, the same on every mount.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use des_tests::{Packed, command, run};
use rustix::fs::{Dir, Mode, OFlags, RawDir, SeekFrom, seek};

const DAY: &str = "20240301";

/// Entries of a directory as getdents64 gives them: name, inode number, and the cookie of what follows.
fn listed(path: &Path, buffer_bytes: usize) -> Vec<(String, u64, u64)> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut buffer = vec![MaybeUninit::uninit(); buffer_bytes];
    let mut entries = RawDir::new(fd, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        if name != "." && name != ".." {
            found.push((name, entry.ino(), entry.next_entry_cookie()));
        }
    }
    found
}

fn inodes(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    found.insert(PathBuf::new(), fs::metadata(root).unwrap().ino());
    for day in fs::read_dir(root).unwrap() {
        let day = day.unwrap();
        found.insert(day.file_name().into(), fs::metadata(day.path()).unwrap().ino());
        for file in fs::read_dir(day.path()).unwrap() {
            let file = file.unwrap();
            let path = Path::new(&day.file_name()).join(file.file_name());
            found.insert(path, fs::metadata(file.path()).unwrap().ino());
        }
    }
    found
}

#[test]
fn inode_numbers_are_the_same_on_two_mounts_and_after_a_remount() {
    let packed = Packed::random(31, 400);
    let (one, two) = (packed.mount(""), packed.mount(""));

    let numbers = inodes(one.path());

    assert_eq!(numbers.len(), 400 + 3 + 1);
    assert_eq!(numbers.values().collect::<BTreeSet<_>>().len(), numbers.len(), "all differ");
    assert_eq!(inodes(two.path()), numbers);
    one.unmount();
    assert_eq!(inodes(packed.mount("").path()), numbers);
}

#[test]
fn inode_numbers_stay_when_more_is_packed_and_some_is_deleted() {
    let mut packed = Packed::random(32, 100);
    let mount = packed.mount("");
    let before = inodes(mount.path());
    let victim = packed.corpus.files[9].clone();
    fs::remove_file(mount.file(&victim.day, &victim.uid)).unwrap();
    mount.unmount();
    for number in 0..50 {
        packed.corpus.add(DAY, &format!("later {number}"), "later");
    }
    packed.corpus.files.remove(9);
    packed.pack("more");

    let after = inodes(packed.mount("").path());

    assert_eq!(after.len(), before.len() - 1 + 50);
    for (path, number) in &after {
        assert!(before.get(path).is_none_or(|earlier| earlier == number), "{}", path.display());
    }
    assert_eq!(after.values().collect::<BTreeSet<_>>().len(), after.len(), "all differ");
}

#[test]
fn a_listing_gives_the_inode_numbers_that_stat_gives() {
    let packed = Packed::random(33, 300);
    let mount = packed.mount("");

    for path in [mount.path().to_path_buf(), mount.path().join(DAY)] {
        let entries = listed(&path, 4_096);
        assert!(!entries.is_empty());
        for (name, number, _) in entries {
            assert_eq!(fs::metadata(path.join(&name)).unwrap().ino(), number, "{name}");
        }
    }
}

#[test]
fn a_listing_is_the_same_for_every_size_of_buffer() {
    let packed = Packed::random(34, 1_500);
    let mount = packed.mount("");
    let path = mount.path().join(DAY);
    let whole = listed(&path, 1 << 20);
    assert!(whole.len() > 400);

    for buffer_bytes in [300, 1_000, 4_096, 32_768] {
        assert_eq!(listed(&path, buffer_bytes), whole, "{buffer_bytes}");
    }
}

#[test]
fn a_listing_resumes_at_every_entry() {
    let packed = Packed::random(35, 600);
    let mount = packed.mount("");
    let path = mount.path().join(DAY);
    let whole = listed(&path, 1 << 20);
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();

    // Backwards, so that nothing read before can help.
    for (index, (_, _, cookie)) in whole.iter().enumerate().rev() {
        seek(&fd, SeekFrom::Start(*cookie)).unwrap();
        let mut buffer = vec![MaybeUninit::uninit(); 2_048];
        let mut entries = RawDir::new(&fd, &mut buffer);
        let next = entries.next().map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned());
        assert_eq!(next.as_ref(), whole.get(index + 1).map(|(name, _, _)| name), "after {index}");
    }
}

#[test]
fn deleting_while_listing_skips_nothing_else_and_repeats_nothing() {
    let packed = Packed::random(36, 900);
    let mount = packed.mount("");
    let path = mount.path().join(DAY);
    let whole: Vec<_> = listed(&path, 1 << 20).into_iter().map(|(name, _, _)| name).collect();
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut entries = Dir::new(fd).unwrap();
    let mut seen = Vec::new();

    while let Some(entry) = entries.read() {
        let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
        if name == "." || name == ".." {
            continue;
        }
        fs::remove_file(path.join(&name)).unwrap();
        seen.push(name);
    }

    assert_eq!(seen, whole, "each once, none skipped");
    assert_eq!(fs::read_dir(&path).map(Iterator::count).unwrap_or_default(), 0);
}

#[test]
fn rewinding_shows_what_is_there_now() {
    let packed = Packed::random(37, 200);
    let mount = packed.mount("");
    let path = mount.path().join(DAY);
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut entries = Dir::new(fd).unwrap();
    let names = |entries: &mut Dir| -> Vec<String> {
        entries.by_ref().map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect()
    };
    let before = names(&mut entries);
    let victim = before.iter().find(|name| !name.starts_with('.')).unwrap().clone();

    fs::remove_file(path.join(&victim)).unwrap();
    entries.rewind();

    let expected: Vec<_> = before.into_iter().filter(|name| *name != victim).collect();
    assert_eq!(names(&mut entries), expected);
}

#[test]
fn find_ls_and_du_agree_on_what_is_there() {
    let packed = Packed::random(38, 500);
    let mount = packed.mount("");
    let lines = |name: &str, arguments: &[&str]| {
        run(command(name).args(arguments).current_dir(mount.path())).success().stdout.lines().count()
    };
    let total: usize = packed.corpus.files.iter().map(|file| file.bytes.len()).sum();

    assert_eq!(lines("find", &[".", "-type", "f"]), 500);
    assert_eq!(lines("find", &[".", "-mindepth", "1", "-type", "d"]), 3);
    assert_eq!(lines("find", &[".", "-not", "-type", "f", "-not", "-type", "d"]), 0);
    let listing = run(command("ls").args(["-lR", "--almost-all"]).current_dir(mount.path())).success().stdout;
    assert_eq!(listing.lines().filter(|line| line.starts_with("-r--r--r--")).count(), 500);
    let apparent = run(command("find").args([".", "-type", "f", "-printf", "%s\\n"]).current_dir(mount.path()));
    let apparent: usize = apparent.success().stdout.lines().map(|line| line.parse::<usize>().unwrap()).sum();
    assert_eq!(apparent, total);
    let usage = run(command("du").args(["-s", "--block-size=1"]).current_dir(mount.path())).success().stdout;
    let usage: usize = usage.split_whitespace().next().unwrap().parse().unwrap();
    assert!(usage >= total, "du says {usage} for {total} bytes");
}

#[test]
fn attributes_are_those_of_files_that_nobody_writes() {
    let packed = Packed::random(39, 20);
    let mount = packed.mount("allow_other,uid=1234,gid=2345");
    let day = fs::metadata(mount.path().join(DAY)).unwrap();
    assert_eq!((day.uid(), day.gid(), day.mode()), (1234, 2345, 0o040_775));
    let root = fs::metadata(mount.path()).unwrap();
    assert_eq!((root.uid(), root.gid()), (1234, 2345));
    for file in &packed.corpus.files {
        let found = fs::metadata(mount.file(&file.day, &file.uid)).unwrap();
        let source = fs::metadata(&file.path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode(), found.nlink()), (1234, 2345, 0o100_444, 1));
        assert_eq!((found.mtime(), found.mtime_nsec()), (source.mtime(), source.mtime_nsec()));
        assert_eq!(found.len(), source.len());
    }
    let masked = packed.mount("umask=077");
    assert_eq!(fs::metadata(masked.path().join(DAY)).unwrap().mode() & 0o777, 0o700);
    let file = &packed.corpus.files[0];
    assert_eq!(fs::metadata(masked.file(&file.day, &file.uid)).unwrap().mode() & 0o777, 0o400);
}
