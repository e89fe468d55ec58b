//! Few heaps for many threads: glibc gives threads heaps of their own, and memory that one of them has freed is lost to the
//! others. With a million rows the peak is 409 MiB with eight heaps a processor, and 177 with two in all (2 processors).

use std::os::unix::process::CommandExt;
use std::process::Command;

/// What glibc is told by when a program starts, and never afterwards.
const VARIABLE: &str = "MALLOC_ARENA_MAX";

/// How many heaps there are.
const HEAPS: &str = "2";

/// Starts this program anew in the same process, told to have few heaps, unless its environment says how many. Where that
/// cannot be done it goes on as it is.
pub(crate) fn begin_with_few() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut args = std::env::args_os();
    let mut anew = Command::new(program);
    if let Some(name) = args.next() {
        anew.arg0(name);
    }
    // Comes back only where it failed.
    drop(anew.args(args).env(VARIABLE, HEAPS).exec());
}
