//! `/stats/summary`: what the containers of this node use, in the shape of the kubelet's summary.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Json, Response};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::pod::Context;
use crate::runtime::Stats;

pub(super) async fn summary(State(context): State<Arc<Context>>) -> Response {
    let now = context.clock.now().to_string();
    let usage = |stats: &Stats| {
        let cpu = u64::try_from(stats.cpu.as_nanos()).unwrap_or(u64::MAX);
        json!({
            "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
            "memory": {"time": now, "workingSetBytes": stats.memory, "rssBytes": stats.memory},
        })
    };
    let mut pods = Vec::new();
    let mut total = Stats::default();
    for view in context.registry.all() {
        let mut containers = Vec::new();
        let mut sum = Stats::default();
        for (name, container) in &view.containers {
            let Some(live) = &container.live else {
                continue;
            };
            // It may have ended just now.
            let Ok(stats) = context.runtime.stats(live).await else {
                continue;
            };
            sum = plus(sum, stats);
            let mut entry = usage(&stats);
            entry["name"] = json!(name);
            containers.push(entry);
        }
        if containers.is_empty() {
            continue;
        }
        total = plus(total, sum);
        let mut entry = usage(&sum);
        entry["podRef"] = json!({
            "name": view.pod.name_any(),
            "namespace": view.pod.namespace(),
            "uid": view.pod.uid(),
        });
        entry["containers"] = Value::Array(containers);
        entry["process_stats"] = json!({"process_count": sum.processes});
        pods.push(entry);
    }
    let mut node = usage(&total);
    node["nodeName"] = json!(context.node_name);
    Json(json!({"node": node, "pods": pods})).into_response()
}

fn plus(a: Stats, b: Stats) -> Stats {
    Stats {
        cpu: a.cpu + b.cpu,
        memory: a.memory + b.memory,
        processes: a.processes + b.processes,
    }
}
