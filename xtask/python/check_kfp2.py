#!/usr/bin/env python3
"""Talks to a running server with the real kfp SDK 2: every public method of its client, and what comes back.

usage: check_kfp2.py URL

Exit code 0 if all is well; the last line is a summary.
"""
import inspect
import json
import os
import sys
import tempfile
import uuid

import kfp
from kfp import compiler, dsl
from kfp_server_api.exceptions import ApiException

SECONDS = 120
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
        check(body.get("message") and body.get("error") and body.get("code"), f"{call.__name__}: the error has no message: {body}")
        return
    problems.append(f"{call.__name__} was not refused")


def equals(key, value):
    return json.dumps({"predicates": [{"operation": 1, "key": key, "stringValue": value}]})


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


@dsl.container_component
def say(who: str, text: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image="alpine:3",
        command=["sh", "-c", 'mkdir -p "$(dirname "$1")" && printf "hello %s" "$0" > "$1"'],
        args=[who, text],
    )


@dsl.container_component
def shout(text: str):
    return dsl.ContainerSpec(image="alpine:3", command=["sh", "-c", 'echo "$0" | tr a-z A-Z'], args=[text])


@dsl.container_component
def no_good():
    return dsl.ContainerSpec(image="alpine:3", command=["sh", "-c", "echo no good; exit 3"])


@dsl.container_component
def wait():
    return dsl.ContainerSpec(image="alpine:3", command=["sh", "-c", "sleep 600"])


@dsl.pipeline(name="greeting", description="Two steps: the second reads what the first wrote.")
def greeting(who: str = "world", times: int = 1):
    shout(text=say(who=who).outputs["text"])


@dsl.pipeline(name="broken")
def broken():
    no_good()


@dsl.pipeline(name="waiting")
def waiting():
    wait()


def main():
    client = watched(kfp.Client(host=sys.argv[1]))
    unique = uuid.uuid4().hex[:8]
    folder = tempfile.mkdtemp()
    package = os.path.join(folder, "greeting.yaml")
    compiler.Compiler().compile(greeting, package)

    health = client.get_kfp_healthz()
    check(health.multi_user is False and health.pipeline_store == "database", f"healthz answers {health}")
    client.set_user_namespace("kubeflow")
    check(client.get_user_namespace() == "kubeflow", "the namespace is not kept")
    client.set_user_namespace("")

    # Experiments.
    experiment = client.create_experiment(f"sdk-{unique}", description="d")
    again = client.create_experiment(f"sdk-{unique}")
    check(again.experiment_id == experiment.experiment_id, "an experiment is made twice")
    found = client.get_experiment(experiment_name=f"sdk-{unique}")
    check(found.experiment_id == experiment.experiment_id, "the experiment is not found by name")
    found = client.get_experiment(experiment_id=experiment.experiment_id)
    check(found.description == "d" and found.storage_state == "AVAILABLE", f"the experiment is {found}")
    listed = client.list_experiments(filter=equals("display_name", f"sdk-{unique}"), sort_by="created_at desc")
    check(listed.total_size == 1, f"the filtered experiments are {listed}")
    refused(404, client.get_experiment, experiment_id="no-such")
    client.archive_experiment(experiment.experiment_id)
    check(client.get_experiment(experiment_id=experiment.experiment_id).storage_state == "ARCHIVED", "the experiment is not archived")
    client.unarchive_experiment(experiment.experiment_id)

    # Pipelines and versions.
    pipeline = client.upload_pipeline(package, pipeline_name=f"greeting-{unique}", description="dd")
    check(client.get_pipeline_id(f"greeting-{unique}") == pipeline.pipeline_id, "the pipeline is not found by name")
    check(client.get_pipeline(pipeline.pipeline_id).description == "dd", "the pipeline has another description")
    version = client.upload_pipeline_version(package, f"v2-{unique}", pipeline_id=pipeline.pipeline_id, description="second")
    third = client.upload_pipeline_version_from_pipeline_func(greeting, f"v3-{unique}", pipeline_name=f"greeting-{unique}")
    versions = client.list_pipeline_versions(pipeline.pipeline_id, sort_by="created_at desc", page_size=2)
    check([v.display_name for v in versions.pipeline_versions] == [f"v3-{unique}", f"v2-{unique}"], f"the versions are {versions}")
    more = client.list_pipeline_versions(pipeline.pipeline_id, page_token=versions.next_page_token)
    check([v.display_name for v in more.pipeline_versions] == [f"greeting-{unique}"], f"the second page is {more}")
    read = client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    check(read.pipeline_spec["pipelineInfo"]["name"] == "greeting", f"its spec is {read.pipeline_spec}")
    other = client.upload_pipeline_from_pipeline_func(broken, pipeline_name=f"broken-{unique}")
    pipelines = client.list_pipelines(filter=json.dumps({"predicates": [{"operation": 9, "key": "display_name", "stringValue": unique}]}), sort_by="name")
    check([p.display_name for p in pipelines.pipelines] == [f"broken-{unique}", f"greeting-{unique}"], f"the pipelines are {pipelines}")

    # Runs, of every source.
    run = client.run_pipeline(experiment.experiment_id, f"first-{unique}", pipeline_id=pipeline.pipeline_id, version_id=version.pipeline_version_id, params={"who": "kfp"})
    check(run.state == "PENDING", f"a new run is {run.state}")
    done = client.wait_for_run_completion(run.run_id, SECONDS, sleep_duration=1)
    check(done.state == "SUCCEEDED", f"the run ended as {done.state}: {done.error}")
    details = {t.display_name: t for t in done.run_details.task_details}
    check({"root", "say", "shout"} <= set(details), f"the tasks are {sorted(details)}")
    check(all(t.start_time and t.end_time for t in details.values()), "a task has no times")
    raw = client._run_api.run_service_get_run(run.run_id, _preload_content=False).data
    tasks = {t["display_name"]: t for t in json.loads(raw)["run_details"]["task_details"]}
    check(tasks["say"]["outputs"]["text"].get("value") == "hello kfp", f"say gave {tasks['say'].get('outputs')}")
    check(tasks["shout"]["inputs"]["text"].get("value") == "hello kfp", f"shout got {tasks['shout'].get('inputs')}")
    check([s.state for s in done.state_history][-1] == "SUCCEEDED", f"its history is {done.state_history}")
    refused(400, client.run_pipeline, experiment.experiment_id, "bad", pipeline_id=pipeline.pipeline_id, version_id=version.pipeline_version_id, params={"times": "many"})
    refused(400, client.run_pipeline, experiment.experiment_id, "bad", pipeline_id=pipeline.pipeline_id, version_id=version.pipeline_version_id, params={"colour": "red"})

    packaged = client.create_run_from_pipeline_package(package, arguments={"who": "package"}, run_name=f"package-{unique}", experiment_id=experiment.experiment_id, enable_caching=False)
    check(packaged.wait_for_run_completion(SECONDS).state == "SUCCEEDED", "the run of a package did not succeed")
    failed = client.create_run_from_pipeline_func(broken, arguments={}, run_name=f"broken-{unique}", experiment_name=f"sdk-{unique}")
    ended = client.wait_for_run_completion(failed.run_id, SECONDS, sleep_duration=1)
    check(ended.state == "FAILED" and "no-good" in (ended.error.message or ""), f"a broken run ended as {ended.state}: {ended.error}")
    going = client.create_run_from_pipeline_func(waiting, arguments={}, run_name=f"waiting-{unique}", experiment_name=f"sdk-{unique}")
    client.terminate_run(going.run_id)
    check(client.wait_for_run_completion(going.run_id, SECONDS, sleep_duration=1).state == "FAILED", "a terminated run does not end as failed")

    runs = client.list_runs(experiment_id=experiment.experiment_id, sort_by="created_at desc", page_size=2)
    check(runs.total_size == 4 and len(runs.runs) == 2, f"the experiment's runs are {runs.total_size}")
    rest = client.list_runs(experiment_id=experiment.experiment_id, page_token=runs.next_page_token, page_size=10)
    check(len(rest.runs) == 2, "the second page has not the rest")
    states = client.list_runs(experiment_id=experiment.experiment_id, filter=equals("state", "FAILED"))
    check({r.display_name for r in states.runs} == {f"broken-{unique}", f"waiting-{unique}"}, f"the failed runs are {states}")
    client.archive_run(run.run_id)
    check(client.get_run(run.run_id).storage_state == "ARCHIVED", "the run is not archived")
    client.unarchive_run(run.run_id)
    check(client.get_run(run.run_id).storage_state == "AVAILABLE", "the run is still archived")
    client.delete_run(failed.run_id)
    refused(404, client.get_run, failed.run_id)

    # Recurring runs, by their two names.
    recurring = client.create_recurring_run(experiment.experiment_id, f"cron-{unique}", cron_expression="0 0 0 1 1 *", pipeline_id=pipeline.pipeline_id, version_id=version.pipeline_version_id, params={"who": "cron"}, enabled=False)
    read = client.get_recurring_run(recurring.recurring_run_id)
    check(read.status == "DISABLED" and read.trigger.cron_schedule.cron == "0 0 0 1 1 *", f"the recurring run is {read}")
    client.enable_recurring_run(recurring.recurring_run_id)
    check(client.get_recurring_run(recurring.recurring_run_id).status == "ENABLED", "it is not enabled")
    client.disable_recurring_run(recurring.recurring_run_id)
    listed = client.list_recurring_runs(experiment_id=experiment.experiment_id)
    check([r.recurring_run_id for r in listed.recurring_runs] == [recurring.recurring_run_id], f"the recurring runs are {listed}")
    client.enable_job(recurring.recurring_run_id)
    client.disable_job(recurring.recurring_run_id)
    check(client.get_recurring_run(recurring.recurring_run_id).status == "DISABLED", "it is not disabled")
    client.delete_recurring_run(recurring.recurring_run_id)
    second = client.create_recurring_run(experiment.experiment_id, f"period-{unique}", interval_second=86400, pipeline_package_path=package, no_catchup=True)
    client.delete_job(second.recurring_run_id)
    refused(404, client.get_recurring_run, second.recurring_run_id)

    # What is left.
    refused(400, client.delete_pipeline, pipeline.pipeline_id)
    for v in client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions:
        client.delete_pipeline_version(pipeline.pipeline_id, v.pipeline_version_id)
    client.delete_pipeline(pipeline.pipeline_id)
    check(client.get_pipeline_id(f"greeting-{unique}") is None, "a deleted pipeline is still found")
    refused(404, client.get_pipeline_version, pipeline.pipeline_id, third.pipeline_version_id)
    check(client.get_pipeline(other.pipeline_id).pipeline_id == other.pipeline_id, "another pipeline is gone, too")
    client.delete_experiment(experiment.experiment_id)
    refused(404, client.get_experiment, experiment_id=experiment.experiment_id)

    public = {n for n, _ in inspect.getmembers(kfp.Client, inspect.isfunction) if not n.startswith("_")}
    check(called >= public, f"not called: {sorted(public - called)}")
    print(f"{'FAILED' if problems else 'ok'}: kfp {kfp.__version__}, {len(called)} methods, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
