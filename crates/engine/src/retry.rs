//! When a failed attempt is tried again, and how long to wait before it.

use core::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::Outcome;
use crate::text::Text;

/// Whether and when a failed attempt is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// At most this many retries (a number after resolution); without it as many as it takes.
    pub limit: Option<Text>,
    /// Which ends of an attempt count.
    pub on: RetryOn,
    /// The pause before the first retry.
    pub delay: Option<Duration>,
    /// Each further pause is this much longer.
    pub factor: f64,
    /// No pause is longer.
    pub longest_delay: Option<Duration>,
    /// No retry starts later than this after the first attempt.
    pub give_up_after: Option<Duration>,
}

/// Which ends of an attempt are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RetryOn {
    /// The work itself failed.
    #[default]
    Failure,
    /// The work could not be carried out.
    Error,
    /// The work could not be carried out, for a reason that passes.
    TransientError,
    /// All of them.
    Always,
}

impl RetryPolicy {
    /// Whether this end of an attempt is one to try again.
    pub(crate) fn covers(&self, outcome: &Outcome) -> bool {
        match outcome {
            // What was lost is begun anew whatever the policy.
            Outcome::Succeeded(_) | Outcome::Lost { .. } => false,
            Outcome::Failed { .. } => matches!(self.on, RetryOn::Failure | RetryOn::Always),
            Outcome::Error { transient, .. } => match self.on {
                RetryOn::Failure => false,
                RetryOn::TransientError => *transient,
                RetryOn::Error | RetryOn::Always => true,
            },
        }
    }

    /// The pause before retry number `retry` (0 is the first).
    pub(crate) fn pause(&self, retry: u32) -> Duration {
        let Some(delay) = self.delay else {
            return Duration::ZERO;
        };
        let mut seconds = delay.as_secs_f64();
        // Repeated multiplication: `powi` is not in core.
        for _ in 0..retry.min(4096) {
            seconds *= self.factor;
        }
        let longest = self
            .longest_delay
            .unwrap_or(Duration::from_secs(10 * 365 * 86_400));
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(longest)
            .min(longest)
    }

    /// Whether a retry at `at` comes too late for a task first tried at `first`.
    pub(crate) fn too_late(&self, first: Timestamp, at: Timestamp) -> bool {
        let Some(limit) = self.give_up_after else {
            return false;
        };
        first.checked_add(limit).is_ok_and(|end| at > end)
    }
}

/// A duration as Argo writes it: `90`, `90s`, `1m30s`, `2h`, `500ms`. `None` when it is none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_argo_writes_them() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(
                parse_duration(text),
                millis.map(Duration::from_millis),
                "{text}"
            );
        };
        check("90", Some(90_000));
        check("1m30s", Some(90_000));
        check("2h", Some(7_200_000));
        check("500ms", Some(500));
        check("1.5s", Some(1500));
        check("", None);
        check("10 s", None);
        check("5 parsecs", None);
        check("s", None);
        check("-3", None);
    }

    #[test]
    fn pauses_grow_to_the_longest() {
        let policy = RetryPolicy {
            limit: None,
            on: RetryOn::Always,
            delay: Some(Duration::from_secs(1)),
            factor: 2.0,
            longest_delay: Some(Duration::from_secs(5)),
            give_up_after: None,
        };
        let pauses = [0, 1, 2, 3, 4000].map(|n| policy.pause(n).as_secs());
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
    }
}
