#!/usr/bin/env python3
"""Talks to a running server with the real kfp SDK 1.8: every public method of its client, and what comes back.

usage: check_kfp.py URL

Exit code 0 if all is well; the last line is a summary.
"""
import inspect
import json
import os
import sys
import tempfile
import uuid

import kfp
from kfp import dsl
from kfp_server_api.exceptions import ApiException

SECONDS = 60
problems = []
called = set()


def check(condition, text):
    if not condition:
        problems.append(text)
        print("PROBLEM", text)


def refused(status, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ApiException as error:
        body = json.loads(error.body)
        check(error.status == status, f"{call.__name__}: status {error.status}, expected {status}: {body}")
        check(body.get("message") or body.get("error_message"), f"{call.__name__}: the error has no message: {body}")
        return
    problems.append(f"{call.__name__} was not refused")


def equals(key, value):
    return json.dumps({"predicates": [{"op": 1, "key": key, "stringValue": value}]})


def watched(client):
    """Notes which public methods are called."""
    for name, method in inspect.getmembers(client, inspect.ismethod):
        if not name.startswith("_"):
            def call(*arguments, _name=name, _method=method, **options):
                called.add(_name)
                return _method(*arguments, **options)
            call.__name__ = name
            setattr(client, name, call)
    return client


def step(name, script, *arguments):
    return dsl.ContainerOp(
        name=name,
        image="alpine:3",
        command=["sh", "-c", script, "step"],
        arguments=list(arguments),
        file_outputs={"text": "/tmp/text"},
    )


@dsl.pipeline(name="greeting", description="Two steps: the second reads what the first wrote.")
def greeting(who: str = "world"):
    said = step("say", "mkdir -p /tmp && echo -n \"hello $1\" > /tmp/text", who)
    step("shout", "echo \"$1\" | tr a-z A-Z | tee /tmp/text", said.outputs["text"])


@dsl.pipeline(name="broken", description="One step that fails.")
def broken():
    dsl.ContainerOp(name="fail", image="alpine:3", command=["sh", "-c", "echo no good; exit 3"])


def main():
    client = watched(kfp.Client(host=sys.argv[1]))
    unique = uuid.uuid4().hex[:8]
    folder = tempfile.mkdtemp()

    experiment = client.create_experiment(f"sdk-{unique}")
    check(client.get_experiment(experiment_name=f"sdk-{unique}").id == experiment.id, "the experiment is not found by name")

    package = os.path.join(folder, "greeting.yaml")
    kfp.compiler.Compiler().compile(greeting, package)
    pipeline = client.upload_pipeline(package, pipeline_name=f"greeting-{unique}")
    check(client.get_pipeline_id(f"greeting-{unique}") == pipeline.id, "the pipeline is not found by name")
    check([p.name for p in pipeline.parameters or []] == ["who"], f"its parameters are {pipeline.parameters}")

    run = client.run_pipeline(experiment.id, f"greeting-{unique}", pipeline_id=pipeline.id, params={"who": "kfp"})
    done = client.wait_for_run_completion(run.id, SECONDS)
    check(done.run.status == "Succeeded", f"the run ended as {done.run.status}")
    workflow = json.loads(done.pipeline_runtime.workflow_manifest)
    pods = {n["displayName"]: n for n in workflow["status"]["nodes"].values() if n["type"] == "Pod"}
    check(sorted(pods) == ["say", "shout"], f"the steps are {sorted(pods)}")
    for name, node in pods.items():
        outputs = {p["name"]: p.get("value") for p in node.get("outputs", {}).get("parameters", [])}
        expected = {"say": "hello kfp", "shout": "HELLO KFP"}.get(name)
        if name == "say":
            check(list(outputs.values()) == [expected], f"{name} gave {outputs}")

    check(client.get_run(run.id).run.pipeline_spec.pipeline_id == pipeline.id, "the run does not know its pipeline")
    runs = client.list_runs(experiment_id=experiment.id).runs or []
    check([r.id for r in runs] == [run.id], f"the experiment's runs are {[r.id for r in runs]}")

    failed = client.create_run_from_pipeline_func(broken, arguments={}, experiment_name=f"sdk-{unique}", run_name=f"broken-{unique}")
    try:
        status = failed.wait_for_run_completion(SECONDS).run.status
    except RuntimeError as error:
        status = str(error)
    check("Failed" in status, f"a run whose step fails ended as {status}")

    client.runs.archive_run(run.id)
    runs = client.list_runs(experiment_id=experiment.id).runs or []
    archived = [r.id for r in runs if r.id == run.id and r.storage_state != "STORAGESTATE_ARCHIVED"]
    check(not archived, "an archived run still counts as available")

    # The methods that nothing above needed.
    check(client.get_kfp_healthz().multi_user is False, "healthz")
    client.set_user_namespace("kubeflow")
    check(client.get_user_namespace() == "kubeflow", "the namespace is not kept")
    client.set_user_namespace("")
    listed = client.list_experiments(filter=equals("name", f"sdk-{unique}"), sort_by="created_at desc")
    check([e.id for e in listed.experiments] == [experiment.id], f"the filtered experiments are {listed}")
    check(client.get_pipeline(pipeline.id).default_version.name == f"greeting-{unique}", "the default version has another name")
    listed = client.list_pipelines(filter=equals("name", f"greeting-{unique}"))
    check([p.id for p in listed.pipelines] == [pipeline.id], f"the filtered pipelines are {listed}")
    version = client.upload_pipeline_version(package, f"v2-{unique}", pipeline_id=pipeline.id, description="second")
    versions = client.list_pipeline_versions(pipeline.id, sort_by="created_at desc", page_size=1)
    check([v.id for v in versions.versions] == [version.id] and versions.total_size == 2, f"the versions are {versions}")
    client.delete_pipeline_version(version.id)
    refused(409, client.upload_pipeline, package, pipeline_name=f"greeting-{unique}")
    refused(404, client.get_run, "no-such")
    packaged = client.create_run_from_pipeline_package(package, arguments={"who": "package"}, run_name=f"package-{unique}", experiment_name=f"sdk-{unique}")
    check(packaged.wait_for_run_completion(SECONDS).run.status == "Succeeded", "the run of a package did not succeed")

    job = client.create_recurring_run(experiment.id, f"cron-{unique}", cron_expression="0 0 0 1 1 *", pipeline_id=pipeline.id, params={"who": "cron"})
    read = client.get_recurring_run(job.id)
    check(read.enabled and read.trigger.cron_schedule.cron == "0 0 0 1 1 *", f"the job is {read}")
    client.disable_job(job.id)
    check(not client.get_recurring_run(job.id).enabled, "the job is not disabled")
    jobs = client.list_recurring_runs(experiment_id=experiment.id)
    check([j.id for j in jobs.jobs] == [job.id], f"the jobs are {jobs}")
    client.delete_job(job.id)
    refused(404, client.get_recurring_run, job.id)

    client.archive_experiment(experiment.id)
    check(client.get_experiment(experiment.id).storage_state == "STORAGESTATE_ARCHIVED", "the experiment is not archived")
    client.delete_experiment(experiment.id)
    refused(404, client.get_experiment, experiment.id)
    client.delete_pipeline(pipeline.id)
    check(client.get_pipeline_id(f"greeting-{unique}") is None, "a deleted pipeline is still found")

    public = {n for n, _ in inspect.getmembers(kfp.Client, inspect.isfunction) if not n.startswith("_")}
    check(called >= public, f"not called: {sorted(public - called)}")
    print(f"{'FAILED' if problems else 'ok'}: kfp {kfp.__version__}, {len(called)} methods, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
