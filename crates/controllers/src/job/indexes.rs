//! Sets of completion indexes in the compact form of a Job's status: `0,2-5,9`. Pure.

use std::collections::BTreeSet;

/// Reads the compact form; what cannot be read is left out.
pub(super) fn parse(text: &str) -> BTreeSet<i32> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse::<i32>().ok()?..=last.trim().parse::<i32>().ok()?)
        })
        .flatten()
        .collect()
}

/// Writes the compact form: two neighbours are listed, more are a range.
pub(super) fn format(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.next_if_eq(&(last + 1)).is_some() {
            last += 1;
        }
        parts.push(match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compact_form_is_read_and_written() {
        for text in ["", "0", "0,1", "0-2", "0,2-5,9", "1,2,4-7"] {
            assert_eq!(format(&parse(text)), text);
        }
        assert_eq!(parse("x,3,5-y"), BTreeSet::from([3]));
    }
}
