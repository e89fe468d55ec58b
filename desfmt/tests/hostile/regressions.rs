//! The fuzz targets without a fuzzer: what once made one of them fail, their seeds, and random changes of those.

use std::path::{Path, PathBuf};

use crate::random::Random;
use crate::{seeds, targets};

/// How often each seed is changed; the fuzzer does it a million times.
const MUTATIONS: usize = 60;

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(folder)
}

#[test]
fn what_the_fuzzer_found_is_found_no_more() {
    let mut replayed = 0;
    for (name, target) in targets::ALL {
        let Ok(inputs) = std::fs::read_dir(data("regressions").join(name)) else { continue };
        for input in inputs {
            let input = input.unwrap().path();
            println!("{}", input.display());
            target(&std::fs::read(&input).unwrap());
            replayed += 1;
        }
    }
    let folders =
        std::fs::read_dir(data("regressions")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
    let files = folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count());
    assert_eq!(replayed, files.sum::<usize>(), "each input lies in the folder of its target");
}

#[test]
fn every_target_takes_its_seeds_and_random_changes_of_them() {
    let seeds = seeds::all(&data("golden")).unwrap();
    for (number, (name, target)) in (0..).zip(targets::ALL) {
        let mut random = Random(number);
        let of_target: Vec<_> = seeds.iter().filter(|seed| seed.target == name).collect();
        assert!(!of_target.is_empty(), "{name} has no seeds");
        for seed in of_target {
            println!("{name}, seed {}", seed.name);
            target(&seed.input);
            for _ in 0..MUTATIONS {
                let mut input = seed.input.clone();
                random.mutate(&mut input);
                target(&input);
            }
        }
    }
}

#[test]
fn the_sound_seeds_are_taken_for_sound() {
    for sample in crate::samples::small().into_iter().chain(crate::samples::large()) {
        assert_eq!(crate::walk::walk(&sample.object), Ok(0), "{}", sample.what);
        let parts = crate::forge::Parts::of(&sample.object).unwrap();
        assert_eq!(crate::walk::walk(&parts.assemble()), Ok(0), "{}, taken apart and put together", sample.what);
        desfmt::v3::check_object(&parts.assemble()).unwrap();
    }
}
