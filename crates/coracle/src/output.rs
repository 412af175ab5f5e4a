//! Printing for people and programs: results on standard output, the rest on standard error;
//! colour only on a terminal that wants it (`NO_COLOR`, `CLICOLOR_FORCE`, `TERM=dumb` are honoured).

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

use crate::failure::Failure;

const VERB: Style = AnsiColor::Cyan.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const QUIET: Style = Style::new().dimmed();

/// A closed pipe ends the listener's interest, not the command.
fn line_to(mut stream: impl std::io::Write, text: &str) {
    let _ = writeln!(stream, "{text}");
}

/// A result on standard output.
pub(crate) fn result(text: &str) {
    line_to(anstream::stdout(), text);
}

/// The text as one word of a POSIX shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Raw bytes on standard output.
pub(crate) fn bytes(bytes: &[u8]) {
    let _ = std::io::stdout().write_all(bytes);
}

/// A line of progress: an aligned word, then what happened.
pub(crate) fn progress(verb: &str, text: &str) {
    line_to(
        anstream::stderr(),
        &format!("  {VERB}{verb:<10}{VERB:#} {text}"),
    );
}

/// Something that is done.
pub(crate) fn done(verb: &str, text: &str) {
    line_to(
        anstream::stderr(),
        &format!("  {GOOD}{verb:<10}{GOOD:#} {text}"),
    );
}

/// Something a person should know.
pub(crate) fn warning(text: &str) {
    line_to(
        anstream::stderr(),
        &format!("  {WARN}{:<10}{WARN:#} {text}", "Note"),
    );
}

/// A remark in a low voice.
pub(crate) fn remark(text: &str) {
    line_to(
        anstream::stderr(),
        &format!("  {:<10} {QUIET}{text}{QUIET:#}", ""),
    );
}

/// An empty line between parts of a longer story.
pub(crate) fn gap() {
    line_to(anstream::stderr(), "");
}

/// Why a command gave up, and what to do about it.
pub(crate) fn failure(failure: &Failure) {
    let mut stream = anstream::stderr();
    line_to(&mut stream, &format!("{BAD}error:{BAD:#} {failure}"));
    if let Some(hint) = failure.hint_text() {
        line_to(&mut stream, &format!(" {VERB}hint:{VERB:#} {hint}"));
    }
}

/// Milliseconds as a person reads them.
pub(crate) fn seconds(duration: std::time::Duration) -> String {
    if duration.as_millis() < 1000 {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word_of_the_shell() {
        assert_eq!(quoted("/home/a/x"), "/home/a/x");
        assert_eq!(quoted("/home/a b/it's"), r"'/home/a b/it'\''s'");
    }
}
