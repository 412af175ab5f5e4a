#!/usr/bin/env python3
"""Talks to a running server with the real kfp SDK 1.8: compiles, uploads, runs, reads.

usage: check_kfp.py URL

Exit code 0 if all is well; the last line is a summary.
"""
import json
import os
import sys
import tempfile
import uuid

import kfp
from kfp import dsl

SECONDS = 60
problems = []


def check(condition, text):
    if not condition:
        problems.append(text)
        print("PROBLEM", text)


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
    client = kfp.Client(host=sys.argv[1])
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
    client.delete_pipeline(pipeline.id)
    check(client.get_pipeline_id(f"greeting-{unique}") is None, "a deleted pipeline is still found")

    print(f"{'FAILED' if problems else 'ok'}: kfp {kfp.__version__}, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
