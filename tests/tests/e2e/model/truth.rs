//! The model: what a mount must show, by day and uid.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::steps::Content;

/// A file that is there.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// What it was packed from.
    pub(super) content: Content,
    /// Its bytes.
    pub(super) bytes: Rc<Vec<u8>>,
}

/// A day.
#[derive(Debug, Default)]
pub(super) struct Day {
    /// What is visible, by uid.
    pub(super) files: BTreeMap<&'static str, File>,
    /// Uids that were deleted and can never come back.
    deleted: BTreeSet<&'static str>,
    /// True since the mount deleted something here: then an empty day is shown until it is removed.
    is_thinned: bool,
    /// Where listings went on after a name, and its inode number; the same for as long as the archive lives.
    pub(super) known: BTreeMap<&'static str, (u64, u64)>,
}

impl Day {
    /// True when the root lists the day.
    pub(super) fn is_shown(&self) -> bool {
        self.is_thinned || !self.files.is_empty()
    }

    /// Packs a file; returns whether des-pack must call that a conflict or say that it was deleted.
    pub(super) fn pack(&mut self, uid: &'static str, content: Content) -> bool {
        if self.deleted.contains(uid) {
            return true;
        }
        if let Some(file) = self.files.get(uid) {
            return file.content != content;
        }
        self.files.insert(uid, File { content, bytes: Rc::new(content.bytes()) });
        false
    }

    /// Deletes a file here or elsewhere; returns whether it was there.
    pub(super) fn unlink(&mut self, uid: &'static str, is_here: bool) -> bool {
        let was_there = self.files.remove(uid).is_some();
        if was_there {
            self.deleted.insert(uid);
            self.is_thinned |= is_here;
        }
        was_there
    }

    /// Forgets what only the mount remembered.
    pub(super) fn forget_mount(&mut self) {
        self.is_thinned = false;
    }
}
