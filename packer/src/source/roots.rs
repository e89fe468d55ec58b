//! Sources beneath directories: whatever a row names, nothing outside of them is opened.
//!
//! The kernel resolves the whole path beneath the root (`openat2` with `RESOLVE_BENEATH`), so neither `..` nor a link that
//! is put in place meanwhile leads out of it. Where a sandbox takes that call away, as `RestrictSUIDSGID=` of systemd does,
//! a path is walked part by part, no part of it being a link.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often an opening is tried that a renaming elsewhere disturbs.
const ATTEMPTS: u32 = 8;

/// Directories beneath which sources lie.
#[derive(Debug)]
pub struct Roots {
    beneath: Vec<Root>,
    follow_links: bool,
    resolver: Resolver,
}

/// Who keeps paths beneath their roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolver {
    /// openat2(2), Linux 5.6.
    Kernel,
    /// One openat(2) a part.
    Walk,
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
        let is_taken_away = |root: &Root| {
            let probe = rustix::fs::openat2(&root.directory, ".", flags, Mode::empty(), ResolveFlags::BENEATH);
            matches!(probe, Err(Errno::NOSYS | Errno::PERM))
        };
        let taken_away = roots.iter().find(|root| is_taken_away(root));
        if let Some(root) = taken_away.filter(|_| follow_links) {
            let why = "symbolic links can be followed safely only with openat2(2), which is not to be had here: it needs \
                       Linux 5.6, and a unit of systemd must not have RestrictSUIDSGID=yes";
            return Err(RootError { path: root.path.clone(), source: io::Error::new(io::ErrorKind::Unsupported, why) });
        }
        let resolver = if taken_away.is_some() { Resolver::Walk } else { Resolver::Kernel };
        Ok(Self { beneath: roots, follow_links, resolver })
    }

    /// The root that a path is meant to lie beneath, and the path from there. A relative path needs a single root.
    fn place<'a>(&self, path: &'a Path) -> Option<(&Root, &'a Path)> {
        if path.is_relative() {
            return match self.beneath.as_slice() {
                [root] => Some((root, path)),
                _ => None,
            };
        }
        self.beneath.iter().find_map(|root| Some((root, path.strip_prefix(&root.path).ok()?)))
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
        match self.resolver {
            Resolver::Kernel => self.open_by_kernel(root, inside, flags),
            Resolver::Walk => open_by_walk(root, inside, flags),
        }
    }

    fn open_by_kernel(&self, root: &Root, inside: &Path, flags: OFlags) -> Result<OwnedFd, BeneathError> {
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

/// Goes down from the root, and up again only where it came from. No part of the path may be a link.
fn open_by_walk(root: &Root, inside: &Path, flags: OFlags) -> Result<OwnedFd, BeneathError> {
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut parts = inside.components().peekable();
    while let Some(part) = parts.next() {
        let name = match part {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            Component::ParentDir if way.pop().is_some() => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(BeneathError::Outside),
        };
        let parent = way.last().unwrap_or(&root.directory);
        let is_last = parts.peek().is_none();
        let how = if is_last { flags } else { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC };
        let opened = rustix::fs::openat(parent, name, how | OFlags::NOFOLLOW, Mode::empty());
        let is_link = || {
            let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
            found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink)
        };
        let next = opened.map_err(|errno| match errno {
            Errno::LOOP => BeneathError::Link,
            // A link where a directory must be.
            Errno::NOTDIR if is_link() => BeneathError::Link,
            Errno::NOENT | Errno::NOTDIR => BeneathError::Missing,
            other => BeneathError::System(other),
        })?;
        if is_last {
            return Ok(next);
        }
        way.push(next);
    }
    let last = way.last().unwrap_or(&root.directory);
    rustix::fs::openat(last, ".", flags, Mode::empty()).map_err(BeneathError::System)
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

    /// As where openat2 is taken away.
    fn walking(root: &Path) -> Roots {
        Roots { resolver: Resolver::Walk, ..Roots::open(&[root.to_owned()], false).unwrap() }
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

        let walking = walking(&root);

        for roots in [&strict, &lenient, &walking] {
            assert_eq!(read(roots, root.join("a/file")).unwrap(), "inside");
            assert_eq!(read(roots, "a/../a/file").unwrap(), "inside");
            assert_eq!(read(roots, root.join("../secret")), Err(BeneathError::Outside));
            assert_eq!(read(roots, place.path().join("secret")), Err(BeneathError::Elsewhere));
            assert_eq!(read(roots, root.join("a/none")), Err(BeneathError::Missing));
        }
        for link in ["a/out", "a/in", "etc/passwd"] {
            assert_eq!(read(&strict, link), Err(BeneathError::Link), "{link}");
            assert_eq!(read(&walking, link), Err(BeneathError::Link), "{link}");
        }
        assert_eq!(read(&lenient, "a/in").unwrap(), "inside");
        assert_eq!(read(&lenient, "a/out"), Err(BeneathError::Outside));
        assert_eq!(read(&lenient, "etc/passwd"), Err(BeneathError::Outside));
    }

    #[test]
    fn a_file_is_found_again_by_its_parent() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        for roots in [Roots::open(&[root.path().to_owned()], false).unwrap(), walking(root.path())] {
            for file in ["a/file", "file"] {
                let path = root.path().join(file);
                fs::write(&path, "1").unwrap();

                let (parent, name) = roots.open_parent(&path).unwrap();
                rustix::fs::unlinkat(parent, name, AtFlags::empty()).unwrap();

                assert!(!path.try_exists().unwrap());
            }
            assert_eq!(roots.open_parent(Path::new("..")).unwrap_err(), BeneathError::Missing);
        }
    }
}
