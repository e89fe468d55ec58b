//! What stat(2) shows.

use desfmt::Date;
use desfmt::v3::Mtime;
use desstore::FileEntry;

use crate::core::FileSystem;
use crate::inode::Node;

/// A directory or a regular file; there is nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The root or a day.
    Directory,
    /// A file.
    File,
}

/// The attributes of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The inode number.
    pub inode: u64,
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes.
    pub len: u64,
    /// When it was last changed; all times are this one.
    pub mtime: Mtime,
    /// Its permission bits.
    pub mode: u16,
    /// How many names it has.
    pub links: u32,
    /// Its owner.
    pub owner: u32,
    /// Its group.
    pub group: u32,
}

/// Whom everything belongs to and what they may do: the mount options `uid`, `gid`, `umask` and `exec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// The owner of all.
    pub owner: u32,
    /// The group of all.
    pub group: u32,
    /// True when `gid=` was given: the group may then delete too.
    pub group_may_delete: bool,
    /// Bits that are taken away.
    pub umask: u16,
    /// True with `exec`: files can be run.
    pub exec: bool,
}

impl FileSystem {
    pub(super) fn root_attributes(&self) -> Attributes {
        // One link: the number of days changes, and 1 tells programs not to count on it, as on btrfs.
        self.directory(Node::Root, Mtime { seconds: 0, nanos: 0 }, 0o755, 1)
    }

    pub(super) fn day_attributes(&self, date: Date) -> Attributes {
        let mode = match (self.can_delete(), self.modes.group_may_delete) {
            (true, true) => 0o775,
            (true, false) => 0o755,
            (false, _) => 0o555,
        };
        self.directory(Node::Day(date), Mtime { seconds: date.start().seconds(), nanos: 0 }, mode, 2)
    }

    pub(super) fn file_attributes(&self, date: Date, file: &FileEntry) -> Attributes {
        let mode = if self.modes.exec { 0o555 } else { 0o444 };
        Attributes {
            inode: Node::File(date, file.birth).number(),
            kind: Kind::File,
            len: file.len,
            mtime: file.mtime,
            mode: mode & !self.modes.umask,
            links: 1,
            owner: self.modes.owner,
            group: self.modes.group,
        }
    }

    fn directory(&self, node: Node, mtime: Mtime, mode: u16, links: u32) -> Attributes {
        Attributes {
            inode: node.number(),
            kind: Kind::Directory,
            len: 0,
            mtime,
            mode: mode & !self.modes.umask,
            links,
            owner: self.modes.owner,
            group: self.modes.group,
        }
    }
}
