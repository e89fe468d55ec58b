//! What a mount does, and what it may be told: names, contents and deletions, held against what is true.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use desfmt::{Birth, Timestamp, Uid};

use super::dice::Dice;
use super::files::{day, is_content_of};
use super::jobs::GRACE;
use super::process::{Process, Trouble};
use crate::archive::{Archive, ArchiveError, Deleted, Deletion, FileEntry};

/// How long a mount may go without looking.
const TTL: Duration = Duration::from_mins(1);

/// Longer than any file.
const SIZE_MAX: usize = 1 << 20;

/// What was known when an operation began.
struct Beginning {
    at: Timestamp,
    troubles: u64,
}

/// A mount for as long as it lives.
struct Mount {
    process: Arc<Process>,
    archive: Arc<Archive>,
    /// Files that are open.
    open: Vec<(Uid, Birth)>,
}

/// `desfs`: so many operations on some of the files.
pub(super) async fn mount(
    process: Arc<Process>,
    uids: Vec<Uid>,
    mut dice: Dice,
    operations: u64,
) -> Result<(), Trouble> {
    let archive = process.mount().await?;
    let mut mount = Mount { process, archive, open: Vec::new() };
    for _ in 0..operations {
        let uid = &uids[dice.place(uids.len())];
        match dice.below(10) {
            0..=2 => drop(mount.look_up(uid).await?),
            3..=5 => mount.read(uid).await?,
            6 => mount.list().await?,
            7 => mount.read_open(&mut dice).await?,
            _ => mount.delete(uid).await?,
        }
    }
    Ok(())
}

/// `rm` of one file.
pub(super) async fn delete(process: Arc<Process>, uid: Uid) -> Result<(), Trouble> {
    let archive = process.mount().await?;
    Mount { process, archive, open: Vec::new() }.delete(&uid).await
}

/// Everything that a fresh mount shows, read to the last byte.
pub(super) async fn read_all(process: Arc<Process>, uids: Vec<Uid>) -> Result<(), Trouble> {
    let archive = process.mount().await?;
    let mut mount = Mount { process, archive, open: Vec::new() };
    mount.list().await?;
    for uid in &uids {
        mount.read(uid).await?;
    }
    Ok(())
}

impl Mount {
    fn begin(&self) -> Beginning {
        Beginning { at: self.process.shared.now(), troubles: self.process.troubles.load(Ordering::Relaxed) }
    }

    async fn look_up(&self, uid: &Uid) -> Result<Option<FileEntry>, Trouble> {
        let began = self.begin();
        match self.archive.lookup(day(), uid).await {
            Ok(Some(file)) => {
                self.may_be_shown(uid.as_str(), &began)?;
                self.is_born_as_ever(&file)?;
                Ok(Some(file))
            }
            Ok(None) => {
                self.may_be_absent(uid.as_str(), &began)?;
                Ok(None)
            }
            Err(error) => {
                self.may_fail(&error, &began)?;
                Ok(None)
            }
        }
    }

    async fn read(&mut self, uid: &Uid) -> Result<(), Trouble> {
        let Some(file) = self.look_up(uid).await? else { return Ok(()) };
        self.open.push((uid.clone(), file.birth));
        self.read_birth(uid, file.birth).await
    }

    async fn read_open(&self, dice: &mut Dice) -> Result<(), Trouble> {
        let Some((uid, birth)) = self.open.get(dice.place(self.open.len())) else { return Ok(()) };
        self.read_birth(uid, *birth).await
    }

    async fn read_birth(&self, uid: &Uid, birth: Birth) -> Result<(), Trouble> {
        let began = self.begin();
        let bytes = match self.archive.read(day(), birth, 0, SIZE_MAX).await {
            Ok(bytes) => bytes,
            // Deleted while it was open, and its bytes are gone.
            Err(ArchiveError::Gone { .. }) if self.is_deleted(uid.as_str()) => return Ok(()),
            Err(error) => return self.may_fail(&error, &began),
        };
        let seen = self.process.shared.book().oracle.files.get(uid.as_str()).copied();
        let is_right = is_content_of(uid.as_str(), &bytes)
            && (self.is_deleted(uid.as_str()) || seen.is_some_and(|seen| seen.digest == blake3::hash(&bytes)));
        if is_right {
            return Ok(());
        }
        self.violated(&format!("G4: {uid} was read with other bytes: {:?}", String::from_utf8_lossy(&bytes)))
    }

    async fn list(&self) -> Result<(), Trouble> {
        let began = self.begin();
        let mut names = BTreeSet::new();
        let mut after = None;
        loop {
            let page = match self.archive.list(day(), after, 3).await {
                Ok(page) => page,
                Err(error) => return self.may_fail(&error, &began),
            };
            let Some(last) = page.last() else { break };
            after = Some(last.birth);
            for file in &page {
                self.may_be_shown(file.uid.as_str(), &began)?;
                self.is_born_as_ever(file)?;
                if !names.insert(file.uid.to_string()) {
                    return self.violated(&format!("{} was listed twice", file.uid));
                }
            }
        }
        let visible: Vec<String> = self.process.shared.book().oracle.visible().map(|(uid, _)| uid.clone()).collect();
        visible.iter().filter(|uid| !names.contains(*uid)).try_for_each(|uid| self.may_be_absent(uid, &began))
    }

    async fn delete(&self, uid: &Uid) -> Result<(), Trouble> {
        let began = self.begin();
        match self.archive.delete(day(), uid, &Deletion::default()).await {
            Ok(Deleted::Now) => {
                let mut book = self.process.shared.book();
                book.oracle.check_deleted(uid.as_str()).map_err(Trouble::Violated)?;
                let acknowledged = (self.process.shared.now(), Arc::clone(&self.process.name));
                book.deleted.entry(uid.to_string()).or_default().push(acknowledged);
                Ok(())
            }
            Ok(Deleted::NotFound) => self.may_be_absent(uid.as_str(), &began),
            Err(error) => self.may_fail(&error, &began),
        }
    }

    fn is_deleted(&self, uid: &str) -> bool {
        self.process.shared.book().oracle.is_deleted(uid)
    }

    fn violated(&self, what: &str) -> Result<(), Trouble> {
        Err(Trouble::Violated(format!("{}: {what}", self.process.name)))
    }

    /// A file is shown unless this mount has deleted it, or another one longer than `ttl` ago.
    fn may_be_shown(&self, uid: &str, began: &Beginning) -> Result<(), Trouble> {
        let book = self.process.shared.book();
        let is_late = |(at, by): &&(Timestamp, Arc<str>)| {
            *at <= began.at && (*by == self.process.name || began.at.since(*at) >= TTL)
        };
        let Some((at, by)) = book.deleted.get(uid).and_then(|all| all.iter().find(is_late)).cloned() else {
            return Ok(());
        };
        drop(book);
        let ago = began.at.since(at).as_secs();
        self.violated(&format!("G2: {uid} is shown although {by} has deleted it {ago} s before"))
    }

    /// A file that has been visible for longer than `ttl` and is not deleted is there.
    fn may_be_absent(&self, uid: &str, began: &Beginning) -> Result<(), Trouble> {
        let book = self.process.shared.book();
        let since = book.oracle.visible().find(|(visible, _)| *visible == uid).map(|(_, seen)| seen.since);
        drop(book);
        match since {
            Some(since) if since <= began.at && began.at.since(since) >= TTL => {
                self.violated(&format!("G1: {uid} is not shown, though it is visible"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn is_born_as_ever(&self, file: &FileEntry) -> Result<(), Trouble> {
        let seen = self.process.shared.book().oracle.files.get(file.uid.as_str()).copied();
        if self.is_deleted(file.uid.as_str()) || seen.is_some_and(|seen| seen.birth == file.birth) {
            return Ok(());
        }
        self.violated(&format!("{} is shown with the birth {:?} and has {seen:?}", file.uid, file.birth))
    }

    /// An error is allowed to those for whom something went wrong, or who slept for long.
    fn may_fail(&self, error: &ArchiveError, began: &Beginning) -> Result<(), Trouble> {
        let is_excused = self.process.has_excuse(began.troubles)
            || self.process.shared.now().since(began.at) >= GRACE / 2
            || !self.process.shared.book().oracle.lost.is_empty();
        if is_excused {
            return Ok(());
        }
        self.violated(&format!("a read failed though nothing went wrong: {error}"))
    }
}
