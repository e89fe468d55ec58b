//! Directories as the kernel hands them out: raw pages of getdents64, from any position, with a buffer of any size.

use std::mem::MaybeUninit;
use std::path::Path;

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, open, seek};

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// The inode number that the listing shows.
    pub inode: u64,
    /// Where the listing goes on after this entry.
    pub cookie: u64,
}

/// The entries of a directory after a position (0 is the beginning), read with a buffer of a size; without `.` and `..`.
#[track_caller]
pub fn list_from(path: &Path, position: u64, buffer_bytes: usize) -> Vec<Entry> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if position > 0 {
        seek(&directory, SeekFrom::Start(position)).expect("seekdir");
    }
    let mut buffer = vec![MaybeUninit::uninit(); buffer_bytes];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap_or_else(|error| panic!("listing {}: {error}", path.display()));
        let name = entry.file_name().to_str().expect("names are UTF-8").to_owned();
        if name != "." && name != ".." {
            found.push(Entry { name, inode: entry.ino(), cookie: entry.next_entry_cookie() });
        }
    }
    found
}
