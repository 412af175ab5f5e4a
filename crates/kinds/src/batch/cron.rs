//! Cron schedules of five fields, or `@hourly` and its like, or `@every 5m`, with the complaints
//! that Kubernetes' parser has.

use std::str::FromStr;

/// The minutes, hours, days, months and weekdays of a schedule, each a bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    Fields {
        minute: u64,
        hour: u64,
        day: u64,
        month: u64,
        weekday: u64,
        any_day: bool,
        any_weekday: bool,
    },
    /// Seconds between runs.
    Every(u64),
}

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(pub String);

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds {
    min: 0,
    max: 59,
    names: &[],
};
const HOUR: Bounds = Bounds {
    min: 0,
    max: 23,
    names: &[],
};
const DAY: Bounds = Bounds {
    min: 1,
    max: 31,
    names: &[],
};
const MONTH: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Bounds = Bounds {
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return Err(ScheduleError("empty spec string".to_owned()));
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            )));
        };
        let any = |field: &str| field.starts_with('*') || field.starts_with('?');
        Ok(Self::Fields {
            minute: parse_field(minute, &MINUTE)?,
            hour: parse_field(hour, &HOUR)?,
            day: parse_field(day, &DAY)?,
            month: parse_field(month, &MONTH)?,
            weekday: parse_field(weekday, &WEEKDAY)?,
            any_day: any(day),
            any_weekday: any(weekday),
        })
    }
}

fn descriptor(text: &str) -> Result<Schedule, ScheduleError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(duration) = text.strip_prefix("@every ") else {
                return Err(ScheduleError(format!("unrecognized descriptor: {text}")));
            };
            return go_duration(duration).map(Schedule::Every).ok_or_else(|| {
                let quoted = crate::field::quote(duration);
                ScheduleError(format!(
                    "failed to parse duration {text}: time: invalid duration {quoted}"
                ))
            });
        }
    };
    fields.parse()
}

/// `1h30m`, `90s` in whole seconds.
fn go_duration(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(seconds)?)?;
        rest = after;
    }
    Some(total.max(1))
}

fn parse_field(field: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let mut bits = 0;
    for part in field.split(',').filter(|part| !part.is_empty()) {
        bits |= parse_range(part, bounds)?;
    }
    Ok(bits)
}

fn parse_range(part: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let error = |text: String| Err(ScheduleError(text));
    let steps: Vec<&str> = part.split('/').collect();
    let ends: Vec<&str> = steps[0].split('-').collect();
    let single = ends.len() == 1;
    let (start, mut end) = if matches!(ends[0], "*" | "?") {
        (bounds.min, bounds.max)
    } else {
        let start = parse_number(ends[0], bounds)?;
        match ends.len() {
            1 => (start, start),
            2 => (start, parse_number(ends[1], bounds)?),
            _ => return error(format!("too many hyphens: {part}")),
        }
    };
    let step = match steps.len() {
        1 => 1,
        2 => {
            let step = parse_int(steps[1])?;
            if single {
                end = bounds.max;
            }
            step
        }
        _ => return error(format!("too many slashes: {part}")),
    };
    if start < bounds.min {
        return error(format!(
            "beginning of range ({start}) below minimum ({}): {part}",
            bounds.min
        ));
    }
    if end > bounds.max {
        return error(format!(
            "end of range ({end}) above maximum ({}): {part}",
            bounds.max
        ));
    }
    if start > end {
        return error(format!(
            "beginning of range ({start}) beyond end of range ({end}): {part}"
        ));
    }
    if step == 0 {
        return error(format!("step of range should be a positive number: {part}"));
    }
    let values = (start..=end).step_by(step as usize);
    Ok(values.fold(0, |bits, value| bits | (1 << value)))
}

fn parse_number(text: &str, bounds: &Bounds) -> Result<u32, ScheduleError> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(at as u32 + bounds.min),
        None => parse_int(text),
    }
}

fn parse_int(text: &str) -> Result<u32, ScheduleError> {
    if text.starts_with('-') && text[1..].parse::<u32>().is_ok() {
        return Err(ScheduleError(format!(
            "negative number ({text}) not allowed: {text}"
        )));
    }
    text.parse().map_err(|_| {
        let quoted = crate::field::quote(text);
        ScheduleError(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {quoted}: invalid syntax"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints() {
        for (given, expected) in [
            (
                "every day",
                "expected exactly 5 fields, found 2: [every day]",
            ),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            (
                "a * * * *",
                "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax",
            ),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(
                given.parse::<Schedule>().unwrap_err().0,
                expected,
                "{given}"
            );
        }
    }

    #[test]
    fn schedules() {
        for given in [
            "*/5 * * * *",
            "0 0 1 jan sun",
            "1,2,3-5 * ? * MON-FRI",
            "@daily",
            "@every 1h30m",
        ] {
            assert!(given.parse::<Schedule>().is_ok(), "{given}");
        }
        assert_eq!("@every 1h30m".parse(), Ok(Schedule::Every(5400)));
    }
}
