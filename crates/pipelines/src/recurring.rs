//! Recurring runs: when they fire, and the loop that makes a run of each firing.
//!
//! [`cron`] and [`schedule`] are pure; `triggers` is the loop. What the API says of recurring runs
//! is `api::recurring_runs`'s, the table `store::recurring`'s.

pub mod cron;
pub(crate) mod names;
pub mod schedule;
pub(crate) mod triggers;

use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::sync::Notify;

/// Settings of recurring runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose local time cron expressions mean.
    pub zone: TimeZone,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            zone: TimeZone::UTC,
        }
    }
}

/// What the API and the loop share.
#[derive(Debug, Clone, Default)]
pub struct Recurring {
    /// The settings of both.
    pub settings: Settings,
    changed: Arc<Notify>,
}

impl Recurring {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            changed: Arc::default(),
        }
    }

    /// Tells the loop that the table has changed.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// What the loop listens to.
    pub(crate) fn changes(&self) -> Arc<Notify> {
        self.changed.clone()
    }
}
