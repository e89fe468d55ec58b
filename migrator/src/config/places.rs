//! Places that a configuration names: the archive, and where sources lie.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use desstore::{Location, S3Location, StoreOptions, Surroundings};
use packer::program::reason_of;
use packer::{Buckets, Roots, Sources};
use tokio::runtime::Handle;

use super::{Settings, Wrong};

impl Settings {
    /// Where the archive is, and how it is reached.
    pub fn place(&self) -> Result<(Location, StoreOptions), Wrong> {
        let of = &self.archive;
        if let Some(place) = &self.place {
            if !of.uri.is_empty() || !of.options.is_empty() {
                let detail =
                    "the file says where the archive lies and how it is reached; uri and options do not go with it";
                return Err(("archive.config", detail.to_owned()));
            }
            return Ok(place.clone());
        }
        if of.uri.is_empty() {
            let detail = "it is needed: a directory, or s3://BUCKET/PREFIX; or archive.config, a file that says it";
            return Err(("archive.uri", detail.to_owned()));
        }
        let location = Location::parse(&of.uri).map_err(|error| ("archive.uri", error.to_string()))?;
        let mut options = StoreOptions::default();
        set_all(&mut options, &of.options).map_err(|detail| ("archive.options", detail))?;
        Ok((location, options))
    }

    /// How buckets of sources are reached: as the archive is, unless said otherwise.
    pub(super) fn source_options(&self) -> Result<StoreOptions, Wrong> {
        let mut options = self.place()?.1;
        set_all(&mut options, &self.sources.options).map_err(|detail| ("sources.options", detail))?;
        Ok(options)
    }

    /// The roots that lie in buckets.
    pub(super) fn bucket_roots(&self) -> Result<Vec<S3Location>, Wrong> {
        let roots = self.sources.roots.iter().filter(|root| Buckets::holds(root));
        let parse = |root: &PathBuf| match Location::parse(&root.to_string_lossy()) {
            Ok(Location::S3(place)) => Ok(place),
            Ok(Location::Local(_) | Location::Zones(_)) => Err(format!("{} is no bucket", root.display())),
            Err(error) => Err(error.to_string()),
        };
        roots.map(parse).collect::<Result<_, _>>().map_err(|detail| ("sources.roots", detail))
    }

    /// Opens the roots of the sources. Those in buckets are reached by `runtime`.
    pub fn open_sources(&self, runtime: Handle, surroundings: &Surroundings) -> Result<Sources, Wrong> {
        if self.sources.roots.is_empty() {
            return Ok(Sources::default());
        }
        let (in_buckets, directories): (Vec<PathBuf>, Vec<PathBuf>) =
            self.sources.roots.iter().cloned().partition(|root| Buckets::holds(root));
        let roots = Roots::open(&directories, self.sources.follow_links);
        let roots = roots.map_err(|error| ("sources.roots", reason_of(&error)))?;
        let buckets = if in_buckets.is_empty() {
            None
        } else {
            let (options, spool) = (self.source_options()?, self.packing()?.spool);
            let buckets = Buckets::new(runtime, options, surroundings.clone(), spool);
            Some(Arc::new(buckets.beneath(self.bucket_roots()?)))
        };
        Ok(Sources { roots: Some(Arc::new(roots)), buckets })
    }
}

fn set_all(options: &mut StoreOptions, table: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in table {
        let value = Some(value.as_str()).filter(|value| !value.is_empty());
        options.set(name, value).map_err(|error| error.to_string())?;
    }
    Ok(())
}
