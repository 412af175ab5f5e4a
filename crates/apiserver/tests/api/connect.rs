//! Logs and exec through a kubelet.

use std::net::Ipv4Addr;

use bytes::Bytes;
use futures::AsyncBufReadExt as _;
use futures::TryStreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use apiserver::UserInfo;

use crate::support::{Authority, Fixture, TOKEN, pod, serve, start};

/// A kubelet that answers logs with the path it was asked and echoes what is sent up a tunnel.
async fn kubelet(fixture: &Fixture) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let supervisor = fixture.supervisor.clone();
    fixture
        .supervisor
        .spawn("kubelet", stdx::OnError::Log, async move {
            loop {
                let (stream, _) = listener.accept().await?;
                let inner = supervisor.clone();
                let serve =
                    hyper::service::service_fn(move |request| answer(inner.clone(), request));
                supervisor.spawn("kubelet connection", stdx::OnError::Log, async move {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), serve)
                        .with_upgrades()
                        .await
                });
            }
            #[expect(unreachable_code, reason = "it names the error's type")]
            Ok::<(), std::io::Error>(())
        });
    port
}

#[expect(clippy::unused_async, reason = "a service function returns a future")]
async fn answer(
    supervisor: stdx::Supervisor,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let target = request.uri().to_string();
    if !request.headers().contains_key("upgrade") {
        assert!(
            !request.headers().contains_key("authorization"),
            "the client's token stays here"
        );
        return Ok(Response::new(Full::from(format!("{target}\n"))));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    supervisor.spawn("echo", stdx::OnError::Log, async move {
        let mut stream = TokioIo::new(upgrade.await.map_err(std::io::Error::other)?);
        stream.write_all(target.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        let (mut read, mut write) = tokio::io::split(stream);
        tokio::io::copy(&mut read, &mut write).await?;
        write.shutdown().await
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "echo");
    Ok(response.body(Full::default()).unwrap())
}

async fn with_pod() -> Fixture {
    let fixture = start().await.with_account().await;
    let port = kubelet(&fixture).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    assert_eq!(fixture.post("/api/v1/nodes", &node).await.code, 201);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    let patched = fixture
        .patch("/api/v1/nodes/n/status", "merge-patch+json", &status)
        .await;
    assert_eq!(patched.code, 200, "{}", patched.text);
    let mut body = pod("p");
    body["spec"]["nodeName"] = "n".into();
    let made = fixture.post("/api/v1/namespaces/default/pods", &body).await;
    assert_eq!(made.code, 201, "{}", made.text);
    fixture
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let fixture = with_pod().await;
    let client = fixture.server.client_for(UserInfo::admin("boss"), "test");
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let params = LogParams {
        follow: true,
        tail_lines: Some(7),
        ..LogParams::default()
    };
    let mut lines = pods.log_stream("p", &params).await.unwrap().lines();
    let line = lines.try_next().await.unwrap().unwrap();
    assert_eq!(
        line,
        "/containerLogs/default/p/main?follow=true&tailLines=7"
    );
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel_to_the_kubelet() {
    let fixture = with_pod().await;
    let authority = Authority::new("servers");
    let port = serve(&fixture, &authority).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().into()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = format!(
        "GET /api/v1/namespaces/default/pods/p/exec?command=cat&command=-&stdin=1&stdout=true HTTP/1.1\r\n\
         host: x\r\nauthorization: Bearer {TOKEN}\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.ends_with("hello") {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
    assert!(
        seen.contains("/exec/default/p/main?input=1&output=1&command=cat&command=-"),
        "{seen}"
    );
}
