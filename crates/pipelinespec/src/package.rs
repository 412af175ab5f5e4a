//! A package that was understood.

use std::sync::Arc;

use engine::Plan;
use serde_json::{Value, json};

use crate::documents::{self, Document};
use crate::{Error, archive, argo, ir};

/// The generation of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An Argo Workflow, as kfp 1.x compiles it.
    V1,
    /// Intermediate representation, as kfp 2.x compiles it.
    V2,
}

/// A package that was understood: what it says, and the plan it compiles to.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its generation.
    pub format: Format,
    /// What it says, as one JSON document: the Workflow, or the pipeline spec, or, when there is a
    /// platform spec too, `{"pipeline_spec": …, "platform_spec": …}`.
    pub document: Arc<Value>,
    /// What a run of it does.
    pub plan: Arc<Plan>,
    /// The name its author gave it, if any.
    pub name: Option<String>,
    /// The name for people, if there is another.
    pub display_name: Option<String>,
    /// What its author says about it.
    pub description: Option<String>,
    /// Its parameters, in its own order.
    pub parameters: Vec<ParameterInfo>,
}

/// What the API shows of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Its name.
    pub name: String,
    /// Its default; none if it must be given.
    pub default: Option<String>,
    /// The type its author gave it, if any.
    pub kind: Option<String>,
    /// What its author says about it.
    pub description: Option<String>,
}

impl Package {
    /// Understands an uploaded file.
    pub fn from_file(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        Self::from_text(&archive::text(name, bytes)?)
    }

    /// Understands a YAML or JSON text, such as an inline `workflow_manifest`.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        Self::from_documents(documents::parse(text)?, Some(text))
    }

    /// Understands what is JSON already: a Workflow, a pipeline spec, or both specs in one
    /// document, such as a [`Package::document`] that was stored.
    pub fn from_json(document: Value) -> Result<Self, Error> {
        Self::from_documents(vec![document], None)
    }

    fn from_documents(documents: Vec<Value>, text: Option<&str>) -> Result<Self, Error> {
        match documents::pipeline(documents)? {
            Document::Workflow(workflow) => Self::from_workflow(workflow, text),
            Document::Ir { pipeline, platform } => Self::from_ir(pipeline, platform, text),
        }
    }

    fn from_ir(
        pipeline: Value,
        platform: Option<Value>,
        text: Option<&str>,
    ) -> Result<Self, Error> {
        let plan = ir::compile(&pipeline, platform.as_ref()).map_err(|e| e.located(text))?;
        let about = |name: &str| {
            pipeline
                .pointer(&format!("/pipelineInfo/{name}"))
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let parameters = plan
            .parameters
            .iter()
            .map(|parameter| ParameterInfo {
                name: parameter.name.clone(),
                default: parameter.default.as_ref().map(engine::render),
                kind: parameter.kind.map(|kind| kind.as_str().to_owned()),
                description: parameter.description.clone(),
            })
            .collect();
        Ok(Self {
            format: Format::V2,
            name: about("name"),
            display_name: about("displayName"),
            description: about("description"),
            parameters,
            plan: Arc::new(plan),
            document: Arc::new(match platform {
                Some(platform) => json!({"pipeline_spec": pipeline, "platform_spec": platform}),
                None => pipeline,
            }),
        })
    }

    /// The Workflow or the pipeline spec alone.
    pub fn pipeline_spec(&self) -> &Value {
        match self.format {
            Format::V1 => &self.document,
            Format::V2 => self.document.get("pipeline_spec").unwrap_or(&self.document),
        }
    }

    /// The platform spec, if there is one.
    pub fn platform_spec(&self) -> Option<&Value> {
        match self.format {
            Format::V1 => None,
            Format::V2 => self.document.get("platform_spec"),
        }
    }

    fn from_workflow(workflow: Value, text: Option<&str>) -> Result<Self, Error> {
        let plan = argo::compile(&workflow).map_err(|error| error.located(text))?;
        let about: Value = workflow
            .pointer("/metadata/annotations/pipelines.kubeflow.org~1pipeline_spec")
            .and_then(Value::as_str)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let text_in = |value: &Value, key: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
        };
        let inputs = about.get("inputs").and_then(Value::as_array);
        let parameters = plan
            .parameters
            .iter()
            .map(|parameter| {
                let input = inputs
                    .into_iter()
                    .flatten()
                    .find(|i| i.get("name").and_then(Value::as_str) == Some(&parameter.name));
                ParameterInfo {
                    name: parameter.name.clone(),
                    default: parameter.default.as_ref().map(engine::render),
                    kind: input.and_then(|i| match i.get("type")? {
                        Value::String(kind) => Some(kind.clone()),
                        other => Some(other.to_string()),
                    }),
                    description: input.and_then(|i| text_in(i, "description")),
                }
            })
            .collect();
        Ok(Self {
            format: Format::V1,
            name: text_in(&about, "name"),
            display_name: None,
            description: text_in(&about, "description"),
            parameters,
            plan: Arc::new(plan),
            document: Arc::new(workflow),
        })
    }
}
