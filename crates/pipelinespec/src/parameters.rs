//! The parameters of a run, by the names its caller used.

use std::collections::BTreeMap;

use engine::{ParameterType, Plan, RunParameter};
use serde_json::Value;

use crate::Error;

/// Matches given parameters with the plan's. The answer has an entry for every given parameter, by
/// the plan's names.
///
/// In v1 a name that does not exist as written is tried with `-` and `_` exchanged, and values are
/// texts. In v2 a value must be of its parameter's type and, if there are literals, one of them; null
/// counts as not given.
pub fn bind(plan: &Plan, given: &[(String, Value)]) -> Result<BTreeMap<String, Value>, Error> {
    let mut bound = BTreeMap::new();
    for (name, value) in given {
        let known = if plan.typed {
            plan.parameters.iter().find(|p| p.name == *name)
        } else {
            plan.parameter(name)
        };
        let parameter = known.ok_or_else(|| Error::UnknownParameter {
            name: name.clone(),
            known: plan.parameters.iter().map(|p| p.name.clone()).collect(),
        })?;
        if bound.contains_key(&parameter.name) {
            return Err(Error::RepeatedParameter(parameter.name.clone()));
        }
        let value = match parameter.kind {
            None => Value::String(engine::render(value)),
            Some(_) if value.is_null() => continue,
            Some(kind) => typed(parameter, kind, value)?,
        };
        bound.insert(parameter.name.clone(), value);
    }
    let missing: Vec<String> = plan
        .parameters
        .iter()
        .filter(|p| p.default.is_none() && !p.optional && !bound.contains_key(&p.name))
        .map(|p| p.name.clone())
        .collect();
    if missing.is_empty() {
        Ok(bound)
    } else {
        Err(Error::MissingParameters(missing))
    }
}

fn typed(parameter: &RunParameter, kind: ParameterType, value: &Value) -> Result<Value, Error> {
    let name = parameter.name.clone();
    if matches!(kind, ParameterType::FinalStatus | ParameterType::Config) {
        return Err(Error::NotForRuns { name, kind });
    }
    let value = match kind.accept(value.clone()) {
        Ok(value) => value,
        Err(mismatch) => return Err(Error::WrongType { name, mismatch }),
    };
    if parameter.literals.is_empty() || parameter.literals.contains(&value) {
        return Ok(value);
    }
    Err(Error::NotAllowed {
        name,
        given: value.to_string(),
        allowed: parameter.literals.iter().map(Value::to_string).collect(),
    })
}
