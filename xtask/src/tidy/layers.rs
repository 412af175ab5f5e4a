//! Which crate may know which: the architecture as data. A new edge between crates is a change of
//! this table, and is judged as one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::SourceFile;
use crate::workspace::Workspace;

/// A crate and what it may know.
struct Crate {
    name: &'static str,
    /// Our crates that it may depend on.
    may: &'static [&'static str],
    /// What it must not depend on although the workspace has it.
    never: &'static [&'static str],
}

/// Asynchronous runtimes and the network.
const ASYNC: [&str; 6] = ["tokio", "futures", "hyper", "axum", "tonic", "tower"];
/// For crates that are functions from data to data.
const PURE: &[&str] = &[
    ASYNC[0],
    ASYNC[1],
    ASYNC[2],
    ASYNC[3],
    ASYNC[4],
    ASYNC[5],
    "kube",
    "sqlx",
    "tracing",
    "getrandom",
];
const NO_CLUSTER: &[&str] = &["kube", "k8s-openapi", "sqlx"];

/// From the bottom up.
const CRATES: &[Crate] = &[
    // pure
    Crate {
        name: "engine",
        may: &[],
        never: PURE,
    },
    Crate {
        name: "schema",
        may: &[],
        never: PURE,
    },
    Crate {
        name: "kinds",
        may: &[],
        never: PURE,
    },
    Crate {
        name: "model",
        may: &[],
        never: PURE,
    },
    Crate {
        name: "pipelinespec",
        may: &["engine"],
        never: PURE,
    },
    // the ground everything with a life of its own stands on
    Crate {
        name: "stdx",
        may: &[],
        never: NO_CLUSTER,
    },
    Crate {
        name: "db",
        may: &["stdx"],
        never: &["kube", "k8s-openapi"],
    },
    Crate {
        name: "pyenv",
        may: &[],
        never: NO_CLUSTER,
    },
    Crate {
        name: "spawner",
        may: &["stdx"],
        never: NO_CLUSTER,
    },
    Crate {
        name: "artifacts",
        may: &[],
        never: NO_CLUSTER,
    },
    // parts of a cluster
    Crate {
        name: "apiserver",
        may: &["db", "kinds", "schema", "stdx"],
        never: &[],
    },
    Crate {
        name: "controllers",
        may: &["stdx"],
        never: &["axum", "sqlx"],
    },
    Crate {
        name: "kubelet",
        may: &["pyenv", "spawner", "stdx"],
        never: &["sqlx"],
    },
    Crate {
        name: "proxy",
        may: &["stdx"],
        never: &["axum", "sqlx"],
    },
    // programs in Pods (the launcher's protocol is also that of who makes the Pods)
    Crate {
        name: "launcher",
        may: &["artifacts", "pyenv", "stdx"],
        never: NO_CLUSTER,
    },
    Crate {
        name: "pipelines",
        may: &[
            "artifacts",
            "db",
            "engine",
            "launcher",
            "pipelinespec",
            "stdx",
        ],
        never: &[],
    },
    Crate {
        name: "trainer",
        may: &["model", "stdx"],
        never: NO_CLUSTER,
    },
    Crate {
        name: "serving",
        may: &["model", "stdx"],
        never: NO_CLUSTER,
    },
    Crate {
        name: "images",
        may: &["model", "serving", "stdx", "trainer"],
        never: &["sqlx"],
    },
    // the binary: everything, and nothing depends on it
    Crate {
        name: "coracle",
        may: &[
            "apiserver",
            "artifacts",
            "controllers",
            "db",
            "engine",
            "images",
            "kinds",
            "kubelet",
            "launcher",
            "model",
            "pipelines",
            "pipelinespec",
            "proxy",
            "pyenv",
            "schema",
            "serving",
            "spawner",
            "stdx",
            "trainer",
        ],
        never: &[],
    },
    // development
    Crate {
        name: "xtask",
        may: &[],
        never: &["tokio", "clap"],
    },
];

pub(crate) fn check(workspace: &Workspace, _: &[SourceFile]) -> Result<Vec<String>> {
    let mut edges: BTreeMap<String, BTreeSet<Edge>> = BTreeMap::new();
    for package in workspace.metadata(&["--no-deps"])?.packages {
        let dependencies = package.dependencies.into_iter().map(|dependency| Edge {
            ours: dependency.path.is_some(),
            for_tests: dependency.kind.as_deref() == Some("dev"),
            to: dependency.name,
        });
        edges.insert(package.name, dependencies.collect());
    }
    Ok(complaints(&edges))
}

/// A dependency of one crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    to: String,
    ours: bool,
    for_tests: bool,
}

fn complaints(edges: &BTreeMap<String, BTreeSet<Edge>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, edges) in edges {
        let Some(known) = CRATES.iter().find(|known| known.name == name) else {
            complaints.push(format!(
                "crate {name} is not in the table of xtask/src/tidy/layers.rs"
            ));
            continue;
        };
        for edge in edges {
            let to = edge.to.as_str();
            if edge.ours && !known.may.contains(&to) {
                complaints.push(format!(
                    "{name} may not depend on {to} (it may on: {})",
                    if known.may.is_empty() {
                        "none of ours".to_owned()
                    } else {
                        known.may.join(", ")
                    }
                ));
            }
            if !edge.ours && !edge.for_tests && known.never.contains(&to) {
                complaints.push(format!("{name} must not know {to}"));
            }
        }
    }
    for known in CRATES {
        if !edges.contains_key(known.name) {
            complaints.push(format!(
                "the table has crate {}, which does not exist",
                known.name
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(from: &str, to: &str, ours: bool, for_tests: bool) -> Vec<String> {
        let mut edges: BTreeMap<String, BTreeSet<Edge>> = CRATES
            .iter()
            .map(|known| (known.name.to_owned(), BTreeSet::new()))
            .collect();
        let edge = Edge {
            to: to.to_owned(),
            ours,
            for_tests,
        };
        edges.entry(from.to_owned()).or_default().insert(edge);
        complaints(&edges)
    }

    #[test]
    fn the_table_has_no_cycle() {
        let mut below = BTreeSet::new();
        for known in CRATES {
            for to in known.may {
                assert!(below.contains(to), "{} stands above {to}", known.name);
            }
            below.insert(known.name);
        }
    }

    #[test]
    fn forbidden_edges_are_named() {
        assert_eq!(with("pipelines", "apiserver", true, false).len(), 1);
        assert_eq!(
            with("engine", "tokio", false, false),
            ["engine must not know tokio"]
        );
        assert_eq!(with("newcomer", "stdx", true, false).len(), 1);
    }

    #[test]
    fn allowed_edges_pass() {
        assert!(with("pipelines", "engine", true, false).is_empty());
        assert!(with("schema", "tokio", false, true).is_empty());
    }
}
