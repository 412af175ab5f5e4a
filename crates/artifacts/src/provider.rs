//! The settings of stores, as the ConfigMap `kfp-launcher` has them under `providers`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Scheme, Uri};

/// Values of Secrets by the Secret's name and its key.
pub type Secrets = BTreeMap<(String, String), String>;

/// Where each kind of store is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Providers {
    /// For `minio://`; without it the default store is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minio: Option<Provider>,
    /// For `s3://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<Provider>,
    /// For `gs://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gs: Option<Provider>,
    /// For `az://` and its kin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure: Option<Provider>,
}

/// One kind of store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Provider {
    /// Where it is, unless an override says otherwise.
    pub default: Option<Location>,
    /// Other places for some buckets and prefixes.
    #[serde(alias = "Overrides")]
    pub overrides: Vec<Location>,
}

/// Where a store is and how one gets in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Location {
    /// The bucket an override is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bucket_name: String,
    /// The beginning of keys an override is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_prefix: String,
    /// `host[:port]`, with or without a scheme.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The region.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Whether it is reached without TLS.
    #[serde(rename = "disableSSL", skip_serializing_if = "Option::is_none")]
    pub disable_ssl: Option<bool>,
    /// Whether the bucket stands in the path rather than in the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force_path_style: Option<bool>,
    /// How one gets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// How one gets into a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Credentials {
    /// By what the step's environment says (or nothing).
    pub from_env: bool,
    /// By a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// A Secret with credentials, and the names of its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret.
    pub secret_name: String,
    /// Which key has the access key's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub access_key_key: String,
    /// Which key has the secret access key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret_key_key: String,
    /// Which key has a token (Google: the service account's key).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token_key: String,
}

impl Providers {
    /// Where a URI's store is: the override with the longest matching prefix, else the default.
    pub fn location(&self, uri: &Uri) -> Option<&Location> {
        let provider = match uri.scheme() {
            Scheme::Minio => self.minio.as_ref(),
            Scheme::S3 => self.s3.as_ref(),
            Scheme::Gs => self.gs.as_ref(),
            Scheme::Azure => self.azure.as_ref(),
            Scheme::Oci | Scheme::File | Scheme::Other => None,
        }?;
        let below = |prefix: &str| {
            let prefix = prefix.trim_matches('/');
            prefix.is_empty()
                || uri
                    .key()
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let fits = |o: &&Location| o.bucket_name == uri.bucket() && below(&o.key_prefix);
        let best = provider
            .overrides
            .iter()
            .filter(fits)
            .max_by_key(|o| o.key_prefix.trim_matches('/').len());
        best.or(provider.default.as_ref())
    }
}

impl SecretRef {
    /// The keys it names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        [&self.access_key_key, &self.secret_key_key, &self.token_key]
            .into_iter()
            .map(String::as_str)
            .filter(|key| !key.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_override_that_fits_wins() {
        let providers: Providers = serde_json::from_value(serde_json::json!({"s3": {
            "default": {"endpoint": "s3.amazonaws.com", "region": "us-east-1", "disableSSL": false,
                "credentials": {"fromEnv": false, "secretRef": {"secretName": "s",
                    "accessKeyKey": "a", "secretKeyKey": "b"}}},
            "overrides": [
                {"bucketName": "b", "keyPrefix": "x", "endpoint": "one"},
                {"bucketName": "b", "keyPrefix": "x/y", "endpoint": "two"},
            ],
        }}))
        .unwrap();
        let endpoint = |uri: &str| {
            let uri = Uri::parse(uri).unwrap();
            providers.location(&uri).map(|l| l.endpoint.clone())
        };
        assert_eq!(endpoint("s3://b/x/y/z").as_deref(), Some("two"));
        assert_eq!(endpoint("s3://b/x/yz").as_deref(), Some("one"));
        assert_eq!(endpoint("s3://c/x").as_deref(), Some("s3.amazonaws.com"));
        assert_eq!(endpoint("gs://c/x"), None);
    }
}
