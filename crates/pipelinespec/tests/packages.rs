//! Whole packages: the tutorial's, upstream's, and small ones of our own.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use pipelinespec::{Error, Format, Package};

/// Files beside the repository that may not be there.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared")
        .join(path);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED: {} is absent", path.display());
    None
}

fn load(path: &Path) -> Result<Package, Error> {
    let name = path.file_name().unwrap().to_string_lossy();
    Package::from_file(&name, &fs::read(path).unwrap())
}

#[test]
fn both_packages_of_the_tutorial_are_understood_alike() {
    let Some(folder) = shared("seed") else { return };
    let old = load(&folder.join("mnist_pipeline-kfp-0.1.40.tar.gz")).unwrap();
    let new = load(&folder.join("mnist_pipeline-kfp-1.8.22.tar.gz")).unwrap();
    for package in [&old, &new] {
        let names: Vec<_> = package.parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "model_export_dir",
                "train_steps",
                "learning_rate",
                "batch_size",
                "pvc_name"
            ]
        );
        assert_eq!(
            package.description.as_deref(),
            Some("A pipeline to train and serve the MNIST example.")
        );
        assert_eq!(package.parameters[1].default.as_deref(), Some("200"));
        assert_eq!(package.parameters[4].default.as_deref(), Some(""));
    }
    assert_eq!(old.plan.templates["mnist"], new.plan.templates["mnist"]);
}

#[test]
fn every_workflow_of_the_conformance_set_is_understood() {
    let Some(folder) = shared("kfp-conformance/v1") else {
        return;
    };
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        load(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        count += 1;
    }
    assert!(count >= 22, "only {count} packages");
}

#[test]
fn every_invalid_file_of_the_conformance_set_is_refused() {
    let Some(folder) = shared("kfp-conformance/invalid") else {
        return;
    };
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(load(&path).is_err(), "{}", path.display());
    }
}

#[test]
fn every_v2_package_of_the_conformance_set_compiles_and_survives_being_stored() {
    let mut count = 0;
    for folder in ["kfp-conformance/v2", "kfp-conformance/kubernetes"] {
        let Some(folder) = shared(folder) else {
            return;
        };
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let package = load(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(package.format, Format::V2, "{}", path.display());
            assert!(package.plan.typed);
            let again = Package::from_json((*package.document).clone()).unwrap();
            assert_eq!(again.plan, package.plan, "{}", path.display());
            assert_eq!(again.pipeline_spec(), package.pipeline_spec());
            count += 1;
        }
    }
    assert!(count >= 98, "only {count} packages");
}

fn data(name: &str) -> Package {
    load(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data")
            .join(name),
    )
    .unwrap()
}

#[test]
fn conditions_and_loops_compile_to_this_plan() {
    let package = data("branches.yaml");
    assert_eq!(package.name.as_deref(), Some("Branches"));
    assert_eq!(
        package.parameters[0].description.as_deref(),
        Some("What to say.")
    );
    assert_eq!(package.parameters[1].kind.as_deref(), Some("Integer"));
    assert_eq!(package.parameters[1].default, None);
    insta::assert_yaml_snapshot!(package.plan.as_ref());
}

#[test]
fn exit_handlers_retries_volumes_and_objects_compile_to_this_plan() {
    insta::assert_yaml_snapshot!(data("careful.yaml").plan.as_ref());
}

#[test]
fn a_package_that_was_stored_as_json_compiles_to_the_same_plan() {
    let package = data("branches.yaml");
    let again = Package::from_json((*package.document).clone()).unwrap();
    assert_eq!(package.plan, again.plan);
}
