//! The ancestor's configuration file, turned into ours.

use std::path::Path;

use desstore::config::{ConfigError, Environment};
use serde::Deserialize;

/// What stands in the ancestor's file.
#[derive(Debug, Deserialize)]
struct Ancestor {
    database: AncestorDatabase,
    #[serde(default)]
    migration: AncestorMigration,
    #[serde(default)]
    packer: AncestorPacker,
}

#[derive(Debug, Deserialize)]
struct AncestorDatabase {
    url: String,
    #[serde(default)]
    table_name: Option<String>,
    #[serde(default)]
    uid_column: Option<String>,
    #[serde(default)]
    created_at_column: Option<String>,
    #[serde(default)]
    file_location_column: Option<String>,
    #[serde(default)]
    size_bytes_column: Option<String>,
    #[serde(default)]
    archived_column: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AncestorMigration {
    archive_age_days: Option<u32>,
    batch_size: Option<u64>,
    delete_source_files: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AncestorPacker {
    output_dir: Option<String>,
    max_shard_size: Option<u64>,
    n_bits: Option<u8>,
    s3_source: AncestorS3,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AncestorS3 {
    enabled: bool,
    region_name: Option<String>,
    endpoint_url: Option<String>,
    max_retries: Option<u32>,
    retry_delay_seconds: Option<u32>,
}

/// The ancestor's defaults, where ours differ.
const OUTPUT_DIR: &str = "./des_output";
const SHARD_BYTES: u64 = 1_000_000_000;
const N_BITS: u8 = 8;

/// Reads a file of the ancestor; gives the text of one of ours. The URL, which may hold a password, does not go into it.
pub fn convert(path: &Path, environment: Environment<'_>) -> Result<String, ConfigError> {
    let ancestor: Ancestor = desstore::config::load(path, environment)?;
    if !ancestor.database.url.starts_with("postgres") {
        return Err(ConfigError::value(path, "database.url", "only PostgreSQL is read"));
    }
    Ok(ours(&ancestor))
}

fn ours(ancestor: &Ancestor) -> String {
    let mut text = String::from("# Made from a configuration of the Python DES.\n\n[database]\n");
    text.push_str("# The URL may hold a password, so it stays in the environment; without +psycopg2 or the like.\n");
    text.push_str("url = \"${DES_DATABASE_URL}\"\n");
    let of = &ancestor.database;
    push(&mut text, "table", of.table_name.as_deref());
    push(&mut text, "uid_column", of.uid_column.as_deref());
    push(&mut text, "created_at_column", of.created_at_column.as_deref());
    push(&mut text, "location_column", of.file_location_column.as_deref());
    push(&mut text, "size_column", of.size_bytes_column.as_deref());
    push(&mut text, "archived_column", of.archived_column.as_deref());
    text.push_str(
        "\n[sources]\n# Directories that all files lie beneath. Where some are named, nothing elsewhere is read;\n",
    );
    text.push_str("# nothing is ever removed without.\nroots = []\n\n[archive]\n");
    text.push_str("# A new place: the ancestor's flat files stay where they are, and are mounted as they are.\n");
    let output = ancestor.packer.output_dir.as_deref().unwrap_or(OUTPUT_DIR);
    push(&mut text, "uri", Some(&format!("{}-archive", output.trim_end_matches('/'))));
    let bits = ancestor.packer.n_bits.unwrap_or(N_BITS);
    let shard_bytes = ancestor.packer.max_shard_size.unwrap_or(SHARD_BYTES);
    line(&mut text, &format!("n_bits = {bits}"));
    line(&mut text, &format!("max_shard_size = {shard_bytes}"));
    text.push_str("\n[migration]\n");
    line(&mut text, &format!("lag_days = {}", ancestor.migration.archive_age_days.unwrap_or(7)));
    if let Some(batch_size) = ancestor.migration.batch_size {
        line(
            &mut text,
            &format!("# The ancestor's batch_size of {batch_size} has no counterpart: whole days are moved."),
        );
    }
    if of.archived_column.is_some() {
        text.push_str("mark_archived = true\n");
    }
    text.push_str("\n[cleanup]\n# Needs sources.roots. Files go no sooner than the delay after they were proven.\n");
    line(&mut text, &format!("enabled = {}", ancestor.migration.delete_source_files));
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// A key with a text, which JSON quotes as TOML does.
fn push(text: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        line(text, &format!("{key} = {}", serde_json::Value::from(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_ancestor_becomes_one_that_can_be_loaded() {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = (place.path().join("old.yaml"), place.path().join("new.toml"));
        let text = "database:\n  url: postgresql+psycopg2://u:${SECRET}@h/d\n  table_name: files\n  \
                    size_bytes_column: size\n  archived_column: archived\nmigration:\n  archive_age_days: 30\n  \
                    delete_source_files: \"${REMOVE:false}\"\npacker:\n  output_dir: /srv/des\n";
        std::fs::write(&old, text).unwrap();
        let environment = |name: &str| match name {
            "SECRET" => Some("hush".to_owned()),
            "DES_DATABASE_URL" => Some("postgres://u@h/d".to_owned()),
            _ => None,
        };

        let converted = convert(&old, &environment).unwrap();
        std::fs::write(&new, &converted).unwrap();
        let settings = super::super::load(&new, &environment).unwrap();

        assert!(!converted.contains("hush"), "{converted}");
        assert_eq!(settings.database.size_column.as_deref(), Some("size"));
        assert_eq!((settings.migration.lag_days, settings.archive.n_bits), (30, Some(8)));
        assert_eq!(settings.archive.max_shard_size.0, 1_000_000_000);
        assert!(!settings.cleanup.enabled, "false is false");
    }
}
