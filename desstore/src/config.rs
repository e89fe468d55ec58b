//! Configuration files: TOML, YAML or JSON by the name's ending, with values from the environment, read into the types of
//! whoever asks.
//!
//! One tree of values stands between the file and the types, so that all three formats obey the same rules: `${NAME}` and
//! `${NAME:default}` are filled in, what comes from there takes the type that the field wants, a key that nobody knows is
//! refused. The rules are told in `docs/configuration.md`.

mod archive;
mod node;
mod reader;
#[cfg(test)]
mod tests;
mod units;
mod variables;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use archive::{ArchiveConfig, place_of_ancestor};
pub use units::{Interval, Size};

use node::Node;
use reader::{Mismatch, Reader};

/// Where the values of variables come from; the programs hand in the environment of their process.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A configuration that cannot be used, in words for the one who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its name does not say what it is.
    #[error("{}: the name must end in .toml, .yaml, .yml or .json", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// It is not what its name says.
    #[error("{}: {detail}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        detail: String,
    },
    /// A value or a key in it cannot be used.
    #[error("{}: {}{detail}", .path.display(), place(.at))]
    Value {
        /// The file.
        path: PathBuf,
        /// Where in it, such as `zones[1].range`; empty at the top.
        at: String,
        /// What is wrong with it.
        detail: String,
    },
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("{at}: ") }
}

impl ConfigError {
    /// A value that is well formed and cannot be used.
    pub fn value(path: &Path, at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Value { path: path.to_owned(), at: at.into(), detail: detail.into() }
    }
}

/// What a file can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Toml,
    Yaml,
    Json,
}

/// No configuration is longer.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// True for a name that only a configuration file has, so that `desfs archive.toml /mnt` can tell it from a directory.
pub fn is_config_name(path: &Path) -> bool {
    format_of(path).is_some()
}

/// Reads a configuration file. Types need no attribute for unknown keys to be refused; they must not use `flatten` or
/// `untagged`, which hide from the reader what a field wants.
pub fn load<T: DeserializeOwned>(path: &Path, environment: Environment<'_>) -> Result<T, ConfigError> {
    let format = format_of(path).ok_or_else(|| ConfigError::UnknownFormat { path: path.to_owned() })?;
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        let detail = format!("it is longer than {} MiB, so it is no configuration", FILE_BYTES_MAX >> 20);
        return Err(ConfigError::Syntax { path: path.to_owned(), detail });
    }
    parse(path, format, &text, environment)
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "toml" => Some(Format::Toml),
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

fn parse<T: DeserializeOwned>(
    path: &Path,
    format: Format,
    text: &str,
    environment: Environment<'_>,
) -> Result<T, ConfigError> {
    let syntax = |detail: String| ConfigError::Syntax { path: path.to_owned(), detail: one_line(&detail) };
    let tree: Node = match format {
        Format::Toml => toml::from_str(text).map_err(|error| syntax(toml_detail(text, &error)))?,
        Format::Yaml => serde_yaml_ng::from_str(text).map_err(|error| syntax(error.to_string()))?,
        Format::Json => serde_json::from_str(text).map_err(|error| syntax(error.to_string()))?,
    };
    let value = |Mismatch { at, detail }: Mismatch| ConfigError::Value { path: path.to_owned(), at, detail };
    // An empty YAML file is nothing at all, and so an empty table.
    let tree = if matches!(tree, Node::Null) { Node::Table(Vec::new()) } else { tree };
    let tree = variables::fill_in(tree, environment).map_err(value)?;
    T::deserialize(Reader::new(tree)).map_err(value)
}

/// The parser of TOML draws a picture of several lines; the line's number says the same.
fn toml_detail(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => format!("{} at line {}", error.message(), before.split('\n').count()),
        None => error.message().to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
