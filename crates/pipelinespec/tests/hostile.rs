//! Packages that are made to break a server: they are refused, without much stack or memory.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write as _;

use pipelinespec::Package;

/// On a thread with as small a stack as a server's.
#[track_caller]
fn refused(text: String, expect: &str) {
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    let parse = move || Package::from_text(&text).map(drop);
    let error = thread.spawn(parse).unwrap().join().unwrap().unwrap_err();
    let error = error.to_string();
    assert!(error.contains(expect), "got {error:?}, want {expect:?}");
}

#[test]
fn depth_is_limited_however_it_is_written() {
    let deep = |unit: &str| refused(unit.repeat(100_000), "nested at most 100 deep");
    deep("[");
    deep("{a: ");
    deep(r#"{"a":"#);
    deep("- ");
    deep("[{a: ");
    let mut indented = String::new();
    for level in 0..2000 {
        writeln!(indented, "{:level$}a:", "").unwrap();
    }
    refused(indented, "nested at most 100 deep");
    for unit in ["? ", "&a ", "!a ", "*a "] {
        refused(unit.repeat(100_000), "invalid YAML");
    }
}

#[test]
fn what_is_as_deep_as_allowed_is_looked_at() {
    let text = format!("{}1{}", r#"{"a":"#.repeat(98), "}".repeat(98));
    refused(text, "unknown template format");
}

#[test]
fn aliases_cannot_blow_a_package_up() {
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let alias = format!("*a{},", level - 1).repeat(10);
        writeln!(laughs, "a{level}: &a{level} [{alias}]").unwrap();
    }
    refused(laughs, "a package has at most 2000000 values");
}
