//! `cargo xtask demo`: builds coracle and plays its tutorial. Everything the demo makes lies below
//! the target folder, so that the user's own data stays as it is.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{Profile, Workspace};

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    println!("building coracle (the first time takes a few minutes)");
    let binary = workspace.build(Profile::Release)?;
    let data_dir = match options.data_dir {
        Some(dir) => dir,
        // A try from scratch starts from scratch.
        None if options.once => {
            let dir = workspace.cache("demo")?.join("once");
            let mut clear = Command::new(&binary);
            clear.args(["down", "--purge", "--data-dir"]).arg(&dir);
            // Nothing there, or nothing worth keeping: the tutorial itself says what is wrong.
            drop(clear.stdout(Stdio::null()).stderr(Stdio::null()).status());
            dir.display().to_string()
        }
        None => workspace.cache("demo")?.join("data").display().to_string(),
    };
    let mut tutorial = Command::new(&binary);
    tutorial.args(["tutorial", "mnist", "--data-dir", &data_dir]);
    if options.once {
        tutorial.arg("--once");
    }
    if let Some(steps) = options.train_steps {
        tutorial.args(["--train-steps", &steps]);
    }
    // From here on the terminal, its signals and the exit code are the tutorial's.
    Err(tutorial.exec()).with_context(|| format!("run {}", binary.display()))
}

#[derive(Debug, Default)]
struct Options {
    once: bool,
    train_steps: Option<String>,
    data_dir: Option<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .cloned()
                    .with_context(|| format!("{arg} needs a value"))
            };
            match arg.as_str() {
                "--once" => options.once = true,
                "--train-steps" => options.train_steps = Some(value()?),
                "--data-dir" => options.data_dir = Some(value()?),
                _ => bail!(
                    "demo: unknown argument {arg:?}, expected --once, --train-steps N or \
                     --data-dir DIR"
                ),
            }
        }
        Ok(options)
    }
}
