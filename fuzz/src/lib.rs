//! The fuzz targets. They are the same functions that `cargo test` calls with the inputs of `tests/data/regressions`.

#[path = "../../desfs/src/names.rs"]
#[rustfmt::skip] // it cannot find the tests of that module from here
#[allow(dead_code, reason = "the mount needs more of it")]
mod file_names;
#[path = "../../desfmt/tests/hostile/forge.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod forge;
#[path = "../../desfmt/tests/hostile/samples.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod samples;
#[path = "../../desfmt/tests/hostile/seeds.rs"]
mod seeds;
#[path = "../../desfmt/tests/hostile/targets.rs"]
mod targets;
#[path = "../../desfmt/tests/hostile/walk.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod walk;

use std::io;
use std::path::Path;

use desfmt::{ArchiveId, BucketBits, Uid};
use file_names::{FileName, Naming};

/// Writes what each target begins with below `corpus`; `golden` holds shards of the ancestor.
pub fn write_seeds(corpus: &Path, golden: &Path) -> io::Result<()> {
    for seed in seeds::all(golden)? {
        let folder = corpus.join(seed.target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("seed-{}", seed.name)), &seed.input)?;
    }
    Ok(())
}

/// All targets: those of `desfmt`, and those of decoders that other crates keep to themselves.
fn targets() -> impl Iterator<Item = (&'static str, targets::Target)> {
    let own: [(&str, targets::Target); 1] = [("file_names", file_names)];
    targets::ALL.into_iter().chain(own)
}

/// Names as programs ask a mount for them: what is taken is what would be shown, and names no other file.
fn file_names(data: &[u8]) {
    let Some((bits, name)) = data.split_first() else { return };
    let bits = BucketBits::new(bits % 17).expect("at most 16");
    let naming = Naming::new(ArchiveId::from_bytes([7; 16]), bits);
    if let Some(FileName::Whole(uid)) = naming.decode(name) {
        assert_eq!(naming.encode(&uid).as_bytes(), name);
    }
    if let Some(uid) = std::str::from_utf8(name).ok().and_then(|text| Uid::new(text).ok()) {
        let shown = naming.encode(&uid);
        assert!((1..=255).contains(&shown.len()) && !shown.contains(['/', '\0']) && shown != "." && shown != "..");
        match naming.decode(shown.as_bytes()) {
            Some(FileName::Whole(decoded)) => assert_eq!(decoded, uid),
            Some(FileName::Cut(cut)) => assert!(naming.is_cut_name_of(&cut, &uid)),
            None => panic!("{shown:?} is shown and cannot be found"),
        }
    }
}

/// The names of all targets.
pub fn names() -> impl Iterator<Item = &'static str> {
    targets().map(|(name, _)| name)
}

/// Calls a target.
///
/// # Panics
///
/// When the target finds something, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = targets().find(|(known, _)| *known == name);
    target.expect("a target of that name").1(data);
}
