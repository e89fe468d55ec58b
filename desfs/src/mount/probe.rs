//! Whether a mount answers, asked by the process that serves it.
//!
//! A thread of that process must not ask: were the mount stuck, it could not be ended, not even by SIGKILL, and would keep the
//! connection to the kernel open that has to close for it to end. So another process asks, and this one only waits for it.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use desstore::Clock;
use rustix::io::Errno;

use crate::cli::PROBE;
use crate::limits::PROBE_POLL;

/// Asks a mount, again and again.
#[derive(Debug)]
pub struct Probe {
    program: OsString,
    arguments: Vec<OsString>,
    /// The process that asks and has no answer yet.
    asking: Option<Child>,
}

impl Probe {
    /// A probe of a mount that this program serves.
    pub fn new(target: &Path) -> Self {
        Self::running(crate::daemon::own_program().into(), vec![PROBE.into(), target.into()])
    }

    const fn running(program: OsString, arguments: Vec<OsString>) -> Self {
        Self { program, arguments, asking: None }
    }

    /// Waits for an answer. One that is still waited for from an earlier time is not asked for again.
    pub async fn answers(&mut self, clock: &dyn Clock, patience: Duration) -> io::Result<()> {
        let give_up_at = clock.monotonic().saturating_add(patience);
        let mut child = match self.asking.take() {
            Some(child) => child,
            None => Command::new(&self.program)
                .args(&self.arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        };
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("the probe ended with {status}"))),
                None if clock.monotonic() >= give_up_at => {
                    self.asking = Some(child);
                    return Err(Errno::TIMEDOUT.into());
                }
                None => clock.sleep(PROBE_POLL).await,
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(mut child) = self.asking.take() {
            // It ends when the mount does, whose kernel then answers for it. Not waited for: that could be after us.
            drop(child.kill());
        }
    }
}

#[cfg(test)]
mod tests {
    use desfmt::Timestamp;
    use desstore::ManualClock;

    use super::*;

    fn probe(program: &str, argument: &str) -> Probe {
        Probe::running(program.into(), vec![argument.into()])
    }

    #[tokio::test]
    async fn an_answer_is_the_end_of_the_process_that_asked() {
        let clock = desstore::SystemClock::new();
        let patience = Duration::from_mins(1);

        assert!(probe("/bin/true", "").answers(&clock, patience).await.is_ok());
        assert!(probe("/bin/false", "").answers(&clock, patience).await.is_err());
        assert!(probe("/nowhere", "").answers(&clock, patience).await.is_err());
    }

    #[tokio::test]
    async fn what_does_not_answer_in_time_is_not_asked_a_second_time() {
        let clock = ManualClock::new(Timestamp::from_micros(0));
        let mut probe = probe("/bin/sleep", "600");

        let first = probe.answers(&clock, Duration::from_secs(5)).await.unwrap_err();
        let child = probe.asking.as_ref().unwrap().id();
        let second = probe.answers(&clock, Duration::from_secs(5)).await.unwrap_err();

        assert_eq!((first.kind(), second.kind()), (io::ErrorKind::TimedOut, io::ErrorKind::TimedOut));
        assert_eq!(probe.asking.as_ref().unwrap().id(), child);
    }
}
