//! One request of a resource template: what it is about, and making it.

use engine::StartWork;
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy,
};
use kube::{Api, ResourceExt as _};
use pipelinespec::resource::condition::{self, Requirement};
use pipelinespec::resource::flags::{self, Flags};
use serde_json::Value;

use super::watched::Watched;
use super::{Problem, api, mark, tree};
use crate::journal::Record;
use crate::runner::Shared;
use crate::runner::pod::{self, ATTEMPT_ANNOTATION, Names, RUN_LABEL, TASK_ANNOTATION};

/// A template's request, with its texts as they are in this run.
pub(super) struct Request {
    action: String,
    strategy: Option<String>,
    manifest: Option<Value>,
    flags: Flags,
    /// Deleting what is not there is a failure.
    must_exist: bool,
    success: Vec<Requirement>,
    failure: Vec<Requirement>,
    pub(super) api: Api<DynamicObject>,
    kind: String,
    names: Vec<String>,
}

impl Request {
    pub(super) async fn of(
        shared: &Shared,
        record: &Record,
        start: &StartWork,
    ) -> Result<Self, Problem> {
        let names = Names::of(
            &record.workflow,
            &start.task,
            &start.template,
            start.attempt,
            false,
        );
        let mut spec = start.spec.clone();
        pod::replace_late(&mut spec, &names.pod, start.attempt);
        let resource = &spec["resource"];
        let text = |name: &str| {
            let text = resource.get(name).and_then(Value::as_str);
            text.filter(|text| !text.trim().is_empty())
        };
        let bad = |what: &str| {
            let what = what.to_owned();
            move |problem: String| Problem::Failed(format!("{what}: {problem}"))
        };
        let requirements = |name: &str| {
            let parsed = text(name).map_or(Ok(Vec::new()), condition::parse);
            parsed.map_err(bad(name))
        };
        let listed = resource.get("flags").and_then(Value::as_array);
        let listed: Vec<String> = listed.into_iter().flatten().map(engine::render).collect();
        let flags = flags::parse(&listed).map_err(bad("flags"))?;
        let mut manifest = match (resource.get("manifest"), text("manifest")) {
            (Some(object @ Value::Object(_)), _) => Some(object.clone()),
            (_, None) => None,
            (_, Some(text)) => {
                Some(serde_saphyr::from_str::<Value>(text).map_err(|error| {
                    Problem::Failed(format!("the manifest is not YAML: {error}"))
                })?)
            }
        };
        let action = text("action").unwrap_or_default().to_owned();
        if matches!(action.as_str(), "create" | "apply")
            && let Some(object) = &mut manifest
        {
            mark(object, record, start, resource["setOwnerReference"] == true);
        }
        let account = spec.get("serviceAccountName").and_then(Value::as_str);
        let account = account
            .filter(|a| !a.is_empty())
            .unwrap_or(&record.service_account);
        let client = api::act_as(shared, account)?;
        let own = &shared.options.namespace;
        // A manifest says which object it is about, unless it is a patch of one that the flags name.
        let about = manifest
            .as_ref()
            .filter(|object| object.get("kind").is_some());
        let (found, names) = match (about, &flags.target) {
            (Some(object), _) => {
                let name = object.pointer("/metadata/name").and_then(Value::as_str);
                let names = name.map(str::to_owned).into_iter().collect();
                (api::of_object(&client, object, own).await?, names)
            }
            (None, Some((kind, names))) => {
                let namespace = flags.namespace.as_deref().unwrap_or(own);
                (api::of_word(&client, kind, namespace).await?, names.clone())
            }
            (None, None) => {
                let message =
                    format!("{action}: neither the manifest nor the flags name an object");
                return Err(Problem::Failed(message));
            }
        };
        if names.is_empty() && flags.selector.is_none() {
            let message = format!("{action} {}: the object has no name", found.kind);
            return Err(Problem::Failed(message));
        }
        Ok(Self {
            strategy: flags
                .patch_type
                .clone()
                .or_else(|| text("mergeStrategy").map(str::to_owned)),
            success: requirements("successCondition")?,
            failure: requirements("failureCondition")?,
            api: found.api,
            kind: found.kind,
            action,
            manifest,
            must_exist: resource["mustExist"] == true,
            flags,
            names,
        })
    }

    pub(super) fn what(&self) -> String {
        format!("{} {}", self.action, self.kind)
    }

    fn failed(&self, error: &kube::Error) -> Problem {
        Problem::of(&self.what(), error)
    }

    fn name(&self) -> Result<&str, Problem> {
        match self.names.as_slice() {
            [name] => Ok(name),
            names => Err(Problem::Failed(format!(
                "{}: expected one name, got {}",
                self.what(),
                names.len()
            ))),
        }
    }

    fn manifest(&self) -> Result<&Value, Problem> {
        self.manifest
            .as_ref()
            .ok_or_else(|| Problem::Failed(format!("{}: there is no manifest", self.what())))
    }

    fn object(&self) -> Result<DynamicObject, Problem> {
        serde_json::from_value(self.manifest()?.clone())
            .map_err(|error| Problem::Failed(format!("the manifest is no object: {error}")))
    }

    /// Makes the request; answers the object, unless it is being deleted.
    pub(super) async fn send(&self) -> Result<Option<DynamicObject>, Problem> {
        let posted = PostParams {
            dry_run: self.flags.dry_run,
            field_manager: self.flags.field_manager.clone(),
        };
        let result = match self.action.as_str() {
            "create" => return self.create(&posted).await.map(Some),
            "apply" => {
                let manager = self.flags.field_manager.as_deref();
                let params = PatchParams {
                    dry_run: self.flags.dry_run,
                    ..PatchParams::apply(manager.unwrap_or("coracle-pipelines")).force()
                };
                let patch = Patch::Apply(self.manifest()?);
                self.api.patch(self.name()?, &params, &patch).await
            }
            "patch" => return self.patch().await.map(Some),
            "replace" => {
                self.api
                    .replace(self.name()?, &posted, &self.object()?)
                    .await
            }
            "get" => self.api.get(self.name()?).await,
            "delete" => return self.delete().await.map(|()| None),
            other => {
                return Err(Problem::Failed(format!(
                    "action {other:?} is not supported"
                )));
            }
        };
        result.map(Some).map_err(|error| self.failed(&error))
    }

    async fn create(&self, params: &PostParams) -> Result<DynamicObject, Problem> {
        let object = self.object()?;
        match self.api.create(params, &object).await {
            Ok(made) => Ok(made),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let there = self.api.get(self.name()?).await;
                let there = there.map_err(|error| self.failed(&error))?;
                // Made by this very attempt before a restart: that is what was wanted.
                let same = |key: &str| {
                    let ours = object.annotations().get(key);
                    ours.is_some() && there.annotations().get(key) == ours
                };
                if same(TASK_ANNOTATION) && same(ATTEMPT_ANNOTATION) && same(RUN_LABEL) {
                    return Ok(there);
                }
                let what = self.what();
                Err(Problem::Failed(format!("{what}: {}", status.message)))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn patch(&self) -> Result<DynamicObject, Problem> {
        let (name, body) = (self.name()?, self.manifest()?);
        let params = PatchParams {
            dry_run: self.flags.dry_run,
            field_manager: self.flags.field_manager.clone(),
            ..PatchParams::default()
        };
        let patched = match self.strategy.as_deref().unwrap_or("strategic") {
            "merge" => self.api.patch(name, &params, &Patch::Merge(body)).await,
            "strategic" => self.api.patch(name, &params, &Patch::Strategic(body)).await,
            "json" => self.json_patch(name, body).await,
            other => {
                return Err(Problem::Failed(format!(
                    "mergeStrategy {other:?} is none of json, merge, strategic"
                )));
            }
        };
        patched.map_err(|error| self.failed(&error))
    }

    /// The client's own type for these patches would be one more dependency.
    async fn json_patch(&self, name: &str, steps: &Value) -> kube::Result<DynamicObject> {
        let dry_run = if self.flags.dry_run {
            "?dryRun=All"
        } else {
            ""
        };
        let request = http::Request::patch(format!("{}/{name}{dry_run}", self.api.resource_url()))
            .header(http::header::CONTENT_TYPE, "application/json-patch+json")
            .body(steps.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.api.clone().into_client().request(request).await
    }

    async fn delete(&self) -> Result<(), Problem> {
        let propagation_policy = self.flags.propagation.map(|policy| match policy {
            "Foreground" => PropagationPolicy::Foreground,
            "Orphan" => PropagationPolicy::Orphan,
            _ => PropagationPolicy::Background,
        });
        let params = DeleteParams {
            dry_run: self.flags.dry_run,
            grace_period_seconds: self.flags.grace_period,
            propagation_policy,
            preconditions: None,
        };
        let mut names = self.names.clone();
        if let Some(selector) = &self.flags.selector {
            let matching = ListParams::default().labels(selector);
            let found = self.api.list_metadata(&matching).await;
            let found = found.map_err(|error| self.failed(&error))?;
            names.extend(found.items.iter().map(kube::ResourceExt::name_any));
        }
        for name in &names {
            match self.api.delete(name, &params).await {
                // A finalizer keeps it for now.
                Ok(answer) => {
                    let kept = answer.left().filter(|_| self.flags.wait != Some(false));
                    if let Some(object) = kept {
                        Watched::start(self, &tree(&object)).until_gone().await?;
                    }
                }
                // As upstream, which always deletes with --ignore-not-found what v1 names.
                Err(kube::Error::Api(status)) if status.code == 404 && !self.must_exist => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(())
    }

    /// Waits until the object is as the template wants it. Without conditions it is at once.
    pub(super) async fn settled(&self, found: DynamicObject) -> Result<Value, Problem> {
        let first = tree(&found);
        if (self.success.is_empty() && self.failure.is_empty()) || self.judge(&first).is_some() {
            return self.judge(&first).unwrap_or(Ok(())).map(|()| first);
        }
        let object = Watched::start(self, &first)
            .until(|object| self.judge(object).is_some())
            .await?;
        self.judge(&object).unwrap_or(Ok(())).map(|()| object)
    }

    fn judge(&self, object: &Value) -> Option<Result<(), Problem>> {
        if let Some(met) = self.failure.iter().find(|r| r.holds(object)) {
            let message = format!("{}: failureCondition holds: {met}", self.what());
            return Some(Err(Problem::Failed(message)));
        }
        self.success
            .iter()
            .all(|r| r.holds(object))
            .then_some(Ok(()))
    }
}
