//! The whole path, for real: the programs as they are built, on a real mount, read by ordinary programs.
//!
//! These tests mount file systems and act as other users, so they need root, `/dev/fuse` and the packages that
//! `scripts/test` installs. Where something is missing they fail and say so.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a surprise is a failed test, and real programs take real time"
)]

mod e2e {
    mod addressing;
    mod bucket;
    mod checking;
    mod clients;
    mod deleting;
    mod denying;
    mod directories;
    mod ending;
    mod failing_over;
    mod faults;
    mod fstab;
    mod journaling;
    mod killing;
    mod legacy;
    mod many_days;
    mod mapping;
    mod metering;
    mod migrating;
    mod model;
    mod mounting;
    mod names;
    mod observing;
    mod ordering;
    mod permitting;
    mod racing;
    mod reading;
    mod real_files;
    mod refusing;
    mod rejecting;
    mod repacking;
    mod requests;
    mod soaking;
    mod sql;
    mod supervising;
    mod units;
    mod users;
    mod verifying;
    mod weathering;
    mod zones;
}
