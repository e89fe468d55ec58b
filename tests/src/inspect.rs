//! Looking into an archive's directory without the programs under test, by its documents alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use desfmt::document::{Manifest, decode};

use crate::objects_below;

/// Asserts that an archive holds so many files, each in exactly one live shard, and that nothing is left over.
///
/// Whoever calls this has seen every file through a mount, so each is in at least one live shard; where the entries of
/// all live shards are as many as the files, none is in two.
#[track_caller]
pub fn assert_each_file_is_in_one_live_shard(archive: &Path, files: usize) {
    let mut entries = 0_u64;
    let mut live = BTreeSet::new();
    let mut condemned = BTreeSet::new();
    for name in objects_below(archive, "manifests") {
        let path = archive.join("manifests").join(&name);
        let manifest: Manifest = decode(&fs::read(&path).expect("manifest")).expect("a sound manifest");
        for shard in &manifest.shards {
            entries += u64::from(shard.entries);
            let found = fs::metadata(archive.join(shard.key.as_str())).map(|found| found.len());
            assert_eq!(found.ok(), Some(shard.len), "{} is as long as its manifest says", shard.key);
            live.insert(shard.key.to_string());
        }
        condemned.extend(manifest.condemned.iter().map(|object| object.key.to_string()));
    }
    let files = u64::try_from(files).expect("a small number");
    assert_eq!(entries, files, "entries of all live shards, and files");
    for path in objects_below(archive, "shards") {
        let key = format!("shards/{}", path.display());
        assert!(live.contains(&key) || condemned.contains(&key), "{key} is left over");
    }
    // The locks are empty files that stay.
    let parts = [".lock", ".spool/lock", "des.json", "manifests", "shards", "tombstones"];
    let is_known = |path: &Path| parts.iter().any(|part| path.starts_with(part));
    let left: Vec<_> = objects_below(archive, "").into_iter().filter(|path| !is_known(path)).collect();
    assert!(left.is_empty(), "left over: {left:?}");
}
