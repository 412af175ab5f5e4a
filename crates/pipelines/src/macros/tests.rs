//! Texts with macros, and what becomes of them.

use jiff::Timestamp;
use serde_json::json;

use super::{Facts, Firing, expand, expand_value};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn recurring() -> Facts {
    Facts {
        run: "run-7".to_owned(),
        now: at("2021-03-04T15:06:07.89Z"),
        firing: Some(Firing {
            at: at("2021-03-04T00:05:09Z"),
            index: 27,
        }),
    }
}

#[test]
fn macros_of_a_recurring_run() {
    for (text, expected) in [
        ("", ""),
        ("no macro [here] {x}", "no macro [here] {x}"),
        ("a [[RunUUID]] b", "a run-7 b"),
        ("[[Index]]-[[Index]]", "27-27"),
        ("[[CurrentTime]]", "20210304150607"),
        ("[[ScheduledTime]]", "20210304000509"),
        ("at [[CurrentTime.15-04-05]]", "at 15-06-07"),
        (
            "[[ScheduledTime.2006-01-02T15:04:05Z07:00]]",
            "2021-03-04T00:05:09Z",
        ),
        (
            "{{$.scheduledTime.strftime('%Y-%m-%d %H:%M:%S')}}",
            "2021-03-04 00:05:09",
        ),
        ("{{$.currentTime.strftime('%s')}}!", "1614870367!"),
        // Unknown or broken ones stay.
        (
            "[[Unknown]] [[CurrentTimes]]",
            "[[Unknown]] [[CurrentTimes]]",
        ),
        ("{{$.pipeline_job_name}}", "{{$.pipeline_job_name}}"),
        (
            "{{$.currentTime.strftime('%Q')}}",
            "{{$.currentTime.strftime('%Q')}}",
        ),
        (
            "{{$.currentTime.strftime('%')}}",
            "{{$.currentTime.strftime('%')}}",
        ),
        ("[[1, 2], [3]] [[Index", "[[1, 2], [3]] [[Index"),
        ("[[\n]] [[Index]]", "[[\n]] 27"),
        ("{{$.x [[Index]]", "{{$.x 27"),
        ("ä[[Index]]ß", "ä27ß"),
    ] {
        assert_eq!(expand(text, &recurring()), expected, "{text}");
    }
}

#[test]
fn a_run_that_nothing_scheduled_has_no_index() {
    let facts = Facts {
        firing: None,
        ..recurring()
    };
    let text = "[[RunUUID]] [[CurrentTime.2006]] [[Index]] [[ScheduledTime]] [[ScheduledTime.06]] \
                {{$.scheduledTime.strftime('%Y')}}";
    assert_eq!(
        expand(text, &facts),
        "run-7 2021 [[Index]] [[ScheduledTime]] [[ScheduledTime.06]] \
         {{$.scheduledTime.strftime('%Y')}}"
    );
}

#[test]
fn go_layouts() {
    for (layout, expected) in [
        (
            "Mon Jan _2 15:04:05 MST 2006",
            "Thu Mar  4 15:06:07 UTC 2021",
        ),
        ("Monday, 02-Jan-06 3:04PM", "Thursday, 04-Mar-21 3:06PM"),
        ("January 2, 2006 at 3:4:5 pm", "March 4, 2021 at 3:6:7 pm"),
        ("1/2/06 03:04", "3/4/21 03:06"),
        ("002 __2 _2006", "063  63 _2021"),
        ("15:04:05.000 .999 ,00", "15:06:07.000  ,00"),
        (
            ".0001 -0700 -07:00 -07 Z0700 Z07",
            ".0003 +0000 +00:00 +00 Z Z",
        ),
        ("Month Janet", "Month Janet"),
    ] {
        let text = format!("[[CurrentTime.{layout}]]");
        assert_eq!(expand(&text, &recurring()), expected, "{layout}");
    }
}

#[test]
fn strftime_directives() {
    for (format, expected) in [
        ("%A %a %B %b %h", "Thursday Thu March Mar Mar"),
        ("%C %D %e %F %I %j", "20 03/04/21  4 2021-03-04 03 063"),
        ("%k|%l|%p|%R|%r", "15| 3|PM|15:06|03:06:07 PM"),
        ("%T %U %W %V %u %w", "15:06:07 09 09 09 4 4"),
        (
            "%v %X %x %y %Z %z %%",
            " 4-Mar-2021 15:06:07 03/04/21 21 UTC +0000 %",
        ),
        ("%c", "Thu Mar  4 15:06:07 2021"),
    ] {
        let text = format!("{{{{$.currentTime.strftime('{format}')}}}}");
        assert_eq!(expand(&text, &recurring()), expected, "{format}");
    }
}

#[test]
fn only_texts_have_macros() {
    let mut values = json!(["[[Index]]", {"a": "[[Index]]"}, 3]);
    for value in values.as_array_mut().unwrap() {
        expand_value(value, &recurring());
    }
    assert_eq!(values, json!(["27", {"a": "[[Index]]"}, 3]));
}
