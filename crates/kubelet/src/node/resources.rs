//! What the node has and what its Pods have asked for: admission by requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::Capacity;
use crate::quantity::millis;

/// Why the node does not take a Pod: reason and message of its failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Amounts that Pods compete for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) milli_cpu: i128,
    pub(crate) memory: i128,
    pub(crate) ephemeral_storage: i128,
}

impl Requests {
    /// What a Pod asks for: the sum of its containers (and sidecars), or its largest init
    /// container with the sidecars before it, whichever is more, and its overhead.
    pub(crate) fn of(spec: &PodSpec) -> Self {
        let mut running = Self::default();
        let mut peak = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let own = Self::of_container(container.resources.as_ref());
            if container.restart_policy.as_deref() == Some("Always") {
                running = running.plus(own);
                peak = peak.max(running);
            } else {
                peak = peak.max(running.plus(own));
            }
        }
        let mains = spec.containers.iter().fold(running, |sum, c| {
            sum.plus(Self::of_container(c.resources.as_ref()))
        });
        let overhead = spec
            .overhead
            .as_ref()
            .map(Self::of_list)
            .unwrap_or_default();
        mains.max(peak).plus(overhead)
    }

    fn of_container(resources: Option<&ResourceRequirements>) -> Self {
        let Some(resources) = resources else {
            return Self::default();
        };
        // The API server has set requests from limits already where they are missing.
        resources
            .requests
            .as_ref()
            .map(Self::of_list)
            .unwrap_or_default()
    }

    fn of_list(list: &BTreeMap<String, Quantity>) -> Self {
        let get = |name: &str| list.get(name).and_then(millis).unwrap_or(0);
        Self {
            milli_cpu: get("cpu"),
            memory: get("memory") / 1000,
            ephemeral_storage: get("ephemeral-storage") / 1000,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            milli_cpu: self.milli_cpu + other.milli_cpu,
            memory: self.memory + other.memory,
            ephemeral_storage: self.ephemeral_storage + other.ephemeral_storage,
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            milli_cpu: self.milli_cpu.max(other.milli_cpu),
            memory: self.memory.max(other.memory),
            ephemeral_storage: self.ephemeral_storage.max(other.ephemeral_storage),
        }
    }
}

/// Keeps account of what is promised to whom.
#[derive(Debug)]
pub(crate) struct Ledger {
    capacity: Capacity,
    max_pods: u32,
    promised: Mutex<HashMap<String, Requests>>,
}

impl Ledger {
    pub(crate) fn new(capacity: Capacity, max_pods: u32) -> Self {
        Self {
            capacity,
            max_pods,
            promised: Mutex::default(),
        }
    }

    /// What there is to promise.
    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Promises a Pod what it asks for. `already_running` takes it in any case: it was let in
    /// before, and its processes exist.
    pub(crate) fn admit(
        &self,
        uid: &str,
        requests: Requests,
        already_running: bool,
    ) -> Result<(), Refusal> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        if already_running || promised.contains_key(uid) {
            promised.insert(uid.to_owned(), requests);
            return Ok(());
        }
        let used = promised
            .values()
            .fold(Requests::default(), |sum, r| sum.plus(*r));
        let capacity = &self.capacity;
        let checks = [
            ("pods", 1, promised.len() as i128, i128::from(self.max_pods)),
            (
                "cpu",
                requests.milli_cpu,
                used.milli_cpu,
                i128::from(capacity.milli_cpu),
            ),
            (
                "memory",
                requests.memory,
                used.memory,
                i128::from(capacity.memory),
            ),
            (
                "ephemeral-storage",
                requests.ephemeral_storage,
                used.ephemeral_storage,
                i128::from(capacity.ephemeral_storage),
            ),
        ];
        for (name, requested, used, capacity) in checks {
            if requested > 0 && used + requested > capacity {
                return Err(Refusal {
                    reason: format!("OutOf{name}"),
                    message: format!(
                        "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
                    ),
                });
            }
        }
        promised.insert(uid.to_owned(), requests);
        Ok(())
    }

    /// A Pod has ended.
    pub(crate) fn release(&self, uid: &str) {
        self.promised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}

/// What this machine has; `data_dir` says which file system counts.
pub(crate) fn measure(data_dir: &std::path::Path) -> Capacity {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .map_or(1 << 30, |kib| kib * 1024);
    let ephemeral_storage =
        rustix::fs::statvfs(data_dir).map_or(0, |fs| fs.f_blocks.saturating_mul(fs.f_frsize));
    Capacity {
        milli_cpu: cores as u64 * 1000,
        memory,
        ephemeral_storage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn cpu(amount: &str) -> serde_json::Value {
        json!({"requests": {"cpu": amount}})
    }

    #[test]
    fn init_containers_count_only_where_they_need_more() {
        let spec = spec(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": cpu("100m")},
                {"name": "init", "resources": cpu("1")}
            ],
            "containers": [{"name": "a", "resources": cpu("300m")}, {"name": "b", "resources": cpu("200m")}]
        }));
        assert_eq!(Requests::of(&spec).milli_cpu, 1100);
    }

    #[test]
    fn a_full_node_refuses_in_the_words_of_kubernetes_until_a_pod_goes() {
        let capacity = Capacity {
            milli_cpu: 1000,
            memory: 1 << 30,
            ephemeral_storage: 0,
        };
        let ledger = Ledger::new(capacity, 250);
        let half = Requests {
            milli_cpu: 600,
            ..Requests::default()
        };
        ledger.admit("a", half, false).unwrap();
        ledger.admit("a", half, false).unwrap();
        let refusal = ledger.admit("b", half, false).unwrap_err();
        assert_eq!(refusal.reason, "OutOfcpu");
        assert_eq!(
            refusal.message,
            "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        );
        ledger.admit("c", Requests::default(), false).unwrap();
        ledger.release("a");
        ledger.admit("b", half, false).unwrap();
        ledger.admit("d", half, true).unwrap();
    }
}
