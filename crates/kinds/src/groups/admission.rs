//! Kinds of admissionregistration.k8s.io, apiregistration.k8s.io, certificates.k8s.io and
//! flowcontrol.apiserver.k8s.io.

use serde_json::{Value, json};

use crate::core::pod::validate::one_of;
use crate::core::pod::volumes::required;
use crate::field::{Error, ErrorList, Path};
use crate::kind::{Generation, Strategy};
use crate::selector::Fields;
use crate::tree::{self, set_default, set_default_text};
use crate::{content, table};

pub(crate) const VALIDATING_WEBHOOKS: Strategy = Strategy {
    default: |object| webhook_defaults(object, false),
    validate: |_, object| webhooks(object),
    validate_update: |_, new, _| webhooks(new),
    row: Some(table::policy::webhooks),
    generation: Generation::Content,
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const MUTATING_WEBHOOKS: Strategy = Strategy {
    default: |object| webhook_defaults(object, true),
    ..VALIDATING_WEBHOOKS
};

pub(crate) const ADMISSION_POLICY: Strategy = Strategy {
    default: |policy| {
        let spec = tree::child(policy, "spec");
        set_default_text(spec, "failurePolicy", "Fail");
        match_defaults(spec, "matchConstraints");
    },
    row: Some(table::policy::admission_policy),
    empty_status: "{}",
    has_status: true,
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const ADMISSION_BINDING: Strategy = Strategy {
    default: |binding| match_defaults(tree::child(binding, "spec"), "matchResources"),
    validate: |_, object| {
        let spec = tree::get(object, "spec")
            .cloned()
            .unwrap_or_else(|| json!({}));
        required(&spec, "policyName", &Path::new("spec"))
    },
    row: Some(table::policy::admission_binding),
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const API_SERVICE: Strategy = Strategy {
    validate: |_, object| {
        let (group, version) = (
            tree::text(object, "spec.group"),
            tree::text(object, "spec.version"),
        );
        let expected = format!("{version}.{group}");
        let name = tree::text(object, "metadata.name");
        if name == expected {
            return ErrorList::new();
        }
        let detail = format!("must be `spec.version+\".\"+spec.group`: \"{expected}\"");
        Error::invalid(&Path::new("metadata.name"), name, detail).into()
    },
    name: content::name_is_path_segment,
    row: Some(table::policy::api_service),
    empty_status: "{}",
    has_status: true,
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const CERTIFICATE_REQUEST: Strategy = Strategy {
    default: |object| {
        let usages = json!(["digital signature", "key encipherment"]);
        set_default(tree::child(object, "spec"), "usages", usages);
    },
    validate: |_, object| {
        let spec = tree::get(object, "spec")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let path = Path::new("spec");
        let mut errors = required(&spec, "request", &path);
        errors.extend(required(&spec, "signerName", &path));
        errors
    },
    name: content::name_is_path_segment,
    row: Some(table::policy::certificate_request),
    fields: &Fields::with(&["metadata.name", "spec.signerName"]),
    empty_status: "{}",
    has_status: true,
    ..Strategy::GENERIC
};

pub(crate) const FLOW_SCHEMA: Strategy = Strategy {
    default: |object| {
        let spec = tree::child(object, "spec");
        if tree::int(spec, "matchingPrecedence").unwrap_or(0) == 0 {
            spec["matchingPrecedence"] = json!(1000);
        }
    },
    row: Some(table::policy::flow_schema),
    empty_status: "{}",
    has_status: true,
    generation: Generation::Spec,
    ..Strategy::GENERIC
};

pub(crate) const PRIORITY_LEVEL: Strategy = Strategy {
    default: |object| {
        if let Some(limited) = tree::get_mut(object, "spec.limited") {
            set_default(limited, "nominalConcurrencyShares", 30);
            set_default(limited, "lendablePercent", 0);
            let response = tree::child(limited, "limitResponse");
            if let Some(queuing) = tree::get_mut(response, "queuing") {
                set_default(queuing, "handSize", 8);
                set_default(queuing, "queues", 64);
                set_default(queuing, "queueLengthLimit", 50);
            }
        }
    },
    row: Some(table::policy::priority_level),
    empty_status: "{}",
    has_status: true,
    generation: Generation::Spec,
    ..Strategy::GENERIC
};

fn match_defaults(spec: &mut Value, key: &str) {
    if let Some(rules) = tree::get_mut(spec, key) {
        set_default(rules, "namespaceSelector", json!({}));
        set_default(rules, "objectSelector", json!({}));
        set_default_text(rules, "matchPolicy", "Equivalent");
        for list in ["resourceRules", "excludeResourceRules"] {
            for rule in tree::list_mut(rules, list) {
                set_default_text(rule, "scope", "*");
            }
        }
    }
}

fn webhook_defaults(object: &mut Value, mutating: bool) {
    for hook in tree::list_mut(object, "webhooks") {
        set_default_text(hook, "failurePolicy", "Fail");
        set_default_text(hook, "matchPolicy", "Equivalent");
        set_default(hook, "namespaceSelector", json!({}));
        set_default(hook, "objectSelector", json!({}));
        set_default(hook, "timeoutSeconds", 10);
        if mutating {
            set_default_text(hook, "reinvocationPolicy", "Never");
        }
        for rule in tree::list_mut(hook, "rules") {
            set_default_text(rule, "scope", "*");
        }
        if let Some(service) = tree::get_mut(hook, "clientConfig.service") {
            set_default(service, "port", 443);
        }
    }
}

fn webhooks(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names = Vec::new();
    for (i, hook) in tree::list(object, "webhooks").iter().enumerate() {
        let path = Path::new("webhooks").index(i);
        let name = tree::text(hook, "name");
        for message in content::dns1123_subdomain(name) {
            errors.push(Error::invalid(&path.child("name"), name, message));
        }
        if name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.push(Error::invalid(&path.child("name"), name, detail));
        }
        if names.contains(&name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        names.push(name);
        errors.extend(one_of(hook, "failurePolicy", &path, &["Fail", "Ignore"]));
        errors.extend(one_of(hook, "matchPolicy", &path, &["Equivalent", "Exact"]));
        let effects = ["None", "NoneOnDryRun"];
        match tree::text(hook, "sideEffects") {
            "" => errors.push(Error::required(
                &path.child("sideEffects"),
                "must specify one of None, NoneOnDryRun",
            )),
            effect if !effects.contains(&effect) => {
                errors.push(Error::not_supported(
                    &path.child("sideEffects"),
                    effect,
                    &effects,
                ));
            }
            _ => {}
        }
        let seconds = tree::int(hook, "timeoutSeconds").unwrap_or(10);
        if !(1..=30).contains(&seconds) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.push(Error::invalid(
                &path.child("timeoutSeconds"),
                seconds,
                detail,
            ));
        }
        let (url, service) = (
            tree::get(hook, "clientConfig.url"),
            tree::get(hook, "clientConfig.service"),
        );
        if url.is_some() == service.is_some() {
            let detail = "exactly one of url or service is required";
            errors.push(Error::required(&path.child("clientConfig"), detail));
        }
    }
    errors
}
