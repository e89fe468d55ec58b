//! What a run of des-verify has found, for machines.

use std::path::Path;
use std::time::Duration;

use desfmt::Timestamp;
use desstore::{Checked, Finding, Verdict};
use serde::Serialize;

use crate::verify::book::replace_file;

/// How many findings are kept.
const FINDINGS_MAX: usize = 100_000;

/// The report of a run, as it is written.
#[derive(Debug, Serialize)]
pub struct Report {
    archive: String,
    level: &'static str,
    /// What decided the sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    started: String,
    finished: String,
    verdict: &'static str,
    exit_code: u8,
    checked: Figures,
    findings: Vec<Line>,
    findings_left_out: u64,
}

#[derive(Debug, Default, Serialize)]
struct Figures {
    days: u64,
    days_left_out: u64,
    shards: u64,
    files: u64,
    stored_bytes: u64,
    unlisted_objects: u64,
    shards_examined: u64,
    shards_damaged: u64,
    shards_left_out: u64,
    bytes_read: u64,
    wrong: u64,
    unchecked: u64,
}

#[derive(Debug, Serialize)]
struct Line {
    object: String,
    kind: &'static str,
    verdict: &'static str,
    problem: String,
}

impl Report {
    /// A report in which nothing is written yet.
    pub fn new(archive: String, level: &'static str, seed: Option<u64>, started: Timestamp) -> Self {
        Self {
            archive,
            level,
            seed,
            started: started.to_string(),
            finished: String::new(),
            verdict: "",
            exit_code: 0,
            checked: Figures::default(),
            findings: Vec::new(),
            findings_left_out: 0,
        }
    }

    /// Adds a finding.
    pub fn add(&mut self, finding: &Finding) {
        if self.findings.len() >= FINDINGS_MAX {
            self.findings_left_out += 1;
            return;
        }
        let verdict = match finding.verdict {
            Verdict::Wrong => "wrong",
            Verdict::Unchecked => "not checked",
            Verdict::Harmless => "harmless",
        };
        let (object, problem) = (finding.object.clone(), finding.problem.clone());
        self.findings.push(Line { object, kind: finding.kind.name(), verdict, problem });
    }

    /// Writes what came of it all into a file.
    pub fn save(&mut self, path: &Path, checked: &Checked, exit_code: u8, now: Timestamp) -> std::io::Result<()> {
        self.finished = now.to_string();
        self.exit_code = exit_code;
        self.verdict = match exit_code {
            0 => "sound",
            1 => "damaged",
            _ => "not checked",
        };
        self.checked = Figures {
            days: checked.days,
            days_left_out: checked.days_left_out,
            shards: checked.shards,
            files: checked.files,
            stored_bytes: checked.stored_bytes,
            unlisted_objects: checked.unlisted,
            shards_examined: checked.examined,
            shards_damaged: checked.damaged,
            shards_left_out: checked.left_out,
            bytes_read: checked.bytes_read,
            wrong: checked.wrong,
            unchecked: checked.unchecked,
        };
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        replace_file(path, &bytes)
    }
}

/// What a run tells the textfile collector of `node_exporter`.
pub fn metrics_text(checked: &Checked, oldest: Option<Duration>, now: Timestamp) -> String {
    let mut lines = Vec::new();
    let mut put = |name: &str, help: &str, value: String| {
        lines.push(format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    };
    let millionths = u128::from(checked.damaged) * 1_000_000 / u128::from(checked.examined.max(1));
    let rate = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
    put("des_shard_corruption_rate", "Part of the shards that the last run examined and found damaged.", rate);
    if let Some(oldest) = oldest {
        let help = "Time since the contents of the shard were found sound for which that is longest.";
        put("des_scrub_oldest_seconds", help, oldest.as_secs().to_string());
    }
    for (name, help, value) in [
        ("des_verify_wrong", "Findings of the last run that say that something is wrong.", checked.wrong),
        (
            "des_verify_unchecked",
            "Findings of the last run that say that something could not be checked.",
            checked.unchecked,
        ),
        ("des_verify_shards", "Live shards that the last run has seen.", checked.shards),
        ("des_verify_shards_examined", "Shards that the last run examined.", checked.examined),
        ("des_verify_bytes_read", "Bytes of shards that the last run read.", checked.bytes_read),
    ] {
        put(name, help, value.to_string());
    }
    put("des_verify_finished_seconds", "When the last run ended.", now.seconds().to_string());
    lines.concat()
}

/// Writes the textfile of a run, whole or not at all.
pub fn save_metrics(path: &Path, text: &str) -> std::io::Result<()> {
    replace_file(path, text.as_bytes())
}
