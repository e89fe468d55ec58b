//! Listings in the order of keys, with a page as the bound of memory, however many files a directory holds.

use std::collections::BinaryHeap;

use desfmt::ObjectKey;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::failure::Failure;
use super::root::Root;
use super::version::FileVersion;
use crate::error::StoreErrorKind;
use crate::store::{Depth, ObjectMeta, Page};

/// Lists the keys that begin with `prefix` and come after `after`, at most `page_len` of them.
pub(super) fn list(
    root: &Root,
    prefix: &str,
    depth: Depth,
    after: Option<&str>,
    page_len: usize,
) -> Result<Page, Failure> {
    let (directory, name_prefix) = prefix.rsplit_once('/').map_or(("", prefix), |(directory, name)| (directory, name));
    if !(prefix == name_prefix || is_listed(directory)) {
        return Ok(Page { objects: Vec::new(), next: None });
    }
    let path = if prefix == name_prefix { String::new() } else { format!("{directory}/") };
    if after.is_some_and(|after| *after > *path && !after.starts_with(&path)) {
        return Ok(Page { objects: Vec::new(), next: None });
    }
    let mut walk = Walk { root, depth, after, page_len, objects: Vec::new(), is_full: false };
    match root.open_directory(directory) {
        Ok(directory) => walk.directory(&directory, &path, name_prefix)?,
        Err(failure) if failure.kind == StoreErrorKind::NotFound => {}
        Err(failure) => return Err(failure),
    }
    if walk.objects.is_empty() {
        root.check_present(prefix)?;
    }
    let next = walk.objects.last().filter(|_| walk.is_full).map(|last| last.key.to_string());
    Ok(Page { objects: walk.objects, next })
}

struct Walk<'a> {
    root: &'a Root,
    depth: Depth,
    after: Option<&'a str>,
    page_len: usize,
    objects: Vec<ObjectMeta>,
    is_full: bool,
}

/// A name in a directory, a `/` at its end where it is a directory, so that names sort as the keys below them.
type Name = String;

impl Walk<'_> {
    /// Lists what is below `path` (empty, or ending in `/`) as far as names begin with `name_prefix`.
    fn directory(&mut self, directory: &OwnedFd, path: &str, name_prefix: &str) -> Result<(), Failure> {
        let mut passed: Option<Name> = None;
        loop {
            let (names, is_cut) = self.smallest_names(directory, path, name_prefix, passed.as_deref())?;
            for name in &names {
                if self.is_full {
                    return Ok(());
                }
                match name.strip_suffix('/') {
                    Some(_) => self.subdirectory(path, name)?,
                    None => self.file(directory, path, name)?,
                }
            }
            if self.is_full || !is_cut {
                return Ok(());
            }
            passed = names.into_iter().next_back();
        }
    }

    /// Reads the directory once and keeps the smallest names that still matter, without copying the others.
    fn smallest_names(
        &self,
        directory: &OwnedFd,
        path: &str,
        name_prefix: &str,
        passed: Option<&str>,
    ) -> Result<(Vec<Name>, bool), Failure> {
        let failure = |errno| self.root.failure(errno, path);
        // Directories above the last key of the page before are entered again; nothing before it is.
        let after = self.after.and_then(|after| after.strip_prefix(path));
        let mut smallest: BinaryHeap<Name> = BinaryHeap::new();
        let mut is_cut = false;
        for entry in Dir::read_from(directory).map_err(failure)? {
            let entry = entry.map_err(failure)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !name.starts_with(name_prefix) || name.starts_with('.') {
                continue;
            }
            let is_full = smallest.len() >= self.page_len;
            if is_full && smallest.peek().is_some_and(|largest| *name > **largest) {
                is_cut = true;
                continue;
            }
            let Some(name) = self.classify(directory, path, name, entry.file_type())? else { continue };
            let is_listed =
                after.is_some_and(|after| *name <= *after && !(name.ends_with('/') && after.starts_with(&name)));
            if is_listed || passed.is_some_and(|passed| *name <= *passed) {
                continue;
            }
            smallest.push(name);
            if is_full {
                smallest.pop();
                is_cut = true;
            }
        }
        Ok((smallest.into_sorted_vec(), is_cut))
    }

    /// The name as it sorts; `None` for what is neither an object nor a directory to look into.
    fn classify(&self, directory: &OwnedFd, path: &str, name: &str, kind: FileType) -> Result<Option<Name>, Failure> {
        let failure = |errno| self.root.failure(errno, &format!("{path}{name}"));
        let mut kind = kind;
        if kind == FileType::Unknown {
            kind = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(failure(errno)),
            };
        }
        match kind {
            FileType::RegularFile => Ok(Some(name.to_owned())),
            FileType::Directory if self.depth == Depth::Recursive => Ok(Some(format!("{name}/"))),
            // What lies behind it would be missing from the list without a word.
            FileType::Symlink => Err(failure(Errno::LOOP)),
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Ok(None),
        }
    }

    fn subdirectory(&mut self, path: &str, name: &str) -> Result<(), Failure> {
        let path = format!("{path}{name}");
        if path.len() > ObjectKey::LEN_MAX {
            return Ok(());
        }
        match self.root.open_directory(path.trim_end_matches('/')) {
            Ok(directory) => self.directory(&directory, &path, ""),
            Err(failure) if failure.kind == StoreErrorKind::NotFound => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn file(&mut self, directory: &OwnedFd, path: &str, name: &str) -> Result<(), Failure> {
        let Ok(key) = ObjectKey::new(&format!("{path}{name}")) else { return Ok(()) };
        let version = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileVersion::of(&stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(self.root.failure(errno, key.as_str())),
        };
        let Some(version) = version else { return Ok(()) };
        self.objects.push(version.meta(key));
        self.is_full = self.objects.len() >= self.page_len;
        Ok(())
    }
}

/// True for the keys that a local store has: names with a leading dot are its own.
pub(super) fn is_listed(key: &str) -> bool {
    key.split('/').all(|segment| !segment.is_empty() && !segment.starts_with('.'))
}
