//! What all programs do alike: how they log, how they tell an error, how they end.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueEnum};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use crate::error::PackError;

/// Everything was done.
pub const DONE: u8 = 0;
/// Something failed.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;

/// How a program logs. Flatten it into the program's arguments.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// The form of the log on standard error; `RUST_LOG` says what is logged.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,
}

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl LogArgs {
    /// Starts to log to standard error: what `RUST_LOG` says, else warnings.
    pub fn start(&self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}

/// The threads of a program.
pub fn runtime() -> Result<Runtime, PackError> {
    let died = |error: std::io::Error| PackError::Died { source: Box::new(error) };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(died)
}

/// Tells that the command line is wrong, as the parser does it, and how the program ends.
pub fn misused<A: CommandFactory>(reason: impl std::fmt::Display) -> ExitCode {
    drop(A::command().error(ErrorKind::ValueValidation, reason).print());
    ExitCode::from(USAGE)
}

/// Tells why the program failed, on one line with all causes, and how it ends.
pub fn failed(program: &str, error: &(dyn Error + 'static)) -> ExitCode {
    // Where nobody listens nothing can be said.
    drop(writeln!(std::io::stderr(), "{program}: {}", reason_of(error)));
    ExitCode::from(FAILED)
}

/// An error with all its causes, on one line. What a cause repeats is left out.
pub fn reason_of(error: &(dyn Error + 'static)) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason.push_str(": ");
            reason.push_str(&text);
        }
        cause = error.source();
    }
    reason.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_on_one_line_with_its_causes() {
        let cause = std::io::Error::other("the disk\nis gone");
        let error = PackError::Spool { path: "/spool".into(), source: cause };

        assert_eq!(reason_of(&error), "spool: /spool: the disk; is gone");
    }
}
