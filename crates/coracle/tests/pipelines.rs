//! The Pipelines API (v1beta1) and the runs behind it, over plain HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use support::kfp::{
    call, create_run, end, get, run, run_manifest, steps, succeed, upload, upload_to, workflow,
};
use support::{Server, repository, said, shared, until};

const API: &str = "/apis/v1beta1";

/// A workflow of shell steps. `folder` is mounted at /work in each; a step is (name, script).
fn shell_workflow(
    folder: &Path,
    parameters: &[&str],
    tasks: &Value,
    steps: &[(&str, Value)],
) -> Value {
    let inputs: Vec<Value> = parameters.iter().map(|p| json!({"name": p})).collect();
    let defaults: Vec<Value> = parameters
        .iter()
        .map(|p| json!({"name": p, "value": format!("default-{p}")}))
        .collect();
    let mut templates =
        vec![json!({"name": "main", "inputs": {"parameters": inputs}, "dag": {"tasks": tasks}})];
    for (name, extra) in steps {
        let mut template = json!({
            "name": name,
            "volumes": [{"name": "work", "hostPath": {"path": folder}}],
        });
        for (key, value) in extra.as_object().unwrap() {
            template[key] = value.clone();
        }
        if template.get("dag").is_none() {
            template["container"]["image"] = json!("busybox");
            template["container"]["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
        }
        templates.push(template);
    }
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"generateName": "shell-"},
        "spec": {"entrypoint": "main", "serviceAccountName": "pipeline-runner",
            "arguments": {"parameters": defaults}, "templates": templates},
    })
}

/// A template that runs a script with one parameter `word`.
fn script(text: &str) -> Value {
    json!({"inputs": {"parameters": [{"name": "word"}]},
        "container": {"command": ["sh", "-ec", text]}})
}

fn word(value: &str) -> Value {
    json!({"parameters": [{"name": "word", "value": value}]})
}

fn work_folder(server: &Server) -> std::path::PathBuf {
    let folder = server.scratch().join("work");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn lines(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> = std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// Everything of v1 that a small workflow can show: parameters, an output that decides a condition,
/// both loops, a retry.
fn everything(folder: &Path) -> Value {
    let tasks = json!([
        {"name": "flip", "template": "flip", "arguments": word("{{inputs.parameters.my_word}}")},
        {"name": "yes", "template": "say", "dependencies": ["flip"],
            "when": "\"{{tasks.flip.outputs.parameters.side}}\" == \"heads\"",
            "arguments": word("yes-{{tasks.flip.outputs.parameters.side}}")},
        {"name": "no", "template": "say", "dependencies": ["flip"],
            "when": "\"{{tasks.flip.outputs.parameters.side}}\" != \"heads\"",
            "arguments": word("no")},
        {"name": "fixed", "template": "say", "withItems": ["a", "b"],
            "arguments": word("fixed-{{item}}")},
        {"name": "given", "template": "say", "dependencies": ["flip"],
            "withParam": "{{tasks.flip.outputs.parameters.list}}",
            "arguments": word("given-{{item}}")},
        {"name": "flaky", "template": "flaky", "arguments": word("x")},
        {"name": "last", "template": "say", "dependencies": ["yes", "no", "given", "flaky", "fixed"],
            "arguments": word("last")},
    ]);
    let mut flip = script(
        "echo flipped {{inputs.parameters.word}}; echo -n heads > /tmp/side; \
         echo '[1, 2, 3]' > /tmp/list",
    );
    flip["outputs"] = json!({"parameters": [
        {"name": "side", "valueFrom": {"path": "/tmp/side"}},
        {"name": "list", "valueFrom": {"path": "/tmp/list"}},
    ]});
    let mut flaky = script("echo try >> /work/tries; test $(wc -l < /work/tries) -ge 3");
    flaky["retryStrategy"] = json!({"limit": 5});
    let say = script("echo {{inputs.parameters.word}} >> /work/said");
    shell_workflow(
        folder,
        &["my_word"],
        &tasks,
        &[("flip", flip), ("say", say), ("flaky", flaky)],
    )
}

#[tokio::test]
async fn a_workflow_with_everything_runs() {
    let server = Server::start();
    let folder = work_folder(&server);
    let id = run_manifest(
        &server,
        "all",
        &everything(&folder),
        &[("my-word", "hello")],
    )
    .await;
    let done = succeed(&server, &id).await;
    let expect = [
        "fixed-a",
        "fixed-b",
        "given-1",
        "given-2",
        "given-3",
        "last",
        "yes-heads",
    ];
    assert_eq!(lines(&folder.join("said")), expect);
    assert_eq!(
        lines(&folder.join("tries")).len(),
        3,
        "it is tried until it works, and no more"
    );
    let last = std::fs::read_to_string(folder.join("said")).unwrap();
    assert_eq!(
        last.lines().last(),
        Some("last"),
        "after everything it depends on"
    );

    // The live Workflow shows what ran, what did not, and what was handed on.
    let manifest = workflow(&done);
    assert_eq!(manifest["status"]["phase"], "Succeeded");
    let nodes: Vec<Value> = manifest["status"]["nodes"]
        .as_object()
        .unwrap()
        .values()
        .cloned()
        .collect();
    let by_name = |name: &str| {
        nodes
            .iter()
            .find(|n| n["displayName"] == name)
            .unwrap_or_else(|| panic!("{name} in {nodes:#?}"))
    };
    let flip = by_name("flip");
    let outputs = flip["outputs"]["parameters"].as_array().unwrap();
    assert!(
        outputs
            .iter()
            .any(|o| o["name"] == "side" && o["value"] == "heads"),
        "{outputs:?}"
    );
    assert!(["Skipped", "Omitted"].contains(&by_name("no")["phase"].as_str().unwrap()));
    assert_eq!(by_name("yes")["phase"], "Succeeded");
    let failed = nodes
        .iter()
        .filter(|n| n["phase"] == "Failed" && n["type"] == "Pod")
        .count();
    assert_eq!(failed, 2, "the failed attempts are kept: {nodes:#?}");
    for node in &nodes {
        assert!(
            node["startedAt"].is_string() && node["finishedAt"].is_string(),
            "{node}"
        );
    }

    // Step logs over the API.
    let url = |node: &str| format!("/apis/v1alpha1/runs/{id}/nodes/{node}/log");
    let log = call(&server, "GET", &url(flip["id"].as_str().unwrap()), None).await;
    assert_eq!(
        (log.status.as_u16(), log.text.as_str()),
        (200, "flipped hello\n")
    );
    let none = call(&server, "GET", &url("no-such-node"), None).await;
    assert_eq!(none.status.as_u16(), 404, "{}", none.text);
    assert!(none.text.contains("no-such-node"), "{}", none.text);
}

#[tokio::test]
async fn packages_are_uploaded_and_parameters_accepted_in_both_spellings() {
    let server = Server::start();
    let mut packages = vec![(
        "example".to_owned(),
        "mnist_pipeline.yaml".to_owned(),
        std::fs::read(repository("examples/mnist/mnist_pipeline.yaml")).unwrap(),
    )];
    for version in ["1.8.22", "0.1.40"] {
        let file = format!("mnist_pipeline-kfp-{version}.tar.gz");
        match shared(&format!("seed/{file}")) {
            Some(path) => packages.push((
                format!("seed-{version}"),
                file,
                std::fs::read(path).unwrap(),
            )),
            None => support::skip(&format!("{file} is not there")),
        }
    }
    for (name, file, bytes) in &packages {
        let uploaded = upload(&server, name, file, bytes).await.ok();
        assert_eq!(uploaded["name"], **name);
        let names: Vec<&str> = uploaded["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        let has = |text: &str| names.iter().any(|n| n.replace('-', "_") == text);
        assert!(has("model_export_dir") && has("pvc_name"), "{names:?}");
        let id = uploaded["id"].as_str().unwrap();
        let template = get(&server, &format!("{API}/pipelines/{id}/templates")).await;
        assert!(template["template"].as_str().unwrap().contains("Workflow"));
        let source = json!({"pipeline_id": id});
        for parameters in [
            [
                ("model-export-dir", "/mnt/export"),
                ("pvc-name", "no-claim"),
            ],
            [
                ("model_export_dir", "/mnt/export"),
                ("pvc_name", "no-claim"),
            ],
        ] {
            let run = create_run(&server, "spelled", source.clone(), &parameters)
                .await
                .ok();
            let id = run["run"]["id"].as_str().unwrap();
            // Its claim does not exist: there is nothing to wait for.
            call(&server, "POST", &format!("{API}/runs/{id}/terminate"), None)
                .await
                .ok();
            let ended = end(&server, id).await;
            assert_eq!(ended["run"]["status"], "Failed");
        }
        let refused = create_run(&server, "x", source, &[("modell_export_dir", "x")]).await;
        assert_eq!(refused.status.as_u16(), 400, "{}", refused.text);
        for part in ["modell_export_dir", names[0], names[1]] {
            assert!(refused.text.contains(part), "{part} in {}", refused.text);
        }
    }
    // A second version becomes known.
    let (name, file, bytes) = &packages[0];
    let found = get(&server, &format!("{API}/namespaces/-/pipelines/{name}")).await;
    let id = found["id"].as_str().unwrap();
    let path = format!("{API}/pipelines/upload_version?name=second&pipelineid={id}");
    let version = upload_to(&server, &path, file, bytes).await.ok();
    assert_eq!(version["name"], "second");
    let path = format!("{API}/pipeline_versions?resource_key.type=PIPELINE&resource_key.id={id}");
    assert_eq!(
        get(&server, &path).await["versions"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let twice = upload(&server, name, file, bytes).await;
    assert_eq!(twice.status.as_u16(), 409, "{}", twice.text);
    assert!(twice.text.contains(name.as_str()), "{}", twice.text);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let server = Server::start();
    let example = std::fs::read(repository("examples/mnist/mnist_pipeline.yaml")).unwrap();
    for (file, bytes, part) in [
        ("notes.txt", &b"just some words"[..], "notes.txt"),
        ("cut.tar.gz", &[0x1f, 0x8b, 8, 0, 0, 0], "cut.tar.gz"),
        ("pod.yaml", b"apiVersion: v1\nkind: Pod\n", "Workflow"),
        ("broken.yaml", b"a: [1, 2\nb: }", "broken.yaml"),
        ("empty.yaml", b"", "empty.yaml"),
        ("half.yaml", &example[..example.len() / 2], "half.yaml"),
    ] {
        let refused = upload(&server, "bad", file, bytes).await;
        assert_eq!(refused.status.as_u16(), 400, "{file}: {}", refused.text);
        assert!(refused.text.contains(part), "{file}: {}", refused.text);
    }
    let none = get(&server, &format!("{API}/pipelines")).await;
    assert_eq!(
        none.get("pipelines"),
        None,
        "nothing of it was kept: {none}"
    );

    let folder = work_folder(&server);
    let manifest = everything(&folder);
    let source = json!({"workflow_manifest": manifest.to_string()});
    let cases = [
        (
            "without a name",
            create_run(&server, "", source.clone(), &[]).await,
            400,
            "name",
        ),
        (
            "without a source",
            create_run(&server, "x", json!({}), &[]).await,
            400,
            "pipeline_id",
        ),
        (
            "unknown pipeline",
            create_run(&server, "x", json!({"pipeline_id": "nope"}), &[]).await,
            404,
            "nope",
        ),
        (
            "unknown parameter",
            create_run(&server, "x", source, &[("colour", "red")]).await,
            400,
            "my_word",
        ),
        (
            "unknown field",
            call(
                &server,
                "POST",
                &format!("{API}/runs"),
                Some(&json!({"nmae": "x"})),
            )
            .await,
            400,
            "nmae",
        ),
        (
            "no name for an experiment",
            call(
                &server,
                "POST",
                &format!("{API}/experiments"),
                Some(&json!({})),
            )
            .await,
            400,
            "name",
        ),
        (
            "unknown run",
            call(&server, "GET", &format!("{API}/runs/nope"), None).await,
            404,
            "nope",
        ),
        (
            "unknown path",
            call(&server, "GET", "/apis/v1beta1/nothing", None).await,
            404,
            "/apis/v1beta1/nothing",
        ),
        (
            "sort by what is not there",
            call(&server, "GET", &format!("{API}/runs?sort_by=colour"), None).await,
            400,
            "created_at",
        ),
        (
            "a token of another list",
            call(&server, "GET", &format!("{API}/runs?page_token=xyz"), None).await,
            400,
            "page_token",
        ),
    ];
    for (what, answer, status, part) in cases {
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
        assert!(answer.text.contains(part), "{what}: {}", answer.text);
        // The shape of the original's gateway.
        let body = answer.json();
        assert!(
            body["error"].is_string() && body["code"].is_number(),
            "{what}: {body}"
        );
    }
    let text =
        support::http::request("POST", &server.url(&format!("{API}/runs")), &[], "{oops").await;
    assert_eq!(text.unwrap().status.as_u16(), 400);
}

#[tokio::test]
async fn a_run_can_be_terminated_retried_and_deleted() {
    let server = Server::start();
    let folder = work_folder(&server);
    let tasks = json!([
        {"name": "long", "template": "long", "arguments": word("x")},
        {"name": "after", "template": "long", "dependencies": ["long"], "arguments": word("y")},
    ]);
    // A second try finds the marker and works.
    let long = script(
        "echo {{inputs.parameters.word}} >> /work/starts; \
         test -e /work/pass || exec sleep 987641",
    );
    let manifest = shell_workflow(&folder, &[], &tasks, &[("long", long)]);
    let id = run_manifest(&server, "stopped", &manifest, &[]).await;
    until("the step runs", async || {
        (!lines(&folder.join("starts")).is_empty()).then_some(())
    })
    .await;
    // The node tells of a start a moment later, in case the end comes at once.
    until("the run is told to run", async || {
        (run(&server, &id).await["run"]["status"] == "Running").then_some(())
    })
    .await;
    call(&server, "POST", &format!("{API}/runs/{id}/terminate"), None)
        .await
        .ok();
    let ended = end(&server, &id).await;
    assert_eq!(
        ended["run"]["status"], "Failed",
        "clients know no other word for it"
    );
    until("its process is gone", async || {
        support::server::processes_with("sleep 987641")
            .is_empty()
            .then_some(())
    })
    .await;
    assert_eq!(
        lines(&folder.join("starts")),
        ["x"],
        "what came after does not start"
    );

    std::fs::write(folder.join("pass"), "").unwrap();
    call(&server, "POST", &format!("{API}/runs/{id}/retry"), None)
        .await
        .ok();
    succeed(&server, &id).await;
    assert_eq!(lines(&folder.join("starts")), ["x", "x", "y"]);

    call(&server, "DELETE", &format!("{API}/runs/{id}"), None)
        .await
        .ok();
    let gone = call(&server, "GET", &format!("{API}/runs/{id}"), None).await;
    assert_eq!(gone.status.as_u16(), 404, "{}", gone.text);
    let pods: Api<Pod> = Api::namespaced(server.client().await, "kubeflow");
    until("its Pods go with it", async || {
        let ours = ListParams::default().labels(&format!("pipeline/runid={id}"));
        pods.list(&ours).await.ok()?.items.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn lists_are_paged_sorted_and_filtered() {
    let server = Server::start();
    let mut ids = Vec::new();
    for i in 0..5 {
        let body = json!({"name": format!("exp-{i}"), "description": "d"});
        let made = call(&server, "POST", &format!("{API}/experiments"), Some(&body))
            .await
            .ok();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    let twice = json!({"name": "exp-0"});
    let twice = call(&server, "POST", &format!("{API}/experiments"), Some(&twice)).await;
    assert_eq!(twice.status.as_u16(), 409, "{}", twice.text);

    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("{API}/experiments?page_size=2&sort_by=name%20desc&page_token={token}");
        let page = get(&server, &path).await;
        assert_eq!(page["total_size"].to_string().trim_matches('"'), "5");
        let items = page["experiments"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|e| e["name"].as_str().unwrap().to_owned()));
        token = page["next_page_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["exp-4", "exp-3", "exp-2", "exp-1", "exp-0"]);
    let filtered = async |predicates: Value| {
        let filter = json!({"predicates": predicates}).to_string();
        let filter: String = filter.bytes().map(|b| format!("%{b:02X}")).collect();
        let page = get(&server, &format!("{API}/experiments?filter={filter}")).await;
        page["experiments"].as_array().map_or(0, Vec::len)
    };
    let is = |value: &str| json!([{"op": "EQUALS", "key": "name", "string_value": value}]);
    assert_eq!(filtered(is("exp-3")).await, 1);
    assert_eq!(filtered(is("exp-9")).await, 0);
    // As the Python client writes it.
    assert_eq!(
        filtered(json!([{"op": 1, "key": "name", "stringValue": "exp-3"}])).await,
        1
    );
    let part = json!([{"op": "IS_SUBSTRING", "key": "name", "string_value": "xp-"}]);
    assert_eq!(filtered(part).await, 5);

    // An archived experiment takes no runs, and comes back.
    let (id, folder) = (&ids[0], work_folder(&server));
    call(
        &server,
        "POST",
        &format!("{API}/experiments/{id}:archive"),
        None,
    )
    .await
    .ok();
    let archived = get(&server, &format!("{API}/experiments/{id}")).await;
    assert_eq!(archived["storage_state"], "STORAGESTATE_ARCHIVED");
    let manifest = shell_workflow(
        &folder,
        &[],
        &json!([{"name": "one", "template": "one", "arguments": word("x")}]),
        &[("one", script("true"))],
    );
    let body = json!({"name": "r", "pipeline_spec": {"workflow_manifest": manifest.to_string()},
        "resource_references": [
            {"key": {"type": "EXPERIMENT", "id": id}, "relationship": "OWNER"}]});
    let refused = call(&server, "POST", &format!("{API}/runs"), Some(&body)).await;
    assert!(
        refused.status.is_client_error() && refused.text.contains("archived"),
        "{}",
        refused.text
    );
    call(
        &server,
        "POST",
        &format!("{API}/experiments/{id}:unarchive"),
        None,
    )
    .await
    .ok();
    let made = call(&server, "POST", &format!("{API}/runs"), Some(&body))
        .await
        .ok();
    let run_id = made["run"]["id"].as_str().unwrap();
    succeed(&server, run_id).await;
    let of = |id: &str| {
        format!("{API}/runs?resource_reference_key.type=EXPERIMENT&resource_reference_key.id={id}")
    };
    let listed = get(&server, &of(id)).await;
    assert_eq!(listed["runs"][0]["id"], run_id);
    assert_eq!(get(&server, &of(&ids[1])).await.get("runs"), None);
    call(
        &server,
        "DELETE",
        &format!("{API}/experiments/{}", ids[1]),
        None,
    )
    .await
    .ok();
    let gone = call(
        &server,
        "GET",
        &format!("{API}/experiments/{}", ids[1]),
        None,
    )
    .await;
    assert_eq!(gone.status.as_u16(), 404);
}

#[tokio::test]
async fn a_run_goes_on_after_its_server_was_killed() {
    let server = Server::start();
    let folder = work_folder(&server);
    let step = |name: &str, after: &[&str]| json!({"name": name, "template": "step", "dependencies": after, "arguments": word(name)});
    let tasks = json!([
        step("a", &[]),
        step("b", &["a"]),
        step("c", &["a"]),
        step("d", &["b", "c"]),
        step("e", &["d"])
    ]);
    let text = "echo {{inputs.parameters.word}} >> /work/starts; sleep 0.3; \
                echo {{inputs.parameters.word}} >> /work/ends";
    let manifest = shell_workflow(&folder, &[], &tasks, &[("step", script(text))]);
    let id = run_manifest(&server, "crashed", &manifest, &[]).await;
    for starts in [1, 3, 5] {
        until("the next step starts", async || {
            (lines(&folder.join("starts")).len() >= starts).then_some(())
        })
        .await;
        server.kill();
        server.up();
    }
    let done = succeed(&server, &id).await;
    let all = ["a", "b", "c", "d", "e"];
    assert_eq!(
        lines(&folder.join("starts")),
        all,
        "each step started exactly once"
    );
    assert_eq!(lines(&folder.join("ends")), all);
    let expect: Vec<(String, String)> = all
        .iter()
        .map(|n| ((*n).to_owned(), "Succeeded".to_owned()))
        .collect();
    assert_eq!(steps(&done), expect);
    let pods: Api<Pod> = Api::namespaced(server.client().await, "kubeflow");
    let ours = ListParams::default().labels(&format!("pipeline/runid={id}"));
    assert_eq!(pods.list(&ours).await.unwrap().items.len(), 5);
    let down = server.run(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
}

#[tokio::test]
async fn a_run_that_a_stop_cut_off_goes_on_by_itself_after_the_next_start() {
    let server = Server::start();
    let folder = work_folder(&server);
    let step = |name: &str, after: &[&str]| json!({"name": name, "template": "step", "dependencies": after, "arguments": word(name)});
    let tasks = json!([step("first", &[]), step("second", &["first"])]);
    let text = "echo {{inputs.parameters.word}} >> /work/starts; \
                [ {{inputs.parameters.word}} = first ] || [ -e /work/pass ] || exec sleep 987642";
    let manifest = shell_workflow(&folder, &[], &tasks, &[("step", script(text))]);
    let id = run_manifest(&server, "stopped", &manifest, &[]).await;
    until("the second step runs", async || {
        lines(&folder.join("starts"))
            .contains(&"second".to_owned())
            .then_some(())
    })
    .await;
    server.stop();
    assert!(support::server::processes_with("sleep 987642").is_empty());
    std::fs::write(folder.join("pass"), "").unwrap();
    server.up();
    let done = succeed(&server, &id).await;
    assert_eq!(lines(&folder.join("starts")), ["first", "second", "second"]);
    let succeeded = |name: &str| (name.to_owned(), "Succeeded".to_owned());
    assert_eq!(steps(&done), [succeeded("first"), succeeded("second")]);
}
