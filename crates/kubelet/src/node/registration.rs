//! Registering the Node and keeping it alive: its status every five minutes, its Lease every ten
//! seconds.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use stdx::SharedClock;

pub(crate) use super::object::Facts;
use super::object::{self};
use crate::Error;

/// How long others believe that the node lives after its last sign.
const LEASE_SECONDS: i32 = 40;
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// How many Lease periods pass between two statuses.
const STATUS_EVERY: u32 = 30;

fn refused(attempt: &str) -> impl FnOnce(kube::Error) -> Error + '_ {
    move |source| Error::Api {
        attempt: attempt.to_owned(),
        source: Box::new(source),
    }
}

/// Creates the Node or takes it over from an earlier start; its conditions say `Ready` afterwards.
pub(crate) async fn register(
    client: &Client,
    facts: &Facts,
    now: Timestamp,
) -> Result<Node, Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let wanted = object::node(facts, now);
    let attempt = format!("register node {}", facts.name);
    let created = match nodes.create(&PostParams::default(), &wanted).await {
        Ok(created) => created,
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let patch = json!({"metadata": {"labels": wanted.metadata.labels}});
            nodes
                .patch(
                    &facts.name,
                    &PatchParams::default(),
                    &Patch::Strategic(&patch),
                )
                .await
                .map_err(refused(&attempt))?
        }
        Err(error) => return Err(refused(&attempt)(error)),
    };
    write_status(&nodes, facts, &created, now)
        .await
        .map_err(refused(&attempt))
}

/// Brings the status up to date; a condition's time of transition stays unless it changes.
async fn write_status(
    nodes: &Api<Node>,
    facts: &Facts,
    known: &Node,
    now: Timestamp,
) -> Result<Node, kube::Error> {
    let mut status = object::node(facts, now).status.unwrap_or_default();
    let old = known.status.as_ref().and_then(|s| s.conditions.as_ref());
    for condition in status.conditions.iter_mut().flatten() {
        let before = old
            .into_iter()
            .flatten()
            .find(|c| c.type_ == condition.type_);
        if let Some(before) = before.filter(|b| b.status == condition.status) {
            condition
                .last_transition_time
                .clone_from(&before.last_transition_time);
        }
    }
    // The list of addresses is merged by type, which keeps addresses of an earlier start's slice
    // from staying: both types are always written.
    let patch = json!({"status": status});
    nodes
        .patch_status(
            &facts.name,
            &PatchParams::default(),
            &Patch::Strategic(&patch),
        )
        .await
}

/// Renews Lease and status until dropped. A Node that was deleted is registered again.
pub(crate) async fn heartbeat(client: Client, clock: SharedClock, facts: Facts, mut node: Node) {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut beat = 0_u32;
    loop {
        let now = clock.now();
        if beat > 0 && beat.is_multiple_of(STATUS_EVERY) {
            let result = match write_status(&nodes, &facts, &node, now).await {
                Err(kube::Error::Api(answer)) if answer.code == 404 => {
                    register(&client, &facts, now)
                        .await
                        .map_err(|e| stdx::error::chain(&e))
                }
                other => other.map_err(|e| stdx::error::chain(&e)),
            };
            match result {
                Ok(fresh) => node = fresh,
                Err(error) => tracing::warn!("report the node's status: {error}"),
            }
        }
        if let Err(error) = renew(&client, &node, now).await {
            tracing::warn!("renew the node's lease: {}", stdx::error::chain(&error));
        }
        clock.sleep(LEASE_PERIOD).await;
        beat = beat.wrapping_add(1);
    }
}

async fn renew(client: &Client, node: &Node, now: Timestamp) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let name = node.name_any();
    let patch = json!({"spec": {"renewTime": MicroTime(now), "holderIdentity": name}});
    match leases
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {}
        other => return other.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.clone(),
                uid: node.uid().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    };
    leases
        .create(&PostParams::default(), &lease)
        .await
        .map(drop)
}
