//! What the machine's actions do: pulling, mounting, starting, waiting, hooks. Each is one future
//! that ends in an event for the machine.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{self as k8s, ConfigMap, Pod, Secret};
use kube::{Api, ResourceExt as _};
use stdx::Backoff;

use super::container;
use super::downward::Facts;
use super::environment::{self, Sources};
use super::handler::Target;
use super::machine::{Event, StartFailure};
use super::{Context, paths, probe, record};
use crate::events::{Severity, pod_reference};
use crate::network::hosts;
use crate::runtime::{
    ContainerRef, Error as RuntimeError, Exit, Image, ImageError, Recovered, SPEC_FILE,
};
use crate::volume::{self, MountedVolumes, Origins};

/// How much of a termination message is kept: of the file, and of the log in its stead.
const MESSAGE_BYTES: usize = 4096;
const MESSAGE_LOG_BYTES: usize = 2048;
const MESSAGE_LOG_LINES: usize = 80;

/// A Pod and its place, as every action needs them.
#[derive(Debug, Clone)]
pub(super) struct PodWork {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) pod_dir: PathBuf,
    pub(super) facts: Facts,
}

/// A container of it.
#[derive(Debug, Clone)]
pub(super) struct ContainerWork {
    pub(super) pod: PodWork,
    pub(super) index: usize,
    pub(super) spec: Arc<k8s::Container>,
    pub(super) init: bool,
}

impl PodWork {
    pub(super) fn emit(&self, severity: Severity, reason: &str, message: impl Into<String>) {
        let object = pod_reference(&self.pod, None);
        self.context
            .recorder
            .record(object, severity, reason, message);
    }

    /// Makes the Pod's directories and its hosts file.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for dir in [self.pod_dir.clone(), paths::hosts_dir(&self.pod_dir)] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)?;
        }
        self.write_hosts()
    }

    /// Brings the hosts file up to date.
    pub(super) fn write_hosts(&self) -> io::Result<()> {
        let names = self.context.services.names();
        let text = hosts::text(
            &self.pod,
            &self.facts.pod_ip,
            &names,
            &self.context.cluster_domain,
        );
        let path = paths::hosts_dir(&self.pod_dir).join("hosts");
        if std::fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        record::replace(&path, text.as_bytes(), 0o644)
    }

    /// Makes the volumes, trying again for as long as it takes; every different failure is told in
    /// an Event.
    pub(super) async fn mount(self) -> (MountedVolumes, Origins) {
        let mut backoff = Backoff::new(Duration::from_millis(500), 2.0, Duration::from_secs(122));
        loop {
            let context = &self.context;
            let failed = context
                .volumes
                .mount(&self.pod, &self.pod_dir, &self.facts)
                .await;
            let error = match failed {
                Ok(done) => return done,
                Err(error) => error,
            };
            self.emit(Severity::Warning, "FailedMount", error.message);
            let pause = context.clock.sleep(backoff.next_delay());
            match error.waits_for {
                Some((key, version)) => {
                    let mut change = context.changes.subscribe(&key);
                    tokio::select! {
                        () = change.differs_from(version.as_deref()) => {}
                        () = pause => {}
                    }
                }
                None => pause.await,
            }
        }
    }

    /// Takes the volumes down and gives address and resources back.
    pub(super) fn tear_down(self) {
        let uid = self.pod.uid().unwrap_or_default();
        if let Err(error) = volume::unmount(&self.pod_dir) {
            tracing::warn!(pod = self.pod.name_any(), "remove volumes: {error}");
        }
        self.context.addresses.release(&uid);
        self.context.ledger.release(&uid);
    }
}

impl ContainerWork {
    pub(super) fn emit(&self, severity: Severity, reason: &str, message: impl Into<String>) {
        let list = if self.init {
            "initContainers"
        } else {
            "containers"
        };
        let path = format!("spec.{list}{{{}}}", self.spec.name);
        let object = pod_reference(&self.pod.pod, Some(path));
        self.pod
            .context
            .recorder
            .record(object, severity, reason, message);
    }

    fn target(&self, id: &ContainerRef) -> Target {
        let context = &self.pod.context;
        Target {
            runtime: context.runtime.clone(),
            clock: context.clock.clone(),
            container: id.clone(),
            pod_ip: self
                .pod
                .facts
                .pod_ip
                .parse()
                .unwrap_or(context.node.host_ip),
            spec: self.spec.clone(),
        }
    }

    /// Finds the image, fetching it where the policy allows that.
    pub(super) async fn pull(self, policy: String) -> Event {
        let image = self.spec.image.clone().unwrap_or_default();
        let images = &self.pod.context.images;
        let container = self.index;
        if policy != "Always" {
            match images.present(&image) {
                Ok(Some(found)) => {
                    self.emit(
                        Severity::Normal,
                        "Pulled",
                        format!("Container image {image:?} already present on machine"),
                    );
                    return Event::Pulled {
                        container,
                        result: Ok(found),
                    };
                }
                Err(error) => {
                    return Event::Pulled {
                        container,
                        result: Err(error),
                    };
                }
                Ok(None) if policy == "Never" => {
                    let result = Err(ImageError::NotFound(format!("{image} is not present")));
                    return Event::Pulled { container, result };
                }
                Ok(None) => {}
            }
        }
        self.emit(
            Severity::Normal,
            "Pulling",
            format!("Pulling image {image:?}"),
        );
        let clock = &self.pod.context.clock;
        let began = clock.monotonic();
        let result = images.pull(&image).await;
        if let Ok(found) = &result {
            let took = clock.monotonic().saturating_sub(began).as_millis();
            self.emit(
                Severity::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image {image:?} in {took}ms ({took}ms including waiting). Image size: {} bytes.",
                    found.size_bytes
                ),
            );
        }
        Event::Pulled { container, result }
    }

    /// Starts one attempt of the container.
    pub(super) async fn start(
        self,
        id: ContainerRef,
        attempt: u32,
        image: Image,
        volumes: Arc<MountedVolumes>,
    ) -> Event {
        let container = self.index;
        match self.try_start(&id, attempt, &image, &volumes).await {
            Ok(at) => Event::Started { container, at, id },
            Err(failure) => Event::StartFailed {
                container,
                id,
                failure,
            },
        }
    }

    async fn try_start(
        &self,
        id: &ContainerRef,
        attempt: u32,
        image: &Image,
        volumes: &MountedVolumes,
    ) -> Result<jiff::Timestamp, StartFailure> {
        let context = &self.pod.context;
        let pod = &self.pod.pod;
        // The same attempt is made again after a failure: it may have come further than we know.
        if id.state_dir.join(SPEC_FILE).exists() {
            match context.runtime.recover(id).await {
                Ok(Recovered::Running(started)) => return Ok(started.at),
                // It came to its end before anyone heard of its start: it must not run again.
                Ok(Recovered::Exited(exit)) if exit.message.is_none() => return Ok(exit.at),
                // It never ran, or nobody knows how far it came.
                Ok(Recovered::Exited(_) | Recovered::NotStarted | Recovered::Lost) | Err(_) => {}
            }
            let cleared = volume::remove_tree(&id.state_dir);
            cleared.map_err(|e| {
                StartFailure::Create(format!("clear {}: {e}", id.state_dir.display()))
            })?;
        }
        let sources = self.sources().await.map_err(StartFailure::Config)?;
        let namespace = pod.namespace().unwrap_or_default();
        let links = pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
        let services = context
            .services
            .variables(&namespace, links, &context.api_address);
        let environment = environment::build(
            &self.spec,
            &environment::Inputs {
                pod,
                facts: &self.pod.facts,
                sources: &sources,
                image: &image.env,
                services: &services,
                hostname: &hosts::hostname(pod),
            },
        )
        .map_err(StartFailure::Config)?;
        let spec = container::spec(container::Inputs {
            pod,
            container: &self.spec,
            id,
            attempt,
            image,
            environment,
            volumes,
            pod_dir: &self.pod.pod_dir,
            pod_ip: self
                .pod
                .facts
                .pod_ip
                .parse()
                .unwrap_or(context.node.host_ip),
            own_uid: context.own_uid,
        })?;
        self.lay_out(&spec, attempt).map_err(|e| {
            StartFailure::Create(format!("prepare {}: {e}", id.state_dir.display()))
        })?;
        self.emit(
            Severity::Normal,
            "Created",
            format!("Created container: {}", self.spec.name),
        );
        match context.runtime.start(spec).await {
            Ok(started) => {
                self.emit(
                    Severity::Normal,
                    "Started",
                    format!("Started container {}", self.spec.name),
                );
                for warning in started.warnings {
                    self.emit(Severity::Warning, "NotHonoured", warning);
                }
                Ok(started.at)
            }
            Err(RuntimeError::CannotRun { exit_code, message }) => {
                Err(StartFailure::CannotRun { exit_code, message })
            }
            Err(error) => Err(StartFailure::Create(error.to_string())),
        }
    }

    /// Makes what a start needs on disk and removes what older attempts left, the last one's log
    /// excepted.
    fn lay_out(&self, spec: &crate::runtime::ContainerSpec, attempt: u32) -> io::Result<()> {
        let pod_dir = &self.pod.pod_dir;
        let name = &self.spec.name;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&spec.container.state_dir)?;
        let message = paths::termination_log(pod_dir, name, attempt);
        std::fs::write(&message, "")?;
        std::fs::set_permissions(&message, std::fs::Permissions::from_mode(0o666))?;
        if let Some(dir) = spec.log.path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)?;
        }
        let bytes = serde_json::to_vec(spec).map_err(io::Error::other)?;
        record::replace(&spec.container.state_dir.join(SPEC_FILE), &bytes, 0o600)?;
        if let Some(old) = attempt.checked_sub(2) {
            volume::remove_tree(&paths::state_dir(pod_dir, name, old))?;
            remove_logs(&paths::log(pod_dir, name, old));
        }
        Ok(())
    }

    async fn sources(&self) -> Result<Sources, String> {
        let (config_maps, secrets) = environment::references(&self.spec);
        let namespace = self.pod.pod.namespace().unwrap_or_default();
        let client = &self.pod.context.client;
        let mut sources = Sources::default();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        for name in config_maps {
            let found = maps
                .get_opt(&name)
                .await
                .map_err(|e| stdx::error::chain(&e))?;
            sources.config_maps.insert(name, found);
        }
        let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        for name in secrets {
            let found = api
                .get_opt(&name)
                .await
                .map_err(|e| stdx::error::chain(&e))?;
            sources.secrets.insert(name, found);
        }
        Ok(sources)
    }

    /// Waits for the container's end.
    pub(super) async fn watch(self, id: ContainerRef) -> Event {
        let exit = match self.pod.context.runtime.wait(&id).await {
            Ok(exit) => exit,
            Err(error) => self.lost(error.to_string()),
        };
        self.ended(id, exit)
    }

    fn lost(&self, message: String) -> Exit {
        let at = self.pod.context.clock.now();
        Exit {
            code: 137,
            signal: None,
            oom_killed: false,
            message: Some(message),
            at,
        }
    }

    /// The event for an end, with the container's last words.
    fn ended(&self, id: ContainerRef, exit: Exit) -> Event {
        let file = id.state_dir.join("termination-log");
        let attempt = id
            .state_dir
            .file_name()
            .and_then(|n| n.to_str()?.parse().ok())
            .unwrap_or(0);
        let log = paths::log(&self.pod.pod_dir, &self.spec.name, attempt);
        let fallback = self.spec.termination_message_policy.as_deref()
            == Some("FallbackToLogsOnError")
            && exit.code != 0;
        let message = last_words(&file, fallback.then_some(log.as_path()));
        Event::Exited {
            container: self.index,
            id,
            exit,
            message,
        }
    }

    /// Finds out what became of a container that an earlier start of the kubelet started.
    pub(super) async fn recover(self, id: ContainerRef) -> Event {
        let container = self.index;
        match self.pod.context.runtime.recover(&id).await {
            Ok(Recovered::Running(started)) => Event::Started {
                container,
                at: started.at,
                id,
            },
            Ok(Recovered::Exited(exit)) => self.ended(id, exit),
            Ok(Recovered::NotStarted) => Event::NotStarted { container, id },
            Ok(Recovered::Lost) => {
                let exit = self.lost(
                    "The container could not be located after a restart of the node".to_owned(),
                );
                self.ended(id, exit)
            }
            Err(error) => {
                let exit = self.lost(error.to_string());
                self.ended(id, exit)
            }
        }
    }

    /// Runs the postStart hook.
    pub(super) async fn post_start(self, id: ContainerRef) -> Event {
        let hook = self
            .spec
            .lifecycle
            .as_ref()
            .and_then(|l| l.post_start.as_ref());
        let result = match hook.and_then(probe::hook) {
            Some(check) => self.target(&id).run(&check, None).await.map_err(|error| {
                format!(
                    "PostStartHook of container {:?} in pod {:?} failed: {error}",
                    self.spec.name,
                    self.pod.pod.name_any()
                )
            }),
            None => Ok(()),
        };
        Event::PostStart {
            container: self.index,
            id,
            result,
        }
    }

    /// Runs the preStop hook.
    pub(super) async fn pre_stop(self, id: ContainerRef) -> Event {
        let hook = self
            .spec
            .lifecycle
            .as_ref()
            .and_then(|l| l.pre_stop.as_ref());
        if let Some(check) = hook.and_then(probe::hook)
            && let Err(error) = self.target(&id).run(&check, None).await
        {
            self.emit(
                Severity::Warning,
                "FailedPreStopHook",
                format!(
                    "PreStopHook of container {:?} in pod {:?} failed: {error}",
                    self.spec.name,
                    self.pod.pod.name_any()
                ),
            );
        }
        Event::PreStopDone {
            container: self.index,
            id,
        }
    }

    /// Probes; every failure becomes an Event, every new verdict goes to `tell`.
    pub(super) async fn probe(
        self,
        id: ContainerRef,
        kind: super::machine::ProbeKind,
        tell: tokio::sync::mpsc::UnboundedSender<Event>,
    ) {
        let Some(probe) = probe::of(&self.spec, kind).cloned() else {
            return;
        };
        let target = self.target(&id);
        let container = self.index;
        probe::run(target, probe, kind, |outcome, verdict| {
            if let Err(message) = outcome {
                self.emit(
                    Severity::Warning,
                    "Unhealthy",
                    format!("{} probe failed: {message}", kind.word()),
                );
            }
            if let Some(healthy) = verdict {
                // The worker is gone with its Pod: nobody cares.
                drop(tell.send(Event::Probed {
                    container,
                    id: id.clone(),
                    kind,
                    healthy,
                }));
            }
        })
        .await;
    }
}

/// Removes a log and its rotated parts.
fn remove_logs(path: &Path) {
    let mut next = path.to_owned();
    let mut number = 0;
    while std::fs::remove_file(&next).is_ok() {
        number += 1;
        next = crate::logs::rotated(path, number);
    }
}

/// What a container wrote as its termination message, or else the end of its log.
fn last_words(file: &Path, log: Option<&Path>) -> Option<String> {
    let tail = |mut bytes: Vec<u8>, limit: usize| {
        let cut = bytes.len().saturating_sub(limit);
        bytes.drain(..cut);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let written = std::fs::read(file).unwrap_or_default();
    if !written.is_empty() {
        return Some(tail(written, MESSAGE_BYTES));
    }
    let text = crate::logs::tail_text(log?, MESSAGE_LOG_LINES);
    (!text.is_empty()).then(|| tail(text, MESSAGE_LOG_BYTES))
}

/// The containers of a Pod, shareable.
pub(super) fn shared_specs(pod: &Pod) -> BTreeMap<usize, (bool, Arc<k8s::Container>)> {
    super::machine::specs(pod)
        .enumerate()
        .map(|(index, (role, spec))| {
            (
                index,
                (role != super::machine::Role::Main, Arc::new(spec.clone())),
            )
        })
        .collect()
}
