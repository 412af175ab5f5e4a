//! Jobs played through: the plan's changes are carried out on objects in memory.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::{Change, Observed, Plan, plan};
use super::pods::FINALIZER;

struct World {
    job: Job,
    pods: Vec<Pod>,
    now: Timestamp,
    made: usize,
}

fn world(spec: Value) -> World {
    let mut all = json!({
        "parallelism": 1, "completions": 1, "backoffLimit": 6,
        "selector": {"matchLabels": {"job": "j"}},
        "template": {"metadata": {"labels": {"job": "j"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    World {
        job: serde_json::from_value(
            json!({"metadata": {"name": "j", "namespace": "n", "uid": "j"}, "spec": all}),
        )
        .unwrap(),
        pods: vec![],
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
        made: 0,
    }
}

impl World {
    fn plan(&self) -> Plan {
        plan(&Observed {
            job: Arc::new(self.job.clone()),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            now: self.now,
        })
    }

    /// Acts until there is nothing left to do; a write never follows a write of the same.
    fn settle(&mut self) {
        for _ in 0..20 {
            let plan = self.plan();
            if plan.before.is_empty() && plan.status.is_none() && plan.after.is_empty() {
                return;
            }
            plan.before
                .into_iter()
                .for_each(|change| self.apply(change));
            if let Some(status) = plan.status {
                self.job.status = Some(status);
            }
            plan.after.into_iter().for_each(|change| self.apply(change));
        }
        panic!("the job does not settle: {:?}", self.job.status);
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Create(mut pod) => {
                pod.metadata.name = Some(format!("p{}", self.made));
                pod.metadata.uid = pod.metadata.name.clone();
                pod.metadata.creation_timestamp = Some(crate::meta::whole_seconds(self.now));
                self.made += 1;
                self.pods.push(*pod);
            }
            Change::Delete(pod) => {
                let found = self
                    .pods
                    .iter_mut()
                    .find(|other| other.uid() == pod.uid())
                    .unwrap();
                found.metadata.deletion_timestamp = Some(crate::meta::whole_seconds(self.now));
                found.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
            }
            Change::Free(pod) => {
                let found = self
                    .pods
                    .iter_mut()
                    .find(|other| other.uid() == pod.uid())
                    .unwrap();
                found.finalizers_mut().clear();
                self.pods.retain(|pod| {
                    pod.metadata.deletion_timestamp.is_none() || !pod.finalizers().is_empty()
                });
            }
            Change::Normal { .. } | Change::Warning { .. } => {}
            Change::Adopt(_) | Change::Release(_) => panic!("unexpected {change:?}"),
        }
    }

    /// Ends the Pods that run.
    fn end_all(&mut self, phase: &str) {
        let at = crate::meta::whole_seconds(self.now);
        for pod in &mut self.pods {
            if pod.status.is_none() {
                pod.status = serde_json::from_value(json!({"phase": phase, "containerStatuses": [{
                    "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 1, "finishedAt": at}}}]}))
                .unwrap();
            }
        }
        self.settle();
    }

    fn running(&self) -> usize {
        self.pods.iter().filter(|pod| pod.status.is_none()).count()
    }

    fn status(&self) -> &JobStatus {
        self.job.status.as_ref().unwrap()
    }

    fn conditions(&self) -> Vec<(String, String)> {
        let all = self.status().conditions.iter().flatten();
        all.filter(|c| c.status == "True")
            .map(|c| (c.type_.clone(), c.reason.clone().unwrap_or_default()))
            .collect()
    }
}

fn pair(type_: &str, reason: &str) -> (String, String) {
    (type_.to_owned(), reason.to_owned())
}

#[test]
fn completions_are_reached_with_the_wanted_parallelism() {
    let mut world = world(json!({"parallelism": 2, "completions": 5}));
    let mut waves = Vec::new();
    world.settle();
    while world.running() > 0 {
        waves.push(world.running());
        assert_eq!(world.status().active, Some(world.running() as i32));
        world.end_all("Succeeded");
    }
    assert_eq!(waves, [2, 2, 1]);
    assert_eq!(
        (world.status().succeeded, world.status().active),
        (Some(5), None)
    );
    assert_eq!(
        world.conditions(),
        [
            pair("SuccessCriteriaMet", "CompletionsReached"),
            pair("Complete", "CompletionsReached")
        ]
    );
    assert!(world.status().completion_time.is_some());
    assert!(
        world.pods.iter().all(|pod| pod.finalizers().is_empty()),
        "every Pod may go"
    );
}

#[test]
fn a_pod_is_counted_once_even_when_the_controller_stops_half_way() {
    let mut world = world(json!({"completions": 2}));
    world.settle();
    assert_eq!(world.pods[0].finalizers(), [FINALIZER]);
    world.pods[0].status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    // The status is stored, and the process dies before the finalizer is removed.
    world.job.status = world.plan().status;
    let uncounted = world.status().uncounted_terminated_pods.clone().unwrap();
    assert_eq!(
        (uncounted.succeeded.unwrap().len(), world.status().succeeded),
        (1, None)
    );
    world.settle();
    assert_eq!(world.status().succeeded, Some(1));
}

#[test]
fn failures_are_tried_again_after_growing_pauses_up_to_the_limit() {
    let mut world = world(json!({"backoffLimit": 2}));
    world.settle();
    for pause in [10, 20] {
        world.end_all("Failed");
        assert_eq!(world.running(), 0);
        assert_eq!(world.plan().again.map(|d| d.as_secs()), Some(pause));
        world.now += SignedDuration::from_secs(pause as i64);
        world.settle();
        assert_eq!(world.running(), 1);
    }
    world.end_all("Failed");
    assert_eq!(
        world.conditions(),
        [
            pair("FailureTarget", "BackoffLimitExceeded"),
            pair("Failed", "BackoffLimitExceeded")
        ]
    );
    assert_eq!(world.status().failed, Some(3));
}

#[test]
fn the_deadline_ends_what_runs() {
    let mut world = world(json!({"activeDeadlineSeconds": 60}));
    world.settle();
    assert_eq!(world.plan().again.map(|d| d.as_secs()), Some(60));
    world.now += SignedDuration::from_secs(60);
    world.settle();
    assert_eq!(
        world.conditions().last(),
        Some(&pair("Failed", "DeadlineExceeded"))
    );
    assert!(world.pods.is_empty(), "the Pod was deleted and freed");
}

#[test]
fn a_suspended_job_runs_nothing_and_starts_anew_when_resumed() {
    let mut world = world(json!({"suspend": true}));
    world.settle();
    assert_eq!(
        (world.running(), world.conditions()),
        (0, vec![pair("Suspended", "JobSuspended")])
    );
    assert!(world.status().start_time.is_none());
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!((world.running(), world.conditions()), (1, vec![]));
    assert!(world.status().start_time.is_some());
}

#[test]
fn every_index_is_done_once() {
    let mut world = world(json!({"completionMode": "Indexed", "parallelism": 2, "completions": 3}));
    world.settle();
    let names: Vec<_> = world
        .pods
        .iter()
        .map(|pod| pod.metadata.generate_name.clone().unwrap())
        .collect();
    assert_eq!(names, ["j-0-", "j-1-"]);
    let spec = world.pods[1].spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("j-1"));
    assert_eq!(
        spec.containers[0].env.as_ref().unwrap()[0].name,
        "JOB_COMPLETION_INDEX"
    );
    world.pods[1].status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("1"));
    assert_eq!(
        world.pods[2].metadata.generate_name.as_deref(),
        Some("j-2-")
    );
    world.end_all("Succeeded");
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-2"));
    assert_eq!(world.status().succeeded, Some(3));
    assert_eq!(world.conditions().len(), 2);
}

#[test]
fn a_queue_of_unknown_length_ends_with_its_last_worker() {
    let mut world = world(json!({"completions": null, "parallelism": 2}));
    world.settle();
    assert_eq!(world.running(), 2);
    world.pods[0].status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    world.settle();
    assert_eq!((world.running(), world.conditions().len()), (1, 0));
    world.end_all("Succeeded");
    assert_eq!(world.conditions().len(), 2);
}

#[test]
fn a_finished_job_goes_when_its_time_is_over() {
    let mut world = world(json!({"ttlSecondsAfterFinished": 30}));
    world.settle();
    world.end_all("Succeeded");
    let plan = world.plan();
    assert_eq!(
        (plan.expired, plan.again.map(|d| d.as_secs())),
        (false, Some(30))
    );
    world.now += SignedDuration::from_secs(30);
    assert!(world.plan().expired);
}
