//! How much is read in a second at most: a check must leave room for those who read.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// A bucket of bytes that fills at a steady rate. Whoever takes more than is in it waits before the next one may.
#[derive(Debug)]
pub(crate) struct Throttle {
    clock: Arc<dyn Clock>,
    per_second: Option<NonZeroU64>,
    free_at: Mutex<Duration>,
}

impl Throttle {
    pub(crate) fn new(clock: Arc<dyn Clock>, per_second: Option<NonZeroU64>) -> Self {
        Self { clock, per_second, free_at: Mutex::new(Duration::ZERO) }
    }

    /// Waits until so many bytes may be read.
    pub(crate) async fn take(&self, bytes: u64) {
        let Some(per_second) = self.per_second else { return };
        let micros = u128::from(bytes).saturating_mul(1_000_000).checked_div(u128::from(per_second.get()));
        let cost = Duration::from_micros(micros.and_then(|micros| u64::try_from(micros).ok()).unwrap_or(u64::MAX));
        let wait = {
            let now = self.clock.monotonic();
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*free_at).max(now);
            *free_at = begin.saturating_add(cost);
            begin.saturating_sub(now)
        };
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use desfmt::Timestamp;

    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn bytes_are_handed_out_at_the_rate() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let throttle = Throttle::new(shared, NonZeroU64::new(1_000));

        for _ in 0..10 {
            throttle.take(500).await;
        }

        assert_eq!(clock.monotonic(), Duration::from_millis(4_500), "the first is free, each pays for the one before");
    }
}
