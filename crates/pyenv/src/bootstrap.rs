//! Recognising, by their shape, the commands with which kfp's compilers start Python steps: a shell
//! that installs packages and then runs the rest (`… && "$0" "$@"`), and a shell that writes its
//! argument to a file and runs Python on it.
//!
//! Pure. A command of any other shape is answered with `None` and runs as it is written.

use crate::install::Install;
use crate::shell::{self, Command, Part, Word};

/// What a recognised command means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// What is installed first, in order.
    pub installs: Vec<Install>,
    /// Whether the interpreter's own packages are wanted beside them.
    pub system_packages: bool,
    /// What runs then.
    pub then: Then,
}

/// What runs once the packages are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Python on a source that is written to a file.
    Program(Program),
    /// Any command.
    Command(Vec<String>),
}

/// Python on a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The source.
    pub source: String,
    /// The name of its file, in a folder of its own.
    pub file: String,
    /// Variables set for it.
    pub env: Vec<(String, String)>,
    /// The arguments of the interpreter.
    pub args: Vec<Arg>,
}

/// An argument of the interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// This text.
    Text(String),
    /// The path of the source's file.
    File,
}

/// The name of a source's file where the command leaves it to chance.
const ANY_FILE: &str = "program.py";
const SHELLS: [&str; 4] = ["sh", "bash", "dash", "ash"];
const COMMAND_FLAGS: [&str; 4] = ["-c", "-ec", "-ce", "-euc"];

/// What a command means, if it has one of the shapes.
pub fn recognise(argv: &[String]) -> Option<Bootstrap> {
    let mut bootstrap = Bootstrap {
        installs: Vec::new(),
        system_packages: false,
        then: Then::Command(Vec::new()),
    };
    let mut rest = argv;
    while let Some((script, after)) = script(rest) {
        let Some(mut installs) = installer(script, &mut bootstrap.system_packages) else {
            break;
        };
        bootstrap.installs.append(&mut installs);
        rest = after;
    }
    if rest.is_empty() {
        return None;
    }
    let program = script(rest).and_then(|(text, after)| program(text, after));
    bootstrap.then = match program {
        Some(program) => Then::Program(program),
        None if rest.len() == argv.len() => return None,
        None => Then::Command(rest.to_vec()),
    };
    Some(bootstrap)
}

/// Whether a command begins like one of the shapes: worth a closer look.
pub fn resembles(argv: &[String]) -> bool {
    script(argv).is_some_and(|(text, _)| text.contains("\"$@\"") && text.contains("python"))
}

/// Splits `sh -c SCRIPT REST…`.
fn script(argv: &[String]) -> Option<(&str, &[String])> {
    let [shell, flag, text, rest @ ..] = argv else {
        return None;
    };
    let shell = shell.rsplit('/').next()?;
    let fits = SHELLS.contains(&shell) && COMMAND_FLAGS.contains(&flag.as_str());
    fits.then_some((text.as_str(), rest))
}

/// Reads a script that installs packages and then runs `"$0" "$@"`.
fn installer(script: &str, system_packages: &mut bool) -> Option<Vec<Install>> {
    let mut parts = shell::parse(script)?;
    match parts.pop()? {
        Part::Command(last)
            if last.assignments.is_empty()
                && last.output.is_none()
                && matches!(last.words.as_slice(), [name, args]
                    if name.is_expansion("$0") && args.is_expansion("$@")) => {}
        _ => return None,
    }
    let mut installs = Vec::new();
    let mut exported = Vec::new();
    for part in &parts {
        match part {
            // Makes sure that there is a pip.
            Part::If(text) if text.contains("ensurepip") => {}
            Part::If(_) => return None,
            Part::Group(alternatives) => installs.extend(group(alternatives, &exported)?),
            Part::Command(command) => match setting(command)? {
                Setting::Venv { system } => *system_packages |= system,
                Setting::Export(variables) => exported.extend(variables),
                Setting::Nothing => {}
                Setting::Other => installs.push(Install::of(command, &exported)?),
            },
        }
    }
    Some(installs)
}

/// `(install || install --user)`: the same packages, tried in two ways.
fn group(alternatives: &[Vec<Command>], exported: &[(String, String)]) -> Option<Vec<Install>> {
    let read = |commands: &Vec<Command>| -> Option<Vec<Install>> {
        commands.iter().map(|c| Install::of(c, exported)).collect()
    };
    let (first, others) = alternatives.split_first()?;
    let first = read(first)?;
    others
        .iter()
        .all(|other| read(other).as_ref() == Some(&first))
        .then_some(first)
}

enum Setting {
    /// A virtual environment, which every step has anyway.
    Venv {
        system: bool,
    },
    Export(Vec<(String, String)>),
    Nothing,
    Other,
}

/// Lines that prepare an installation; `None`: one that cannot be understood.
fn setting(command: &Command) -> Option<Setting> {
    let words: Vec<&str> = command
        .words
        .iter()
        .map(|word| word.text.as_str())
        .collect();
    Some(match words.as_slice() {
        // A folder for it, or a variable that no command is told of.
        [] if command
            .assignments
            .iter()
            .all(|(_, value)| value.literal || is_temporary(value)) =>
        {
            Setting::Nothing
        }
        ["export", variables @ ..] => {
            let all_literal = command.words.iter().all(|word| word.literal);
            let split = |text: &&str| {
                let (name, value) = text.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            };
            let variables: Option<Vec<_>> = variables.iter().map(split).collect();
            Setting::Export(variables.filter(|_| all_literal)?)
        }
        [python, "-m", "venv", options @ ..] if is_python(python) => {
            let system = options.contains(&"--system-site-packages");
            let known = |option: &&str| {
                option.starts_with('$')
                    || ["--system-site-packages", "--without-pip", "--clear"].contains(option)
            };
            if !options.iter().all(known) {
                return None;
            }
            Setting::Venv { system }
        }
        ["." | "source", path] if path.ends_with("/bin/activate") => Setting::Nothing,
        _ => Setting::Other,
    })
}

fn is_temporary(value: &Word) -> bool {
    !value.literal && ["$(mktemp)", "$(mktemp -d)"].contains(&value.text.as_str())
}

pub(crate) fn is_python(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default();
    name.strip_prefix("python").is_some_and(|rest| {
        !rest.starts_with('2') && rest.bytes().all(|b| b == b'.' || b.is_ascii_digit())
    })
}

/// Reads a script that writes `$0` to a file and runs Python with it.
fn program(script: &str, argv: &[String]) -> Option<Program> {
    let (source, rest) = argv.split_first()?;
    let parts = shell::parse(script)?;
    let [
        Part::Command(make),
        Part::Command(write),
        Part::Command(run),
    ] = parts.as_slice()
    else {
        return None;
    };
    let [(variable, place)] = make.assignments.as_slice() else {
        return None;
    };
    if !make.words.is_empty() || make.output.is_some() || !is_temporary(place) {
        return None;
    }
    let written = write.output.as_ref().filter(|word| !word.literal)?;
    let file = match written.text.strip_prefix(&format!("${variable}"))? {
        "" => ANY_FILE,
        path => path.strip_prefix('/').filter(|name| {
            !name.is_empty() && !name.contains(['/', '$']) && !name.starts_with('.')
        })?,
    };
    let prints = matches!(write.words.as_slice(), [name, format, text]
        if name.literal() == Some("printf") && format.literal() == Some("%s")
            && text.is_expansion("$0"));
    if !prints || run.output.is_some() {
        return None;
    }
    let (python, words) = run.words.split_first()?;
    if !is_python(python.literal()?) {
        return None;
    }
    let mut args = Vec::new();
    let mut has_file = false;
    for word in words {
        if word.is_expansion("$@") {
            args.extend(rest.iter().cloned().map(Arg::Text));
        } else if !word.literal && word.text == written.text {
            has_file = true;
            args.push(Arg::File);
        } else {
            args.push(Arg::Text(word.literal()?.to_owned()));
        }
    }
    let env: Option<Vec<_>> = run
        .assignments
        .iter()
        .map(|(name, value)| Some((name.clone(), value.literal()?.to_owned())))
        .collect();
    has_file.then_some(Program {
        source: source.clone(),
        file: file.to_owned(),
        env: env?,
        args,
    })
}

#[cfg(test)]
mod tests;
