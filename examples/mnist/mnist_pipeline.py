"""The MNIST tutorial as a Kubeflow pipeline: train a model, serve it, show it on a web page.

Written for the kfp SDK 1.8 (`pip install kfp==1.8.22`). Compile it with

    python3 mnist_pipeline.py mnist_pipeline.yaml

All three steps share one volume: the claim whose name the run's parameter `pvc_name` gives.
"""
import sys

import kfp
from kfp import dsl
from kubernetes import client as k8s

MODEL_IMAGE = "gcr.io/kubeflow-examples/mnist/model:v20190304-v0.2-176-g15d997b"
DEPLOYER_IMAGE = "gcr.io/ml-pipeline/ml-pipeline-kubeflow-deployer:7775692adf28d6f79098e76e839986c9ee55dd61"
DEPLOY_SERVICE_IMAGE = "gcr.io/kubeflow-examples/mnist/deploy-service:latest"
WEB_UI_IMAGE = "gcr.io/kubeflow-examples/mnist/web-ui:v20190304-v0.2-176-g15d997b-pipelines"
CLUSTER = "mnist-pipeline"


def on_volume(step, pvc_name):
    """Mounts the run's claim at /mnt in a step."""
    source = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=str(pvc_name))
    step.add_volume(k8s.V1Volume(name="local-storage", persistent_volume_claim=source))
    step.container.add_volume_mount(k8s.V1VolumeMount(name="local-storage", mount_path="/mnt"))
    return step


def train(export_dir, steps, batch_size, learning_rate):
    return dsl.ContainerOp(
        name="train",
        image=MODEL_IMAGE,
        arguments=[
            "/opt/model.py",
            "--tf-export-dir", export_dir,
            "--tf-train-steps", steps,
            "--tf-batch-size", batch_size,
            "--tf-learning-rate", learning_rate,
        ],
    )


def serve(export_dir, pvc_name):
    return dsl.ContainerOp(
        name="serve",
        image=DEPLOYER_IMAGE,
        arguments=[
            "--model-export-path", export_dir,
            "--server-name", "mnist-service",
            "--cluster-name", CLUSTER,
            "--pvc-name", pvc_name,
        ],
    )


def web_ui():
    return dsl.ContainerOp(
        name="web-ui",
        image=DEPLOY_SERVICE_IMAGE,
        arguments=[
            "--image", WEB_UI_IMAGE,
            "--name", "web-ui",
            "--container-port", "5000",
            "--service-port", "80",
            "--service-type", "LoadBalancer",
            "--cluster-name", CLUSTER,
        ],
    )


@dsl.pipeline(name="MNIST", description="Train a model of handwritten digits, serve it, and play with it.")
def mnist(
    model_export_dir="/mnt/export",
    train_steps="200",
    learning_rate="0.01",
    batch_size="100",
    pvc_name="mnist-claim",
):
    trained = on_volume(train(model_export_dir, train_steps, batch_size, learning_rate), pvc_name)
    served = on_volume(serve(model_export_dir, pvc_name), pvc_name).after(trained)
    on_volume(web_ui(), pvc_name).after(served)


if __name__ == "__main__":
    kfp.compiler.Compiler().compile(mnist, sys.argv[1] if len(sys.argv) > 1 else "mnist_pipeline.yaml")
