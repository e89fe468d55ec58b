//! `desfs check`: what is wrong with a source, without mounting it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use desstore::{Checked, Clock, Finding, SystemClock, Verdict};

use crate::cli::{CheckArguments, environment};
use crate::environment::Asked;
use crate::exit::Failure;
use crate::source::OpenError;

/// Does what the arguments say and writes the findings. Fails where nothing could be checked.
pub fn run(arguments: &CheckArguments, out: &mut (dyn Write + Send + Sync)) -> Result<ExitCode, Failure> {
    let CheckArguments { source, options, newest } = arguments;
    let Asked { text: source_text, source, options } = Asked::new(source.clone(), options, false, &environment)?;
    let source_text = source_text.as_str();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system(format!("no threads: {error}")))?;
    runtime.block_on(async {
        let mut written = Ok(());
        let checked = match source.open(&options, clock).await {
            Ok(opened) => {
                let mut report = |finding: &Finding| {
                    if written.is_ok() {
                        written = writeln!(out, "{}", line_of(finding));
                    }
                };
                opened.archive.check(*newest, &mut report).await
            }
            Err(OpenError { error: Some(error), .. }) => {
                let finding = Finding::of(source_text, &error);
                written = writeln!(out, "{}", line_of(&finding));
                Checked {
                    wrong: u64::from(finding.verdict == Verdict::Wrong),
                    unchecked: u64::from(finding.verdict == Verdict::Unchecked),
                    ..Checked::default()
                }
            }
            Err(OpenError { failure, error: None }) => return Err(failure),
        };
        written
            .and_then(|()| writeln!(out, "{}", summary(source_text, &checked)))
            .and_then(|()| out.flush())
            .map_err(|error: io::Error| Failure::system(format!("the findings cannot be written: {error}")))?;
        Ok(exit_code(&checked))
    })
}

fn exit_code(checked: &Checked) -> ExitCode {
    ExitCode::from(match (checked.wrong, checked.unchecked) {
        (0, 0) => 0,
        (0, _) => 2,
        (_, _) => 1,
    })
}

/// One line, whatever the names are.
fn line_of(finding: &Finding) -> String {
    let doubt = match finding.verdict {
        Verdict::Wrong | Verdict::Harmless => "",
        Verdict::Unchecked => "not checked: ",
    };
    let text = format!("{}: {doubt}{}", finding.object, finding.problem);
    let is_control = |character: char| character.is_control();
    text.chars().map(|one| if is_control(one) { one.escape_default().to_string() } else { one.to_string() }).collect()
}

fn summary(source: &str, checked: &Checked) -> String {
    let Checked { days, days_left_out, shards, files, stored_bytes, unlisted, wrong, unchecked, .. } = checked;
    let verdict = match (wrong, unchecked) {
        (0, 0) => "sound".to_owned(),
        (_, 0) => format!("{wrong} wrong"),
        (_, _) => format!("{wrong} wrong, {unchecked} not checked"),
    };
    let mut summary =
        format!("{source}: {verdict}; {days} days, {shards} shards, {files} files, {stored_bytes} bytes stored");
    if *days_left_out > 0 {
        summary.push_str(", ");
        summary.push_str(&days_left_out.to_string());
        summary.push_str(" older days left out");
    }
    if *unlisted > 0 {
        summary.push_str(", ");
        summary.push_str(&unlisted.to_string());
        summary.push_str(" objects that no manifest lists (left by runs that died, or of one under way)");
    }
    summary
}

#[cfg(test)]
mod tests {
    use desstore::FindingKind;

    use super::*;

    #[test]
    fn a_finding_takes_one_line_whatever_it_names() {
        let finding = Finding {
            object: "a\nb".to_owned(),
            problem: "\u{1b}[2J".to_owned(),
            verdict: Verdict::Wrong,
            kind: FindingKind::Damaged,
        };

        assert_eq!(line_of(&finding), "a\\nb: \\u{1b}[2J");
    }

    #[test]
    fn what_is_wrong_outweighs_what_was_not_checked() {
        let checked = |wrong, unchecked| Checked { wrong, unchecked, ..Checked::default() };
        for (checked, code, said) in [
            (checked(0, 0), 0, "sound;"),
            (checked(0, 1), 2, "0 wrong, 1 not checked;"),
            (checked(2, 0), 1, "2 wrong;"),
            (checked(2, 1), 1, "2 wrong, 1 not checked;"),
        ] {
            assert_eq!(exit_code(&checked), ExitCode::from(code));
            assert!(summary("/srv/a", &checked).contains(said), "{checked:?}");
        }
    }
}
