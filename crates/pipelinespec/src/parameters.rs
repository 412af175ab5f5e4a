//! The parameters of a run, by the names its caller used.

use std::collections::BTreeMap;

use engine::Plan;
use serde_json::Value;

use crate::Error;

/// Matches given parameters with the plan's: a name that does not exist as written is tried with
/// `-` and `_` exchanged. The answer has an entry for every given parameter, by the plan's names,
/// as strings (v1 knows no other type).
pub fn bind(plan: &Plan, given: &[(String, Value)]) -> Result<BTreeMap<String, Value>, Error> {
    let mut bound = BTreeMap::new();
    for (name, value) in given {
        let parameter = plan
            .parameter(name)
            .ok_or_else(|| Error::UnknownParameter {
                name: name.clone(),
                known: plan.parameters.iter().map(|p| p.name.clone()).collect(),
            })?;
        let value = Value::String(engine::render(value));
        if bound.insert(parameter.name.clone(), value).is_some() {
            return Err(Error::RepeatedParameter(parameter.name.clone()));
        }
    }
    let missing: Vec<String> = plan
        .parameters
        .iter()
        .filter(|p| p.default.is_none() && !bound.contains_key(&p.name))
        .map(|p| p.name.clone())
        .collect();
    if missing.is_empty() {
        Ok(bound)
    } else {
        Err(Error::MissingParameters(missing))
    }
}
