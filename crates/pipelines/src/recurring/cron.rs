//! Cron expressions as the scheduler of Kubeflow Pipelines reads them (robfig/cron, version 1):
//! second, minute, hour, day of month, month and, if there is a sixth, day of week. Five fields
//! are legal and start with the **second**, unlike everybody else's five.
//!
//! Pure: text in, next firing out. What a firing does, and when nobody looked in time, is
//! [`super::schedule`]'s.

mod parse;
#[cfg(test)]
mod tests;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};

pub use self::parse::Error;

/// An expression that fires nothing for this many years never does.
const YEARS: i16 = 5;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Fields(Fields),
    /// `@every`: this many whole seconds after the last.
    Every(i64),
}

/// The allowed values of each field as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    second: u64,
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Whether day of month or day of week has a star: then both must match, else either does.
    star: bool,
    /// Whether the expression has no field for the day of week.
    short: bool,
}

impl Cron {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self {
            text: text.to_owned(),
            rule: parse::rule(text)?,
        })
    }

    /// The expression as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What people who know other crons should be told about this expression, if anything.
    pub fn warning(&self) -> Option<String> {
        match &self.rule {
            Rule::Fields(fields) if fields.short => Some(format!(
                "cron {:?} has five fields, which are read as second, minute, hour, day of month \
                 and month (not as minute to day of week); for the usual meaning put the second \
                 first: \"0 {}\"",
                self.text, self.text
            )),
            Rule::Fields(_) | Rule::Every(_) => None,
        }
    }

    /// The first firing strictly after an instant; none if there is none within five years.
    ///
    /// A firing is a whole second whose local time matches: what daylight saving skips is not
    /// fired, and what it repeats fires in both rounds.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let whole = after.as_second() - i64::from(after.subsec_nanosecond() < 0);
        match &self.rule {
            Rule::Every(seconds) => Timestamp::from_second(whole.checked_add(*seconds)?).ok(),
            Rule::Fields(fields) => {
                let mut from = Timestamp::from_second(whole + 1).ok()?;
                let last = zone.to_datetime(from).year().saturating_add(YEARS);
                // Between two changes of the zone's offset local time runs straight.
                loop {
                    let offset = zone.to_offset(from);
                    let change = zone.following(from).next().map(|next| next.timestamp());
                    let found = fields
                        .at_or_after(offset.to_datetime(from), last)
                        .and_then(|local| offset.to_timestamp(local).ok());
                    match (found, change) {
                        (Some(found), Some(change)) if found < change => return Some(found),
                        (Some(found), None) => return Some(found),
                        (_, Some(change)) if zone.to_datetime(change).year() <= last => {
                            from = change;
                        }
                        (_, _) => return None,
                    }
                }
            }
        }
    }

    /// The latest firing after one instant and not after another.
    pub fn latest(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let due = |from: i64| {
            let from = Timestamp::from_second(from).ok()?;
            self.next(from, zone).filter(|next| *next <= until)
        };
        let mut found = self.next(after, zone).filter(|next| *next <= until)?;
        match self.rule {
            Rule::Every(seconds) => {
                let rounds = (until.as_second() - found.as_second()).div_euclid(seconds);
                found = Timestamp::from_second(found.as_second() + rounds * seconds).ok()?;
            }
            // The later one starts, the later the next firing: halve the time that is left.
            Rule::Fields(_) => {
                let (mut low, mut high) = (found.as_second(), until.as_second());
                while low < high {
                    let middle = low + (high - low) / 2;
                    match due(middle) {
                        Some(next) => {
                            found = next;
                            low = next.as_second();
                        }
                        None => high = middle,
                    }
                }
            }
        }
        Some(found)
    }
}

impl TryFrom<String> for Cron {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

impl Fields {
    /// The first matching local time from `from` on, up to the end of year `last`.
    fn at_or_after(&self, from: DateTime, last: i16) -> Option<DateTime> {
        let (mut date, mut floor) = (from.date(), from.time());
        while date.year() <= last {
            if !has(self.month, date.month()) {
                date = date.first_of_month().checked_add(1.month()).ok()?;
                floor = Time::midnight();
                continue;
            }
            if self.matches_day(date) {
                if let Some(time) = self.time_at_or_after(floor) {
                    return Some(date.to_datetime(time));
                }
            }
            date = date.tomorrow().ok()?;
            floor = Time::midnight();
        }
        None
    }

    fn matches_day(&self, date: Date) -> bool {
        let day = has(self.day, date.day());
        let weekday = has(self.weekday, date.weekday().to_sunday_zero_offset());
        if self.star {
            day && weekday
        } else {
            day || weekday
        }
    }

    fn time_at_or_after(&self, from: Time) -> Option<Time> {
        let time = |hour, minute, second| Time::new(hour, minute, second, 0).ok();
        let (first_minute, first_second) =
            (at_or_after(self.minute, 0)?, at_or_after(self.second, 0)?);
        if has(self.hour, from.hour()) {
            if has(self.minute, from.minute()) {
                if let Some(second) = at_or_after(self.second, from.second()) {
                    return time(from.hour(), from.minute(), second);
                }
            }
            if let Some(minute) = at_or_after(self.minute, from.minute() + 1) {
                return time(from.hour(), minute, first_second);
            }
        }
        time(
            at_or_after(self.hour, from.hour() + 1)?,
            first_minute,
            first_second,
        )
    }
}

fn has(bits: u64, value: i8) -> bool {
    bits >> value & 1 == 1
}

/// The lowest value of a set from `from` on.
fn at_or_after(bits: u64, from: i8) -> Option<i8> {
    let rest = bits >> from;
    (rest != 0).then(|| from + rest.trailing_zeros() as i8)
}
