//! Directories: the root with its days, a day with its files. A listing resumes at any position, whatever was deleted,
//! packed or repacked meanwhile. A day is there for as long as something visible is in it.

use desfmt::Date;

use crate::core::{Attributes, FileSystem, FsError};
use crate::inode::{Cookie, Node, Resume};

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
        for date in days.iter().skip(first).copied() {
            if entries.len() >= count_max {
                break;
            }
            if self.is_worth_showing(date).await {
                let (cookie, attributes) = (Cookie::of_day(date), self.day_attributes(date));
                entries.push(DirectoryEntry { name: date.to_string(), cookie, attributes });
            }
        }
        Ok(entries)
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

    /// False for a day in which nothing is visible. A day that cannot be read is shown: whoever looks in learns of it.
    async fn is_worth_showing(&self, date: Date) -> bool {
        match self.archive.day_is_empty(date).await {
            Ok(is_empty) => !is_empty,
            Err(error) => {
                tracing::warn!(%date, %error, "the day cannot be read");
                true
            }
        }
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
