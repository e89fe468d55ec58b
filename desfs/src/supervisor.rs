//! What systemd is told, where it supervises a mount in the foreground (`Type=notify`).

use std::time::Duration;

use sd_notify::NotifyState;

/// The one who started this process and may want to hear of it.
#[derive(Debug, Clone, Copy)]
pub struct Supervisor {
    listens: bool,
}

impl Supervisor {
    /// The supervisor of a process in the foreground; one in the background has none.
    pub const fn new(in_foreground: bool) -> Self {
        Self { listens: in_foreground }
    }

    /// How often it wants a sign of life at least, if it wants any.
    pub fn watchdog(self) -> Option<Duration> {
        sd_notify::watchdog_enabled().filter(|period| self.listens && !period.is_zero())
    }

    /// Tells that the mount answers.
    pub fn ready(self) {
        self.tell(NotifyState::Ready);
    }

    /// Tells that it ends.
    pub fn stopping(self) {
        self.tell(NotifyState::Stopping);
    }

    /// Tells that it still answers.
    pub fn alive(self) {
        self.tell(NotifyState::Watchdog);
    }

    /// Tells how it goes, in one line.
    pub fn status(self, line: &str) {
        // A newline would begin another message.
        let line: String = line.chars().map(|one| if one.is_control() { '?' } else { one }).collect();
        self.tell(NotifyState::Status(&line));
    }

    fn tell(self, state: NotifyState<'_>) {
        if self.listens
            && let Err(error) = sd_notify::notify(&[state])
        {
            tracing::warn!(%error, "systemd cannot be told");
        }
    }
}
