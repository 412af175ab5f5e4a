//! The shell around the plans of claims and volumes: queues, writes, Events.

use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Client, ResourceExt as _};
use stdx::SharedClock;

use super::matching;
use super::plan::{self, Change, Observed};
use super::provisioner::Provisioner;
use crate::Error;
use crate::runtime::{self, Handle, Informers, Key, Queue, Recorder, Starter};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Claim(Key),
    Volume(Key),
}

struct Binder {
    claims: Handle<PersistentVolumeClaim>,
    volumes: Handle<PersistentVolume>,
    classes: Handle<StorageClass>,
    nodes: Handle<Node>,
    events: Recorder,
    clock: SharedClock,
    provisioner: Option<Provisioner>,
    queue: Arc<Queue<Work>>,
}

pub(crate) fn start(
    client: &Client,
    informers: &Informers,
    events: Recorder,
    starter: &Starter,
    volumes_root: Option<std::path::PathBuf>,
) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.persistent_volume_claims.on_change(move |change| {
        for claim in change.sides() {
            keys.add(Work::Claim(Key::of(claim.as_ref())));
            if let Some(volume) = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_ref())
            {
                keys.add(Work::Volume(Key::new("", volume)));
            }
        }
    });
    let (keys, claims) = (queue.clone(), informers.persistent_volume_claims.clone());
    informers.persistent_volumes.on_change(move |change| {
        let Some(volume) = change.latest() else {
            return;
        };
        keys.add(Work::Volume(Key::of(volume.as_ref())));
        // A volume that comes, changes or goes may be what a claim waits for or has lost.
        for claim in claims.all() {
            let names = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_deref());
            if !matching::is_bound(&claim) || names == volume.metadata.name.as_deref() {
                keys.add(Work::Claim(Key::of(claim.as_ref())));
            }
        }
    });
    let (keys, claims) = (queue.clone(), informers.persistent_volume_claims.clone());
    informers.storage_classes.on_change(move |_| {
        for claim in claims.all() {
            if !matching::is_bound(&claim) {
                keys.add(Work::Claim(Key::of(claim.as_ref())));
            }
        }
    });
    let volumes = Handle::new(client, &informers.persistent_volumes);
    let binder = Arc::new(Binder {
        claims: Handle::new(client, &informers.persistent_volume_claims),
        volumes: volumes.clone(),
        classes: Handle::new(client, &informers.storage_classes),
        nodes: Handle::new(client, &informers.nodes),
        events,
        clock: starter.clock.clone(),
        provisioner: volumes_root.map(|root| Provisioner::new(root, volumes)),
        queue: queue.clone(),
    });
    let synced = vec![
        informers.persistent_volume_claims.synced().boxed(),
        informers.persistent_volumes.synced().boxed(),
        informers.storage_classes.synced().boxed(),
        informers.nodes.synced().boxed(),
    ];
    starter.run("persistent volume binder", queue, synced, move |work| {
        let binder = binder.clone();
        async move { binder.reconcile(work).await }
    });
}

impl Binder {
    async fn reconcile(&self, work: Work) -> runtime::Outcome {
        let observed = Observed {
            volumes: self.volumes.all(),
            classes: self.classes.all(),
            nodes: self.nodes.all(),
            now: self.clock.now(),
            provisions: self.provisioner.is_some(),
        };
        match work {
            Work::Claim(key) => {
                let Some(claim) = self.claims.get(&key) else {
                    return Ok(None);
                };
                self.apply_to_claim(&claim, plan::claim(&claim, &observed))
                    .await?;
            }
            Work::Volume(key) => {
                let Some(volume) = self.volumes.get(&key) else {
                    return Ok(None);
                };
                let claim = self.claim_of(&volume).await?;
                let changes = plan::volume(&volume, claim.as_deref(), &observed);
                self.apply_to_volume(&volume, changes).await?;
            }
        }
        Ok(None)
    }

    /// The claim a volume is tied to. A claim the cache does not know is looked up, since taking it
    /// for deleted costs data.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
        let reference = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        let Some(reference) = reference else {
            return Ok(None);
        };
        let key = Key::new(
            reference.namespace.clone().unwrap_or_default(),
            reference.name.clone().unwrap_or_default(),
        );
        let cached = self.claims.get(&key);
        if cached
            .as_ref()
            .is_some_and(|claim| claim.metadata.uid == reference.uid)
        {
            return Ok(cached);
        }
        if reference.uid.as_deref().is_none_or(str::is_empty) {
            return Ok(cached);
        }
        Ok(self.claims.live(&key).await?.map(Arc::new))
    }

    async fn apply_to_claim(
        &self,
        claim: &Arc<PersistentVolumeClaim>,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        // A status builds on the version that the write before it has made.
        let mut version = claim.resource_version();
        let mut volume_version = None;
        for change in changes {
            match change {
                Change::Claim(mut updated) => {
                    updated.metadata.resource_version = version;
                    version = self.claims.replace(&updated).await?.resource_version();
                }
                Change::ClaimStatus(mut updated) => {
                    updated.metadata.resource_version = version;
                    version = self
                        .claims
                        .replace_status(&updated)
                        .await?
                        .resource_version();
                }
                Change::Provision(class) => self.provision(claim, &class).await?,
                Change::Normal { reason, message } => {
                    self.events.normal(claim.as_ref(), reason, message);
                }
                Change::Warning { reason, message } => {
                    self.events.warning(claim.as_ref(), reason, message);
                }
                other => self.write_volume(other, &mut volume_version).await?,
            }
        }
        Ok(())
    }

    async fn apply_to_volume(
        &self,
        volume: &Arc<PersistentVolume>,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        let mut version = None;
        for change in changes {
            match change {
                Change::DeleteVolume => self.delete(volume).await?,
                Change::LookAtClaim(reference) => {
                    let namespace = reference.namespace.unwrap_or_default();
                    let name = reference.name.unwrap_or_default();
                    self.queue.add(Work::Claim(Key::new(namespace, name)));
                }
                Change::Normal { reason, message } => {
                    self.events.normal(volume.as_ref(), reason, message);
                }
                Change::Warning { reason, message } => {
                    self.events.warning(volume.as_ref(), reason, message);
                }
                other => self.write_volume(other, &mut version).await?,
            }
        }
        Ok(())
    }

    async fn write_volume(
        &self,
        change: Change,
        version: &mut Option<String>,
    ) -> Result<(), Error> {
        let written = match change {
            Change::Volume(mut updated) => {
                if let Some(version) = version.take() {
                    updated.metadata.resource_version = Some(version);
                }
                self.volumes.replace(&updated).await?
            }
            Change::VolumeStatus(mut updated) => {
                if let Some(version) = version.take() {
                    updated.metadata.resource_version = Some(version);
                }
                self.volumes.replace_status(&updated).await?
            }
            _ => return Ok(()),
        };
        *version = written.resource_version();
        Ok(())
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<(), Error> {
        let Some(provisioner) = &self.provisioner else {
            return Ok(());
        };
        match provisioner.make(claim, class).await {
            Ok(name) => {
                let message = format!("Successfully provisioned volume {name}");
                self.events.normal(claim, "ProvisioningSucceeded", message);
                Ok(())
            }
            Err(error) => {
                let problem = match &error {
                    Error::Api { .. } => error.message(),
                    other => stdx::error::chain(other),
                };
                let class = class.name_any();
                let message =
                    format!("failed to provision volume with StorageClass {class:?}: {problem}");
                self.events.warning(claim, "ProvisioningFailed", message);
                Err(error)
            }
        }
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let Some(provisioner) = &self.provisioner else {
            return Ok(());
        };
        let result = provisioner.remove(volume).await;
        if let Err(error) = &result {
            self.events
                .warning(volume, "VolumeFailedDelete", stdx::error::chain(error));
        }
        result
    }
}
