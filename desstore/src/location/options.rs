//! How a store is reached: the options behind `desfs -o NAME=VALUE`, the command lines of the other programs and the
//! configuration file, which all call [`StoreOptions::set`].

use std::path::PathBuf;
use std::time::Duration;

use crate::stack::StackSettings;
use crate::values::{parse_bytes, parse_flag, parse_timeout};

/// How a store is reached. Only buckets need any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// `endpoint=URL`: a server that speaks S3; AWS itself if not given.
    pub endpoint: Option<String>,
    /// `region=NAME`: what the SDK finds in environment and profile if not given.
    pub region: Option<String>,
    /// `path_style`: the bucket in the path of the URL rather than in its host name. With an endpoint of one's own yes, with
    /// AWS no, if not given.
    pub path_style: Option<bool>,
    /// `profile=NAME`: a profile of the AWS configuration.
    pub profile: Option<String>,
    /// `credentials_file=FILE`: a file of the form of `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// `ca_file=FILE`: certificates in PEM that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// `insecure`: plain HTTP to other hosts than this one is accepted.
    pub insecure: bool,
    /// `storage_class=NAME`: of shards; documents stay in the standard class.
    pub storage_class: Option<String>,
    /// `sse=AES256`, `sse=aws:kms`, and `sse_kms_key=ID`: how the store encrypts what is written.
    pub encryption: Option<Encryption>,
    /// `part_size=SIZE`: how large the parts of a large upload are.
    pub part_bytes: u64,
    /// `connect_timeout=TIME`: how long a connection may take to be made.
    pub connect_timeout: Duration,
    /// `first_byte_timeout=TIME`: how long an answer may take to begin.
    pub first_byte_timeout: Duration,
    /// `stall_timeout=TIME`: how long a body may stand still.
    pub stall_timeout: Duration,
    /// `attempt_timeout=TIME`, `retry_attempts=N`, `retry_base=TIME`, `retry_max=TIME`, `retry_deadline=TIME`,
    /// `breaker_failures=N`, `breaker_recovery=TIME`, `rate_limit=N` and `in_flight=N`: how patient and how frugal the
    /// program is.
    pub patience: StackSettings,
}

/// How a store encrypts what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// SSE-S3: by keys of the store.
    Store,
    /// SSE-KMS: by a key of the key service, the bucket's own if none is named.
    Kms(Option<String>),
}

/// An option of a store that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct OptionError {
    /// The option.
    pub name: String,
    /// What it should look like.
    pub reason: String,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            path_style: None,
            profile: None,
            credentials_file: None,
            ca_file: None,
            insecure: false,
            storage_class: None,
            encryption: None,
            part_bytes: 16 << 20,
            connect_timeout: Duration::from_secs(3),
            first_byte_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            patience: StackSettings::default(),
        }
    }
}

/// Parts are at least as long as S3 demands.
const PART_BYTES_MIN: u64 = 5 << 20;

/// Parts are held in memory, a few at a time.
const PART_BYTES_MAX: u64 = 256 << 20;

impl StoreOptions {
    /// The options that take a value.
    pub const WITH_VALUE: [&'static str; 21] = [
        "endpoint",
        "region",
        "profile",
        "credentials_file",
        "ca_file",
        "storage_class",
        "sse",
        "sse_kms_key",
        "part_size",
        "connect_timeout",
        "first_byte_timeout",
        "stall_timeout",
        "attempt_timeout",
        "retry_attempts",
        "retry_base",
        "retry_max",
        "retry_deadline",
        "breaker_failures",
        "breaker_recovery",
        "rate_limit",
        "in_flight",
    ];

    /// The options that can do without one: alone they mean yes.
    pub const FLAGS: [&'static str; 2] = ["path_style", "insecure"];

    /// True for an option of a store.
    pub fn knows(name: &str) -> bool {
        Self::WITH_VALUE.contains(&name) || Self::FLAGS.contains(&name)
    }

    /// Sets one option by its name. Later values win.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), OptionError> {
        let refused = |reason: String| OptionError { name: name.to_owned(), reason };
        if Self::FLAGS.contains(&name) {
            let flag = value.map_or(Ok(true), parse_flag).map_err(refused)?;
            match name {
                "path_style" => self.path_style = Some(flag),
                _ => self.insecure = flag,
            }
            return Ok(());
        }
        match value {
            _ if !Self::knows(name) => Err(refused("is no option of a store".to_owned())),
            None => Err(refused(format!("needs a value: {name}=VALUE"))),
            Some("") => Err(refused("the value is empty".to_owned())),
            Some(value) => self.set_value(name, value).map_err(refused),
        }
    }

    fn set_value(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "endpoint" => self.endpoint = Some(parse_endpoint(value)?),
            "region" => self.region = Some(value.to_owned()),
            "profile" => self.profile = Some(value.to_owned()),
            "credentials_file" => self.credentials_file = Some(value.into()),
            "ca_file" => self.ca_file = Some(value.into()),
            "storage_class" => self.storage_class = Some(value.to_owned()),
            "sse" => self.set_encryption(value)?,
            "sse_kms_key" => self.encryption = Some(Encryption::Kms(Some(value.to_owned()))),
            "part_size" => self.part_bytes = parse_part_size(value)?,
            "connect_timeout" => self.connect_timeout = parse_timeout(value)?,
            "first_byte_timeout" => self.first_byte_timeout = parse_timeout(value)?,
            "stall_timeout" => self.stall_timeout = parse_timeout(value)?,
            other => self.patience.set(other, value)?,
        }
        Ok(())
    }

    /// A key that was named before stays named.
    fn set_encryption(&mut self, value: &str) -> Result<(), String> {
        self.encryption = match (value, self.encryption.take()) {
            ("AES256", _) => Some(Encryption::Store),
            ("aws:kms", Some(Encryption::Kms(key))) => Some(Encryption::Kms(key)),
            ("aws:kms", _) => Some(Encryption::Kms(None)),
            ("none", _) => None,
            (other, _) => return Err(format!("{other:?} is none of AES256, aws:kms and none")),
        };
        Ok(())
    }
}

/// A URL with a scheme and a host, and nothing that could be a secret.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(format!("{text:?} is not a URL such as https://s3.example.org or http://127.0.0.1:8333"));
    };
    if rest.contains('@') {
        return Err("credentials do not belong in a URL".to_owned());
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.contains(char::is_whitespace) || rest.contains(['?', '#']) {
        return Err(format!("{text:?} is not a URL such as https://s3.example.org or http://127.0.0.1:8333"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn parse_part_size(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if (PART_BYTES_MIN..=PART_BYTES_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("{text:?} is not from 5M to 256M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, Option<&str>)]) -> Result<StoreOptions, OptionError> {
        let mut options = StoreOptions::default();
        for (name, value) in pairs {
            options.set(name, *value)?;
        }
        Ok(options)
    }

    #[test]
    fn every_listed_option_is_handled() {
        for name in StoreOptions::WITH_VALUE {
            assert!(set(&[(name, None)]).unwrap_err().reason.contains("needs a value"), "{name}");
            drop(set(&[(name, Some("1"))]));
        }
        for name in StoreOptions::FLAGS {
            assert!(set(&[(name, None)]).is_ok() && set(&[(name, Some("no"))]).is_ok(), "{name}");
        }
    }

    #[test]
    fn options_are_read() {
        let options = set(&[
            ("endpoint", Some("http://127.0.0.1:8333/")),
            ("path_style", Some("no")),
            ("insecure", None),
            ("part_size", Some("8M")),
            ("stall_timeout", Some("500ms")),
            ("attempt_timeout", Some("1m")),
            ("sse_kms_key", Some("alias/x")),
            ("sse", Some("aws:kms")),
        ])
        .unwrap();

        assert_eq!(options.endpoint.as_deref(), Some("http://127.0.0.1:8333"));
        assert_eq!((options.path_style, options.insecure, options.part_bytes), (Some(false), true, 8 << 20));
        assert_eq!(options.stall_timeout, Duration::from_millis(500));
        assert_eq!(options.patience.attempt_max, Duration::from_mins(1));
        assert_eq!(options.encryption, Some(Encryption::Kms(Some("alias/x".to_owned()))));
    }

    #[test]
    fn bad_values_are_refused_with_what_is_wanted() {
        for (name, value, reason) in [
            ("endpoint", "s3.example.org", "not a URL such as"),
            ("endpoint", "http://", "not a URL such as"),
            ("endpoint", "https://user:secret@host", "credentials do not belong"),
            ("sse", "rot13", "none of AES256"),
            ("part_size", "1M", "5M to 256M"),
            ("connect_timeout", "0", "longer than nothing"),
            ("attempt_timeout", "0", "longer than nothing"),
            ("insecure", "maybe", "neither yes nor no"),
            ("colour", "red", "no option of a store"),
            ("region", "", "empty"),
        ] {
            let refused = set(&[(name, Some(value))]).unwrap_err().to_string();
            assert!(refused.contains(reason) && !refused.contains("secret"), "{name}={value}: {refused}");
        }
    }
}
