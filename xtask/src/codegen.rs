//! `cargo xtask codegen`: writes the Rust code of the protocol buffers again, from the `.proto` files
//! in this repository. The generators are dependencies of feature `codegen` alone; without it the
//! command starts itself again with it.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("codegen: unknown arguments {args:?}, expected nothing or --check"),
    };
    generate(workspace, check)
}

#[cfg(not(feature = "codegen"))]
fn generate(workspace: &Workspace, check: bool) -> Result<()> {
    let mut cargo = workspace.cargo(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        "xtask",
        "--features",
        "codegen",
    ]);
    cargo.args(["--", "codegen"]);
    if check {
        cargo.arg("--check");
    }
    crate::process::run(&mut cargo)
}

/// Generates into a folder of our own and then writes, or with `check` compares, what differs.
#[cfg(feature = "codegen")]
fn generate(workspace: &Workspace, check: bool) -> Result<()> {
    use anyhow::Context as _;

    let crates = workspace.root.join("crates");
    let (model, serving) = (crates.join("model/proto"), crates.join("serving/proto"));
    let out = workspace.cache("codegen")?;

    let files = protox::compile(
        ["tensorflow/framework.proto", "tensorflow/saved_model.proto"],
        [&model],
    )?;
    prost_build::Config::new()
        .out_dir(&out)
        .bytes([".tensorflow.TensorProto.tensor_content"])
        .btree_map(["."])
        .compile_fds(files)?;
    update(
        &out.join("tensorflow.rs"),
        &crates.join("model/src/generated/tensorflow.rs"),
        check,
    )?;

    // The messages of package tensorflow that come with it are those of crate model.
    let files = protox::compile(["tensorflow_serving/apis.proto"], [&serving, &model])?;
    let mut config = prost_build::Config::new();
    config.out_dir(&out).btree_map(["."]);
    tonic_prost_build::configure()
        .out_dir(&out)
        .extern_path(".tensorflow.TensorProto", "::model::proto::TensorProto")
        .extern_path(".tensorflow.SignatureDef", "::model::proto::SignatureDef")
        .compile_fds_with_config(files, config)
        .context("generate the services")?;
    update(
        &out.join("tensorflow.serving.rs"),
        &crates.join("serving/src/generated/tensorflow.serving.rs"),
        check,
    )
}

#[cfg(feature = "codegen")]
fn update(from: &std::path::Path, to: &std::path::Path, check: bool) -> Result<()> {
    use anyhow::Context as _;

    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    };
    let new = read(from)?;
    if to.is_file() && read(to)? == new {
        println!("{} is up to date", to.display());
        return Ok(());
    }
    if check {
        bail!("{} is stale: run `cargo xtask codegen`", to.display());
    }
    println!("writing {}", to.display());
    std::fs::write(to, new).with_context(|| format!("write {}", to.display()))
}
