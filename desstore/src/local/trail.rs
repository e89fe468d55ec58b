//! The steps of a write that must come in a certain order to be durable. Tests read them; the programs record nothing.

/// One step that matters when the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// fsync(2) of a file, by the name it has at that time.
    SyncFile(&'a str),
    /// fsync(2) of a directory.
    SyncDirectory(&'a str),
    /// A new name for a file.
    Link(&'a str),
    /// A file takes the place of another.
    Rename(&'a str),
    /// A name goes.
    Unlink(&'a str),
}

impl Step<'_> {
    pub(super) fn path(&self) -> &str {
        match self {
            Self::SyncFile(path)
            | Self::SyncDirectory(path)
            | Self::Link(path)
            | Self::Rename(path)
            | Self::Unlink(path) => path,
        }
    }
}

/// The steps taken so far.
#[derive(Debug, Default)]
pub(super) struct Trail {
    #[cfg(test)]
    steps: std::sync::Mutex<Vec<String>>,
}

impl Trail {
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "only tests keep a trail")]
    pub(super) fn record(&self, _: Step<'_>) {}

    #[cfg(test)]
    pub(super) fn record(&self, step: Step<'_>) {
        // Names in the spool are random.
        let path = if step.path().starts_with(".spool/") { ".spool/*" } else { step.path() };
        let told = match step {
            Step::SyncFile(_) => format!("sync file {path}"),
            Step::SyncDirectory(_) => format!("sync directory {path}"),
            Step::Link(_) => format!("link {path}"),
            Step::Rename(_) => format!("rename {path}"),
            Step::Unlink(_) => format!("unlink {path}"),
        };
        self.steps.lock().unwrap().push(told);
    }

    /// Hands over the steps taken since the last time.
    #[cfg(test)]
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.steps.lock().unwrap())
    }
}
