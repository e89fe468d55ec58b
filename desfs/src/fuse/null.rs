//! A file system that does nothing: a computed tree whose files share one buffer, behind the same library with the same
//! settings. What it reaches is what the kernel and the library allow; benches divide by it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request,
};

use crate::core::{Attributes, Kind};
use crate::fuse::attributes::{GENERATION, NO_ENTRY, file_attr};
use crate::fuse::invalidation::Invalidator;
use crate::fuse::session::{ATTRIBUTES_TTL, REQUEST_BYTES_MAX, Session, configure, session_config};
use desfmt::v3::Mtime;

/// The tree: one directory `all` with files `f0000000`, `f0000001`, ...
#[derive(Debug)]
pub struct NullTree {
    file_count: u64,
    file_len: u64,
    /// What every read is answered from; no longer than the longest answer.
    content: Vec<u8>,
    name_ttl: Duration,
}

const ROOT: u64 = 1;
const DIRECTORY: u64 = 2;
const FIRST_FILE: u64 = 16;

impl NullTree {
    /// A tree of so many files of so many bytes.
    pub fn new(file_count: u64, file_len: u64, name_ttl: Duration) -> Self {
        let content_len = file_len.min(u64::from(REQUEST_BYTES_MAX));
        let content = vec![0x5a; usize::try_from(content_len).unwrap_or_default()];
        Self { file_count, file_len, content, name_ttl }
    }

    fn attributes(&self, inode: u64) -> Option<Attributes> {
        let is_directory = inode == ROOT || inode == DIRECTORY;
        if !is_directory && !self.is_file(inode) {
            return None;
        }
        Some(Attributes {
            inode,
            kind: if is_directory { Kind::Directory } else { Kind::File },
            len: if is_directory { 0 } else { self.file_len },
            mtime: Mtime { seconds: 1_700_000_000, nanos: 0 },
            mode: if is_directory { 0o755 } else { 0o444 },
            links: if is_directory { 2 } else { 1 },
            owner: 0,
            group: 0,
        })
    }

    fn is_file(&self, inode: u64) -> bool {
        inode.checked_sub(FIRST_FILE).is_some_and(|number| number < self.file_count)
    }

    fn file_name(&self, inode: u64) -> Option<String> {
        self.is_file(inode).then(|| format!("f{:07}", inode - FIRST_FILE))
    }

    fn inode_of(&self, parent: u64, name: &OsStr) -> Option<u64> {
        match parent {
            ROOT if name == "all" => Some(DIRECTORY),
            DIRECTORY => {
                let inode = name.to_str()?.strip_prefix('f')?.parse::<u64>().ok()?.checked_add(FIRST_FILE)?;
                (self.file_name(inode)?.as_str() == name).then_some(inode)
            }
            _ => None,
        }
    }

    /// The entries of a directory after a position.
    fn entries(&self, directory: u64, position: u64) -> Box<dyn Iterator<Item = (u64, String)> + '_> {
        match directory {
            ROOT => Box::new((position == 0).then(|| (DIRECTORY, "all".to_owned())).into_iter()),
            _ => Box::new(
                (position.saturating_add(1).max(FIRST_FILE)..)
                    .map_while(|inode| self.file_name(inode).map(|name| (inode, name))),
            ),
        }
    }
}

impl Filesystem for NullTree {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        configure(config);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.inode_of(parent.0, name).and_then(|inode| self.attributes(inode));
        let attributes = found.map_or(NO_ENTRY, |attributes| file_attr(&attributes));
        reply.entry_with_ttls(&ATTRIBUTES_TTL, &self.name_ttl, &attributes, GENERATION);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode.0) {
            Some(attributes) => reply.attr(&ATTRIBUTES_TTL, &file_attr(&attributes)),
            None => reply.error(Errno::ESTALE),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = self.file_len.saturating_sub(offset).min(u64::from(size));
        reply.data(self.content.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(&self.content));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for (entry, name) in self.entries(inode.0, offset) {
            let kind = if entry == DIRECTORY { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(entry), entry, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        for (entry, name) in self.entries(inode.0, offset) {
            let Some(attributes) = self.attributes(entry) else { break };
            if reply.add(INodeNo(entry), entry, name, &self.name_ttl, &file_attr(&attributes), GENERATION) {
                break;
            }
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}

/// Serves the tree on a mounted `/dev/fuse`.
pub fn serve_null(device: OwnedFd, tree: NullTree) -> io::Result<Session> {
    let session = fuser::Session::from_fd(tree, device, fuser::SessionACL::All, session_config())?;
    // Nothing here is ever to be forgotten.
    Session::run(session, Invalidator::new().0)
}
