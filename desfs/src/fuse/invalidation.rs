//! Telling the kernel to forget: always from a thread of its own, since a message from within a request can wait for that
//! very request.
//!
//! A message about a name waits in the kernel for the lock of its directory, and one about contents for pages that are
//! being read: both are held by requests that this process is to answer. Killed in that moment, the thread cannot end, the
//! connection stays open, and whoever waits for an answer waits for ever (until `umount -f`). So there are no messages
//! about what happens all the time, and the kernel forgets by itself what it was told in time.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use fuser::{INodeNo, Notifier};

/// How many messages may wait. One that finds no room is dropped: names expire by themselves within `ttl`.
const MESSAGES_MAX: usize = 4_096;

/// What the kernel is to forget.
#[derive(Debug)]
pub(super) enum Forget {
    /// The attributes and pages of an inode.
    Content(u64),
    /// A name in a directory.
    Name(u64, Vec<u8>),
}

/// Where requests leave their messages.
#[derive(Debug, Clone)]
pub(super) struct Invalidator(SyncSender<Forget>);

impl Invalidator {
    /// A queue, and its end for [`run`].
    pub(super) fn new() -> (Self, Receiver<Forget>) {
        let (sender, receiver) = sync_channel(MESSAGES_MAX);
        (Self(sender), receiver)
    }

    /// Leaves a message; waits for room. Not for the threads that serve the kernel.
    pub(super) fn send_in_time(&self, message: Forget) {
        // Whoever reads them is gone when the kernel is.
        drop(self.0.send(message));
    }

    /// Leaves a message; never waits.
    pub(super) fn send(&self, message: Forget) {
        if let Err(TrySendError::Full(message)) = self.0.try_send(message) {
            tracing::debug!(?message, "too many invalidations; left to expire");
        }
    }
}

/// Sends the messages on until the queue is closed or the kernel is gone.
pub(super) fn run(messages: &Receiver<Forget>, notifier: &Notifier) {
    for message in messages {
        let sent = match &message {
            Forget::Content(inode) => notifier.inval_inode(INodeNo(*inode), 0, 0),
            Forget::Name(parent, name) => notifier.inval_entry(INodeNo(*parent), &OsString::from_vec(name.clone())),
        };
        if let Err(error) = sent {
            tracing::debug!(?message, %error, "invalidation not taken");
            if error.raw_os_error() == Some(libc::ENODEV) {
                return;
            }
        }
    }
}
