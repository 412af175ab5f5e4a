//! The controllers that make a Kubernetes API server a cluster: Deployment, ReplicaSet, DaemonSet,
//! StatefulSet, Job, Service endpoints, the volume binder and its host-path provisioner, Namespace,
//! garbage collection, ServiceAccount and the scheduler.
//!
//! Entry: [`start`] with [`Options`]. Every controller is a level-triggered work queue over shared
//! caches (one watch per kind): a pure `plan(observed) -> Vec<Change>` decides and an async
//! `apply` carries the changes out. A write's answer goes into the cache at once, so a controller
//! always sees its own writes and never acts twice on old news.
//!
//! Invariant: `kube::Client` is the only door to the cluster. Nothing here knows which API server
//! answers, or whether it lives in this process. Absent: exec, CronJob, node health taints,
//! EndpointSlice mirroring.

mod daemonset;
mod deployment;
mod endpoints;
mod error;
mod garbage;
mod job;
mod meta;
mod namespace;
mod node;
mod quantity;
mod replicaset;
mod revision;
mod runtime;
mod scheduler;
mod serviceaccount;
mod statefulset;
mod volume;

pub use error::Error;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use stdx::{SharedClock, SharedRng, Supervisor};

use crate::garbage::Monitors;
use crate::runtime::{Informers, Recorder, Starter};

/// Gives the client for one identity of [`IDENTITIES`].
pub type ClientFor = Arc<dyn Fn(&str) -> kube::Client + Send + Sync>;

/// The identities this crate asks [`Options::client_for`] for. The first two are the users
/// `system:kube-controller-manager` (it also runs the shared watches) and `system:kube-scheduler`,
/// the others the service accounts of that name in `kube-system`, as upstream.
pub const IDENTITIES: &[&str] = &[
    "kube-controller-manager",
    "kube-scheduler",
    "daemon-set-controller",
    "deployment-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "generic-garbage-collector",
    "job-controller",
    "namespace-controller",
    "node-controller",
    "persistent-volume-binder",
    "pod-garbage-collector",
    "pv-protection-controller",
    "pvc-protection-controller",
    "replicaset-controller",
    "root-ca-cert-publisher",
    "service-account-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
];

/// The provisioner name that a StorageClass names to get folders under [`Options::volumes_root`].
pub const PROVISIONER: &str = "coracle.io/hostpath";

/// What the controllers need from the program that runs them.
#[derive(Clone)]
pub struct Options {
    /// The client of one identity. The client sets its own user agent (`kube-controller-manager`,
    /// `kube-scheduler`), which the API server takes as field manager.
    pub client_for: ClientFor,
    /// Where time comes from.
    pub clock: SharedClock,
    /// Where randomness comes from.
    pub rng: SharedRng,
    /// The folder under which the provisioner makes one folder per volume. `None`: no provisioner
    /// runs (another one serves the classes).
    pub volumes_root: Option<PathBuf>,
    /// The certificate bundle published as ConfigMap `kube-root-ca.crt` in every namespace.
    pub root_ca_pem: String,
    /// `spec.podCIDR` for the node, set when no node has it yet. `None`: nodes are left alone.
    pub node_pod_cidr: Option<String>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("volumes_root", &self.volumes_root)
            .field("node_pod_cidr", &self.node_pod_cidr)
            .finish_non_exhaustive()
    }
}

/// Starts every controller as tasks of `supervisor` and returns at once: each begins as soon as
/// its caches are filled, retries until the API server answers, and stops with the supervisor.
pub fn start(options: Options, supervisor: &Supervisor) -> Result<(), Error> {
    let client = |name: &str| (options.client_for)(name);
    let (manager, scheduler) = (client("kube-controller-manager"), client("kube-scheduler"));
    let starter = Starter {
        supervisor: supervisor.clone(),
        clock: options.clock.clone(),
    };
    let events = |component: &'static str| {
        let client = if component == NAME_OF_SCHEDULER {
            &scheduler
        } else {
            &manager
        };
        Recorder::new(client.clone(), component, options.clock.clone(), supervisor)
    };
    let informers = Informers::new();

    replicaset::start(
        &client("replicaset-controller"),
        &informers,
        events("replicaset-controller"),
        &starter,
    );
    deployment::start(
        &client("deployment-controller"),
        &informers,
        events("deployment-controller"),
        &starter,
    );
    daemonset::start(
        &client("daemon-set-controller"),
        &informers,
        events("daemonset-controller"),
        &starter,
    );
    statefulset::start(
        &client("statefulset-controller"),
        &informers,
        events("statefulset-controller"),
        &starter,
    );
    job::start(
        &client("job-controller"),
        &client("ttl-after-finished-controller"),
        &informers,
        events("job-controller"),
        &starter,
    );
    endpoints::start(
        &client("endpointslice-controller"),
        &client("endpoint-controller"),
        &informers,
        &starter,
    );
    volume::start_binder(
        &client("persistent-volume-binder"),
        &informers,
        events("persistentvolume-controller"),
        &starter,
        options.volumes_root.clone(),
    );
    volume::start_protection(
        &client("pvc-protection-controller"),
        &client("pv-protection-controller"),
        &informers,
        &starter,
    );
    serviceaccount::start(
        &client("service-account-controller"),
        &client("root-ca-cert-publisher"),
        &informers,
        &starter,
        options.root_ca_pem.clone(),
    );
    scheduler::start(&scheduler, &informers, events(NAME_OF_SCHEDULER), &starter);
    node::start_pod_collector(&client("pod-garbage-collector"), &informers, &starter);
    if let Some(cidr) = options.node_pod_cidr.clone() {
        node::start_addresses(&client("node-controller"), &informers, &starter, cidr);
    }

    let mut monitors = Monitors::new(manager.clone(), options.clock.clone(), supervisor);
    let collector = garbage::start_collector(client("generic-garbage-collector"), &mut monitors);
    let namespaces = namespace::start(client("namespace-controller"), &informers, &mut monitors);
    let monitors = Arc::new(monitors);
    collector(monitors.clone(), &starter);
    namespaces(monitors.clone(), &informers, &starter);

    informers.start(&manager, &options.clock, supervisor);
    monitors.start();
    Ok(())
}

/// How the scheduler signs its Events.
const NAME_OF_SCHEDULER: &str = "default-scheduler";
