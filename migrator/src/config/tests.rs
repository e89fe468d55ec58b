//! What a configuration file may say.

use super::*;

const LEAST: &str = "[database]\nurl = 'postgres://h/d'\n[archive]\nuri = '/srv/archive'\n";

fn loaded(text: &str) -> Result<Settings, String> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("migrate.toml");
    std::fs::write(&path, text).unwrap();
    let environment = |name: &str| match name {
        "REMOVE" => Some("false".to_owned()),
        _ => None,
    };
    load(&path, &environment).map_err(|error| error.to_string())
}

#[test]
fn little_is_needed_and_nothing_is_removed_unless_asked_for() {
    let settings = loaded(LEAST).unwrap();
    assert!(!settings.cleanup.enabled && !settings.migration.mark_archived);
    assert_eq!(settings.migration.lag_days, 7);
    assert_eq!(settings.packing().unwrap().spool, PathBuf::from("/srv/archive/.spool"));
}

#[test]
fn false_from_the_environment_is_false() {
    let settings = loaded(&format!("{LEAST}[cleanup]\nenabled = '${{REMOVE}}'\n")).unwrap();
    assert!(!settings.cleanup.enabled);
}

#[test]
fn a_file_of_its_own_says_where_the_archive_lies() {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("archive.yaml");
    std::fs::write(&archive, "archive: s3://bucket/a\nstore: {region: eu}\n").unwrap();
    let text = format!("[database]\nurl = 'x'\n[archive]\nconfig = '{}'\n", archive.display());

    let settings = loaded(&format!("{text}[sources]\nroots = ['/srv', 's3://scans/in']\n")).unwrap();

    let (location, options) = settings.place().unwrap();
    assert_eq!((location.to_string().as_str(), options.region.as_deref()), ("s3://bucket/a", Some("eu")));
    assert_eq!(settings.source_options().unwrap().region.as_deref(), Some("eu"));
    assert_eq!(settings.bucket_roots().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(), ["s3://scans/in"]);
    let refused = loaded(&format!("{text}uri = '/srv/archive'\n")).unwrap_err();
    assert!(refused.contains("archive.config"), "{refused}");
    std::fs::write(&archive, "archve: x").unwrap();
    assert!(loaded(&text).unwrap_err().contains("did you mean"));
}

#[test]
fn what_makes_no_sense_is_refused_by_its_key() {
    for (more, reason) in [
        ("[cleanup]\nenable = true\n", "enabled"),
        ("[migration]\nlease = 1\n", "migration.lease"),
        ("[migration]\nmark_archived = true\n", "archived_column"),
        ("[migration]\nbatch_size = 0\n", "migration.batch_size"),
        ("[state]\nschema = ''\n", "state.schema"),
        ("[sources]\nroot = ['/srv']\n", "roots"),
        ("[sources]\nroots = ['s3://x']\n", "sources.roots: s3://x"),
        ("[sources]\noptions = { colour = 'red' }\n", "sources.options"),
    ] {
        let refused = loaded(&format!("{LEAST}{more}")).unwrap_err();
        assert!(refused.contains(reason), "{more}: {refused}");
    }
    for (text, reason) in [
        ("[archive]\nuri = '/a'\n", "database.url"),
        ("[database]\nurl = 'x'\n", "archive.uri"),
        ("[database]\nurl = 'x'\nchecksum_column = 'c'\n[archive]\nuri = '/a'\n", "checksum_algorithm"),
        ("[database]\nurl = 'x'\ncreated_at_zone = 'Mars'\n[archive]\nuri = '/a'\n", "created_at_zone"),
        ("[database]\nurl = 'x'\n[archive]\nuri = '/a'\ncodec = 'zip'\n", "archive.codec"),
        ("[database]\nurl = 'x'\n[archive]\nuri = '/a'\noptions = { colour = 'red' }\n", "archive.options"),
    ] {
        let refused = loaded(text).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}
