//! Sources beneath directories: whatever a row names, nothing outside of them is opened.
//!
//! The kernel resolves the whole path beneath the root (`openat2` with `RESOLVE_BENEATH`), so neither `..` nor a link that
//! is put in place meanwhile leads out of it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often an opening is tried that a renaming elsewhere disturbs.
const ATTEMPTS: u32 = 8;

/// Directories beneath which sources lie.
#[derive(Debug)]
pub struct Roots {
    roots: Vec<Root>,
    follow_links: bool,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    directory: OwnedFd,
}

/// A root that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the source root {}", path.display())]
pub struct RootError {
    /// Which.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// A source that cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeneathError {
    /// No root has it.
    #[error("the source lies beneath none of the roots")]
    Elsewhere,
    /// There is nothing of that name.
    #[error("the source does not exist")]
    Missing,
    /// A link, or a path that leads out of its root.
    #[error("the source is a symbolic link or lies behind one, which is not allowed")]
    Link,
    /// See the words.
    #[error("the source leads out of its root")]
    Outside,
    /// What the system says.
    #[error("the source cannot be opened: {0}")]
    System(Errno),
}

impl Roots {
    /// Opens the directories. `follow_links` allows symbolic links that stay beneath their root.
    pub fn open(paths: &[PathBuf], follow_links: bool) -> Result<Self, RootError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| {
            let opened = rustix::fs::open(path, flags, Mode::empty());
            let failed = |errno: Errno| RootError { path: path.clone(), source: errno.into() };
            Ok(Root { directory: opened.map_err(failed)?, path: path.clone() })
        };
        let mut roots = paths.iter().map(open).collect::<Result<Vec<_>, RootError>>()?;
        // The innermost root is the one that is meant.
        roots.sort_by_key(|root| std::cmp::Reverse(root.path.components().count()));
        Ok(Self { roots, follow_links })
    }

    /// The root that a path is meant to lie beneath, and the path from there. A relative path needs a single root.
    fn place<'a>(&self, path: &'a Path) -> Option<(&Root, &'a Path)> {
        if path.is_relative() {
            return match self.roots.as_slice() {
                [root] => Some((root, path)),
                _ => None,
            };
        }
        self.roots.iter().find_map(|root| Some((root, path.strip_prefix(&root.path).ok()?)))
    }

    /// Opens a file for reading; never waits for a pipe.
    pub fn open_file(&self, path: &Path) -> Result<File, BeneathError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let (root, inside) = self.place(path).ok_or(BeneathError::Elsewhere)?;
        self.open_beneath(root, inside, flags).map(File::from)
    }

    /// Opens the directory that holds a file, and says the name of the file in it.
    pub fn open_parent(&self, path: &Path) -> Result<(OwnedFd, OsString), BeneathError> {
        let (root, inside) = self.place(path).ok_or(BeneathError::Elsewhere)?;
        let Some(Component::Normal(name)) = inside.components().next_back() else {
            return Err(BeneathError::Missing);
        };
        let parent = inside.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((self.open_beneath(root, parent, flags)?, name.to_owned()))
    }

    fn open_beneath(&self, root: &Root, inside: &Path, flags: OFlags) -> Result<OwnedFd, BeneathError> {
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if !self.follow_links {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            return match rustix::fs::openat2(&root.directory, inside, flags, Mode::empty(), resolve) {
                Ok(file) => Ok(file),
                Err(Errno::AGAIN | Errno::INTR) if attempts < ATTEMPTS => continue,
                Err(Errno::NOENT | Errno::NOTDIR) => Err(BeneathError::Missing),
                Err(Errno::LOOP) => Err(BeneathError::Link),
                Err(Errno::XDEV) => Err(BeneathError::Outside),
                Err(other) => Err(BeneathError::System(other)),
            };
        }
    }
}

/// Opens a file wherever it lies; the last part of its path must not be a symbolic link.
pub(super) fn open_anywhere(path: &Path) -> Result<File, BeneathError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::LOOP) => Err(BeneathError::Link),
        Err(other) => Err(BeneathError::System(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(roots: &Roots, path: impl AsRef<Path>) -> Result<String, BeneathError> {
        let mut text = String::new();
        roots.open_file(path.as_ref())?.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn nothing_outside_of_the_root_is_opened() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/file"), "inside").unwrap();
        fs::write(place.path().join("secret"), "outside").unwrap();
        symlink("../../secret", root.join("a/out")).unwrap();
        symlink("file", root.join("a/in")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        let strict = Roots::open(std::slice::from_ref(&root), false).unwrap();
        let lenient = Roots::open(std::slice::from_ref(&root), true).unwrap();

        for roots in [&strict, &lenient] {
            assert_eq!(read(roots, root.join("a/file")).unwrap(), "inside");
            assert_eq!(read(roots, "a/../a/file").unwrap(), "inside");
            assert_eq!(read(roots, root.join("../secret")), Err(BeneathError::Outside));
            assert_eq!(read(roots, place.path().join("secret")), Err(BeneathError::Elsewhere));
            assert_eq!(read(roots, root.join("a/none")), Err(BeneathError::Missing));
        }
        for link in ["a/out", "a/in", "etc/passwd"] {
            assert_eq!(read(&strict, link), Err(BeneathError::Link), "{link}");
        }
        assert_eq!(read(&lenient, "a/in").unwrap(), "inside");
        assert_eq!(read(&lenient, "a/out"), Err(BeneathError::Outside));
        assert_eq!(read(&lenient, "etc/passwd"), Err(BeneathError::Outside));
    }

    #[test]
    fn a_file_is_found_again_by_its_parent() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/file"), "1").unwrap();
        let roots = Roots::open(&[root.path().to_owned()], false).unwrap();

        let (parent, name) = roots.open_parent(&root.path().join("a/file")).unwrap();
        rustix::fs::unlinkat(parent, name, rustix::fs::AtFlags::empty()).unwrap();

        assert!(!root.path().join("a/file").try_exists().unwrap());
        assert_eq!(roots.open_parent(Path::new("..")).unwrap_err(), BeneathError::Missing);
    }
}
