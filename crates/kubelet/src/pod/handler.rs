//! The checks behind probes and lifecycle hooks: a command in the container, an HTTP request, a TCP
//! connection, a gRPC health question.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use stdx::SharedClock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;

use crate::runtime::{ContainerRef, ExecSpec, Runtime};

/// How much of a command's or server's answer is kept for messages.
const OUTPUT_LIMIT: usize = 10 * 1024;

/// A running container, as its checks see it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: SharedClock,
    pub(crate) container: ContainerRef,
    pub(crate) pod_ip: Ipv4Addr,
    /// For ports given by name.
    pub(crate) spec: Arc<Container>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("container", &self.container.id)
            .finish_non_exhaustive()
    }
}

/// One way to check.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    Exec(Vec<String>),
    Http(HTTPGetAction),
    Tcp(TCPSocketAction),
    Grpc(GRPCAction),
    Sleep(Duration),
}

impl Target {
    /// Runs a check; the error is the text that follows `probe failed: ` in an Event.
    pub(crate) async fn run(&self, check: &Check, timeout: Option<Duration>) -> Result<(), String> {
        let work = async {
            match check {
                Check::Exec(argv) => self.exec(argv).await,
                Check::Http(action) => self.http(action).await,
                Check::Tcp(action) => {
                    let port = self.port(&action.port)?;
                    self.connect(action.host.as_deref(), port).await.map(drop)
                }
                Check::Grpc(action) => self.grpc(action).await,
                Check::Sleep(duration) => {
                    self.clock.sleep(*duration).await;
                    Ok(())
                }
            }
        };
        let Some(timeout) = timeout else {
            return work.await;
        };
        tokio::select! {
            result = work => result,
            () = self.clock.sleep(timeout) => Err(match check {
                Check::Exec(argv) => format!("command timed out: {argv:?} timed out after {}s", timeout.as_secs()),
                Check::Http(_) => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
                _ => format!("timeout: no answer within {}s", timeout.as_secs()),
            }),
        }
    }

    /// Runs a command and keeps what it says.
    pub(crate) async fn exec(&self, argv: &[String]) -> Result<(), String> {
        let spec = ExecSpec {
            argv: argv.to_vec(),
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let mut streams = self
            .runtime
            .exec(&self.container, spec)
            .await
            .map_err(|e| e.to_string())?;
        let (stdout, stderr) = (streams.stdout.take(), streams.stderr.take());
        let (out, err) = tokio::join!(read_some(stdout), read_some(stderr));
        let exit = streams.exit.await.map_err(|e| e.to_string())?;
        if exit.code == 0 {
            return Ok(());
        }
        let text = [out, err].concat();
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        Err(if text.is_empty() {
            format!("command exited with code {}", exit.code)
        } else {
            text
        })
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => name.parse().ok().or_else(|| {
                let ports = self.spec.ports.as_ref();
                ports
                    .into_iter()
                    .flatten()
                    .find(|p| p.name.as_deref() == Some(name))
                    .map(|p| p.container_port)
            }),
        };
        match number
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)
        {
            Some(port) => Ok(port),
            None => Err(match port {
                IntOrString::Int(number) => format!("invalid port number: {number}"),
                IntOrString::String(name) => format!("couldn't find port: {name}"),
            }),
        }
    }

    async fn connect(&self, host: Option<&str>, port: u16) -> Result<TcpStream, String> {
        let host = host
            .filter(|h| !h.is_empty())
            .map_or_else(|| self.pod_ip.to_string(), str::to_owned);
        TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|e| format!("dial tcp {host}:{port}: connect: {}", lower(&e)))
    }

    async fn http(&self, action: &HTTPGetAction) -> Result<(), String> {
        let port = self.port(&action.port)?;
        let host = action.host.clone().filter(|h| !h.is_empty());
        let tls = action.scheme.as_deref() == Some("HTTPS");
        let authority = format!(
            "{}:{port}",
            host.clone().unwrap_or_else(|| self.pod_ip.to_string())
        );
        let path = action
            .path
            .as_deref()
            .filter(|p| !p.is_empty())
            .unwrap_or("/");
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let scheme = if tls { "https" } else { "http" };
        let named = |e: String| format!("Get \"{scheme}://{authority}{path}\": {e}");
        let mut request = Request::get(&path)
            .header(
                header::USER_AGENT,
                concat!("kube-probe/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| named(e.to_string()))?;
        let headers = request.headers_mut();
        for extra in action.http_headers.iter().flatten() {
            let name = HeaderName::try_from(&extra.name).map_err(|e| named(e.to_string()))?;
            let value = HeaderValue::try_from(&extra.value).map_err(|e| named(e.to_string()))?;
            headers.insert(name, value);
        }
        if !headers.contains_key(header::HOST) {
            let value = HeaderValue::try_from(&authority).map_err(|e| named(e.to_string()))?;
            headers.insert(header::HOST, value);
        }
        let stream = self.connect(host.as_deref(), port).await.map_err(named)?;
        let (status, body) = if tls {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting_client()));
            let name = rustls::pki_types::ServerName::from(std::net::IpAddr::V4(self.pod_ip));
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|e| named(lower(&e)))?;
            fetch(stream, request).await
        } else {
            fetch(stream, request).await
        }
        .map_err(named)?;
        if status.as_u16() < 400 && status.as_u16() >= 200 {
            return Ok(());
        }
        let _ = body;
        Err(format!(
            "HTTP probe failed with statuscode: {}",
            status.as_u16()
        ))
    }

    async fn grpc(&self, action: &GRPCAction) -> Result<(), String> {
        let port = u16::try_from(action.port).map_err(|_| "invalid port".to_owned())?;
        let refused = |e: String| {
            format!(
                "timeout: failed to connect service \"{}:{port}\" within 1s: {e}",
                self.pod_ip
            )
        };
        let stream = self.connect(None, port).await.map_err(refused)?;
        let failed = |e: &dyn std::error::Error| {
            format!("error: health rpc failed: {}", stdx::error::chain(e))
        };
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|e| failed(&e))?;
        let service = action.service.as_deref().unwrap_or_default();
        let mut message = BytesMut::new();
        if !service.is_empty() {
            // Field 1 of HealthCheckRequest, a string.
            message.put_u8(0x0a);
            put_varint(&mut message, service.len() as u64);
            message.put_slice(service.as_bytes());
        }
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(message.len() as u32);
        body.put(message);
        let request = Request::post(format!(
            "http://{}:{port}/grpc.health.v1.Health/Check",
            self.pod_ip
        ))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(body.freeze()))
        .map_err(|e| failed(&e))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let early = grpc_status(response.headers());
            let collected = Limited::new(response.into_body(), OUTPUT_LIMIT)
                .collect()
                .await
                .map_err(|e| failed(e.as_ref()))?;
            let status = collected.trailers().and_then(grpc_status).or(early);
            let bytes = collected.to_bytes();
            match status {
                Some(0) | None => health_status(&bytes).ok_or_else(|| "error: health rpc failed: malformed answer".to_owned()),
                Some(12) => Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()),
                Some(code) => Err(format!("error: health rpc failed with status code {code}")),
            }
        };
        let status = tokio::select! {
            answer = answer => answer?,
            ended = connection => {
                return Err(match ended {
                    Ok(()) => "error: health rpc failed: connection closed".to_owned(),
                    Err(e) => failed(&e),
                });
            }
        };
        match status {
            1 => Ok(()),
            0 => Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
            2 => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
            _ => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".to_owned()),
        }
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Field 1 of a HealthCheckResponse behind the five bytes of gRPC framing.
fn health_status(bytes: &[u8]) -> Option<u64> {
    let message = bytes.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, value, ..] => Some(u64::from(*value)),
        _ => None,
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

async fn fetch<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| stdx::error::chain(&e))?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| stdx::error::chain(&e))?;
        let status = response.status();
        // A body that is too long or breaks off does not change the verdict.
        let body = Limited::new(response.into_body(), OUTPUT_LIMIT)
            .collect()
            .await;
        Ok((
            status,
            body.map(http_body_util::Collected::to_bytes)
                .unwrap_or_default(),
        ))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            // The server has closed: what it sent may still be read.
            Ok(()) => answer.await,
            Err(e) => Err(stdx::error::chain(&e)),
        },
    }
}

async fn read_some(stream: Option<Box<dyn AsyncRead + Send + Unpin>>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut buffer = [0; 4096];
    // The rest is read and dropped, so that the command is not stopped by a full pipe.
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(&buffer[..room]);
    }
    kept
}

fn lower(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// A TLS client that accepts any certificate, as probes do: it asks whether a server answers, not
/// who it is.
fn trusting_client() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("invariant: ring supports the default protocol versions");
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        .with_no_client_auth()
}

#[derive(Debug)]
struct AcceptAny(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
