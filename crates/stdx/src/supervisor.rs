//! Tasks that somebody owns: started by name, watched, cancelled and waited for together.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the failure (or panic) of a task means for the rest of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Log it; everything else goes on.
    Log,
    /// Log it and ask the whole process to stop: the process is useless without this task.
    Shutdown,
}

/// Owns the tasks of a process or of one part of it. Clones share the same tasks.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// A supervisor for one part: cancelled with its parent, or alone.
    pub fn child(&self) -> Self {
        Self {
            cancel: self.cancel.child_token(),
            tasks: TaskTracker::new(),
        }
    }

    /// The token that tells tasks to stop; tasks that hold connections or children select on it.
    pub fn token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Runs a task that ends by itself or is dropped at shutdown. Its error is logged here.
    pub fn spawn<E>(
        &self,
        name: &'static str,
        on_error: OnError,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> JoinHandle<()>
    where
        E: Display + Send + 'static,
    {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let outcome = tokio::select! {
                biased;
                outcome = AssertUnwindSafe(task).catch_unwind() => outcome,
                () = cancel.cancelled() => return,
            };
            let problem = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{error:#}"),
                Err(panic) => format!("panicked: {}", panic_message(panic.as_ref())),
            };
            tracing::error!(task = name, "{problem}");
            if on_error == OnError::Shutdown {
                cancel.cancel();
            }
        })
    }

    /// Runs a task that watches [`Supervisor::token`] itself and needs time to finish after it.
    pub fn spawn_graceful(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                tracing::error!(task = name, "panicked: {}", panic_message(panic.as_ref()));
            }
        })
    }

    /// Tells every task to stop and waits until they have.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Completes when a shutdown was asked for, by anyone.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }
}

/// The text of a panic's payload.
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_panics_stops_the_rest() {
        let supervisor = Supervisor::new();
        supervisor.spawn(
            "idle",
            OnError::Log,
            std::future::pending::<Result<(), String>>(),
        );
        supervisor.spawn("vital", OnError::Shutdown, async {
            let nothing: Option<()> = std::hint::black_box(None);
            nothing.ok_or(()).expect("boom");
            Ok::<(), String>(())
        });
        supervisor.cancelled().await;
        supervisor.shutdown().await;
    }

    #[tokio::test]
    async fn a_failing_optional_task_leaves_the_rest_alone() {
        let supervisor = Supervisor::new();
        let failed = supervisor.spawn("optional", OnError::Log, async { Err("no".to_owned()) });
        failed.await.unwrap();
        assert!(!supervisor.token().is_cancelled());
    }
}
