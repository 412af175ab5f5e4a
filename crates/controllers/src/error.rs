//! What can go wrong in a controller.

/// A reconcile that could not be finished; the queue tries it again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("{verb} {kind} {object}")]
    Api {
        /// What was tried: `create`, `update`, `delete` …
        verb: &'static str,
        /// The kind of the object.
        kind: String,
        /// `namespace/name` or `name` of the object.
        object: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object says something that cannot be carried out.
    #[error("{kind} {object}: {problem}")]
    Object {
        /// The kind of the object.
        kind: String,
        /// `namespace/name` or `name` of the object.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder of the provisioner could not be made or removed.
    #[error("{verb} the volume folder {path}")]
    Folder {
        /// `make` or `remove`.
        verb: &'static str,
        /// The folder.
        path: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// Something else must happen first.
    #[error("{0}")]
    NotYet(String),
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Somebody else changed the object first.
    pub fn is_conflict(&self) -> bool {
        self.status()
            .is_some_and(|s| s.code == 409 && s.reason == "Conflict")
    }

    /// The name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.status()
            .is_some_and(|s| s.code == 409 && s.reason == "AlreadyExists")
    }

    /// The object is gone.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|s| s.code == 404)
    }

    /// The namespace is being deleted, so nothing can be made in it any more.
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|s| {
            s.code == 403
                && s.details.as_ref().is_some_and(|d| {
                    d.causes
                        .iter()
                        .any(|cause| cause.reason == "NamespaceTerminating")
                })
        })
    }

    /// What to show a user: the server's message where there is one.
    pub fn message(&self) -> String {
        match self.status() {
            Some(status) if !status.message.is_empty() => status.message.clone(),
            _ => stdx::error::chain(self),
        }
    }
}
