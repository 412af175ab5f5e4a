//! One `pip install` of a script: the packages it asks for and where it looks for them.

use serde::{Deserialize, Serialize};

use crate::bootstrap::is_python;
use crate::shell::Command;

/// One call of pip.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// What is asked for, in pip's words, in their order.
    pub requirements: Vec<String>,
    /// Whether only these, without what they depend on.
    pub no_deps: bool,
    /// Indexes and how packages are chosen, in pip's words.
    pub options: Vec<String>,
    /// Variables set for it.
    pub env: Vec<(String, String)>,
}

/// Options with a value that say where packages come from or which are taken.
const KEPT_WITH_VALUE: [&str; 11] = [
    "--index-url",
    "-i",
    "--extra-index-url",
    "--trusted-host",
    "--find-links",
    "-f",
    "--only-binary",
    "--no-binary",
    "--timeout",
    "--retries",
    "--upgrade-strategy",
];
const KEPT: [&str; 5] = [
    "--no-index",
    "--pre",
    "--prefer-binary",
    "--no-build-isolation",
    "--use-pep517",
];
/// Options about output, or about an installation that does not start from nothing.
const DROPPED_WITH_VALUE: [&str; 4] = [
    "--progress-bar",
    "--root-user-action",
    "--cache-dir",
    "--log",
];
const DROPPED: [&str; 17] = [
    "--quiet",
    "-q",
    "-qq",
    "-qqq",
    "--verbose",
    "-v",
    "--user",
    "--upgrade",
    "-U",
    "--force-reinstall",
    "--ignore-installed",
    "-I",
    "--no-cache-dir",
    "--no-warn-script-location",
    "--disable-pip-version-check",
    "--no-input",
    "--break-system-packages",
];

impl Install {
    /// Reads a command that is a call of pip with nothing to expand; `exported` variables hold for
    /// it too.
    pub(crate) fn of(command: &Command, exported: &[(String, String)]) -> Option<Self> {
        if command.output.is_some() {
            return None;
        }
        let words: Option<Vec<&str>> = command.words.iter().map(|word| word.literal()).collect();
        let words = words?;
        let args = match words.as_slice() {
            [python, "-m", "pip", "install", args @ ..] if is_python(python) => args,
            [python, "-u", "-m", "pip", "install", args @ ..] if is_python(python) => args,
            ["pip" | "pip3", "install", args @ ..] => args,
            ["uv", "pip", "install", "--system", args @ ..] => args,
            _ => return None,
        };
        let mut install = Self::read(args)?;
        let own: Option<Vec<(String, String)>> = command
            .assignments
            .iter()
            .map(|(name, value)| Some((name.clone(), value.literal()?.to_owned())))
            .collect();
        install.env = exported.iter().cloned().chain(own?).collect();
        // Says nothing about what is installed.
        install
            .env
            .retain(|(name, _)| name != "PIP_DISABLE_PIP_VERSION_CHECK");
        Some(install)
    }

    fn read(args: &[&str]) -> Option<Self> {
        let mut install = Self::default();
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) if arg.starts_with("--") => (name, Some(value)),
                _ => (arg, None),
            };
            if KEPT_WITH_VALUE.contains(&name) {
                let value = value.or_else(|| args.next().copied())?;
                install.options.extend([name.to_owned(), value.to_owned()]);
            } else if DROPPED_WITH_VALUE.contains(&name) {
                value.or_else(|| args.next().copied())?;
            } else if KEPT.contains(&arg) {
                install.options.push(arg.to_owned());
            } else if arg == "--no-deps" {
                install.no_deps = true;
            } else if DROPPED.contains(&arg) {
            } else if arg.starts_with(['-', '.', '/', '~']) || arg.is_empty() {
                // An option with an unknown effect, or a file of the container.
                return None;
            } else {
                install.requirements.push(arg.to_owned());
            }
        }
        (!install.requirements.is_empty()).then_some(install)
    }

    /// The version of kfp that this asks for, if it is the one requirement that pins kfp alone.
    pub(crate) fn kfp(&self) -> Option<&str> {
        self.requirements
            .iter()
            .find_map(|requirement| requirement.strip_prefix("kfp=="))
            .filter(|_| self.no_deps)
    }
}
