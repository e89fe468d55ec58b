//! What ends a mount: an unmount from outside, or SIGTERM and SIGINT, which unmount. SIGHUP drops the caches.

use std::io;
use std::sync::Arc;

use desstore::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::core::FileSystem;
use crate::fuse::Session;
use crate::limits::{DRAIN_MAX, UNMOUNT_PATIENCE, UNMOUNT_RETRY};
use crate::mount::MountPoint;

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

/// Serves until the mount ends. `on_stop` is called when a signal asks for it.
pub async fn serve_until_end(
    mut session: Session,
    mut signals: Signals,
    mount_point: &MountPoint,
    core: &FileSystem,
    clock: &Arc<dyn Clock>,
    on_stop: impl FnOnce(),
) -> io::Result<()> {
    loop {
        tokio::select! {
            ended = session.ended() => return ended,
            _ = signals.hang_up.recv() => {
                tracing::info!("caches dropped");
                core.drop_caches();
            }
            () = async {
                tokio::select! {
                    _ = signals.terminate.recv() => {}
                    _ = signals.interrupt.recv() => {}
                }
            } => break,
        }
    }
    tracing::info!("unmounting");
    on_stop();
    stop(session, mount_point, clock).await
}

/// Unmounts, in time without regard for who uses it, and lets the requests under way finish.
async fn stop(mut session: Session, mount_point: &MountPoint, clock: &Arc<dyn Clock>) -> io::Result<()> {
    let give_up_at = clock.monotonic().saturating_add(UNMOUNT_PATIENCE);
    loop {
        let mount_point_here = mount_point.clone();
        match tokio::task::spawn_blocking(move || mount_point_here.unmount()).await? {
            Ok(()) => break,
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
