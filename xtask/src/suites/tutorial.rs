//! The tutorial as a black-box test, `../shared/seed/tutorial.sh`: real kubectl against our server,
//! in variants of the compiled package and the spelling of parameters.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Session;
use crate::process;
use crate::server::{Account, NOBODY, Server};
use crate::tally::Outcome;
use crate::tools;

/// A try that waits for another one's lock, and then for its own run.
const LIMIT: Duration = Duration::from_secs(1500);
/// The folder of the tutorial's volume.
const VOLUME: &str = "/mnt/data";

/// A package and a spelling.
type Variant = (&'static str, &'static str);

const NEW: &str = "mnist_pipeline-kfp-1.8.22.tar.gz";
const OLD: &str = "mnist_pipeline-kfp-0.1.40.tar.gz";
const ALL: [Variant; 4] = [(NEW, "_"), (OLD, "-"), (NEW, "-"), (OLD, "_")];

/// As the user who runs this program, several times in a row on one server.
pub(crate) fn as_ourselves(session: &mut Session) -> Result<Outcome> {
    let seed = match session.shared("seed") {
        Ok(seed) => seed,
        Err(skipped) => return Ok(skipped),
    };
    if let Err(error) = writable() {
        return Ok(Outcome::skipped(format!("{error:#}")));
    }
    let variants = if session.options.full {
        ALL.repeat(2)
    } else {
        ALL[..2].to_vec()
    };
    let account = Account::own(&session.binary()?);
    let folder = session.folder("tutorial")?;
    play(session, &account, &seed, &folder, &variants)
}

/// As an ordinary user, from copies that such a user can reach.
pub(crate) fn as_ordinary_user(session: &mut Session) -> Result<Outcome> {
    let seed = match session.shared("seed") {
        Ok(seed) => seed,
        Err(skipped) => return Ok(skipped),
    };
    if !process::is_root() {
        return Ok(Outcome::skipped(
            "only root can become another user (suite tutorial has run as you)",
        ));
    }
    let variants = if session.options.full {
        &ALL[..]
    } else {
        &ALL[..1]
    };
    let binary = session.binary()?;
    let kubectl = match session.kubectl() {
        Ok(kubectl) => kubectl,
        Err(error) => return Ok(Outcome::skipped(format!("no kubectl: {error:#}"))),
    };
    let folder = session.folder("tutorial-user")?;
    let home = folder.join("home");
    let (programs, copied) = (folder.join("bin"), folder.join("seed"));
    for made in [&home, &programs, &copied] {
        std::fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
    }
    chown(&home, Some(NOBODY), Some(NOBODY)).context("give the ordinary user a home")?;
    copy(&binary, &programs)?;
    copy(&kubectl, &programs)?;
    for entry in std::fs::read_dir(&seed).context("list the seed")?.flatten() {
        copy(&entry.path(), &copied)?;
    }
    session.kubectl = Some(Ok(programs.join("kubectl")));
    let account = Account {
        binary: programs.join("coracle"),
        user: Some(NOBODY),
        home: Some(home.clone()),
    };
    std::fs::create_dir_all(VOLUME).with_context(|| format!("make {VOLUME}"))?;
    open_to_all(Path::new(VOLUME)).with_context(|| format!("open {VOLUME} to all"))?;
    let outcome = play(session, &account, &copied, &home, variants);
    session.kubectl = Some(Ok(kubectl));
    outcome
}

fn play(
    session: &mut Session,
    account: &Account,
    seed: &Path,
    folder: &Path,
    variants: &[Variant],
) -> Result<Outcome> {
    let kubectl = match session.kubectl() {
        Ok(kubectl) => kubectl,
        Err(error) => return Ok(Outcome::skipped(format!("no kubectl: {error:#}"))),
    };
    let path = tools::path_with(kubectl.parent().context("kubectl lies in a folder")?);
    let server = Server::start(account, &folder.join("data"))?;
    let mut outcome = Outcome::default();
    for (package, style) in variants {
        println!("-- {package}, parameters with {style:?}");
        let mut tutorial = account.command("bash");
        tutorial
            .arg(seed.join("tutorial.sh"))
            .env("KUBECONFIG", &server.status.kubeconfig)
            .env("KFP_URL", &server.status.http)
            .env("PACKAGE", seed.join(package))
            .env("PARAM_STYLE", style)
            .env("PATH", &path);
        let mut last = String::new();
        let status = process::stream(&mut tutorial, LIMIT, |line| line.clone_into(&mut last))?;
        // A script that checks nothing must not pass for one that finds nothing wrong.
        let passed = status.success() && !last.starts_with("0 passed");
        outcome.add(passed, format!("{package} with {style:?}: {last}"));
    }
    Ok(outcome)
}

/// Whether the volume's folder can be written, or made.
fn writable() -> Result<()> {
    std::fs::create_dir_all(VOLUME)
        .and_then(|()| {
            let probe = Path::new(VOLUME).join(format!(".coracle-xtask-{}", std::process::id()));
            std::fs::write(&probe, "")?;
            std::fs::remove_file(probe)
        })
        .with_context(|| format!("the tutorial's volume {VOLUME} cannot be written"))
}

fn copy(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a file has a name")?;
    let to: PathBuf = folder.join(name);
    std::fs::copy(file, &to).with_context(|| format!("copy {}", file.display()))?;
    let mode = std::fs::metadata(&to)?.permissions().mode();
    std::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode | 0o444))
        .with_context(|| format!("make {} readable", to.display()))
}

/// Lets everyone write below a folder: what root's tries have left there, an ordinary user's try
/// has to replace.
fn open_to_all(path: &Path) -> std::io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let open = if metadata.is_dir() { 0o777 } else { 0o666 };
    let mode = metadata.permissions().mode() | open;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}
