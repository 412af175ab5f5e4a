//! One table of routes: what is served, and what the OpenAPI document says of it.
//!
//! A path may end in a verb, as in `/runs/{run_id}:archive`. The router knows no such endings, so
//! inside it the verb is a segment of its own (`/runs/{run_id}/~archive`), and a request whose path
//! fits such a row is rewritten before it is routed.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::routing::{MethodFilter, MethodRouter, any, on};

use super::Api;
use super::message::{Schemas, Wire};

/// A row.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) about: &'static str,
    pub(super) query: Vec<&'static str>,
    pub(super) body: Option<fn(&mut Schemas) -> serde_json::Value>,
    pub(super) answer: Option<fn(&mut Schemas) -> serde_json::Value>,
    /// Whether the body is a form with a file.
    pub(super) form: bool,
    /// Whether the answer is plain text.
    pub(super) text: bool,
    handler: MethodRouter<Api>,
}

/// The query parameters of every list.
pub(super) const LIST: &[&str] = &["page_token", "page_size", "sort_by", "filter", "namespace"];

impl Route {
    fn new<H, T>(method: Method, path: &'static str, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone())
            .expect("invariant: only methods of the table's constructors come here");
        Self {
            method,
            path,
            about,
            query: Vec::new(),
            body: None,
            answer: None,
            form: false,
            text: false,
            handler: on(filter, handler),
        }
    }

    /// Names the query parameters.
    pub(super) fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query.extend(names);
        self
    }

    /// Names one more.
    pub(super) fn query_also(mut self, name: &'static str) -> Self {
        self.query.push(name);
        self
    }

    /// Names the message of the body.
    pub(super) fn takes<M: Wire>(mut self) -> Self {
        self.body = Some(M::schema);
        self
    }

    /// Says that the body is a form with the part `uploadfile`.
    pub(super) fn takes_file(mut self) -> Self {
        self.form = true;
        self
    }

    /// Says that the answer is plain text.
    pub(super) fn answers_text(mut self) -> Self {
        self.text = true;
        self
    }

    /// Names the message of the answer.
    pub(super) fn answers<M: Wire>(mut self) -> Self {
        self.answer = Some(M::schema);
        self
    }
}

macro_rules! constructors {
    ($($name:ident $method:ident),*) => {$(
        #[doc = concat!("A row for ", stringify!($method), ".")]
        pub(super) fn $name<H, T>(path: &'static str, about: &'static str, handler: H) -> Route
        where
            H: Handler<T, Api>,
            T: 'static,
        {
            Route::new(Method::$method, path, about, handler)
        }
    )*};
}
constructors!(get GET, post POST, patch PATCH, delete DELETE);

/// A path with a verb at its end, for rewriting.
#[derive(Debug, Clone)]
struct Verb {
    segments: Vec<&'static str>,
    verb: &'static str,
}

impl Verb {
    fn of(path: &'static str) -> Option<Self> {
        let (front, verb) = path.rsplit_once("}:")?;
        let mut segments: Vec<&str> = front.split('/').collect();
        // The last segment has lost its brace; only that it is a parameter matters.
        *segments.last_mut()? = "{";
        Some(Self { segments, verb })
    }

    fn fits(&self, front: &str, verb: &str) -> bool {
        verb == self.verb
            && front.split('/').count() == self.segments.len()
            && front
                .split('/')
                .zip(&self.segments)
                .all(|(given, wanted)| given == *wanted || wanted.starts_with('{'))
    }
}

/// The router's form of a path.
fn inner(path: &str) -> String {
    path.replace("}:", "}/~")
}

/// Serves the rows.
pub(super) fn served(routes: Vec<Route>, api: Api, more: Router<Api>) -> MethodRouter {
    let verbs: Vec<Verb> = routes.iter().filter_map(|r| Verb::of(r.path)).collect();
    let verbs: std::sync::Arc<[Verb]> = verbs.into();
    let mut router = more;
    for route in routes {
        router = router.route(&inner(route.path), route.handler);
    }
    let router = router
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(axum::extract::DefaultBodyLimit::max(super::BODY_LIMIT))
        .with_state(api);
    let served = move |request: Request| {
        // Made anew: what the outer router noted of the path must not reach the handlers.
        let (parts, body) = request.into_parts();
        let mut request = Request::new(body);
        *request.uri_mut() = rewritten(&parts.uri, &verbs).unwrap_or(parts.uri);
        *request.method_mut() = parts.method;
        *request.headers_mut() = parts.headers;
        tower::ServiceExt::oneshot(router.clone(), request)
    };
    any(served)
}

async fn unknown(request: Request) -> super::wire::Failure {
    super::wire::Failure::not_found(format!(
        "{} {} is not part of this API",
        request.method(),
        request.uri().path()
    ))
}

async fn not_allowed(request: Request) -> super::wire::Failure {
    super::wire::Failure::new(
        super::wire::Code::Unimplemented,
        format!("{} is not allowed here", request.method()),
    )
}

/// The request's address as the inner router knows it, if that differs.
fn rewritten(uri: &Uri, verbs: &[Verb]) -> Option<Uri> {
    let path = uri.path();
    let bare = path
        .strip_prefix("/pipeline")
        .filter(|p| p.starts_with('/'));
    let path = bare.unwrap_or(path);
    let verb = path.rsplit_once(':').or_else(|| {
        // A client may write the colon as %3A.
        let at = path.to_ascii_lowercase().rfind("%3a")?;
        Some((&path[..at], &path[at + 3..]))
    });
    let path = match verb {
        Some((front, verb)) if verbs.iter().any(|known| known.fits(front, verb)) => {
            format!("{front}/~{verb}")
        }
        _ if bare.is_some() => path.to_owned(),
        _ => return None,
    };
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_becomes_a_segment_only_where_the_table_has_it() {
        let verbs: Vec<Verb> = ["/apis/v2beta1/runs/{run_id}:archive"]
            .into_iter()
            .filter_map(Verb::of)
            .collect();
        let seen =
            |text: &str| rewritten(&text.parse().unwrap(), &verbs).map(|uri| uri.to_string());
        assert_eq!(
            seen("/apis/v2beta1/runs/a:b:archive?x=1").unwrap(),
            "/apis/v2beta1/runs/a:b/~archive?x=1"
        );
        assert_eq!(
            seen("/pipeline/apis/v2beta1/runs/a%3Aarchive").unwrap(),
            "/apis/v2beta1/runs/a/~archive"
        );
        assert_eq!(seen("/pipeline/apis/x").unwrap(), "/apis/x");
        assert_eq!(seen("/apis/v2beta1/runs/a:b"), None);
        assert_eq!(seen("/apis/v1beta1/runs/a:archive"), None);
    }
}
