//! Commands, mounts and rights of a container.

use super::*;
use crate::runtime::ImageKind;
use crate::volume::Mounted;
use serde_json::{Value, json};

struct Case {
    pod: Pod,
    volumes: MountedVolumes,
    environment: Environment,
    image_user: Option<u32>,
    own_uid: u32,
}

impl Case {
    fn new(pod_spec: Value) -> Self {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": pod_spec
        }))
        .unwrap();
        let mut environment = Environment::default();
        environment.set("A", "1");
        Self {
            pod,
            volumes: MountedVolumes::new(),
            environment,
            image_user: None,
            own_uid: 0,
        }
    }

    fn spec(&self) -> Result<ContainerSpec, StartFailure> {
        let image = Image {
            reference: "img".into(),
            id: "img".into(),
            kind: ImageKind::Host,
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: Vec::new(),
            working_dir: Some("/img".into()),
            user: self.image_user,
            size_bytes: 0,
        };
        let id = ContainerRef {
            id: "x".into(),
            state_dir: "/pods/u/containers/c/0".into(),
        };
        spec(Inputs {
            pod: &self.pod,
            container: &self.pod.spec.as_ref().unwrap().containers[0],
            id: &id,
            attempt: 0,
            image: &image,
            environment: self.environment.clone(),
            volumes: &self.volumes,
            pod_dir: Path::new("/pods/u"),
            pod_ip: Ipv4Addr::new(127, 97, 0, 9),
            own_uid: self.own_uid,
        })
    }
}

#[test]
fn command_and_args_replace_the_images_own_by_the_rules_of_kubernetes() {
    for (container, expect) in [
        (json!({}), vec!["/entry", "default"]),
        (
            json!({"args": ["$(A)", "$$(A)", "$(B)"]}),
            vec!["/entry", "1", "$(A)", "$(B)"],
        ),
        (json!({"command": ["run"]}), vec!["run"]),
        (json!({"command": ["run"], "args": ["x"]}), vec!["run", "x"]),
    ] {
        let mut container = container;
        container["name"] = json!("c");
        let spec = Case::new(json!({"containers": [container]}))
            .spec()
            .unwrap();
        assert_eq!(spec.argv(), expect);
        assert_eq!(spec.working_dir, Some("/img".into()));
        let ip = spec
            .env
            .iter()
            .find(|(n, _)| n == "CORACLE_POD_IP")
            .unwrap();
        assert_eq!(ip.1, "127.97.0.9");
    }
}

#[test]
fn mounts_follow_the_volumes_and_sub_paths_stay_inside() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("escape")).unwrap();
    let mut case = Case::new(json!({"containers": [{"name": "c", "volumeMounts": [
        {"name": "v", "mountPath": "/data"},
        {"name": "v", "mountPath": "/sub", "subPath": "a/b", "readOnly": true},
        {"name": "v", "mountPath": "/expr", "subPathExpr": "x-$(A)"}
    ]}]}));
    case.volumes.insert(
        "v".into(),
        Mounted {
            path: dir.path().into(),
            read_only: false,
        },
    );
    let spec = case.spec().unwrap();
    let mounts: Vec<_> = spec
        .mounts
        .iter()
        .map(|m| (m.target.to_str().unwrap(), m.read_only))
        .collect();
    assert_eq!(
        mounts,
        [
            ("/data", false),
            ("/sub", true),
            ("/expr", false),
            ("/dev/termination-log", false)
        ]
    );
    assert!(dir.path().join("a/b").is_dir());
    assert!(dir.path().join("x-1").is_dir());
    let with = |mount: Value| {
        let mut case = Case::new(json!({"containers": [{"name": "c", "volumeMounts": [mount]}]}));
        case.volumes.insert(
            "v".into(),
            Mounted {
                path: dir.path().into(),
                read_only: false,
            },
        );
        match case.spec() {
            Err(StartFailure::Config(message)) => message,
            other => panic!("{other:?}"),
        }
    };
    let escaped = with(json!({"name": "v", "mountPath": "/x", "subPath": "escape"}));
    assert!(escaped.contains("leads out of the volume"), "{escaped}");
    let unknown = with(json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(NONE)"}));
    assert!(unknown.contains("failed to expand subPath"), "{unknown}");
    let missing = with(json!({"name": "w", "mountPath": "/x"}));
    assert!(missing.contains("\"w\""), "{missing}");
}

#[test]
fn rights_come_from_the_container_before_the_pod_before_the_image() {
    let mut case = Case::new(json!({
        "securityContext": {"runAsUser": 1000, "runAsGroup": 7, "fsGroup": 5, "supplementalGroups": [6]},
        "containers": [{"name": "c", "securityContext": {
            "runAsUser": 65534, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["all"], "add": ["net_raw", "CAP_CHOWN"]}}}]
    }));
    case.image_user = Some(3);
    let security = case.spec().unwrap().security;
    assert_eq!(
        security,
        SecuritySpec {
            user: Some(65534),
            group: Some(7),
            supplemental_groups: vec![6, 5],
            privileged: false,
            no_new_privileges: true,
            read_only_root: true,
            add_capabilities: vec!["NET_RAW".into(), "CHOWN".into()],
            drop_capabilities: vec!["ALL".into()],
        }
    );
}

#[test]
fn a_pod_that_must_not_be_root_is_not_started_as_root() {
    let pod = json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]});
    let mut case = Case::new(pod);
    let Err(StartFailure::Config(message)) = case.spec() else {
        panic!("it was let through")
    };
    assert_eq!(
        message,
        "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)"
    );
    case.image_user = Some(1000);
    assert!(case.spec().is_ok());
    case.image_user = None;
    case.own_uid = 1000;
    assert!(case.spec().is_ok());
}
