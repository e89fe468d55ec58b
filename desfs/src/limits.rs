//! The bounds of the mount, with their reasons.

use std::time::Duration;

/// How long unlink and rmdir may wait: the kernel locks their directory for that time.
pub const UNLINK_DEADLINE: Duration = Duration::from_secs(5);

/// Entries for one readdir request: as many as fill 32 KiB, the buffer of the C library, with names of some 20 bytes.
pub const ENTRIES_PER_PAGE: usize = 700;

/// Entries with attributes for one request: as many as fill 32 KiB.
pub const ENTRIES_PER_PAGE_PLUS: usize = 192;

/// How long an ended session may take to let go of the mount point before it is detached.
pub const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// How long requests under way may take after the mount is detached.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How long the mount table's entry of another daemon may take to answer before it counts as stuck.
pub const PROBE_MAX: Duration = Duration::from_secs(5);

/// How often a probe looks for its answer.
pub const PROBE_POLL: Duration = Duration::from_millis(5);

/// How often a mount does its chores.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(30);

/// How many causes of trouble are logged side by side.
pub const CAUSES_MAX: usize = 100;

/// How long a cause that was logged is only counted.
pub const CAUSE_SILENCE: Duration = Duration::from_mins(5);

/// How many dead mounts may lie on top of each other on a mount point.
pub const DEAD_MOUNTS_MAX: usize = 16;

/// What the kernel reads ahead, in KiB: as much as one request can carry.
pub const READ_AHEAD_KIB: u32 = 1_024;

/// How long to wait before a busy mount is tried again.
pub const UNMOUNT_RETRY: Duration = Duration::from_millis(200);

/// How long statfs(2) may wait for totals before it tells what was known last.
pub const STATFS_PATIENCE: Duration = Duration::from_secs(2);

/// How many days are looked at side by side when the root is listed.
pub const DAYS_AT_ONCE: usize = 16;

/// What all caches together may hold unless told otherwise.
pub const MEMORY_DEFAULT: u64 = 256 << 20;

/// What the cache on disk may take unless told otherwise.
pub const CACHE_SIZE_DEFAULT: u64 = 10 << 30;

/// The part of the memory of all caches that the cache on disk gets for its table and its queue: one in so many.
pub const DISK_CACHE_SHARE: u64 = 8;

/// How often it is looked whether memory is short.
pub const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);

/// After how many looks at which memory is not short the budget grows again.
pub const CALM_ROUNDS: u32 = 30;
