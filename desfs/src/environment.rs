//! What the environment says where the command line says nothing: where the archive lies and how it is reached, by the same
//! variables as with the other programs.
//!
//! mount(8) clears the environment of what it starts and always names a source, so all of this is for those who run desfs
//! themselves: in a container, in a unit.

use desstore::config::{Environment, place_of_ancestor};

use crate::exit::{Failure, reason_of};
use crate::options::{MountOptions, OptionError};
use crate::source::Source;

/// The variables that stand for options of a bucket.
const OPTIONS: [(&str, &str); 3] = [("endpoint", "DES_ENDPOINT"), ("region", "DES_REGION"), ("ca_file", "DES_CA_FILE")];

/// A source and the options of its mount.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The source as it is shown: as typed, where it was.
    pub text: String,
    /// The same, understood.
    pub source: Source,
    /// How it is mounted.
    pub options: MountOptions,
}

impl Asked {
    /// Puts together what was typed and what the environment says. What was typed wins.
    pub fn new(
        typed: Option<String>,
        options: &[String],
        sloppy: bool,
        environment: Environment<'_>,
    ) -> Result<Self, Failure> {
        let given = |name: &str| environment(name).filter(|value| !value.is_empty());
        let (text, source) = match typed {
            Some(text) => (text.clone(), Source::parse(&text)?),
            None => source_of(environment)?,
        };
        let reach = OPTIONS.iter().filter(|_| source.takes_options());
        let defaults = reach.chain(&[("n_bits", "DES_N_BITS")]);
        let mut parsed = MountOptions::default();
        for (option, variable) in defaults {
            if let Some(value) = given(variable) {
                let refused = |error: OptionError| Failure::usage(format!("{variable}: {error}"));
                parsed = parsed.and([format!("{option}={value}").as_str()], false).map_err(refused)?;
            }
        }
        let parsed = parsed.and(options.iter().map(String::as_str), sloppy);
        Ok(Self { text, source, options: parsed.map_err(|error| Failure::usage(error.to_string()))? })
    }
}

fn source_of(environment: Environment<'_>) -> Result<(String, Source), Failure> {
    let given = |name: &str| environment(name).filter(|value| !value.is_empty());
    match (given("DES_ARCHIVE"), given("DES_CONFIG")) {
        (Some(archive), Some(config)) => Err(Failure::usage(format!(
            "both DES_ARCHIVE={archive} and DES_CONFIG={config} say where the archive lies"
        ))),
        (Some(text), None) => Source::parse(&text).map(|source| (text, source)),
        (None, Some(text)) => Source::configured(text.as_ref())
            .map(|source| (text, source))
            .map_err(|error| Failure::usage(reason_of(&error))),
        (None, None) => match place_of_ancestor(environment).map_err(|error| Failure::usage(reason_of(&error)))? {
            Some((location, options)) => Ok((location.to_string(), Source::placed(location, options))),
            None => Err(Failure::usage(
                "where the archive lies is missing: desfs SOURCE MOUNTPOINT, or DES_ARCHIVE or DES_CONFIG in the environment",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(typed: Option<&str>, options: &[&str], variables: &[(&str, &str)]) -> Result<Asked, Failure> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        Asked::new(typed.map(str::to_owned), &options, false, &environment)
    }

    #[test]
    fn a_source_that_is_not_typed_is_the_one_of_the_environment() {
        for (variables, shown, backend) in [
            (&[("DES_ARCHIVE", "/srv/a")][..], "/srv/a", "local"),
            (&[("DES_ARCHIVE", "s3://bucket/a")], "s3://bucket/a", "s3"),
            (&[("DES_BASE_DIR", "/srv/old")], "/srv/old", "local"),
            (&[("DES_BACKEND", "local"), ("DES_S3_BUCKET", "old"), ("DES_S3_PREFIX", "x/")], "s3://old/x", "s3"),
        ] {
            let asked = asked(None, &[], variables).unwrap();
            assert_eq!((asked.text.as_str(), asked.source.backend()), (shown, backend), "{variables:?}");
        }
        let typed = asked(Some("/srv/b"), &[], &[("DES_ARCHIVE", "/srv/a"), ("DES_CONFIG", "x")]).unwrap();
        assert_eq!(typed.text, "/srv/b");
    }

    #[test]
    fn a_configuration_file_of_the_environment_is_a_source() {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), "archive = 's3://bucket/a'\n").unwrap();
        let path = file.path().to_str().unwrap();

        let found = asked(None, &[], &[("DES_CONFIG", path), ("DES_REGION", "eu")]).unwrap();

        assert_eq!((found.text.as_str(), found.source.backend()), (path, "s3"));
        assert_eq!(found.options, MountOptions::default(), "how it is reached stands in the file");
    }

    #[test]
    fn what_is_typed_wins_over_what_the_environment_says_of_the_bucket() {
        let variables = [("DES_ENDPOINT", "http://127.0.0.1:1"), ("DES_REGION", "eu"), ("DES_N_BITS", "5")];

        let found = asked(Some("s3://bucket/a"), &["region=us"], &variables).unwrap().options;
        assert_eq!(found.store.endpoint.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!((found.store.region.as_deref(), found.legacy_bits.get()), (Some("us"), 5));

        let local = asked(Some("/srv/a"), &[], &variables).unwrap().options;
        assert_eq!(local.store, MountOptions::default().store);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_the_name_of_its_variable() {
        for (variables, reason) in [
            (&[][..], "desfs SOURCE MOUNTPOINT"),
            (&[("DES_ARCHIVE", "/a"), ("DES_CONFIG", "b.toml")], "both DES_ARCHIVE=/a and DES_CONFIG=b.toml"),
            (&[("DES_ARCHIVE", "s3://bucket"), ("DES_ENDPOINT", "nowhere")], "DES_ENDPOINT: "),
            (&[("DES_ARCHIVE", "/a"), ("DES_N_BITS", "17")], "DES_N_BITS: "),
            (&[("DES_BACKEND", "s3")], "DES_S3_BUCKET"),
            (&[("DES_CONFIG", "/nonexistent.toml")], "/nonexistent.toml"),
        ] {
            let refused = asked(None, &[], variables).unwrap_err().to_string();
            assert!(refused.contains(reason), "{variables:?}: {refused}");
        }
    }
}
