//! Going to the background, as mount(8) wants it: the program that was started returns when the mount answers, or with
//! the reason why not.
//!
//! A second process of the same program serves; it reports through its standard output, which is a pipe, and lets go of
//! the terminal once it has. It mounts before it leaves the session of its starter: below an automount the kernel keeps
//! strangers waiting.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::exit::Failure;
use crate::mount::answers;

/// How starting went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It is mounted and answers.
    Ready,
    /// It was mounted before, or this was a rehearsal.
    NothingToDo,
}

const READY: &str = "ready";
const NOTHING_TO_DO: &str = "nothing to do";

/// Starts the mount in the background and waits for its report.
pub fn start(arguments: impl IntoIterator<Item = OsString>, target: &Path) -> Result<Started, Failure> {
    let mut child = Command::new(own_program())
        // First, so that no source is taken for a sub-command.
        .arg("--report-to-stdout")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::system(format!("the mount cannot be started in the background: {error}")))?;
    let started = wait_for_report(&mut child)?;
    if started == Started::Ready {
        answers(target).map_err(|error| Failure::mount(format!("{} does not answer: {error}", target.display())))?;
    }
    Ok(started)
}

fn wait_for_report(child: &mut Child) -> Result<Started, Failure> {
    let mut line = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe)
            .read_line(&mut line)
            .map_err(|error| Failure::system(format!("no report from the mount: {error}")))?;
    }
    if line.trim_end() == READY {
        return Ok(Started::Ready);
    }
    // It ends, and whoever asked for the mount must not find it still there.
    let status = child.wait();
    match line.trim_end() {
        NOTHING_TO_DO => Ok(Started::NothingToDo),
        line => Err(Failure::decode(line).unwrap_or_else(|| {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            Failure::internal(format!("the mount ended without a report ({status})"))
        })),
    }
}

/// The program by its path, so that it is listed under its name; by the kernel's link where it has been replaced since.
pub(crate) fn own_program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.is_file() => path,
        Ok(_) | Err(_) => PathBuf::from("/proc/self/exe"),
    }
}

/// Reports a failure to the starter.
pub fn report_failure(failure: &Failure) {
    report(&failure.encode());
}

/// Reports that nothing had to be done.
pub fn report_nothing_to_do() {
    report(NOTHING_TO_DO);
}

fn report(line: &str) {
    // A starter that is gone cannot be told anything.
    drop(writeln!(io::stdout(), "{line}"));
}

/// Leaves the starter: its session, its directory, its terminal. Fails where the starter is gone already, since whoever
/// gave up on the mount must not get it.
pub fn leave() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY}").and_then(|()| stdout.flush())?;
    silence(&null)
}

fn silence(null: &File) -> io::Result<()> {
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    Ok(())
}
