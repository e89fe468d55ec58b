//! Running programs: ours, built once, and those of the system; each within a time limit.

use std::env;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::isolation;

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Outcome {
    command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Outcome {
    /// The exit code; -1 when a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Asserts that it succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// Asserts an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{}\nstdout: {}\nstderr: {}", self.command, self.stdout, self.stderr);
        self
    }

    /// Asserts that it failed with one line of reason, and returns the line.
    #[track_caller]
    pub fn one_line_of_reason(&self) -> &str {
        let mut lines = self.stderr.lines();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            panic!("{}: not one line of reason: {:?}", self.command, self.stderr);
        };
        line
    }
}

/// Runs a program to its end, ten minutes at most.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    run_within(Duration::from_mins(10), command)
}

/// Runs a program that must end within a time. Its output goes through files, so whoever inherits it cannot hold us up.
#[track_caller]
pub fn run_within(limit: Duration, command: &mut Command) -> Outcome {
    let (mut stdout, mut stderr) = (scrap(), scrap());
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().expect("output file")).stderr(stderr.try_clone().expect("output file"));
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("waiting for a program") {
            break status;
        }
        if began.elapsed() > limit {
            drop(child.kill());
            drop(child.wait());
            panic!("{shown}: still running after {limit:?}\nstderr: {}", text_of(&mut stderr));
        }
        thread::sleep(Duration::from_millis(2));
    };
    Outcome { command: shown, status, stdout: text_of(&mut stdout), stderr: text_of(&mut stderr) }
}

fn scrap() -> File {
    tempfile::tempfile().expect("a file for output")
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("output of a program");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until something holds; fails after a time.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program of the system or ours, found by name. Speaks plain English, in UTC.
pub fn command(name: &str) -> Command {
    let mut path = programs_dir().as_os_str().to_owned();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut command = Command::new(if is_ours(name) { programs_dir().join(name) } else { PathBuf::from(name) });
    command.env("PATH", path).env("LC_ALL", "C.UTF-8").env("TZ", "UTC0");
    command
}

fn is_ours(name: &str) -> bool {
    name == "desfs" || name.starts_with("des-")
}

/// `desfs`, the mount.
pub fn desfs() -> Command {
    command("desfs")
}

/// `des-pack` on an archive.
pub fn des_pack(archive: &Path) -> Command {
    let mut command = command("des-pack");
    command.arg("--archive").arg(archive);
    command
}

/// The directory with our programs, beside the running test; they are built first, once.
pub fn programs_dir() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let test = env::current_exe().expect("path of the running test");
        let deps = test.parent().expect("directory of the running test");
        let programs = deps.parent().expect("directory of the programs").to_path_buf();
        if !isolation::is_on() {
            build(&programs);
            isolation::run_again_in_it(&test, &programs);
        }
        programs
    })
}

fn build(programs: &Path) {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--bins", "--workspace"]);
    build.arg("--target-dir").arg(programs.parent().expect("target directory"));
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace"));
    if programs.ends_with("release") {
        build.arg("--release");
    }
    // What cargo tells a test of its crate makes the build script of `ring` run again, and builds all that needs it anew.
    for (name, _) in env::vars_os() {
        let text = name.as_encoded_bytes();
        if text.starts_with(b"CARGO_PKG_") || text.starts_with(b"CARGO_MANIFEST_") {
            build.env_remove(name);
        }
    }
    assert!(build.status().expect("cargo").success(), "the programs do not build");
}
