//! `desfs SOURCE MOUNTPOINT [-o OPTIONS]`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use desfs::cli::Arguments;
use desfs::config::Config;
use desfs::exit::Failure;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Wrong usage is 1 to mount(8), and help is no error.
            drop(error.print());
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    run(arguments).unwrap_or_else(|failure| {
        drop(writeln!(std::io::stderr(), "desfs: {failure}"));
        failure.exit_code()
    })
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    desfs::serve::run(&Config::new(arguments)?, std::env::args_os().skip(1))
}
