//! [`Stores`]: reading and writing what URIs name.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::{Error, Providers, Result, Scheme, Uri, local};

/// Reads and writes what URIs name.
#[derive(Clone, Default)]
pub struct Stores {
    root: Option<PathBuf>,
    providers: Providers,
    files: bool,
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("root", &self.root)
            .field("providers", &self.providers)
            .finish_non_exhaustive()
    }
}

/// The content of an artifact, as a stream.
pub struct Reader {
    /// How long it is.
    pub size: u64,
    inner: Pin<Box<dyn AsyncRead + Send>>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_read(context, buffer)
    }
}

impl Stores {
    /// `root` is the folder of the default store, if there is one.
    pub fn new(root: Option<PathBuf>, providers: Providers) -> Self {
        Self {
            root,
            providers,
            files: false,
        }
    }

    /// Also reads and writes `file://`: for programs inside a Pod, whose files are its own.
    #[must_use]
    pub fn with_files(mut self) -> Self {
        self.files = true;
        self
    }

    /// The folder of the default store.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The settings of other stores.
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Whether the URI is in the default store.
    pub fn is_local(&self, uri: &Uri) -> bool {
        uri.scheme() == Scheme::Minio
            && self.root.is_some()
            && self.providers.location(uri).is_none()
    }

    /// The file or folder behind a URI, where it is one of this machine.
    pub fn local_path(&self, uri: &Uri) -> Option<PathBuf> {
        if uri.scheme() == Scheme::File && self.files {
            return uri.pod_path();
        }
        let root = self.root.as_ref().filter(|_| self.is_local(uri))?;
        Some(root.join(uri.bucket()).join(uri.key()))
    }

    /// Opens one object.
    pub async fn open(&self, uri: &Uri) -> Result<Reader> {
        let Some(path) = self.local_path(uri) else {
            return Err(self.no_store(uri));
        };
        let attempt = || format!("open {}", path.display());
        let missing = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        };
        let path = match tokio::fs::canonicalize(&path).await {
            Err(error) if missing(&error) => return Err(Error::NotFound(uri.clone())),
            found => found.map_err(Error::io(attempt()))?,
        };
        // Steps write here, and a link of theirs must not lead elsewhere.
        if let Some(root) = self.root.as_ref().filter(|_| self.is_local(uri)) {
            let root = tokio::fs::canonicalize(root)
                .await
                .map_err(Error::io(attempt()))?;
            if !path.starts_with(&root) {
                return Err(Error::NoStore {
                    uri: uri.clone(),
                    problem: "it is a link that leads out of the store".to_owned(),
                });
            }
        }
        let file = tokio::fs::File::open(&path)
            .await
            .map_err(Error::io(attempt()))?;
        let found = file.metadata().await.map_err(Error::io(attempt()))?;
        if found.is_dir() {
            return Err(Error::NoStore {
                uri: uri.clone(),
                problem: "it is a folder, not a single object".to_owned(),
            });
        }
        Ok(Reader {
            size: found.len(),
            inner: Box::pin(file),
        })
    }

    /// One object as a whole, if it has at most `limit` bytes.
    pub async fn get(&self, uri: &Uri, limit: u64) -> Result<Vec<u8>> {
        let mut reader = self.open(uri).await?;
        let size = reader.size;
        if size > limit {
            return Err(Error::TooLarge {
                uri: uri.clone(),
                size,
                limit,
            });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        (&mut reader)
            .take(limit)
            .read_to_end(&mut bytes)
            .await
            .map_err(Error::io(format!("read {uri}")))?;
        Ok(bytes)
    }

    /// Writes one object.
    pub async fn put(&self, uri: &Uri, bytes: Vec<u8>) -> Result<()> {
        match self.local_path(uri) {
            Some(path) => blocking(move || local::write(&path, &bytes)).await,
            None => Err(self.no_store(uri)),
        }
    }

    /// Brings the object or the folder of objects at `from` to a path of this machine.
    pub async fn download(&self, from: &Uri, to: &Path) -> Result<()> {
        let Some(path) = self.local_path(from) else {
            return Err(self.no_store(from));
        };
        if !path.exists() {
            return Err(Error::NotFound(from.clone()));
        }
        let to = to.to_owned();
        blocking(move || local::copy(&path, &to)).await
    }

    /// Puts a file or folder of this machine at `to`.
    pub async fn upload(&self, from: &Path, to: &Uri) -> Result<()> {
        let Some(path) = self.local_path(to) else {
            return Err(self.no_store(to));
        };
        let from = from.to_owned();
        blocking(move || local::copy(&from, &path)).await
    }

    /// Deletes the object, or everything below it; that nothing is there is fine.
    pub async fn delete(&self, uri: &Uri) -> Result<()> {
        if uri.key().is_empty() {
            return Err(Error::NoStore {
                uri: uri.clone(),
                problem: "a whole bucket is not deleted".to_owned(),
            });
        }
        match self.local_path(uri) {
            Some(path) => blocking(move || local::remove(&path)).await,
            None => Err(self.no_store(uri)),
        }
    }

    fn no_store(&self, uri: &Uri) -> Error {
        let problem = match self.providers.location(uri) {
            Some(location) => format!(
                "the store at {:?} cannot be used: this build reads and writes the local store \
                 (minio:// without a provider) and file:// only",
                location.endpoint
            ),
            None => format!(
                "no store for {}:// is configured (ConfigMap kfp-launcher, key providers)",
                uri.scheme_name()
            ),
        };
        Error::NoStore {
            uri: uri.clone(),
            problem,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Io {
            attempt: "work on files".to_owned(),
            source: io::Error::other(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        Uri::parse(text).unwrap()
    }

    #[tokio::test]
    async fn the_default_store_is_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::new(Some(dir.path().to_owned()), Providers::default());
        let there = uri("minio://b/k/x");
        assert!(matches!(
            stores.get(&there, 10).await,
            Err(Error::NotFound(_))
        ));
        stores.put(&there, b"hello".to_vec()).await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("b/k/x")).unwrap(), b"hello");
        assert_eq!(stores.get(&there, 5).await.unwrap(), b"hello");
        assert!(matches!(
            stores.get(&there, 4).await,
            Err(Error::TooLarge { .. })
        ));
        stores
            .download(&uri("minio://b/k"), &dir.path().join("copy"))
            .await
            .unwrap();
        assert_eq!(std::fs::read(dir.path().join("copy/x")).unwrap(), b"hello");
        stores
            .upload(&dir.path().join("copy"), &uri("minio://b/l"))
            .await
            .unwrap();
        assert_eq!(
            stores.get(&uri("minio://b/l/x"), 9).await.unwrap(),
            b"hello"
        );
        stores.delete(&uri("minio://b/k")).await.unwrap();
        stores.delete(&uri("minio://b/k")).await.unwrap();
        assert!(matches!(
            stores.get(&there, 10).await,
            Err(Error::NotFound(_))
        ));
        assert!(stores.delete(&uri("minio://b")).await.is_err());
    }

    #[tokio::test]
    async fn a_link_does_not_lead_out_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("b")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("b/k")).unwrap();
        let stores = Stores::new(Some(root), Providers::default());
        let error = stores.get(&uri("minio://b/k"), 9).await.unwrap_err();
        assert!(error.to_string().contains("out of the store"), "{error}");
    }

    #[tokio::test]
    async fn a_store_that_is_not_configured_is_named() {
        let stores = Stores::default();
        let error = stores
            .get(&uri("gs://b/k"), 1)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("gs://b/k") && error.contains("providers"),
            "{error}"
        );
    }
}
