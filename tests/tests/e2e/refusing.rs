//! Every system call that would change something is refused and changes nothing, for root, the owner and anyone else.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use des_tests::{NOBODY, Packed, SOMEBODY, as_user, contents};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

const DAY: &str = "20240301";

/// A call that would change something: what it is called, and the call.
type Attempt = (&'static str, Box<dyn Fn(&Path) -> rustix::io::Result<()> + Send + Sync>);

fn attempt(name: &'static str, call: impl Fn(&Path) -> rustix::io::Result<()> + Send + Sync + 'static) -> Attempt {
    (name, Box::new(call))
}

fn opened(path: &Path, flags: OFlags) -> rustix::io::Result<()> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).map(drop)
}

fn read_only(path: &Path) -> OwnedFd {
    File::open(path).expect("everyone may read").into()
}

/// Calls on the root of the mount and on a day, `where_` within it. `file` is a file of it, `free` a name that is free.
fn attempts_on_names() -> Vec<Attempt> {
    let file = |root: &Path| root.join(DAY).join("file");
    let free = |root: &Path| root.join(DAY).join("free");
    let free_day = |root: &Path| root.join("20300101");
    let mode = Mode::from_raw_mode(0o755);
    vec![
        attempt("open to create", move |root| opened(&free(root), OFlags::CREATE | OFlags::WRONLY)),
        attempt("open to create only", move |root| opened(&free(root), OFlags::CREATE | OFlags::EXCL | OFlags::RDWR)),
        attempt("open to create in the root", |root| opened(&root.join("free"), OFlags::CREATE | OFlags::WRONLY)),
        attempt("open without a name", |root| opened(&root.join(DAY), OFlags::TMPFILE | OFlags::RDWR)),
        attempt("mkdir of a day", move |root| rustix::fs::mkdir(free_day(root), mode)),
        attempt("mkdir in a day", move |root| rustix::fs::mkdir(free(root), mode)),
        attempt("mknod", move |root| {
            rustix::fs::mknodat(CWD, free(root), FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
        }),
        attempt("mkfifo", move |root| rustix::fs::mknodat(CWD, free(root), FileType::Fifo, mode, 0)),
        attempt("symlink", move |root| rustix::fs::symlink("file", free(root))),
        attempt("link", move |root| rustix::fs::link(file(root), free(root))),
        attempt("rename", move |root| rustix::fs::rename(file(root), free(root))),
        attempt("rename onto another", move |root| rustix::fs::rename(file(root), root.join(DAY).join("other"))),
        attempt("rename into another day", move |root| rustix::fs::rename(file(root), root.join("20240302/free"))),
        attempt("rename of a day", move |root| rustix::fs::rename(root.join(DAY), free_day(root))),
        attempt("rename only where nothing is", move |root| {
            rustix::fs::renameat_with(CWD, file(root), CWD, free(root), RenameFlags::NOREPLACE)
        }),
        attempt("rename that leaves a whiteout", move |root| {
            rustix::fs::renameat_with(CWD, file(root), CWD, free(root), RenameFlags::WHITEOUT)
        }),
        attempt("bind of a socket", move |root| {
            std::os::unix::net::UnixListener::bind(free(root)).map(drop).map_err(|error| errno_of(&error))
        }),
        attempt("exchange", move |root| {
            rustix::fs::renameat_with(CWD, file(root), CWD, root.join(DAY).join("other"), RenameFlags::EXCHANGE)
        }),
    ]
}

/// Calls on a file and its attributes.
fn attempts_on_inodes() -> Vec<Attempt> {
    let file = |root: &Path| root.join(DAY).join("file");
    let new_times = || {
        let time = Timespec { tv_sec: 1, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    };
    let mut attempts = vec![
        attempt("truncate on open", move |root| opened(&file(root), OFlags::WRONLY | OFlags::TRUNC)),
        attempt("truncate", move |root| nix_truncate(&file(root))),
        attempt("ftruncate", move |root| {
            // Only root gets so far as to open it.
            let open = rustix::fs::open(file(root), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::ftruncate(open, 0)
        }),
        attempt("write", move |root| {
            let open = rustix::fs::open(file(root), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(open, b"scribble").map(drop)
        }),
        attempt("append", move |root| {
            let open = rustix::fs::open(file(root), OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(open, b"scribble").map(drop)
        }),
        attempt("fallocate", move |root| {
            let open = rustix::fs::open(file(root), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::fallocate(open, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4)
        }),
        attempt("copy_file_range", move |root| {
            let from = read_only(&root.join(DAY).join("other"));
            let open = rustix::fs::open(file(root), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::copy_file_range(from, None, open, None, 5).map(drop)
        }),
    ];
    attempts.extend(attempts_on_contents());
    for path in ["20240301/file", DAY, "."] {
        let at = move |root: &Path| root.join(path);
        attempts.push(attempt("chmod", move |root| rustix::fs::chmod(at(root), Mode::from_raw_mode(0o777))));
        attempts
            .push(attempt("fchmod", move |root| rustix::fs::fchmod(read_only(&at(root)), Mode::from_raw_mode(0o777))));
        attempts.push(attempt("chown", move |root| {
            rustix::fs::chown(at(root), Some(rustix::fs::Uid::from_raw(NOBODY)), None)
        }));
        attempts.push(attempt("utimensat", move |root| {
            rustix::fs::utimensat(CWD, at(root), &new_times(), AtFlags::empty())
        }));
        attempts.push(attempt("setxattr", move |root| {
            rustix::fs::setxattr(at(root), "user.mine", b"value", XattrFlags::empty())
        }));
        for name in ["trusted.mine", "security.mine", "system.posix_acl_access"] {
            attempts.push(attempt("setxattr", move |root| {
                rustix::fs::lsetxattr(at(root), name, b"value", XattrFlags::empty())
            }));
        }
        attempts.push(attempt("touch", move |root| {
            let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
            rustix::fs::utimensat(
                CWD,
                at(root),
                &Timestamps { last_access: now, last_modification: now },
                AtFlags::empty(),
            )
        }));
        attempts.push(attempt("chattr", move |root| {
            let open = read_only(&at(root));
            rustix::fs::ioctl_setflags(open, rustix::fs::IFlags::IMMUTABLE | rustix::fs::IFlags::NOATIME)
        }));
        attempts.push(attempt("removexattr", move |root| rustix::fs::removexattr(at(root), "user.des.codec")));
    }
    attempts
}

/// Other ways to write to a file.
fn attempts_on_contents() -> Vec<Attempt> {
    let file = |root: &Path| root.join(DAY).join("file");
    let other = |root: &Path| read_only(&root.join(DAY).join("other"));
    let for_writing = move |root: &Path| rustix::fs::open(file(root), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    vec![
        attempt("truncate on open for reading", move |root| opened(&file(root), OFlags::RDONLY | OFlags::TRUNC)),
        attempt("pwrite", move |root| rustix::io::pwrite(for_writing(root)?, b"scribble", 3).map(drop)),
        attempt("pwrite beyond the end", move |root| {
            rustix::io::pwrite(for_writing(root)?, b"scribble", 1 << 20).map(drop)
        }),
        attempt("writev", move |root| {
            let pieces = [std::io::IoSlice::new(b"scri"), std::io::IoSlice::new(b"bble")];
            rustix::io::writev(for_writing(root)?, &pieces).map(drop)
        }),
        attempt("direct write", move |root| {
            let open = rustix::fs::open(file(root), OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(open, &[b'x'; 4_096]).map(drop)
        }),
        attempt("sendfile", move |root| rustix::fs::sendfile(for_writing(root)?, other(root), None, 5).map(drop)),
        attempt("splice", move |root| {
            let (out, into) = rustix::pipe::pipe()?;
            rustix::io::write(into, b"scribble")?;
            rustix::pipe::splice(out, None, for_writing(root)?, None, 8, rustix::pipe::SpliceFlags::empty()).map(drop)
        }),
        attempt("clone", move |root| rustix::fs::ioctl_ficlone(for_writing(root)?, other(root))),
        attempt("allocate", move |root| rustix::fs::fallocate(for_writing(root)?, FallocateFlags::empty(), 0, 1 << 16)),
    ]
}

/// What lies in the store, byte by byte, but for the locks, which are empty.
fn stored(packed: &Packed) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    contents(&packed.archive())
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).expect("an error of the system")
}

/// truncate(2); the library offers ftruncate only.
fn nix_truncate(path: &Path) -> rustix::io::Result<()> {
    let outcome = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(1));
    outcome.map_err(|error| errno_of(&error))
}

fn archive() -> Packed {
    Packed::of(|corpus| {
        corpus.add(DAY, "file", "content of the file");
        corpus.add(DAY, "other", "content of the other");
        corpus.add("20240302", "third", "content of the third");
    })
}

/// Everything that stat(2) shows of everything.
fn attributes(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let paths = [".", DAY, "20240301/file", "20240301/other", "20240302", "20240302/third"];
    let shown = |path: &&str| {
        let found = fs::symlink_metadata(root.join(path)).unwrap();
        format!(
            "{path} {:o} {} {} {} {} {} {}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.len(),
            found.mtime(),
            found.mtime_nsec(),
            found.ino()
        )
    };
    paths.iter().map(shown).collect()
}

fn assert_refused(options: &str, user: u32, allowed: &[Errno]) {
    let packed = archive();
    let stored_before = stored(&packed);
    for extra in ["", ",xattr", ",strict"] {
        let mount = packed.mount(&format!("allow_other{options}{extra}"));
        let root = mount.path();
        let before = attributes(root);

        for (name, call) in attempts_on_names().into_iter().chain(attempts_on_inodes()) {
            let outcome = as_user(user, || call(root));

            let error = outcome.expect_err(&format!("{name} succeeded for {user} with {options:?}{extra}"));
            // The kernel itself has an opinion on some.
            let by_kernel = match name {
                "open without a name" | "fallocate" | "allocate" => error == Errno::OPNOTSUPP,
                // Contents are shared within one file system of a kind that can, and not by FUSE.
                "clone" => matches!(error, Errno::OPNOTSUPP | Errno::INVAL),
                "removexattr" | "setxattr" => matches!(error, Errno::OPNOTSUPP | Errno::NODATA),
                "chattr" => matches!(error, Errno::NOTTY | Errno::OPNOTSUPP),
                _ => false,
            };
            assert!(allowed.contains(&error) || by_kernel, "{name} by {user} with {options:?}{extra}: {error}");
        }

        assert_eq!(attributes(root), before);
        assert!(stored(&packed) == stored_before, "nothing in the store has changed");
        packed.assert_shown_in(root, &[]);
        assert_eq!(as_user(NOBODY, || fs::read(root.join("20240301/file"))).unwrap(), b"content of the file");
    }
}

#[test]
fn root_can_change_nothing_but_unlink() {
    assert_refused("", 0, &[Errno::ROFS]);
}

#[test]
fn the_owner_can_change_nothing_but_unlink() {
    assert_refused(&format!(",uid={SOMEBODY}"), SOMEBODY, &[Errno::ROFS, Errno::ACCESS, Errno::PERM]);
}

#[test]
fn nobody_can_change_anything() {
    assert_refused(&format!(",uid={SOMEBODY}"), NOBODY, &[Errno::ROFS, Errno::ACCESS, Errno::PERM]);
}

#[test]
fn a_mount_that_is_read_only_refuses_root_too() {
    assert_refused(",ro", 0, &[Errno::ROFS]);
}

#[test]
fn strict_refuses_to_open_for_writing() {
    let packed = archive();
    let mount = packed.mount("strict");
    let path = mount.file(DAY, "file");

    for flags in [OFlags::WRONLY, OFlags::RDWR] {
        assert_eq!(opened(&path, flags), Err(Errno::ROFS));
    }
    assert_eq!(fs::read(&path).unwrap(), b"content of the file");
}

#[test]
fn a_file_that_root_opened_for_writing_still_holds_what_it_held() {
    let packed = archive();
    let mount = packed.mount("");
    let path = mount.file(DAY, "file");

    if let Ok(mut open) = OpenOptions::new().write(true).open(&path) {
        let outcome = open.write_all(b"scribble").and_then(|()| open.sync_all());
        assert!(outcome.is_err(), "the write is refused");
    }

    assert_eq!(fs::read(&path).unwrap(), b"content of the file");
    assert_eq!(fs::metadata(&path).unwrap().len(), 19);
}
