//! Artifact URIs: `scheme://bucket/key`, and where each is seen inside a Pod.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What kind of store a URI is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// The cluster's own object store.
    Minio,
    /// Amazon's, or one that speaks its protocol.
    S3,
    /// Google's.
    Gs,
    /// Microsoft's.
    Azure,
    /// A registry of images.
    Oci,
    /// A path of the machine a step runs on.
    File,
    /// Anything else: it can be recorded, not read.
    Other,
}

/// Where an artifact is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Uri {
    scheme: String,
    bucket: String,
    key: String,
    query: Option<String>,
}

impl Uri {
    /// Parses a URI. A key may not climb: no part of it is `..`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::Uri {
            uri: text.to_owned(),
            problem,
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("expected scheme://bucket/key, such as minio://mlpipeline/a/b"))?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(is_scheme) {
            return Err(wrong("the part before :// is no scheme"));
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() && scheme != "file" {
            return Err(wrong("it names no bucket"));
        }
        if matches!(bucket, "." | "..") || key.split('/').any(|part| part == "..") {
            return Err(wrong("\"..\" is not allowed in it"));
        }
        if text.contains('\0') {
            return Err(wrong("it contains a zero byte"));
        }
        // A folder and what is in it are told apart by listing, not by a slash.
        let key: Vec<&str> = key
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            bucket: bucket.to_owned(),
            key: key.join("/"),
            query,
        })
    }

    /// The kind of store.
    pub fn scheme(&self) -> Scheme {
        match self.scheme.as_str() {
            "minio" => Scheme::Minio,
            "s3" => Scheme::S3,
            "gs" | "gcs" => Scheme::Gs,
            "az" | "abfs" | "abfss" | "azblob" | "azure" => Scheme::Azure,
            "oci" => Scheme::Oci,
            "file" => Scheme::File,
            _ => Scheme::Other,
        }
    }

    /// The scheme as it was written.
    pub fn scheme_name(&self) -> &str {
        &self.scheme
    }

    /// The bucket (for `oci`, the registry).
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key, without slashes at its ends.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What stands after a `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Something below this.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let mut parts: Vec<&str> = self
            .key
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let fine = |part: &&str| !part.is_empty() && !matches!(*part, "." | "..");
        parts.extend(name.split('/').filter(fine));
        Self {
            key: parts.join("/"),
            ..self.clone()
        }
    }

    /// Where it is seen inside a Pod: the paths that KFP's components expect. `None` for what has no
    /// such place.
    pub fn pod_path(&self) -> Option<PathBuf> {
        let below = |root: &str| PathBuf::from(root).join(&self.bucket).join(&self.key);
        Some(match self.scheme() {
            Scheme::Minio => below("/minio"),
            Scheme::S3 => below("/s3"),
            Scheme::Gs => below("/gcs"),
            Scheme::Azure => below("/azure"),
            Scheme::Oci => {
                let flat = format!("{}/{}", self.bucket, self.key).replace(['/', ':', '@'], "_");
                PathBuf::from("/oci").join(flat).join("models")
            }
            Scheme::File => PathBuf::from("/").join(&self.bucket).join(&self.key),
            Scheme::Other => return None,
        })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.bucket)?;
        if !self.key.is_empty() {
            write!(f, "/{}", self.key)?;
        }
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

impl From<Uri> for String {
    fn from(uri: Uri) -> Self {
        uri.to_string()
    }
}

impl TryFrom<String> for Uri {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_says_where_it_is_in_a_pod() {
        for (text, path) in [
            ("minio://mlpipeline/v2/a/x", "/minio/mlpipeline/v2/a/x"),
            ("s3://b/k/", "/s3/b/k"),
            ("gs://b/k//l", "/gcs/b/k/l"),
            (
                "oci://ghcr.io/org/model:1",
                "/oci/ghcr.io_org_model_1/models",
            ),
            ("file:///data/x", "/data/x"),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!(uri.pod_path().unwrap(), PathBuf::from(path), "{text}");
        }
        assert_eq!(Uri::parse("hdfs://a/b").unwrap().pod_path(), None);
    }

    #[test]
    fn what_is_no_uri_is_refused_with_a_reason() {
        for text in [
            "",
            "a/b",
            "://x",
            "s3://",
            "s3:///k",
            "minio://b/../c",
            "minio://../c",
        ] {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
        let message = Uri::parse("minio://b/../c").unwrap_err().to_string();
        assert!(message.contains("minio://b/../c"), "{message}");
    }

    #[test]
    fn a_uri_prints_as_it_was_written() {
        for text in ["minio://b/k", "s3://b", "s3://b/k?region=eu", "file:///d/x"] {
            assert_eq!(Uri::parse(text).unwrap().to_string(), text);
        }
        let below = Uri::parse("s3://b/k?region=eu").unwrap().join("a/../x");
        assert_eq!(below.to_string(), "s3://b/k/a/x?region=eu");
    }
}
