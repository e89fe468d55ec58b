//! Shows how far a run is: a moving bar on a terminal, a plain line every few seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use desstore::Clock;
use indicatif::{ProgressBar, ProgressStyle};
use packer::{ByteSize, Progress, Snapshot};

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress until it is dropped.
pub(crate) async fn show(progress: Arc<Progress>, clock: Arc<dyn Clock>) {
    if std::io::stderr().is_terminal() {
        show_bar(&progress, clock.as_ref()).await;
    } else {
        show_lines(&progress, clock.as_ref()).await;
    }
}

/// Takes the bar away when the future is dropped, so that it never stands in the middle of the summary.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn show_bar(progress: &Progress, clock: &dyn Clock) {
    let bar = Bar(ProgressBar::no_length());
    let template = "{bar:30} {percent:>3}% {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.0.set_style(style);
    }
    loop {
        let now = progress.snapshot();
        if now.files_total > 0 {
            bar.0.set_length(now.bytes_total);
            bar.0.set_position(now.bytes_done);
            bar.0.set_message(format!("{} files, {} shards", now.files_done, now.shards_done));
        } else {
            bar.0.set_message(format!("{} rows read", now.rows_read));
            bar.0.tick();
        }
        clock.sleep(BAR_EVERY).await;
    }
}

async fn show_lines(progress: &Progress, clock: &dyn Clock) {
    let mut last: Option<(Snapshot, Duration)> = None;
    loop {
        clock.sleep(LINE_EVERY).await;
        let (now, at) = (progress.snapshot(), clock.monotonic());
        // Nobody reads along: nothing can be done about it, and nothing need be.
        drop(writeln!(
            std::io::stderr(),
            "{}",
            line(&now, last.as_ref().map(|(then, when)| (then, at.saturating_sub(*when))))
        ));
        last = Some((now, at));
    }
}

/// One line about what is done, and since when at what rate.
fn line(now: &Snapshot, since: Option<(&Snapshot, Duration)>) -> String {
    if now.files_total == 0 {
        return format!("reading the input: {} rows", now.rows_read);
    }
    let mut parts = vec![
        format!("{} of {}", ByteSize(now.bytes_done), ByteSize(now.bytes_total)),
        format!("{} of {} files", now.files_done, now.files_total),
        format!("{} shards", now.shards_done),
    ];
    if let Some((then, elapsed)) = since {
        let moved = u128::from(now.bytes_done.saturating_sub(then.bytes_done));
        let rate = moved.saturating_mul(1_000).checked_div(elapsed.as_millis()).unwrap_or(0);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let left = now.bytes_total.saturating_sub(now.bytes_done);
        parts.push(format!("{}/s", ByteSize(rate)));
        parts.extend(left.checked_div(rate).map(|seconds| format!("{seconds} s left")));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(bytes_done: u64) -> Snapshot {
        let (files_total, bytes_total) = (100, 200 << 20);
        Snapshot { rows_read: 100, files_total, bytes_total, files_done: 10, bytes_done, shards_done: 1 }
    }

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let (then, now) = (snapshot(0), snapshot(100 << 20));
        assert_eq!(
            line(&now, Some((&then, Duration::from_secs(5)))),
            "100.0 MiB of 200.0 MiB, 10 of 100 files, 1 shards, 20.0 MiB/s, 5 s left"
        );
        assert_eq!(
            line(&now, Some((&now, Duration::from_secs(5)))),
            "100.0 MiB of 200.0 MiB, 10 of 100 files, 1 shards, 0 B/s"
        );
    }
}
