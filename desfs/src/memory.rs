//! How much memory the caches may take: what was asked for, within what the cgroup of the process lets it have, and less
//! while that is short.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use desstore::Clock;

use crate::core::FileSystem;
use crate::limits::{CALM_ROUNDS, MEMORY_DEFAULT, PRESSURE_INTERVAL};

/// What all caches together may hold: what was asked for, or the default; a quarter of what the cgroup has at most if nothing
/// was asked for, and three quarters of it in any case.
pub fn budget(asked: Option<u64>, limit: Option<u64>) -> u64 {
    match (asked, limit) {
        (Some(asked), None) => asked,
        (Some(asked), Some(limit)) => asked.min(limit / 4 * 3),
        (None, Some(limit)) => MEMORY_DEFAULT.min(limit / 4),
        (None, None) => MEMORY_DEFAULT,
    }
}

/// A cgroup that may limit memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// The directory of the process's own group, and those around it up to the root.
    directories: Vec<PathBuf>,
    names: &'static Names,
}

/// What the files are called.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    limits: &'static [&'static str],
    usage: &'static str,
    /// The line of `memory.stat` that tells what the kernel can take back at once.
    reclaimable: &'static str,
}

const VERSION_2: Names =
    Names { limits: &["memory.max", "memory.high"], usage: "memory.current", reclaimable: "inactive_file" };

const VERSION_1: Names =
    Names { limits: &["memory.limit_in_bytes"], usage: "memory.usage_in_bytes", reclaimable: "total_inactive_file" };

impl Cgroup {
    /// The cgroup of this process, if memory is counted in one.
    pub fn find() -> Option<Self> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::find_below(Path::new("/sys/fs/cgroup"), &membership)
    }

    /// The same with what `/proc/self/cgroup` says, below another root.
    fn find_below(root: &Path, membership: &str) -> Option<Self> {
        let lines = || membership.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let of_version_1 = lines().find(|(controllers, _)| controllers.split(',').any(|one| one == "memory"));
        let (root, path, names) = match (of_version_1, lines().find(|(controllers, _)| controllers.is_empty())) {
            (Some((_, path)), _) => (root.join("memory"), path, &VERSION_1),
            (None, Some((_, path))) => (root.to_owned(), path, &VERSION_2),
            (None, None) => return None,
        };
        let own = root.join(path.trim_start_matches('/'));
        // In a container the path may be one of the host: then what is mounted is the container's own.
        let around = own.ancestors().take_while(|directory| directory.starts_with(&root));
        let directories: Vec<_> =
            around.filter(|directory| directory.join(names.usage).is_file()).map(Path::to_owned).collect();
        (!directories.is_empty()).then_some(Self { directories, names })
    }

    /// What it may use at most: the least that any group around the process allows; none without a limit.
    pub fn limit(&self) -> Option<u64> {
        let files =
            self.directories.iter().flat_map(|directory| self.names.limits.iter().map(|name| directory.join(name)));
        // Version 1 writes a number near 2^63 where there is no limit, and version 2 "max".
        files.filter_map(|file| read_number(&file)).filter(|limit| *limit < 1 << 60).min()
    }

    /// True while memory is short in one of the groups: nine tenths of a limit are used, not counting what the kernel can
    /// take back, or programs wait for memory more than a tenth of the time.
    pub fn is_short(&self) -> bool {
        self.directories.iter().any(|directory| {
            let limits = self.names.limits.iter().filter_map(|name| read_number(&directory.join(name)));
            let limit = limits.filter(|limit| *limit < 1 << 60).min();
            let used = read_number(&directory.join(self.names.usage)).map(|used| {
                let stat = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
                used.saturating_sub(figure_of(&stat, self.names.reclaimable).unwrap_or(0))
            });
            let is_full = limit.zip(used).is_some_and(|(limit, used)| used > limit / 10 * 9);
            // Only where there is a limit: else it is the machine that is short, and others have the memory.
            let waits = || std::fs::read_to_string(directory.join("memory.pressure")).unwrap_or_default();
            is_full || limit.is_some() && share_of_waiting(&waits()) > 10.0
        })
    }
}

fn read_number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The figure of a line `NAME FIGURE`.
fn figure_of(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// How many hundredths of the last ten seconds some program has waited for memory: `some avg10=0.00 avg60=...`.
fn share_of_waiting(pressure: &str) -> f64 {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "));
    let figure = some.and_then(|some| some.split(' ').find_map(|field| field.strip_prefix("avg10=")));
    figure.and_then(|figure| figure.parse().ok()).unwrap_or(0.0)
}

/// Makes the budget smaller while memory is short, and restores it afterwards.
#[derive(Debug)]
pub struct Governor {
    budget: u64,
    current: u64,
    calm_rounds: u32,
}

impl Governor {
    /// Begins with all of the budget.
    pub const fn new(budget: u64) -> Self {
        Self { budget, current: budget, calm_rounds: 0 }
    }

    /// What the budget is from now on, if it changes.
    fn decide(&mut self, is_short: bool) -> Option<u64> {
        let before = self.current;
        if is_short {
            self.calm_rounds = 0;
            self.current = (self.current / 2).max(self.budget / 16);
        } else {
            self.calm_rounds = self.calm_rounds.saturating_add(1);
            if self.calm_rounds >= CALM_ROUNDS {
                self.calm_rounds = 0;
                self.current = self.current.saturating_mul(2).min(self.budget);
            }
        }
        (self.current != before).then_some(self.current)
    }

    /// Watches a cgroup for ever.
    pub async fn watch(mut self, cgroup: Cgroup, core: Arc<FileSystem>, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep(PRESSURE_INTERVAL).await;
            if let Some(bytes) = self.decide(cgroup.is_short()) {
                tracing::info!(bytes, "the caches may hold so much from now on");
                core.set_memory_bytes(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn a_budget_stays_within_the_cgroup() {
        assert_eq!(budget(None, None), 256 * MIB);
        assert_eq!(budget(None, Some(512 * MIB)), 128 * MIB);
        assert_eq!(budget(None, Some(64 << 30)), 256 * MIB);
        assert_eq!(budget(Some(100 * MIB), None), 100 * MIB);
        assert_eq!(budget(Some(100 * MIB), Some(1 << 30)), 100 * MIB);
        assert_eq!(budget(Some(1 << 30), Some(200 * MIB)), 150 * MIB);
    }

    #[test]
    fn the_least_limit_around_the_process_counts() {
        let root = tree(&[
            ("system.slice/memory.max", "max\n"),
            ("system.slice/memory.high", "400000000\n"),
            ("system.slice/memory.current", "1\n"),
            ("system.slice/des.service/memory.max", "500000000\n"),
            ("system.slice/des.service/memory.high", "max\n"),
            ("system.slice/des.service/memory.current", "1\n"),
        ]);

        let found = Cgroup::find_below(root.path(), "0::/system.slice/des.service\n").unwrap();

        assert_eq!(found.limit(), Some(400_000_000));
        assert!(!found.is_short());
        assert_eq!(Cgroup::find_below(root.path(), "0::/nowhere\n"), None);
        assert_eq!(Cgroup::find_below(root.path(), ""), None);
    }

    #[test]
    fn version_1_is_understood_also_in_a_container() {
        let root = tree(&[
            ("memory/memory.limit_in_bytes", "300000000\n"),
            ("memory/memory.usage_in_bytes", "290000000\n"),
            ("memory/memory.stat", "cache 5\ntotal_inactive_file 100000000\n"),
        ]);
        let membership = "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n";

        let found = Cgroup::find_below(root.path(), membership).unwrap();

        assert_eq!(found.limit(), Some(300_000_000));
        assert!(!found.is_short(), "the kernel can take back a third");
        std::fs::write(root.path().join("memory/memory.stat"), "total_inactive_file 1000\n").unwrap();
        assert!(found.is_short());
        std::fs::write(root.path().join("memory/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!((found.limit(), found.is_short()), (None, false));
    }

    #[test]
    fn waiting_for_memory_is_being_short_of_it() {
        let root = tree(&[
            ("des/memory.max", "1000000000"),
            ("des/memory.current", "1000"),
            ("des/memory.pressure", "some avg10=42.10 avg60=3.00 avg300=1.00 total=5\nfull avg10=0.00 total=0\n"),
        ]);

        assert!(Cgroup::find_below(root.path(), "0::/des").unwrap().is_short());
    }

    #[test]
    fn the_budget_is_halved_at_once_and_comes_back_slowly() {
        let mut governor = Governor::new(256 * MIB);

        assert_eq!(governor.decide(true), Some(128 * MIB));
        assert_eq!(governor.decide(true), Some(64 * MIB));
        assert_eq!([governor.decide(true), governor.decide(true)], [Some(32 * MIB), Some(16 * MIB)]);
        assert_eq!(governor.decide(true), None, "a sixteenth is left in any case");
        for _ in 1..CALM_ROUNDS {
            assert_eq!(governor.decide(false), None);
        }
        assert_eq!(governor.decide(false), Some(32 * MIB));
    }
}
