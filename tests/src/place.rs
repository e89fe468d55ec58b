//! Where the tests put things: all below the target directory, on the disk that holds it, but for mount points.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The directory that cargo builds into; its `debug` (or another profile's directory) holds the programs.
pub fn target_dir() -> PathBuf {
    crate::programs_dir().parent().expect("the programs lie below the target directory").to_path_buf()
}

/// A directory of its own on a real disk, removed when dropped.
pub fn scratch() -> TempDir {
    let root = target_dir().join("test-scratch");
    fs::create_dir_all(&root).expect("scratch root");
    TempDir::new_in(root).expect("scratch directory")
}

/// An empty directory that every user can reach.
pub fn mount_point() -> TempDir {
    let point = tempfile::Builder::new().prefix("des-mount-").tempdir().expect("mount point");
    fs::set_permissions(point.path(), Permissions::from_mode(0o755)).expect("mode of the mount point");
    point
}

/// A directory that is made once and kept between runs. `make` fills an empty directory.
pub fn data_set(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let root = target_dir().join("test-data");
    fs::create_dir_all(&root).expect("root of the data sets");
    let lock = File::create(root.join(format!("{name}.lock"))).expect("lock of the data set");
    lock.lock().expect("lock of the data set");
    let finished = root.join(name);
    if !finished.try_exists().expect("data set") {
        let partial = root.join(format!("{name}.partial"));
        if partial.try_exists().expect("partial data set") {
            fs::remove_dir_all(&partial).expect("removing a partial data set");
        }
        fs::create_dir(&partial).expect("partial data set");
        make(&partial);
        fs::rename(&partial, &finished).expect("finishing a data set");
    }
    finished
}

/// An archive that the Python ancestor wrote.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden").join(name)
}
