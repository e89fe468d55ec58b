//! `desfs SOURCE MOUNTPOINT [-o OPTIONS]`, and its sub-commands.

use std::io::Write;
use std::process::ExitCode;

use desfs::cli::{Arguments, Invocation};
use desfs::config::Config;
use desfs::exit::Failure;

fn main() -> ExitCode {
    let invocation = match Invocation::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(misuse) => {
            drop(misuse.error.print());
            return ExitCode::from(misuse.exit_code);
        }
    };
    match invocation {
        Invocation::Mount(arguments) => mount(arguments).unwrap_or_else(|failure| {
            complain(&failure);
            failure.exit_code()
        }),
        Invocation::Probe(target) => ExitCode::from(u8::from(desfs::mount::ask(&target).is_err())),
        Invocation::Path(arguments) => match desfs::locate::run(&arguments) {
            Ok(lines) => write_out(&lines),
            Err(failure) => {
                complain(&failure);
                ExitCode::from(1)
            }
        },
        Invocation::Check(arguments) => {
            desfs::check::run(&arguments, &mut std::io::stdout()).unwrap_or_else(|failure| {
                complain(&failure);
                ExitCode::from(2)
            })
        }
    }
}

fn mount(arguments: Arguments) -> Result<ExitCode, Failure> {
    desfs::serve::run(&Config::new(arguments)?, std::env::args_os().skip(1))
}

fn write_out(lines: &str) -> ExitCode {
    let mut stdout = std::io::stdout();
    match stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(1)
        }
    }
}

fn complain(reason: &dyn std::fmt::Display) {
    // Where nobody listens nothing can be said.
    drop(writeln!(std::io::stderr(), "desfs: {reason}"));
}
