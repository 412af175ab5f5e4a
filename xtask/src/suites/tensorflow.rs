//! The real TensorFlow loads a model that we exported and agrees with our predictions; the real
//! client of TensorFlow Serving talks to our server.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Session, train};
use crate::http;
use crate::process::{self, Running};
use crate::tally::Outcome;
use crate::tools::python::TENSORFLOW;

const LIMIT: Duration = Duration::from_secs(300);
const TRAIN_STEPS: u32 = 200;
/// How many predictions are compared.
const IMAGES: &str = "1000";

pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    let python = match TENSORFLOW.python(&session.workspace) {
        Ok(python) => python,
        Err(error) => return Ok(Outcome::skipped(format!("no TensorFlow: {error:#}"))),
    };
    let binary = session.binary()?;
    let crates = session.workspace.root.join("crates");
    let data = crates.join("model/mnist");
    let folder = session.folder("tensorflow")?;
    let export = folder.join("export");
    let version = train(&binary, &export, TRAIN_STEPS)?;
    let mut outcome = Outcome::default();

    let predictions = folder.join("predictions");
    let mut predict =
        session
            .workspace
            .cargo(&["run", "--quiet", "--locked", "--package", "model"]);
    predict
        .args(["--example", "predict", "--"])
        .arg(&version)
        .arg(IMAGES)
        .arg(&predictions);
    process::run(&mut predict)?;
    let mut check = Command::new(&python);
    check
        .arg(crates.join("model/tests/peer/check_saved_model.py"))
        .arg(&version)
        .arg(data.join("t10k-images-idx3-ubyte.gz"))
        .arg(&predictions);
    let mut last = String::new();
    let agrees = process::stream(&mut check, LIMIT, |line| line.clone_into(&mut last))?.success();
    outcome.add(agrees, format!("saved model: {last}"));

    let server = ModelServer::start(&binary, &export)?;
    let mut check = Command::new(&python);
    check
        .arg(crates.join("serving/tests/peer/check_serving.py"))
        .args([&server.grpc, &server.rest, ModelServer::NAME])
        .arg(data.join("t10k-images-idx3-ubyte.gz"))
        .arg(data.join("t10k-labels-idx1-ubyte.gz"));
    let served = process::stream(&mut check, LIMIT, |line| line.clone_into(&mut last))?.success();
    outcome.add(served, format!("serving: {last}"));
    Ok(outcome)
}

/// The `tensorflow/serving` image's program, outside any Pod.
#[derive(Debug)]
pub(crate) struct ModelServer {
    _process: Running,
    pub(crate) grpc: String,
    pub(crate) rest: String,
}

impl ModelServer {
    pub(crate) const NAME: &'static str = "mnist";

    /// Starts it on ports of its own and returns when it answers.
    pub(crate) fn start(binary: &Path, base_path: &Path) -> Result<Self> {
        let (grpc, rest) = (free_port()?, free_port()?);
        let mut command = Command::new(binary);
        command
            .args(["image", "tensorflow-serving"])
            .args([format!("--port={grpc}"), format!("--rest_api_port={rest}")])
            .arg(format!("--model_name={}", Self::NAME))
            .arg(format!("--model_base_path={}", base_path.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Self {
            _process: Running(command.spawn().context("start the model server")?),
            grpc: format!("127.0.0.1:{grpc}"),
            rest: format!("127.0.0.1:{rest}"),
        };
        let url = format!("http://{}/v1/models/{}", server.rest, Self::NAME);
        process::until(Duration::from_secs(60), || {
            let answer = http::get(&url)?;
            anyhow::ensure!(
                answer.contains("AVAILABLE"),
                "the model server says {answer}"
            );
            Ok(())
        })?;
        Ok(server)
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}
