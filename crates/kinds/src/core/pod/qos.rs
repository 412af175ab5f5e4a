//! The quality-of-service class of a Pod.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::tree;

/// `Guaranteed`, `Burstable` or `BestEffort`, from cpu and memory of all containers.
pub fn class(pod: &Value) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    let containers = tree::list(pod, "spec.containers")
        .iter()
        .chain(tree::list(pod, "spec.initContainers"));
    for container in containers {
        add(&mut requests, container, "resources.requests");
        let limited = add(&mut limits, container, "resources.limits");
        guaranteed &= limited == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests
        .iter()
        .all(|(name, amount)| limits.get(name) == Some(amount));
    if guaranteed && equal && requests.len() == limits.len() {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds the container's cpu and memory; how many of the two it names.
fn add(sums: &mut BTreeMap<&'static str, Quantity>, container: &Value, path: &str) -> usize {
    let list = tree::map(container, path);
    let mut named = 0;
    for resource in ["cpu", "memory"] {
        let amount = crate::quantity::of(list, resource).filter(|amount| !amount.is_zero());
        if let Some(amount) = amount {
            let sum = sums.entry(resource).or_insert(Quantity::ZERO);
            *sum = sum.plus(amount);
            named += 1;
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes() {
        let check = |resources: Value, expected| {
            let pod = json!({"spec": {"containers": [{"resources": resources}]}});
            assert_eq!(class(&pod), expected, "{pod}");
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}),
            "Burstable",
        );
        let both = json!({"cpu": "1", "memory": "1Gi"});
        check(json!({"limits": both, "requests": both}), "Guaranteed");
        check(
            json!({"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}}),
            "Burstable",
        );
    }
}
