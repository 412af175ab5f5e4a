//! Times and base64 as Go reads and writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Canonical form of an RFC 3339 time: UTC, whole seconds (or microseconds), or Go's error.
pub(crate) fn time(text: &str, micro: bool) -> Result<String, String> {
    let layout = if micro {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    parse_time(text, micro).map_err(|fault| match fault {
        Fault::At(rest, element) => {
            format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}")
        }
        Fault::Range(what) => format!("parsing time {text:?}: {what} out of range"),
        Fault::Extra(rest) => format!("parsing time {text:?}: extra text: {rest:?}"),
    })
}

enum Fault {
    At(String, &'static str),
    Range(&'static str),
    Extra(String),
}

fn parse_time(text: &str, micro: bool) -> Result<String, Fault> {
    let mut rest = text;
    let year = number(&mut rest, 4, "2006")?;
    literal(&mut rest, "-")?;
    let month = number(&mut rest, 2, "01")?;
    literal(&mut rest, "-")?;
    let day = number(&mut rest, 2, "02")?;
    literal(&mut rest, "T")?;
    let hour = number(&mut rest, 2, "15")?;
    literal(&mut rest, ":")?;
    let minute = number(&mut rest, 2, "04")?;
    literal(&mut rest, ":")?;
    let second = number(&mut rest, 2, "05")?;
    let mut fraction = String::new();
    if let Some(after) = rest.strip_prefix('.') {
        let end = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        after[..end].clone_into(&mut fraction);
        rest = &after[end..];
    }
    let offset = if let Some(after) = rest.strip_prefix('Z') {
        rest = after;
        0
    } else {
        let zone = rest;
        let fault = || Fault::At(zone.to_owned(), "Z07:00");
        let sign = match zone.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(fault()),
        };
        rest = &zone[1..];
        let hours = number(&mut rest, 2, "Z07:00").map_err(|_| fault())?;
        literal(&mut rest, ":").map_err(|_| fault())?;
        let minutes = number(&mut rest, 2, "Z07:00").map_err(|_| fault())?;
        sign * (hours * 60 + minutes)
    };
    if !rest.is_empty() {
        return Err(Fault::Extra(rest.to_owned()));
    }
    if !(1..=12).contains(&month) {
        return Err(Fault::Range("month"));
    }
    if day < 1 || day > days_in(year, month) {
        return Err(Fault::Range("day"));
    }
    if hour > 23 {
        return Err(Fault::Range("hour"));
    }
    if minute > 59 {
        return Err(Fault::Range("minute"));
    }
    if second > 59 {
        return Err(Fault::Range("second"));
    }
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset;
    let (year, month, day) = civil_from_days(minutes.div_euclid(1440));
    let of_day = minutes.rem_euclid(1440);
    let mut written = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{second:02}",
        of_day / 60,
        of_day % 60
    );
    if micro {
        fraction.truncate(6);
        written = format!("{written}.{fraction:0<6}");
    }
    written.push('Z');
    Ok(written)
}

fn number(rest: &mut &str, digits: usize, element: &'static str) -> Result<i64, Fault> {
    let found = rest
        .get(..digits)
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let value = found.and_then(|text| text.parse().ok());
    let value = value.ok_or_else(|| Fault::At((*rest).to_owned(), element))?;
    *rest = &rest[digits..];
    Ok(value)
}

fn literal(rest: &mut &str, text: &'static str) -> Result<(), Fault> {
    *rest = rest
        .strip_prefix(text)
        .ok_or_else(|| Fault::At((*rest).to_owned(), text))?;
    Ok(())
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Base64 as Go accepts it (line breaks are skipped), written back without them.
pub(crate) fn base64(text: &str) -> Result<String, String> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&compact) {
        Ok(bytes) => Ok(STANDARD.encode(bytes)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    compact.trim_end_matches('=').len() / 4 * 4
                }
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{base64, time};

    #[test]
    fn times_become_utc() {
        assert_eq!(
            time("2026-03-01T00:30:00+01:00", false).as_deref(),
            Ok("2026-02-28T23:30:00Z")
        );
        assert_eq!(
            time("2024-02-29T12:00:00.1234567Z", true).as_deref(),
            Ok("2024-02-29T12:00:00.123456Z")
        );
        assert_eq!(
            time("2024-02-29T12:00:00.5Z", false).as_deref(),
            Ok("2024-02-29T12:00:00Z")
        );
    }

    #[test]
    fn bad_times_read_as_go_words_them() {
        assert_eq!(
            time("x", false).unwrap_err(),
            "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\""
        );
        assert_eq!(
            time("2024-02-30T00:00:00Z", false).unwrap_err(),
            "parsing time \"2024-02-30T00:00:00Z\": day out of range"
        );
        assert_eq!(
            time("2024-02-20", false).unwrap_err(),
            "parsing time \"2024-02-20\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\""
        );
    }

    #[test]
    fn base64_is_checked_and_compacted() {
        assert_eq!(base64("aGVs\nbG8=").as_deref(), Ok("aGVsbG8="));
        assert_eq!(
            base64("a*==").unwrap_err(),
            "illegal base64 data at input byte 1"
        );
        assert_eq!(
            base64("abc").unwrap_err(),
            "illegal base64 data at input byte 0"
        );
    }
}
