//! What the runs of a recurring run are called, and their ids.

use uuid::Uuid;

/// The part of a run's name that people chose: lower case letters, digits and dashes of it.
const LENGTH: usize = 25;

/// The name that the runs of a recurring run are called after; `suffix` tells it from others.
pub(crate) fn resource(display_name: &str, suffix: &str) -> String {
    let mut name: String = display_name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
        .take(LENGTH)
        .collect();
    name.push_str(suffix);
    name
}

/// The name of the run of a firing: the same whenever it is asked for.
pub(crate) fn run(resource: &str, index: u64) -> String {
    let name = format!("{resource}-{index}");
    let hash = fnv32a(&name);
    format!("{name}-{hash}")
}

/// The id of the run of a firing: a UUID that follows from the two.
pub(crate) fn run_id(recurring_run: &str, index: u64) -> String {
    let name = format!("{recurring_run}/{index}");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

/// Fowler, Noll and Vo's hash, 32 bits, variant 1a.
fn fnv32a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_name_and_index() {
        assert_eq!(fnv32a(""), 2_166_136_261);
        assert_eq!(fnv32a("foobar"), 0xbf9c_f968);
        let resource = resource("My Täglicher Lauf (v2) with a long name", "abcde");
        assert_eq!(resource, "mytglicherlaufv2withalongabcde");
        assert_eq!(
            run(&resource, 3),
            format!("{resource}-3-{}", fnv32a(&format!("{resource}-3")))
        );
        assert_eq!(run_id("a", 1), run_id("a", 1));
        assert_ne!(run_id("a", 1), run_id("a", 2));
    }
}
