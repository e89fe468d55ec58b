//! One mount from its beginning to its end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use desstore::{Archive, Clock, Journal, SystemClock};
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::config::{Config, Role};
use crate::core::{DeletionPolicy, FileSystem, Modes};
use crate::daemon::{self, Started};
use crate::exit::{Failure, reason_of};
use crate::fuse::{Session, Settings};
use crate::handover;
use crate::journaling::Journaling;
use crate::log_file::LogFile;
use crate::memory::{Cgroup, Governor};
use crate::mount::{self, Attached, Claim, MountPoint, Probe};
use crate::observed::Observed;
use crate::options::MountOptions;
use crate::signals::{Signals, serve_until_end};
use crate::source::Opened;
use crate::supervisor::Supervisor;
use crate::tally::Tally;
use crate::upkeep::Upkeep;

/// Does what the arguments say, and tells the exit code of mount(8). `arguments` are those that the configuration was
/// made of, for the second process.
pub fn run(config: &Config, arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<ExitCode, Failure> {
    match config.role {
        Role::Starter => {
            let target = mount::resolve(&config.mount_point)?;
            let started = daemon::start(arguments, &target)?;
            if config.verbose && started == Started::Ready {
                say(&format!("desfs: {} mounted on {}", config.source_text, target.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
        Role::Background => {
            let served = serve(config);
            if let Err(failure) = &served {
                // After the report this goes to /dev/null.
                daemon::report_failure(failure);
                tracing::error!(%failure, "the mount ends");
            }
            Ok(served.map_or_else(|failure| failure.exit_code(), |()| ExitCode::SUCCESS))
        }
        Role::Foreground | Role::Attached => serve(config).map(|()| ExitCode::SUCCESS),
        Role::Attacher => handover::give(config).map(|()| ExitCode::SUCCESS),
    }
}

fn say(line: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn serve(config: &Config) -> Result<(), Failure> {
    let log = start_logging(config)?;
    let target = mount::resolve(&config.mount_point)?;
    if config.role != Role::Attached && mount::claim(&config.source_text, &target)? == Claim::MountedAlready {
        tell_nothing_to_do(config, &format!("{} is mounted on {} already", config.source_text, target.display()));
        return Ok(());
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system(format!("no threads: {error}")))?;
    let handle = runtime.handle().clone();
    runtime.block_on(async {
        let mut signals = Signals::register().map_err(|error| Failure::system(error.to_string()))?;
        let observed = Observed::begin(config).await?;
        let opening = config.source.open_counting(&config.options, Arc::clone(&clock), observed.stack.clone());
        let Opened { archive, local } = tokio::select! {
            opened = opening => opened?,
            () = signals.end() => return Err(Failure::interrupted()),
        };
        observed.observe_caches(&archive)?;
        if config.fake {
            tell_nothing_to_do(config, "everything but the mount is done");
            return Ok(());
        }
        let journaling = Journaling::start(&archive, &config.options, &clock)?;
        let core = show(archive, &config.options, &clock, journaling.journal());
        let _watch = watch_memory(&core, &clock);
        let tally = Arc::new(Tally::new(Arc::clone(&clock)).counting(observed.mount.clone()));
        let Attached { device, mount_point } = connect(config, &target)?;
        let session =
            Session::start(device, Arc::clone(&core), settings(&config.options, &tally), handle, Arc::clone(&clock));
        let session = session.map_err(|error| {
            drop(mount_point.detach());
            Failure::mount(format!("the kernel does not agree: {error}"))
        })?;
        if config.role != Role::Attached {
            mount_point.widen_read_ahead();
        }
        if config.role == Role::Background {
            daemon::leave().map_err(|error| {
                drop(mount_point.detach());
                Failure::system(format!("cannot go to the background: {error}"))
            })?;
        }
        let supervisor = Supervisor::new(config.role.is_foreground());
        supervisor.ready();
        observed.health.mounted();
        tracing::info!(source = config.source_text, target = %target.display(), "mounted");
        let description = format!("{} on {}", config.source_text, target.display());
        let probe = Probe::new(&target);
        let mut upkeep = Upkeep { local, core, tally, description, supervisor, probe, clock };
        let ended = serve_until_end(session, signals, &mount_point, log.as_ref(), &mut upkeep).await;
        journaling.finish(upkeep.clock.as_ref()).await;
        ended.map_err(|error| {
            drop(mount_point.detach());
            Failure::internal(format!("serving ended: {error}"))
        })?;
        tracing::info!(did = %upkeep.tally.figures(), "unmounted");
        Ok(())
    })
}

/// Mounts, or takes over what was mounted before.
fn connect(config: &Config, target: &Path) -> Result<Attached, Failure> {
    match config.role {
        Role::Attached => Ok(Attached { device: handover::take()?, mount_point: MountPoint::served(target) }),
        Role::Starter | Role::Background | Role::Foreground | Role::Attacher => {
            mount::attach(&config.source_text, target, &config.options)
        }
    }
}

/// Puts the file system on top of an archive.
fn show(
    archive: Arc<Archive>,
    options: &MountOptions,
    clock: &Arc<dyn Clock>,
    journal: Option<Arc<Journal>>,
) -> Arc<FileSystem> {
    let modes = Modes {
        owner: options.owner.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
        group: options.group.unwrap_or_else(|| rustix::process::getegid().as_raw()),
        group_may_delete: options.group.is_some(),
        umask: options.umask,
        exec: options.exec,
    };
    let policy = DeletionPolicy::new(options, host_name(), Arc::clone(clock));
    Arc::new(FileSystem::new(archive, modes, policy).with_journal(journal))
}

/// Lets the caches shrink while the cgroup is short of memory, for as long as what is returned lives.
fn watch_memory(core: &Arc<FileSystem>, clock: &Arc<dyn Clock>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(cgroup) = Cgroup::find() {
        let governor = Governor::new(core.memory_bytes());
        tasks.spawn(governor.watch(cgroup, Arc::clone(core), Arc::clone(clock)));
    }
    tasks
}

fn settings(options: &MountOptions, tally: &Arc<Tally>) -> Settings {
    Settings {
        deadline: options.deadline,
        strict: options.strict,
        xattr: options.xattr,
        denied_programs: options.denied_programs.clone(),
        tally: Arc::clone(tally),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// To stderr in the foreground, to `log=FILE` otherwise, if given.
fn start_logging(config: &Config) -> Result<Option<LogFile>, Failure> {
    let filter = EnvFilter::try_new(&config.log_filter)
        .map_err(|error| Failure::usage(format!("log filter {:?}: {}", config.log_filter, reason_of(&error))))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    match (&config.options.log, config.role) {
        (Some(path), _) => {
            let file =
                LogFile::open(path).map_err(|error| Failure::usage(format!("log={}: {error}", path.display())))?;
            let builder = builder.with_ansi(false).with_writer(file.clone());
            match config.log_format {
                LogFormat::Text => builder.init(),
                LogFormat::Json => builder.json().init(),
            }
            return Ok(Some(file));
        }
        (None, Role::Foreground | Role::Attached) => {
            let builder = builder.with_writer(std::io::stderr);
            match config.log_format {
                LogFormat::Text => builder.init(),
                LogFormat::Json => builder.json().init(),
            }
        }
        (None, Role::Background | Role::Starter | Role::Attacher) => {}
    }
    Ok(None)
}

fn tell_nothing_to_do(config: &Config, reason: &str) {
    tracing::info!(reason);
    if config.role == Role::Background {
        daemon::report_nothing_to_do();
    }
}
