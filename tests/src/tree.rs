//! Comparing trees: as ordinary programs see them, and byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{command, run};

/// The paths of all regular files below a directory, relative to it, sorted.
pub fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            let kind = entry.file_type().expect("type of an entry");
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path().strip_prefix(root).expect("below the root").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// All files below a directory and what is in them. For small trees.
pub fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| {
        let bytes = fs::read(root.join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, bytes)
    };
    files_below(root).into_iter().map(read).collect()
}

/// Lets the programs that people use compare a mount with the tree that it must look like.
#[track_caller]
pub fn assert_programs_agree(expected: &Path, mount: &Path) {
    let diff = run(command("diff").arg("-r").args([expected, mount]));
    assert_eq!((diff.code(), diff.stdout.as_str(), diff.stderr.as_str()), (0, "", ""), "diff -r");

    let sums = tempfile::NamedTempFile::new().expect("file of sums");
    let summed = "find . -type f -print0 | sort -z | xargs -0 sha256sum";
    fs::write(sums.path(), run(&mut in_shell(expected, summed)).success().stdout).expect("file of sums");
    let checked =
        run(command("sha256sum").args(["--check", "--quiet", "--strict"]).arg(sums.path()).current_dir(mount));
    assert_eq!((checked.code(), checked.stdout.as_str()), (0, ""), "sha256sum --check");

    let mut rsync = command("rsync");
    rsync.args([
        "--recursive",
        "--checksum",
        "--times",
        "--omit-dir-times",
        "--dry-run",
        "--delete",
        "--itemize-changes",
    ]);
    let mut mount_contents = mount.as_os_str().to_owned();
    let mut expected_contents = expected.as_os_str().to_owned();
    mount_contents.push("/");
    expected_contents.push("/");
    let transfers = run(rsync.arg(mount_contents).arg(expected_contents)).success();
    assert_eq!(transfers.stdout, "", "rsync --checksum");

    for (what, script) in [
        ("find", "find . -type f -printf '%P %s %T@\\n' | sort"),
        (
            "grep -r",
            "(grep -rlaF 'the GNU General Public License' . || test $? = 1) | sort; \
             (grep -rac invoice . || test $? = 1) | sort | sha256sum",
        ),
        (
            "tar",
            "tar --sort=name --hard-dereference --numeric-owner --owner=0 --group=0 --mode=0444 --mtime=@0 -cf - . | sha256sum",
        ),
    ] {
        let (theirs, ours) = (run(&mut in_shell(expected, script)), run(&mut in_shell(mount, script)));
        let (theirs, ours) = (theirs.success(), ours.success());
        assert_eq!(theirs.stderr + &ours.stderr, "", "{what}");
        assert!(theirs.stdout == ours.stdout, "{what}: {}", first_difference(&theirs.stdout, &ours.stdout));
    }
}

fn in_shell(directory: &Path, script: &str) -> Command {
    let mut bash = command("bash");
    bash.args(["-o", "pipefail", "-euc", script]).current_dir(directory);
    bash
}

fn first_difference(expected: &str, found: &str) -> String {
    let differs = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    differs.map_or_else(
        || format!("{} lines are expected, {} found", expected.lines().count(), found.lines().count()),
        |(expected, found)| format!("{expected:?} is expected, {found:?} found"),
    )
}
