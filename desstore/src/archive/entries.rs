//! From a name or a birth number to the entry of a file.

use std::sync::Arc;

use desfmt::{Birth, Bucket, Date, Timestamp, Uid, bucket_of, v3};

use crate::archive::error::ArchiveError;
use crate::archive::legacy::LegacyFile;
use crate::archive::shard::Index;
use crate::archive::{Archive, Day, DayShard, OpenShard};

/// A file as a directory shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name.
    pub uid: Uid,
    /// Where it was born; the same for ever.
    pub birth: Birth,
    /// Its size in bytes.
    pub len: u64,
    /// When its source was last changed.
    pub mtime: v3::Mtime,
    /// When it was created, as its manifest or database said.
    pub created_at: Timestamp,
}

/// An entry and where its content lies.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) shard: Arc<OpenShard>,
    pub(crate) file: FileEntry,
    pub(crate) content: Content,
}

/// Where the content of a file lies within its shard.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A range of the shard's stream, and the entry's position, which its digest is found by.
    Stream { offset: u64, position: u32 },
    /// A payload of the ancestor.
    Legacy(LegacyFile),
}

/// Where the content of a file lies, for who knows the file already.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shard: Arc<OpenShard>,
    pub(crate) len: u64,
    pub(crate) content: Content,
}

impl Located {
    pub(crate) fn paged(shard: &Arc<OpenShard>, entry: v3::Entry, serial: u32) -> Self {
        let birth = Birth { serial, ordinal: entry.ordinal };
        let file =
            FileEntry { uid: entry.uid, birth, len: entry.len, mtime: entry.mtime, created_at: entry.created_at };
        let content = Content::Stream { offset: entry.offset, position: entry.position };
        Self { shard: Arc::clone(shard), file, content }
    }
}

/// Runs an operation, and once more with a fresh look at the day where that may explain its failure. The second failure
/// is the truth. (A macro, since closures that return futures cannot promise to be `Send` yet.)
macro_rules! settled {
    ($archive:expr, $date:expr, $operation:expr) => {
        match $operation.await {
            Err(error) if error.may_be_stale() => {
                $archive.look_again($date, &error).await?;
                $operation.await.map_err(|error| error.unexplained($date))
            }
            other => other,
        }
    };
}
pub(crate) use settled;

impl Archive {
    /// Finds a visible file by its name.
    ///
    /// With the indexes cached no request, with nothing cached four in three round trips and one more for each further
    /// candidate shard.
    pub async fn lookup(&self, date: Date, uid: &Uid) -> Result<Option<FileEntry>, ArchiveError> {
        settled!(self, date, self.lookup_once(date, uid))
    }

    async fn lookup_once(&self, date: Date, uid: &Uid) -> Result<Option<FileEntry>, ArchiveError> {
        let Some(day) = self.day(date).await? else { return Ok(None) };
        let Ok(bucket) = bucket_of(uid.as_str(), self.bits()) else { return Ok(None) };
        if self.is_tombstoned(&day.tombstones, uid.as_str()) {
            return Ok(None);
        }
        Ok(self.find(&day, bucket, uid.as_str()).await?.map(|located| located.file))
    }

    /// Finds a visible file by the head of its uid and a test for the whole: for names too long to be shown.
    /// `prefix` is what the uid begins with.
    pub async fn lookup_cut(
        &self,
        date: Date,
        bucket: Bucket,
        prefix: &str,
        is_wanted: &(dyn Fn(&Uid) -> bool + Sync),
    ) -> Result<Option<FileEntry>, ArchiveError> {
        let Some(day) = self.day(date).await? else { return Ok(None) };
        for shard in day.group(bucket.number()).iter().filter(|shard| !day.is_deleted(shard)) {
            let open = self.open_shard(shard).await?;
            let found = self.find_prefixed(shard, &open, prefix, is_wanted).await?;
            if let Some(located) =
                found.filter(|located| !self.is_tombstoned(&day.tombstones, located.file.uid.as_str()))
            {
                return Ok(Some(located.file));
            }
        }
        Ok(None)
    }

    /// Finds a file by its birth number, deleted or not, as long as its bytes are there.
    pub async fn file(&self, date: Date, birth: Birth) -> Result<Option<FileEntry>, ArchiveError> {
        Ok(settled!(self, date, self.locate(date, birth))?.map(|located| located.file))
    }

    /// Looks at the day afresh after an object of the last look was gone or replaced: a repack may have swapped it.
    pub(crate) async fn look_again(&self, date: Date, error: &ArchiveError) -> Result<(), ArchiveError> {
        tracing::debug!(%date, %error, "looking again");
        if let ArchiveError::Store(error) = error {
            // Another version of it may lie there.
            self.forget_object(date, error.key());
        }
        self.day_now(date).await.map(drop)
    }

    /// Finds an entry of a group, whether it is deleted or not. The oldest split wins.
    pub(crate) async fn find(&self, day: &Day, bucket: Bucket, uid: &str) -> Result<Option<Located>, ArchiveError> {
        let candidates: Vec<_> = day.candidates(bucket.number(), uid).collect();
        if let [only] = candidates.as_slice() {
            return self.find_in(only, uid).await;
        }
        let found = futures_util::future::try_join_all(candidates.iter().map(|shard| self.find_in(shard, uid))).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Finds an entry in one shard.
    pub(crate) async fn find_in(&self, shard: &DayShard, uid: &str) -> Result<Option<Located>, ArchiveError> {
        let open = self.open_shard(shard).await?;
        let index = match &open.index {
            Index::Paged(index) => index,
            Index::Legacy(legacy) => return Ok(legacy.find(&open, shard, uid)),
        };
        let Some(page) = index.page_of_uid(uid) else { return Ok(None) };
        let page = self.index_page(&open, index, page).await?;
        page.find(uid).map(|entry| located(&open, shard, entry)).transpose()
    }

    /// True when an opened shard holds an entry of this uid.
    pub(crate) async fn holds(&self, open: &OpenShard, uid: &str) -> Result<bool, ArchiveError> {
        let index = match &open.index {
            Index::Paged(index) => index,
            Index::Legacy(legacy) => return Ok(legacy.holds(uid)),
        };
        let Some(page) = index.page_of_uid(uid) else { return Ok(false) };
        Ok(self.index_page(open, index, page).await?.find(uid).is_some())
    }

    async fn find_prefixed(
        &self,
        shard: &DayShard,
        open: &Arc<OpenShard>,
        prefix: &str,
        is_wanted: &(dyn Fn(&Uid) -> bool + Sync),
    ) -> Result<Option<Located>, ArchiveError> {
        let index = match &open.index {
            Index::Paged(index) => index,
            Index::Legacy(legacy) => return Ok(legacy.find_prefixed(open, shard, prefix, is_wanted)),
        };
        // A prefix that sorts before the first page may still begin a uid of it.
        let first = index.page_of_uid(prefix).map_or(0, |page| page.0);
        for number in first..index.index_pages() {
            let page = self.index_page(open, index, v3::PageNumber(number)).await?;
            for at in page.lower_bound(prefix)..page.len() {
                let Some(entry) = page.entry(at) else { break };
                if !entry.uid.as_str().starts_with(prefix) {
                    return Ok(None);
                }
                if is_wanted(&entry.uid) {
                    return located(open, shard, entry).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Finds where the content of a birth number lies. As [`Archive::locate`], but without making an entry.
    pub(crate) async fn locate_content(&self, date: Date, birth: Birth) -> Result<Option<Place>, ArchiveError> {
        let Some(day) = self.day(date).await? else { return Ok(None) };
        let Some((shard, origin)) = day.holder(birth.serial) else { return Ok(None) };
        let shard = self.open_shard(&shard).await?;
        let index = match &shard.index {
            Index::Paged(index) => index,
            Index::Legacy(legacy) => {
                let located = legacy.by_ordinal(&shard, birth);
                return Ok(located.map(|located| Place { shard, len: located.file.len, content: located.content }));
            }
        };
        let Some(number) = index.page_of_birth(origin, birth.ordinal) else { return Ok(None) };
        let page = self.index_page(&shard, index, number).await?;
        let found = page.find_content(origin, birth.ordinal);
        Ok(found.map(|(position, place)| {
            let content = Content::Stream { offset: place.offset, position };
            Place { shard, len: place.len, content }
        }))
    }

    /// Finds an entry by its birth number.
    pub(crate) async fn locate(&self, date: Date, birth: Birth) -> Result<Option<Located>, ArchiveError> {
        let Some(day) = self.day(date).await? else { return Ok(None) };
        let Some((shard, origin)) = day.holder(birth.serial) else { return Ok(None) };
        let open = self.open_shard(&shard).await?;
        let index = match &open.index {
            Index::Paged(index) => index,
            Index::Legacy(legacy) => return Ok(legacy.by_ordinal(&open, birth)),
        };
        let Some(page) = index.page_of_birth(origin, birth.ordinal) else { return Ok(None) };
        let page = self.index_page(&open, index, page).await?;
        Ok(page.find_birth(origin, birth.ordinal).map(|entry| Located::paged(&open, entry, birth.serial)))
    }
}

/// An entry with its serial, which the manifest knows.
pub(crate) fn located(open: &Arc<OpenShard>, shard: &DayShard, entry: v3::Entry) -> Result<Located, ArchiveError> {
    let Some(serial) = shard.serials.get(usize::from(entry.origin)) else {
        let detail = format!("an entry is of origin {}, the manifest lists {}", entry.origin, shard.serials.len());
        return Err(ArchiveError::inconsistent(&open.key, detail));
    };
    Ok(Located::paged(open, entry, *serial))
}
