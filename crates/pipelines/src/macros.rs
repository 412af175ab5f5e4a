//! Macros in the string parameters of a run: `[[RunUUID]]`, `[[Index]]`, `[[CurrentTime]]`,
//! `[[ScheduledTime.<Go layout>]]`, `{{$.currentTime.strftime('…')}}` and so on.
//!
//! Pure. Times are UTC to the second. What is not known, here or of this run, stays as it is:
//! other `{{$…}}` texts belong to the pipeline's own placeholders.

mod layout;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::Value;

/// How times look where the macro does not say.
const DEFAULT_LAYOUT: &str = "20060102150405";

/// What macros may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The run's id.
    pub run: String,
    /// When the run is made.
    pub now: Timestamp,
    /// The firing of a recurring run that makes it, if any.
    pub firing: Option<Firing>,
}

/// A firing of a recurring run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// Its nominal time.
    pub at: Timestamp,
    /// Its number, from 1.
    pub index: u64,
}

/// Replaces the macros of a text.
pub fn expand(text: &str, facts: &Facts) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let opens = [("[[", "]]"), ("{{$.", "}}")];
        let first = opens
            .iter()
            .filter_map(|(open, close)| Some((rest.find(open)?, open, close)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, open, close)) = first else {
            break;
        };
        let body = &rest[at + open.len()..];
        // A macro does not go over the end of its line.
        let line = body.split('\n').next().unwrap_or_default();
        let Some(end) = line.find(close) else {
            let past = at + open.len();
            expanded.push_str(&rest[..past]);
            rest = &rest[past..];
            continue;
        };
        let past = at + open.len() + end + close.len();
        expanded.push_str(&rest[..at]);
        let name = &body[..end];
        let value = match *open {
            "[[" => bracketed(name, facts),
            _ => dollar(name, facts),
        };
        match value {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(&rest[at..past]),
        }
        rest = &rest[past..];
    }
    expanded.push_str(rest);
    expanded
}

/// Replaces the macros of a parameter's value, if it is a text.
pub fn expand_value(value: &mut Value, facts: &Facts) {
    if let Value::String(text) = value {
        if text.contains("[[") || text.contains("{{$.") {
            *text = expand(text, facts);
        }
    }
}

fn bracketed(name: &str, facts: &Facts) -> Option<String> {
    let scheduled = facts.firing.map(|firing| firing.at);
    match name.split_once('.') {
        None => match name {
            "RunUUID" => Some(facts.run.clone()),
            "Index" => Some(facts.firing?.index.to_string()),
            "CurrentTime" => Some(layout::go(DEFAULT_LAYOUT, facts.now)),
            "ScheduledTime" => Some(layout::go(DEFAULT_LAYOUT, scheduled?)),
            _ => None,
        },
        Some(("CurrentTime", layout)) => Some(layout::go(layout, facts.now)),
        Some(("ScheduledTime", layout)) => Some(layout::go(layout, scheduled?)),
        Some(_) => None,
    }
}

fn dollar(name: &str, facts: &Facts) -> Option<String> {
    let (of, rest) = name.split_once(".strftime('")?;
    let format = rest.strip_suffix("')")?;
    match of {
        "currentTime" => layout::strftime(format, facts.now),
        "scheduledTime" => layout::strftime(format, facts.firing?.at),
        _ => None,
    }
}
