#!/usr/bin/env python3
"""Runs a pipeline of examples/mnist with the kfp SDK that this interpreter has, 1.8 or 2.

usage: check_mnist.py URL KUBECONFIG PIPELINE.py

The claim that the pipeline's steps share is made first. Exit code 0 if the run succeeded.
"""
import importlib.util
import sys

import kfp
from kubernetes import client as k8s
from kubernetes import config

SECONDS = 300
NAMESPACE = "kubeflow"
CLAIM = "mnist-claim"
TRAIN_STEPS = 20


def make_claim(kubeconfig):
    config.load_kube_config(config_file=kubeconfig)
    claim = {
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    try:
        k8s.CoreV1Api().create_namespaced_persistent_volume_claim(NAMESPACE, claim)
    except k8s.ApiException as error:
        if error.reason != "Conflict":
            raise


def pipeline_of(path):
    spec = importlib.util.spec_from_file_location("pipeline", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.mnist


def main():
    url, kubeconfig, path = sys.argv[1:]
    make_claim(kubeconfig)
    client = kfp.Client(host=url)
    two = kfp.__version__.startswith("2")
    arguments = {"pvc_name": CLAIM, "train_steps": TRAIN_STEPS if two else str(TRAIN_STEPS)}
    started = client.create_run_from_pipeline_func(pipeline_of(path), arguments=arguments)
    run = started.wait_for_run_completion(timeout=SECONDS)
    state = run.state if two else run.run.status
    print(f"kfp {kfp.__version__}: run {started.run_id} is {state}")
    return 0 if state.lower() == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main())
