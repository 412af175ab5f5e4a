//! The administrator's kubeconfig: written for a data directory, merged into the user's own on
//! request.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::failure::{Failure, Result, attempting};
use crate::instance::pki::Pki;

/// The name of cluster, user and context.
const NAME: &str = "coracle";

/// A kubeconfig for the server at `url` with everything in it that a client needs.
pub(crate) fn render(url: &str, pki: &Pki) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {
            "server": url,
            "certificate-authority-data": STANDARD.encode(&pki.ca),
        }}],
        "users": [{"name": NAME, "user": {
            "client-certificate-data": STANDARD.encode(&pki.admin.certificate),
            "client-key-data": STANDARD.encode(&pki.admin.key),
            "token": pki.admin_token,
        }}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "current-context": NAME,
        "preferences": {},
    })
}

/// Writes a kubeconfig; JSON is YAML, and every client reads it.
pub(crate) fn write(path: &Path, config: &Value) -> Result<()> {
    let text = serde_saphyr::to_string(config).map_err(attempting("write a kubeconfig"))?;
    stdx::fs::write_atomic(path, text.as_bytes(), 0o600)
        .map_err(|e| Failure::environment(format!("write {}: {e}", path.display())))
}

/// Adds the cluster, user and context of `ours` to the file at `path`; everything else in it stays,
/// also the current context if there is one.
pub(crate) fn merge(path: &Path, ours: &Value) -> Result<()> {
    let mut theirs = match fs::read_to_string(path) {
        Ok(text) => serde_saphyr::from_str::<Value>(&text).map_err(|e| {
            Failure::environment(format!("{} is not a kubeconfig: {e}", path.display()))
        })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            json!({"apiVersion": "v1", "kind": "Config"})
        }
        Err(e) => {
            return Err(Failure::environment(format!(
                "read {}: {e}",
                path.display()
            )));
        }
    };
    if !theirs.is_object() {
        return Err(Failure::environment(format!(
            "{} is not a kubeconfig",
            path.display()
        )));
    }
    for list in ["clusters", "users", "contexts"] {
        let mut entries = theirs[list].as_array().cloned().unwrap_or_default();
        entries.retain(|entry| entry["name"] != NAME);
        entries.extend(ours[list].as_array().cloned().unwrap_or_default());
        theirs[list] = Value::Array(entries);
    }
    if theirs["current-context"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        theirs["current-context"] = json!(NAME);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .map_err(|e| Failure::environment(format!("make {}: {e}", parent.display())))?;
    }
    write(path, &theirs)
}

/// Where kubectl keeps the user's own file.
pub(crate) fn users_own(kubeconfig_env: Option<&str>, home: Option<&Path>) -> Result<PathBuf> {
    if let Some(first) = kubeconfig_env.and_then(|list| list.split(':').find(|p| !p.is_empty())) {
        return Ok(PathBuf::from(first));
    }
    home.map(|home| home.join(".kube").join("config"))
        .ok_or_else(|| {
            Failure::environment("neither KUBECONFIG nor HOME says where your kubeconfig is")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_keeps_other_clusters_and_the_current_context() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("config");
        let other = json!({"clusters": [{"name": "other"}, {"name": "coracle", "old": true}],
            "current-context": "other", "extra": 1});
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, &other).unwrap();
        merge(
            &path,
            &json!({"clusters": [{"name": "coracle"}], "users": [{"name": "coracle"}]}),
        )
        .unwrap();
        let merged: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(
            merged["clusters"],
            json!([{"name": "other"}, {"name": "coracle"}])
        );
        assert_eq!(merged["users"], json!([{"name": "coracle"}]));
        assert_eq!(
            (&merged["current-context"], &merged["extra"]),
            (&json!("other"), &json!(1))
        );
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "[1, 2").unwrap();
        let failure = merge(&path, &json!({})).unwrap_err();
        assert!(failure.to_string().contains("config"), "{failure}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "[1, 2");
    }
}
