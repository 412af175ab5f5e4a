//! All rows: names and verbs from `data/resources.txt`, strategies from the match below.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::kind::{ALL_VERBS, Kind, Name, SUB_VERBS, Strategy, Subresource};
use crate::{apps, batch, convert, core, groups, rbac, storage};

static ALL: LazyLock<Vec<Kind>> = LazyLock::new(|| parse(include_str!("../data/resources.txt")));

/// Every built-in kind, by group, version and plural.
pub fn all() -> &'static [Kind] {
    &ALL
}

/// The row of a resource: `find("apps", "v1", "deployments")`.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    ALL.iter()
        .find(|row| row.group == group && row.version == version && row.plural == plural)
}

/// The row of a kind: `find_kind("apps", "v1", "Deployment")`.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    ALL.iter()
        .find(|row| row.group == group && row.version == version && row.kind == kind)
}

fn strategy(group: &str, version: &str, kind: &'static str) -> Strategy {
    let mut strategy = match (group, kind) {
        ("", "ComponentStatus") => core::quota::COMPONENT_STATUS,
        ("", "ConfigMap") => core::config::CONFIG_MAP,
        ("", "Endpoints") => core::endpoints::ENDPOINTS,
        ("", "Event") => core::event::STRATEGY,
        ("", "LimitRange") => core::quota::LIMIT_RANGE,
        ("", "Namespace") => core::namespace::STRATEGY,
        ("", "Node") => core::node::STRATEGY,
        ("", "PersistentVolume") => core::volume::VOLUME,
        ("", "PersistentVolumeClaim") => core::volume::CLAIM,
        ("", "Pod") => core::pod::STRATEGY,
        ("", "PodTemplate") => core::quota::POD_TEMPLATE,
        ("", "ReplicationController") => apps::REPLICATION_CONTROLLER,
        ("", "ResourceQuota") => core::quota::RESOURCE_QUOTA,
        ("", "Secret") => core::config::SECRET,
        ("", "Service") => core::service::STRATEGY,
        ("", "ServiceAccount") => core::config::SERVICE_ACCOUNT,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
            groups::admission::MUTATING_WEBHOOKS
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            groups::admission::ADMISSION_POLICY
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            groups::admission::ADMISSION_BINDING
        }
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            groups::admission::VALIDATING_WEBHOOKS
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => groups::apiextensions::STRATEGY,
        ("apiregistration.k8s.io", "APIService") => groups::admission::API_SERVICE,
        ("apps", "ControllerRevision") => apps::CONTROLLER_REVISION,
        ("apps", "DaemonSet") => apps::DAEMON_SET,
        ("apps", "Deployment") => apps::DEPLOYMENT,
        ("apps", "ReplicaSet") => apps::REPLICA_SET,
        ("apps", "StatefulSet") => apps::STATEFUL_SET,
        ("autoscaling", "HorizontalPodAutoscaler") => groups::policy::AUTOSCALER,
        ("batch", "CronJob") => batch::CRON_JOB,
        ("batch", "Job") => batch::JOB,
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            groups::admission::CERTIFICATE_REQUEST
        }
        ("coordination.k8s.io", "Lease") => groups::policy::LEASE,
        ("discovery.k8s.io", "EndpointSlice") => core::endpoints::ENDPOINT_SLICE,
        ("events.k8s.io", "Event") => core::event::NEW_STRATEGY,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => groups::admission::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            groups::admission::PRIORITY_LEVEL
        }
        ("networking.k8s.io", "IPAddress") => groups::networking::IP_ADDRESS,
        ("networking.k8s.io", "Ingress") => groups::networking::INGRESS,
        ("networking.k8s.io", "IngressClass") => groups::networking::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => groups::networking::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => groups::networking::SERVICE_CIDR,
        ("node.k8s.io", "RuntimeClass") => groups::policy::RUNTIME_CLASS,
        ("policy", "PodDisruptionBudget") => groups::policy::DISRUPTION_BUDGET,
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::CLUSTER_ROLE_BINDING,
        ("rbac.authorization.k8s.io", "Role") => rbac::ROLE,
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::ROLE_BINDING,
        ("resource.k8s.io", "DeviceClass") => groups::policy::DEVICE_CLASS,
        ("resource.k8s.io", "ResourceClaim") => groups::policy::RESOURCE_CLAIM,
        ("resource.k8s.io", "ResourceClaimTemplate") => groups::policy::RESOURCE_CLAIM_TEMPLATE,
        ("resource.k8s.io", "ResourceSlice") => groups::policy::RESOURCE_SLICE,
        ("scheduling.k8s.io", "PriorityClass") => groups::policy::PRIORITY_CLASS,
        ("storage.k8s.io", "CSIDriver") => storage::CSI_DRIVER,
        ("storage.k8s.io", "CSINode") => storage::CSI_NODE,
        ("storage.k8s.io", "StorageClass") => storage::STORAGE_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => storage::VOLUME_ATTACHMENT,
        ("storage.k8s.io", "VolumeAttributesClass") => storage::ATTRIBUTES_CLASS,
        _ => Strategy::GENERIC,
    };
    if (group, version) == ("apps", "v1beta2") {
        let warning = convert::V1BETA2_WARNINGS
            .iter()
            .find(|(name, _)| *name == kind);
        strategy.deprecation = warning.map(|(_, text)| *text);
    }
    strategy
}

fn parse(text: &'static str) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with(' ') {
            let owner = kinds
                .last_mut()
                .expect("invariant: a subresource follows its resource");
            owner.subresources.push(parse_subresource(line));
        } else {
            kinds.push(parse_kind(line));
        }
    }
    kinds
}

fn parse_kind(line: &'static str) -> Kind {
    let words: Vec<&'static str> = line.split_whitespace().collect();
    let [group_version, plural, kind, scope, options @ ..] = words.as_slice() else {
        unreachable!("invariant: the table's lines have four words, which a test checks");
    };
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    Kind {
        group: Cow::Borrowed(group),
        version: Cow::Borrowed(version),
        kind: Cow::Borrowed(kind),
        plural: Cow::Borrowed(plural),
        singular: Cow::Owned(kind.to_lowercase()),
        namespaced: *scope == "ns",
        short_names: option(options, "short=").unwrap_or_default(),
        categories: option(options, "cat=").unwrap_or_default(),
        verbs: option(options, "verbs=").unwrap_or_else(|| ALL_VERBS.map(Cow::Borrowed).to_vec()),
        subresources: Vec::new(),
        strategy: strategy(group, version, kind),
    }
}

fn parse_subresource(line: &'static str) -> Subresource {
    let words: Vec<&'static str> = line.split_whitespace().collect();
    let (name, path) = (words[0], words[1]);
    let parts: Vec<&'static str> = path.split('/').collect();
    let (kind, group_version) = match parts.as_slice() {
        [group, version, kind] => (
            *kind,
            Some((Cow::Borrowed(*group), Cow::Borrowed(*version))),
        ),
        _ => (path, None),
    };
    Subresource {
        name: Cow::Borrowed(name),
        kind: Cow::Borrowed(kind),
        group_version,
        verbs: option(&words[2..], "verbs=")
            .unwrap_or_else(|| SUB_VERBS.map(Cow::Borrowed).to_vec()),
    }
}

fn option(words: &[&'static str], key: &str) -> Option<Vec<Name>> {
    let value = words.iter().find_map(|word| word.strip_prefix(key))?;
    Some(value.split(',').map(Cow::Borrowed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctx::Ctx;

    #[test]
    fn rows_are_read() {
        let pods = find("", "v1", "pods").unwrap();
        assert_eq!((&*pods.kind, pods.namespaced), ("Pod", true));
        assert_eq!(pods.short_names, ["po"]);
        assert_eq!(pods.subresource("eviction").unwrap().kind, "Eviction");
        assert_eq!(pods.subresource("log").unwrap().verbs, ["get"]);
        let deployments = find("apps", "v1", "deployments").unwrap();
        let scale = deployments.subresource("scale").unwrap();
        assert_eq!(
            scale.group_version,
            Some(("autoscaling".into(), "v1".into()))
        );
        assert!(
            !find("", "v1", "namespaces")
                .unwrap()
                .has_verb("deletecollection")
        );
    }

    #[test]
    fn what_has_a_status_endpoint_treats_it_as_one() {
        for kind in all() {
            let served = kind.subresource("status").is_some();
            assert_eq!(
                kind.strategy.has_status,
                served,
                "{}",
                kind.group_resource()
            );
        }
    }

    #[test]
    fn every_row_takes_an_empty_object_and_fills_its_columns() {
        let ctx = Ctx::new(jiff::Timestamp::UNIX_EPOCH);
        for kind in all() {
            let mut object = serde_json::json!({});
            kind.default(&mut object);
            kind.prepare_create(&ctx, &mut object);
            assert!(
                !kind.validate_create(&ctx, &object).is_empty(),
                "{}",
                kind.group_kind()
            );
            let row = kind.row(&ctx, &object);
            assert_eq!(row.len(), kind.columns().len(), "{}", kind.group_resource());
            let old = object.clone();
            kind.prepare_update(&ctx, &mut object, &old);
            kind.validate_update(&ctx, &object, &old);
            kind.prepare_status_update(&ctx, &mut object, &old);
            kind.validate_status_update(&ctx, &object, &old);
        }
    }
}
