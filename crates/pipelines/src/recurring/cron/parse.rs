//! Reading cron expressions.

use std::ops::RangeInclusive;

use super::{Fields, Rule};

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not five or six fields.
    #[error(
        "cron {text:?} has {found} fields (allowed: six, \"second minute hour day-of-month month \
         day-of-week\", or five, without day-of-week; or @yearly, @monthly, @weekly, @daily, \
         @hourly, @every 1h30m)"
    )]
    Count {
        /// The expression.
        text: String,
        /// How many it has.
        found: usize,
    },
    /// A field cannot be read.
    #[error("cron {text:?}: field {field}: {value:?}: {problem} (allowed: {allowed})")]
    Field {
        /// The expression.
        text: String,
        /// The field's name.
        field: &'static str,
        /// The part of it that is wrong.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// What may stand there.
        allowed: String,
    },
    /// An unknown word after the at sign.
    #[error(
        "cron {0:?} is no descriptor (allowed: @yearly, @annually, @monthly, @weekly, @daily, \
         @midnight, @hourly, @every and a duration)"
    )]
    Descriptor(String),
    /// What follows `@every` is no duration.
    #[error(
        "cron {text:?}: {duration:?} is no duration (allowed: numbers with a unit of h, m, s, ms, \
         us or ns, such as 1h30m)"
    )]
    Duration {
        /// The expression.
        text: String,
        /// What should have been a duration.
        duration: String,
    },
}

/// What a field may hold.
struct Bounds {
    field: &'static str,
    range: RangeInclusive<u32>,
    names: &'static [&'static str],
}

const BOUNDS: [Bounds; 6] = [
    Bounds {
        field: "second",
        range: 0..=59,
        names: &[],
    },
    Bounds {
        field: "minute",
        range: 0..=59,
        names: &[],
    },
    Bounds {
        field: "hour",
        range: 0..=23,
        names: &[],
    },
    Bounds {
        field: "day-of-month",
        range: 1..=31,
        names: &[],
    },
    Bounds {
        field: "month",
        range: 1..=12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Bounds {
        field: "day-of-week",
        range: 0..=6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

/// The values of a field, and whether a star is among its parts.
#[derive(Clone, Copy)]
struct Set {
    bits: u64,
    star: bool,
}

pub(super) fn rule(text: &str) -> Result<Rule, Error> {
    if text.starts_with('@') {
        return descriptor(text);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    if !(5..=6).contains(&words.len()) {
        return Err(Error::Count {
            text: text.to_owned(),
            found: words.len(),
        });
    }
    let set = |index: usize| {
        let word = words.get(index).copied().unwrap_or("*");
        BOUNDS[index]
            .set(word)
            .map_err(|(value, problem)| Error::Field {
                text: text.to_owned(),
                field: BOUNDS[index].field,
                value,
                problem,
                allowed: BOUNDS[index].allowed(),
            })
    };
    let (second, minute, hour) = (set(0)?, set(1)?, set(2)?);
    let (day, month, weekday) = (set(3)?, set(4)?, set(5)?);
    Ok(Rule::Fields(Fields {
        second: second.bits,
        minute: minute.bits,
        hour: hour.bits,
        day: day.bits,
        month: month.bits,
        weekday: weekday.bits,
        star: day.star || weekday.star,
        short: words.len() == 5,
    }))
}

/// What is wrong with which part of a field.
type Problem = (String, String);

impl Bounds {
    fn allowed(&self) -> String {
        let (low, high) = (self.range.start(), self.range.end());
        let names = match self.names {
            [] => String::new(),
            [first, .., last] => format!(" or {first} to {last}"),
            [only] => format!(" or {only}"),
        };
        format!("{low} to {high}{names}, ranges a-b, steps a-b/n, */n and a/n, lists a,b, * and ?")
    }

    fn set(&self, field: &str) -> Result<Set, Problem> {
        let mut whole = Set {
            bits: 0,
            star: false,
        };
        for part in field.split(',').filter(|part| !part.is_empty()) {
            let set = self
                .part(part)
                .map_err(|problem| (part.to_owned(), problem))?;
            whole.bits |= set.bits;
            whole.star |= set.star;
        }
        if whole.bits == 0 {
            return Err((field.to_owned(), "it has no value".to_owned()));
        }
        Ok(whole)
    }

    /// `*`, `a`, `a-b`, each with `/n`; `a/n` means from a to the end.
    fn part(&self, part: &str) -> Result<Set, String> {
        let (range, step) = match part.split_once('/') {
            Some((_, step)) if step.contains('/') => return Err("too many slashes".to_owned()),
            Some((range, step)) => (range, Some(number(step)?)),
            None => (part, None),
        };
        let mut ends = range.split('-');
        let first = ends.next().unwrap_or_default();
        let (low, high, star) = if first == "*" || first == "?" {
            (*self.range.start(), *self.range.end(), true)
        } else {
            let low = self.value(first)?;
            match (ends.next(), ends.next()) {
                (Some(_), Some(_)) => return Err("too many hyphens".to_owned()),
                (Some(high), None) => (low, self.value(high)?, false),
                (None, _) if step.is_some() => (low, *self.range.end(), false),
                (None, _) => (low, low, false),
            }
        };
        if low < *self.range.start() {
            return Err(format!("{low} is below {}", self.range.start()));
        }
        if high > *self.range.end() {
            return Err(format!("{high} is above {}", self.range.end()));
        }
        if low > high {
            return Err(format!(
                "the range begins at {low}, after its end at {high}"
            ));
        }
        match step.unwrap_or(1) {
            0 => Err("a step of 0 leads nowhere".to_owned()),
            step => Ok(Set {
                bits: (low..=high)
                    .step_by(step as usize)
                    .fold(0, |bits, value| bits | 1 << value),
                star,
            }),
        }
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        match (0..).zip(self.names).find(|(_, name)| **name == lower) {
            Some((index, _)) => Ok(self.range.start() + index),
            None => number(text),
        }
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number from 0"))
}

fn descriptor(text: &str) -> Result<Rule, Error> {
    if let Some(duration) = text.strip_prefix("@every ") {
        let seconds = seconds(duration).ok_or_else(|| Error::Duration {
            text: text.to_owned(),
            duration: duration.to_owned(),
        })?;
        // Shorter ones are rounded up to a second, others down to whole seconds.
        return Ok(Rule::Every(seconds.max(1)));
    }
    let fields = match text {
        "@yearly" | "@annually" => "0 0 0 1 1 *",
        "@monthly" => "0 0 0 1 * *",
        "@weekly" => "0 0 0 * * 0",
        "@daily" | "@midnight" => "0 0 0 * * *",
        "@hourly" => "0 0 * * * *",
        _ => return Err(Error::Descriptor(text.to_owned())),
    };
    rule(fields)
}

/// The whole seconds of a duration as Go writes them, such as `1h30m` or `-1.5s`.
fn seconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.split_at_checked(1)? {
        ("-", rest) => (true, rest),
        ("+", rest) => (false, rest),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanos = nanos.checked_add(whole.checked_mul(unit)?)?;
        // More digits than a nanosecond of an hour has say nothing.
        let mut place = unit;
        for digit in fraction.bytes().take(20) {
            nanos += place * i128::from(digit - b'0') / 10;
            place /= 10;
        }
        rest = next;
    }
    let nanos = if negative { -nanos } else { nanos };
    i64::try_from(nanos).ok().map(|nanos| nanos / 1_000_000_000)
}
