//! Directories: the root with its days, a day with its files. A listing resumes at any position, whatever was deleted,
//! packed or repacked meanwhile.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use desfmt::Date;
use futures_util::future::join_all;

use crate::core::{Attributes, FileSystem, FsError};
use crate::inode::{Cookie, Node, Resume};
use crate::limits::DAYS_AT_ONCE;

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name.
    pub name: String,
    /// The position after this entry.
    pub cookie: Cookie,
    /// Its attributes. The inode number is the one that stat(2) shows.
    pub attributes: Attributes,
}

/// Days that this mount has deleted from. Such a day is there until rmdir(2), also when it is empty: `rm -r` looks its
/// directory up again after the last file has gone.
#[derive(Debug, Default)]
pub(super) struct ThinnedDays(Mutex<BTreeSet<Date>>);

impl ThinnedDays {
    fn contains(&self, date: Date) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&date)
    }

    pub(super) fn insert(&self, date: Date) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(date);
    }

    pub(super) fn remove(&self, date: Date) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&date);
    }
}

impl FileSystem {
    /// The next entries of a directory after a position, at most `count_max` of them and `.` and `..`; none at the end.
    pub async fn list(&self, inode: u64, position: u64, count_max: usize) -> Result<Vec<DirectoryEntry>, FsError> {
        match self.node(inode)? {
            Node::Root => self.list_days(position, count_max).await,
            Node::Day(date) => self.list_files(date, position, count_max).await,
            Node::File(..) => Err(FsError::NotADirectory),
        }
    }

    async fn list_days(&self, position: u64, count_max: usize) -> Result<Vec<DirectoryEntry>, FsError> {
        let resume = Cookie::resume_root(position);
        let mut entries = special_entries(&resume, self.root_attributes(), self.root_attributes());
        let days = self.archive.days().await?;
        let first = match resume {
            Resume::After(date) => days.partition_point(|day| *day <= date),
            Resume::AtDot | Resume::AtDotDot | Resume::AtFirst => 0,
        };
        for dates in days.get(first..).unwrap_or_default().chunks(DAYS_AT_ONCE) {
            let shown = join_all(dates.iter().map(|date| self.is_day_listed(*date))).await;
            let shown = dates.iter().zip(shown).filter(|(_, is_shown)| *is_shown).map(|(date, _)| *date);
            for date in shown.take(count_max.saturating_sub(entries.len())) {
                let (cookie, attributes) = (Cookie::of_day(date), self.day_attributes(date));
                entries.push(DirectoryEntry { name: date.to_string(), cookie, attributes });
            }
            if entries.len() >= count_max {
                break;
            }
        }
        Ok(entries)
    }

    /// True for a day that the root lists. One that cannot be read is: whoever looks in learns of it.
    async fn is_day_listed(&self, date: Date) -> bool {
        if self.thinned_days.contains(date) {
            return true;
        }
        self.archive.day_is_listed(date).await.unwrap_or_else(|error| {
            tracing::warn!(%date, %error, "the day cannot be read");
            true
        })
    }

    async fn list_files(&self, date: Date, position: u64, count_max: usize) -> Result<Vec<DirectoryEntry>, FsError> {
        let resume = Cookie::resume_day(position);
        let mut entries = special_entries(&resume, self.day_attributes(date), self.root_attributes());
        let after = match resume {
            Resume::After(birth) => Some(birth),
            Resume::AtDot | Resume::AtDotDot | Resume::AtFirst => None,
        };
        let files = self.archive.list(date, after, count_max).await?;
        entries.extend(files.iter().map(|file| DirectoryEntry {
            name: self.naming.encode(&file.uid),
            cookie: Cookie::of_birth(file.birth),
            attributes: self.file_attributes(date, file),
        }));
        Ok(entries)
    }

    /// True for a day in which something is visible, or was until this mount deleted it.
    pub(super) async fn is_day_shown(&self, date: Date) -> Result<bool, FsError> {
        Ok(self.thinned_days.contains(date) || !self.archive.day_is_empty(date).await?)
    }
}

/// `.` and `..`, where the listing has not passed them yet.
fn special_entries<T>(resume: &Resume<T>, own: Attributes, parent: Attributes) -> Vec<DirectoryEntry> {
    let dot = DirectoryEntry { name: ".".to_owned(), cookie: Cookie::DOT, attributes: own };
    let dot_dot = DirectoryEntry { name: "..".to_owned(), cookie: Cookie::DOT_DOT, attributes: parent };
    match resume {
        Resume::AtDot => vec![dot, dot_dot],
        Resume::AtDotDot => vec![dot_dot],
        Resume::AtFirst | Resume::After(_) => Vec::new(),
    }
}
