//! When a recurring run fires: its trigger, its limits, and what has fired already.
//!
//! Pure: [`Schedule::decide`] says what to do now and when to look again; [`super::triggers`] does
//! it. Times are whole seconds, as the original's.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::cron::Cron;

/// What makes it fire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// At the times of a cron expression.
    Cron {
        /// The expression.
        cron: Cron,
        /// When it may first fire.
        #[serde(flatten)]
        within: Within,
    },
    /// Every so many seconds.
    Periodic {
        /// How many, at least one.
        seconds: i64,
        /// When it may fire.
        #[serde(flatten)]
        within: Within,
    },
    /// One run, at once.
    Once,
}

/// The first and the last moment at which a trigger may fire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// Not before, if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// Not after, if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
}

/// A recurring run as far as time is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What makes it fire.
    pub trigger: Trigger,
    /// Whether each firing that was missed is made up for; else only the last one.
    pub catchup: bool,
    /// How many of its runs may be active together.
    pub max_concurrency: u32,
    /// Whether it fires at all.
    pub enabled: bool,
    /// When its trigger was set: its creation, or the last change of the trigger.
    pub since: Timestamp,
    /// The nominal time of its last firing.
    pub last: Option<Timestamp>,
}

/// What to do about a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Make a run for this nominal time, then ask again.
    Fire(Timestamp),
    /// This firing is due, but enough runs are active: ask again when one ends.
    Full(Timestamp),
    /// Ask again at this time.
    Wait(Timestamp),
    /// It will not fire unless it is changed.
    Idle,
}

/// The limits of [`Schedule::max_concurrency`].
pub const MAX_CONCURRENCY: std::ops::RangeInclusive<u32> = 1..=10;

impl Schedule {
    /// What to do at `now`, while `active` of its runs are not over.
    pub fn decide(&self, now: Timestamp, active: u32, zone: &TimeZone) -> Decision {
        match self.due(now, zone) {
            None => Decision::Idle,
            Some(_) if !self.enabled => Decision::Idle,
            Some(next) if next > now => Decision::Wait(next),
            Some(next) if active >= self.max_concurrency => Decision::Full(next),
            Some(next) => Decision::Fire(next),
        }
    }

    /// The next firings as they look at `now`, if it is enabled and no limit holds them up.
    pub fn preview(&self, now: Timestamp, zone: &TimeZone, count: usize) -> Vec<Timestamp> {
        let mut schedule = self.clone();
        let next = || {
            let next = schedule.due(now, zone)?;
            schedule.last = Some(next);
            Some(next)
        };
        std::iter::from_fn(next).take(count).collect()
    }

    /// The nominal time of the next firing, which may have passed.
    fn due(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.trigger {
            Trigger::Once => {
                let fired = self.last.is_some_and(|last| last >= floor(self.since));
                (!fired).then(|| floor(self.since))
            }
            Trigger::Cron { cron, within } => {
                let base = [self.last, within.start]
                    .into_iter()
                    .flatten()
                    .fold(self.since, Timestamp::max);
                let next = cron.next(base, zone)?;
                if within.end.is_some_and(|end| end < next) {
                    return None;
                }
                if self.catchup || next > now {
                    return Some(next);
                }
                let until = within.end.map_or(now, |end| end.min(now));
                cron.latest(base, until, zone)
            }
            Trigger::Periodic { seconds, within } => {
                let after = |at: Timestamp| add(floor(at), *seconds);
                let first = || match within.start {
                    Some(start) => Some(ceiling(start)),
                    None => after(self.since),
                };
                let next = match self.last {
                    // What fired before the trigger was set says nothing about its grid.
                    Some(last) if last < floor(self.since) => first()
                        .filter(|first| *first > last)
                        .or_else(|| after(self.since)),
                    Some(last) => match within.start {
                        Some(start) if start > last => Some(ceiling(start)),
                        _ => after(last),
                    },
                    None => first(),
                }?;
                if within.end.is_some_and(|end| end < next) {
                    return None;
                }
                let another = add(next, *seconds);
                if self.catchup || another.is_none_or(|another| now < another) {
                    return Some(next);
                }
                Some(floor(within.end.map_or(now, |end| end.min(now))))
            }
        }
    }
}

impl Trigger {
    /// What people should be told about it, if anything.
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Cron { cron, .. } => cron.warning(),
            Self::Periodic { .. } | Self::Once => None,
        }
    }
}

fn floor(at: Timestamp) -> Timestamp {
    let second = at.as_second() - i64::from(at.subsec_nanosecond() < 0);
    Timestamp::from_second(second).unwrap_or(at)
}

fn ceiling(at: Timestamp) -> Timestamp {
    let down = floor(at);
    if down == at {
        at
    } else {
        add(down, 1).unwrap_or(at)
    }
}

fn add(at: Timestamp, seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(at.as_second().checked_add(seconds)?).ok()
}
