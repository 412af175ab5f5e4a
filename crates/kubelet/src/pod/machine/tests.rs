//! The state machine, driven by hand: no runtime, no API, no clock.

use super::*;
use crate::pod::SIGKILL;
use crate::pod::status::{self, NodeFacts};
use crate::runtime::{Exit, Image, ImageError, ImageKind};
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A machine, the time, and what it asked for last.
struct Rig {
    machine: Machine,
    now: Timestamp,
    emitted: Vec<(String, String)>,
}

fn pod(spec: Value) -> Arc<Pod> {
    let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn image() -> Image {
    Image {
        reference: "img".into(),
        id: "docker.io/library/img".into(),
        kind: ImageKind::Host,
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        user: None,
        size_bytes: 0,
    }
}

fn ids() -> Ids {
    Ids {
        pod_dir: PathBuf::from("/pods/u"),
        seed: "0".repeat(40),
    }
}

impl Rig {
    fn new(spec: Value) -> Self {
        let now = Timestamp::from_second(1_000).unwrap();
        Self {
            machine: Machine::new(pod(spec), ids(), now),
            now,
            emitted: Vec::new(),
        }
    }

    /// A rig whose node takes the Pod and whose volumes are there.
    fn active(spec: Value) -> Self {
        let mut rig = Self::new(spec);
        assert_eq!(rig.send(Event::Tick), [Action::Admit]);
        let ip = Ipv4Addr::new(127, 97, 0, 2);
        assert_eq!(rig.send(Event::Admitted(ip)), [Action::Mount]);
        rig
    }

    fn send(&mut self, event: Event) -> Vec<Action> {
        let (told, rest): (Vec<_>, Vec<_>) = self
            .machine
            .handle(event, self.now)
            .into_iter()
            .partition(|a| matches!(a, Action::Emit { .. }));
        for action in told {
            if let Action::Emit {
                reason, message, ..
            } = action
            {
                self.emitted.push((reason.to_owned(), message));
            }
        }
        rest
    }

    fn pass(&mut self, seconds: i64) -> Vec<Action> {
        self.now += SignedDuration::from_secs(seconds);
        self.send(Event::Tick)
    }

    fn index(&self, name: &str) -> usize {
        self.machine
            .containers
            .iter()
            .position(|c| c.name == name)
            .unwrap()
    }

    fn id(&self, name: &str) -> ContainerRef {
        match &self.machine.containers[self.index(name)].state {
            State::Starting(id) => id.clone(),
            State::Running(running) => running.container.clone(),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// Answers a pull and the start that follows.
    fn up(&mut self, name: &str) -> Vec<Action> {
        let container = self.index(name);
        let actions = self.send(Event::Pulled {
            container,
            result: Ok(image()),
        });
        assert!(
            matches!(actions[..], [Action::Start { container: c, .. }] if c == container),
            "{actions:?}"
        );
        let id = self.id(name);
        self.send(Event::Started {
            container,
            at: self.now,
            id,
        })
    }

    fn exit(&mut self, name: &str, code: i32) -> Vec<Action> {
        let container = self.index(name);
        let exit = Exit {
            code,
            signal: None,
            oom_killed: false,
            message: None,
            at: self.now,
        };
        let id = self.id(name);
        self.send(Event::Exited {
            container,
            id,
            exit,
            message: None,
        })
    }

    fn probed(&mut self, name: &str, kind: ProbeKind, healthy: bool) -> Vec<Action> {
        let (container, id) = (self.index(name), self.id(name));
        self.send(Event::Probed {
            container,
            id,
            kind,
            healthy,
        })
    }

    fn status(&self) -> PodStatus {
        let node = NodeFacts {
            host_ip: Ipv4Addr::new(127, 97, 0, 1),
            runtime: "coracle".into(),
        };
        status::compute(&self.machine, &PodStatus::default(), &node, self.now)
    }

    fn phase(&self) -> String {
        self.status().phase.unwrap()
    }

    /// The reason that a container's status gives.
    fn reason(&self, name: &str) -> String {
        let status = self.status();
        let all = status.container_statuses.into_iter().flatten();
        let all = all.chain(status.init_container_statuses.into_iter().flatten());
        let state = all
            .into_iter()
            .find(|c| c.name == name)
            .unwrap()
            .state
            .unwrap();
        match (state.waiting, state.running, state.terminated) {
            (Some(waiting), _, _) => waiting.reason.unwrap(),
            (_, Some(_), _) => "running".to_owned(),
            (_, _, Some(ended)) => ended.reason.unwrap(),
            _ => "nothing".to_owned(),
        }
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions = self.status().conditions.unwrap();
        let found = conditions.into_iter().find(|c| c.type_ == kind).unwrap();
        (found.status, found.reason.unwrap_or_default())
    }

    fn told(&self, reason: &str) -> Vec<&str> {
        self.emitted
            .iter()
            .filter(|(r, _)| r == reason)
            .map(|(_, m)| m.as_str())
            .collect()
    }
}

fn pulls(actions: &[Action]) -> Vec<usize> {
    let pull = |a: &Action| match a {
        Action::Pull { container } => Some(*container),
        _ => None,
    };
    actions.iter().filter_map(pull).collect()
}

fn signals(actions: &[Action]) -> Vec<i32> {
    let signal = |a: &Action| match a {
        Action::Signal { signal, .. } => Some(*signal),
        _ => None,
    };
    actions.iter().filter_map(signal).collect()
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "img"}]})
}

#[test]
fn a_step_runs_once_and_succeeds() {
    let mut rig = Rig::active(one("Never"));
    assert_eq!(rig.phase(), "Pending");
    assert_eq!(rig.reason("c"), "ContainerCreating");
    assert_eq!(pulls(&rig.send(Event::Mounted)), [0]);
    let actions = rig.up("c");
    assert!(
        matches!(actions[..], [Action::Watch { container: 0, .. }]),
        "{actions:?}"
    );
    assert_eq!(rig.phase(), "Running");
    assert_eq!(rig.condition("Ready").0, "True");
    let actions = rig.exit("c", 0);
    assert!(actions.contains(&Action::Teardown));
    assert_eq!(
        (rig.phase(), rig.reason("c")),
        ("Succeeded".into(), "Completed".into())
    );
    assert_eq!(
        rig.condition("Ready"),
        ("False".into(), "PodCompleted".into())
    );
    assert_eq!(
        rig.condition("Initialized"),
        ("True".into(), "PodCompleted".into())
    );
    assert_eq!(rig.send(Event::TornDown), []);
    assert_eq!(rig.machine.stage, Stage::TornDown);
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn a_failing_step_fails_the_pod_unless_the_policy_says_otherwise() {
    for (policy, code, phase) in [
        ("Never", 3, "Failed"),
        ("Never", 0, "Succeeded"),
        ("OnFailure", 3, "Running"),
        ("OnFailure", 0, "Succeeded"),
        ("Always", 0, "Running"),
        ("Always", 3, "Running"),
    ] {
        let mut rig = Rig::active(one(policy));
        rig.send(Event::Mounted);
        rig.up("c");
        rig.exit("c", code);
        assert_eq!(rig.phase(), phase, "{policy} {code}");
    }
}

#[test]
fn a_crashing_container_is_restarted_with_growing_pauses() {
    let mut rig = Rig::active(one("Always"));
    rig.send(Event::Mounted);
    rig.up("c");
    assert_eq!(
        pulls(&rig.exit("c", 1)),
        [0],
        "the first restart is immediate"
    );
    rig.up("c");
    assert!(pulls(&rig.exit("c", 1)).is_empty());
    assert_eq!(rig.reason("c"), "CrashLoopBackOff");
    assert_eq!(
        rig.told("BackOff"),
        ["Back-off restarting failed container c in pod p_ns(u)"]
    );
    let status = &rig.status().container_statuses.unwrap()[0];
    assert_eq!(status.restart_count, 1);
    assert_eq!(
        status
            .last_state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        1
    );
    assert_eq!(
        rig.machine.next_deadline(),
        Some(rig.now + SignedDuration::from_secs(10))
    );
    assert!(pulls(&rig.pass(9)).is_empty());
    assert_eq!(pulls(&rig.pass(1)), [0]);
    rig.up("c");
    rig.exit("c", 1);
    assert_eq!(
        rig.machine.next_deadline(),
        Some(rig.now + SignedDuration::from_secs(20))
    );
    // A container that held out for ten minutes starts with a clean slate.
    rig.pass(20);
    rig.up("c");
    rig.now += SignedDuration::from_secs(700);
    assert_eq!(pulls(&rig.exit("c", 1)), [0]);
}

#[test]
fn an_image_that_cannot_be_had_is_told_and_tried_again() {
    let mut rig = Rig::active(one("Never"));
    rig.send(Event::Mounted);
    let failed = || Event::Pulled {
        container: 0,
        result: Err(ImageError::NotFound("no such image".into())),
    };
    rig.send(failed());
    assert_eq!(
        (rig.phase(), rig.reason("c")),
        ("Pending".into(), "ErrImagePull".into())
    );
    assert_eq!(
        rig.told("Failed"),
        [
            "Failed to pull image \"img\": no such image",
            "Error: ErrImagePull"
        ]
    );
    rig.pass(1);
    assert_eq!(rig.reason("c"), "ImagePullBackOff");
    assert_eq!(rig.told("BackOff"), ["Back-off pulling image \"img\""]);
    assert_eq!(pulls(&rig.pass(9)), [0]);
    rig.send(failed());
    rig.pass(1);
    assert!(pulls(&rig.pass(18)).is_empty());
    assert_eq!(
        pulls(&rig.pass(1)),
        [0],
        "the second pause is twice as long"
    );
    rig.up("c");
    assert_eq!(rig.phase(), "Running");
}

#[test]
fn a_policy_of_never_and_a_bad_name_have_their_own_reasons() {
    let mut spec = one("Never");
    spec["containers"][0]["imagePullPolicy"] = json!("Never");
    let mut rig = Rig::active(spec);
    rig.send(Event::Mounted);
    rig.send(Event::Pulled {
        container: 0,
        result: Err(ImageError::NotFound("x".into())),
    });
    assert_eq!(rig.reason("c"), "ErrImageNeverPull");
    let mut rig = Rig::active(one("Never"));
    rig.send(Event::Mounted);
    let error = ImageError::InvalidName {
        reference: "A B".into(),
        problem: "spaces".into(),
    };
    rig.send(Event::Pulled {
        container: 0,
        result: Err(error),
    });
    assert_eq!(rig.reason("c"), "InvalidImageName");
}

#[test]
fn init_containers_run_one_after_another_before_the_rest() {
    let mut rig = Rig::active(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i1", "image": "img"}, {"name": "i2", "image": "img"}],
        "containers": [{"name": "c", "image": "img"}]}));
    assert_eq!(pulls(&rig.send(Event::Mounted)), [0]);
    assert_eq!(rig.reason("c"), "PodInitializing");
    assert_eq!(
        rig.condition("Initialized"),
        ("False".into(), "ContainersNotInitialized".into())
    );
    rig.up("i1");
    assert_eq!(rig.phase(), "Pending");
    assert_eq!(pulls(&rig.exit("i1", 0)), [1]);
    rig.up("i2");
    assert_eq!(pulls(&rig.exit("i2", 0)), [2]);
    assert_eq!(rig.condition("Initialized").0, "True");
    rig.up("c");
    assert_eq!(rig.phase(), "Running");
}

#[test]
fn a_failing_init_container_fails_a_pod_that_never_restarts_and_is_restarted_in_others() {
    let spec = |policy: &str| {
        json!({"restartPolicy": policy, "initContainers": [{"name": "i", "image": "img"}],
            "containers": [{"name": "c", "image": "img"}]})
    };
    let mut rig = Rig::active(spec("Never"));
    rig.send(Event::Mounted);
    rig.up("i");
    assert!(rig.exit("i", 1).contains(&Action::Teardown));
    assert_eq!(rig.phase(), "Failed");
    let mut rig = Rig::active(spec("Always"));
    rig.send(Event::Mounted);
    rig.up("i");
    assert_eq!(pulls(&rig.exit("i", 1)), [0]);
    assert_eq!(rig.phase(), "Pending");
}

#[test]
fn a_sidecar_starts_first_is_restarted_and_ends_after_the_main_containers() {
    let mut rig = Rig::active(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s", "image": "img", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "img"}]}));
    assert_eq!(pulls(&rig.send(Event::Mounted)), [0]);
    assert_eq!(pulls(&rig.up("s")), [1]);
    rig.up("c");
    assert_eq!(
        pulls(&rig.exit("s", 1)),
        [0],
        "a sidecar is restarted whatever the policy"
    );
    rig.up("s");
    let actions = rig.exit("c", 0);
    assert_eq!(signals(&actions), [super::super::SIGTERM]);
    assert!(!actions.contains(&Action::Teardown));
    assert_eq!(rig.phase(), "Running");
    assert!(rig.exit("s", 143).contains(&Action::Teardown));
    assert_eq!(rig.phase(), "Succeeded");
}

fn delete(rig: &mut Rig, grace: i64) -> Vec<Action> {
    let mut pod = (*rig.machine.pod).clone();
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod.metadata.deletion_timestamp = Some(Time(rig.now + SignedDuration::from_secs(grace)));
    rig.send(Event::Pod(Arc::new(pod)))
}

#[test]
fn deletion_asks_politely_then_insists_and_then_is_final() {
    let mut rig = Rig::active(one("Always"));
    rig.send(Event::Mounted);
    rig.up("c");
    assert_eq!(signals(&delete(&mut rig, 30)), [super::super::SIGTERM]);
    assert_eq!(rig.told("Killing"), ["Stopping container c"]);
    assert!(signals(&rig.pass(29)).is_empty());
    assert_eq!(signals(&rig.pass(1)), [SIGKILL]);
    let actions = rig.exit("c", 137);
    assert!(actions.contains(&Action::Teardown));
    assert!(pulls(&actions).is_empty(), "a deleted pod is not restarted");
    assert!(!rig.machine.deletion_is_due());
    rig.send(Event::TornDown);
    assert!(rig.machine.deletion_is_due());
    assert_eq!(rig.phase(), "Failed");
}

#[test]
fn a_more_urgent_deletion_shortens_the_grace_period() {
    let mut rig = Rig::active(one("Always"));
    rig.send(Event::Mounted);
    rig.up("c");
    delete(&mut rig, 30);
    delete(&mut rig, 5);
    assert_eq!(signals(&rig.pass(5)), [SIGKILL]);
}

#[test]
fn an_object_that_vanishes_takes_its_containers_with_it() {
    let mut rig = Rig::active(one("Always"));
    rig.send(Event::Mounted);
    rig.up("c");
    assert_eq!(signals(&rig.send(Event::Removed)), [super::super::SIGTERM]);
    assert_eq!(signals(&rig.pass(2)), [SIGKILL]);
    rig.exit("c", 137);
    rig.send(Event::TornDown);
    assert_eq!(rig.machine.stage, Stage::TornDown);
    assert!(!rig.machine.deletion_is_due());
}

#[test]
fn a_pod_deleted_before_or_while_it_starts_never_runs() {
    let mut rig = Rig::new(one("Always"));
    assert_eq!(delete(&mut rig, 30), [Action::Teardown]);
    let mut rig = Rig::active(one("Always"));
    rig.send(Event::Mounted);
    let pulled = Event::Pulled {
        container: 0,
        result: Ok(image()),
    };
    rig.send(pulled);
    assert_eq!(
        delete(&mut rig, 30),
        [],
        "its start is under way and has to be waited for"
    );
    let id = rig.id("c");
    let actions = rig.send(Event::Started {
        container: 0,
        at: rig.now,
        id,
    });
    assert_eq!(signals(&actions), [super::super::SIGTERM]);
}

#[test]
fn the_pre_stop_hook_runs_within_the_grace_period() {
    let mut spec = one("Always");
    spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["bye"]}}});
    let mut rig = Rig::active(spec);
    rig.send(Event::Mounted);
    rig.up("c");
    let actions = delete(&mut rig, 30);
    assert!(actions.iter().any(|a| matches!(a, Action::PreStop { .. })));
    assert!(signals(&actions).is_empty());
    let (container, id) = (0, rig.id("c"));
    assert_eq!(
        signals(&rig.send(Event::PreStopDone { container, id })),
        [super::super::SIGTERM]
    );
    // A hook that hangs is overtaken by the deadline, and the container still gets two seconds.
    let mut spec = one("Always");
    spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["bye"]}}});
    let mut rig = Rig::active(spec);
    rig.send(Event::Mounted);
    rig.up("c");
    delete(&mut rig, 10);
    assert_eq!(signals(&rig.pass(10)), [super::super::SIGTERM]);
    assert_eq!(signals(&rig.pass(2)), [SIGKILL]);
}

#[test]
fn a_container_is_ready_after_its_hook_and_its_probes() {
    let mut spec = one("Always");
    spec["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["hi"]}}});
    spec["containers"][0]["startupProbe"] = json!({"exec": {"command": ["s"]}});
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["r"]}});
    let mut rig = Rig::active(spec);
    rig.send(Event::Mounted);
    let actions = rig.up("c");
    assert!(matches!(
        actions[..],
        [Action::Watch { .. }, Action::PostStart { .. }]
    ));
    let ready = |rig: &Rig| rig.status().container_statuses.unwrap()[0].ready;
    let (container, id) = (0, rig.id("c"));
    let actions = rig.send(Event::PostStart {
        container,
        id,
        result: Ok(()),
    });
    assert!(matches!(
        actions[..],
        [Action::Probe {
            after_startup: false,
            ..
        }]
    ));
    assert!(!ready(&rig));
    let actions = rig.probed("c", ProbeKind::Startup, true);
    assert!(matches!(
        actions[..],
        [Action::Probe {
            after_startup: true,
            ..
        }]
    ));
    assert!(!ready(&rig));
    rig.probed("c", ProbeKind::Readiness, true);
    assert!(ready(&rig));
    assert_eq!(rig.condition("Ready").0, "True");
    rig.probed("c", ProbeKind::Readiness, false);
    assert_eq!(
        rig.condition("Ready"),
        ("False".into(), "ContainersNotReady".into())
    );
}

#[test]
fn a_failed_liveness_probe_restarts_the_container() {
    let mut spec = one("Always");
    spec["containers"][0]["livenessProbe"] =
        json!({"exec": {"command": ["l"]}, "terminationGracePeriodSeconds": 3});
    let mut rig = Rig::active(spec);
    rig.send(Event::Mounted);
    rig.up("c");
    assert_eq!(
        signals(&rig.probed("c", ProbeKind::Liveness, false)),
        [super::super::SIGTERM]
    );
    assert_eq!(
        rig.told("Killing"),
        ["Container c failed liveness probe, will be restarted"]
    );
    assert!(
        signals(&rig.probed("c", ProbeKind::Liveness, false)).is_empty(),
        "once is enough"
    );
    assert_eq!(signals(&rig.pass(3)), [SIGKILL]);
    assert_eq!(pulls(&rig.exit("c", 137)), [0]);
}

#[test]
fn a_failed_post_start_hook_ends_the_container() {
    let mut spec = one("Never");
    spec["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["hi"]}}});
    let mut rig = Rig::active(spec);
    rig.send(Event::Mounted);
    rig.up("c");
    let (container, id) = (0, rig.id("c"));
    let actions = rig.send(Event::PostStart {
        container,
        id,
        result: Err("no".into()),
    });
    assert_eq!(signals(&actions), [super::super::SIGTERM]);
    assert_eq!(rig.told("FailedPostStartHook"), ["no"]);
}

#[test]
fn the_active_deadline_ends_the_pod_as_failed() {
    let mut spec = one("Always");
    spec["activeDeadlineSeconds"] = json!(5);
    let mut rig = Rig::active(spec);
    rig.send(Event::Mounted);
    rig.up("c");
    assert_eq!(
        rig.machine.next_deadline(),
        Some(rig.now + SignedDuration::from_secs(5))
    );
    assert_eq!(signals(&rig.pass(5)), [super::super::SIGTERM]);
    rig.exit("c", 143);
    let status = rig.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_pod_that_the_node_cannot_take_fails_at_once() {
    let mut rig = Rig::new(one("Always"));
    rig.send(Event::Tick);
    let rejected = Event::Rejected {
        reason: "OutOfcpu".into(),
        message: "too much".into(),
    };
    assert_eq!(rig.send(rejected), [Action::Teardown]);
    let status = rig.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert_eq!(
        status.message.as_deref(),
        Some("Pod was rejected: too much")
    );
    assert_eq!(rig.told("OutOfcpu"), ["too much"]);
    assert_eq!(status.container_statuses, None);
}

#[test]
fn a_program_that_cannot_be_executed_counts_as_ended() {
    let mut rig = Rig::active(one("Never"));
    rig.send(Event::Mounted);
    rig.send(Event::Pulled {
        container: 0,
        result: Ok(image()),
    });
    let failure = StartFailure::CannotRun {
        exit_code: 128,
        message: "no such file".into(),
    };
    let id = rig.id("c");
    assert!(
        rig.send(Event::StartFailed {
            container: 0,
            id,
            failure
        })
        .contains(&Action::Teardown)
    );
    assert_eq!(
        (rig.phase(), rig.reason("c")),
        ("Failed".into(), "StartError".into())
    );
    assert_eq!(rig.told("Failed"), ["Error: no such file"]);
}

#[test]
fn a_missing_config_holds_the_container_until_it_is_there() {
    let mut rig = Rig::active(one("Never"));
    rig.send(Event::Mounted);
    rig.send(Event::Pulled {
        container: 0,
        result: Ok(image()),
    });
    let failure = StartFailure::Config("configmap \"x\" not found".into());
    let id = rig.id("c");
    rig.send(Event::StartFailed {
        container: 0,
        id,
        failure,
    });
    assert_eq!(
        (rig.phase(), rig.reason("c")),
        ("Pending".into(), "CreateContainerConfigError".into())
    );
    let actions = rig.pass(1);
    assert!(
        matches!(actions[..], [Action::Start { attempt: 0, .. }]),
        "{actions:?}"
    );
}

#[test]
fn late_news_of_an_older_attempt_change_nothing() {
    let mut rig = Rig::active(one("Always"));
    rig.send(Event::Mounted);
    rig.up("c");
    let old = rig.id("c");
    rig.exit("c", 1);
    rig.up("c");
    let exit = Exit {
        code: 0,
        signal: None,
        oom_killed: false,
        message: None,
        at: rig.now,
    };
    let before = rig.machine.containers.clone();
    for event in [
        Event::Exited {
            container: 0,
            id: old.clone(),
            exit,
            message: None,
        },
        Event::Started {
            container: 0,
            at: rig.now,
            id: old.clone(),
        },
        Event::PreStopDone {
            container: 0,
            id: old.clone(),
        },
        Event::Probed {
            container: 0,
            id: old,
            kind: ProbeKind::Liveness,
            healthy: false,
        },
        Event::Pulled {
            container: 0,
            result: Ok(image()),
        },
        Event::Mounted,
        Event::TornDown,
        Event::Admitted(Ipv4Addr::new(127, 97, 0, 2)),
    ] {
        assert_eq!(rig.send(event), []);
    }
    assert_eq!(rig.machine.containers, before);
}

#[test]
fn the_next_start_goes_on_where_the_record_ends() {
    let mut rig = Rig::active(one("Always"));
    rig.send(Event::Mounted);
    rig.up("c");
    rig.exit("c", 1);
    rig.up("c");
    let id = rig.id("c");
    let text = serde_json::to_string(&rig.machine.record()).unwrap();
    let record: Record = serde_json::from_str(&text).unwrap();
    let mut machine = Machine::restore(rig.machine.pod.clone(), ids(), &record);
    assert_eq!(machine.containers[0].state, State::Starting(id.clone()));
    machine.apply(
        Event::Started {
            container: 0,
            at: rig.now,
            id: id.clone(),
        },
        rig.now,
    );
    let mut restored = Rig {
        machine,
        now: rig.now,
        emitted: Vec::new(),
    };
    assert_eq!(restored.send(Event::Tick), [Action::Admit]);
    restored.send(Event::Admitted(Ipv4Addr::new(127, 97, 0, 2)));
    assert_eq!(
        restored.send(Event::Mounted),
        [],
        "what runs is not started again"
    );
    assert_eq!(restored.status(), rig.status());
    // A start that never arrived is made again, as the same attempt.
    let mut machine = Machine::restore(rig.machine.pod.clone(), ids(), &record);
    machine.apply(Event::NotStarted { container: 0, id }, rig.now);
    assert_eq!(machine.containers[0].attempt, 1);
    assert_eq!(machine.containers[0].state, State::Waiting);
}

#[test]
fn a_stopping_kubelet_ends_pods_and_the_next_start_runs_them_again() {
    let mut rig = Rig::active(one("Always"));
    rig.send(Event::Mounted);
    rig.up("c");
    rig.exit("c", 1);
    rig.up("c");
    assert_eq!(signals(&rig.send(Event::Drain)), [super::super::SIGTERM]);
    assert!(!rig.machine.is_drained());
    assert!(
        !rig.exit("c", 0).contains(&Action::Teardown),
        "its volumes stay"
    );
    assert!(rig.machine.is_drained());
    assert_eq!(rig.phase(), "Running");
    let record = rig.machine.record();
    let machine = Machine::restore(rig.machine.pod.clone(), ids(), &record);
    let mut restored = Rig {
        machine,
        now: rig.now,
        emitted: Vec::new(),
    };
    restored.send(Event::Tick);
    restored.send(Event::Admitted(Ipv4Addr::new(127, 97, 0, 2)));
    assert_eq!(pulls(&restored.send(Event::Mounted)), [0]);

    let mut rig = Rig::active(one("Never"));
    rig.send(Event::Mounted);
    rig.up("c");
    rig.send(Event::Drain);
    rig.exit("c", 0);
    let status = rig.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Terminated"));
}
