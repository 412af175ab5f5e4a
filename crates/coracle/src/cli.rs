//! The command line: its words, and which command each of them is.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use jiff::tz::TimeZone;

use crate::command;
use crate::failure::{Code, Failure, Result};
use crate::instance::DataDir;
use crate::output;

/// Kubeflow on one machine: kubectl, kfp, MetalLB, TensorFlow Serving, one program.
#[derive(Debug, Parser)]
#[command(name = "coracle", version = VERSION, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The version that `--version`, the API and the log say.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server: Kubernetes API, Pipelines API, node, everything.
    Up(Up),
    /// Stop the server and its Pods.
    Down(Down),
    /// Say whether the server runs, and where.
    Status(Listing),
    /// Print the export that points kubectl and kfp at the server.
    Env(At),
    /// Print the administrator's kubeconfig, or merge it into your own.
    Kubeconfig(Kubeconfig),
    /// Print the administrator's bearer token.
    Token(At),
    /// Play a tutorial against a server, step by step.
    Tutorial(Tutorial),
    /// Look at this machine: what is missing for what, and how to fix it.
    Doctor(Listing),
    /// Print a completion script for a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Run the program behind a built-in image, as the node does in a Pod.
    #[command(hide = true)]
    Image,
}

/// Which server is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct At {
    /// The server's data directory [default: coracle in your data folder]
    #[arg(long, value_name = "DIR", env = "CORACLE_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl At {
    /// The data directory meant.
    pub(crate) fn data(&self) -> Result<DataDir> {
        match &self.data_dir {
            Some(dir) => DataDir::new(dir),
            None => DataDir::new(&default_data_dir()?),
        }
    }
}

/// `coracle up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) at: At,
    /// Return when the server is ready and leave it running.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Where dashboard and Pipelines API listen [default: 127.0.0.1:8080, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address)]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the Kubernetes API listens [default: 127.0.0.1:6443, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address)]
    pub(crate) kube_listen: Option<SocketAddr>,
    /// Keep everything in a directory that goes away with the server.
    #[arg(long, conflicts_with = "data_dir")]
    pub(crate) ephemeral: bool,
    /// The configuration file [default: config.yaml in the data directory, if it is there]
    #[arg(long, value_name = "FILE", env = "CORACLE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Leave Pods running when the server stops; the next start finds them.
    #[arg(long)]
    pub(crate) leave_pods: bool,
    /// Run Pods without mount namespaces, as on a machine that refuses them.
    #[arg(long)]
    pub(crate) no_mounts: bool,
    /// Whose local time the cron expressions of recurring runs mean, such as Europe/Zurich.
    #[arg(long, value_name = "ZONE", env = "CRON_SCHEDULE_TIMEZONE", default_value = "UTC",
        value_parser = time_zone)]
    pub(crate) cron_time_zone: TimeZone,
    /// Delete runs that have been over for so many days, with all they left.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) run_ttl_days: Option<u32>,
    /// Say on standard output, as JSON, that the server is ready, and close it; used by --detach.
    #[arg(long, hide = true)]
    pub(crate) ready_on_stdout: bool,
}

/// `coracle down`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    pub(crate) at: At,
    /// Remove the data directory too: all objects, runs, logs and provisioned volumes.
    #[arg(long)]
    pub(crate) purge: bool,
}

/// A command that prints a list.
#[derive(Debug, Clone, Args)]
pub(crate) struct Listing {
    #[command(flatten)]
    pub(crate) at: At,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// `coracle kubeconfig`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Kubeconfig {
    #[command(flatten)]
    pub(crate) at: At,
    /// Add the context `coracle` to your own kubeconfig instead of printing.
    #[arg(long)]
    pub(crate) merge: bool,
}

/// `coracle tutorial`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tutorial {
    /// Which tutorial.
    #[arg(value_enum)]
    pub(crate) name: TutorialName,
    #[command(flatten)]
    pub(crate) at: At,
    /// Stop a server that this command started, and end, once everything worked.
    #[arg(long)]
    pub(crate) once: bool,
    /// How many training steps (of 100 pictures each) the model gets.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) train_steps: u32,
}

/// The tutorials there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TutorialName {
    /// Train, serve and play with handwritten digits.
    Mnist,
}

fn time_zone(name: &str) -> std::result::Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| {
        "expected the name of a time zone this machine knows, such as UTC or Europe/Zurich"
            .to_owned()
    })
}

fn listen_address(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:8080".to_owned())
}

/// The flag, with a space before it, by which a command finds this data directory; nothing where the
/// command finds it by itself.
pub(crate) fn place(data: &DataDir) -> String {
    let given = std::env::var_os("CORACLE_DATA_DIR").map(PathBuf::from);
    let usual = given.map_or_else(default_data_dir, Ok);
    if usual.is_ok_and(|usual| usual == data.root()) {
        String::new()
    } else {
        let root = output::quoted(&data.root().to_string_lossy());
        format!(" --data-dir {root}")
    }
}

/// `coracle` in the user's data folder (XDG Base Directory Specification).
fn default_data_dir() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = from("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(from("HOME")?).join(".local").join("share")));
    base.map(|base| base.join("coracle")).ok_or_else(|| {
        Failure::environment("neither XDG_DATA_HOME nor HOME says where your data folder is")
            .hint("give a directory with --data-dir")
    })
}

/// Parses the command line, does what it says, and prints a failure the one way failures look.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            // A closed terminal is nobody to tell.
            let _ = error.print();
            return ExitCode::from(if usage { Code::Usage as u8 } else { 0 });
        }
    };
    let done = match cli.command {
        Command::Up(up) => command::up::run(&up),
        Command::Down(down) => command::down::run(&down),
        Command::Status(listing) => command::status::run(&listing),
        Command::Env(at) => command::env::run(&at),
        Command::Kubeconfig(kubeconfig) => command::kubeconfig::run(&kubeconfig),
        Command::Token(at) => command::token::run(&at),
        Command::Tutorial(tutorial) => command::tutorial::run(&tutorial),
        Command::Doctor(listing) => command::doctor::run(&listing),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "coracle", &mut script);
            output::bytes(&script);
            Ok(())
        }
        Command::Image => Err(Failure::usage("`coracle image` wants the name of an image")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failure(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

/// The command line that starts this program again in the background.
pub(crate) fn detached(up: &Up, data: &DataDir) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["up".into(), "--ready-on-stdout".into()];
    if up.ephemeral {
        args.push("--ephemeral".into());
    } else {
        args.extend(["--data-dir".into(), data.root().into()]);
    }
    let mut flag = |name: &str, value: Option<SocketAddr>| {
        if let Some(value) = value {
            args.extend([name.into(), value.to_string().into()]);
        }
    };
    flag("--listen", up.listen);
    flag("--kube-listen", up.kube_listen);
    if let Some(config) = &up.config {
        // The background server works elsewhere.
        let config = std::path::absolute(config).unwrap_or_else(|_| config.clone());
        args.extend(["--config".into(), config.into()]);
    }
    for (name, given) in [
        ("--leave-pods", up.leave_pods),
        ("--no-mounts", up.no_mounts),
    ] {
        if given {
            args.push(name.into());
        }
    }
    if let Some(zone) = up.cron_time_zone.iana_name() {
        args.extend(["--cron-time-zone".into(), zone.into()]);
    }
    if let Some(days) = up.run_ttl_days {
        args.extend(["--run-ttl-days".into(), days.to_string().into()]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_address_without_a_port_is_explained() {
        let error = Cli::try_parse_from(["coracle", "up", "--listen", "8080"]).unwrap_err();
        assert!(
            error.to_string().contains("such as 127.0.0.1:8080"),
            "{error}"
        );
    }
}
