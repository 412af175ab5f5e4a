//! How long a failing container or pull waits: 10 s, doubled up to 5 min, forgotten after 10 min.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

const BASE: i64 = 10;
const CAP: i64 = 300;

/// The state of one back-off. It is part of a Pod's record, so a restart of the kubelet does not
/// make a crashing container restart faster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestartBackoff {
    entry: Option<Entry>,
    /// Tries of [`RestartBackoff::failed_quickly`].
    #[serde(default)]
    quick: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    seconds: i64,
    updated: Timestamp,
}

impl RestartBackoff {
    fn current(&self, now: Timestamp) -> Option<Entry> {
        self.entry
            .filter(|e| now.duration_since(e.updated) <= SignedDuration::from_secs(2 * CAP))
    }

    /// The moment before which a container that ended at `finished` must not start again.
    pub(crate) fn hold_until(&self, finished: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.current(now)?;
        let until = finished
            .checked_add(SignedDuration::from_secs(entry.seconds))
            .ok()?;
        (now < until).then_some(until)
    }

    /// The pause that applies now, in seconds.
    pub(crate) fn seconds(&self) -> i64 {
        self.entry.map_or(BASE, |e| e.seconds)
    }

    /// Notes a restart: the next one waits longer.
    pub(crate) fn restarted(&mut self, now: Timestamp) {
        let seconds = self.current(now).map_or(BASE, |e| (e.seconds * 2).min(CAP));
        self.entry = Some(Entry {
            seconds,
            updated: now,
        });
    }

    /// Notes a failed try; the answer is the pause before the next.
    pub(crate) fn failed(&mut self, now: Timestamp) -> Duration {
        self.restarted(now);
        Duration::from_secs(self.seconds().unsigned_abs())
    }

    /// Notes a failure that somebody is likely to mend soon: 1 s, 2 s, 4 s, 8 s, 10 s, ….
    pub(crate) fn failed_quickly(&mut self) -> Duration {
        let seconds = 1_u64
            .checked_shl(self.quick)
            .unwrap_or(BASE as u64)
            .min(BASE as u64);
        self.quick = self.quick.saturating_add(1);
        Duration::from_secs(seconds)
    }

    /// Forgets every failure.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_pauses_double_to_five_minutes() {
        let mut backoff = RestartBackoff::default();
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let until = backoff
                .hold_until(at(now), at(now))
                .map_or(now, Timestamp::as_second);
            pauses.push(until - now);
            now = until;
            backoff.restarted(at(now));
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_are_enough_to_start_over() {
        let mut backoff = RestartBackoff::default();
        backoff.restarted(at(0));
        backoff.restarted(at(10));
        assert_eq!(backoff.hold_until(at(611), at(611)), None);
        backoff.restarted(at(611));
        assert_eq!(backoff.seconds(), 10);
    }

    #[test]
    fn quick_failures_are_tried_again_within_ten_seconds() {
        let mut backoff = RestartBackoff::default();
        let pauses: Vec<u64> = (0..70)
            .map(|_| backoff.failed_quickly().as_secs())
            .collect();
        assert_eq!(pauses[..6], [1, 2, 4, 8, 10, 10]);
        assert!(pauses[6..].iter().all(|p| *p == 10));
    }
}
