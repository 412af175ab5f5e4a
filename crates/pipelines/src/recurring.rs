//! Recurring runs: when they fire, and the loop that makes a run of each firing.

pub mod cron;
pub mod schedule;
