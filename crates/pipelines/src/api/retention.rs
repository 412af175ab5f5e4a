//! Runs that have been over for long enough go, with all they left.

use std::convert::Infallible;
use std::time::Duration;

use engine::{Plan, Shape};
use jiff::Timestamp;
use serde_json::Value;
use stdx::{OnError, Supervisor};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Api, actions};
use crate::runner::RunStatus;
use crate::store::retention::{self, Ttl};

/// So many runs are looked at together.
const BATCH: i64 = 100;

/// The wall clock may be set: nothing is kept longer than its time by more than this.
const NAP: Duration = Duration::from_secs(60);

/// After a failure.
const PAUSE: Duration = Duration::from_secs(30);

/// What a package says of its runs: Argo's `ttlStrategy`, or v2's `pipelineTtl`.
pub(super) fn of(plan: &Plan) -> Option<Ttl> {
    let Shape::Map(settings) = &plan.settings else {
        return None;
    };
    let plain = |name: &str| match settings.get(name) {
        Some(Shape::Plain(value)) => Some(value),
        _ => None,
    };
    let seconds = |of: Option<&Value>, name: &str| match of?.get(name)? {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let strategy = plain("ttlStrategy");
    let always = seconds(strategy, "secondsAfterCompletion")
        .or_else(|| seconds(plain("pipelineConfig"), "pipelineTtl"));
    let ttl = Ttl {
        success: seconds(strategy, "secondsAfterSuccess").or(always),
        failure: seconds(strategy, "secondsAfterFailure").or(always),
    };
    (ttl != Ttl::default()).then_some(ttl)
}

/// Starts to delete runs whose time is up.
pub(super) fn start(api: Api, server: Option<Duration>, supervisor: &Supervisor) {
    let ended = api.runner.subscribe();
    let task = async move {
        run(&api, server, ended).await;
        Ok::<(), Infallible>(())
    };
    supervisor.spawn("retention of runs", OnError::Log, task);
}

async fn run(api: &Api, server: Option<Duration>, mut ended: broadcast::Receiver<RunStatus>) {
    loop {
        let pause = match turn(api, server).await {
            Ok(pause) => pause,
            Err(failure) => {
                tracing::warn!("delete runs whose time is up: {failure}");
                Some(PAUSE)
            }
        };
        let sleep = async {
            match pause {
                Some(pause) => api.clock.sleep(pause.min(NAP)).await,
                None => std::future::pending().await,
            }
        };
        let a_run_ends = async {
            loop {
                match ended.recv().await {
                    Ok(status) if !status.phase.finished() => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return true,
                    Err(RecvError::Closed) => return false,
                }
            }
        };
        tokio::select! {
            () = sleep => {}
            open = a_run_ends => if !open { return },
        }
        while ended.try_recv().is_ok() {}
    }
}

/// Deletes what is due, and answers how long there is nothing to do; none until a run ends.
async fn turn(api: &Api, server: Option<Duration>) -> Result<Option<Duration>, String> {
    loop {
        let soonest = retention::soonest(&api.db, server, BATCH)
            .await
            .map_err(|error| stdx::error::chain(&error))?;
        let now = api.now();
        let mut due = 0;
        for (run, at) in &soonest {
            if *at > now {
                break;
            }
            due += 1;
            match actions::delete(api, run).await {
                Ok(()) => tracing::info!(run_id = run, "deleted, its time to live is over"),
                // Somebody was faster.
                Err(failure) if failure.code == super::wire::Code::NotFound => {}
                Err(failure) => return Err(format!("run {run}: {}", failure.message)),
            }
        }
        if due < soonest.len() || due == 0 {
            return Ok(soonest.get(due).and_then(|(_, at)| until(*at, now)));
        }
    }
}

fn until(at: i64, now: i64) -> Option<Duration> {
    let at = Timestamp::from_microsecond(at).unwrap_or(Timestamp::MAX);
    let now = Timestamp::from_microsecond(now).ok()?;
    Duration::try_from(at.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_package_says_how_long_its_runs_are_kept() {
        let of = |name: &str, value: Value| {
            let settings = BTreeMap::from([(name.to_owned(), Shape::Plain(value))]);
            of(&Plan {
                entrypoint: "main".to_owned(),
                on_exit: None,
                templates: BTreeMap::new(),
                parameters: Vec::new(),
                parallelism: None,
                deadline_seconds: None,
                settings: Shape::Map(settings),
                typed: false,
            })
        };
        let kept = |success, failure| Some(Ttl { success, failure });
        let strategy = json!({"secondsAfterCompletion": 60, "secondsAfterFailure": 3600});
        assert_eq!(of("ttlStrategy", strategy), kept(Some(60), Some(3600)));
        let strategy = json!({"secondsAfterSuccess": 5});
        assert_eq!(of("ttlStrategy", strategy), kept(Some(5), None));
        let config = json!({"pipelineTtl": 7});
        assert_eq!(of("pipelineConfig", config), kept(Some(7), Some(7)));
        assert_eq!(of("ttlStrategy", json!({})), None);
    }
}
