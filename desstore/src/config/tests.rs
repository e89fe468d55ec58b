use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
struct Sample {
    bucket: String,
    #[serde(default, alias = "endpoint_url")]
    endpoint: Option<String>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    share: f64,
    #[serde(default)]
    codec: Codec,
    cache: Option<Size>,
    patience: Option<Interval>,
    #[serde(default)]
    zones: Vec<Zone>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Codec {
    #[default]
    Auto,
    Stored,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Zone {
    name: String,
}

fn read(name: &str, text: &str) -> Result<Sample, String> {
    let environment = |name: &str| match name {
        "BUCKET" => Some("b-1".to_owned()),
        "FALSE" => Some("false".to_owned()),
        "SEVEN" => Some("7".to_owned()),
        "EMPTY" => Some(String::new()),
        "SIZE" => Some("64M".to_owned()),
        _ => None,
    };
    let path = Path::new(name);
    parse(path, format_of(path).unwrap(), text, &environment).map_err(|error| error.to_string())
}

#[test]
fn the_same_settings_mean_the_same_in_each_format() {
    let toml = "bucket = 'x'\nattempts = 3\nshare = 0.5\ncodec = 'stored'\ncache = '64M'\npatience = 5\n\
                [[zones]]\nname = 'a'\n[labels]\nk = 'v'\n";
    let yaml = "bucket: x\nattempts: 3\nshare: 0.5\ncodec: stored\ncache: 64M\npatience: 5\n\
                zones:\n- name: a\nlabels: {k: v}\n";
    let json = r#"{"bucket":"x","attempts":3,"share":0.5,"codec":"stored","cache":"64M","patience":5,
                   "zones":[{"name":"a"}],"labels":{"k":"v"}}"#;

    let read: Vec<_> = [("c.toml", toml), ("c.yaml", yaml), ("c.YML", yaml), ("c.json", json)]
        .into_iter()
        .map(|(name, text)| read(name, text).unwrap())
        .collect();

    assert!(read.iter().all(|one| *one == read[0]), "{read:?}");
    assert_eq!((read[0].cache, read[0].patience.map(|time| time.0.as_secs())), (Some(Size(64 << 20)), Some(5)));
}

#[test]
fn variables_take_the_type_that_the_field_wants() {
    let text = "bucket = 'my-${BUCKET}'\ndelete = '${FALSE}'\nattempts = '${SEVEN}'\nshare = '${NONE:0.25}'\n\
                codec = '${NONE:stored}'\ncache = '${SIZE}'\npatience = '${NONE:15m}'\nendpoint = '${EMPTY}'\n";

    let sample = read("c.toml", text).unwrap();

    assert_eq!((sample.bucket.as_str(), sample.delete, sample.attempts), ("my-b-1", false, 7));
    assert_eq!((sample.share, sample.codec, sample.endpoint), (0.25, Codec::Stored, None));
    assert_eq!((sample.cache, sample.patience.map(|time| time.0.as_secs())), (Some(Size(64 << 20)), Some(900)));
}

#[test]
fn a_number_out_of_a_variable_stays_a_text_where_a_text_is_wanted() {
    assert_eq!(read("c.yaml", "bucket: ${SEVEN}").unwrap().bucket, "7");
}

#[test]
fn defaults_may_hold_colons_and_be_empty_and_a_bare_dollar_is_kept() {
    for (text, bucket) in [
        ("${NONE:http://h:1}", "http://h:1"),
        ("a${NONE:}b", "ab"),
        ("$BUCKET", "$BUCKET"),
        ("${EMPTY:x}", ""),
        ("${BUCKET}/${SEVEN}", "b-1/7"),
        ("${NONE:-x}", "-x"),
    ] {
        assert_eq!(read("c.toml", &format!("bucket = '{text}'")).unwrap().bucket, bucket, "{text}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_where_it_stands() {
    for (name, text, reason) in [
        ("c.toml", "bucket = 'x'\nendpont = 'y'", "c.toml: unknown key \"endpont\"; did you mean \"endpoint\"?"),
        ("c.toml", "bucket = 'x'\nqqq = 1", "c.toml: unknown key \"qqq\"; known are bucket, "),
        (
            "c.yaml",
            "bucket: x\nzones: [{name: a}, {nam: b}]",
            "c.yaml: zones[1]: unknown key \"nam\"; did you mean \"name\"?",
        ),
        ("c.yaml", "bucket: x\nzones: [{}]", "c.yaml: zones[0]: the key \"name\" is missing"),
        (
            "c.json",
            r#"{"bucket":"x","codec":"storde"}"#,
            "c.json: codec: unknown value \"storde\"; did you mean \"stored\"?",
        ),
        ("c.toml", "bucket = '${NONE}'", "c.toml: bucket: the environment variable NONE is not set"),
        ("c.toml", "bucket = 'a${BUCKET'", "c.toml: bucket: \"a${BUCKET\" has a ${ without a }"),
        ("c.toml", "bucket = '${1X}'", "cannot be the name of a variable"),
        ("c.yaml", "bucket: x\nzones: [{name: '${NONE}'}]", "c.yaml: zones[0].name: the environment variable NONE"),
        (
            "c.toml",
            "bucket = 'x'\ndelete = 'false'",
            "c.toml: delete: invalid type: string \"false\", expected a boolean",
        ),
        (
            "c.toml",
            "bucket = 'x'\ndelete = '${BUCKET}'",
            "c.toml: delete: invalid value: string \"b-1\", expected true or false",
        ),
        (
            "c.toml",
            "bucket = 'x'\nattempts = '${BUCKET}'",
            "c.toml: attempts: invalid type: string \"b-1\", expected u32",
        ),
        ("c.toml", "bucket = 'x'\nattempts = -1", "c.toml: attempts: invalid value: integer `-1`, expected u32"),
        ("c.toml", "bucket = 'x'\ncache = 'much'", "c.toml: cache: \"much\" is not a size such as 64M or 2G"),
        ("c.toml", "bucket = 'x'\npatience = '5 weeks'", "c.toml: patience: \"5 weeks\" is not a time such as"),
        ("c.toml", "bucket = 'x'\nlabels = { k = 2024-01-01 }", "a date must be written in quotes"),
        ("c.toml", "bucket = 'x'\n\nattempts = = 1", "line 3"),
        ("c.json", r#"{"bucket":"x","bucket":"y"}"#, "the key \"bucket\" stands twice"),
        ("c.json", r#"{"endpoint":"x","endpoint_url":"y","bucket":"b"}"#, "the key \"endpoint\" stands twice"),
        ("c.json", "[]", "c.json: a table with the keys bucket, "),
        ("c.yaml", "", "the key \"bucket\" is missing"),
    ] {
        let refused = read(name, text).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }
}

#[test]
fn another_name_of_a_key_is_known() {
    assert_eq!(read("c.toml", "bucket = 'x'\nendpoint_url = 'y'").unwrap().endpoint.as_deref(), Some("y"));
}

#[test]
fn a_file_is_told_by_its_ending() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    std::fs::write(&path, "bucket = 'x'").unwrap();

    assert_eq!(load::<Sample>(&path, &|_| None).unwrap().bucket, "x");
    let unknown = load::<Sample>(&directory.path().join("a.ini"), &|_| None).unwrap_err();
    assert!(matches!(unknown, ConfigError::UnknownFormat { .. }), "{unknown}");
    let missing = load::<Sample>(&directory.path().join("b.toml"), &|_| None).unwrap_err();
    assert!(matches!(missing, ConfigError::Unreadable { .. }), "{missing}");
    assert!(is_config_name(&path) && !is_config_name(directory.path()));
}

#[test]
fn a_file_that_is_no_configuration_is_not_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    std::fs::File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();

    assert!(load::<Sample>(&path, &|_| None).unwrap_err().to_string().contains("longer than 4 MiB"));
}
