//! Hostile and damaged bytes: any bytes give what was written or a typed error, in bounded memory and time.
//!
//! `docs/hostile-input.md` says what is promised; the same decoders are fuzzed by `scripts/fuzz`.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test: whatever is wrong must stop it"
)]

mod bombs;
mod damage;
mod documents;
mod forge;
mod mutations;
mod random;
mod regressions;
mod samples;
mod seeds;
mod targets;
mod walk;
