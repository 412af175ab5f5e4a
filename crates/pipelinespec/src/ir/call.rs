//! What a task passes to the component that it calls, once or for each item.

use engine::{Argument, ArtifactArgument, Each, Ref, Shape, Text};
use serde_json::Value;

use super::component::{Component, entries};
use super::inputs::{self, Around};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// What a task passes.
pub(super) struct Call {
    pub(super) arguments: Vec<Argument>,
    pub(super) artifacts: Vec<ArtifactArgument>,
    pub(super) each: Option<Each>,
}

impl Call {
    pub(super) fn read_inputs<'a>(
        &mut self,
        field: &Field<'a>,
        component: &Component<'a>,
        around: &Around<'a, '_>,
        task: &str,
        needs: &mut Vec<&'a str>,
    ) -> Result<()> {
        let Some(given) = field.get("inputs")? else {
            return Ok(());
        };
        given.only(&["artifacts", "parameters"], &[])?;
        for (name, spec) in entries(&given, "parameters")? {
            let value = inputs::parameter(&spec, around, task, needs)?;
            if let (Some(input), Shape::Plain(constant)) = (component.parameters.get(name), &value)
                && !(constant.is_null() && (input.optional || input.default.is_some()))
                && let Err(mismatch) = input.kind.coerce(constant.clone())
            {
                return spec.invalid(format!("input parameter {name:?}: {mismatch}"));
            }
            self.arguments.push(Argument {
                name: name.to_owned(),
                value,
            });
        }
        for (name, spec) in entries(&given, "artifacts")? {
            if !component.artifacts.contains_key(name) {
                let known: Vec<&str> = component.artifacts.keys().copied().collect();
                return spec.invalid(format!(
                    "the component has no input artifact {name:?}; it has: {}",
                    inputs::list(&known)
                ));
            }
            let value = inputs::artifact(&spec, around, needs)?;
            self.artifacts.push(ArtifactArgument {
                name: name.to_owned(),
                value,
            });
        }
        Ok(())
    }

    pub(super) fn read_iterators(
        &mut self,
        field: &Field<'_>,
        component: &Component<'_>,
    ) -> Result<()> {
        let item = || Shape::Text(Text::reference(Ref::Item(Vec::new()), ""));
        match (
            field.get("parameterIterator")?,
            field.get("artifactIterator")?,
        ) {
            (None, None) => {}
            (Some(_), Some(both)) => {
                return both.invalid("a task has parameterIterator or artifactIterator, not both");
            }
            (Some(iterator), None) => {
                iterator.only(&["itemInput", "items"], &[])?;
                let name = iterator.need("itemInput")?;
                if !component.parameters.contains_key(name.str()?) {
                    return name.invalid("the component has no such input parameter");
                }
                self.each = Some(self.items(&iterator.need("items")?, component)?);
                self.arguments
                    .retain(|a| Some(a.name.as_str()) != name.value.as_str());
                self.arguments.push(Argument {
                    name: name.str()?.to_owned(),
                    value: item(),
                });
            }
            (None, Some(iterator)) => {
                iterator.only(&["itemInput", "items"], &[])?;
                let name = iterator.need("itemInput")?;
                if !component.artifacts.contains_key(name.str()?) {
                    return name.invalid("the component has no such input artifact");
                }
                let items = iterator.need("items")?;
                items.only(&["inputArtifact"], &[])?;
                let items = items.need("inputArtifact")?;
                let from = self
                    .artifacts
                    .iter()
                    .find(|a| Some(a.name.as_str()) == items.value.as_str());
                let Some(from) = from else {
                    return items.invalid("the task has no such input artifact to iterate over");
                };
                self.each = Some(Each::From(from.value.clone()));
                self.artifacts.push(ArtifactArgument {
                    name: name.str()?.to_owned(),
                    value: Shape::List(vec![item()]),
                });
            }
        }
        Ok(())
    }

    fn items(&self, items: &Field<'_>, component: &Component<'_>) -> Result<Each> {
        items.only(&["inputParameter", "raw"], &[])?;
        if let Some(raw) = items.get("raw")? {
            let list: Value = match serde_json::from_str(raw.str()?) {
                Ok(list) => list,
                Err(error) => return raw.invalid(format!("the items are not JSON: {error}")),
            };
            return match list {
                Value::Array(list) => Ok(Each::Items(list.into_iter().map(Shape::Plain).collect())),
                other => raw.invalid(format!("the items must be a JSON list, got {other}")),
            };
        }
        let input = items.need("inputParameter")?;
        let name = input.str()?;
        if let Some(argument) = self.arguments.iter().find(|a| a.name == name) {
            return Ok(Each::From(argument.value.clone()));
        }
        match component
            .parameters
            .get(name)
            .and_then(|i| i.default.clone())
        {
            Some(default) => Ok(Each::From(Shape::Plain(default))),
            None => input.invalid("the task has no such input parameter to iterate over"),
        }
    }
}
