//! kubectl, new enough: the one on the search path, or one built with Go from its own modules
//! (`xtask/kubectl`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::which;
use crate::process;
use crate::workspace::Workspace;

/// The oldest minor version of Kubernetes 1 whose kubectl speaks to the server as tests expect.
const OLDEST: u32 = 29;

/// The program, found or built.
pub(crate) fn find(workspace: &Workspace) -> Result<PathBuf> {
    let found = which("kubectl");
    if let Some(path) = &found
        && minor_version(path).is_ok_and(|minor| minor >= OLDEST)
    {
        return Ok(path.clone());
    }
    build(workspace).with_context(|| match found {
        Some(path) => format!(
            "{} is older than 1.{OLDEST} and none could be built",
            path.display()
        ),
        None => "kubectl is not installed and could not be built".to_owned(),
    })
}

fn minor_version(kubectl: &Path) -> Result<u32> {
    let text =
        process::capture(Command::new(kubectl).args(["version", "--client", "--output", "json"]))?;
    let version: Value = serde_json::from_str(&text)?;
    let minor = version["clientVersion"]["minor"]
        .as_str()
        .unwrap_or_default();
    minor
        .trim_end_matches('+')
        .parse()
        .with_context(|| format!("its version is {minor:?}"))
}

/// Builds the version that `xtask/kubectl/go.mod` names; once, as long as that file stays the same.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let source = workspace.root.join("xtask/kubectl");
    let module = std::fs::read_to_string(source.join("go.mod")).context("read go.mod")?;
    let version = module
        .lines()
        .find_map(|line| {
            line.trim()
                .trim_start_matches("require ")
                .strip_prefix("k8s.io/kubectl v0.")
        })
        .context("go.mod names no version of k8s.io/kubectl")?;
    let kubectl = workspace.cache("kubectl")?.join(version).join("kubectl");
    if kubectl.is_file() {
        return Ok(kubectl);
    }
    let Some(go) = which("go") else {
        bail!("go is not installed")
    };
    let minor = version.split('.').next().unwrap_or_default();
    println!(
        "building kubectl 1.{version} with {} (a few minutes, once)",
        go.display()
    );
    let set = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let flags = [
        "-s -w".to_owned(),
        set("gitVersion", &format!("v1.{version}")),
        set("gitMajor", "1"),
        set("gitMinor", minor),
    ];
    let mut command = Command::new(go);
    command
        .args(["build", "-trimpath", "-ldflags", &flags.join(" "), "-o"])
        .arg(&kubectl)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .current_dir(source);
    process::run(&mut command)?;
    ensure!(
        minor_version(&kubectl)? >= OLDEST,
        "the kubectl that was built is too old"
    );
    Ok(kubectl)
}
