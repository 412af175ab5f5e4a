//! Names, patterns and what they lead to.

use super::*;

fn normal(text: &str) -> Result<String, &'static str> {
    Reference::parse(text).map(|reference| reference.to_string())
}

#[test]
fn names_are_normalised() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    for (given, expected) in [
        ("python", "docker.io/library/python:latest"),
        ("python:3.11", "docker.io/library/python:3.11"),
        ("metallb/speaker:v0.7.3", "docker.io/metallb/speaker:v0.7.3"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest"),
        (
            "gcr.io/ml-pipeline/x_y__z-1:T.1",
            "gcr.io/ml-pipeline/x_y__z-1:T.1",
        ),
        ("localhost/x", "localhost/x:latest"),
        ("registry:5000/x", "registry:5000/x:latest"),
        ("localhost:5000/a/b:tag", "localhost:5000/a/b:tag"),
    ] {
        assert_eq!(normal(given).as_deref(), Ok(expected), "{given}");
    }
    assert_eq!(
        normal(&format!("a@{digest}")).unwrap(),
        format!("docker.io/library/a@{digest}")
    );
    assert_eq!(
        normal(&format!("a:1@{digest}")).unwrap(),
        format!("docker.io/library/a:1@{digest}")
    );
}

#[test]
fn bad_names_are_refused() {
    for bad in [
        "",
        ":",
        "a:",
        "a b",
        "/a",
        "a//b",
        "a/",
        "-a",
        "a_",
        "a..b",
        "a@sha256:1",
        "a:-x",
        "a/b:c/d",
    ] {
        assert!(Reference::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(
        Reference::parse("Foo/bar"),
        Err("invalid reference format: repository name must be lowercase")
    );
    assert!(
        Reference::parse(&"a".repeat(300))
            .unwrap_err()
            .contains("255")
    );
}

#[test]
fn a_star_crosses_slashes() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "a", true),
        ("a*", "a/b:c", true),
        ("*", "", true),
        ("*/python-3*", "quay.io/org/python-39", true),
        ("*/python-3*", "python-39", false),
        ("a*b*c", "a/x/b/c", true),
        ("a*b*c", "a/x/c/b", false),
        ("a*a", "a", false),
        ("*b", "ab/b", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

#[tokio::test]
async fn the_first_entry_that_matches_says_how_an_image_runs() {
    let catalogue = Catalogue::with_host_images([
        Entry::host("python:3.8", &["/opt/python3.8"]),
        Entry::built_in("tensorflow/serving", "tensorflow-serving"),
        Entry::built_in("gcr.io/kubeflow-examples/mnist/*", "mnist"),
    ]);
    let kind = |reference: &str| {
        catalogue
            .present(reference)
            .unwrap()
            .map(|image| image.kind)
    };
    let built_in = |program: &str| Some(ImageKind::BuiltIn(program.to_owned()));
    assert_eq!(
        kind("tensorflow/serving:2.19.0"),
        built_in("tensorflow-serving")
    );
    assert_eq!(
        kind("docker.io/tensorflow/serving"),
        built_in("tensorflow-serving")
    );
    assert_eq!(kind("evil.example.com/tensorflow/serving"), None);
    assert_eq!(
        kind("gcr.io/kubeflow-examples/mnist/model:v1"),
        built_in("mnist")
    );
    let cmd = |reference: &str| catalogue.present(reference).unwrap().unwrap().cmd;
    assert_eq!(cmd("python:3.8"), ["/opt/python3.8"]);
    assert_eq!(cmd("python:3.11-slim"), ["python3"]);
    assert_eq!(cmd("library/bash:5"), ["bash"]);
    assert_eq!(cmd("alpine:3"), ["/bin/sh"]);
    assert_eq!(cmd("registry.example.com/ubi9/python-311"), ["python3"]);
    assert_eq!(kind("nginx"), None);

    let error = catalogue.pull("nginx:1.25").await.unwrap_err();
    assert!(matches!(&error, ImageError::NotFound(text) if text.contains("\"nginx:1.25\"")));
    let error = catalogue.pull("Bad Name").await.unwrap_err();
    assert!(matches!(error, ImageError::InvalidName { .. }));
}

#[test]
fn entries_can_be_written_in_a_configuration() {
    let entry: Entry = serde_json::from_value(serde_json::json!({
        "pattern": "mine/*", "kind": { "kind": "host" }, "cmd": ["bash"]
    }))
    .unwrap();
    assert_eq!(entry, Entry::host("mine/*", &["bash"]));
}

#[test]
fn an_image_of_python_says_which_version_it_wants() {
    let catalogue = Catalogue::with_host_images([Entry {
        kind: ImageKind::Python("3.9".to_owned()),
        ..Entry::python("mine/*")
    }]);
    for (reference, version) in [
        ("python", Some("")),
        ("python:3", Some("")),
        ("python:3.11", Some("3.11")),
        ("python:3.9.18-slim-bookworm", Some("3.9")),
        ("public.ecr.aws/docker/library/python:3.12", Some("3.12")),
        (
            "registry.access.redhat.com/ubi9/python-311:latest",
            Some("3.11"),
        ),
        (
            "registry.access.redhat.com/ubi8/python-39:1-142",
            Some("3.9"),
        ),
        ("quay.io/a/python-3.10", Some("3.10")),
        ("mine/trainer:3.11", Some("3.9")),
        ("alpine:3.19", None),
        ("ghcr.io/containerd/busybox", None),
    ] {
        let kind = catalogue.present(reference).unwrap().unwrap().kind;
        let found = match &kind {
            ImageKind::Python(version) => Some(version.as_str()),
            _ => None,
        };
        assert_eq!(found, version, "{reference}");
    }
    for unknown in [
        "google/cloud-sdk:slim",
        "gcr.io/x/python:3.11",
        "bashful/x",
        "dummy",
    ] {
        assert_eq!(catalogue.present(unknown).unwrap(), None, "{unknown}");
    }
}
