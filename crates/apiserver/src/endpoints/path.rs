//! Paths outside the resource API: discovery, health, version, metrics, keys.

use std::fmt::Write as _;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::negotiate::{Encoding, Form, View};
use super::{Call, respond};
use crate::discovery;
use crate::status::{Result, Status};

/// What `/healthz`, `/livez` and `/readyz` look at.
const CHECKS: [&str; 3] = ["ping", "log", "storage"];

pub(super) async fn serve(call: Call) -> Result<Response<Body>> {
    if !matches!(call.parts.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let path = call.parts.uri.path().to_owned();
    let path = if path.len() > 1 {
        path.trim_end_matches('/')
    } else {
        path.as_str()
    };
    let state = &call.state;
    let plain = |text: String| {
        respond::raw(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            Bytes::from(text),
            false,
        )
    };
    let top = path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    match top {
        "" => Ok(respond::value(
            StatusCode::OK,
            call.form(false)?,
            &json!({"paths": paths(&call)}),
        )),
        "api" | "apis" => {
            // The aggregated form has a media type of its own, which plain negotiation skips.
            let form = call.form(false).unwrap_or(Form {
                encoding: Encoding::Json,
                view: View::Object,
                gzip: false,
            });
            let answer = discovery::serve(state, path, &call.parts.headers, form);
            Ok(answer.unwrap_or_else(respond::page_not_found))
        }
        "openapi" if path == "/openapi/v2" => Ok(discovery::openapi_v2(state, &call.parts.headers)),
        "openapi" if path.starts_with("/openapi/v3") => {
            let answer = discovery::openapi(state, path, &call.query, &call.parts.headers);
            Ok(answer.unwrap_or_else(respond::page_not_found))
        }
        "version" if path == "/version" => {
            let form = Form {
                encoding: Encoding::PrettyJson,
                ..call.form(false)?
            };
            Ok(respond::value(StatusCode::OK, form, &version(&call)))
        }
        "healthz" | "livez" | "readyz" => health(&call, path).await,
        "metrics" if path == "/metrics" => {
            let text = state.metrics.text(&state.store);
            let media_type = "text/plain; version=0.0.4; charset=utf-8";
            Ok(respond::raw(
                StatusCode::OK,
                media_type,
                Bytes::from(text),
                false,
            ))
        }
        _ => match path {
            "/.well-known/openid-configuration" => {
                let issuer = &state.options.issuer;
                let document = json!({
                    "issuer": issuer,
                    "jwks_uri": format!("{issuer}/openid/v1/jwks"),
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["ES256", "EdDSA"],
                });
                Ok(respond::value(StatusCode::OK, call.form(false)?, &document))
            }
            "/openid/v1/jwks" => {
                let keys = state.authenticator.signer.key_set().to_string();
                let media_type = "application/jwk-set+json";
                Ok(respond::raw(
                    StatusCode::OK,
                    media_type,
                    Bytes::from(keys),
                    false,
                ))
            }
            "/robots.txt" => Ok(plain("User-agent: *\nDisallow: /\n".to_owned())),
            _ => Ok(respond::page_not_found()),
        },
    }
}

fn version(call: &Call) -> serde_json::Value {
    json!({
        "major": "1",
        "minor": "34",
        "emulationMajor": "1",
        "emulationMinor": "34",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "33",
        "gitVersion": format!("v1.34.2+{}", call.state.options.git_version_suffix),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn paths(call: &Call) -> Vec<String> {
    let table = call.state.resources.current();
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for gv in discovery::group_versions(&table) {
        if !gv.group.is_empty() {
            paths.push(format!("/apis/{}", gv.group));
            paths.push(format!("/apis/{}/{}", gv.group, gv.version));
        }
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned),
    );
    paths.sort();
    paths.dedup();
    paths
}

async fn health(call: &Call, path: &str) -> Result<Response<Body>> {
    let mut parts = path.trim_start_matches('/').split('/');
    let endpoint = parts.next().unwrap_or_default();
    let only = parts.next();
    if let Some(only) = only
        && !CHECKS.contains(&only)
    {
        return Ok(respond::page_not_found());
    }
    let excluded = call.query.all("exclude");
    let mut lines = String::new();
    let mut failed = false;
    for check in CHECKS {
        if only.is_some_and(|only| only != check) {
            continue;
        }
        if excluded.contains(&check) {
            writeln_to(&mut lines, format_args!("[+]{check} excluded: ok"));
            continue;
        }
        let good = check != "storage" || call.state.store.reachable().await;
        failed |= !good;
        if good {
            writeln_to(&mut lines, format_args!("[+]{check} ok"));
        } else {
            writeln_to(
                &mut lines,
                format_args!("[-]{check} failed: reason withheld"),
            );
        }
    }
    let (code, text) = if failed {
        writeln_to(&mut lines, format_args!("{endpoint} check failed"));
        (StatusCode::INTERNAL_SERVER_ERROR, lines)
    } else if call.query.has("verbose") {
        writeln_to(&mut lines, format_args!("{endpoint} check passed"));
        (StatusCode::OK, lines)
    } else {
        (StatusCode::OK, "ok".to_owned())
    };
    Ok(respond::raw(
        code,
        "text/plain; charset=utf-8",
        Bytes::from(text),
        false,
    ))
}

fn writeln_to(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}
