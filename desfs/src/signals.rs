//! What ends a mount: an unmount from outside, or SIGTERM and SIGINT, which unmount. SIGHUP drops the caches.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use desfmt::Date;
use desstore::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::core::FileSystem;
use crate::fuse::Session;
use crate::limits::{DRAIN_MAX, UNMOUNT_PATIENCE, UNMOUNT_RETRY};
use crate::log_file::LogFile;
use crate::mount::MountPoint;
use crate::upkeep::Upkeep;

/// The signals that desfs reacts to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on they no longer end the process by themselves. Needs a runtime.
    pub fn register() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves and keeps up until the mount ends.
pub async fn serve_until_end(
    mut session: Session,
    mut signals: Signals,
    mount_point: &MountPoint,
    log: Option<&LogFile>,
    upkeep: &mut Upkeep,
) -> io::Result<()> {
    let (core, clock, supervisor) = (Arc::clone(&upkeep.core), Arc::clone(&upkeep.clock), upkeep.supervisor);
    let chores = upkeep.run();
    tokio::pin!(chores);
    loop {
        tokio::select! {
            ended = session.ended() => return ended,
            never = &mut chores => match never {},
            _ = signals.hang_up.recv() => start_afresh(&session, &core, log).await,
            () = async {
                tokio::select! {
                    _ = signals.terminate.recv() => {}
                    _ = signals.interrupt.recv() => {}
                }
            } => break,
        }
    }
    tracing::info!("unmounting");
    supervisor.stopping();
    stop(session, mount_point, &clock).await
}

/// What can change while mounted is looked at anew: the archive, and which file is the log.
async fn start_afresh(session: &Session, core: &FileSystem, log: Option<&LogFile>) {
    if let Some(log) = log
        && let Err(error) = log.reopen()
    {
        tracing::error!(%error, "the log cannot be opened again; it goes on in the old file");
    }
    // A day may have gone or come since it was looked at; the kernel may know names in either.
    let before = core.days().await;
    core.drop_caches();
    let now = core.days().await;
    let mut days: BTreeSet<Date> = BTreeSet::new();
    for listed in [before, now] {
        match listed {
            Ok(listed) => days.extend(listed.iter().copied()),
            Err(error) => tracing::warn!(%error, "names of some days expire by themselves"),
        }
    }
    session.forget_days(days).await;
    tracing::info!("caches dropped");
}

/// Unmounts, in time without regard for who uses it, and lets the requests under way finish.
async fn stop(mut session: Session, mount_point: &MountPoint, clock: &Arc<dyn Clock>) -> io::Result<()> {
    let give_up_at = clock.monotonic().saturating_add(UNMOUNT_PATIENCE);
    loop {
        let mount_point_here = mount_point.clone();
        match tokio::task::spawn_blocking(move || mount_point_here.unmount()).await? {
            Ok(()) => break,
            // Somebody else has unmounted it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && clock.monotonic() < give_up_at => {
                tokio::select! {
                    ended = session.ended() => return ended,
                    () = clock.sleep(UNMOUNT_RETRY) => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the mount is detached; who uses it still loses it");
                let mount_point_here = mount_point.clone();
                if let Err(error) = tokio::task::spawn_blocking(move || mount_point_here.detach()).await? {
                    tracing::error!(%error, "the mount cannot be detached");
                }
                break;
            }
        }
    }
    tokio::select! {
        ended = session.ended() => ended,
        () = clock.sleep(DRAIN_MAX) => {
            tracing::warn!("files are still open; they cannot be read any more");
            Ok(())
        }
    }
}
