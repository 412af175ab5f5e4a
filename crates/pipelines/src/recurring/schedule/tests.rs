//! Every rule of when a recurring run fires, with a clock that the tests set.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Cron, Decision, Schedule, Trigger, Within};

fn at(text: &str) -> Timestamp {
    format!("2026-05-04T{text}Z").parse().unwrap()
}

fn schedule(trigger: Trigger) -> Schedule {
    Schedule {
        trigger,
        catchup: true,
        max_concurrency: 1,
        enabled: true,
        since: at("10:07:30.5"),
        last: None,
    }
}

fn within(start: &str, end: &str) -> Within {
    let time = |text: &str| (!text.is_empty()).then(|| at(text));
    Within {
        start: time(start),
        end: time(end),
    }
}

fn cron(text: &str, start: &str, end: &str) -> Schedule {
    schedule(Trigger::Cron {
        cron: Cron::parse(text).unwrap(),
        within: within(start, end),
    })
}

fn periodic(seconds: i64, start: &str, end: &str) -> Schedule {
    schedule(Trigger::Periodic {
        seconds,
        within: within(start, end),
    })
}

fn decide(schedule: &Schedule, now: &str) -> Decision {
    schedule.decide(at(now), 0, &TimeZone::UTC)
}

/// The firings when somebody looks at these moments, each until there is nothing left to do.
fn fired(mut schedule: Schedule, looks: &[&str]) -> Vec<String> {
    let mut fired = Vec::new();
    for now in looks {
        while let Decision::Fire(nominal) = decide(&schedule, now) {
            assert!(schedule.last.is_none_or(|last| last < nominal));
            assert!(nominal <= at(now));
            schedule.last = Some(nominal);
            fired.push(nominal.strftime("%T").to_string());
        }
    }
    fired
}

const EVERY_TEN_MINUTES: &str = "0 */10 * * * *";

#[test]
fn cron_fires_first_after_creation_or_start() {
    let schedule = cron(EVERY_TEN_MINUTES, "", "");
    assert_eq!(
        decide(&schedule, "10:08:00"),
        Decision::Wait(at("10:10:00"))
    );
    assert_eq!(
        decide(&schedule, "10:10:00"),
        Decision::Fire(at("10:10:00"))
    );
    // Strictly after the start, and never before the creation.
    let later = cron(EVERY_TEN_MINUTES, "10:20:00", "");
    assert_eq!(decide(&later, "10:10:00"), Decision::Wait(at("10:30:00")));
    let earlier = cron(EVERY_TEN_MINUTES, "09:00:00", "");
    assert_eq!(decide(&earlier, "10:10:00"), Decision::Fire(at("10:10:00")));
}

#[test]
fn periodic_fires_first_at_start_or_an_interval_after_creation() {
    assert_eq!(
        fired(periodic(600, "", ""), &["10:17:29", "10:17:30", "10:27:30"]),
        ["10:17:30", "10:27:30"]
    );
    assert_eq!(
        fired(
            periodic(600, "10:20:00", ""),
            &["10:17:30", "10:20:00", "10:30:01"]
        ),
        ["10:20:00", "10:30:00"]
    );
}

#[test]
fn catching_up_makes_every_missed_run() {
    assert_eq!(
        fired(cron(EVERY_TEN_MINUTES, "", ""), &["10:35:00"]),
        ["10:10:00", "10:20:00", "10:30:00"]
    );
    assert_eq!(
        fired(periodic(600, "", ""), &["10:40:00"]),
        ["10:17:30", "10:27:30", "10:37:30"]
    );
}

#[test]
fn without_catching_up_only_the_last_is_made() {
    let lazy = |mut schedule: Schedule| {
        schedule.catchup = false;
        schedule
    };
    let looks = ["10:35:00", "10:39:59", "10:40:00"];
    assert_eq!(
        fired(lazy(cron(EVERY_TEN_MINUTES, "", "")), &looks),
        ["10:30:00", "10:40:00"]
    );
    // A periodic one fires now and goes on from here.
    assert_eq!(
        fired(
            lazy(periodic(600, "", "")),
            &["10:40:00", "10:49:00", "10:50:00"]
        ),
        ["10:40:00", "10:50:00"]
    );
    // One missed firing is not behind yet.
    assert_eq!(
        fired(lazy(periodic(600, "", "")), &["10:20:00"]),
        ["10:17:30"]
    );
    let ended = lazy(cron(EVERY_TEN_MINUTES, "", "10:25:00"));
    assert_eq!(fired(ended, &["12:00:00"]), ["10:20:00"]);
    let ended = lazy(periodic(600, "", "10:39:00"));
    assert_eq!(fired(ended, &["12:00:00"]), ["10:39:00"]);
}

#[test]
fn nothing_fires_past_the_end() {
    let looks = ["10:20:00", "11:00:00"];
    assert_eq!(
        fired(cron(EVERY_TEN_MINUTES, "", "10:20:00"), &looks),
        ["10:10:00", "10:20:00"]
    );
    assert_eq!(fired(periodic(600, "", "10:20:00"), &looks), ["10:17:30"]);
    assert_eq!(
        decide(&cron(EVERY_TEN_MINUTES, "", "10:09:00"), "10:08:00"),
        Decision::Idle
    );
    let backwards = periodic(600, "10:30:00", "10:20:00");
    assert_eq!(decide(&backwards, "11:00:00"), Decision::Idle);
}

#[test]
fn active_runs_hold_a_firing_up() {
    let mut schedule = cron(EVERY_TEN_MINUTES, "", "");
    schedule.max_concurrency = 2;
    let (now, zone) = (at("10:25:00"), TimeZone::UTC);
    assert_eq!(
        schedule.decide(now, 1, &zone),
        Decision::Fire(at("10:10:00"))
    );
    assert_eq!(
        schedule.decide(now, 2, &zone),
        Decision::Full(at("10:10:00"))
    );
    // What is not due yet does not wait for a run to end.
    schedule.last = Some(at("10:20:00"));
    assert_eq!(
        schedule.decide(now, 2, &zone),
        Decision::Wait(at("10:30:00"))
    );
}

#[test]
fn a_disabled_one_makes_up_for_what_it_missed_only_when_catching_up() {
    let mut schedule = cron(EVERY_TEN_MINUTES, "", "");
    schedule.enabled = false;
    assert_eq!(decide(&schedule, "10:35:00"), Decision::Idle);
    schedule.enabled = true;
    assert_eq!(fired(schedule.clone(), &["10:35:00"]).len(), 3);
    schedule.catchup = false;
    assert_eq!(fired(schedule, &["10:35:00"]), ["10:30:00"]);
}

#[test]
fn no_trigger_is_one_run() {
    assert_eq!(
        fired(
            schedule(Trigger::Once),
            &["10:07:31", "10:08:00", "11:00:00"]
        ),
        ["10:07:30"]
    );
}

#[test]
fn a_clock_that_jumps_fires_nothing_twice_and_forgets_nothing() {
    let looks = [
        "10:20:00", "10:05:00", "09:00:00", "10:20:00", "10:30:00", "10:10:00",
    ];
    assert_eq!(
        fired(cron(EVERY_TEN_MINUTES, "", ""), &looks),
        ["10:10:00", "10:20:00", "10:30:00"]
    );
    let mut lazy = periodic(60, "", "");
    lazy.catchup = false;
    assert_eq!(
        fired(lazy, &["10:30:00", "10:08:30", "10:29:59", "10:31:00"]),
        ["10:30:00", "10:31:00"]
    );
}

#[test]
fn a_changed_trigger_counts_from_its_change() {
    let mut changed = cron("0 */7 * * * *", "", "");
    changed.last = Some(at("10:10:00"));
    changed.since = at("10:30:00");
    assert_eq!(fired(changed, &["10:36:00"]), ["10:35:00"]);
    let mut changed = periodic(60, "", "");
    changed.last = Some(at("10:10:00"));
    changed.since = at("10:30:30");
    assert_eq!(fired(changed.clone(), &["10:32:00"]), ["10:31:30"]);
    changed.trigger = Trigger::Once;
    assert_eq!(fired(changed, &["10:32:00"]), ["10:30:30"]);
}

#[test]
fn a_preview_lists_what_comes() {
    let names = |schedule: &Schedule, now: &str| -> Vec<String> {
        let firings = schedule.preview(at(now), &TimeZone::UTC, 3);
        firings
            .iter()
            .map(|at| at.strftime("%T").to_string())
            .collect()
    };
    let mut schedule = cron(EVERY_TEN_MINUTES, "", "11:00:00");
    assert_eq!(
        names(&schedule, "10:08:00"),
        ["10:10:00", "10:20:00", "10:30:00"]
    );
    schedule.catchup = false;
    assert_eq!(
        names(&schedule, "10:45:00"),
        ["10:40:00", "10:50:00", "11:00:00"]
    );
    assert_eq!(names(&periodic(60, "", ""), "10:08:00")[0], "10:08:30");
}

#[test]
fn a_trigger_is_stored_as_it_was() {
    for trigger in [
        cron("*/5 * * * *", "10:00:00", "").trigger,
        periodic(5, "", "11:00:00").trigger,
        Trigger::Once,
    ] {
        let text = serde_json::to_string(&trigger).unwrap();
        assert_eq!(
            serde_json::from_str::<Trigger>(&text).unwrap(),
            trigger,
            "{text}"
        );
    }
    assert!(cron("*/5 * * * *", "", "").trigger.warning().is_some());
}
