//! What form of an answer the client accepts.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};

use super::query::Query;
use crate::protobuf::MEDIA_TYPE;
use crate::status::{Result, Status};

/// The forms this server writes. Protobuf is not among them: clients that prefer it name JSON too.
const OFFERED: [&str; 2] = ["application/json", "application/yaml"];

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    PrettyJson,
    Yaml,
}

impl Encoding {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::PrettyJson => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What the answer shows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Object,
    /// `metav1.Table`; the flag says v1beta1.
    Table,
    PartialMetadata,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) encoding: Encoding,
    pub(crate) view: View,
    pub(crate) gzip: bool,
}

/// Chooses the first acceptable form; `transform` says whether tables and bare metadata exist here.
pub(crate) fn negotiate(headers: &HeaderMap, query: &Query, transform: bool) -> Result<Form> {
    let gzip = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| {
            v.split(',')
                .any(|e| e.trim().split(';').next() == Some("gzip"))
        });
    let accept = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let pretty = if query.has("pretty") {
        query.flag("pretty")
    } else {
        by_hand(headers)
    };
    let json = if pretty {
        Encoding::PrettyJson
    } else {
        Encoding::Json
    };
    if accept.trim().is_empty() {
        return Ok(Form {
            encoding: json,
            view: View::Object,
            gzip,
        });
    }
    let mut clauses: Vec<(f32, &str)> = accept
        .split(',')
        .map(|clause| (quality(clause), clause.trim()))
        .collect();
    // A stable sort: equal ones stay in the client's order.
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (_, clause) in clauses {
        let mut params = clause.split(';').map(str::trim);
        let encoding = match params.next().unwrap_or_default() {
            "application/json" | "application/*" | "*/*" => json,
            "application/yaml" => Encoding::Yaml,
            _ => continue,
        };
        let (mut kind, mut group, mut version, mut stream) = ("", "", "", "");
        for param in params {
            let Some((key, value)) = param.split_once('=') else {
                continue;
            };
            let value = value.trim_matches('"');
            match key {
                "as" => kind = value,
                "g" => group = value,
                "v" => version = value,
                "stream" => stream = value,
                _ => {}
            }
        }
        if !matches!(stream, "" | "watch") {
            continue;
        }
        let view = match kind {
            "" => View::Object,
            "Table"
                if transform && group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1") =>
            {
                View::Table
            }
            "PartialObjectMetadata" | "PartialObjectMetadataList"
                if transform && group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1") =>
            {
                View::PartialMetadata
            }
            _ => continue,
        };
        return Ok(Form {
            encoding,
            view,
            gzip,
        });
    }
    Err(Status::not_acceptable(&OFFERED))
}

fn quality(clause: &str) -> f32 {
    clause
        .split(';')
        .find_map(|param| param.trim().strip_prefix("q=")?.parse().ok())
        .unwrap_or(1.0)
}

/// People who look with curl or a browser get indented text.
fn by_hand(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    ["curl/", "Wget/", "Mozilla/5.0"]
        .iter()
        .any(|known| agent.starts_with(known))
}

/// What a request's body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Json,
    Yaml,
    Protobuf,
}

/// Reads the Content-Type of an object; an absent one is JSON.
pub(crate) fn body_form(headers: &HeaderMap) -> Result<BodyForm> {
    match media_type(headers) {
        "" | "application/json" => Ok(BodyForm::Json),
        "application/yaml" => Ok(BodyForm::Yaml),
        MEDIA_TYPE => Ok(BodyForm::Protobuf),
        _ => Err(Status::unsupported_media_type(&[
            OFFERED[0], OFFERED[1], MEDIA_TYPE,
        ])),
    }
}

/// The Content-Type without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Result<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        negotiate(&headers, &Query::default(), true)
    }

    #[test]
    fn the_first_known_form_wins() {
        let table = accept(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        );
        assert_eq!(table.unwrap().view, View::Table);
        let protobuf = accept("application/vnd.kubernetes.protobuf,application/json").unwrap();
        assert_eq!(
            (protobuf.encoding, protobuf.view),
            (Encoding::Json, View::Object)
        );
        assert_eq!(accept("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(
            accept("application/yaml;q=0.5, */*").unwrap().encoding,
            Encoding::Json
        );
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf")
                .unwrap_err()
                .code(),
            406
        );
    }
}
