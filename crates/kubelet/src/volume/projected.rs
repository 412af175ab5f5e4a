//! The files of ConfigMap, Secret, downward API and projected volumes.

use std::path::PathBuf;

use jiff::SignedDuration;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount,
    ServiceAccountTokenProjection, Volume,
};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::files::{self, FileData, Payload};
use super::{Origins, Problem, Volumes, common_user};
use crate::changes::{Key, Kind};
use crate::pod::downward::{self, Facts};

/// The files of a volume and the user they must belong to, if only one user may read them.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) files: Payload,
    pub(super) user: Option<u32>,
}

/// Whether a volume holds files that are written from objects.
pub(super) fn is_made_of_files(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

impl Volumes {
    /// The files that a volume should hold now.
    pub(super) async fn payload(
        &self,
        pod: &Pod,
        volume: &Volume,
        facts: &Facts,
        origins: &mut Origins,
    ) -> Result<Files, Problem> {
        let mut out = Files::default();
        let mode = |default: Option<i32>| default.map_or(0o644, |m| m as u32 & 0o777);
        if let Some(source) = &volume.config_map {
            let optional = source.optional == Some(true);
            let items = source.items.as_deref();
            out.files = self
                .config_map(
                    pod,
                    &source.name,
                    items,
                    optional,
                    mode(source.default_mode),
                    origins,
                )
                .await?;
        } else if let Some(source) = &volume.secret {
            let optional = source.optional == Some(true);
            let name = source.secret_name.as_deref().unwrap_or_default();
            let items = source.items.as_deref();
            out.files = self
                .secret(
                    pod,
                    name,
                    items,
                    optional,
                    mode(source.default_mode),
                    origins,
                )
                .await?;
        } else if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            out.files = downward_files(pod, items, facts, mode(source.default_mode))?;
        } else if let Some(source) = &volume.projected {
            let mode = mode(source.default_mode);
            for part in source.sources.iter().flatten() {
                if let Some(map) = &part.config_map {
                    let optional = map.optional == Some(true);
                    let items = map.items.as_deref();
                    out.files.extend(
                        self.config_map(pod, &map.name, items, optional, mode, origins)
                            .await?,
                    );
                }
                if let Some(secret) = &part.secret {
                    let optional = secret.optional == Some(true);
                    let items = secret.items.as_deref();
                    out.files.extend(
                        self.secret(pod, &secret.name, items, optional, mode, origins)
                            .await?,
                    );
                }
                if let Some(downward) = &part.downward_api {
                    let items = downward.items.as_deref().unwrap_or_default();
                    out.files.extend(downward_files(pod, items, facts, mode)?);
                }
                if let Some(token) = &part.service_account_token {
                    let user = pod.spec.as_ref().and_then(common_user);
                    let (path, bytes) = self.token(pod, token, origins).await?;
                    // With one user for the whole Pod nobody else needs to read the token.
                    let file_mode = if user.is_some() { 0o600 } else { mode };
                    out.user = user;
                    out.files.insert(
                        path,
                        FileData {
                            bytes,
                            mode: file_mode,
                        },
                    );
                }
                if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
                    return Err(format!(
                        "volume {:?} projects a source that this node does not know (allowed: configMap, downwardAPI, secret, serviceAccountToken)",
                        volume.name
                    )
                    .into());
                }
            }
        }
        Ok(out)
    }

    async fn config_map(
        &self,
        pod: &Pod,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: u32,
        origins: &mut Origins,
    ) -> Result<Payload, Problem> {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
        let found = api
            .get_opt(name)
            .await
            .map_err(|e| Problem::from(stdx::error::chain(&e)))?;
        let key = Key {
            kind: Kind::ConfigMap,
            namespace,
            name: name.to_owned(),
        };
        let version = found.as_ref().and_then(ResourceExt::resource_version);
        origins.objects.insert(key.clone(), version.clone());
        match found {
            Some(map) => {
                files::select(files::config_map_data(map), items, optional, mode).map_err(|text| {
                    Problem {
                        text: format!("configmap {text}"),
                        waits_for: Some((key, version)),
                    }
                })
            }
            None if optional => Ok(Payload::new()),
            None => Err(Problem {
                text: format!("configmap {name:?} not found"),
                waits_for: Some((key, None)),
            }),
        }
    }

    async fn secret(
        &self,
        pod: &Pod,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: u32,
        origins: &mut Origins,
    ) -> Result<Payload, Problem> {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let found = api
            .get_opt(name)
            .await
            .map_err(|e| Problem::from(stdx::error::chain(&e)))?;
        let key = Key {
            kind: Kind::Secret,
            namespace,
            name: name.to_owned(),
        };
        let version = found.as_ref().and_then(ResourceExt::resource_version);
        origins.objects.insert(key.clone(), version.clone());
        match found {
            Some(secret) => files::select(files::secret_data(secret), items, optional, mode)
                .map_err(|text| Problem {
                    text: format!("secret {text}"),
                    waits_for: Some((key, version)),
                }),
            None if optional => Ok(Payload::new()),
            None => Err(Problem {
                text: format!("secret {name:?} not found"),
                waits_for: Some((key, None)),
            }),
        }
    }

    async fn token(
        &self,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
        origins: &mut Origins,
    ) -> Result<(PathBuf, Vec<u8>), Problem> {
        let path = files::relative(&source.path)?;
        let namespace = pod.namespace().unwrap_or_default();
        let account = pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned());
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &namespace);
        let seconds = source.expiration_seconds.unwrap_or(3600);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: source
                    .audience
                    .clone()
                    .filter(|a| !a.is_empty())
                    .into_iter()
                    .collect(),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .map_err(|e| format!("failed to fetch token: {}", stdx::error::chain(&e)))?;
        let status = answer
            .status
            .ok_or_else(|| "failed to fetch token: the answer has no status".to_owned())?;
        // A token is replaced after four fifths of its life, or within a day.
        let now = self.clock.now();
        let life = status.expiration_timestamp.0.duration_since(now);
        let renew = (life / 5 * 4).clamp(
            SignedDuration::from_secs(10),
            SignedDuration::from_hours(24),
        );
        let renew_at = now.saturating_add(renew).unwrap_or(now);
        origins.renew_at = Some(origins.renew_at.map_or(renew_at, |at| at.min(renew_at)));
        Ok((path, status.token.into_bytes()))
    }
}

/// The files of a downward API source.
fn downward_files(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    facts: &Facts,
    default_mode: u32,
) -> Result<Payload, String> {
    let mut files = Payload::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, facts)?,
            (None, Some(resource)) => downward::resource(pod, None, resource, facts)?,
            (None, None) => {
                return Err(format!("downwardAPI item {:?} names no field", item.path));
            }
        };
        let mode = item.mode.map_or(default_mode, |m| m as u32 & 0o777);
        files.insert(
            files::relative(&item.path)?,
            FileData {
                bytes: value.into_bytes(),
                mode,
            },
        );
    }
    Ok(files)
}
