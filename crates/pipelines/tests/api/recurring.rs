//! Recurring runs over the router, with a clock that moves when a test says so, a cluster in which
//! the test plays the kubelet, and a server that can be killed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use db::Db;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use pipelines::api::{self, Api};
use pipelines::recurring::Recurring;
use pipelines::runner::{Options, Runner};
use serde_json::{Value, json};
use stdx::{ManualClock, Supervisor, SystemRng};
use tower::ServiceExt as _;

use crate::harness::{form, workflow};
use crate::support::Cluster;

const V2: &str = "/apis/v2beta1/recurringruns";
const V1: &str = "/apis/v1beta1/jobs";

/// What outlives a killed server.
struct World {
    directory: tempfile::TempDir,
    cluster: Cluster,
    clock: Arc<ManualClock>,
}

struct Server {
    router: Router,
    runner: Runner,
    supervisor: Supervisor,
    db: Db,
    clock: Arc<ManualClock>,
    cluster: Cluster,
}

impl World {
    fn new() -> Self {
        let start: Timestamp = "2026-05-04T10:00:30Z".parse().unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            cluster: Cluster::new(),
            clock: Arc::new(ManualClock::new(start)),
        }
    }

    async fn start(&self) -> Server {
        self.start_with(None).await
    }

    async fn start_with(&self, ttl: Option<Duration>) -> Server {
        let path: &Path = &self.directory.path().join("pipelines.db");
        let supervisor = Supervisor::new();
        let db = Db::open(db::Options::file(path), api::MIGRATIONS, &supervisor)
            .await
            .unwrap();
        let rng = SystemRng::shared();
        let runner = Runner::start(
            Options::default(),
            db.clone(),
            self.cluster.client(),
            self.clock.clone(),
            rng.clone(),
            &supervisor,
        )
        .await
        .unwrap();
        let api = Api {
            db: db.clone(),
            runner: runner.clone(),
            client: self.cluster.client(),
            clock: self.clock.clone(),
            rng,
            namespace: "kubeflow".to_owned(),
            fetch: None,
            counts: pipelines::api::Counts::default(),
            recurring: Recurring::default(),
        };
        api.start_recurring_runs(&supervisor);
        api.start_retention(ttl, &supervisor);
        Server {
            router: api.router(),
            runner,
            supervisor,
            db,
            clock: self.clock.clone(),
            cluster: self.cluster.clone(),
        }
    }
}

impl Server {
    /// Drops every task wherever it is.
    async fn kill(self) {
        self.supervisor.token().cancel();
        self.db.close().await;
        self.supervisor.shutdown().await;
    }

    async fn raw(&self, method: &str, path: &str, body: Option<Value>) -> http::Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let answer = self.raw(method, path, body).await;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.send(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ok("POST", path, Some(body)).await
    }

    async fn refused(&self, method: &str, path: &str, body: Value, says: &[&str]) {
        let (status, answer) = self.send(method, path, Some(body)).await;
        assert_eq!(status, 400, "{answer}");
        let message = answer["message"].as_str().unwrap();
        for part in says {
            assert!(message.contains(part), "{message}");
        }
    }

    /// All runs, oldest first.
    async fn runs(&self) -> Vec<Value> {
        let path = "/apis/v2beta1/runs?page_size=200&sort_by=scheduled_at";
        let list = self.get(path).await;
        list["runs"].as_array().cloned().unwrap_or_default()
    }

    /// Moves time on, second by second, until something holds.
    async fn until<T>(&self, what: &str, mut found: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(value) = found(self).await {
                    return value;
                }
                self.clock.advance(Duration::from_secs(1));
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .unwrap_or_else(|_| panic!("{what} does not come"))
    }

    /// Moves time on until there are this many runs.
    async fn until_runs(&self, count: usize) -> Vec<Value> {
        self.until(&format!("run number {count}"), async |this| {
            let runs = this.runs().await;
            (runs.len() >= count).then_some(runs)
        })
        .await
    }

    /// Lets every Pod that there is succeed, until this run is over.
    async fn finish(&self, run: &Value) {
        let id = run["run_id"].as_str().unwrap();
        let mut changes = self.runner.subscribe();
        let pod = self.cluster.pod_of(id).await;
        self.cluster.succeed(&pod);
        let wait = async {
            while !self.runner.status(id).await.unwrap().phase.finished() {
                let _ = changes.recv().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("the run ends");
    }
}

fn recurring(trigger: Value) -> Value {
    json!({
        "display_name": "Nightly Build", "description": "d", "pipeline_spec": workflow(),
        "runtime_config": {"parameters": {"text": "[[Index]] at [[ScheduledTime.15:04:05]]"}},
        "max_concurrency": "1", "trigger": trigger, "mode": "ENABLE",
    })
}

fn cron(text: &str) -> Value {
    json!({"cron_schedule": {"cron": text}})
}

fn names(value: &Value, member: &str) -> Vec<String> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[member].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_firing_makes_a_run_with_name_macros_and_owner() {
    let world = World::new();
    let server = world.start().await;
    let made = server.post(V2, recurring(cron("0 * * * * *"))).await;
    let id = made["recurring_run_id"].as_str().unwrap();
    assert_eq!(made["status"], "ENABLED");
    let run = &server.until_runs(1).await[0];
    assert_eq!(run["recurring_run_id"], made["recurring_run_id"]);
    assert_eq!(run["scheduled_at"], "2026-05-04T10:01:00Z");
    assert_eq!(run["runtime_config"]["parameters"]["text"], "1 at 10:01:00");
    let name = run["display_name"].as_str().unwrap();
    assert!(
        name.starts_with("nightlybuild") && name.contains("-1-"),
        "{name}"
    );
    let path = format!("/apis/v1beta1/runs/{}", run["run_id"].as_str().unwrap());
    let references = server.get(&path).await["run"]["resource_references"].clone();
    let job = json!({"type": "JOB", "id": id});
    let creator = references
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["key"] == job);
    assert_eq!(creator.unwrap()["relationship"], "CREATOR");
    // The steps see the values.
    let pod = server.cluster.pod_of(run["run_id"].as_str().unwrap()).await;
    assert!(pod.to_string().contains("1 at 10:01:00"), "{pod}");
}

#[tokio::test]
async fn active_runs_hold_firings_up_and_each_is_made_up_for() {
    let world = World::new();
    let server = world.start().await;
    server.post(V2, recurring(cron("0 * * * * *"))).await;
    let first = server.until_runs(1).await;
    server.clock.advance(Duration::from_secs(300));
    // The loop has looked once another recurring run has fired.
    let other = server
        .post(
            V2,
            recurring(json!({"periodic_schedule": {"interval_second": 1}})),
        )
        .await;
    let runs = server.until_runs(2).await;
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1]["recurring_run_id"], other["recurring_run_id"]);
    server.finish(&first[0]).await;
    let runs = server.until_runs(3).await;
    let times = names(&json!(runs), "scheduled_at");
    assert!(
        times.contains(&"2026-05-04T10:02:00Z".to_owned()),
        "{times:?}"
    );
}

#[tokio::test]
async fn without_a_trigger_there_is_one_run() {
    let world = World::new();
    let server = world.start().await;
    server.post(V2, recurring(json!({}))).await;
    let runs = server.until_runs(1).await;
    server.finish(&runs[0]).await;
    server.post(V2, recurring(cron("0 * * * * *"))).await;
    let runs = server.until_runs(2).await;
    assert_eq!(runs.len(), 2);
}

#[tokio::test]
async fn what_is_asked_for_is_checked() {
    let world = World::new();
    let server = world.start().await;
    let with = |member: &str, value: Value| {
        let mut body = recurring(cron("0 * * * * *"));
        body[member] = value;
        body
    };
    for (body, says) in [
        (with("display_name", json!("")), &["wants a name"][..]),
        (
            with("max_concurrency", json!("0")),
            &["max_concurrency: 0", "1 to 10"],
        ),
        (with("max_concurrency", json!(11)), &["1 to 10"]),
        (
            with("trigger", cron("61 * * * * *")),
            &["cron_schedule.cron", "second", "0 to 59"],
        ),
        (
            with(
                "trigger",
                json!({"periodic_schedule": {"interval_second": "0"}}),
            ),
            &["interval_second: 0"],
        ),
        (
            with(
                "trigger",
                json!({"cron_schedule": {"cron": "@daily",
                "start_time": "2026-02-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}}),
            ),
            &["is before start_time"],
        ),
        (with("pipeline_spec", json!({})), &["name what it executes"]),
        (
            with("runtime_config", json!({"parameters": {"colour": "red"}})),
            &["colour"],
        ),
        (
            with(
                "runtime_config",
                json!({"parameters": {"text": "x".repeat(10 << 20)}}),
            ),
            &["\"text\"", "10485760 bytes", "allowed: up to 1048576"],
        ),
        (
            with("experiment_id", json!(7)),
            &["experiment_id", "a string"],
        ),
    ] {
        server.refused("POST", V2, body, says).await;
    }
    let (status, _) = server.send("GET", &format!("{V2}/nothing"), None).await;
    assert_eq!(status, 404);
    assert!(server.runs().await.is_empty());
}

#[tokio::test]
async fn lists_changes_and_removal() {
    let world = World::new();
    let server = world.start().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let mut body = recurring(cron("0 0 0 1 1 *"));
        body["display_name"] = json!(name);
        ids.push(server.post(V2, body).await["recurring_run_id"].clone());
        server.clock.advance(Duration::from_secs(1));
    }
    let path = |id: &Value| format!("{V2}/{}", id.as_str().unwrap());
    let page = server
        .get(&format!("{V2}?page_size=2&sort_by=created_at%20desc"))
        .await;
    assert_eq!(names(&page["recurringRuns"], "display_name"), ["c", "b"]);
    assert_eq!(page["total_size"], 3);
    let token = page["next_page_token"].as_str().unwrap();
    let page = server.get(&format!("{V2}?page_token={token}")).await;
    assert_eq!(names(&page["recurringRuns"], "display_name"), ["a"]);

    server
        .post(&format!("{}:disable", path(&ids[0])), json!({}))
        .await;
    let filter = "%7B%22predicates%22:%5B%7B%22op%22:1,%22key%22:%22status%22,%22string_value%22:%22DISABLED%22%7D%5D%7D";
    let page = server.get(&format!("{V2}?filter={filter}")).await;
    assert_eq!(names(&page["recurringRuns"], "display_name"), ["a"]);
    let one = server.get(&path(&ids[0])).await;
    assert_eq!(
        (&one["mode"], &one["status"]),
        (&json!("DISABLE"), &json!("DISABLED"))
    );

    let change = json!({"display_name": "z", "max_concurrency": 3, "no_catchup": true,
        "mode": "ENABLE", "trigger": {"periodic_schedule": {"interval_second": 60}}});
    let changed = server.ok("PATCH", &path(&ids[0]), Some(change)).await;
    assert_eq!(changed["display_name"], "z");
    assert_eq!(changed["max_concurrency"], "3");
    assert_eq!(changed["no_catchup"], true);
    assert_eq!(changed["mode"], "ENABLE");
    assert_eq!(changed["description"], "d");
    assert_eq!(
        changed["trigger"]["periodic_schedule"]["interval_second"],
        "60"
    );
    server
        .refused(
            "PATCH",
            &path(&ids[0]),
            json!({"colour": 1}),
            &["unknown field"],
        )
        .await;
    let unchanged = json!({"recurring_run_id": "x"});
    server
        .refused(
            "PATCH",
            &path(&ids[0]),
            unchanged,
            &["not that of the path"],
        )
        .await;
    let runs = server.until_runs(1).await;
    assert_eq!(runs[0]["recurring_run_id"], ids[0]);

    let wrong = format!("{}?propagation_policy=SOON", path(&ids[0]));
    server
        .refused("DELETE", &wrong, json!({}), &["FOREGROUND"])
        .await;
    let removal = format!("{}?propagation_policy=FOREGROUND", path(&ids[0]));
    server.ok("DELETE", &removal, None).await;
    let (status, _) = server.send("GET", &path(&ids[0]), None).await;
    assert_eq!(status, 404);
    // Its active run was asked to end.
    server
        .until("the end of the run", async |this| {
            (this.runs().await[0]["state"] == "FAILED").then_some(())
        })
        .await;
}

#[tokio::test]
async fn previews_show_the_next_firings_and_warn() {
    let world = World::new();
    let server = world.start().await;
    let made = server.post(V2, recurring(cron("0 */10 * * * *"))).await;
    let path = format!(
        "{V2}/{}:preview",
        made["recurring_run_id"].as_str().unwrap()
    );
    let preview = server.get(&path).await;
    let times = preview["scheduled_times"].as_array().unwrap();
    assert_eq!(times.len(), 5);
    assert_eq!(times[0], "2026-05-04T10:10:00Z");
    assert_eq!(preview["time_zone"], "UTC");
    assert_eq!(preview.get("warnings"), None);

    let unsaved = server
        .get(&format!("{V2}:preview?cron=*/5+*+*+*+*&count=2"))
        .await;
    assert_eq!(
        unsaved["scheduled_times"],
        json!(["2026-05-04T10:00:35Z", "2026-05-04T10:00:40Z"])
    );
    assert!(
        unsaved["warnings"][0]
            .as_str()
            .unwrap()
            .contains("five fields")
    );
    let never = server.get(&format!("{V2}:preview?cron=0+0+0+30+2+*")).await;
    assert!(
        never["warnings"][0]
            .as_str()
            .unwrap()
            .contains("never fires")
    );
    let every = server
        .get(&format!("{V2}:preview?interval_second=60&count=1"))
        .await;
    assert_eq!(every["scheduled_times"], json!(["2026-05-04T10:01:30Z"]));
    let (status, answer) = server.send("GET", &format!("{V2}:preview"), None).await;
    assert_eq!(status, 400, "{answer}");
    let answer = server
        .raw("POST", V2, Some(recurring(cron("*/5 * * * *"))))
        .await;
    let warning = answer.headers()["warning"].to_str().unwrap();
    assert!(warning.starts_with("299 - "), "{warning}");
}

#[tokio::test]
async fn jobs_are_recurring_runs() {
    let world = World::new();
    let server = world.start().await;
    let experiment = server
        .post("/apis/v1beta1/experiments", json!({"name": "e"}))
        .await["id"]
        .clone();
    let body = json!({
        "name": "a job", "enabled": true, "max_concurrency": "1", "no_catchup": true,
        "pipeline_spec": {"workflow_manifest": workflow().to_string(),
            "parameters": [{"name": "text", "value": "[[RunUUID]]"}]},
        "resource_references": [
            {"key": {"type": "EXPERIMENT", "id": experiment}, "relationship": "OWNER"}],
        "trigger": {"periodic_schedule": {"interval_second": "60"}},
    });
    let job = server.post(V1, body).await;
    assert_eq!(job["enabled"], true);
    assert_eq!(job["mode"], "ENABLED");
    assert_eq!(job["trigger"]["periodic_schedule"]["interval_second"], "60");
    let id = job["id"].as_str().unwrap();
    let run = &server.until_runs(1).await[0];
    assert_eq!(run["runtime_config"]["parameters"]["text"], run["run_id"]);
    let of_job = format!(
        "/apis/v1beta1/runs?resource_reference_key.type=JOB&resource_reference_key.id={id}"
    );
    assert_eq!(server.get(&of_job).await["total_size"], 1);
    let scope = format!(
        "resource_reference_key.type=EXPERIMENT&resource_reference_key.id={}",
        experiment.as_str().unwrap()
    );
    let jobs = server.get(&format!("{V1}?{scope}")).await;
    assert_eq!(names(&jobs["jobs"], "name"), ["a job"]);
    server.post(&format!("{V1}/{id}/disable"), json!({})).await;
    assert_eq!(server.get(&format!("{V1}/{id}")).await.get("enabled"), None);
    server.post(&format!("{V1}/{id}/enable"), json!({})).await;

    // An archived experiment's jobs rest.
    let experiment = experiment.as_str().unwrap();
    server
        .post(
            &format!("/apis/v1beta1/experiments/{experiment}:archive"),
            json!({}),
        )
        .await;
    assert_eq!(
        server.get(&format!("{V1}/{id}")).await["status"],
        "Disabled"
    );
    server
        .refused(
            "POST",
            &format!("{V1}/{id}/enable"),
            json!({}),
            &["archived"],
        )
        .await;
    server.ok("DELETE", &format!("{V1}/{id}"), None).await;
    assert_eq!(server.get(V1).await, json!({}));
    assert_eq!(server.runs().await.len(), 1);
}

#[tokio::test]
async fn a_pipeline_without_version_means_its_newest_and_failures_are_told() {
    let world = World::new();
    let server = world.start().await;
    let pipeline = server
        .post(
            "/apis/v2beta1/pipelines",
            json!({"display_name": "p", "name": "p"}),
        )
        .await["pipeline_id"]
        .clone();
    let version = async |name: &str| {
        let mut package = workflow();
        package["metadata"]["generateName"] = json!(format!("{name}-"));
        let body = form("p.yaml", package.to_string().as_bytes());
        let pipeline = pipeline.as_str().unwrap();
        let request = Request::builder()
            .method("POST")
            .uri(format!(
                "/apis/v2beta1/pipelines/upload_version?name={name}&pipelineid={pipeline}"
            ))
            .header("content-type", "multipart/form-data; boundary=x")
            .body(Body::from(body))
            .unwrap();
        let answer = server.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let made: Value = serde_json::from_slice(&bytes).unwrap();
        made["pipeline_version_id"].clone()
    };
    let first = version("one").await;
    let mut body = recurring(cron("0 * * * * *"));
    body["pipeline_spec"] = json!({});
    body["pipeline_version_reference"] = json!({"pipeline_id": pipeline});
    let made = server.post(V2, body).await;
    let of = |run: &Value| run["pipeline_version_reference"]["pipeline_version_id"].clone();
    let runs = server.until_runs(1).await;
    assert_eq!(of(&runs[0]), first);
    server.clock.advance(Duration::from_secs(1));
    let second = version("two").await;
    server.finish(&runs[0]).await;
    let runs = server.until_runs(2).await;
    assert_eq!(of(&runs[1]), second);

    // Without any version no run can be made, and the recurring run says so.
    for id in [&first, &second] {
        let path = format!(
            "/apis/v2beta1/pipelines/{}/versions/{}",
            pipeline.as_str().unwrap(),
            id.as_str().unwrap()
        );
        server.ok("DELETE", &path, None).await;
    }
    server.finish(&runs[1]).await;
    let path = format!("{V2}/{}", made["recurring_run_id"].as_str().unwrap());
    let error = server
        .until("an error", async |this| {
            let one = this.get(&path).await;
            one["error"]["message"].as_str().map(str::to_owned)
        })
        .await;
    assert!(error.contains("PipelineVersion"), "{error}");
    // What was missed is made up for once it can be.
    let before = server.runs().await.len();
    version("three").await;
    server.until_runs(before + 1).await;
    server
        .until("no error", async |this| {
            this.get(&path).await.get("error").is_none().then_some(())
        })
        .await;
}

/// Each write of a firing's transaction; the update of the recurring run is told from others.
const WRITES: [(&str, &str); 6] = [
    ("journal_blob", "BEFORE INSERT ON journal_blob"),
    ("run_status", "BEFORE INSERT ON run_status"),
    (
        "recurring_run",
        "BEFORE UPDATE ON recurring_run WHEN new.fired > old.fired",
    ),
    ("run_record", "BEFORE INSERT ON run_record"),
    ("experiment", "BEFORE UPDATE ON experiment"),
    ("run_history", "BEFORE INSERT ON run_history"),
];

/// Kills the server at each write of a firing, and between firings, and counts.
#[tokio::test]
async fn a_crash_at_any_write_leaves_one_run_of_each_firing() {
    for (name, event) in WRITES {
        let world = World::new();
        let server = world.start().await;
        let mut body = recurring(cron("0 * * * * *"));
        body["max_concurrency"] = json!(10);
        let made = server.post(V2, body).await;
        server.until_runs(1).await;
        let trap = format!(
            "CREATE TRIGGER trap {event} BEGIN SELECT RAISE(ABORT, 'the disk is gone'); END"
        );
        execute(&server.db, trap).await;
        let before = server.runs().await.len();
        let path = format!("{V2}/{}", made["recurring_run_id"].as_str().unwrap());
        // Another package, so that its text has to be written too.
        let mut package = workflow();
        package["metadata"]["generateName"] = json!("other-");
        server
            .ok("PATCH", &path, Some(json!({"pipeline_spec": package})))
            .await;
        let error = server
            .until(name, async |this| {
                let one = this.get(&path).await;
                one["error"]["message"].as_str().map(str::to_owned)
            })
            .await;
        assert!(!error.is_empty());
        assert_eq!(server.runs().await.len(), before, "{name}: {error}");
        execute(&server.db, "DROP TRIGGER trap".to_owned()).await;
        server.kill().await;

        let server = world.start().await;
        server.until_runs(before + 1).await;
        server.kill().await;
        let server = world.start().await;
        let runs = server.until_runs(before + 3).await;
        check_firings(&runs);
        server.kill().await;
    }
}

/// Kills the server at whatever it does after so many steps of the executor.
#[tokio::test]
async fn a_crash_at_any_moment_leaves_one_run_of_each_firing() {
    let world = World::new();
    let server = world.start().await;
    let mut body = recurring(cron("*/2 * * * * *"));
    body["max_concurrency"] = json!(10);
    server.post(V2, body).await;
    server.kill().await;
    for steps in 0..40 {
        let server = world.start().await;
        server.clock.advance(Duration::from_secs(2));
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        server.kill().await;
    }
    let server = world.start().await;
    let runs = server.until_runs(10).await;
    check_firings(&runs);
    server.kill().await;
}

/// Firings are numbered without a gap, each with a time and a name of its own.
fn check_firings(runs: &[Value]) {
    let times = names(&json!(runs), "scheduled_at");
    let mut sorted = times.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(times, sorted);
    let step = |pair: &[String]| {
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_second();
        at(&pair[1]) - at(&pair[0])
    };
    let first = step(&times[..2]);
    assert!(
        times.windows(2).all(|pair| step(pair) == first),
        "{times:?}"
    );
    for (index, name) in (1..).zip(names(&json!(runs), "display_name")) {
        assert!(name.contains(&format!("-{index}-")), "{index}: {name}");
    }
}

async fn execute(db: &Db, sql: String) {
    db.write(move |tx| {
        Box::pin(async move {
            db::sqlx::raw_sql(db::sqlx::AssertSqlSafe(sql))
                .execute(tx)
                .await?;
            Ok(())
        })
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_clock_that_jumps_makes_no_run_twice() {
    let world = World::new();
    let server = world.start().await;
    let mut body = recurring(cron("0 * * * * *"));
    body["max_concurrency"] = json!(10);
    server.post(V2, body).await;
    server.until_runs(3).await;
    server.kill().await;
    // The machine comes back with its clock an hour early, and then right.
    let early = World {
        clock: Arc::new(ManualClock::new("2026-05-04T09:00:00Z".parse().unwrap())),
        ..world
    };
    let server = early.start().await;
    let before = server.runs().await.len();
    server.clock.advance(Duration::from_secs(600));
    // Something else fires, so the loop has looked.
    let other = server.post(V2, recurring(json!({}))).await;
    let mut runs = server.until_runs(before + 1).await;
    runs.retain(|run| run["recurring_run_id"] != other["recurring_run_id"]);
    assert_eq!(runs.len(), before);
    server.clock.advance(Duration::from_secs(3600));
    let mut runs = server.until_runs(before + 4).await;
    runs.retain(|run| run["recurring_run_id"] != other["recurring_run_id"]);
    check_firings(&runs);
}

#[tokio::test]
async fn runs_go_when_their_time_is_over() {
    let world = World::new();
    let server = world.start_with(Some(Duration::from_secs(3600))).await;
    let start = async |name: &str, ttl: Option<u64>| {
        let mut package = workflow();
        if let Some(seconds) = ttl {
            package["spec"]["ttlStrategy"] = json!({"secondsAfterCompletion": seconds});
        }
        let body = json!({"display_name": name, "pipeline_spec": package});
        server.post("/apis/v2beta1/runs", body).await
    };
    let (short, long) = (start("short", Some(60)).await, start("long", None).await);
    let active = start("active", Some(1)).await;
    server.finish(&short).await;
    server.finish(&long).await;
    let left = async |count: usize| {
        server
            .until("fewer runs", async |this| {
                let runs = this.runs().await;
                (runs.len() == count).then(|| names(&json!(runs), "display_name"))
            })
            .await
    };
    let mut names = left(2).await;
    names.sort();
    assert_eq!(names, ["active", "long"]);
    assert_eq!(left(1).await, ["active"]);
    let id = active["run_id"].as_str().unwrap();
    assert_eq!(
        server.get(&format!("/apis/v2beta1/runs/{id}")).await["run_id"],
        id
    );
}
