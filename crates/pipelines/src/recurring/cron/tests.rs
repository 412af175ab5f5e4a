//! Expressions with their firings, and a reference that looks at every second.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::{Cron, Error};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(rule: &str) -> TimeZone {
    TimeZone::posix(rule).unwrap()
}

/// The next firings of an expression after an instant.
fn firings(cron: &str, after: &str, zone: &TimeZone, count: usize) -> Vec<String> {
    let cron = Cron::parse(cron).unwrap();
    let first = cron.next(at(after), zone);
    std::iter::successors(first, |last| cron.next(*last, zone))
        .take(count)
        .map(|at| at.to_string())
        .collect()
}

#[test]
fn fields_descriptors_and_intervals_fire_when_they_should() {
    let utc = TimeZone::UTC;
    for (cron, after, expected) in [
        (
            "0 0 * * * *",
            "2026-01-01T00:00:00Z",
            "2026-01-01T01:00:00Z",
        ),
        (
            "0/15 * * * * ?",
            "2026-01-01T00:00:07.9Z",
            "2026-01-01T00:00:15Z",
        ),
        (
            "*/5 * * * *",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:05Z",
        ),
        ("30 8 * * *", "2026-01-01T09:00:00Z", "2026-01-01T09:08:30Z"),
        (
            "0 0 12 ? * MON-fri",
            "2026-01-02T12:00:00Z",
            "2026-01-05T12:00:00Z",
        ),
        (
            "0 0 0 29 Feb ?",
            "2026-01-01T00:00:00Z",
            "2028-02-29T00:00:00Z",
        ),
        // Either day, unless one is a star.
        (
            "0 0 0 13 * fri",
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
        ),
        (
            "0 0 0 13 * *",
            "2026-01-01T00:00:00Z",
            "2026-01-13T00:00:00Z",
        ),
        (
            "0 0 0 */10 * sun",
            "2026-01-01T00:00:00Z",
            "2026-01-11T00:00:00Z",
        ),
        (
            "5,,7 0 0 1 1 *",
            "2026-01-01T00:00:05Z",
            "2026-01-01T00:00:07Z",
        ),
        ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@annually", "2026-03-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@monthly", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("@daily", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        (
            "@midnight",
            "2026-01-01T23:59:59.5Z",
            "2026-01-02T00:00:00Z",
        ),
        ("@hourly", "2026-01-01T00:00:01Z", "2026-01-01T01:00:00Z"),
        (
            "@every 1h30m",
            "2026-01-01T00:00:01.7Z",
            "2026-01-01T01:30:01Z",
        ),
        (
            "@every 1.5s",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:01Z",
        ),
        ("@every 2ms", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        ("@every -5m", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
    ] {
        assert_eq!(firings(cron, after, &utc, 1), [expected], "{cron}");
    }
}

#[test]
fn what_never_comes_is_none() {
    assert!(firings("0 0 0 30 2 *", "2026-01-01T00:00:00Z", &TimeZone::UTC, 1).is_empty());
    // The next 29 February is eight years away.
    assert!(firings("0 0 0 29 2 *", "2096-03-01T00:00:00Z", &TimeZone::UTC, 1).is_empty());
    let changing = zone("EST5EDT,M3.2.0,M11.1.0");
    assert!(firings("0 0 0 31 4 *", "2026-01-01T00:00:00Z", &changing, 1).is_empty());
}

#[test]
fn daylight_saving_skips_and_repeats() {
    let new_york = zone("EST5EDT,M3.2.0,M11.1.0");
    // 2:30 does not exist on 8 March.
    assert_eq!(
        firings("0 30 2 * * *", "2026-03-07T00:00:00Z", &new_york, 2),
        ["2026-03-07T07:30:00Z", "2026-03-09T06:30:00Z"]
    );
    // 1:30 comes twice on 1 November.
    assert_eq!(
        firings("0 30 1 * * *", "2026-11-01T00:00:00Z", &new_york, 3),
        [
            "2026-11-01T05:30:00Z",
            "2026-11-01T06:30:00Z",
            "2026-11-02T06:30:00Z"
        ]
    );
    assert_eq!(
        firings("0 0 * * * *", "2026-03-08T06:00:00Z", &new_york, 2),
        ["2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z"]
    );
}

#[test]
fn errors_name_field_value_and_what_is_allowed() {
    for (cron, says) in [
        ("", &["0 fields", "allowed: six"][..]),
        ("* * * *", &["4 fields"]),
        ("* * * * * * 2026", &["7 fields"]),
        (
            "60 * * * * *",
            &["field second", "\"60\"", "60 is above 59", "0 to 59"],
        ),
        ("* * 9-24 * * *", &["field hour", "24 is above 23"]),
        ("* * * 0 * *", &["field day-of-month", "0 is below 1"]),
        ("* * * * foo *", &["field month", "\"foo\"", "jan to dec"]),
        (
            "* * * * * 7",
            &["field day-of-week", "7 is above 6", "sun to sat"],
        ),
        ("* 5-3 * * * *", &["field minute", "after its end"]),
        ("*/0 * * * * *", &["step of 0"]),
        ("1-2-3 * * * * *", &["too many hyphens"]),
        ("1/2/3 * * * * *", &["too many slashes"]),
        ("-1 * * * * *", &["\"-1\"", "not a whole number"]),
        (", * * * * *", &["no value"]),
        ("@fortnightly", &["@hourly"]),
        ("@every", &["no descriptor"]),
        ("@every soon", &["\"soon\"", "1h30m"]),
        ("@every 5", &["no duration"]),
    ] {
        let error = Cron::parse(cron).unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "{cron}: {error}");
        }
    }
    assert!(matches!(
        Cron::parse("* * * * * 4294967296"),
        Err(Error::Field { .. })
    ));
}

#[test]
fn five_fields_are_warned_about() {
    let warning = Cron::parse("*/5 * * * *").unwrap().warning().unwrap();
    assert!(warning.contains("\"0 */5 * * * *\""), "{warning}");
    assert_eq!(Cron::parse("0 */5 * * * *").unwrap().warning(), None);
    assert_eq!(Cron::parse("@daily").unwrap().warning(), None);
}

/// The text of one field, and the values it stands for; none for a star.
fn field(low: u8, high: u8) -> impl Strategy<Value = (String, Option<Vec<u8>>)> {
    let single = (low..=high).prop_map(|value| (value.to_string(), vec![value]));
    let range = (low..=high, low..=high, 1..=10u8).prop_map(|(a, b, step)| {
        let (a, b) = (a.min(b), a.max(b));
        let values = (a..=b).step_by(step as usize).collect();
        (format!("{a}-{b}/{step}"), values)
    });
    let open = (low..=high, 1..=30u8).prop_map(move |(a, step)| {
        let values = (a..=high).step_by(step as usize).collect();
        (format!("{a}/{step}"), values)
    });
    let parts = proptest::collection::vec(prop_oneof![single, range, open], 1..4);
    prop_oneof![
        2 => Just(("*".to_owned(), None)),
        1 => Just(("?".to_owned(), None)),
        3 => parts.prop_map(|parts| {
            let (texts, values): (Vec<String>, Vec<Vec<u8>>) = parts.into_iter().unzip();
            (texts.join(","), Some(values.concat()))
        }),
    ]
}

const ZONES: [&str; 4] = [
    "UTC0",
    "EST5EDT,M3.2.0,M11.1.0",
    // Half an hour, and a change at midnight.
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "<-03>3<-02>,M10.3.0/0,M2.3.0/0",
];

/// Days on which one of the zones changes its offset, and one more.
const DAYS: [&str; 7] = [
    "2026-03-08T00:00:00Z",
    "2026-11-01T00:00:00Z",
    "2026-10-03T12:00:00Z",
    "2026-04-04T12:00:00Z",
    "2026-10-17T20:00:00Z",
    "2026-02-14T20:00:00Z",
    "2027-12-31T20:00:00Z",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Against a reference that looks at every second of eight hours.
    #[test]
    fn the_next_firing_is_the_first_second_that_matches(
        second in field(0, 59), minute in field(0, 59), hour in field(0, 23),
        day in field(1, 31), month in field(1, 12), weekday in field(0, 6),
        zone in proptest::sample::select(&ZONES[..]), start in proptest::sample::select(&DAYS[..]),
        skip in 0..43_200i64,
    ) {
        let zone = TimeZone::posix(zone).unwrap();
        let text = format!("{} {} {} {} {} {}",
            second.0, minute.0, hour.0, day.0, month.0, weekday.0);
        let cron = Cron::parse(&text).unwrap();
        let start = at(start).as_second() + skip;
        let is = |set: &Option<Vec<u8>>, value: i8| {
            set.as_ref().is_none_or(|set| set.contains(&(value as u8)))
        };
        let horizon = start + 8 * 3600;
        let expected: Vec<i64> = (start + 1..=horizon)
            .filter(|second_of_time| {
                let local = zone.to_datetime(Timestamp::from_second(*second_of_time).unwrap());
                let dom = is(&day.1, local.day());
                let dow = is(&weekday.1, local.weekday().to_sunday_zero_offset());
                let date = if day.1.is_none() || weekday.1.is_none() { dom && dow } else { dom || dow };
                is(&second.1, local.second()) && is(&minute.1, local.minute())
                    && is(&hour.1, local.hour()) && is(&month.1, local.month()) && date
            })
            .collect();
        let mut found = Vec::new();
        let mut last = Timestamp::from_second(start).unwrap();
        while let Some(next) = cron.next(last, &zone) {
            prop_assert!(next > last);
            if next.as_second() > horizon || found.len() == expected.len() {
                prop_assert_eq!(found.len(), expected.len(), "{} at {}", text, next);
                break;
            }
            found.push(next.as_second());
            last = next;
        }
        prop_assert_eq!(&found, &expected, "{}", text);
        let until = Timestamp::from_second(horizon).unwrap();
        let latest = cron.latest(Timestamp::from_second(start).unwrap(), until, &zone);
        prop_assert_eq!(latest.map(Timestamp::as_second), expected.last().copied());
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-*/,?0-9a-z@ ]{0,24}") {
        if let Ok(cron) = Cron::parse(&text) {
            cron.next(at("2026-01-01T00:00:00Z"), &TimeZone::UTC);
        }
    }
}
