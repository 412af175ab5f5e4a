//! Fetches packages from the web for the Pipelines API: http and https, with limits on size, time and
//! redirections. Certificates are judged by the machine's own roots.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use pipelines::api::Fetch;

use super::compose::provider;

const PATIENCE: Duration = Duration::from_secs(60);
const REDIRECTIONS: usize = 5;

/// The seam's other side.
pub(crate) fn from_the_web() -> Fetch {
    Arc::new(|uri, limit| {
        async move {
            tokio::time::timeout(PATIENCE, get(uri, limit))
                .await
                .unwrap_or_else(|_| Err(format!("it did not come within {} s", PATIENCE.as_secs())))
        }
        .boxed()
    })
}

async fn get(mut uri: Uri, limit: usize) -> Result<Bytes, String> {
    for _ in 0..=REDIRECTIONS {
        let response = ask(&uri).await?;
        let status = response.status();
        if !status.is_redirection() {
            return body(response, limit).await;
        }
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| format!("{uri} answers {status} and names no other place"))?;
        uri = resolved(&uri, location)?;
    }
    Err(format!("more than {REDIRECTIONS} redirections"))
}

async fn ask(uri: &Uri) -> Result<Response<Incoming>, String> {
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(provider())
        .map_err(|error| format!("read this machine's root certificates: {error}"))?
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(uri.clone())
        .header(header::USER_AGENT, "coracle")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    client
        .request(request)
        .await
        .map_err(|error| stdx::error::chain(&error))
}

async fn body(response: Response<Incoming>, limit: usize) -> Result<Bytes, String> {
    if response.status() != StatusCode::OK {
        return Err(format!("the answer is {}", response.status()));
    }
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| stdx::error::chain(&error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limit {
            return Err(format!("file size too large: the maximum is {limit} bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Where a redirection leads: an address of its own, or a path at the same server.
fn resolved(from: &Uri, location: &str) -> Result<Uri, String> {
    let broken = |why: String| format!("the redirection to {location:?} makes no sense: {why}");
    let uri: Uri = if location.starts_with('/') {
        let authority = from.authority().map_or("", http::uri::Authority::as_str);
        let scheme = from.scheme_str().unwrap_or("http");
        format!("{scheme}://{authority}{location}").parse()
    } else {
        location.parse()
    }
    .map_err(|error: http::uri::InvalidUri| broken(error.to_string()))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err(broken("only http:// and https:// are followed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_stay_on_the_web() {
        let from: Uri = "https://h:8443/a".parse().unwrap();
        let to = |location| resolved(&from, location).map(|uri| uri.to_string());
        assert_eq!(to("/b?c=d").unwrap(), "https://h:8443/b?c=d");
        assert_eq!(to("http://g/x").unwrap(), "http://g/x");
        assert!(to("file:///etc/passwd").is_err());
        assert!(to("b").is_err());
    }
}
