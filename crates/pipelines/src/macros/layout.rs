//! Times as Go's reference layouts and as strftime formats write them, in UTC to the second.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// The parts of the reference time, longer before shorter where one begins with the other.
const ELEMENTS: &[&str] = &[
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "2006",
    "_2006",
    "__2",
    "_2",
    "PM",
    "pm",
    "-07:00:00",
    "-070000",
    "-07:00",
    "-0700",
    "-07",
    "Z07:00:00",
    "Z070000",
    "Z07:00",
    "Z0700",
    "Z07",
    "1",
    "2",
    "3",
    "4",
    "5",
];

/// A time in a layout that shows how Mon Jan 2 15:04:05 MST 2006 would look.
pub(super) fn go(layout: &str, at: Timestamp) -> String {
    let time = Offset::UTC.to_datetime(at);
    let mut text = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        if let Some((digits, tail)) = fraction(rest) {
            // Whole seconds: zeros are written, nines leave out what is zero.
            if digits.ends_with('0') {
                text.push_str(digits);
            }
            rest = tail;
            continue;
        }
        let element = ELEMENTS.iter().find(|element| {
            rest.strip_prefix(**element)
                .is_some_and(|tail| whole(element, tail))
        });
        if let Some(element) = element {
            push(&mut text, element, time);
            rest = &rest[element.len()..];
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    text
}

/// `Jan` and `Mon` are not the beginnings of other words.
fn whole(element: &str, tail: &str) -> bool {
    !matches!(element, "Jan" | "Mon") || !tail.starts_with(|c: char| c.is_ascii_lowercase())
}

/// A point or comma and zeros or nines, with no other digit after them.
fn fraction(text: &str) -> Option<(&str, &str)> {
    let digits = text.strip_prefix(['.', ','])?;
    let digit = digits.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let tail = digits.trim_start_matches(digit);
    let ends = !tail.starts_with(|c: char| c.is_ascii_digit());
    ends.then(|| (&text[..text.len() - tail.len()], tail))
}

fn push(text: &mut String, element: &str, time: DateTime) {
    let (year, month, day) = (time.year(), time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let twelve = twelve(hour);
    let month_name = MONTHS[usize::try_from(month - 1).unwrap_or_default()];
    let weekday = time.weekday().to_sunday_zero_offset();
    let weekday_name = WEEKDAYS[usize::try_from(weekday).unwrap_or_default()];
    let written = match element {
        "January" => write!(text, "{month_name}"),
        "Jan" => write!(text, "{}", &month_name[..3]),
        "Monday" => write!(text, "{weekday_name}"),
        "Mon" => write!(text, "{}", &weekday_name[..3]),
        "MST" => write!(text, "UTC"),
        "002" => write!(text, "{:03}", time.day_of_year()),
        "01" => write!(text, "{month:02}"),
        "1" => write!(text, "{month}"),
        "02" => write!(text, "{day:02}"),
        "_2" => write!(text, "{day:2}"),
        "__2" => write!(text, "{:3}", time.day_of_year()),
        "2" => write!(text, "{day}"),
        "15" => write!(text, "{hour:02}"),
        "03" => write!(text, "{twelve:02}"),
        "3" => write!(text, "{twelve}"),
        "04" => write!(text, "{minute:02}"),
        "4" => write!(text, "{minute}"),
        "05" => write!(text, "{second:02}"),
        "5" => write!(text, "{second}"),
        "06" => write!(text, "{:02}", year.rem_euclid(100)),
        "2006" => write!(text, "{year:04}"),
        // Not a day in front of a year.
        "_2006" => write!(text, "_{year:04}"),
        "PM" => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
        "pm" => write!(text, "{}", if hour < 12 { "am" } else { "pm" }),
        zone if zone.starts_with('Z') => write!(text, "Z"),
        "-07" => write!(text, "+00"),
        "-0700" => write!(text, "+0000"),
        "-07:00" => write!(text, "+00:00"),
        "-070000" => write!(text, "+000000"),
        "-07:00:00" => write!(text, "+00:00:00"),
        other => write!(text, "{other}"),
    };
    written.expect("invariant: writing to a string cannot fail");
}

/// A time in a strftime format; none if the format has an unknown directive.
pub(super) fn strftime(format: &str, at: Timestamp) -> Option<String> {
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c == '%' {
            text.push_str(&directive(chars.next()?, at)?);
        } else {
            text.push(c);
        }
    }
    Some(text)
}

fn directive(directive: char, at: Timestamp) -> Option<String> {
    let time = Offset::UTC.to_datetime(at);
    let weekday = i16::from(time.weekday().to_sunday_zero_offset());
    let layout = match directive {
        'A' => "Monday",
        'a' => "Mon",
        'B' => "January",
        'b' | 'h' => "Jan",
        'c' => "Mon Jan _2 15:04:05 2006",
        'D' | 'x' => "01/02/06",
        'd' => "02",
        'e' => "_2",
        'F' => "2006-01-02",
        'H' => "15",
        'I' => "03",
        'j' => "002",
        'M' => "04",
        'm' => "01",
        'p' => "PM",
        'R' => "15:04",
        'r' => "03:04:05 PM",
        'S' => "05",
        'T' | 'X' => "15:04:05",
        'v' => "_2-Jan-2006",
        'Y' => "2006",
        'y' => "06",
        'Z' => "MST",
        'z' => "-0700",
        'n' => "\n",
        't' => "\t",
        '%' => "%",
        'C' => return Some(format!("{:02}", time.year() / 100)),
        'k' => return Some(format!("{:2}", time.hour())),
        'l' => return Some(format!("{:2}", twelve(time.hour()))),
        's' => return Some(at.as_second().to_string()),
        // Weeks that begin on Sunday, on Monday, and ISO 8601's.
        'U' => return Some(format!("{:02}", (time.day_of_year() + 6 - weekday) / 7)),
        'W' => {
            let from_monday = (weekday + 6) % 7;
            return Some(format!("{:02}", (time.day_of_year() + 6 - from_monday) / 7));
        }
        'V' => return Some(format!("{:02}", time.date().iso_week_date().week())),
        'u' => return Some(if weekday == 0 { 7 } else { weekday }.to_string()),
        'w' => return Some(weekday.to_string()),
        _ => return None,
    };
    Some(go(layout, at))
}

/// An hour of the day on a clock's face.
fn twelve(hour: i8) -> i8 {
    if hour % 12 == 0 { 12 } else { hour % 12 }
}
