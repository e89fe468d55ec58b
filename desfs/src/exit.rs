//! The exit codes of mount(8), each with one line of reason.

use std::process::ExitCode;

/// Why mounting did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    code: Code,
    reason: String,
}

/// What mount(8) wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// Wrong arguments, or not permitted.
    Usage,
    /// The system has no more of something.
    System,
    /// A bug.
    Internal,
    /// The user ended it.
    Interrupted,
    /// It could not be mounted.
    Mount,
}

impl Code {
    const fn number(self) -> u8 {
        match self {
            Self::Usage => 1,
            Self::System => 2,
            Self::Internal => 4,
            Self::Interrupted => 8,
            Self::Mount => 32,
        }
    }

    const fn of_number(number: u8) -> Self {
        match number {
            1 => Self::Usage,
            2 => Self::System,
            8 => Self::Interrupted,
            32 => Self::Mount,
            _ => Self::Internal,
        }
    }
}

impl Failure {
    /// Wrong arguments, or not permitted.
    pub fn usage(reason: impl Into<String>) -> Self {
        Self { code: Code::Usage, reason: reason.into() }
    }

    /// The system has no more of something.
    pub fn system(reason: impl Into<String>) -> Self {
        Self { code: Code::System, reason: reason.into() }
    }

    /// A bug.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self { code: Code::Internal, reason: reason.into() }
    }

    /// Ended by a signal before the mount was there.
    pub fn interrupted() -> Self {
        Self { code: Code::Interrupted, reason: "interrupted".to_owned() }
    }

    /// It could not be mounted.
    pub fn mount(reason: impl Into<String>) -> Self {
        Self { code: Code::Mount, reason: reason.into() }
    }

    /// The same with its number and on one line, for another process.
    pub fn encode(&self) -> String {
        format!("{} {}", self.code.number(), one_line(&self.reason))
    }

    /// Reads what [`Failure::encode`] writes.
    pub fn decode(line: &str) -> Option<Self> {
        let (number, reason) = line.split_once(' ')?;
        Some(Self { code: Code::of_number(number.parse().ok()?), reason: reason.to_owned() })
    }

    /// What mount(8) is to see.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code.number())
    }
}

/// A reason with its causes, on one line.
pub fn reason_of(error: &(dyn std::error::Error + 'static)) -> String {
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
    one_line(&reason)
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_passes_through_a_pipe_on_one_line() {
        for failure in [Failure::usage("a b"), Failure::system("x"), Failure::interrupted(), Failure::mount("m")] {
            assert_eq!(Failure::decode(&failure.encode()), Some(failure));
        }
        assert_eq!(Failure::mount("two\nlines\n").encode(), "32 two; lines");
        assert_eq!(Failure::decode("nonsense"), None);
    }
}
