//! The whole protocol at once, in memory: packers, mounts that read and delete, folders, repackers, collectors of garbage and
//! whoever undoes a repack work on one archive, while a seed decides whose call is next, what becomes of it, and how late
//! it is by then.
//!
//! - [`world`] runs a seed: a storm, in which processes die and freeze, answers get lost, writes arrive hours late, uploads are
//!   spoilt, clocks are wrong; then a calm, in which all must come right.
//! - [`oracle`] judges after every operation, by the store alone. [`mount`] judges what a reader is told.
//! - [`gate`] lets calls through, over [`crate::fault`], over the store in memory.
//!
//! - [`script`] is the other way: one story without chance, which dies once at every call of it, in every way.
//!
//! A seed repeats a run exactly. `scripts/simulate` runs as many as wanted; what is not simulated stands in
//! `docs/protocol.md`.
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

mod calm;
mod dice;
mod files;
mod gate;
mod jobs;
mod mount;
mod oracle;
mod process;
mod profile;
mod script;
mod shared;
mod tests;
mod world;
