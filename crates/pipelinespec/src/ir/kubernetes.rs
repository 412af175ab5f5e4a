//! What the platform spec says about an executor: its references are resolved where the task is
//! called, as the task's inputs are, and everything else is passed on as it is.

use std::collections::BTreeMap;

use engine::{Expression, Ref, Shape};
use serde_json::Value;

use super::component::Component;
use super::inputs::{self, Around};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// The members that say where a value comes from.
const SOURCES: [&str; 4] = [
    "componentInputParameter",
    "runtimeValue",
    "taskFinalStatus",
    "taskOutputParameter",
];

/// The settings that a task gives its work. `…Parameter` and `…Json` members become values; an item
/// of a list whose value is an optional input that was not given is left out.
pub(super) fn settings<'a>(
    config: &Field<'a>,
    component: &Component<'a>,
    around: &Around<'a, '_>,
    task: &str,
    needs: &mut Vec<&'a str>,
) -> Result<Shape> {
    let mut reader = Reader {
        component,
        around,
        task,
        needs,
    };
    reader.tree(config, false)
}

struct Reader<'a, 'p, 'n> {
    component: &'p Component<'a>,
    around: &'p Around<'a, 'p>,
    task: &'p str,
    needs: &'n mut Vec<&'a str>,
}

impl<'a> Reader<'a, '_, '_> {
    fn tree(&mut self, field: &Field<'a>, claims: bool) -> Result<Shape> {
        match field.value {
            Value::Array(_) => {
                let items = field.items()?;
                let items: Result<Vec<_>> =
                    items.iter().map(|item| self.tree(item, claims)).collect();
                Ok(Shape::List(items?))
            }
            Value::Object(_) => self.object(field, claims),
            plain => Ok(Shape::Plain(plain.clone())),
        }
    }

    fn object(&mut self, field: &Field<'a>, claims: bool) -> Result<Shape> {
        let mut members = BTreeMap::new();
        let mut present = Vec::new();
        for (name, member) in field.entries()? {
            let shape = match name {
                // A claim named in the way of the first packages.
                "constant" | "componentInputParameter" | "taskOutputParameter" if claims => {
                    if field.get("pvcNameParameter")?.is_some() {
                        continue;
                    }
                    let shape = match name {
                        "constant" => Shape::Plain(member.value.clone()),
                        "componentInputParameter" => self.input(&member)?,
                        _ => inputs::task_output(&member, self.around, self.needs)?,
                    };
                    note(&shape, &mut present);
                    members.insert("pvcNameParameter".to_owned(), shape);
                    continue;
                }
                name if is_reference(name, member.value) => {
                    let shape = self.reference(&member)?;
                    note(&shape, &mut present);
                    shape
                }
                name => self.tree(&member, name == "pvcMount")?,
            };
            members.insert(name.to_owned(), shape);
        }
        let members = Shape::Map(members);
        if present.is_empty() {
            return Ok(members);
        }
        Ok(Shape::If {
            present,
            then: Box::new(members),
        })
    }

    fn reference(&mut self, field: &Field<'a>) -> Result<Shape> {
        if let Some(name) = field.get("componentInputParameter")?
            && !self.around.component.parameters.contains_key(name.str()?)
        {
            return self.input(&name);
        }
        inputs::parameter(field, self.around, self.task, self.needs)
    }

    /// An input of the component around the task or, if that has none of this name, of its own.
    fn input(&self, field: &Field<'a>) -> Result<Shape> {
        let name = field.str()?;
        let own = self.component.parameters.contains_key(name);
        if own && !self.around.component.parameters.contains_key(name) {
            return Ok(Shape::reference(Ref::Argument(name.to_owned())));
        }
        inputs::component_input(field, self.around)
    }
}

fn is_reference(name: &str, value: &Value) -> bool {
    let named = name.ends_with("Parameter") || name.ends_with("Json");
    let sourced = value
        .as_object()
        .is_some_and(|map| SOURCES.iter().any(|source| map.contains_key(*source)));
    named && sourced
}

/// What may be absent decides whether the object around it is there.
fn note(shape: &Shape, present: &mut Vec<Expression>) {
    if let Shape::Value(expression) = shape {
        present.push((**expression).clone());
    }
}
