//! A mount against a model of it: random sequences of what programs and other hosts do, the whole tree compared after
//! every step.
//!
//! A sequence has three days of its own; many sequences share one mount, so that a thousand of them take a minute.

mod mapper;
mod stage;
mod steps;
mod truth;

use std::cell::RefCell;

use des_tests::seed;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use stage::Stage;

/// Sequences that one archive and its mounts see.
const SEQUENCES_PER_STAGE: u32 = 20;

/// Runs sequences on mounts with these options.
fn agrees_with_the_model(sequences: u32, options: &'static str, is_current: bool) {
    let config = Config {
        cases: sequences,
        failure_persistence: None,
        max_shrink_iters: 100,
        rng_seed: RngSeed::Fixed(seed()),
        ..Config::default()
    };
    let shared: RefCell<Option<Stage>> = RefCell::new(None);
    let outcome = TestRunner::new(config).run(&steps::sequence(), |sequence| {
        // A sequence that fails takes its stage with it.
        let mut stage = shared.take().unwrap_or_else(|| Stage::new(options, is_current));
        stage.play(&sequence);
        if stage.sequences() < SEQUENCES_PER_STAGE {
            shared.replace(Some(stage));
        } else {
            stage.finish();
        }
        Ok(())
    });
    if let Some(stage) = shared.take() {
        stage.finish();
    }
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn five_hundred_random_sequences_agree_with_the_model_where_changes_elsewhere_are_seen_at_once() {
    agrees_with_the_model(500, "ttl=0", true);
}

#[test]
fn five_hundred_random_sequences_agree_with_the_model_where_names_are_kept() {
    agrees_with_the_model(500, "ttl=1h,strict", false);
}
