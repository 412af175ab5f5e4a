//! Counting: what each suite did, and the last line of a run.

use std::time::Duration;

/// How many tests did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    /// One test that did, or did not, pass.
    pub(crate) fn one(passed: bool) -> Self {
        Self {
            passed: passed.into(),
            failed: (!passed).into(),
            skipped: 0,
        }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// What a suite has to say in the end.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) count: Count,
    /// Figures, reasons for skipping, what went wrong.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// A suite that is a single test and passed.
    pub(crate) fn passed() -> Self {
        Self {
            count: Count::one(true),
            notes: Vec::new(),
        }
    }

    /// A suite that cannot run here, and why.
    pub(crate) fn skipped(reason: impl Into<String>) -> Self {
        Self {
            count: Count {
                skipped: 1,
                ..Count::default()
            },
            notes: vec![reason.into()],
        }
    }

    /// Adds one test, with what is to be said about it.
    pub(crate) fn add(&mut self, passed: bool, note: impl Into<String>) {
        self.count += Count::one(passed);
        self.notes.push(note.into());
    }
}

/// The suites that have run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    total: Count,
    lines: Vec<String>,
}

impl Tally {
    /// Counts a suite and prints its line.
    pub(crate) fn add(&mut self, suite: &str, outcome: &Outcome, took: Duration) {
        self.total += outcome.count;
        let mut line = format!("{suite}: {} ({:.1} s)", outcome.count, took.as_secs_f64());
        for note in &outcome.notes {
            line.push_str("\n    ");
            line.push_str(&note.replace('\n', "\n    "));
        }
        println!("== {line}\n");
        self.lines.push(line);
    }

    /// Prints all suites' lines again and, as the very last line, the sum. True if nothing failed.
    pub(crate) fn finish(&self) -> bool {
        println!("== all suites");
        for line in &self.lines {
            println!("{line}");
        }
        println!("{}", self.total);
        self.total.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_reads_as_one_plain_line() {
        let mut outcome = Outcome::passed();
        outcome.add(false, "one went wrong");
        outcome.count += Outcome::skipped("no tool").count;
        assert_eq!(outcome.count.to_string(), "1 passed, 1 failed, 1 skipped");
    }
}
