//! Mounts a DES archive as a file system.
//!
//! [`core`] is the file system itself, tested without a kernel; [`fuse`] puts it behind FUSE; [`mod@mount`], [`daemon`] and
//! [`signals`] are the contract with mount(8). `docs/semantics.md` says what a mount shows, `docs/mount.md` how to mount.
#![expect(clippy::arithmetic_side_effects, reason = "sums of small figures; what comes from outside is checked")]

pub mod check;
pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
pub mod environment;
pub mod exit;
pub mod fuse;
pub mod handover;
pub mod inode;
pub mod journaling;
pub mod limits;
pub mod locate;
pub mod log_file;
pub mod memory;
pub mod metrics;
pub mod mount;
pub mod names;
mod observed;
pub mod options;
pub mod serve;
pub mod signals;
pub mod source;
pub mod supervisor;
pub mod tally;
pub mod upkeep;
