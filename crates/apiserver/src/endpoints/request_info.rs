//! What a path and a method ask for, as upstream reads them.

use http::Method;

/// A request taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A path outside the resource API: `/version`, `/apis`, `/healthz`.
    Path,
    /// A resource, an object or a subresource.
    Resource(ResourcePath),
}

/// The parts of a resource path. What is absent is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What follows the subresource, for proxies.
    pub(crate) rest: String,
    /// The old form of a watch: `/api/v1/watch/pods`.
    pub(crate) watch_prefix: bool,
}

/// Takes a path apart. Percent-encoded parts are decoded after the path is split.
pub(crate) fn parse(path: &str) -> Target {
    let trimmed = path.trim_start_matches('/');
    let mut parts = trimmed.split('/');
    let (group, version) = match parts.next() {
        Some("api") => (String::new(), parts.next()),
        Some("apis") => (decode(parts.next().unwrap_or_default()), parts.next()),
        _ => return Target::Path,
    };
    let Some(version) = version.filter(|v| !v.is_empty()) else {
        return Target::Path;
    };
    let mut parts: Vec<&str> = parts.collect();
    // A trailing slash names the collection, as upstream's router has it.
    while parts.len() > 1 && parts.last() == Some(&"") && !parts.contains(&"proxy") {
        parts.pop();
    }
    let mut target = ResourcePath {
        group,
        version: decode(version),
        ..ResourcePath::default()
    };
    if parts.first() == Some(&"watch") && parts.len() > 1 {
        target.watch_prefix = true;
        parts.remove(0);
    }
    if parts.first().is_none_or(|p| p.is_empty()) {
        return Target::Path;
    }
    // `/namespaces/x` is the object itself, `/namespaces/x/pods` something inside it;
    // `/namespaces/x/status` and `/finalize` are subresources of the object.
    if parts[0] == "namespaces" && parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
        target.namespace = decode(parts[1]);
        parts.drain(..2);
    } else if parts[0] == "namespaces" && parts.len() > 1 {
        target.namespace = decode(parts[1]);
    }
    let mut parts = parts.into_iter();
    target.resource = decode(parts.next().unwrap_or_default());
    target.name = decode(parts.next().unwrap_or_default());
    target.subresource = decode(parts.next().unwrap_or_default());
    target.rest = parts.collect::<Vec<_>>().join("/");
    Target::Resource(target)
}

impl ResourcePath {
    /// The verb that authorization and metrics speak of.
    pub(crate) fn verb(&self, method: &Method, watch: bool) -> &'static str {
        match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD if !self.name.is_empty() && !self.watch_prefix => "get",
            Method::GET | Method::HEAD if watch || self.watch_prefix => "watch",
            Method::GET | Method::HEAD => "list",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        }
    }
}

fn decode(part: &str) -> String {
    percent_encoding::percent_decode_str(part)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> String {
        match parse(path) {
            Target::Path => "path".to_owned(),
            Target::Resource(p) => [
                p.group,
                p.version,
                p.namespace,
                p.resource,
                p.name,
                p.subresource,
                p.rest,
            ]
            .join("|"),
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        for (path, expected) in [
            ("/version", "path"),
            ("/api/v1", "path"),
            ("/apis/apps/v1/", "path"),
            ("/api/v1/pods", "|v1||pods|||"),
            ("/api/v1/namespaces", "|v1||namespaces|||"),
            ("/api/v1/namespaces/a", "|v1|a|namespaces|a||"),
            (
                "/api/v1/namespaces/a/finalize",
                "|v1|a|namespaces|a|finalize|",
            ),
            ("/api/v1/namespaces/a/pods/p/log", "|v1|a|pods|p|log|"),
            (
                "/api/v1/namespaces/a/services/s:80/proxy/x/y",
                "|v1|a|services|s:80|proxy|x/y",
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "apps|v1|a|deployments|d|scale|",
            ),
            ("/api/v1/namespaces/a/pods/x%2Fy", "|v1|a|pods|x/y||"),
        ] {
            assert_eq!(parts(path), expected, "{path}");
        }
    }
}
