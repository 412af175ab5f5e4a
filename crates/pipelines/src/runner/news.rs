//! What a Pod's state means for the attempt it belongs to.

use artifacts::Uri;
use engine::{Event, Outcome, StartWork, TaskPath};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::ResourceExt as _;

use super::outputs::{self, Found};
use super::pod::{ATTEMPT_ANNOTATION, MAIN, TASK_ANNOTATION};

/// Waiting reasons that say that an image will not run here, however long one waits.
const IMAGE_REASONS: [&str; 5] = [
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
];

/// Which attempt a Pod belongs to.
pub(super) fn attempt_of(pod: &Pod) -> Option<(TaskPath, u32)> {
    let annotations = pod.annotations();
    let task = annotations.get(TASK_ANNOTATION)?;
    let attempt = annotations.get(ATTEMPT_ANNOTATION)?.parse().ok()?;
    Some((TaskPath::from(task.as_str()), attempt))
}

/// The Pod was deleted. If its end was seen before, this is no news any more.
pub(super) fn gone(pod: &Pod, at: Timestamp) -> Option<Event> {
    let (task, attempt) = attempt_of(pod)?;
    let message = "pod deleted".to_owned();
    let outcome = Outcome::Error {
        message,
        transient: true,
        stop: false,
    };
    Some(Event::TaskFinished {
        task,
        attempt,
        at,
        outcome,
    })
}

/// What a Pod's state says.
#[derive(Default)]
pub(super) struct News {
    pub(super) events: Vec<Event>,
    /// The attempt is over, and its outputs have to be fetched from here first.
    pub(super) outputs_at: Option<Uri>,
    /// The attempt is over.
    pub(super) ended: bool,
}

/// What the Pod's state says. The caller drops what is no news.
pub(super) fn of(pod: &Pod, start: &StartWork, at: Timestamp) -> News {
    let Some(status) = &pod.status else {
        return News::default();
    };
    let ongoing = |events| News {
        events,
        ..News::default()
    };
    let over = |events| News {
        events,
        ended: true,
        ..News::default()
    };
    let progress = |running, message| Event::TaskProgressed {
        task: start.task.clone(),
        attempt: start.attempt,
        at,
        running,
        host: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        message,
    };
    let finished = |outcome| Event::TaskFinished {
        task: start.task.clone(),
        attempt: start.attempt,
        at,
        outcome,
    };
    match status.phase.as_deref() {
        Some("Succeeded") => match outputs::find(pod, start) {
            Found::End(outcome) => over(vec![progress(true, None), finished(outcome)]),
            Found::At(uri) => News {
                outputs_at: Some(uri),
                ..over(vec![progress(true, None)])
            },
        },
        Some("Failed") => over(vec![finished(failure(status))]),
        Some("Running") => ongoing(vec![progress(true, None)]),
        _ => {
            if let Some(message) = image_failure(status) {
                let outcome = Outcome::Error {
                    message,
                    transient: false,
                    stop: true,
                };
                return ongoing(vec![finished(outcome)]);
            }
            ongoing(vec![progress(false, waiting(status))])
        }
    }
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

fn image_failure(status: &PodStatus) -> Option<String> {
    statuses(status).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting
            .reason
            .as_deref()
            .filter(|reason| IMAGE_REASONS.contains(reason))?;
        let why = waiting
            .message
            .as_deref()
            .map(|m| format!(": {m}"))
            .unwrap_or_default();
        Some(format!(
            "image {:?} cannot be run ({reason}){why}",
            container.image
        ))
    })
}

/// Why a Pod has not begun.
fn waiting(status: &PodStatus) -> Option<String> {
    let unscheduled = status.conditions.iter().flatten().find_map(|condition| {
        let not_yet = condition.type_ == "PodScheduled" && condition.status == "False";
        not_yet.then(|| reason_and(condition.reason.as_deref(), condition.message.as_deref()))
    });
    let container = || {
        statuses(status).find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            Some(reason_and(
                waiting.reason.as_deref(),
                waiting.message.as_deref(),
            ))
        })
    };
    unscheduled
        .or_else(container)
        .filter(|text| !text.is_empty())
}

fn reason_and(reason: Option<&str>, message: Option<&str>) -> String {
    match (reason, message) {
        (Some(reason), Some(message)) if !message.is_empty() => format!("{reason}: {message}"),
        (Some(text), _) | (None, Some(text)) => text.to_owned(),
        (None, None) => String::new(),
    }
}

/// Why a Pod failed: the Pod's own reason, else that of the main container, else of any other.
fn failure(status: &PodStatus) -> Outcome {
    let main = statuses(status).find(|container| container.name == MAIN);
    let failed = |container: &&ContainerStatus| {
        let state = container
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        state.is_some_and(|terminated| terminated.exit_code != 0)
    };
    let culprit = main
        .filter(failed)
        .or_else(|| statuses(status).find(failed));
    let terminated = culprit.and_then(|c| Some((c, c.state.as_ref()?.terminated.as_ref()?)));
    let exit_code = terminated.map(|(_, terminated)| terminated.exit_code);
    if let Some(reason) = status.reason.as_deref() {
        let message = reason_and(Some(reason), status.message.as_deref());
        return match reason {
            "DeadlineExceeded" => Outcome::Failed { exit_code, message },
            // The node goes down in good order, and whoever is on it begins anew elsewhere or later.
            "Terminated" | "NodeShutdown" | "Shutdown" => Outcome::Lost { message },
            // The node took the Pod away: the step itself did nothing wrong.
            _ => Outcome::Error {
                message,
                transient: true,
                stop: false,
            },
        };
    }
    let Some((container, terminated)) = terminated else {
        let message = status
            .message
            .clone()
            .unwrap_or_else(|| "the Pod failed".to_owned());
        return Outcome::Failed { exit_code, message };
    };
    let reason = terminated.reason.as_deref().unwrap_or("Error");
    let mut message = format!("{reason} (exit code {})", terminated.exit_code);
    if container.name != MAIN {
        message = format!("container {:?}: {message}", container.name);
    }
    let own_words = terminated
        .message
        .as_deref()
        .map(outputs::without_collected)
        .unwrap_or_default();
    if !own_words.trim().is_empty() {
        message = format!("{message}: {}", own_words.trim());
    }
    Outcome::Failed { exit_code, message }
}
