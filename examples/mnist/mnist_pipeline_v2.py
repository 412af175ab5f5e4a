"""The MNIST tutorial as a Kubeflow pipeline for the kfp SDK 2: train, serve, show on a web page.

Written for `pip install kfp==2.17.0 kfp-kubernetes==2.17.0`. Compile it with

    python3 mnist_pipeline_v2.py mnist_pipeline_v2.yaml

All three steps share one volume: the claim whose name the run's parameter `pvc_name` gives.
"""
import sys

from kfp import compiler, dsl, kubernetes

MODEL_IMAGE = "gcr.io/kubeflow-examples/mnist/model:v20190304-v0.2-176-g15d997b"
DEPLOYER_IMAGE = "gcr.io/ml-pipeline/ml-pipeline-kubeflow-deployer:7775692adf28d6f79098e76e839986c9ee55dd61"
DEPLOY_SERVICE_IMAGE = "gcr.io/kubeflow-examples/mnist/deploy-service:latest"
WEB_UI_IMAGE = "gcr.io/kubeflow-examples/mnist/web-ui:v20190304-v0.2-176-g15d997b-pipelines"
CLUSTER = "mnist-pipeline"


@dsl.container_component
def train(export_dir: str, steps: int, batch_size: int, learning_rate: float):
    return dsl.ContainerSpec(
        image=MODEL_IMAGE,
        args=[
            "/opt/model.py",
            "--tf-export-dir", export_dir,
            "--tf-train-steps", steps,
            "--tf-batch-size", batch_size,
            "--tf-learning-rate", learning_rate,
        ],
    )


@dsl.container_component
def serve(export_dir: str, pvc_name: str):
    return dsl.ContainerSpec(
        image=DEPLOYER_IMAGE,
        args=[
            "--model-export-path", export_dir,
            "--server-name", "mnist-service",
            "--cluster-name", CLUSTER,
            "--pvc-name", pvc_name,
        ],
    )


@dsl.container_component
def web_ui():
    return dsl.ContainerSpec(
        image=DEPLOY_SERVICE_IMAGE,
        args=[
            "--image", WEB_UI_IMAGE,
            "--name", "web-ui",
            "--container-port", "5000",
            "--service-port", "80",
            "--service-type", "LoadBalancer",
            "--cluster-name", CLUSTER,
        ],
    )


@dsl.pipeline(
    name="mnist",
    description="Train a model of handwritten digits, serve it, and play with it.",
)
def mnist(
    model_export_dir: str = "/mnt/export",
    train_steps: int = 200,
    learning_rate: float = 0.01,
    batch_size: int = 100,
    pvc_name: str = "mnist-claim",
):
    trained = train(
        export_dir=model_export_dir,
        steps=train_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    served = serve(export_dir=model_export_dir, pvc_name=pvc_name).after(trained)
    shown = web_ui().after(served)
    for task in (trained, served, shown):
        # What the steps do to the cluster is not in their outputs: a cached step would do nothing.
        task.set_caching_options(False)
        kubernetes.mount_pvc(task, pvc_name=pvc_name, mount_path="/mnt")


if __name__ == "__main__":
    path = sys.argv[1] if len(sys.argv) > 1 else "mnist_pipeline_v2.yaml"
    compiler.Compiler().compile(mnist, path)
