//! The command lines of pip and uv. A user who has set up one of them need not set up the other: what
//! pip's variables and configuration files say is said to uv too, where it has no word of its own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::install::Install;

/// Finds uv in `PATH` and where its own installer puts it.
pub(super) fn uv(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let home = env.get("HOME").map(PathBuf::from);
    let own = [".local/bin", ".cargo/bin"];
    let own = home.iter().flat_map(|home| own.map(|dir| home.join(dir)));
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(PathBuf::from)
        .chain(own)
        .map(|dir| dir.join("uv"))
        .find(|file| {
            std::fs::metadata(file)
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        })
}

pub(super) fn with_pip(mut pip: Command, install: &Install) -> Command {
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-input",
        "--no-warn-script-location",
    ]);
    pip.args(["--disable-pip-version-check", "--progress-bar", "off"]);
    // An environment has nothing to build packages with; old versions of pip do not see it.
    pip.arg("--use-pep517");
    if install.no_deps {
        pip.arg("--no-deps");
    }
    pip.args(&install.options);
    pip.args(&install.requirements);
    pip.envs(install.env.iter().map(|(name, value)| (name, value)));
    pip
}

pub(super) fn with_uv(
    mut uv: Command,
    env: &BTreeMap<String, String>,
    python: &Path,
    install: &Install,
) -> Command {
    uv.args([
        "pip",
        "install",
        "--no-progress",
        "--compile-bytecode",
        "--python",
    ]);
    uv.arg(python);
    if install.no_deps {
        uv.arg("--no-deps");
    }
    let mut options = install.options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        match option {
            "-i" | "--index-url" => uv.arg("--index-url").args(options.next()),
            "-f" | "--find-links" => uv.arg("--find-links").args(options.next()),
            "--trusted-host" => uv.arg("--allow-insecure-host").args(options.next()),
            "--extra-index-url" | "--only-binary" | "--no-binary" => {
                uv.arg(option).args(options.next())
            }
            "--no-index" | "--no-build-isolation" => uv.arg(option),
            "--pre" => uv.arg("--prerelease=allow"),
            // Has no equal in uv and no effect on what is installed.
            "--timeout" | "--retries" | "--upgrade-strategy" => {
                options.next();
                &mut uv
            }
            _ => &mut uv,
        };
    }
    uv.args(&install.requirements);
    let mut all = env.clone();
    all.extend(install.env.iter().cloned());
    uv.envs(install.env.iter().map(|(name, value)| (name, value)));
    uv.envs(translated(&all));
    uv
}

/// Settings of pip and the names that uv has for them; the first of those is the one that is set.
const SAME: [(&str, &str, &[&str]); 6] = [
    (
        "PIP_INDEX_URL",
        "index-url",
        &["UV_DEFAULT_INDEX", "UV_INDEX_URL"],
    ),
    (
        "PIP_EXTRA_INDEX_URL",
        "extra-index-url",
        &["UV_EXTRA_INDEX_URL", "UV_INDEX"],
    ),
    ("PIP_FIND_LINKS", "find-links", &["UV_FIND_LINKS"]),
    ("PIP_NO_INDEX", "no-index", &["UV_NO_INDEX"]),
    ("PIP_TRUSTED_HOST", "trusted-host", &["UV_INSECURE_HOST"]),
    ("PIP_CERT", "cert", &["SSL_CERT_FILE"]),
];

/// What uv must be told of pip's settings.
fn translated(env: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let files: Vec<String> = configuration(env)
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect();
    SAME.iter()
        .filter(|(_, _, names)| names.iter().all(|name| !env.contains_key(*name)))
        .filter_map(|(variable, key, names)| {
            let value = env
                .get(*variable)
                .cloned()
                .or_else(|| files.iter().rev().find_map(|text| configured(text, key)))?;
            let words = value.split_whitespace().collect::<Vec<_>>();
            let joint = if *key == "find-links" { "," } else { " " };
            Some((names[0].to_owned(), words.join(joint)))
        })
        .collect()
}

/// pip's configuration files, later ones before earlier ones.
pub(crate) fn configuration(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let home = env.get("HOME").map(PathBuf::from);
    let config = env
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    let mut files = vec![PathBuf::from("/etc/pip.conf")];
    files.extend(home.map(|home| home.join(".pip/pip.conf")));
    files.extend(config.map(|config| config.join("pip/pip.conf")));
    files.extend(env.get("PIP_CONFIG_FILE").map(PathBuf::from));
    files
}

/// The value of a key in pip's configuration, its further lines included.
fn configured(text: &str, key: &str) -> Option<String> {
    let mut section = "";
    let mut found: Option<String> = None;
    let mut reading = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || trimmed.is_empty() {
            continue;
        }
        if let Some(name) = trimmed
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
            reading = false;
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = found.as_mut().filter(|_| reading) {
                value.push(' ');
                value.push_str(trimmed);
            }
        } else if let Some((name, value)) = trimmed.split_once(['=', ':']) {
            reading =
                ["global", "install"].contains(&section) && name.trim().replace('_', "-") == key;
            if reading {
                found = Some(value.trim().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    fn install() -> Install {
        Install {
            requirements: vec!["a==1".to_owned()],
            no_deps: true,
            options: [
                "-i",
                "https://a",
                "--trusted-host",
                "a",
                "--pre",
                "--retries",
                "1",
            ]
            .map(str::to_owned)
            .to_vec(),
            env: vec![("PIP_EXTRA_INDEX_URL".to_owned(), "https://b".to_owned())],
        }
    }

    #[test]
    fn uv_is_told_in_its_own_words() {
        let env = BTreeMap::from([("PIP_FIND_LINKS".to_owned(), "/x /y".to_owned())]);
        let command = with_uv(Command::new("uv"), &env, Path::new("/e/python"), &install());
        assert_eq!(
            words(&command)[4..],
            [
                "--python",
                "/e/python",
                "--no-deps",
                "--index-url",
                "https://a",
                "--allow-insecure-host",
                "a",
                "--prerelease=allow",
                "a==1"
            ]
        );
        let set: BTreeMap<_, _> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)))
            .collect();
        assert_eq!(set.get("UV_EXTRA_INDEX_URL"), Some(&"https://b"));
        assert_eq!(set.get("UV_FIND_LINKS"), Some(&"/x,/y"));
    }

    #[test]
    fn pip_gets_what_the_command_said() {
        let command = with_pip(Command::new("python"), &install());
        let words = words(&command);
        assert!(words.ends_with(&["--retries".to_owned(), "1".to_owned(), "a==1".to_owned()]));
        assert!(words.contains(&"--no-deps".to_owned()));
    }

    #[test]
    fn pips_configuration_is_read() {
        let text = "[global]\n# no\nindex-url = https://a\nextra_index_url =\n    https://b\n    https://c\n[freeze]\ntimeout = 1\n[install]\nfind-links: /x\n";
        assert_eq!(configured(text, "index-url").as_deref(), Some("https://a"));
        assert_eq!(
            configured(text, "extra-index-url").as_deref(),
            Some(" https://b https://c")
        );
        assert_eq!(configured(text, "find-links").as_deref(), Some("/x"));
        assert_eq!(configured(text, "timeout"), None);
    }
}
