//! A shard object looked into by its own words, whatever any manifest says of it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use desfmt::v3::{ColdPage, Entry, FOOTER_LEN, Footer, IndexPage, PageNumber, ShardIndex};
use desfmt::{Digest, FormatError, ObjectKey};

use crate::archive::ArchiveError;
use crate::store::{ObjectMeta, ObjectStore};

/// How much of the end of an object is read at first; the tails of most shards are shorter.
const TAIL_GUESS: u64 = 64 << 10;

/// A shard whose tail is loaded.
#[derive(Debug)]
pub(crate) struct ShardObject {
    pub(crate) meta: ObjectMeta,
    pub(crate) index: ShardIndex,
    /// The page that was read last: those who ask for uids in order find most of them in it.
    last: Option<(PageNumber, Arc<EntryPage>)>,
}

/// Some of a shard's entries with their digests.
#[derive(Debug)]
pub(crate) struct EntryPage {
    index: IndexPage,
    cold: ColdPage,
}

impl EntryPage {
    /// Entries with their digests, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Entry, Digest)> {
        (0..self.index.len()).filter_map(|place| self.index.entry(place).zip(self.cold.digest(place)))
    }

    fn find(&self, uid: &str) -> Option<(Entry, Digest)> {
        let place = self.index.lower_bound(uid);
        (self.index.entry_uid(place)? == uid).then(|| self.index.entry(place).zip(self.cold.digest(place)))?
    }
}

impl ShardObject {
    /// Opens an object: one request, or two where its tail is long.
    pub(crate) async fn open(store: &dyn ObjectStore, key: &ObjectKey) -> Result<Self, ArchiveError> {
        let damaged = |error: FormatError| ArchiveError::damaged(key, error);
        let mut fetched = store.get_tail(key, TAIL_GUESS).await?;
        let start = fetched.bytes.len().saturating_sub(FOOTER_LEN);
        let footer = Footer::decode(fetched.bytes.get(start..).unwrap_or_default()).map_err(damaged)?;
        if footer.tail_len > TAIL_GUESS {
            fetched = store.get_tail(key, footer.tail_len).await?;
        }
        let index = ShardIndex::open(fetched.bytes, fetched.meta.len).map_err(damaged)?;
        Ok(Self { meta: fetched.meta, index, last: None })
    }

    /// Its key.
    pub(crate) const fn key(&self) -> &ObjectKey {
        &self.meta.key
    }

    /// Reads a page of entries: one request, or two where index pages are not part of the tail.
    pub(crate) async fn page(
        &mut self,
        store: &dyn ObjectStore,
        number: PageNumber,
    ) -> Result<Arc<EntryPage>, ArchiveError> {
        if let Some((_, page)) = self.last.as_ref().filter(|(last, _)| *last == number) {
            return Ok(Arc::clone(page));
        }
        let bytes = match self.index.resident_index_page(number) {
            Some(bytes) => bytes,
            None => self.read(store, self.index.index_page_range(number)).await?,
        };
        let damaged = |error: FormatError| ArchiveError::damaged(&self.meta.key, error);
        let index = self.index.decode_index_page(number, &bytes).map_err(damaged)?;
        let bytes = self.read(store, self.index.cold_page_range(number)).await?;
        let cold = self.index.decode_cold_page(number, &bytes).map_err(damaged)?;
        let page = Arc::new(EntryPage { index, cold });
        self.last = Some((number, Arc::clone(&page)));
        Ok(page)
    }

    /// Looks for a uid; its entry and digest.
    pub(crate) async fn find(
        &mut self,
        store: &dyn ObjectStore,
        uid: &str,
    ) -> Result<Option<(Entry, Digest)>, ArchiveError> {
        let Some(number) = self.index.page_of_uid(uid) else { return Ok(None) };
        Ok(self.page(store, number).await?.find(uid))
    }

    /// The numbers of its pages.
    pub(crate) fn pages(&self) -> impl Iterator<Item = PageNumber> + use<> {
        (0..self.index.index_pages()).map(PageNumber)
    }

    /// The entries of an index page without their digests. No request where index pages are part of the tail.
    pub(crate) async fn index_page(
        &self,
        store: &dyn ObjectStore,
        number: PageNumber,
    ) -> Result<IndexPage, ArchiveError> {
        let bytes = match self.index.resident_index_page(number) {
            Some(bytes) => bytes,
            None => self.read(store, self.index.index_page_range(number)).await?,
        };
        self.index.decode_index_page(number, &bytes).map_err(|error| ArchiveError::damaged(&self.meta.key, error))
    }

    async fn read(&self, store: &dyn ObjectStore, range: Option<Range<u64>>) -> Result<Bytes, ArchiveError> {
        let missing = || ArchiveError::inconsistent(&self.meta.key, "a page was looked for that it does not have");
        Ok(store.get_range(&self.meta.key, range.ok_or_else(missing)?, Some(&self.meta.etag)).await?)
    }
}
