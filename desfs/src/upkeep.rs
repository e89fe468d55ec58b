//! What a mount does by itself now and then: frees the disk space of removed objects, sums up trouble, and tells systemd
//! how it goes and that it still answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use desstore::{Clock, LocalStore};

use crate::core::FileSystem;
use crate::limits::{PROBE_MAX, UPKEEP_INTERVAL};
use crate::mount::Probe;
use crate::supervisor::Supervisor;
use crate::tally::Tally;

/// The chores of one mount.
#[derive(Debug)]
pub struct Upkeep {
    /// The directory that the archive lies in, if it lies in one.
    pub local: Option<LocalStore>,
    /// The file system.
    pub core: Arc<FileSystem>,
    /// What it has done.
    pub tally: Arc<Tally>,
    /// What is mounted where, in words.
    pub description: String,
    /// Who wants to be told.
    pub supervisor: Supervisor,
    /// Asks whether the mount answers.
    pub probe: Probe,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Upkeep {
    /// Goes on for ever. Drop it to end it.
    pub async fn run(&mut self) -> Infallible {
        let watchdog = self.supervisor.watchdog();
        // Twice as often as asked, as sd_watchdog_enabled(3) recommends.
        let interval = watchdog.map_or(UPKEEP_INTERVAL, |period| UPKEEP_INTERVAL.min(period / 2));
        let patience = PROBE_MAX.min(interval);
        let mut swept_at: Option<Duration> = None;
        loop {
            let began = self.clock.monotonic();
            if watchdog.is_some() {
                self.give_sign_of_life(patience).await;
            }
            self.supervisor.status(&self.status());
            if swept_at.is_none_or(|at| began.saturating_sub(at) >= UPKEEP_INTERVAL) {
                swept_at = Some(began);
                self.sweep().await;
            }
            let spent = self.clock.monotonic().saturating_sub(began);
            self.clock.sleep(interval.saturating_sub(spent)).await;
        }
    }

    async fn give_sign_of_life(&mut self, patience: Duration) {
        match self.probe.answers(self.clock.as_ref(), patience).await {
            Ok(()) => self.supervisor.alive(),
            Err(error) => tracing::error!(%error, "the mount does not answer; systemd gets no sign of life"),
        }
    }

    async fn sweep(&self) {
        self.tally.settle();
        self.core.tend();
        let Some(store) = self.local.clone() else { return };
        if let Err(error) = tokio::task::spawn_blocking(move || store.close_removed()).await {
            tracing::warn!(%error, "files of removed objects stay open");
        }
    }

    fn status(&self) -> String {
        let totals = self.core.totals_known();
        let holds = match totals.files {
            // Nobody has asked yet.
            0 => String::new(),
            files => format!(" ({files} files)"),
        };
        format!("{}{holds}: {}", self.description, self.tally.figures())
    }
}

#[cfg(test)]
mod tests {
    use desfmt::{BucketBits, ObjectKey, Timestamp};
    use desstore::{Archive, ManualClock, ObjectStore, Payload, ReadOptions, SystemRandom};

    use super::*;
    use crate::core::{DeletionPolicy, Modes};
    use crate::options::MountOptions;

    fn deleted_files_open() -> usize {
        let is_deleted = |path: std::path::PathBuf| path.to_string_lossy().contains("upkeep-victim (deleted)");
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.unwrap().path().read_link().ok());
        links.filter(|path| is_deleted(path.clone())).count()
    }

    #[tokio::test]
    async fn the_disk_space_of_removed_objects_is_freed() {
        let directory = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let store = LocalStore::open(directory.path(), Arc::clone(&clock)).unwrap();
        let key = ObjectKey::new("upkeep-victim").unwrap();
        store.put(&key, Payload::Bytes("content".into())).await.unwrap();
        store.get_tail(&key, 3).await.unwrap();
        std::fs::remove_file(directory.path().join("upkeep-victim")).unwrap();
        assert_eq!(deleted_files_open(), 1);
        let options = MountOptions::default();
        let shared: Arc<dyn ObjectStore> = Arc::new(store.clone());
        let bits = BucketBits::new(8).unwrap();
        let archive =
            Archive::open_legacy(shared, bits, ReadOptions::default(), Arc::clone(&clock), Arc::new(SystemRandom));
        let modes = Modes { owner: 0, group: 0, group_may_delete: false, umask: 0, exec: false };
        let policy = DeletionPolicy::new(&options, "host".to_owned(), Arc::clone(&clock));
        let upkeep = Upkeep {
            local: Some(store),
            core: Arc::new(FileSystem::new(archive, modes, policy)),
            tally: Arc::new(Tally::new(Arc::clone(&clock))),
            description: "/srv/archive on /mnt".to_owned(),
            supervisor: Supervisor::new(false),
            probe: Probe::new(directory.path()),
            clock,
        };

        upkeep.sweep().await;

        assert_eq!(deleted_files_open(), 0);
        let none = "0 requests, 0 failed, 0 files deleted, 0 writes dropped";
        assert_eq!(upkeep.status(), format!("/srv/archive on /mnt: {none}"));
    }
}
