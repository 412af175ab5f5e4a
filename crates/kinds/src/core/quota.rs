//! ResourceQuotas, LimitRanges, PodTemplates, component statuses.

use serde_json::Value;

use super::pod;
use crate::kind::Strategy;
use crate::{quantity, table, tree};

pub(crate) const RESOURCE_QUOTA: Strategy = Strategy {
    default: |quota| {
        tree::child(quota, "spec");
        quantity::canonicalise_map(quota, "spec.hard");
        quantity::canonicalise_map(quota, "status.hard");
        quantity::canonicalise_map(quota, "status.used");
    },
    row: Some(table::core::resource_quota),
    empty_status: "{}",
    has_status: true,
    ..Strategy::GENERIC
};

pub(crate) const LIMIT_RANGE: Strategy = Strategy {
    default: limit_range_defaults,
    create_on_update: true,
    ..Strategy::GENERIC
};

pub(crate) const POD_TEMPLATE: Strategy = Strategy {
    default: |object| pod::defaults::template(tree::child(object, "template")),
    row: Some(table::workload::pod_template),
    ..Strategy::GENERIC
};

pub(crate) const COMPONENT_STATUS: Strategy = Strategy {
    row: Some(table::core::component_status),
    ..Strategy::GENERIC
};

/// Maxima are defaults of limits, limits of requests, minima of requests.
fn limit_range_defaults(range: &mut Value) {
    for limit in tree::list_mut(range, "spec.limits") {
        for key in [
            "max",
            "min",
            "default",
            "defaultRequest",
            "maxLimitRequestRatio",
        ] {
            quantity::canonicalise_map(limit, key);
        }
        if tree::text(limit, "type") != "Container" {
            continue;
        }
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            let Some(amounts) = tree::map(limit, from).cloned() else {
                continue;
            };
            let target = tree::child(limit, to);
            for (name, amount) in amounts {
                tree::set_default(target, &name, amount);
            }
        }
    }
}
