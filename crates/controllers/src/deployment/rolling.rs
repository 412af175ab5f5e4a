//! The arithmetic of a rolling update: how far each ReplicaSet may go up or down. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt as _;

use super::template;
use crate::meta;

/// The numbers a Deployment's strategy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) replicas: i32,
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

pub(super) fn limits(deployment: &Deployment) -> Limits {
    let Some(spec) = &deployment.spec else {
        return Limits {
            replicas: 0,
            surge: 0,
            unavailable: 0,
        };
    };
    let replicas = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return Limits {
            replicas,
            surge: 0,
            unavailable: 0,
        };
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = meta::scaled(
        rolling.and_then(|r| r.max_surge.as_ref()),
        "25%",
        replicas,
        true,
    );
    let unavailable = meta::scaled(
        rolling.and_then(|r| r.max_unavailable.as_ref()),
        "25%",
        replicas,
        false,
    );
    // Both rounded to nothing would never move.
    let unavailable = if surge == 0 && unavailable == 0 {
        1
    } else {
        unavailable
    };
    Limits {
        replicas,
        surge,
        unavailable: unavailable.min(replicas),
    }
}

pub(super) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

pub(super) fn total(sets: &[Arc<ReplicaSet>]) -> i32 {
    sets.iter().map(|set| wanted(set)).sum()
}

/// The size of the new set now, given the size of all (the new one included).
pub(super) fn new_size(limits: Limits, has: i32, all: i32) -> i32 {
    let room = limits.replicas + limits.surge - all;
    if has > limits.replicas {
        limits.replicas
    } else if room <= 0 {
        has
    } else {
        has + room.min(limits.replicas - has)
    }
}

/// The sizes that old sets go down to: first what is not available anyway, then the rest as far
/// as enough stays available. Only sets that change are listed.
pub(super) fn shrink_old(
    limits: Limits,
    new: &ReplicaSet,
    old: &[Arc<ReplicaSet>],
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> =
        old.iter().map(|set| (set.clone(), wanted(set))).collect();
    sizes.sort_by_key(|(set, _)| (set.creation_timestamp(), set.name_any()));
    let all = wanted(new) + sizes.iter().map(|(_, size)| size).sum::<i32>();
    let minimum = limits.replicas - limits.unavailable;
    let new_unavailable = wanted(new) - available(new);
    let mut budget = (all - minimum - new_unavailable).max(0);
    for (set, size) in &mut sizes {
        let unhealthy = (*size - available(set)).max(0).min(budget);
        *size -= unhealthy;
        budget -= unhealthy;
    }
    let up = available(new) + old.iter().map(|set| available(set)).sum::<i32>();
    let mut spare = (up - minimum).max(0);
    for (_, size) in &mut sizes {
        let less = (*size).min(spare);
        *size -= less;
        spare -= less;
    }
    sizes.retain(|(set, size)| wanted(set) != *size);
    sizes
}

/// The sizes after the Deployment itself was scaled while several sets are active: everyone gets a
/// share of the difference in proportion to its size, the new one what rounding leaves.
pub(super) fn proportional(
    limits: Limits,
    new: Option<&Arc<ReplicaSet>>,
    active: &[Arc<ReplicaSet>],
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let allowed = if limits.replicas > 0 {
        limits.replicas + limits.surge
    } else {
        0
    };
    let all = total(active);
    let add = allowed - all;
    let mut sets = active.to_vec();
    // The largest first; among equals the newest when growing, the oldest when shrinking.
    sets.sort_by(|a, b| {
        let age = a.creation_timestamp().cmp(&b.creation_timestamp());
        wanted(b)
            .cmp(&wanted(a))
            .then(if add > 0 { age.reverse() } else { age })
    });
    let mut left = add;
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> = Vec::new();
    for set in sets {
        let size = wanted(&set);
        let was_max = set
            .annotations()
            .get(template::MAX)
            .and_then(|max| max.parse::<i32>().ok())
            .unwrap_or(all)
            .max(1);
        let ideal = f64::from(size) * f64::from(allowed) / f64::from(was_max);
        let share = ideal.round() as i32 - size;
        let share = if add > 0 {
            share.clamp(0, left.max(0))
        } else {
            share.clamp(left.min(0), 0)
        };
        left -= share;
        sizes.push((set, size + share));
    }
    if left != 0 {
        let rest = match new {
            Some(new) => sizes.iter_mut().find(|(set, _)| set.uid() == new.uid()),
            None => sizes.first_mut(),
        };
        if let Some((_, size)) = rest {
            *size = (*size + left).max(0);
        }
    }
    sizes
}
