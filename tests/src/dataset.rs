//! Large sets of files, made once and kept: real ones of this machine, and documents from `scripts/make-corpus`.
//!
//! Beside the source stands what a mount of it must look like: a directory per day with every file under its shown
//! name, as hard links, so that any program can compare the two trees.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{command, data_set, files_below, run, shown_name};

/// Files to pack and what must come out.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// The files as they are found.
    pub source: PathBuf,
    /// The files as a mount must show them.
    pub expected: PathBuf,
    /// How many there are.
    pub files: usize,
    /// The manifest of the files, if they come with one.
    pub manifest: Option<PathBuf>,
}

/// The day that the real files are packed under.
const REAL_DAY: &str = "20240115";

/// Icons and documentation of this machine, without symbolic links: at least 60,000 files.
pub fn real_files() -> DataSet {
    let place = data_set("real-files", |place| {
        let source = place.join("source");
        fs::create_dir(&source).expect("source");
        for tree in ["/usr/share/icons", "/usr/share/doc"] {
            let mut copy = command("cp");
            copy.args(["--recursive", "--no-dereference", "--preserve=mode,timestamps", tree]).arg(&source);
            run(&mut copy).success();
        }
        run(command("find").arg(&source).args(["-type", "l", "-delete"])).success();
        let day = place.join("expected").join(REAL_DAY);
        fs::create_dir_all(&day).expect("expected day");
        for path in files_below(&source) {
            let uid = path.to_str().expect("the packages of Debian have names in UTF-8");
            let shown = shown_name(uid);
            assert!(shown.len() <= 255, "{uid} is too long to be shown whole");
            fs::hard_link(source.join(&path), day.join(shown)).expect("hard link");
        }
    });
    let files = files_below(&place.join("source")).len();
    assert!(files >= 60_000, "only {files} files here: papirus-icon-theme and the like are missing, see scripts/test");
    DataSet { source: place.join("source"), expected: place.join("expected"), files, manifest: None }
}

/// 20,000 documents of five days with uids of all kinds, and a manifest in the ancestor's form.
pub fn mixed_files() -> DataSet {
    const FILES: usize = 20_000;
    let place = data_set("mixed-files", |place| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/make-corpus");
        let mut make = command("python3");
        make.arg(script).args(["--relative", "--files", &FILES.to_string(), "--out"]).arg(place);
        run(&mut make).success();
        for row in rows(&place.join("manifest.json")) {
            let created = row["created_at"].as_str().expect("time of creation");
            let day = place.join("expected").join(created[..10].replace('-', ""));
            fs::create_dir_all(&day).expect("expected day");
            let uid = row["uid"].as_str().expect("uid");
            let source = place.join(row["source_path"].as_str().expect("path"));
            fs::hard_link(source, day.join(shown_name(uid))).expect("hard link");
        }
    });
    // The manifest's paths are relative to it, so that the target directory can be moved.
    let mut rows = rows(&place.join("manifest.json"));
    for row in &mut rows {
        row["source_path"] = place.join(row["source_path"].as_str().expect("path")).to_str().expect("path").into();
    }
    let manifest = place.join("absolute.json");
    let partial = place.join(format!("absolute.{}", std::process::id()));
    fs::write(&partial, serde_json::to_vec(&rows).expect("rows")).expect("manifest");
    fs::rename(&partial, &manifest).expect("manifest");
    DataSet { source: place.join("data"), expected: place.join("expected"), files: FILES, manifest: Some(manifest) }
}

fn rows(manifest: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(manifest).expect("manifest")).expect("manifest")
}
