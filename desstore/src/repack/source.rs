//! The old shards: read once from the store into the spool, or where they lie, and proven.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU64;
use std::time::Duration;

use desfmt::ObjectKey;
use desfmt::document::ManifestShard;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::archive::ArchiveError;
use crate::clock::Clock;
use crate::local::LocalStore;
use crate::publish::ArchiveWriter;
use crate::repack::RepackSettings;
use crate::repack::local::{LocalShard, SpoolFile, spool_error};
use crate::rules::{Rule, keeps};
use crate::store::ObjectStore;

/// How much is read at a time.
const WINDOW_BYTES: u64 = 4 << 20;

/// How many windows are read side by side.
const WINDOWS: usize = 4;

/// An old shard in the spool.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) listed: ManifestShard,
    pub(super) shard: LocalShard,
}

impl ArchiveWriter {
    /// Reads shards whole and proves that they are what the manifest lists. The files have no names any more.
    pub(super) async fn fetch_sources(
        &self,
        shards: &[ManifestShard],
        settings: &RepackSettings,
    ) -> Result<Vec<Source>, ArchiveError> {
        let mut sources = Vec::with_capacity(shards.len());
        for listed in shards {
            let open = |file| {
                let shard = LocalShard::open(file, listed.key.to_string())?;
                self.check_identity(&listed.key, listed, &shard)?;
                Ok(Source { listed: listed.clone(), shard })
            };
            sources.push(self.fetch_healed(listed, settings, &open).await?);
        }
        Ok(sources)
    }

    /// Reads an object whole and opens it; where it is damaged, a copy of it in another store.
    pub(super) async fn fetch_healed<T: Send>(
        &self,
        listed: &ManifestShard,
        settings: &RepackSettings,
        open: &(dyn Fn(File) -> Result<T, ArchiveError> + Sync),
    ) -> Result<T, ArchiveError> {
        let own = match &settings.directory {
            Some(directory) => self.prove_in_place(directory, listed, settings).await.and_then(open),
            None => self.fetch_opened(self.store.as_ref(), listed, settings, open).await,
        };
        let damage = match own {
            Err(error) if error.is_damage() => error,
            other => return other,
        };
        for other in &settings.healers {
            match self.fetch_opened(other.as_ref(), listed, settings, open).await {
                Ok(source) => {
                    tracing::warn!(key = %listed.key, %damage, "the object is damaged; a copy elsewhere is not");
                    return Ok(source);
                }
                Err(error) => tracing::warn!(key = %listed.key, %error, "a copy cannot be used either"),
            }
        }
        Err(damage)
    }

    /// Opens an object that is a file of this machine and proves that it is what the manifest lists. It stays as it is
    /// while it is open, whoever removes it.
    async fn prove_in_place(
        &self,
        directory: &LocalStore,
        listed: &ManifestShard,
        settings: &RepackSettings,
    ) -> Result<File, ArchiveError> {
        let mut file = directory.open_object(&listed.key)?;
        let failed = |error| spool_error(&directory.root().join(listed.key.as_str()), error);
        check_len(&listed.key, file.metadata().map_err(failed)?.len(), listed.len, "the manifest")?;
        let mut proof = Proof::of(listed);
        let mut brake = Pace::new(settings.rate, self.clock.as_ref());
        let mut window = vec![0; usize::try_from(WINDOW_BYTES.min(listed.len)).unwrap_or(usize::MAX)];
        loop {
            let read = file.read(&mut window).map_err(failed)?;
            let Some(bytes) = window.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            proof.see(bytes);
            brake.passed(read).await;
        }
        proof.finish()?;
        Ok(file)
    }

    async fn fetch_opened<T: Send>(
        &self,
        store: &dyn ObjectStore,
        listed: &ManifestShard,
        settings: &RepackSettings,
        open: &(dyn Fn(File) -> Result<T, ArchiveError> + Sync),
    ) -> Result<T, ArchiveError> {
        let (place, file) = self.fetch_from(store, listed, settings).await?;
        let opened = open(file);
        drop(place);
        opened
    }

    /// Reads an object of this store whole into the spool and proves that it is what the manifest lists.
    pub(crate) async fn fetch_object(
        &self,
        listed: &ManifestShard,
        settings: &RepackSettings,
    ) -> Result<(SpoolFile, File), ArchiveError> {
        self.fetch_from(self.store.as_ref(), listed, settings).await
    }

    async fn fetch_from(
        &self,
        store: &dyn ObjectStore,
        listed: &ManifestShard,
        settings: &RepackSettings,
    ) -> Result<(SpoolFile, File), ArchiveError> {
        let mut proof = Proof::of(listed);
        let wanted = (&listed.key, listed.len, "the manifest");
        let fetched = self.fetch_into_spool(store, wanted, settings, &mut |bytes| proof.see(bytes)).await?;
        proof.finish()?;
        Ok(fetched)
    }

    /// Reads an object of a length that somebody tells into a new file of the spool; `see` gets all bytes in order.
    pub(super) async fn fetch_into_spool(
        &self,
        store: &dyn ObjectStore,
        (key, len, teller): (&ObjectKey, u64, &str),
        settings: &RepackSettings,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(SpoolFile, File), ArchiveError> {
        let meta = store.head(key).await?;
        check_len(key, meta.len, len, teller)?;
        let (place, mut file) = SpoolFile::create(&settings.spool, &self.fresh_name("old"))?;
        let mut brake = Pace::new(settings.rate, self.clock.as_ref());
        let starts = (0..len).step_by(usize::try_from(WINDOW_BYTES).unwrap_or(usize::MAX));
        let etag = &meta.etag;
        let mut windows = stream::iter(starts)
            .map(|start| store.get_range(key, start..start.saturating_add(WINDOW_BYTES).min(len), Some(etag)))
            .buffered(WINDOWS);
        while let Some(bytes) = windows.try_next().await? {
            see(&bytes);
            write(&mut file, &bytes, &place)?;
            brake.passed(bytes.len()).await;
        }
        drop(windows);
        Ok((place, file))
    }

    fn check_identity(&self, key: &ObjectKey, listed: &ManifestShard, shard: &LocalShard) -> Result<(), ArchiveError> {
        let (footer, lineage) = (shard.index().footer(), shard.index().lineage());
        if footer.shard_id != listed.shard || footer.archive != self.identity().archive {
            return Err(ArchiveError::inconsistent(key, "it is not the shard that the manifest lists"));
        }
        let serials_agree =
            if lineage.is_fresh() { listed.serials.len() == 1 } else { lineage.serials == listed.serials };
        if !serials_agree {
            return Err(ArchiveError::inconsistent(key, "its serials are not those that the manifest lists"));
        }
        Ok(())
    }

    /// A name for a file in the spool.
    pub(super) fn fresh_name(&self, what: &str) -> String {
        format!("{}-{what}.des", self.archive().new_operation())
    }
}

fn check_len(key: &ObjectKey, found: u64, told: u64, teller: &str) -> Result<(), ArchiveError> {
    if found == told {
        return Ok(());
    }
    Err(ArchiveError::inconsistent(key, format!("it has {found} bytes, {teller} says {told}")))
}

/// Whether bytes, seen in order, are those of an object that a manifest lists.
struct Proof<'a> {
    listed: &'a ManifestShard,
    hasher: blake3::Hasher,
}

impl<'a> Proof<'a> {
    fn of(listed: &'a ManifestShard) -> Self {
        Self { listed, hasher: blake3::Hasher::new() }
    }

    fn see(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    fn finish(self) -> Result<(), ArchiveError> {
        if keeps(Rule::SourceIsVerified) && self.hasher.finalize().to_hex().as_str() != self.listed.blake3 {
            let detail = "its bytes are not those that were published; it is left as it is, run des-verify";
            return Err(ArchiveError::inconsistent(&self.listed.key, detail));
        }
        Ok(())
    }
}

fn write(file: &mut File, bytes: &[u8], place: &SpoolFile) -> Result<(), ArchiveError> {
    file.write_all(bytes).map_err(|error| spool_error(place.path(), error))
}

/// Holds a transfer down to a rate.
pub(super) struct Pace<'a> {
    rate: Option<NonZeroU64>,
    clock: &'a dyn Clock,
    began: Duration,
    bytes: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(rate: Option<NonZeroU64>, clock: &'a dyn Clock) -> Self {
        Self { rate, clock, began: clock.monotonic(), bytes: 0 }
    }

    /// Waits until so many more bytes may have passed.
    pub(super) async fn passed(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let micros = u128::from(self.bytes).saturating_mul(1_000_000).checked_div(u128::from(rate.get()));
        let due = Duration::from_micros(u64::try_from(micros.unwrap_or(0)).unwrap_or(u64::MAX));
        let taken = self.clock.monotonic().saturating_sub(self.began);
        if let Some(early) = due.checked_sub(taken).filter(|early| !early.is_zero()) {
            self.clock.sleep(early).await;
        }
    }
}
