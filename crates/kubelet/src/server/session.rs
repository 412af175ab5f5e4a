//! `/exec` and `/attach`: a command's streams over the channels of one WebSocket
//! (`v4.channel.k8s.io` and `v5.channel.k8s.io`).

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{OriginalUri, Path, State};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::{Parameters, Refusal, known};
use crate::pod::Context;
use crate::runtime::{ContainerRef, Error, ExecSpec, Exit, Streams, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Says that another channel will carry nothing more (v5).
const CLOSE: u8 = 255;
const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exec,
    Attach,
}

pub(super) async fn exec(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    OriginalUri(uri): OriginalUri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(
        context,
        Kind::Exec,
        &namespace,
        &pod,
        &container,
        &uri,
        upgrade,
    )
}

pub(super) async fn exec_by_uid(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, _uid, container)): Path<(String, String, String, String)>,
    OriginalUri(uri): OriginalUri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(
        context,
        Kind::Exec,
        &namespace,
        &pod,
        &container,
        &uri,
        upgrade,
    )
}

pub(super) async fn attach(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    OriginalUri(uri): OriginalUri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(
        context,
        Kind::Attach,
        &namespace,
        &pod,
        &container,
        &uri,
        upgrade,
    )
}

pub(super) async fn attach_by_uid(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, _uid, container)): Path<(String, String, String, String)>,
    OriginalUri(uri): OriginalUri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(
        context,
        Kind::Attach,
        &namespace,
        &pod,
        &container,
        &uri,
        upgrade,
    )
}

fn open(
    context: Arc<Context>,
    kind: Kind,
    namespace: &str,
    pod: &str,
    container: &str,
    uri: &http::Uri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let parameters = Parameters::of(uri);
    let (id, tty) = find(&context, namespace, pod, container)?;
    let spec = spec(kind, &parameters, tty)?;
    let upgrade = upgrade.map_err(|e| {
        Refusal::bad_request(format!(
            "{e} (streams are served over WebSocket, as {V5} or {V4})"
        ))
    })?;
    let upgrade = upgrade.protocols([V5, V4]);
    let Some(protocol) = upgrade.selected_protocol().cloned() else {
        return Err(Refusal::bad_request(format!(
            "no WebSocket protocol that is known here was offered (allowed: {V5}, {V4})"
        )));
    };
    let closes = protocol.as_bytes() == V5.as_bytes();
    Ok(upgrade.on_upgrade(move |socket| async move {
        let opened = match kind {
            Kind::Exec => context.runtime.exec(&id, spec.clone()).await,
            Kind::Attach => context.runtime.attach(&id, spec.clone()).await,
        };
        run(socket, opened, &spec, closes).await;
    }))
}

/// The running container of that name, and whether it has a terminal.
fn find(
    context: &Context,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<(ContainerRef, bool), Refusal> {
    let view = context
        .registry
        .get(namespace, pod)
        .ok_or_else(|| Refusal::not_found(format!("pod {namespace}/{pod} is not on this node")))?;
    let view = view.borrow();
    let found = view.containers.get(container).ok_or_else(|| {
        Refusal::not_found(format!(
            "container {container} not found in pod {pod} (known: {})",
            known(&view.containers)
        ))
    })?;
    let live = found.live.clone().ok_or_else(|| {
        Refusal(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            format!("container {container} in pod {pod} is not running"),
        )
    })?;
    Ok((live, found.tty))
}

fn spec(kind: Kind, parameters: &Parameters, container_tty: bool) -> Result<ExecSpec, Refusal> {
    let argv = parameters.all("command");
    if kind == Kind::Exec && argv.is_empty() {
        return Err(Refusal::bad_request(
            "you must specify at least one command: command=…",
        ));
    }
    // The API server's names, and the older ones of the kubelet.
    let tty = match kind {
        Kind::Exec => parameters.flag(&["tty"]),
        Kind::Attach => container_tty,
    };
    let spec = ExecSpec {
        argv,
        stdin: parameters.flag(&["stdin", "input"]),
        stdout: parameters.flag(&["stdout", "output"]),
        stderr: parameters.flag(&["stderr", "error"]) && !tty,
        tty,
    };
    if !spec.stdin && !spec.stdout && !spec.stderr {
        return Err(Refusal::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    Ok(spec)
}

/// Carries the streams until the command has ended or the client is gone.
async fn run(socket: WebSocket, opened: Result<Streams, Error>, spec: &ExecSpec, closes: bool) {
    let (mut sink, mut incoming) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Message>(16);
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        // A polite end; a client that is gone needs none.
        drop(sink.send(super::good_bye()).await);
    };
    let working = async {
        let first = if spec.stdout {
            STDOUT
        } else if spec.stderr {
            STDERR
        } else {
            STATUS
        };
        // An empty message tells the client that the streams are open.
        drop(out.send(message(first, &[])).await);
        let status = match opened {
            Ok(streams) => {
                let Streams {
                    stdin,
                    stdout,
                    stderr,
                    resize,
                    exit,
                } = streams;
                let output = async {
                    tokio::join!(pump(STDOUT, stdout, &out), pump(STDERR, stderr, &out));
                    exit.await
                };
                tokio::select! {
                    ended = output => status(&ended),
                    () = receive(&mut incoming, stdin, resize, closes) => return,
                }
            }
            Err(error) => status(&Err(error)),
        };
        drop(
            out.send(message(STATUS, status.to_string().as_bytes()))
                .await,
        );
        drop(out);
    };
    tokio::join!(writing, working);
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(bytes);
    Message::Binary(frame.freeze())
}

/// Sends what a stream says, until its end.
async fn pump(
    channel: u8,
    stream: Option<Box<dyn AsyncRead + Send + Unpin>>,
    out: &mpsc::Sender<Message>,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 32 * 1024];
    // A terminal answers with an error at its end.
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if out.send(message(channel, &buffer[..n])).await.is_err() {
            return;
        }
    }
}

/// Takes input and terminal sizes until the client is gone.
async fn receive(
    incoming: &mut (impl futures::Stream<Item = Result<Message, axum::Error>> + Unpin),
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Box<dyn Fn(TerminalSize) + Send + Sync>,
    closes: bool,
) {
    while let Some(Ok(message)) = incoming.next().await {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        match bytes.split_first() {
            Some((&STDIN, data)) => {
                if let Some(open) = &mut stdin {
                    let written = async {
                        open.write_all(data).await?;
                        open.flush().await
                    };
                    // The command does not read any more; it goes on all the same.
                    if written.await.is_err() {
                        stdin = None;
                    }
                }
            }
            Some((&RESIZE, size)) => {
                if let Ok(size) = serde_json::from_slice(size) {
                    resize(size);
                }
            }
            Some((&CLOSE, [STDIN])) if closes => stdin = None,
            _ => {}
        }
    }
}

/// The last message of a session: how the command ended.
fn status(ended: &Result<Exit, Error>) -> Value {
    match ended {
        Ok(exit) if exit.code == 0 => json!({"metadata": {}, "status": "Success"}),
        Ok(exit) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {}", exit.code),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": exit.code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("error executing command in container: {error}"),
            "reason": "InternalError",
            "details": {"causes": [{"message": error.to_string()}]},
            "code": 500,
        }),
    }
}
