use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::*;

/// Keeps what an input yields.
#[derive(Default)]
struct Kept {
    rows: Vec<Row>,
    issues: Vec<Issue>,
}

impl RowSink for Kept {
    fn accept(&mut self, row: Row) -> io::Result<()> {
        self.rows.push(row);
        Ok(())
    }

    fn reject(&mut self, issue: Issue) {
        self.issues.push(issue);
    }
}

fn read(json: &str) -> Result<Kept, InputError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifest.json");
    fs::write(&file, json).unwrap();
    let mut kept = Kept::default();
    Input::Manifest { file: Some(file) }.read(&TimeRules::default(), None, &mut kept)?;
    for row in &mut kept.rows {
        row.source = row.source.strip_prefix(dir.path()).unwrap_or(&row.source).to_owned();
    }
    Ok(kept)
}

const GOOD: &str = r#"{"uid":"a","created_at":"2024-03-01T10:00:00Z","size_bytes":3,"source_path":"x/a","extra":[1]}"#;

#[test]
fn a_source_in_a_bucket_is_not_taken_for_a_file() {
    let kept = read(&format!("[{}]", GOOD.replace("x/a", "s3://bucket/x/a"))).unwrap();

    assert_eq!(kept.rows[0].source.to_str(), Some("s3://bucket/x/a"));
}

#[test]
fn an_array_and_lines_say_the_same() {
    let array = read(&format!(" [{GOOD},\n{GOOD}] ")).unwrap();
    let lines = read(&format!("{GOOD}\n{GOOD}\n")).unwrap();
    let pretty = read(&format!("{}\n\n{GOOD}", GOOD.replace(',', ",\n"))).unwrap();

    for kept in [&array, &lines, &pretty] {
        assert_eq!(kept.rows.len(), 2);
        assert!(kept.issues.is_empty());
        assert_eq!(kept.rows, array.rows);
    }
    let row = &array.rows[1];
    assert_eq!((row.uid.as_str(), row.len, row.number), ("a", 3, 2));
    assert_eq!((row.date.to_string().as_str(), row.source.to_str()), ("20240301", Some("x/a")));
}

#[test]
fn an_empty_manifest_has_no_rows() {
    for json in ["[]", " [ ] "] {
        assert!(read(json).unwrap().rows.is_empty(), "{json:?}");
    }
}

#[test]
fn a_numeric_uid_stands_for_its_digits() {
    for (json, uid) in [
        ("7", "7"),
        ("-5", "-5"),
        ("-0", "0"),
        ("18446744073709551616000000000000000001", "18446744073709551616000000000000000001"),
        (r#""007""#, "007"),
        (r#""\u0661 \ud83d\ude00""#, "\u{661} \u{1f600}"),
    ] {
        let kept = read(&format!("[{}]", GOOD.replace(r#""a""#, json))).unwrap();
        assert_eq!(kept.rows[0].uid.as_str(), uid);
    }
}

#[test]
fn a_broken_row_is_named_and_its_neighbours_are_kept() {
    for (from, to, reason) in [
        (r#""uid":"a","#, "", "no uid"),
        (r#""uid":"a""#, r#""uid":"""#, "must not be empty"),
        (r#""uid":"a""#, r#""uid":1.5"#, "neither text nor a whole number"),
        (r#""uid":"a""#, r#""uid":null"#, "no uid"),
        (r#""uid":"a""#, r#""uid":"\ud800""#, "not text"),
        (r#""uid":"a""#, r#""uid":"a","uid":"b""#, "duplicate field"),
        (r#""created_at":"2024-03-01T10:00:00Z","#, "", "no created_at"),
        ("2024-03-01T10:00:00Z", "yesterday", "not a point in time"),
        ("2024-03-01T10:00:00Z", "2024-03-01T10:00:00", "no time zone"),
        (r#""size_bytes":3"#, r#""size_bytes":-3"#, "not a whole number"),
        (r#""size_bytes":3"#, r#""size_bytes":3.0"#, "not a whole number"),
        (r#""size_bytes":3"#, r#""size_bytes":"3""#, "not a whole number"),
        (r#","source_path":"x/a""#, "", "no source_path"),
        ("x/a", "", "no path"),
        ("x/a", r"x\u0000a", "no path"),
        (r#""extra":[1]"#, r#""metadata":[1]"#, "not an object"),
        (GOOD, "17", "invalid type"),
    ] {
        let kept = read(&format!("[{GOOD},{},{GOOD}]", GOOD.replace(from, to))).unwrap();
        assert_eq!(kept.rows.len(), 2, "{to}");
        let [issue] = kept.issues.as_slice() else { panic!("{to}: {:?}", kept.issues) };
        assert!(issue.reason.contains(reason), "{to}: {}", issue.reason);
        assert_eq!(issue.row, Some(2));
    }
}

#[test]
fn a_uid_that_is_too_long_is_named() {
    let kept = read(&format!("[{}]", GOOD.replace(r#""a""#, &format!("{:?}", "u".repeat(65_536))))).unwrap();
    assert!(kept.issues[0].reason.contains("65536"), "{}", kept.issues[0].reason);
    let kept = read(&format!("[{}]", GOOD.replace(r#""a""#, &format!("{:?}", "u".repeat(65_535))))).unwrap();
    assert_eq!(kept.rows.len(), 1);
}

#[test]
fn metadata_is_kept_without_white_space() {
    let kept = read(&GOOD.replace(r#""extra":[1]"#, r#""metadata": { "a b" : "c \" d" , "n": [1, 2] }"#)).unwrap();
    assert_eq!(kept.rows[0].metadata.as_deref(), Some(r#"{"a b":"c \" d","n":[1,2]}"#));
}

#[test]
fn what_is_no_manifest_is_refused_with_its_place() {
    for json in [
        format!("[{GOOD},\n{GOOD}"),
        format!("[{GOOD},\n{GOOD}}}"),
        format!("[{GOOD},\n{GOOD}] x"),
        format!("{GOOD}\n{{\"uid\":"),
        format!("{GOOD}\n17\n"),
        "\"text\"".to_owned(),
        "<xml/>".to_owned(),
        String::new(),
        " \n".to_owned(),
        "[".repeat(100_000),
        format!("[{}]", GOOD.replace("[1]", &format!("{:?}", "x".repeat(5 << 20)))),
    ] {
        let Err(error) = read(&json) else { panic!("{}", &json[..json.len().min(200)]) };
        assert!(error.to_string().contains("manifest.json"), "{error}");
    }
}

/// A directory with files that are packed and others that are not.
fn sample_directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("sub/deep")).unwrap();
    fs::write(path("a.txt"), "aaa").unwrap();
    fs::write(path("sub/b.tar.gz"), "").unwrap();
    fs::write(path("sub/deep/.hidden"), "h").unwrap();
    std::os::unix::fs::symlink("a.txt", path("link")).unwrap();
    std::os::unix::fs::symlink(".", path("loop")).unwrap();
    dir
}

fn walk(dir: &Path, naming: Naming, except: Option<PathBuf>) -> Kept {
    let dating = Dating::At(Timestamp::from_micros(0));
    let mut kept = Kept::default();
    let input = Input::Directory { root: dir.to_owned(), naming, dating, except };
    input.read(&TimeRules::default(), None, &mut kept).unwrap();
    kept.rows.sort_by(|a, b| a.uid.cmp(&b.uid));
    kept
}

#[test]
fn a_directory_gives_its_regular_files() {
    let dir = sample_directory();
    for (naming, uids) in [
        (Naming::RelativePath, ["a.txt", "sub/b.tar.gz", "sub/deep/.hidden"]),
        (Naming::FileName, [".hidden", "a.txt", "b.tar.gz"]),
        (Naming::Stem, [".hidden", "a", "b.tar"]),
    ] {
        let kept = walk(dir.path(), naming, None);
        assert_eq!(kept.rows.iter().map(|row| row.uid.as_str()).collect::<Vec<_>>(), uids);
        assert!(kept.rows.iter().all(|row| row.date.to_string() == "19700101"));
        assert!(kept.issues.is_empty());
    }
}

#[test]
fn the_archive_itself_is_left_out() {
    let dir = sample_directory();
    let kept = walk(dir.path(), Naming::RelativePath, Some(dir.path().join("sub")));
    assert_eq!(kept.rows.iter().map(|row| row.uid.as_str()).collect::<Vec<_>>(), ["a.txt"]);
}

#[test]
fn a_name_that_is_not_utf8_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"bad\xff")), "x").unwrap();

    let kept = walk(dir.path(), Naming::RelativePath, None);

    assert!(kept.rows.is_empty());
    assert_eq!(kept.issues[0].reason, "the name is not UTF-8");
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let (naming, dating) = (Naming::RelativePath, Dating::Modified);
    let input = Input::Directory { root: PathBuf::from("/nowhere/at/all"), naming, dating, except: None };
    assert!(input.read(&TimeRules::default(), None, &mut Kept::default()).is_err());
}
