//! `unlink=journal`: the journal of a mount, and the task that writes it to the store.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use desstore::{Archive, Clock, Journal, SystemRandom};
use tokio::task::JoinSet;

use crate::exit::{Failure, reason_of};
use crate::limits::DRAIN_MAX;
use crate::options::{MountOptions, Unlinking};

/// Where journals lie unless told otherwise.
pub const DIRECTORY: &str = "/var/lib/desfs/journal";

/// The journal of a mount, if it has one.
#[derive(Debug)]
pub struct Journaling {
    journal: Option<Arc<Journal>>,
    writing: JoinSet<Infallible>,
}

impl Journaling {
    /// Opens the journal that the options ask for and begins to write what is in it. Needs a runtime.
    pub fn start(archive: &Arc<Archive>, options: &MountOptions, clock: &Arc<dyn Clock>) -> Result<Self, Failure> {
        let mut writing = JoinSet::new();
        if options.unlinking == Unlinking::Durable || options.read_only || archive.is_legacy() {
            return Ok(Self { journal: None, writing });
        }
        let directory = options.journal.clone().unwrap_or_else(|| PathBuf::from(DIRECTORY));
        let opened = Journal::open(Arc::clone(archive), Path::new(&directory), Arc::clone(clock), &SystemRandom);
        let journal = opened
            .map_err(|error| Failure::mount(format!("{}; journal=DIRECTORY names another place", reason_of(&error))))?;
        let journal = Arc::new(journal);
        if journal.waiting() > 0 {
            tracing::info!(count = journal.waiting(), "deletions that an earlier mount had taken are taken over");
        }
        let writer = Arc::clone(&journal);
        writing.spawn(async move { writer.run().await });
        Ok(Self { journal: Some(journal), writing })
    }

    /// The journal.
    pub fn journal(&self) -> Option<Arc<Journal>> {
        self.journal.clone()
    }

    /// Writes what is left to the store, within a time. What the store does not take waits for the next mount.
    pub async fn finish(mut self, clock: &dyn Clock) {
        self.writing.shutdown().await;
        let Some(journal) = self.journal else { return };
        let outcome = tokio::select! {
            flushed = journal.flush() => flushed.map_err(|error| reason_of(&error)),
            () = clock.sleep(DRAIN_MAX) => Err("the store did not answer in time".to_owned()),
        };
        if let Err(error) = outcome {
            let (waiting, file) = (journal.waiting(), journal.path());
            tracing::error!(waiting, file = %file.display(), error, "deletions wait for the next mount on this host");
        }
    }
}
