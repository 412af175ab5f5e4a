//! Source files: what they say first, how long they are, and marks that must not stay.

use std::path::Path;

use anyhow::Result;

use super::SourceFile;
use crate::workspace::Workspace;

const LONGEST: usize = 800;

/// Files that may be longer, and why.
const LONGER: &[(&str, &str)] = &[(
    "crates/kubelet/src/pod/machine/tests.rs",
    "scenarios of one state machine, a few lines each, that share their builders",
)];

pub(crate) fn check(workspace: &Workspace, files: &[SourceFile]) -> Result<Vec<String>> {
    let home = std::env::var_os("HOME").map(|home| format!("{}/", Path::new(&home).display()));
    let mut places = vec![workspace.root.display().to_string()];
    places.extend(home.filter(|home| home.len() > 2));
    let mut complaints: Vec<String> = files
        .iter()
        .flat_map(|file| of_file(file, &places))
        .collect();
    for (path, _) in LONGER {
        let lines = files
            .iter()
            .find(|file| file.path == *path)
            .and_then(|file| Some(file.text.as_ref()?.lines().count()));
        if lines.is_none_or(|lines| lines <= LONGEST) {
            complaints.push(format!(
                "{path} needs no entry in xtask/src/tidy/files.rs any more"
            ));
        }
    }
    if !files.iter().any(|file| file.path == "Cargo.lock") {
        complaints.push("Cargo.lock is not in the repository".to_owned());
    }
    Ok(complaints)
}

/// Complaints about one file; `places` are paths of this machine that no file should name.
fn of_file(file: &SourceFile, places: &[String]) -> Vec<String> {
    let SourceFile {
        path,
        text: Some(text),
    } = file
    else {
        return Vec::new();
    };
    let mut complaints = Vec::new();
    if is_rust(path) && !path.contains("/generated/") {
        if !text.starts_with("//!") {
            complaints.push(format!(
                "{path} does not begin with a //! paragraph: what lives here?"
            ));
        }
        let lines = text.lines().count();
        if lines > LONGEST && !LONGER.iter().any(|(longer, _)| longer == path) {
            complaints.push(format!(
                "{path} has {lines} lines; split it below {LONGEST}"
            ));
        }
        for (number, line) in text.lines().enumerate() {
            // A test that is not run proves nothing: assert what happens today, with a word on
            // what should.
            if line.trim_start().starts_with("#[ignore") {
                complaints.push(format!("{path}:{} ignores a test", number + 1));
            }
        }
    }
    for place in places {
        if let Some(number) = text.lines().position(|line| line.contains(place.as_str())) {
            complaints.push(format!(
                "{path}:{} names {place}, a path of this machine",
                number + 1
            ));
        }
    }
    complaints
}

fn is_rust(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        let file = SourceFile {
            path: path.to_owned(),
            text: Some(text.to_owned()),
        };
        of_file(&file, &["/home/someone/".to_owned()]).len()
    }

    #[test]
    fn each_rule_complains() {
        assert_eq!(complaints("a.rs", "//! Here.\nfn a() {}\n"), 0);
        assert_eq!(complaints("a.rs", "fn a() {}\n"), 1);
        assert_eq!(complaints("a.rs", "//! Here.\n    #[ignore]\n"), 1);
        assert_eq!(
            complaints("a.rs", &format!("//! Here.\n{}", "\n".repeat(LONGEST))),
            1
        );
        assert_eq!(complaints("a.sh", "cd /home/someone/code\n"), 1);
    }

    #[test]
    fn generated_code_need_not_introduce_itself() {
        assert_eq!(complaints("crates/a/src/generated/b.rs", "fn a() {}\n"), 0);
    }
}
