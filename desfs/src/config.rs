//! What one run of desfs is to do: arguments and mount options together, checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::{Arguments, LogFormat, environment};
use crate::environment::Asked;
use crate::exit::Failure;
use crate::options::MountOptions;
use crate::source::Source;

/// One run of desfs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The source as typed, for the mount table; what the environment says where nothing was typed.
    pub source_text: String,
    /// The same, understood.
    pub source: Source,
    /// Where to mount, as typed.
    pub mount_point: PathBuf,
    /// How.
    pub options: MountOptions,
    /// In which role.
    pub role: Role,
    /// Where systemd listens, if it does.
    pub supervisor: Option<String>,
    /// Whether to say what was mounted.
    pub verbose: bool,
    /// Whether to stop short of mounting.
    pub fake: bool,
    /// What is logged.
    pub log_filter: String,
    /// In which form.
    pub log_format: LogFormat,
    /// Where metrics are served, if anywhere.
    pub http: Option<SocketAddr>,
}

/// Which part a process plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Starts the mount in the background and waits until it answers.
    Starter,
    /// Serves in the background and reports to the starter.
    Background,
    /// Serves in the foreground.
    Foreground,
    /// Only mounts; another process serves.
    Attacher,
    /// Serves in the foreground what an attacher mounted.
    Attached,
}

impl Role {
    /// True where it serves in the foreground, whoever mounted.
    pub const fn is_foreground(self) -> bool {
        matches!(self, Self::Foreground | Self::Attached)
    }
}

impl Config {
    /// Checks the arguments.
    pub fn new(arguments: Arguments) -> Result<Self, Failure> {
        // Taken apart, so that an argument that is forgotten here does not compile.
        let Arguments {
            source,
            mount_point,
            options,
            foreground,
            attach,
            attached,
            supervisor,
            log: log_filter,
            log_format,
            http,
            verbose,
            fake,
            sloppy,
            no_mtab: _,
            file_system_type,
            namespace,
            reports,
        } = arguments;
        if let Some(other) = file_system_type.filter(|name| !matches!(name.as_str(), "fuse.desfs" | "fuse" | "desfs")) {
            return Err(Failure::usage(format!("desfs mounts type fuse.desfs, not {other}")));
        }
        if namespace.is_some() {
            return Err(Failure::usage("-N is not built; enter the namespace with nsenter(1) and mount there"));
        }
        let Asked { text: source_text, source, options } = Asked::new(source, &options, sloppy, &environment)?;
        let role = match (reports, foreground, attached) {
            _ if attach => Role::Attacher,
            (true, ..) => Role::Background,
            (false, true, true) => Role::Attached,
            (false, true, false) => Role::Foreground,
            (false, false, _) => Role::Starter,
        };
        Ok(Self {
            source_text,
            source,
            mount_point,
            options,
            role,
            supervisor,
            verbose,
            fake,
            log_filter,
            log_format,
            http,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, Failure> {
        Config::new(Arguments::try_parse_from(arguments).unwrap())
    }

    #[test]
    fn the_line_that_mount_runs_is_understood() {
        let line = ["mount.fuse.desfs", "/srv/a", "/mnt/a", "-v", "-n", "-s", "-o", "rw,ttl=5,nonsense"];
        let config = config(&line).unwrap();
        assert_eq!((config.role, config.verbose, config.fake), (Role::Starter, true, false));
        assert_eq!(config.options.ttl, std::time::Duration::from_secs(5));
    }

    #[test]
    fn the_line_that_mount_fuse3_runs_is_understood() {
        let config = config(&["desfs", "/srv/a", "/mnt/a", "-o", "rw,dev,suid"]).unwrap();
        assert_eq!(config.options, MountOptions::default());
    }

    #[test]
    fn combined_helper_flags_are_understood() {
        let config = config(&["mount.fuse.desfs", "/srv/a", "/mnt/a", "-sfnv", "-t", "fuse.desfs"]).unwrap();
        assert!(config.fake && config.verbose);
    }

    #[test]
    fn another_namespace_or_type_is_refused() {
        assert!(config(&["desfs", "/srv/a", "/mnt/a", "-N", "/proc/1/ns/mnt"]).is_err());
        assert!(config(&["desfs", "/srv/a", "/mnt/a", "-t", "ext4"]).is_err());
    }
}
