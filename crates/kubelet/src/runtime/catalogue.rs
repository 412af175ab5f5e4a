//! Which images can run here: a list of patterns over normalised image names.
//!
//! The composition root says which programs are built in, the user may add entries in the
//! configuration, and shells and Pythons of common registries run with the host's interpreters.
//! Nothing is downloaded: what no entry matches cannot be pulled.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{Image, ImageError, ImageKind, ImageService};

/// The registry of names that do not say one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest repository name a registry accepts.
const MAX_NAME: usize = 255;

/// Host images everyone has: pattern and default command.
const HOST_IMAGES: [(&str, &str); 9] = [
    ("alpine*", "/bin/sh"),
    ("busybox*", "sh"),
    ("bash*", "bash"),
    ("debian", "bash"),
    ("ubuntu", "bash"),
    ("*/alpine", "/bin/sh"),
    ("*/busybox", "sh"),
    ("*/library/debian", "bash"),
    ("*/library/ubuntu", "bash"),
];

/// Images of an interpreter: as Docker names them, in mirrors too, and as Red Hat does.
const PYTHON_IMAGES: [&str; 3] = ["python", "*/library/python", "*/python-3*"];

/// One kind of image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Matched against the normalised name with and without its tag; `*` matches anything, slashes
    /// included. A pattern without a registry means Docker's, as in a Pod.
    pub pattern: String,
    /// How it is started.
    pub kind: ImageKind,
    /// The default command.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// The default arguments.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Variables of the image.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The user it runs as when the Pod does not say.
    #[serde(default)]
    pub user: Option<u32>,
}

impl Entry {
    /// An image that is a program of this binary.
    pub fn built_in(pattern: impl Into<String>, program: impl Into<String>) -> Self {
        Self::new(pattern, ImageKind::BuiltIn(program.into()))
    }

    /// An image that runs the host's programs, by default `cmd`.
    pub fn host(pattern: impl Into<String>, cmd: &[&str]) -> Self {
        let cmd = cmd.iter().map(|&word| word.to_owned()).collect();
        Self {
            cmd,
            ..Self::new(pattern, ImageKind::Host)
        }
    }

    /// An image of Python in the version that its tag or its name says.
    pub fn python(pattern: impl Into<String>) -> Self {
        Self {
            cmd: vec!["python3".to_owned()],
            ..Self::new(pattern, ImageKind::Python(String::new()))
        }
    }

    fn new(pattern: impl Into<String>, kind: ImageKind) -> Self {
        Self {
            pattern: pattern.into(),
            kind,
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            user: None,
        }
    }
}

/// The images that can run here. Earlier entries win.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

impl Catalogue {
    /// A catalogue of these entries alone.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let normal = |entry: Entry| Entry {
            pattern: normal_pattern(&entry.pattern),
            ..entry
        };
        Self {
            entries: entries.into_iter().map(normal).collect(),
        }
    }

    /// A catalogue of these entries and, after them, the host images that everyone has.
    pub fn with_host_images(entries: impl IntoIterator<Item = Entry>) -> Self {
        let host = HOST_IMAGES
            .iter()
            .map(|(pattern, command)| Entry::host(*pattern, &[command]));
        let python = PYTHON_IMAGES.map(Entry::python);
        Self::new(entries.into_iter().chain(host).chain(python))
    }

    fn find(&self, reference: &Reference) -> Option<&Entry> {
        let (name, tagged) = (&reference.name, reference.to_string());
        self.entries
            .iter()
            .find(|entry| matches(&entry.pattern, name) || matches(&entry.pattern, &tagged))
    }
}

impl ImageService for Catalogue {
    fn pull(&self, reference: &str) -> BoxFuture<'_, Result<Image, ImageError>> {
        let found = match self.present(reference) {
            Ok(Some(image)) => Ok(image),
            Ok(None) => Err(ImageError::NotFound(format!(
                "failed to pull image {reference:?}: no entry of the image catalogue matches it, \
                 and images are not downloaded"
            ))),
            Err(error) => Err(error),
        };
        std::future::ready(found).boxed()
    }

    fn present(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let parsed = Reference::parse(reference).map_err(|problem| ImageError::InvalidName {
            reference: reference.to_owned(),
            problem: problem.to_owned(),
        })?;
        Ok(self.find(&parsed).map(|entry| Image {
            reference: reference.to_owned(),
            id: parsed.to_string(),
            kind: match &entry.kind {
                ImageKind::Python(version) if version.is_empty() => {
                    ImageKind::Python(parsed.python_version().unwrap_or_default())
                }
                kind => kind.clone(),
            },
            entrypoint: entry.entrypoint.clone(),
            cmd: entry.cmd.clone(),
            env: entry.env.clone(),
            working_dir: None,
            user: entry.user,
            size_bytes: 0,
        }))
    }
}

/// An image reference with everything it leaves out filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Registry and repository: `docker.io/library/python`.
    pub name: String,
    /// The tag; `latest` if neither tag nor digest is given.
    pub tag: Option<String>,
    /// The digest, `sha256:…`.
    pub digest: Option<String>,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Reference {
    /// The minor version of Python that an image of it names: `python:3.11-slim`, `ubi9/python-311`.
    fn python_version(&self) -> Option<String> {
        let name = self.name.rsplit('/').next().unwrap_or_default();
        let digits = name
            .strip_prefix("python-")
            .or_else(|| name.strip_prefix("python"));
        let in_name = digits.and_then(|digits| {
            // Red Hat leaves the dot out.
            let minor = digits.strip_prefix('3')?;
            let minor = minor.strip_prefix('.').unwrap_or(minor);
            let end = minor.find(|c: char| !c.is_ascii_digit());
            pyenv::Minor::parse(&format!("3.{}", &minor[..end.unwrap_or(minor.len())]))
        });
        let in_tag = || pyenv::Minor::parse(self.tag.as_deref()?);
        in_name.or_else(in_tag).map(|minor| minor.to_string())
    }

    /// Parses a reference as a Pod writes it; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORMAT: &str = "invalid reference format";
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if digest.is_some_and(|digest| !is_digest(digest)) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(FORMAT);
        }
        let full = full_name(name);
        let (registry, repository) = full.split_once('/').ok_or(FORMAT)?;
        if !is_registry(registry) || !repository.split('/').all(is_component) {
            let upper = repository.bytes().any(|byte| byte.is_ascii_uppercase());
            let lowered = repository.to_ascii_lowercase();
            let only_case = upper && lowered.split('/').all(is_component) && is_registry(registry);
            return Err(if only_case {
                "invalid reference format: repository name must be lowercase"
            } else {
                FORMAT
            });
        }
        if full.len() > MAX_NAME {
            return Err("repository name must not be more than 255 characters");
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            name: full,
            tag,
            digest: digest.map(str::to_owned),
        })
    }
}

/// Splits `name:tag`; a colon before a slash belongs to a registry's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The name with its registry, and Docker's `library` where a name stands alone.
fn full_name(name: &str) -> String {
    let is_registry = |first: &str| first.contains(['.', ':']) || first == "localhost";
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => full_name(rest),
        Some((DEFAULT_REGISTRY, rest)) if !rest.contains('/') => {
            format!("{DEFAULT_REGISTRY}/library/{rest}")
        }
        Some((first, _)) if is_registry(first) => name.to_owned(),
        Some(_) => format!("{DEFAULT_REGISTRY}/{name}"),
        None => format!("{DEFAULT_REGISTRY}/library/{name}"),
    }
}

/// A pattern with its registry; one that begins with `*` is about any registry.
fn normal_pattern(pattern: &str) -> String {
    if pattern.starts_with('*') {
        return pattern.to_owned();
    }
    let (name, tag) = split_tag(pattern);
    let name = full_name(name);
    tag.map_or_else(|| name.clone(), |tag| format!("{name}:{tag}"))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label)
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// One part of a repository: lower-case words joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let edges =
        text.bytes().next().is_some_and(is_word) && text.bytes().last().is_some_and(is_word);
    let joined = text
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|joint| {
            matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-')
        });
    edges && joined
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length
            && hex
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Whether `text` matches `pattern`, where `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests;
