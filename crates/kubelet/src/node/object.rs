//! The Node object (pure, but for questions to the operating system).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::Capacity;
use crate::quantity::{bytes, milli_units};
use crate::runtime::RuntimeInfo;

/// What the object says besides what the operating system knows.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) node_ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) capacity: Capacity,
    pub(crate) max_pods: u32,
    pub(crate) pod_cidr: (Ipv4Addr, u8),
    pub(crate) runtime: RuntimeInfo,
    pub(crate) version: String,
}

/// The whole object as it is registered.
pub(crate) fn node(facts: &Facts, now: Timestamp) -> Node {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let os = std::env::consts::OS;
    let mut labels = BTreeMap::new();
    for (key, value) in [
        ("kubernetes.io/hostname", facts.name.as_str()),
        ("kubernetes.io/os", os),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", os),
        ("beta.kubernetes.io/arch", architecture),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels.extend(facts.labels.iter().cloned());
    let cidr = format!("{}/{}", facts.pod_cidr.0, facts.pod_cidr.1);
    Node {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: Some(cidr.clone()),
            pod_cidrs: Some(vec![cidr]),
            ..NodeSpec::default()
        }),
        status: Some(status(facts, architecture, os, now)),
    }
}

fn status(facts: &Facts, architecture: &str, os: &str, now: Timestamp) -> NodeStatus {
    let quantity = |text: String| Quantity(text);
    let capacity: BTreeMap<String, Quantity> = [
        ("cpu", milli_units(facts.capacity.milli_cpu)),
        ("memory", bytes(facts.capacity.memory)),
        ("ephemeral-storage", bytes(facts.capacity.ephemeral_storage)),
        ("pods", facts.max_pods.to_string()),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), quantity(text)))
    .collect();
    let address = |kind: &str, address: String| NodeAddress {
        type_: kind.to_owned(),
        address,
    };
    let uname = rustix::system::uname();
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|t| t.trim().to_owned())
            .unwrap_or_default()
    };
    let os_image = read("/etc/os-release")
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or("Linux", |name| name.trim_matches('"'))
        .to_owned();
    let machine_id = read("/etc/machine-id");
    NodeStatus {
        capacity: Some(capacity.clone()),
        allocatable: Some(capacity),
        conditions: Some(conditions(now)),
        addresses: Some(vec![
            address("InternalIP", facts.node_ip.to_string()),
            address("Hostname", facts.name.clone()),
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(facts.port),
            }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: architecture.to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            container_runtime_version: format!(
                "{}://{}",
                facts.runtime.name, facts.runtime.version
            ),
            kernel_version: uname.release().to_string_lossy().into_owned(),
            kube_proxy_version: String::new(),
            kubelet_version: facts.version.clone(),
            machine_id: machine_id.clone(),
            operating_system: os.to_owned(),
            os_image,
            system_uuid: machine_id,
            swap: None,
        }),
        ..NodeStatus::default()
    }
}

fn conditions(now: Timestamp) -> Vec<NodeCondition> {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    vec![
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        condition(
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        condition(
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        condition(
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
        ),
    ]
}
