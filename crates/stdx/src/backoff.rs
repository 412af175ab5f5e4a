//! Growing pauses between tries.

use std::time::Duration;

/// Exponential back-off: `base`, `base * factor`, … up to `cap`.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    base: Duration,
    factor: f64,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// A back-off that starts at `base` and never exceeds `cap`.
    pub fn new(base: Duration, factor: f64, cap: Duration) -> Self {
        Self {
            base,
            factor,
            cap,
            next: base.min(cap),
        }
    }

    /// The pause before the next try; each call's answer is longer than the last until the cap.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        let grown = delay.as_secs_f64() * self.factor;
        self.next = Duration::try_from_secs_f64(grown)
            .unwrap_or(self.cap)
            .min(self.cap);
        delay
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.base.min(self.cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(10), 2.0, Duration::from_secs(300));
        let secs: Vec<u64> = (0..7).map(|_| backoff.next_delay().as_secs()).collect();
        assert_eq!(secs, [10, 20, 40, 80, 160, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next_delay().as_secs(), 10);
    }
}
