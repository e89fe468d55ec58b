//! `null-fuse FILES BYTES MOUNTPOINT`: the file system that does nothing, as the yardstick of benches. Ends with its mount.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use desfs::exit::Failure;
use desfs::fuse::{NullTree, serve_null};
use desfs::mount;
use desfs::options::MountOptions;

/// Mounts a computed tree of equal files, served from memory with the settings of desfs.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many files
    files: u64,
    /// How long each is, in bytes
    bytes: u64,
    /// Where to mount
    mount_point: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            use std::io::Write;
            drop(writeln!(std::io::stderr(), "null-fuse: {failure}"));
            failure.exit_code()
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(|error| Failure::system(error.to_string()))?;
    let target = mount::resolve(&arguments.mount_point)?;
    let options = MountOptions { allow_other: true, ..MountOptions::default() };
    let attached = mount::attach("null", &target, &options)?;
    let tree = NullTree::new(arguments.files, arguments.bytes, Duration::from_mins(1));
    let mut session = serve_null(attached.device, tree).map_err(|error| Failure::mount(error.to_string()))?;
    attached.mount_point.widen_read_ahead();
    runtime.block_on(session.ended()).map_err(|error| Failure::internal(error.to_string()))
}
