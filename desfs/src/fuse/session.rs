//! A session with the kernel: its settings, its threads, its end.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use desfmt::Date;
use desstore::Clock;
use fuser::{Config, Filesystem, InitFlags, KernelConfig, SessionACL};
use tokio::sync::oneshot;

use crate::core::FileSystem;
use crate::fuse::answer::Answerer;
use crate::fuse::invalidation::{self, Forget, Invalidator};
use crate::fuse::operations::Operations;
use crate::inode::Node;
use crate::tally::Tally;

/// What depends on mount options.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a request may wait.
    pub deadline: Duration,
    /// Whether opening is asked for.
    pub strict: bool,
    /// Whether extended attributes are shown.
    pub xattr: bool,
    /// Programs that must not list.
    pub denied_programs: BTreeSet<String>,
    /// Where what is done is counted.
    pub tally: Arc<Tally>,
}

/// How long the kernel may keep attributes: a file never changes, so as long as it likes.
pub(super) const ATTRIBUTES_TTL: Duration = Duration::from_hours(24);

/// What the kernel may send at most in one write, and so what it asks for at most in one read.
pub(super) const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// How many reads ahead may be under way.
const BACKGROUND_MAX: u16 = 64;

/// A session that answers.
#[derive(Debug)]
pub struct Session {
    end: oneshot::Receiver<io::Result<()>>,
    invalidator: Invalidator,
}

impl Session {
    /// Takes over a mounted `/dev/fuse`: agrees with the kernel on the settings and serves on threads of its own. On
    /// return the mount answers.
    pub fn start(
        device: OwnedFd,
        core: Arc<FileSystem>,
        settings: Settings,
        runtime: tokio::runtime::Handle,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let (invalidator, messages) = Invalidator::new();
        let answerer = Answerer::new(runtime, clock, settings.deadline, Arc::clone(&settings.tally));
        let operations = Operations::new(core, answerer, invalidator.clone(), settings);
        let session = fuser::Session::from_fd(operations, device, SessionACL::All, session_config())?;
        let notifier = session.notifier();
        let builder = std::thread::Builder::new().name("invalidation".to_owned());
        drop(builder.spawn(move || invalidation::run(&messages, &notifier))?);
        Self::run(session, invalidator)
    }

    /// Serves on threads of its own.
    pub(super) fn run<F: Filesystem>(session: fuser::Session<F>, invalidator: Invalidator) -> io::Result<Self> {
        let (ended, end) = oneshot::channel();
        let builder = std::thread::Builder::new().name("session".to_owned());
        drop(builder.spawn(move || drop(ended.send(session.run())))?);
        Ok(Self { end, invalidator })
    }

    /// Waits until the file system is unmounted.
    pub async fn ended(&mut self) -> io::Result<()> {
        (&mut self.end).await.unwrap_or_else(|_| Err(io::Error::other("the thread that served the mount is gone")))
    }

    /// Lets the kernel forget these days and all names in them.
    pub async fn forget_days(&self, days: impl IntoIterator<Item = Date> + Send + 'static) {
        let invalidator = self.invalidator.clone();
        let sent = tokio::task::spawn_blocking(move || {
            for day in days {
                // With a directory the kernel forgets all that is below it.
                invalidator.send_in_time(Forget::Name(Node::Root.number(), day.to_string().into_bytes()));
            }
        });
        if let Err(error) = sent.await {
            tracing::warn!(%error, "the names of days are left to expire");
        }
    }
}

/// As many threads as cores, each with a descriptor of its own; more would only cost time. Who may look in is decided by
/// the kernel (`allow_other`, `default_permissions`).
pub(super) fn session_config() -> Config {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(std::thread::available_parallelism().map_or(1, NonZeroUsize::get));
    config.clone_fd = true;
    config
}

/// Agrees with the kernel on what makes it ask seldom and in large pieces.
pub(super) fn configure(config: &mut KernelConfig) {
    // No AUTO: with it the kernel guesses when attributes are wanted, and guesses wrong for find(1).
    for capability in [
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        InitFlags::FUSE_NO_OPEN_SUPPORT,
        InitFlags::FUSE_PARALLEL_DIROPS,
    ] {
        if config.add_capabilities(capability).is_err() {
            tracing::debug!(?capability, "the kernel does not have this");
        }
    }
    for refused in [
        config.set_max_write(REQUEST_BYTES_MAX).err(),
        config.set_max_background(BACKGROUND_MAX).map_err(u32::from).err(),
    ]
    .into_iter()
    .flatten()
    {
        tracing::debug!(nearest = refused, "the kernel wants another limit");
    }
}
