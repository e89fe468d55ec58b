//! What a measurement came to.

use std::fmt;
use std::time::Duration;

/// Ends the program with whatever went wrong.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much was done in which time.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Objects that there are, where that is asked for.
    pub(crate) objects: usize,
    pub(crate) operations: usize,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// How long single operations took, where that was measured.
    pub(crate) latencies: Vec<Duration>,
}

impl Outcome {
    fn latency_micros(&mut self, percent: usize) -> Option<f64> {
        self.latencies.sort_unstable();
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len().checked_sub(1)?);
        self.latencies.get(at).map(|latency| latency.as_secs_f64() * 1e6)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = Self { latencies: self.latencies.clone(), ..Self::default() };
        let json = serde_json::json!({
            "objects": self.objects,
            "operations": self.operations,
            "bytes": self.bytes,
            "seconds": self.elapsed.as_secs_f64(),
            "p50_us": sorted.latency_micros(50),
            "p99_us": sorted.latency_micros(99),
        });
        json.fmt(f)
    }
}
