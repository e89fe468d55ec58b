//! The operations of the kernel, one by one. What changes anything but by unlink and rmdir is answered with EROFS.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use crate::core::{Caller, FileSystem, FsError};
use crate::fuse::answer::{Answerer, Late, Terms};
use crate::fuse::attributes::{GENERATION, NO_ENTRY, file_attr, file_type};
use crate::fuse::invalidation::{Forget, Invalidator};
use crate::fuse::session::{ATTRIBUTES_TTL, Settings, configure};
use crate::limits::{ENTRIES_PER_PAGE, ENTRIES_PER_PAGE_PLUS, STATFS_PATIENCE, UNLINK_DEADLINE};

/// The longest name, as statfs(2) tells it.
const NAME_LEN_MAX: u32 = 255;

/// The unit in which statfs(2) counts.
const STATFS_BLOCK_BYTES: u32 = 4_096;

/// The file system as the kernel calls it.
#[derive(Debug)]
pub(super) struct Operations {
    core: Arc<FileSystem>,
    answerer: Answerer,
    invalidator: Invalidator,
    settings: Settings,
}

impl Operations {
    pub(super) fn new(core: Arc<FileSystem>, answerer: Answerer, invalidator: Invalidator, settings: Settings) -> Self {
        Self { core, answerer, invalidator, settings }
    }

    /// Short, since the kernel locks the directory meanwhile.
    fn terms_of_change(&self, operation: &'static str, late: Late) -> Terms {
        Terms { operation, deadline: self.settings.deadline.min(UNLINK_DEADLINE), late, has_substitute: false }
    }

    /// True when the program that asks is one that must not list. Asked once for each opening of a directory.
    fn is_denied(&self, request: &Request) -> bool {
        !self.settings.denied_programs.is_empty()
            && std::fs::read_to_string(format!("/proc/{}/comm", request.pid()))
                .is_ok_and(|name| self.settings.denied_programs.contains(name.trim_end()))
    }
}

impl Filesystem for Operations {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        configure(config);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (core, name) = (Arc::clone(&self.core), name.as_bytes().to_vec());
        let (known, lease) = (Arc::clone(&core), core.lease(parent.0, &name));
        self.answerer.answer("lookup", async move { core.lookup(parent.0, &name).await }, move |found| {
            let ttl = known.left_of(lease);
            match found {
                Ok(attributes) => reply.entry_with_ttls(&ATTRIBUTES_TTL, &ttl, &file_attr(&attributes), GENERATION),
                // Inode 0 with a time to live: the kernel remembers that there is no such name.
                Err(FsError::NoEntry) => reply.entry_with_ttls(&ATTRIBUTES_TTL, &ttl, &NO_ENTRY, GENERATION),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let core = Arc::clone(&self.core);
        self.answerer.answer("getattr", async move { core.attributes(inode.0).await }, move |found| match found {
            Ok(attributes) => reply.attr(&ATTRIBUTES_TTL, &file_attr(&attributes)),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if !self.settings.strict {
            // The kernel then never asks again, keeps pages over opens, and sends no release.
            return reply.error(Errno::ENOSYS);
        }
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0;
        if writes {
            return reply.error(Errno::EROFS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let core = Arc::clone(&self.core);
        self.answerer.answer("read", async move { core.read(inode.0, offset, size).await }, move |bytes| match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn opendir(&self, request: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.is_denied(request) {
            return reply.error(errno(&FsError::ProgramDenied));
        }
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let core = Arc::clone(&self.core);
        let work = async move { core.list(inode.0, offset, ENTRIES_PER_PAGE).await };
        self.answerer.answer("readdir", work, move |entries| match entries {
            Ok(entries) => {
                for entry in &entries {
                    let inode = INodeNo(entry.attributes.inode);
                    if reply.add(inode, entry.cookie.number(), file_type(entry.attributes.kind), &entry.name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readdirplus(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let core = Arc::clone(&self.core);
        let (known, lease) = (Arc::clone(&core), core.lease(inode.0, b""));
        let work = async move { core.list(inode.0, offset, ENTRIES_PER_PAGE_PLUS).await };
        self.answerer.answer("readdirplus", work, move |entries| match entries {
            Ok(entries) => {
                let ttl = known.left_of(lease);
                for entry in &entries {
                    let attributes = file_attr(&entry.attributes);
                    let cookie = entry.cookie.number();
                    if reply.add(attributes.ino, cookie, &entry.name, &ttl, &attributes, GENERATION) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (core, known) = (Arc::clone(&self.core), Arc::clone(&self.core));
        let work = async move { core.totals().await };
        // Whoever asks is mostly not after the totals, so that they must not hold anyone up.
        let (deadline, late) = (STATFS_PATIENCE, Late::Finish);
        let terms = Terms { operation: "statfs", deadline, late, has_substitute: true };
        self.answerer.answer_on(terms, work, move |totals| {
            let totals = totals.unwrap_or_else(|_| known.totals_known());
            let blocks = totals.stored_bytes.div_ceil(u64::from(STATFS_BLOCK_BYTES));
            reply.statfs(blocks, 0, 0, totals.files, 0, STATFS_BLOCK_BYTES, NAME_LEN_MAX, STATFS_BLOCK_BYTES);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (core, name, caller) = (Arc::clone(&self.core), name.as_bytes().to_vec(), caller(request));
        let (invalidator, tally) = (self.invalidator.clone(), Arc::clone(&self.settings.tally));
        let is_late = Arc::new(AtomicBool::new(false));
        let was_told_an_error = Arc::clone(&is_late);
        let work = async move {
            let gone = core.unlink(parent.0, &name, caller).await?;
            tally.deleted();
            // Told in time, the kernel forgets by itself. A message would wait for the directory that other deletions
            // lock, and a daemon that is killed while it waits never ends (see `invalidation`).
            if was_told_an_error.load(Ordering::SeqCst) {
                invalidator.send(Forget::Name(parent.0, name));
                invalidator.send(Forget::Content(gone.number()));
            }
            Ok(())
        };
        self.answerer.answer_on(self.terms_of_change("unlink", Late::Finish), work, move |done| {
            is_late.store(matches!(done, Err(FsError::DeadlineExceeded)), Ordering::SeqCst);
            acknowledge(done, reply);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (core, name, caller) = (Arc::clone(&self.core), name.as_bytes().to_vec(), caller(request));
        let work = async move { core.remove_directory(parent.0, &name, caller).await };
        self.answerer.answer_on(self.terms_of_change("rmdir", Late::Drop), work, move |done| acknowledge(done, reply));
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.settings.xattr {
            return reply.error(Errno::ENOSYS);
        }
        let (core, name) = (Arc::clone(&self.core), name.as_bytes().to_vec());
        let work = async move { core.extended_attribute(inode.0, &name).await };
        self.answerer.answer("getxattr", work, move |value| reply_xattr(value, size, reply));
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.settings.xattr {
            return reply.error(Errno::ENOSYS);
        }
        let core = Arc::clone(&self.core);
        let work = async move { core.extended_attribute_names(inode.0).await };
        self.answerer.answer("listxattr", work, move |names| reply_xattr(names, size, reply));
    }

    // Answered ENOSYS, these succeed without a request from then on; there is never anything to write back.

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if !self.core.has_journal() {
            return reply.error(Errno::ENOSYS);
        }
        let core = Arc::clone(&self.core);
        let work = async move { core.sync().await };
        let terms = Terms { deadline: self.settings.deadline, ..self.terms_of_change("fsyncdir", Late::Drop) };
        self.answerer.answer_on(terms, work, move |done| acknowledge(done, reply));
    }

    // The kernel does these by itself when told ENOSYS: permissions by mode, a file as one piece of data.

    fn access(&self, _: &Request, _: INodeNo, _: fuser::AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: fuser::ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // Everything else that would change something.

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Without `strict` root gets this far, and what was written may stand in the page cache.
        self.settings.tally.write_dropped();
        self.invalidator.send(Forget::Content(inode.0));
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}

fn caller(request: &Request) -> Caller {
    Caller { user: request.uid() }
}

fn acknowledge(done: Result<(), FsError>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

fn reply_xattr(value: Result<Vec<u8>, FsError>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            Ok(_) | Err(_) => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(errno(&error)),
    }
}

/// The number of an error.
fn errno(error: &FsError) -> Errno {
    Errno::from_i32(error.errno().raw_os_error())
}
