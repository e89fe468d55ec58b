//! The command line of desfs, which is also the one that mount(8) uses for its helpers.

use std::path::PathBuf;

use clap::Parser;

/// Mounts a DES archive as a file system.
///
/// Runs in the background once the mount answers, unless --foreground is given. Exit codes are those of mount(8):
/// 0 mounted, 1 wrong arguments or not permitted, 2 out of resources, 4 a bug, 8 interrupted, 32 not mounted.
#[derive(Debug, Clone, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(
    name = "desfs",
    version,
    after_help = "See docs/mount.md for all options and docs/semantics.md for what the mount shows."
)]
pub struct Arguments {
    /// The archive: a directory
    pub source: String,

    /// The directory to mount it on
    pub mount_point: PathBuf,

    /// Mount options, separated by commas; may be repeated
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,

    /// Stay in the foreground, log to stderr, and tell systemd when the mount answers
    #[arg(long)]
    pub foreground: bool,

    /// Which events are logged, such as `warn` or `desfs=debug`
    #[arg(long, value_name = "FILTER", env = "DESFS_LOG", default_value = "info")]
    pub log: String,

    /// Say what was mounted
    #[arg(short = 'v', long, help_heading = "For mount(8)")]
    pub verbose: bool,

    /// Do everything but mount (not "foreground", as in other FUSE programs)
    #[arg(short = 'f', long, help_heading = "For mount(8)")]
    pub fake: bool,

    /// Ignore unknown mount options
    #[arg(short = 's', long, help_heading = "For mount(8)")]
    pub sloppy: bool,

    /// Do not write /etc/mtab, which desfs never does
    #[arg(short = 'n', long, help_heading = "For mount(8)")]
    pub no_mtab: bool,

    /// The type, which is always fuse.desfs
    #[arg(short = 't', value_name = "TYPE", hide = true)]
    pub file_system_type: Option<String>,

    /// Another mount namespace, which is refused
    #[arg(short = 'N', value_name = "NAMESPACE", hide = true)]
    pub namespace: Option<String>,

    /// The part that serves in the background: reports to the part that waits
    #[arg(long = "report-to-stdout", hide = true)]
    pub reports: bool,
}
