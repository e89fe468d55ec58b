//! Writing through memory maps, which no system call refuses: what is written there never reaches the archive, and what
//! others read is soon the truth again.
//!
//! The maps are made by a process of python: in this workspace mapping would need unsafe code.

use std::fs;
use std::path::Path;
use std::time::Duration;

use des_tests::{NOBODY, Outcome, Packed, SOMEBODY, command, contents, eventually, run};

const DAY: &str = "20240301";
const LEN: usize = 20_000;

/// Opens a file, maps it and writes to the map; says how far it came.
const SCRIPT: &str = "
import mmap, os, sys
path, mode, share = sys.argv[1:]
step = 'open'
try:
    file = os.open(path, {'r': os.O_RDONLY, 'w': os.O_RDWR}[mode])
    step = 'map'
    flags = {'shared': mmap.MAP_SHARED, 'private': mmap.MAP_PRIVATE}[share]
    pages = mmap.mmap(file, 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    step = 'write'
    for at in (0, 5000, 19990):
        pages[at:at + 8] = b'scribble'
    step = 'flush'
    if share == 'shared':
        pages.flush()
    step = 'nothing'
    pages.close()
    os.close(file)
except OSError as error:
    print(step, 'failed:', os.strerror(error.errno))
else:
    print('all is done')
";

fn archive() -> Packed {
    Packed::of(|corpus| {
        corpus.add(DAY, "file", vec![b'f'; LEN]);
        corpus.add(DAY, "other", "content of the other");
    })
}

fn scribble(user: u32, path: &Path, mode: &str, share: &str) -> Outcome {
    let mut python = command("setpriv");
    let user = user.to_string();
    python.args(["--reuid", &user, "--regid", &user, "--clear-groups", "python3", "-c", SCRIPT]);
    run(python.arg(path).args([mode, share])).success()
}

#[test]
fn what_root_scribbles_into_a_shared_mapping_is_dropped() {
    let packed = archive();
    let stored = contents(&packed.archive());
    for xattr in ["", "xattr"] {
        let (mount, elsewhere) = (packed.mount(xattr), packed.mount(""));
        let path = mount.file(DAY, "file");

        let outcome = scribble(0, &path, "w", "shared");

        // The kernel lets root do it; writing it back is where it ends.
        assert_eq!(outcome.stdout, "flush failed: Read-only file system\n");
        let is_true = || fs::read(&path).unwrap() == vec![b'f'; LEN];
        eventually(Duration::from_secs(10), "the pages are dropped", is_true);
        packed.assert_shown_in(mount.path(), &[]);
        packed.assert_shown_in(elsewhere.path(), &[]);
        assert!(contents(&packed.archive()) == stored, "the store is as it was");
        mount.unmount();
    }
    packed.assert_shown_in(packed.mount("").path(), &[]);
}

#[test]
fn with_strict_or_ro_nobody_gets_a_mapping_that_can_be_written() {
    let packed = archive();
    for options in ["strict", "ro", "strict,ro"] {
        let mount = packed.mount(options);
        let path = mount.file(DAY, "file");

        assert_eq!(scribble(0, &path, "w", "shared").stdout, "open failed: Read-only file system\n", "{options}");
        assert_eq!(scribble(0, &path, "r", "shared").stdout, "map failed: Permission denied\n", "{options}");

        packed.assert_shown_in(mount.path(), &[]);
    }
}

#[test]
fn without_strict_only_root_gets_one() {
    let packed = archive();
    let mount = packed.mount(&format!("allow_other,uid={SOMEBODY},gid={SOMEBODY}"));
    let path = mount.file(DAY, "file");

    for user in [SOMEBODY, NOBODY] {
        assert_eq!(scribble(user, &path, "w", "shared").stdout, "open failed: Permission denied\n");
        assert_eq!(scribble(user, &path, "r", "shared").stdout, "map failed: Permission denied\n");
    }

    packed.assert_shown_in(mount.path(), &[]);
}

#[test]
fn a_private_mapping_is_everyones_own() {
    let packed = archive();
    for options in ["allow_other", "allow_other,strict", "allow_other,ro"] {
        let mount = packed.mount(options);

        let outcome = scribble(NOBODY, &mount.file(DAY, "file"), "r", "private");

        assert_eq!(outcome.stdout, "all is done\n", "{options}");
        packed.assert_shown_in(mount.path(), &[]);
    }
}
