//! The catalogue against the images that the examples of this repository name.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The image references of a file, as they stand there.
fn images_of(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/mnist")
        .join(file);
    let text = std::fs::read_to_string(&path).expect("the examples are in the repository");
    let images = text.lines().filter_map(|line| {
        let reference = line.trim().strip_prefix("image: ")?;
        Some(reference.trim_matches('"').to_owned())
    });
    images.collect()
}

#[test]
fn every_image_of_the_examples_is_built_in() {
    let mut programs = BTreeSet::new();
    for file in ["manifests/metallb.yaml", "mnist_pipeline.yaml"] {
        let images = images_of(file);
        assert!(!images.is_empty(), "{file} names no image");
        for image in images {
            let (name, _) = image.rsplit_once(':').expect("examples name tags");
            let whole = match name.split_once('/') {
                Some((registry, _)) if registry.contains('.') => name.to_owned(),
                _ => format!("docker.io/{name}"),
            };
            let found = images::catalogue()
                .iter()
                .find(|built_in| built_in.patterns.contains(&whole.as_str()));
            let found = found.unwrap_or_else(|| panic!("{image} of {file} is not built in"));
            programs.insert(found.program);
        }
    }
    assert_eq!(programs.len(), 5, "{programs:?}");
}

#[test]
fn no_two_images_share_a_name() {
    let mut seen = BTreeSet::new();
    for image in images::catalogue() {
        assert!(seen.insert(image.program), "{}", image.program);
        for pattern in image.patterns {
            assert!(seen.insert(pattern), "{pattern}");
        }
    }
}

#[test]
fn an_unknown_program_and_bad_arguments_end_with_their_codes() {
    let run = |words: &[&str]| {
        let code = images::main(words.iter().map(OsString::from).collect());
        // An exit code has no other way to be compared.
        format!("{code:?}")
    };
    let (failed, usage) = (
        format!("{:?}", ExitCode::FAILURE),
        format!("{:?}", ExitCode::from(2)),
    );
    assert_eq!(run(&["no-such-program"]), failed);
    assert_eq!(run(&[]), failed);
    for program in ["kubeflow-deployer", "deploy-service", "metallb-controller"] {
        assert_eq!(run(&[program, "--colour", "red"]), usage, "{program}");
    }
    let hopeless = ["--model-export-path", "/x", "--server-name=---"];
    assert_eq!(
        run(&[&["kubeflow-deployer"], &hopeless[..]].concat()),
        usage
    );
}
