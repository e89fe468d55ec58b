//! The arguments by which every program is told where its archive lies and how it is reached. Flatten them into the
//! program's own.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use desstore::config::{ArchiveConfig, ConfigError, place_of_ancestor};
use desstore::{
    Clock, Connected, Location, ObjectStore, OptionError, Randomness, SingleWriterStore, StoreErrorKind, StoreOptions,
    Surroundings,
};

use crate::error::PackError;
use crate::program::reason_of;
use crate::proof::Proof;

/// Where an archive lies and how it is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The archive")]
pub struct StoreArgs {
    /// The archive: a local directory, or `s3://BUCKET/PREFIX`.
    #[arg(global = true, long, alias = "output-dir", value_name = "URI", env = "DES_ARCHIVE")]
    pub archive: Option<String>,

    /// A file that says where the archive lies and how it is reached: .toml, .yaml or .json (see docs/configuration.md).
    #[arg(global = true, long, value_name = "FILE", env = "DES_CONFIG")]
    pub config: Option<PathBuf>,

    /// How a bucket is reached.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// How a bucket is reached.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Reaching a bucket")]
pub struct ReachArgs {
    /// A server that speaks S3, such as `http://127.0.0.1:8333`; AWS if not given.
    #[arg(global = true, long, value_name = "URL", env = "DES_ENDPOINT")]
    endpoint: Option<String>,

    /// The region; what the SDK finds in environment and profile if not given.
    #[arg(global = true, long, value_name = "NAME", env = "DES_REGION")]
    region: Option<String>,

    /// A profile of the AWS configuration.
    #[arg(global = true, long, value_name = "NAME")]
    profile: Option<String>,

    /// A file of the form of `~/.aws/credentials`.
    #[arg(global = true, long, value_name = "FILE")]
    credentials_file: Option<String>,

    /// Certificates in PEM that are trusted beside those of the system.
    #[arg(global = true, long, value_name = "FILE", env = "DES_CA_FILE")]
    ca_file: Option<String>,

    /// Accepts plain HTTP to other hosts than this one.
    #[arg(global = true, long)]
    insecure: bool,

    /// The bucket in the path of the URL (yes) or in its host name (no).
    #[arg(global = true, long, value_name = "yes|no")]
    path_style: Option<String>,

    /// The storage class of new shards.
    #[arg(global = true, long, value_name = "CLASS")]
    storage_class: Option<String>,

    /// How the store encrypts what is written: AES256 or `aws:kms`.
    #[arg(global = true, long, value_name = "HOW")]
    sse: Option<String>,

    /// The key for `--sse aws:kms`.
    #[arg(global = true, long, value_name = "ID")]
    sse_kms_key: Option<String>,

    /// Any option of a store by its name (see docs/s3.md); may be repeated.
    #[arg(global = true, long = "store-option", value_name = "NAME=VALUE")]
    others: Vec<String>,
}

impl StoreArgs {
    /// Opens the store of an archive that exists.
    pub async fn connect(&self, clock: Arc<dyn Clock>, random: Arc<dyn Randomness>) -> Result<Connected, PackError> {
        let (location, options) = self.resolve()?;
        Ok(location.connect(&options, &Surroundings::new(clock, random)).await?)
    }

    /// The same, but a local directory is made where there is none.
    pub async fn create(&self, clock: Arc<dyn Clock>, random: Arc<dyn Randomness>) -> Result<Connected, PackError> {
        let (location, options) = self.resolve()?;
        Ok(location.create(&options, &Surroundings::new(clock, random)).await?)
    }

    /// Where the archive lies, in the words of whoever said so.
    pub fn shown(&self) -> String {
        match (&self.archive, &self.config) {
            (Some(archive), _) => archive.clone(),
            (None, Some(config)) => config.display().to_string(),
            (None, None) => "the archive of the environment".to_owned(),
        }
    }

    /// Place and options, both checked. Without any argument the variables of the ancestor say where the archive lies.
    pub fn resolve(&self) -> Result<(Location, StoreOptions), PackError> {
        let refused = |error: ConfigError| PackError::refused(reason_of(&error));
        match (&self.archive, &self.config) {
            (Some(archive), Some(config)) => {
                let config = config.display();
                Err(PackError::refused(format!(
                    "both --archive {archive} and --config {config} say where the archive lies"
                )))
            }
            (Some(archive), None) => {
                let location = Location::parse(archive);
                let location = location.map_err(|error| PackError::refused(format!("--archive {error}")))?;
                let options = self.reach.options().map_err(|error| PackError::refused(error.to_string()))?;
                Ok((location, options))
            }
            (None, Some(config)) => {
                self.demand_no_reach("the file of --config")?;
                let file = ArchiveConfig::load(config, &environment);
                file.and_then(|file| file.place(config)).map_err(refused)
            }
            (None, None) => match place_of_ancestor(&environment).map_err(refused)? {
                Some(place) => {
                    self.demand_no_reach("the environment (DES_S3_BUCKET and others)")?;
                    Ok(place)
                }
                None => {
                    Err(PackError::refused("where the archive lies is missing: say --archive URI or --config FILE"))
                }
            },
        }
    }

    /// Options of a store come from one place.
    fn demand_no_reach(&self, other: &str) -> Result<(), PackError> {
        let options = self.reach.options().map_err(|error| PackError::refused(error.to_string()))?;
        if options == StoreOptions::default() {
            return Ok(());
        }
        Err(PackError::refused(format!("how the archive is reached is said by {other}, and not beside it")))
    }
}

/// A variable of the environment.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl ReachArgs {
    /// How the bucket is reached. Named options win over those of `--store-option`.
    pub fn options(&self) -> Result<StoreOptions, OptionError> {
        let Self {
            endpoint,
            region,
            profile,
            credentials_file,
            ca_file,
            insecure,
            path_style,
            storage_class,
            sse,
            sse_kms_key,
            others,
        } = self;
        let mut options = StoreOptions::default();
        for other in others {
            let (name, value) = match other.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (other.as_str(), None),
            };
            options.set(name, value)?;
        }
        for (name, value) in [
            ("endpoint", endpoint),
            ("region", region),
            ("profile", profile),
            ("credentials_file", credentials_file),
            ("ca_file", ca_file),
            ("path_style", path_style),
            ("storage_class", storage_class),
            ("sse", sse),
            ("sse_kms_key", sse_kms_key),
        ] {
            if let Some(value) = value {
                options.set(name, Some(value))?;
            }
        }
        if *insecure {
            options.set("insecure", None)?;
        }
        Ok(options)
    }
}

/// What is to be written to, and whether it may be. With `single_writer` the caller vouches that nobody else writes; else a
/// bucket must honour conditional writes. A new archive is tried when it is created.
pub fn writing(
    connected: &Connected,
    single_writer: bool,
    random: Arc<dyn Randomness>,
) -> (Arc<dyn ObjectStore>, Proof) {
    let store = Arc::clone(&connected.store);
    if connected.local.is_some() {
        return (store, Proof::given());
    }
    if single_writer {
        return (Arc::new(SingleWriterStore::new(store)), Proof::given());
    }
    let connected = connected.clone();
    let proof = Proof::of(async move {
        // Not by HEAD, whose answer cannot say what is wrong with bucket or credentials.
        match connected.store.get(&desfmt::layout::identity(), desfmt::document::DOCUMENT_LEN_MAX).await {
            Ok(_) => connected.demand_conditions(random.as_ref()).await,
            // What creates the archive tries the one store that it is created in.
            Err(error) if error.kind == StoreErrorKind::NotFound => match &connected.zones {
                Some(zones) => zones.demand_conditions(random.as_ref()).await,
                None => Ok(()),
            },
            Err(error) => Err(error.into()),
        }
    });
    (store, proof)
}

/// What is to be written to, when it is known that it may be; several writers are always expected.
pub async fn writable(connected: &Connected, random: Arc<dyn Randomness>) -> Result<Arc<dyn ObjectStore>, PackError> {
    let (store, proof) = writing(connected, false, random);
    proof.passed().await?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        store: StoreArgs,
    }

    fn parse(line: &str) -> StoreArgs {
        Only::try_parse_from(["x"].into_iter().chain(line.split(' '))).unwrap().store
    }

    #[test]
    fn what_is_typed_reaches_the_store() {
        let args = parse(
            "--archive s3://bucket/a --endpoint http://127.0.0.1:1 --region eu --insecure --store-option part_size=8M",
        );
        let (location, options) = args.resolve().unwrap();

        assert_eq!(location.to_string(), "s3://bucket/a");
        assert_eq!(options.endpoint.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!((options.region.as_deref(), options.insecure, options.part_bytes), (Some("eu"), true, 8 << 20));
    }

    #[test]
    fn a_configuration_file_says_where_the_archive_lies() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("des.yaml");
        std::fs::write(&file, "archive: s3://bucket/a\nstore: {region: eu}\n").unwrap();
        let file = file.to_str().unwrap();

        let (location, options) = parse(&format!("--config {file}")).resolve().unwrap();
        assert_eq!((location.to_string().as_str(), options.region.as_deref()), ("s3://bucket/a", Some("eu")));
        for (more, reason) in
            [("--archive /srv/a", "both --archive /srv/a and --config"), ("--region us", "not beside it")]
        {
            let refused = parse(&format!("--config {file} {more}")).resolve().unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
        std::fs::write(file, "archve: x").unwrap();
        let refused = parse(&format!("--config {file}")).resolve().unwrap_err().to_string();
        assert!(refused.contains("did you mean \"archive\"?"), "{refused}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (line, reason) in [
            ("--archive gopher://x", "--archive gopher://x: gopher:// is not known"),
            ("--archive s3://bucket --endpoint x", "endpoint: "),
            ("--archive s3://bucket --store-option colour=red", "colour: "),
        ] {
            let refused = parse(line).resolve().unwrap_err().to_string();
            assert!(refused.contains(reason), "{line}: {refused}");
        }
    }
}
