//! Licences of dependencies, against the list in `deny.toml`. `cargo deny` does this too where it is
//! installed; this needs nothing.

use anyhow::{Context as _, Result};

use super::SourceFile;
use crate::workspace::Workspace;

pub(crate) fn check(workspace: &Workspace, _: &[SourceFile]) -> Result<Vec<String>> {
    let deny =
        std::fs::read_to_string(workspace.root.join("deny.toml")).context("read deny.toml")?;
    let allowed = Allowed::parse(&deny).context("read deny.toml")?;
    let mut complaints = Vec::new();
    for package in workspace.metadata(&[])?.packages {
        if package.source.is_none() {
            continue;
        }
        let (name, version) = (&package.name, &package.version);
        match &package.license {
            None => complaints.push(format!("{name} {version} does not say its licence")),
            Some(text) if !allowed.expression(name, text) => {
                complaints.push(format!("{name} {version}: {text:?} is not on our list"));
            }
            Some(_) => {}
        }
    }
    Ok(complaints)
}

/// The licences we accept, and those we accept for one crate.
#[derive(Debug, Default)]
struct Allowed {
    everywhere: Vec<String>,
    /// Crate and licence.
    exceptions: Vec<(String, String)>,
}

impl Allowed {
    /// Reads `allow` and `exceptions` of section `licenses`, laid out with one entry a line.
    fn parse(deny: &str) -> Option<Self> {
        let section = deny.split_once("[licenses]")?.1;
        let list = section.split_once("\nallow = [")?.1.split_once(']')?.0;
        let everywhere = quoted(list).map(str::to_owned).collect();
        let mut exceptions = Vec::new();
        for line in section.lines().take_while(|line| !line.starts_with('[')) {
            if let Some(entry) = line.trim().strip_prefix("{ allow = [") {
                let (licences, rest) = entry.split_once(']')?;
                let name = quoted(rest).next()?;
                exceptions.extend(quoted(licences).map(|l| (name.to_owned(), l.to_owned())));
            }
        }
        Some(Self {
            everywhere,
            exceptions,
        })
    }

    /// Whether an SPDX expression (or the older `A/B`) lets us use a crate.
    fn expression(&self, name: &str, text: &str) -> bool {
        let spaced = text
            .replace('/', " OR ")
            .replace('(', " ( ")
            .replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = &words[..];
        self.any(name, &mut rest) && rest.is_empty()
    }

    fn any(&self, name: &str, rest: &mut &[&str]) -> bool {
        let mut fits = self.all(name, rest);
        while let Some(("OR", after)) = first(rest) {
            *rest = after;
            fits |= self.all(name, rest);
        }
        fits
    }

    fn all(&self, name: &str, rest: &mut &[&str]) -> bool {
        let mut fits = self.one(name, rest);
        while let Some(("AND", after)) = first(rest) {
            *rest = after;
            fits &= self.one(name, rest);
        }
        fits
    }

    fn one(&self, name: &str, rest: &mut &[&str]) -> bool {
        let Some((word, after)) = first(rest) else {
            return false;
        };
        *rest = after;
        if word == "(" {
            let fits = self.any(name, rest);
            let Some((")", after)) = first(rest) else {
                return false;
            };
            *rest = after;
            return fits;
        }
        let mut licence = word.to_owned();
        if let [with @ "WITH", exception, after @ ..] = *rest {
            licence = format!("{licence} {with} {exception}");
            *rest = after;
        }
        self.everywhere.contains(&licence)
            || self
                .exceptions
                .iter()
                .any(|(of, allowed)| of == name && *allowed == licence)
    }
}

fn first<'a, 'b>(words: &'b [&'a str]) -> Option<(&'a str, &'b [&'a str])> {
    words.split_first().map(|(word, rest)| (*word, rest))
}

/// The texts between quotation marks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"
[graph]
all-features = true
[licenses]
allow = [
    "MIT", # the usual
    "ISC",
]
exceptions = [
    { allow = ["Apache-2.0 WITH LLVM-exception"], crate = "special" },
]
[bans]
"#;

    #[test]
    fn expressions_are_judged_by_the_list() {
        let allowed = Allowed::parse(DENY).unwrap();
        for (name, text, fits) in [
            ("a", "MIT", true),
            ("a", "GPL-3.0", false),
            ("a", "GPL-3.0 OR MIT", true),
            ("a", "Unlicense/MIT", true),
            ("a", "MIT AND ISC", true),
            ("a", "MIT AND GPL-3.0", false),
            ("a", "(GPL-3.0 OR MIT) AND ISC", true),
            ("a", "(GPL-3.0 OR MIT) AND BSD-3-Clause", false),
            ("a", "Apache-2.0 WITH LLVM-exception OR MIT", true),
            ("a", "Apache-2.0 WITH LLVM-exception", false),
            ("special", "Apache-2.0 WITH LLVM-exception", true),
            ("a", "(MIT", false),
            ("a", "MIT GPL-3.0", false),
            ("a", "", false),
        ] {
            assert_eq!(allowed.expression(name, text), fits, "{name}: {text}");
        }
    }
}
