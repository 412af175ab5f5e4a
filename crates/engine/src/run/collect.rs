//! What loops produced, as lists; and how tasks ended, for those that ask.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::Run;
use crate::plan::{Body, OutputSource, Template};
use crate::task::{Kind, Phase, Task};
use crate::text::{Ref, Text};

/// Templates that call each other are looked into only this deep for loops.
const MAX_DEPTH: u32 = 64;

impl Run {
    /// An output parameter of each iteration, in order. What an iteration itself collected from
    /// loops inside it joins the list item by item.
    pub(super) fn collected_parameters(&self, task: &Task, name: &str) -> Option<Value> {
        let nested = self.collects(&task.template, name, false, 0);
        let iterations = self.iterations(task)?;
        let mut list = Vec::new();
        for iteration in iterations {
            match iteration.outputs.get(name) {
                Some(Value::Array(inner)) if nested => list.extend(inner.iter().cloned()),
                Some(value) => list.push(value.clone()),
                None => {}
            }
        }
        Some(Value::Array(list))
    }

    /// An output artifact of each iteration, in order; lists of artifacts are joined.
    pub(super) fn collected_artifacts(&self, task: &Task, name: &str) -> Option<Value> {
        let iterations = self.iterations(task)?;
        let mut list = Vec::new();
        for iteration in iterations {
            match iteration.output_artifacts.get(name) {
                Some(Value::Array(inner)) => list.extend(inner.iter().cloned()),
                Some(value) => list.push(value.clone()),
                None => {}
            }
        }
        Some(Value::Array(list))
    }

    fn iterations<'a>(&'a self, task: &'a Task) -> Option<impl Iterator<Item = &'a Task>> {
        let Kind::Loop(state) = &task.kind else {
            return None;
        };
        (task.phase == Phase::Succeeded)
            .then(|| state.items.iter().map(|id| &self.tasks[id.index()]))
    }

    /// Whether an output of a template is a list that comes from a loop inside it.
    fn collects(&self, template: &str, name: &str, artifact: bool, depth: u32) -> bool {
        let Some(template) = self.plan().templates.get(template) else {
            return false;
        };
        let Body::Dag(dag) = &template.body else {
            return false;
        };
        let Some(source) = source_of(template, name, artifact) else {
            return false;
        };
        let mut found = false;
        crate::text::Part::Text(source).visit_refs(&mut |to| {
            let (Ref::Output { task, name } | Ref::OutputArtifact { task, name }) = to else {
                return;
            };
            let Some(spec) = dag.tasks.iter().find(|spec| spec.name == *task) else {
                return;
            };
            found |= spec.each.is_some()
                || (depth < MAX_DEPTH && self.collects(&spec.template, name, artifact, depth + 1));
        });
        found
    }

    /// An id of a task, like a UUID and the same whenever it is asked for.
    pub(super) fn task_uid(&self, task: &Task) -> String {
        // FNV-1a, 128 bits wide.
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        let run = self.created.run.as_bytes();
        for &byte in run.iter().chain(b"/").chain(task.path.as_str().as_bytes()) {
            hash =
                (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        // Version 8, the one for ids of one's own making.
        let hash = (hash & !(0xf << 76) & !(0x3 << 62)) | (0x8 << 76) | (0x2 << 62);
        let digits = format!("{hash:032x}");
        let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
        format!("{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
    }
}

fn source_of<'a>(template: &'a Template, name: &str, artifact: bool) -> Option<&'a Text> {
    if artifact {
        let mut outputs = template.output_artifacts.iter();
        return outputs.find(|o| o.name == name).map(|o| &o.source);
    }
    let mut outputs = template.output_parameters.iter();
    match &outputs.find(|o| o.name == name)?.source {
        OutputSource::Text(text) => Some(text),
        OutputSource::File(_) | OutputSource::JsonPath(_) => None,
    }
}

impl Task {
    /// How it ended, as metadata stores spell it; nothing while it goes on.
    pub(super) fn state(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Waiting | Phase::Pending | Phase::Running => None,
            Phase::Succeeded if self.cached_from.is_some() => Some("CACHED"),
            Phase::Succeeded => Some("COMPLETE"),
            Phase::Failed | Phase::Error => Some("FAILED"),
            Phase::Skipped | Phase::Omitted => Some("CANCELED"),
        }
    }

    /// What went wrong, as an object that is empty when nothing did.
    pub(super) fn error(&self) -> Value {
        if !self.phase.unsuccessful() {
            return json!({});
        }
        let message = self.message.as_deref().unwrap_or(self.phase.as_str());
        // The code for an error that is known only by its message.
        json!({"code": 2, "message": message.to_owned()})
    }
}

/// The number of an iteration as part of a task's name.
pub(super) fn number_suffix(index: usize) -> String {
    let number = index.to_string();
    format!("[{number}]")
}
