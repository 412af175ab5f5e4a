//! The command line of `tensorflow_model_server`, as far as it means something here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// What to serve and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address that both protocols listen on.
    pub bind: IpAddr,
    /// The gRPC port; 0 takes any.
    pub port: u16,
    /// The REST port; `None` serves no REST.
    pub rest_api_port: Option<u16>,
    /// The name that requests give.
    pub model_name: String,
    /// Other names that mean the same model.
    pub model_aliases: Vec<String>,
    /// The directory whose numeric subdirectories are versions.
    pub model_base_path: PathBuf,
    /// The pause between two looks into the base path; `None` looks once.
    pub poll_wait: Option<Duration>,
    /// How often a version that does not load is tried again.
    pub max_load_retries: u32,
    /// The pause before such a try.
    pub load_retry_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8500,
            rest_api_port: Some(8501),
            model_name: "model".to_owned(),
            model_aliases: Vec::new(),
            model_base_path: PathBuf::from("/models/model"),
            poll_wait: Some(Duration::from_secs(1)),
            max_load_retries: 5,
            load_retry_interval: Duration::from_secs(60),
        }
    }
}

/// Arguments that cannot be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UsageError {
    /// A flag that is not one of the original's.
    #[error("unknown flag {flag}; known flags: {}", KNOWN.join(", "))]
    UnknownFlag {
        /// The flag as given.
        flag: String,
    },
    /// A flag at the end that needs a value.
    #[error("{flag} needs a value")]
    MissingValue {
        /// The flag.
        flag: String,
    },
    /// A value that is not what the flag takes.
    #[error("{flag}={value} is not {expected}")]
    BadValue {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A feature of the original that is not here.
    #[error("{flag} is not supported: {instead}")]
    Unsupported {
        /// The flag.
        flag: String,
        /// What to do instead.
        instead: &'static str,
    },
}

/// Flags that change what this server does.
const KNOWN: &[&str] = &[
    "--port",
    "--rest_api_port",
    "--model_name",
    "--model_alias",
    "--model_base_path",
    "--file_system_poll_wait_seconds",
    "--max_num_load_retries",
    "--load_retry_interval_micros",
];

/// Flags of the original that tune what this server does its own way: taken and logged.
const IGNORED: &[&str] = &[
    "--allow_version_labels_for_unavailable_models",
    "--batching_parameters_file",
    "--enable_batching",
    "--enable_model_warmup",
    "--flush_filesystem_caches",
    "--grpc_channel_arguments",
    "--grpc_max_threads",
    "--num_load_threads",
    "--num_unload_threads",
    "--per_process_gpu_memory_fraction",
    "--rest_api_enable_cors_support",
    "--rest_api_num_threads",
    "--rest_api_timeout_in_ms",
    "--saved_model_tags",
    "--tensorflow_inter_op_parallelism",
    "--tensorflow_intra_op_parallelism",
    "--tensorflow_session_parallelism",
];

/// Flags of the original that ask for something this server does not have.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "--model_config_file",
        "give --model_name and --model_base_path",
    ),
    ("--monitoring_config_file", "leave it out"),
    ("--platform_config_file", "leave it out"),
    ("--ssl_config_file", "put a TLS proxy in front"),
    ("--grpc_socket_path", "use --port"),
];

impl Options {
    /// Reads flags as the original takes them: `--flag=value` or `--flag value`. The defaults of
    /// `--model_name` and `--model_base_path` come from `MODEL_NAME` and `MODEL_BASE_PATH`, as in
    /// the original's image.
    pub fn parse(args: &[String], env: &BTreeMap<String, String>) -> Result<Self, UsageError> {
        let mut options = Self::default();
        if let Some(name) = env.get("MODEL_NAME").filter(|name| !name.is_empty()) {
            options.model_name.clone_from(name);
        }
        let base = env.get("MODEL_BASE_PATH").map_or("/models", String::as_str);
        options.model_base_path = PathBuf::from(base).join(&options.model_name);

        let mut words = args.iter().map(String::as_str).peekable();
        // The program itself, as a container's command names it.
        while words.next_if(|word| !word.starts_with('-')).is_some() {}
        while let Some(word) = words.next() {
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            };
            if let Some(&(_, instead)) = UNSUPPORTED.iter().find(|(name, _)| *name == flag) {
                return Err(UsageError::Unsupported {
                    flag: flag.to_owned(),
                    instead,
                });
            }
            let known = KNOWN.contains(&flag);
            if !known && !IGNORED.contains(&flag) {
                return Err(UsageError::UnknownFlag {
                    flag: word.to_owned(),
                });
            }
            let value = match inline {
                Some(value) => Some(value),
                None => words.next_if(|next| !next.starts_with("--")),
            };
            if known {
                let missing = || UsageError::MissingValue {
                    flag: flag.to_owned(),
                };
                options.set(flag, value.ok_or_else(missing)?)?;
            } else {
                tracing::info!(flag, "this flag has no effect here");
            }
        }
        Ok(options)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), UsageError> {
        let bad = |expected| UsageError::BadValue {
            flag: flag.to_owned(),
            value: value.to_owned(),
            expected,
        };
        match flag {
            "--port" => self.port = value.parse().map_err(|_| bad("a port (0 to 65535)"))?,
            "--rest_api_port" => {
                let port = value
                    .parse()
                    .map_err(|_| bad("a port (0 to 65535; 0 for no REST)"))?;
                self.rest_api_port = (port != 0).then_some(port);
            }
            "--model_name" if value.is_empty() => return Err(bad("a name")),
            "--model_name" => value.clone_into(&mut self.model_name),
            "--model_alias" => {
                let names = value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty());
                self.model_aliases.extend(names.map(str::to_owned));
            }
            "--model_base_path" if value.is_empty() => return Err(bad("a directory")),
            "--model_base_path" => self.model_base_path = PathBuf::from(value),
            "--file_system_poll_wait_seconds" => {
                let seconds: i64 = value.parse().map_err(|_| bad("a number of seconds"))?;
                // As in the original: negative looks only at the start, 0 polls without a pause,
                // which a tenth of a second replaces here.
                self.poll_wait = match u64::try_from(seconds) {
                    Err(_) => None,
                    Ok(0) => Some(Duration::from_millis(100)),
                    Ok(seconds) => Some(Duration::from_secs(seconds)),
                };
            }
            "--max_num_load_retries" => {
                self.max_load_retries = value.parse().map_err(|_| bad("a number of tries"))?;
            }
            "--load_retry_interval_micros" => {
                let micros = value.parse().map_err(|_| bad("a number of microseconds"))?;
                self.load_retry_interval = Duration::from_micros(micros);
            }
            _ => {
                return Err(UsageError::UnknownFlag {
                    flag: flag.to_owned(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, env: &[(&str, &str)]) -> Result<Options, UsageError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let env = env
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Options::parse(&args, &env)
    }

    #[test]
    fn the_defaults_are_the_originals() {
        let options = parse("", &[]).unwrap();
        assert_eq!((options.port, options.rest_api_port), (8500, Some(8501)));
        assert_eq!(options.model_name, "model");
        assert_eq!(options.model_base_path, PathBuf::from("/models/model"));
        let options = parse("", &[("MODEL_NAME", "digits")]).unwrap();
        assert_eq!(options.model_base_path, PathBuf::from("/models/digits"));
    }

    #[test]
    fn both_spellings_of_a_value_work_and_the_program_name_is_skipped() {
        let options = parse(
            "/usr/bin/tensorflow_model_server --port=9000 --rest_api_port 8500 \
             --model_name=mnist-service --model_alias=mnist,digits --model_base_path /mnt/export \
             --enable_batching --grpc_max_threads=4 --file_system_poll_wait_seconds=-1",
            &[("MODEL_NAME", "other")],
        )
        .unwrap();
        assert_eq!((options.port, options.rest_api_port), (9000, Some(8500)));
        assert_eq!(options.model_name, "mnist-service");
        assert_eq!(options.model_aliases, ["mnist", "digits"]);
        assert_eq!(options.model_base_path, PathBuf::from("/mnt/export"));
        assert_eq!(options.poll_wait, None);
        assert_eq!(parse("--rest_api_port=0", &[]).unwrap().rest_api_port, None);
    }

    #[test]
    fn what_cannot_be_followed_is_named_with_what_can() {
        let check = |line: &str, parts: &[&str]| {
            let text = parse(line, &[]).unwrap_err().to_string();
            for part in parts {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        };
        check("--prot=1", &["unknown flag --prot=1", "--rest_api_port"]);
        check("--port=70000", &["--port=70000 is not a port"]);
        check("--port", &["--port needs a value"]);
        check(
            "--model_config_file=/x",
            &["--model_config_file", "--model_base_path"],
        );
    }
}
