use std::collections::BTreeMap;

use desstore::{Archive, LocalStore, ReadOptions, SystemClock, SystemRandom};

use super::*;
use crate::compression::CodecChoice;
use crate::pack::testing::{Contents, World, noise, shown};
use crate::source_time::TimeRules;

struct Flat {
    place: tempfile::TempDir,
}

impl Flat {
    fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap() }
    }

    fn pack(&self, world: &World, config: Config) -> Result<Report, PackError> {
        let config = Config { times: TimeRules { zone: None, as_written: true }, spool: world.path("spool"), ..config };
        run(config, self.place.path(), &SystemClock::new(), Arc::new(Progress::default()))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }

    /// What a mount of the directory would show.
    async fn visible(&self) -> Contents {
        let clock = Arc::new(SystemClock::new());
        let store = Arc::new(LocalStore::open(self.place.path(), Arc::<SystemClock>::clone(&clock)).unwrap());
        let bits = BucketBits::new(BITS_DEFAULT).unwrap();
        let options = ReadOptions::default();
        shown(&Archive::open_legacy(store, bits, options, clock, Arc::new(SystemRandom))).await
    }
}

#[tokio::test]
async fn a_flat_directory_reads_back_with_every_codec() {
    let world = World::mixed(41, 80);
    for choice in [CodecChoice::Auto, CodecChoice::Lz4, CodecChoice::Stored] {
        let flat = Flat::new();
        let mut config = world.config();
        config.compression.choice = choice;

        let report = flat.pack(&world, config).unwrap();

        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.files, world.count());
        assert_eq!(flat.visible().await, world.expected());
    }
}

#[tokio::test]
async fn numbers_go_on_and_nothing_is_packed_twice() {
    let world = World::mixed(42, 80);
    let flat = Flat::new();
    flat.pack(&world, world.part(0..50).config()).unwrap();
    let before: BTreeMap<_, _> =
        flat.names().into_iter().map(|name| (name.clone(), fs::read(flat.place.path().join(name)).unwrap())).collect();

    let report = flat.pack(&world, world.config()).unwrap();

    assert_eq!((report.files, report.present), (30, 50));
    for (name, bytes) in before {
        assert_eq!(fs::read(flat.place.path().join(name)).unwrap(), bytes);
    }
    assert_eq!(flat.visible().await, world.expected());
    assert_eq!(flat.pack(&world, world.config()).unwrap().files, 0);
}

#[tokio::test]
async fn a_big_file_lies_beside_its_shard() {
    let mut world = World::new();
    let big = noise(43, 10_485_761);
    world.add("20240301", "big", &big);
    world.add("20240301", "big again", &big);
    world.add("20240301", "not big", &big[1..]);
    let flat = Flat::new();

    let report = flat.pack(&world, world.config()).unwrap();

    assert!(report.is_clean(), "{report:?}");
    assert_eq!(fs::read_dir(flat.place.path().join("_bigFiles")).unwrap().count(), 1);
    assert_eq!(flat.visible().await, world.expected());
    assert_eq!(flat.pack(&world, world.config()).unwrap().present, 3);
}

#[test]
fn other_content_is_a_conflict() {
    let (mut first, mut second) = (World::new(), World::new());
    first.add("20240301", "a", b"first");
    second.add("20240301", "a", b"FIRST");
    let flat = Flat::new();
    flat.pack(&first, first.config()).unwrap();

    let report = flat.pack(&second, second.config()).unwrap();

    assert_eq!((report.conflicts, report.files), (1, 0));
    assert_eq!(flat.names().len(), 1);
}

#[test]
fn what_is_not_the_ancestors_is_refused() {
    let world = World::mixed(44, 10);
    let flat = Flat::new();
    let refused = |config| match flat.pack(&world, config) {
        Err(PackError::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused(Config { bits: BucketBits::new(3), ..world.config() }).contains("n_bits"));
    flat.pack(&world, world.config()).unwrap();
    assert!(refused(Config { bits: BucketBits::new(12), ..world.config() }).contains("n_bits"));
    let held = claim(flat.place.path()).unwrap();
    assert!(refused(world.config()).contains("another run"));
    drop(held);
    fs::write(flat.place.path().join("des.json"), b"{}").unwrap();
    assert!(refused(world.config()).contains("des.json"));
}
