//! The manager: which version answers, and what became of the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use model::{DataType, SavedModel, Tensor};
use stdx::SharedClock;

use crate::options::Options;
use crate::proto::ModelVersionStatus;
use crate::proto::StatusProto;
use crate::proto::model_version_status::State;
use crate::source::{self, Version};
use crate::status::Failure;

/// A loaded version.
#[derive(Debug)]
pub(crate) struct Servable {
    pub(crate) version: i64,
    pub(crate) model: SavedModel,
}

/// The version that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Latest,
    Version(i64),
    Label(String),
}

/// A version that did not load.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FailedLoad {
    version: Version,
    tries: u32,
    /// When it may be tried again, on the monotonic clock.
    again: Duration,
}

#[derive(Debug, Clone)]
struct VersionState {
    state: State,
    /// A gRPC code and text if loading it failed.
    problem: Option<(tonic::Code, String)>,
}

/// Loads and unloads versions, and finds the one for a request.
#[derive(Debug)]
pub(crate) struct Manager {
    options: Options,
    clock: SharedClock,
    current: RwLock<Option<Arc<Servable>>>,
    states: RwLock<BTreeMap<i64, VersionState>>,
}

/// What a look into the base path decided.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// Nothing to do.
    Stay,
    /// Serve this version instead of the current one.
    Load(Version),
}

/// What the poller remembers from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    failed: Option<FailedLoad>,
    /// The last complaint and how often it was not repeated.
    complaint: Option<(String, u32)>,
}

/// A complaint that stays is repeated in the log once in so many looks.
const REPEAT: u32 = 60;

impl Manager {
    pub(crate) fn new(options: Options, clock: SharedClock) -> Self {
        Self {
            options,
            clock,
            current: RwLock::default(),
            states: RwLock::default(),
        }
    }

    /// Whether this server's model goes by that name.
    fn answers_to(&self, name: &str) -> bool {
        name == self.options.model_name
            || self.options.model_aliases.iter().any(|alias| alias == name)
    }

    /// The servable for a request.
    pub(crate) fn find(&self, name: &str, wanted: &Wanted) -> Result<Arc<Servable>, Failure> {
        if name.is_empty() {
            return Err(Failure::invalid(
                "Missing ModelSpec: the request names no model",
            ));
        }
        if let Wanted::Label(label) = wanted {
            return Err(unknown_label(label));
        }
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let fits = |servable: &Arc<Servable>| match wanted {
            Wanted::Version(version) => servable.version == *version,
            Wanted::Latest | Wanted::Label(_) => true,
        };
        current
            .filter(|servable| self.answers_to(name) && fits(servable))
            .ok_or_else(|| {
                let request = match wanted {
                    Wanted::Version(version) => format!("Specific({name}, {version})"),
                    Wanted::Latest | Wanted::Label(_) => format!("Latest({name})"),
                };
                Failure::not_found(format!("Servable not found for request: {request}"))
            })
    }

    /// The states of the versions that a request asks for, newest first.
    pub(crate) fn statuses(
        &self,
        name: &str,
        wanted: &Wanted,
    ) -> Result<Vec<ModelVersionStatus>, Failure> {
        if name.is_empty() {
            return Err(Failure::invalid(
                "Missing ModelSpec: the request names no model",
            ));
        }
        if let Wanted::Label(label) = wanted {
            return Err(unknown_label(label));
        }
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let found: Vec<ModelVersionStatus> = states
            .iter()
            .rev()
            .filter(|(version, _)| match wanted {
                Wanted::Version(wanted) => *version == wanted,
                Wanted::Latest | Wanted::Label(_) => true,
            })
            .filter(|_| self.answers_to(name))
            .map(|(&version, state)| {
                let (code, message) = state
                    .problem
                    .clone()
                    .unwrap_or((tonic::Code::Ok, String::new()));
                let status = StatusProto {
                    error_code: code.into(),
                    error_message: message,
                };
                ModelVersionStatus {
                    version,
                    state: state.state.into(),
                    status: Some(status),
                }
            })
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        Err(Failure::not_found(match wanted {
            Wanted::Version(version) => format!("Could not find version {version} of model {name}"),
            Wanted::Latest | Wanted::Label(_) => {
                format!("Could not find any versions of model {name}")
            }
        }))
    }

    fn set_state(&self, version: i64, state: State, problem: Option<(tonic::Code, String)>) {
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        states.insert(version, VersionState { state, problem });
        // A server that runs for years sees many versions; the last ones are enough to tell.
        const KEPT: usize = 64;
        while states.len() > KEPT {
            states.pop_first();
        }
    }

    /// One look into the base path, and what follows from it. Reads files: not for a thread that
    /// serves requests.
    pub(crate) fn poll(&self, memory: &mut Memory) {
        let base = &self.options.model_base_path;
        let versions = match source::scan(base) {
            Ok(versions) => versions,
            Err(error) => {
                let name = &self.options.model_name;
                memory.complain(format!(
                    "could not find base path {} for servable {name}: {error}",
                    base.display()
                ));
                return;
            }
        };
        if versions.is_empty() {
            let name = &self.options.model_name;
            memory.complain(format!(
                "no versions of servable {name} found under base path {}",
                base.display()
            ));
            return;
        }
        memory.complaint = None;
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let current = current.map(|servable| servable.version);
        let now = self.clock.monotonic();
        match decide(
            &versions,
            current,
            memory.failed.as_ref(),
            now,
            self.options.max_load_retries,
        ) {
            Decision::Stay => {}
            Decision::Load(version) => self.load(version, memory),
        }
    }

    fn load(&self, version: Version, memory: &mut Memory) {
        let (number, path) = (version.number, version.path.clone());
        self.set_state(number, State::Loading, None);
        match load(&path) {
            Ok(model) => {
                memory.failed = None;
                tracing::info!(
                    model = self.options.model_name,
                    version = number,
                    "loaded {}: {model}",
                    path.display()
                );
                let servable = Arc::new(Servable {
                    version: number,
                    model,
                });
                self.set_state(number, State::Available, None);
                let old = self
                    .current
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .replace(servable);
                if let Some(old) = old {
                    // Requests that began with it hold it until they end.
                    self.set_state(old.version, State::End, None);
                    tracing::info!(
                        model = self.options.model_name,
                        version = old.version,
                        "unloaded"
                    );
                }
            }
            Err(problem) => {
                tracing::error!(
                    model = self.options.model_name,
                    version = number,
                    "could not load: {problem}"
                );
                self.set_state(number, State::End, Some((tonic::Code::Unknown, problem)));
                let tries = memory
                    .failed
                    .as_ref()
                    .filter(|failed| failed.version == version)
                    .map_or(0, |failed| failed.tries);
                let again = self.clock.monotonic() + self.options.load_retry_interval;
                memory.failed = Some(FailedLoad {
                    version,
                    tries: tries + 1,
                    again,
                });
            }
        }
    }
}

impl Memory {
    fn complain(&mut self, complaint: String) {
        let silent = self
            .complaint
            .as_ref()
            .filter(|(last, count)| *last == complaint && *count < REPEAT)
            .map(|(_, count)| count + 1);
        if silent.is_none() {
            tracing::warn!("{complaint}");
        }
        self.complaint = Some((complaint, silent.unwrap_or(0)));
    }
}

fn unknown_label(label: &str) -> Failure {
    Failure::invalid(format!("Unrecognized servable version label: {label}"))
}

/// The highest version is the one to serve, also if the current one was higher and is gone.
fn decide(
    versions: &[Version],
    current: Option<i64>,
    failed: Option<&FailedLoad>,
    now: Duration,
    retries: u32,
) -> Decision {
    let Some(highest) = versions.last() else {
        return Decision::Stay;
    };
    if current == Some(highest.number) {
        return Decision::Stay;
    }
    match failed {
        // The same file as before fails as before, unless what failed was reading it.
        Some(failed) if failed.version == *highest => {
            if failed.tries <= retries && now >= failed.again {
                Decision::Load(highest.clone())
            } else {
                Decision::Stay
            }
        }
        _ => Decision::Load(highest.clone()),
    }
}

/// Reads a version and asks it once, so that the first request finds everything in place.
fn load(path: &Path) -> Result<SavedModel, String> {
    let model = SavedModel::read(path).map_err(|error| stdx::error::chain(&error))?;
    for (name, signature) in model.signatures() {
        let zeros: Option<BTreeMap<String, Tensor>> = signature
            .inputs
            .iter()
            .map(|(name, info)| {
                let shape: Vec<usize> = info.shape.iter().map(|size| size.unwrap_or(1)).collect();
                let count = shape.iter().product();
                let tensor = (info.data_type == DataType::Float)
                    .then(|| Tensor::float(shape, vec![0.0; count]).ok())??;
                Some((name.clone(), tensor))
            })
            .collect();
        if let Some(inputs) = zeros {
            model
                .predict(name, inputs, &[])
                .map_err(|error| format!("signature {name:?} does not run: {error}"))?;
        }
    }
    Ok(model)
}

#[cfg(test)]
mod tests;
