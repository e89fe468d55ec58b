//! What can be mounted: a directory, a bucket or several zones with a DES archive, or with flat shards of the ancestor.

use std::path::Path;
use std::sync::Arc;

use desfmt::{BucketBits, layout};
use desstore::config::{ArchiveConfig, ConfigError, is_config_name};
use desstore::stack::StackMetrics;
use desstore::{
    Archive, ArchiveError, Clock, ConnectError, Depth, DiskCache, DiskCacheOptions, LocalStore, Location, ObjectStore,
    ReadOptions, StoreError, StoreOptions, Surroundings, SystemRandom,
};

use crate::cli::environment;
use crate::exit::{Failure, reason_of};
use crate::limits::DISK_CACHE_SHARE;
use crate::memory::{self, Cgroup};
use crate::options::MountOptions;

/// Where an archive lies, and how it is reached if that is said with it, as by a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source(Location, Option<StoreOptions>);

/// A source that can be read.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The archive.
    pub archive: Arc<Archive>,
    /// The directory it lies in, if it lies in one.
    pub local: Option<LocalStore>,
}

/// A source that cannot be read.
#[derive(Debug, Clone)]
pub struct OpenError {
    /// Why, in words.
    pub failure: Failure,
    /// The archive's own reason, where there is an archive.
    pub error: Option<ArchiveError>,
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        Self { failure, error: None }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        error.failure
    }
}

/// What a place holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// A DES archive: there is a `des.json`.
    Archive,
    /// Shards of the ancestor, without one.
    Legacy,
    /// What is left of an archive that has lost its `des.json`.
    Remains,
    /// Nothing of the kind.
    Nothing,
}

impl Source {
    /// Understands a source as typed.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let path = Path::new(text);
        if is_config_name(path) && path.is_file() {
            return Self::configured(path).map_err(|error| Failure::usage(reason_of(&error)));
        }
        Location::parse(text)
            .map(|location| Self(location, None))
            .map_err(|error| Failure::usage(format!("source {error}")))
    }

    /// Understands a configuration file.
    pub(crate) fn configured(path: &Path) -> Result<Self, ConfigError> {
        let (location, options) = ArchiveConfig::load(path, &environment)?.place(path)?;
        Ok(Self::placed(location, options))
    }

    /// A place of which it is known how it is reached.
    pub(crate) const fn placed(location: Location, options: StoreOptions) -> Self {
        Self(location, Some(options))
    }

    /// True for a bucket of which the options of the mount say how it is reached.
    pub(crate) const fn takes_options(&self) -> bool {
        matches!(self, Self(Location::S3(_), None))
    }

    /// How the place is reached: as the configuration file says, or else the options of the mount.
    fn store_options<'a>(&'a self, options: &'a MountOptions) -> Result<&'a StoreOptions, Failure> {
        match &self.1 {
            None => Ok(&options.store),
            Some(configured) if options.store == StoreOptions::default() => Ok(configured),
            Some(_) => Err(Failure::usage(
                "a configuration file, or the environment, says where the archive lies; it says how it is reached too, and not behind -o",
            )),
        }
    }

    /// How many bits an archive of the ancestor has.
    fn legacy_bits(&self, options: &MountOptions) -> BucketBits {
        match &self.0 {
            Location::Zones(zoned) => zoned.map.bits_of_ancestor(),
            Location::Local(_) | Location::S3(_) => options.legacy_bits,
        }
    }

    /// What metrics call the place.
    pub const fn backend(&self) -> &'static str {
        match &self.0 {
            Location::Local(_) => "local",
            Location::S3(_) => "s3",
            Location::Zones(_) => "multi_s3",
        }
    }

    /// Opens the archive.
    pub async fn open(&self, options: &MountOptions, clock: Arc<dyn Clock>) -> Result<Opened, OpenError> {
        self.open_counting(options, clock, StackMetrics::unregistered()).await
    }

    /// The same, with requests counted.
    pub async fn open_counting(
        &self,
        options: &MountOptions,
        clock: Arc<dyn Clock>,
        metrics: StackMetrics,
    ) -> Result<Opened, OpenError> {
        let known = self.0.local_path().map(examine).transpose()?;
        let random = Arc::new(SystemRandom);
        let surroundings = Surroundings::new(Arc::clone(&clock), Arc::<SystemRandom>::clone(&random)).counting(metrics);
        let connected =
            self.0.connect(self.store_options(options)?, &surroundings).await.map_err(|error| self.refused(&error))?;
        let read = self.read_options(options, &clock);
        let (store, local) = (connected.store, connected.local);
        let unusable = |error: ArchiveError| OpenError { failure: self.failed(&reason_of(&error)), error: Some(error) };
        let archive = if known == Some(Contents::Legacy) {
            None
        } else {
            let found = Archive::open_existing(
                Arc::clone(&store),
                read.clone(),
                Arc::clone(&clock),
                Arc::<SystemRandom>::clone(&random),
            );
            found.await.map_err(unusable)?
        };
        if let Some(archive) = archive {
            return Ok(Opened { archive, local });
        }
        let contents = match known {
            Some(contents) => contents,
            None => survey(store.as_ref()).await.map_err(|error| unusable(error.into()))?,
        };
        self.demand_legacy(contents)?;
        let archive = Archive::open_legacy(store, self.legacy_bits(options), read, clock, random);
        Ok(Opened { archive, local })
    }

    /// How the archive is to be read: what memory there is is shared out between the caches.
    fn read_options(&self, options: &MountOptions, clock: &Arc<dyn Clock>) -> ReadOptions {
        let memory_bytes = memory::budget(options.memory_bytes, Cgroup::find().and_then(|cgroup| cgroup.limit()));
        let store_is_near = self.0.is_local();
        // What lies on a local disk already needs no copy there.
        let directory = options.cache_directory.as_ref().filter(|_| !store_is_near);
        let disk_cache = directory.and_then(|directory| {
            let of_disk_cache = DiskCacheOptions::new(directory, options.cache_bytes, memory_bytes / DISK_CACHE_SHARE);
            DiskCache::open(&of_disk_cache, Arc::clone(clock))
                .inspect_err(
                    |error| tracing::warn!(cache_dir = %directory.display(), %error, "reading without a cache on disk"),
                )
                .ok()
        });
        let for_disk_cache = disk_cache.as_ref().map_or(0, |_| memory_bytes / DISK_CACHE_SHARE);
        ReadOptions {
            ttl: options.ttl,
            memory_bytes: memory_bytes.saturating_sub(for_disk_cache),
            store_is_near,
            disk_cache,
        }
    }

    fn failed(&self, reason: &str) -> Failure {
        Failure::mount(format!("source {}: {reason}", self.0))
    }

    fn refused(&self, error: &ConnectError) -> Failure {
        match error {
            ConnectError::Store { source, .. } => self.failed(&reason_of(source)),
            ConnectError::Zones { source, .. } => self.failed(&reason_of(source)),
            ConnectError::Options { reason, .. } => Failure::usage(format!("source {}: {reason}", self.0)),
        }
    }

    /// Without a `des.json` only an archive of the ancestor can be mounted.
    fn demand_legacy(&self, contents: Contents) -> Result<(), Failure> {
        let (shown, identity) = (&self.0, layout::identity());
        match contents {
            Contents::Legacy => Ok(()),
            Contents::Remains => Err(Failure::mount(format!("source {shown} has lost its {identity}; restore it"))),
            // It was there a moment ago, where it is known to be an archive.
            Contents::Nothing | Contents::Archive => Err(Failure::mount(format!(
                "source {shown} holds neither {identity} nor *.des shards; make an archive with: des-pack --archive {shown} ..."
            ))),
        }
    }
}

fn examine(directory: &Path) -> Result<Contents, Failure> {
    let shown = directory.display();
    let entries = std::fs::read_dir(directory).map_err(|error| {
        let remedy = if error.kind() == std::io::ErrorKind::NotADirectory { "; a source is a directory" } else { "" };
        Failure::mount(format!("source {shown}: {error}{remedy}"))
    })?;
    let (mut has_shards, mut has_remains) = (false, false);
    for entry in entries {
        let name = entry.map_err(|error| Failure::mount(format!("source {shown}: {}", reason_of(&error))))?.file_name();
        if name == layout::identity().as_str() {
            return Ok(Contents::Archive);
        }
        has_remains |= [layout::MANIFESTS, layout::SHARDS].iter().any(|prefix| name == prefix.trim_end_matches('/'));
        has_shards |= is_shard(Path::new(&name));
    }
    Ok(match (has_shards, has_remains) {
        (true, _) => Contents::Legacy,
        (false, true) => Contents::Remains,
        (false, false) => Contents::Nothing,
    })
}

/// What a store without a `des.json` holds. A few listings, of a page each.
async fn survey(store: &dyn ObjectStore) -> Result<Contents, StoreError> {
    // While it is adopted it is still the ancestor's.
    let is_being_adopted = store.head(&layout::adoption()).await.is_ok();
    for prefix in [layout::MANIFESTS, layout::SHARDS] {
        if !is_being_adopted && !store.list(prefix, Depth::Recursive, None).await?.objects.is_empty() {
            return Ok(Contents::Remains);
        }
    }
    let mut token: Option<String> = None;
    for _ in 0..SURVEY_PAGES {
        let page = store.list("", Depth::Direct, token.as_deref()).await?;
        if page.objects.iter().any(|object| is_shard(Path::new(object.key.as_str()))) {
            return Ok(Contents::Legacy);
        }
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    Ok(Contents::Nothing)
}

/// In how many pages of a listing a shard of the ancestor is looked for.
const SURVEY_PAGES: usize = 10;

fn is_shard(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "des")
}

#[cfg(test)]
mod tests {
    use desfmt::{ObjectKey, Timestamp};
    use desstore::{ManualClock, MemoryStore, Payload};

    use super::*;

    #[test]
    fn a_source_is_taken_as_it_is_typed() {
        assert_eq!(Source::parse("/srv/a").unwrap(), Source(Location::Local("/srv/a".into()), None));
        assert!(Source::parse("s3://bucket/prefix").is_ok());
        assert!(Source::parse("gopher://x").unwrap_err().to_string().contains("gopher"));
        assert!(Source::parse("").is_err());
    }

    #[test]
    fn a_configuration_file_is_a_source() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.toml");
        std::fs::write(&path, "archive = 's3://bucket/a'\n[store]\nregion = 'eu'\n").unwrap();
        let text = path.to_str().unwrap();

        let source = Source::parse(text).unwrap();
        assert_eq!(source.0.to_string(), "s3://bucket/a");
        assert_eq!(source.store_options(&MountOptions::default()).unwrap().region.as_deref(), Some("eu"));
        let options = MountOptions::parse(["region=us"], false).unwrap();
        assert!(source.store_options(&options).unwrap_err().to_string().contains("not behind -o"));

        std::fs::write(&path, "archiv = 's3://bucket/a'\n").unwrap();
        let refused = Source::parse(text).unwrap_err().to_string();
        assert!(refused.contains("unknown key \"archiv\"; did you mean \"archive\"?"), "{refused}");
    }

    #[test]
    fn a_directory_tells_by_its_names_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let source = Source(Location::Local(directory.path().to_owned()), None);
        let refusal = || source.demand_legacy(examine(directory.path()).unwrap()).unwrap_err().to_string();
        assert!(refusal().contains("des-pack --archive"));

        let manifests = directory.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        assert!(refusal().contains("has lost its des.json"));
        std::fs::remove_dir(&manifests).unwrap();

        std::fs::write(directory.path().join("20240115_3F_0000.des"), b"").unwrap();
        assert_eq!(examine(directory.path()).unwrap(), Contents::Legacy);

        std::fs::write(directory.path().join(layout::identity().as_str()), b"").unwrap();
        assert_eq!(examine(directory.path()).unwrap(), Contents::Archive);

        assert!(examine(&directory.path().join("missing")).unwrap_err().to_string().contains("missing"));
        assert!(
            examine(&directory.path().join(layout::identity().as_str()))
                .unwrap_err()
                .to_string()
                .contains("a source is a directory")
        );
    }

    #[tokio::test]
    async fn a_store_tells_by_its_keys_what_it_holds() {
        for (key, contents) in [
            ("notes/readme.txt", Contents::Nothing),
            ("20240115_3F_0000.des", Contents::Legacy),
            ("below/20240115_3F_0000.des", Contents::Nothing),
            ("manifests/20240115.json", Contents::Remains),
            ("shards/20240115/20240115_3F_0000.des", Contents::Remains),
        ] {
            let store = MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_micros(0))));
            store.put(&ObjectKey::new(key).unwrap(), Payload::Bytes("x".into())).await.unwrap();
            assert_eq!(survey(&store).await.unwrap(), contents, "{key}");
        }
    }
}
