//! `coracle doctor`: looks at this machine and says what is missing for what, and how to fix it.
//! Everything is found by trying; nothing is changed.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;

use crate::cli::{Format, Listing};
use crate::failure::{Failure, Result};
use crate::output;

/// How a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Weight {
    /// As it should be.
    Ok,
    /// Something works less well, or not by its usual name.
    Limited,
    /// The server cannot do its work.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    weight: Weight,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            weight: Weight::Ok,
            found: found.into(),
            fix: None,
        }
    }

    fn limited(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what,
            weight: Weight::Limited,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    fn broken(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what,
            weight: Weight::Broken,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }
}

pub(crate) fn run(args: &Listing) -> Result<()> {
    let data = args.at.data()?;
    let findings = vec![
        kernel(),
        mounts(),
        addresses(),
        low_ports(),
        data_dir(data.root().to_owned()),
        memory(),
        kubectl(),
        python(),
    ];
    if args.output == Format::Json {
        let text =
            serde_json::to_string_pretty(&findings).expect("invariant: findings are plain data");
        output::result(&text);
    } else {
        for finding in &findings {
            let mark = match finding.weight {
                Weight::Ok => "ok",
                Weight::Limited => "limited",
                Weight::Broken => "broken",
            };
            output::result(&format!("{mark:<8} {:<18} {}", finding.what, finding.found));
            if let Some(fix) = &finding.fix {
                output::result(&format!("{:<8} {:<18} fix: {fix}", "", ""));
            }
        }
    }
    match findings
        .iter()
        .filter(|f| f.weight == Weight::Broken)
        .count()
    {
        0 => Ok(()),
        n => Err(Failure::environment(format!(
            "{n} of these keep the server from working"
        ))),
    }
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let (name, release) = (text(uname.sysname()), text(uname.release()));
    if name == "Linux" {
        Finding::ok(
            "system",
            format!("{name} {release} on {}", text(uname.machine())),
        )
    } else {
        Finding::broken(
            "system",
            format!("{name} {release}"),
            "run the server on Linux",
        )
    }
}

/// Whether Pods get a file system view of their own.
fn mounts() -> Finding {
    let what = "mount namespaces";
    match probe() {
        Ok(found) if found.mounts() => {
            let how = if found.root {
                "as root"
            } else {
                "as an ordinary user"
            };
            Finding::ok(
                what,
                format!("Pods see their volumes where they ask for them, {how}"),
            )
        }
        Ok(found) => {
            let reason = [&found.user_namespace, &found.mount_namespace]
                .iter()
                .find_map(|s| match s {
                    spawner::Support::Refused(reason) => Some(reason.clone()),
                    spawner::Support::Ok | spawner::Support::Untried => None,
                })
                .unwrap_or_else(|| "refused".to_owned());
            Finding::limited(
                what,
                format!("{reason}; built-in images work, host images see no volumes"),
                "allow unprivileged user namespaces, for example \
                 `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root",
            )
        }
        Err(error) => Finding::limited(
            what,
            format!("could not be tried: {}", stdx::error::chain(&error)),
            "see the message; built-in images work all the same",
        ),
    }
}

/// Asks a spawner, in a folder that goes away again.
fn probe() -> std::result::Result<spawner::Capabilities, spawner::Error> {
    let io = |what| move |source| spawner::Error::Io { what, source };
    let dir = tempfile::tempdir().map_err(io("make a temporary folder"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("start the async runtime"))?;
    runtime.block_on(async {
        let supervisor = stdx::Supervisor::new();
        let options = spawner::Options::new(dir.path());
        let spawner = spawner::Spawner::start_or_attach(options, &supervisor).await?;
        let found = spawner.capabilities();
        spawner.shutdown().await?;
        supervisor.shutdown().await;
        Ok(found)
    })
}

/// Whether every address of 127/8 is local, as on Linux.
fn addresses() -> Finding {
    match TcpListener::bind("127.97.255.254:0") {
        Ok(_) => Finding::ok("Pod addresses", "127.96.0.0/16 and 127.97.0.0/16 are local"),
        Err(error) => Finding::broken(
            "Pod addresses",
            format!("127.97.255.254 cannot be used: {error}"),
            "bring the loopback interface up with its usual 127.0.0.1/8: `ip link set lo up`",
        ),
    }
}

fn low_ports() -> Finding {
    let what = "ports below 1024";
    match TcpListener::bind("127.97.255.254:80") {
        Ok(_) => Finding::ok(what, "may be opened: Services answer on their own ports"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Finding::limited(
            what,
            "may not be opened by this user: an Event says so, and node ports serve instead",
            "`sysctl net.ipv4.ip_unprivileged_port_start=80`, or run as root",
        ),
        Err(error) => Finding::limited(what, error.to_string(), "see the message"),
    }
}

fn data_dir(root: PathBuf) -> Finding {
    const ENOUGH: u64 = 500_000_000;
    let what = "data directory";
    let mut existing = root.as_path();
    while !existing.exists() {
        match existing.parent() {
            Some(parent) => existing = parent,
            None => break,
        }
    }
    // Trying is the only way to know: root may write everywhere, but not in every file system.
    if let Err(error) = tempfile::Builder::new()
        .prefix(".coracle-doctor-")
        .tempdir_in(existing)
    {
        let found = format!(
            "{} cannot be written: {}",
            existing.display(),
            stdx::error::chain(&error)
        );
        return Finding::broken(what, found, "choose another place with --data-dir");
    }
    let free = rustix::fs::statvfs(existing).map_or(0, |s| s.f_bavail * s.f_frsize);
    let found = format!("{} ({} MB free)", root.display(), free / 1_000_000);
    if free < ENOUGH {
        return Finding::limited(
            what,
            found,
            "make room, or choose another place with --data-dir",
        );
    }
    Finding::ok(what, found)
}

fn memory() -> Finding {
    const ENOUGH: u64 = 300_000_000;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let found = format!("{} MB available", kib * 1024 / 1_000_000);
    if kib * 1024 < ENOUGH {
        return Finding::limited(
            "memory",
            found,
            "training the tutorial's model takes 150 MB",
        );
    }
    Finding::ok("memory", found)
}

fn kubectl() -> Finding {
    const OLDEST: u32 = 29;
    let what = "kubectl";
    let Ok(said) = Command::new("kubectl")
        .args(["version", "--client", "-o", "json"])
        .output()
    else {
        return Finding::limited(
            what,
            "not found; only needed to type commands yourself",
            "install kubectl 1.29 or newer",
        );
    };
    let version: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    let text = |key: &str| {
        version["clientVersion"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let minor: u32 = text("minor").trim_end_matches('+').parse().unwrap_or(0);
    if minor < OLDEST {
        let found = format!("{}, which is too old", text("gitVersion"));
        return Finding::limited(what, found, "install kubectl 1.29 or newer");
    }
    Finding::ok(what, text("gitVersion"))
}

fn python() -> Finding {
    let what = "python3";
    match Command::new("python3").arg("--version").output() {
        Ok(said) if said.status.success() => Finding::ok(
            what,
            String::from_utf8_lossy(&said.stdout).trim().to_owned(),
        ),
        Ok(_) | Err(_) => Finding::limited(
            what,
            "not found; only needed to write pipelines and for Python steps",
            "install Python 3.9 or newer",
        ),
    }
}
