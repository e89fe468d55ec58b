//! What can be mounted: a directory with a DES archive, or with flat shards of the ancestor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use desfmt::layout;
use desstore::{Archive, ArchiveError, Clock, LocalStore, ObjectStore, ReadOptions, SystemRandom};

use crate::exit::{Failure, reason_of};
use crate::options::MountOptions;

/// Where an archive lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a local directory.
    Directory(PathBuf),
}

/// A source that can be read.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The archive.
    pub archive: Arc<Archive>,
    /// Where it lies.
    pub store: LocalStore,
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

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// A DES archive: there is a `des.json`.
    Archive,
    /// Shards of the ancestor, without one.
    Legacy,
}

impl Source {
    /// Understands a source as typed.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let path = match text.split_once("://") {
            Some(("file", path)) => path,
            Some(("s3", _)) => return Err(Failure::usage("s3:// is not built yet; mount a local directory")),
            Some((scheme, _)) => return Err(Failure::usage(format!("{scheme}:// is no source that desfs knows"))),
            None => text,
        };
        if path.is_empty() {
            return Err(Failure::usage("the source is empty"));
        }
        let path = std::path::absolute(path).map_err(|error| Failure::usage(format!("source {text}: {error}")))?;
        Ok(Self::Directory(path))
    }

    /// Opens the archive.
    pub async fn open(&self, options: &MountOptions, clock: Arc<dyn Clock>) -> Result<Opened, OpenError> {
        let Self::Directory(path) = self;
        let failed = |reason: String| Failure::mount(format!("source {}: {reason}", path.display()));
        let contents = examine(path)?;
        let store = LocalStore::open(path, Arc::clone(&clock)).map_err(|error| failed(reason_of(&error)))?;
        let shared: Arc<dyn ObjectStore> = Arc::new(store.clone());
        let read = ReadOptions { ttl: options.name_ttl(), memory_bytes: options.memory_bytes, store_is_near: true };
        let random = Arc::new(SystemRandom);
        let archive = match contents {
            Contents::Archive => Archive::open(shared, read, clock, random)
                .await
                .map_err(|error| OpenError { failure: failed(reason_of(&error)), error: Some(error) })?,
            Contents::Legacy => Archive::open_legacy(shared, options.legacy_bits, read, clock, random),
        };
        Ok(Opened { archive, store })
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
        has_shards |= Path::new(&name).extension().is_some_and(|extension| extension == "des");
    }
    if has_shards {
        return Ok(Contents::Legacy);
    }
    if has_remains {
        return Err(Failure::mount(format!("source {shown} has lost its {}; restore it", layout::identity())));
    }
    Err(Failure::mount(format!(
        "source {shown} holds neither {} nor *.des shards; make an archive with: des-pack --archive {shown} ...",
        layout::identity()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_as_it_is_typed() {
        assert_eq!(Source::parse("/srv/a").unwrap(), Source::Directory("/srv/a".into()));
        assert_eq!(Source::parse("file:///srv/a").unwrap(), Source::Directory("/srv/a".into()));
        assert_eq!(Source::parse("a").unwrap(), Source::Directory(std::env::current_dir().unwrap().join("a")));
    }

    #[test]
    fn what_is_not_built_is_refused_in_words() {
        assert!(Source::parse("s3://bucket/prefix").unwrap_err().to_string().contains("not built yet"));
        assert!(Source::parse("gopher://x").unwrap_err().to_string().contains("gopher"));
        assert!(Source::parse("").is_err());
    }

    #[test]
    fn a_directory_tells_by_its_names_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        assert!(examine(directory.path()).unwrap_err().to_string().contains("des-pack --archive"));

        let manifests = directory.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        assert!(examine(directory.path()).unwrap_err().to_string().contains("has lost its des.json"));
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
}
