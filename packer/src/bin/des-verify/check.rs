//! The check itself: what is told while it runs, and what is written when it has ended.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

use desfmt::layout;
use desfmt::legacy::LegacyName;
use desstore::zones::compare;
use desstore::{
    Archive, ArchiveError, CheckEvent, CheckLevel, CheckOptions, Checked, Clock, Connected, Depth, Finding,
    FindingKind, ObjectStore, Randomness, ReadOptions, Sample, SystemRandom, Verdict,
};
use packer::verify::{Book, Report, metrics_text, save_metrics};

use crate::UNCHECKED;
use crate::cli::{Args, LevelArg};

/// What an archive's caches may hold: a check reads everything once.
const MEMORY_BYTES: u64 = 64 << 20;

/// In how many pages of a listing a shard of the ancestor is looked for.
const SURVEY_PAGES: usize = 10;

type AnyError = Box<dyn Error + Send + Sync>;

pub(crate) async fn run(args: &Args, connected: Connected, clock: Arc<dyn Clock>) -> Result<u8, AnyError> {
    let Connected { store, zones, .. } = connected;
    if args.level == LevelArg::Zones && zones.is_none() {
        return Err("the archive lies in one place, so there are no zones to compare; use --level content".into());
    }
    let seed = args.sample.map(|_| args.seed.unwrap_or_else(|| SystemRandom.next()));
    let mut report = Report::new(args.store.shown(), args.level.name(), seed, clock.now());
    let archive = match open(args, &store, &clock).await {
        Ok(archive) => archive,
        Err(error) => {
            let finding = Finding::of(&args.store.shown(), &error);
            return tell_unopened(args, &finding, &mut report, clock.as_ref());
        }
    };
    let mut book = match &args.state {
        Some(path) => Some(Book::open(path, archive.identity().archive)?),
        None => None,
    };
    let now = store.time().await?;
    let options = CheckOptions {
        sample: args.sample.zip(seed).map(|(millionths, seed)| Sample { millionths, seed }),
        checked_before: book.as_ref().map(Book::sound).unwrap_or_default(),
        leave_out_since: args.again_after.map(|age| before(now, age)),
        until: args.time.map(|time| clock.monotonic().saturating_add(time)),
        ..options(args)
    };
    let mut written = Ok(());
    let mut out = io::BufWriter::new(io::stdout());
    let is_deep = options.level == CheckLevel::Content;
    let mut tell = |event: CheckEvent<'_>| match (event, &mut book) {
        (CheckEvent::Found(finding), _) => {
            report.add(finding);
            if written.is_ok() {
                written = writeln!(out, "{}", line_of(finding)).and_then(|()| out.flush());
            }
        }
        (CheckEvent::Listed(shard), Some(book)) => book.list(shard, now),
        (CheckEvent::Examined(shard, is_sound), Some(book)) if is_deep || !is_sound => book.note(shard, is_sound, now),
        (CheckEvent::Listed(_) | CheckEvent::Examined(..), _) => {}
    };
    let mut checked = archive.verify(&options, &mut tell).await;
    if let (LevelArg::Zones, Some(zones)) = (args.level, &zones) {
        checked = together(checked, &compare(zones, &options, &mut tell).await);
    }
    written?;
    let code = exit_code(&checked);
    writeln!(out, "{}", summary(args, &checked, seed))?;
    out.flush()?;
    if let (Some(book), Some(path)) = (&mut book, &args.state) {
        if checked.days_left_out == 0 && checked.unchecked == 0 {
            book.forget_others();
        }
        book.save(path)?;
    }
    let oldest = book.as_ref().map(|book| book.oldest(now));
    if let Some(path) = &args.report {
        report.save(path, &checked, code, clock.now())?;
    }
    if let Some(path) = &args.metrics {
        save_metrics(path, &metrics_text(&checked, oldest, clock.now()))?;
    }
    Ok(code)
}

/// What is to be checked, as far as the command line alone says it.
fn options(args: &Args) -> CheckOptions {
    CheckOptions {
        level: args.level.level(),
        since: args.since,
        jobs: args.jobs,
        bytes_per_second: args.rate,
        orphans_older_than: Some(args.orphan_age),
        ..CheckOptions::default()
    }
}

/// What the check of the manifests and the comparison of the zones came to.
fn together(checked: Checked, compared: &Checked) -> Checked {
    Checked {
        examined: compared.examined,
        damaged: compared.damaged,
        left_out: compared.left_out,
        bytes_read: compared.bytes_read,
        wrong: checked.wrong.saturating_add(compared.wrong),
        unchecked: checked.unchecked.saturating_add(compared.unchecked),
        ..checked
    }
}

fn before(now: desfmt::Timestamp, age: std::time::Duration) -> desfmt::Timestamp {
    let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    desfmt::Timestamp::from_micros(now.micros().saturating_sub(micros))
}

/// Opens an archive of DES, or one of the ancestor.
async fn open(args: &Args, store: &Arc<dyn ObjectStore>, clock: &Arc<dyn Clock>) -> Result<Arc<Archive>, ArchiveError> {
    let options = ReadOptions { memory_bytes: MEMORY_BYTES, ..ReadOptions::default() };
    let random: Arc<dyn Randomness> = Arc::new(SystemRandom);
    let found =
        Archive::open_existing(Arc::clone(store), options.clone(), Arc::clone(clock), Arc::clone(&random)).await?;
    if let Some(archive) = found {
        return Ok(archive);
    }
    // While it is adopted it is still the ancestor's.
    let is_being_adopted = store.head(&layout::adoption()).await.is_ok();
    for prefix in [layout::MANIFESTS, layout::SHARDS] {
        if !is_being_adopted && !store.list(prefix, Depth::Recursive, None).await?.objects.is_empty() {
            let (object, detail) = (layout::identity().to_string(), "it is missing; restore it".to_owned());
            return Err(ArchiveError::Inconsistent { object, detail });
        }
    }
    let mut token: Option<String> = None;
    for _ in 0..SURVEY_PAGES {
        let page = store.list("", Depth::Direct, token.as_deref()).await?;
        let is_shard =
            |key: &str| !matches!(LegacyName::parse(key, args.n_bits), Err(desfmt::legacy::LegacyNameError::Other));
        if page.objects.iter().any(|object| is_shard(object.key.as_str())) {
            return Ok(Archive::open_legacy(Arc::clone(store), args.n_bits, options, Arc::clone(clock), random));
        }
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    Err(ArchiveError::Refused { reason: "there is no archive: neither des.json nor shards of the ancestor".to_owned() })
}

/// What cannot even be opened is damaged, or could not be checked.
fn tell_unopened(args: &Args, finding: &Finding, report: &mut Report, clock: &dyn Clock) -> Result<u8, AnyError> {
    let is_wrong = finding.verdict == Verdict::Wrong;
    let checked = Checked { wrong: u64::from(is_wrong), unchecked: u64::from(!is_wrong), ..Checked::default() };
    let mut out = io::stdout();
    writeln!(out, "{}", line_of(finding))?;
    writeln!(out, "{}", summary(args, &checked, None))?;
    report.add(finding);
    let code = exit_code(&checked);
    if let Some(path) = &args.report {
        report.save(path, &checked, code, clock.now())?;
    }
    if let Some(path) = &args.metrics {
        save_metrics(path, &metrics_text(&checked, None, clock.now()))?;
    }
    Ok(code)
}

const fn exit_code(checked: &Checked) -> u8 {
    match (checked.wrong, checked.unchecked) {
        (0, 0) => 0,
        (0, _) => UNCHECKED,
        (_, _) => 1,
    }
}

/// One line, whatever the names are.
fn line_of(finding: &Finding) -> String {
    let what = match (finding.verdict, finding.kind) {
        (Verdict::Unchecked, _) => "not checked",
        (Verdict::Harmless, FindingKind::Orphan) => "new",
        (Verdict::Wrong | Verdict::Harmless, kind) => kind.name(),
    };
    let text = format!("{what}: {}: {}", finding.object, finding.problem);
    let shown = |one: char| if one.is_control() { one.escape_default().to_string() } else { one.to_string() };
    text.chars().map(shown).collect()
}

fn summary(args: &Args, checked: &Checked, seed: Option<u64>) -> String {
    let verdict = match (checked.wrong, checked.unchecked) {
        (0, 0) => "sound".to_owned(),
        (0, unchecked) => format!("could not be checked: {unchecked} findings"),
        (wrong, 0) => format!("damaged: {wrong} findings"),
        (wrong, unchecked) => format!("damaged: {wrong} findings, and {unchecked} not checked"),
    };
    let Checked { days, shards, files, examined, bytes_read, .. } = checked;
    let mut summary = format!(
        "{}: {verdict}; level {}, {days} days, {shards} shards, {files} files, {examined} shards examined, \
         {bytes_read} bytes read",
        args.store.shown(),
        args.level.name()
    );
    for (count, what) in [
        (checked.days_left_out, "older days left out"),
        (checked.left_out, "shards left out since time was up"),
        (checked.unlisted, "objects that no manifest lists"),
    ] {
        if count > 0 {
            summary.push_str(", ");
            summary.push_str(&count.to_string());
            summary.push(' ');
            summary.push_str(what);
        }
    }
    if let Some(seed) = seed {
        summary.push_str(", seed ");
        summary.push_str(&seed.to_string());
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_outweighs_what_was_not_checked_and_neither_is_taken_for_the_other() {
        let checked = |wrong, unchecked| Checked { wrong, unchecked, ..Checked::default() };
        for (counts, code) in [((0, 0), 0), ((0, 1), 2), ((2, 0), 1), ((2, 1), 1)] {
            assert_eq!(exit_code(&checked(counts.0, counts.1)), code, "{counts:?}");
        }
    }

    #[test]
    fn a_finding_takes_one_line_whatever_it_names() {
        let finding = Finding {
            object: "a\nb".to_owned(),
            problem: "\u{1b}[2J".to_owned(),
            verdict: Verdict::Wrong,
            kind: FindingKind::Damaged,
        };
        assert_eq!(line_of(&finding), "damaged: a\\nb: \\u{1b}[2J");
    }
}
