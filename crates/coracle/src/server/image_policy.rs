//! ImagePolicy and ClusterImagePolicy of IBM Cloud Private
//! (`securityenforcement.admission.cloud.ibm.com/v1beta1`), enforced at admission.
//!
//! Without any policy everything is admitted. Once a namespace has an ImagePolicy, its images must
//! match a repository of one of them; where it has none, ClusterImagePolicies decide if there are
//! any. Policies are read from the API server's cache at each write, so a change counts at once.

use std::collections::BTreeSet;

use apiserver::admission::{Admission, AdmissionRequest, Denied, Operation};
use futures::future::BoxFuture;
use serde_json::Value;

const GROUP: &str = "securityenforcement.admission.cloud.ibm.com";

/// The admission hook.
#[derive(Debug)]
pub(crate) struct ImagePolicies;

impl Admission for ImagePolicies {
    fn admit<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
    ) -> BoxFuture<'a, Result<Vec<String>, Denied>> {
        Box::pin(std::future::ready(judge(request).map(|()| Vec::new())))
    }
}

fn judge(request: &AdmissionRequest) -> Result<(), Denied> {
    if !matches!(request.operation, Operation::Create | Operation::Update)
        || !matches!(request.subresource.as_str(), "" | "ephemeralcontainers")
    {
        return Ok(());
    }
    let Some(path) = pod_spec_path(&request.group, &request.kind) else {
        return Ok(());
    };
    let mut images = images(&request.object, path);
    if let Some(old) = &request.old_object {
        // What runs already may be relabelled, scaled and deleted under a stricter policy.
        for image in self::images(old, path) {
            images.remove(image);
        }
    }
    if images.is_empty() {
        return Ok(());
    }
    let (mut policies, mut which) = (
        request
            .reader
            .list(GROUP, "imagepolicies", &request.namespace),
        format!("ImagePolicy of namespace {:?}", request.namespace),
    );
    if policies.is_empty() {
        policies = request.reader.list(GROUP, "clusterimagepolicies", "");
        "ClusterImagePolicy".clone_into(&mut which);
    }
    if policies.is_empty() {
        return Ok(());
    }
    let repositories: Vec<&str> = policies.iter().flat_map(|p| repositories(p)).collect();
    for image in images {
        let full = normalised(image);
        if !repositories
            .iter()
            .any(|pattern| matches(&normalised(pattern), &full))
        {
            return Err(Denied::forbidden(format!(
                "admission webhook \"trust.hooks.{GROUP}\" denied the request: Deny {image:?}, no \
                 matching repositories in the {which} (allowed: {})",
                if repositories.is_empty() {
                    "none".to_owned()
                } else {
                    repositories.join(", ")
                }
            )));
        }
    }
    Ok(())
}

/// Where a kind keeps its Pod spec; `None` for kinds without one.
fn pod_spec_path(group: &str, kind: &str) -> Option<&'static str> {
    match (group, kind) {
        ("", "Pod") => Some("/spec"),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet")
        | ("batch", "Job") => Some("/spec/template/spec"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template/spec"),
        _ => None,
    }
}

fn images<'a>(object: &'a Value, path: &str) -> BTreeSet<&'a str> {
    let spec = object.pointer(path).unwrap_or(&Value::Null);
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
        .filter_map(|container| container["image"].as_str())
        .collect()
}

fn repositories(policy: &Value) -> impl Iterator<Item = &str> {
    policy["spec"]["repositories"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["name"].as_str())
}

/// The reference with its registry and, for Docker Hub, its library: `x` is
/// `docker.io/library/x`, `a/b` is `docker.io/a/b`.
fn normalised(reference: &str) -> String {
    match reference.split_once('/') {
        _ if reference == "*" => reference.to_owned(),
        None => format!("docker.io/library/{reference}"),
        Some((first, rest)) => {
            let registry = first.contains(['.', ':', '*']) || first == "localhost";
            match (registry, first, rest.contains('/')) {
                (true, "docker.io" | "index.docker.io", false) if !rest.starts_with('*') => {
                    format!("docker.io/library/{rest}")
                }
                (true, "index.docker.io", _) => format!("docker.io/{rest}"),
                (true, ..) => reference.to_owned(),
                (false, ..) => format!("docker.io/{reference}"),
            }
        }
    }
}

/// Whether `pattern` covers `image`; `*` stands for any text, slashes included. A pattern without a
/// tag covers every tag and digest.
fn matches(pattern: &str, image: &str) -> bool {
    if glob(pattern, image) {
        return true;
    }
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let tag = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    glob(pattern, name) || tag.is_some_and(|at| glob(pattern, &name[..at]))
}

fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_full() {
        for (short, full) in [
            ("x", "docker.io/library/x"),
            ("x:1", "docker.io/library/x:1"),
            ("a/b", "docker.io/a/b"),
            ("docker.io/x", "docker.io/library/x"),
            ("docker.io/*", "docker.io/*"),
            ("gcr.io/a/b:1", "gcr.io/a/b:1"),
            ("localhost/x", "localhost/x"),
            ("localhost:5000/x", "localhost:5000/x"),
            ("ibmcom/*", "docker.io/ibmcom/*"),
            ("*", "*"),
        ] {
            assert_eq!(normalised(short), full);
        }
    }

    #[test]
    fn a_star_crosses_slashes_and_tags_are_covered() {
        for (pattern, image, covered) in [
            ("docker.io/*", "metallb/speaker:v0.7.3", true),
            ("docker.io/*", "x", true),
            ("gcr.io/*", "gcr.io/a/b/c:1", true),
            ("gcr.io/*", "evil.example.com/gcr.io/x", false),
            ("gcr.io/a/b", "gcr.io/a/b:v1", true),
            ("gcr.io/a/b", "gcr.io/a/b@sha256:00", true),
            ("gcr.io/a/b", "gcr.io/a/bc", false),
            ("gcr.io/a/b:v1", "gcr.io/a/b:v2", false),
            ("registry:5000/x", "registry:5000/x", true),
            ("*/web-ui", "gcr.io/kubeflow-examples/mnist/web-ui:v1", true),
            ("*", "anything/at:all", true),
        ] {
            let got = matches(&normalised(pattern), &normalised(image));
            assert_eq!(got, covered, "{pattern} against {image}");
        }
    }
}
