//! What loops produced, as lists; and how tasks ended, for those that ask.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::Run;
use crate::task::{Kind, Phase, Task};

impl Run {
    /// An output parameter of each iteration, in order: of loops within loops a list of lists, which
    /// is what components that collect from them are written for.
    pub(super) fn collected_parameters(&self, task: &Task, name: &str) -> Option<Value> {
        let outputs = self.iterations(task)?.map(|t| t.outputs.get(name));
        Some(Value::Array(outputs.flatten().cloned().collect()))
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
