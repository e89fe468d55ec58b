//! What an archive holds in all, for statfs(2): summed over the manifests, each read again only when it has changed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use desfmt::document::{self, DOCUMENT_LEN_MAX, Manifest};
use desfmt::{Date, layout};

use crate::archive::error::ArchiveError;
use crate::archive::{Archive, DAYS_MAX};
use crate::store::{Depth, ETag, list_all};

/// What an archive holds. Deleted files count until a repack takes their bytes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// How many files its live shards hold.
    pub files: u64,
    /// Their plain size, in bytes.
    pub plain_bytes: u64,
    /// The size of the shards, in bytes.
    pub stored_bytes: u64,
}

/// How old a sum may be.
const AGE_MAX: Duration = Duration::from_mins(5);

#[derive(Debug, Default)]
pub(crate) struct TotalsBook {
    known: Mutex<Option<(Totals, Duration)>>,
    days: tokio::sync::Mutex<HashMap<Date, (ETag, Totals)>>,
}

impl TotalsBook {
    /// Sums anew when asked next.
    pub(crate) fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Archive {
    /// What the archive holds, as of at most five minutes ago. The first call reads every manifest.
    pub async fn totals(&self) -> Result<Totals, ArchiveError> {
        let now = self.clock.monotonic();
        let known = *self.totals.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((totals, at)) = known
            && now.saturating_sub(at) < AGE_MAX
        {
            return Ok(totals);
        }
        let totals = if self.is_legacy() { self.sum_legacy().await? } else { self.sum_manifests().await? };
        *self.totals.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((totals, now));
        Ok(totals)
    }

    async fn sum_manifests(&self) -> Result<Totals, ArchiveError> {
        let store = self.store.as_ref();
        let mut days = self.totals.days.lock().await;
        let mut sum = Totals::default();
        for object in list_all(store, layout::MANIFESTS, Depth::Direct, DAYS_MAX).await? {
            let Some(date) = layout::parse_manifest(object.key.as_str()) else { continue };
            let totals = match days.get(&date) {
                Some((etag, totals)) if *etag == object.etag => *totals,
                _ => {
                    let fetched = store.get(&object.key, DOCUMENT_LEN_MAX).await?;
                    let manifest: Manifest =
                        document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(&object.key, error))?;
                    let totals = of_manifest(&manifest);
                    days.insert(date, (fetched.meta.etag, totals));
                    totals
                }
            };
            sum.files = sum.files.saturating_add(totals.files);
            sum.plain_bytes = sum.plain_bytes.saturating_add(totals.plain_bytes);
            sum.stored_bytes = sum.stored_bytes.saturating_add(totals.stored_bytes);
        }
        Ok(sum)
    }
}

fn of_manifest(manifest: &Manifest) -> Totals {
    manifest.shards.iter().fold(Totals::default(), |sum, shard| Totals {
        files: sum.files.saturating_add(u64::from(shard.entries)),
        plain_bytes: sum.plain_bytes.saturating_add(shard.plain_len),
        stored_bytes: sum.stored_bytes.saturating_add(shard.len),
    })
}
