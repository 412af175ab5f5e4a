//! What the launcher is told: which artifacts to bring, which files are outputs.

use artifacts::{Providers, Uri};
use serde::{Deserialize, Serialize};

/// What to do around a step's command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Job {
    /// Where a document goes that is too large for the termination message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Uri>,
    /// The file a kubelet reads the container's last words from.
    pub message: String,
    /// Whether the arguments begin with a command; else they are the image's own command's.
    pub has_command: bool,
    /// Whether the default store is mounted at [`crate::STORE`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local_store: bool,
    /// Where other stores are.
    #[serde(skip_serializing_if = "is_default")]
    pub providers: Providers,
    /// What to bring before the command runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// Files whose contents are output parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<OutputParameter>,
    /// Files and folders that are output artifacts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<OutputArtifact>,
    /// The file that a v2 component describes its outputs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executor_output: Option<String>,
}

fn is_default(providers: &Providers) -> bool {
    *providers == Providers::default()
}

/// Something to bring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The artifact's name, for messages.
    pub name: String,
    /// Where the step expects it.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub source: Source,
    /// How it is packed.
    #[serde(default, skip_serializing_if = "Archive::is_none")]
    pub archive: Archive,
    /// Whether it may be missing in the store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Where the content of an input is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// In a store.
    Uri(Uri),
    /// Here.
    Raw(String),
}

/// How an artifact is packed in its store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Archive {
    /// Not at all.
    #[default]
    None,
    /// As tar, compressed.
    Tgz,
}

impl Archive {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands out references"
    )]
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// A file whose content is a parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputParameter {
    /// The parameter.
    pub name: String,
    /// The file.
    pub path: String,
}

/// A file or folder that is an artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputArtifact {
    /// The artifact.
    pub name: String,
    /// Where the step writes it.
    pub path: String,
    /// Where it is kept.
    pub uri: Uri,
    /// How it is packed there.
    #[serde(default, skip_serializing_if = "Archive::is_none")]
    pub archive: Archive,
    /// Whether it may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}
