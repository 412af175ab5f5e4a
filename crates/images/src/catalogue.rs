//! Which image references are built in, and which program each of them is.

/// A built-in image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// Normalised references (registry first) that it stands for, any tag; `*` crosses slashes.
    pub patterns: &'static [&'static str],
    /// The name of its program for [`crate::main`].
    pub program: &'static str,
    /// The user it runs as when the Pod does not say.
    pub user: Option<u32>,
}

pub(crate) const MODEL: &str = "mnist-model";
pub(crate) const SERVING: &str = "tensorflow-serving";
pub(crate) const DEPLOYER: &str = "kubeflow-deployer";
pub(crate) const DEPLOY_SERVICE: &str = "deploy-service";
/// What stands around a step's command: mounted as a volume, never run as a container of its own.
pub(crate) const LAUNCHER: &str = "launcher";
pub(crate) const WEB_UI: &str = "mnist-web-ui";
pub(crate) const METALLB_CONTROLLER: &str = "metallb-controller";
pub(crate) const METALLB_SPEAKER: &str = "metallb-speaker";

/// Every built-in image.
pub fn catalogue() -> &'static [BuiltIn] {
    const fn image(patterns: &'static [&'static str], program: &'static str) -> BuiltIn {
        BuiltIn {
            patterns,
            program,
            user: None,
        }
    }
    const IMAGES: &[BuiltIn] = &[
        image(&["gcr.io/kubeflow-examples/mnist/model"], MODEL),
        image(
            &[
                "docker.io/tensorflow/serving",
                "gcr.io/kubeflow-images-public/tensorflow-serving-*",
            ],
            SERVING,
        ),
        image(
            &["gcr.io/ml-pipeline/ml-pipeline-kubeflow-deployer"],
            DEPLOYER,
        ),
        image(
            &["gcr.io/kubeflow-examples/mnist/deploy-service"],
            DEPLOY_SERVICE,
        ),
        image(&["gcr.io/kubeflow-examples/mnist/web-ui"], WEB_UI),
        image(&["docker.io/coracle/launcher"], LAUNCHER),
        image(
            &["docker.io/metallb/controller", "quay.io/metallb/controller"],
            METALLB_CONTROLLER,
        ),
        image(
            &["docker.io/metallb/speaker", "quay.io/metallb/speaker"],
            METALLB_SPEAKER,
        ),
    ];
    IMAGES
}
