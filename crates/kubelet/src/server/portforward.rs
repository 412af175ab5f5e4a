//! `/portForward`: connections to a Pod's ports over the channels of one WebSocket. Port number `i`
//! of the request has channel `2i` for data and `2i + 1` for errors; the first message on each
//! names the port.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{OriginalUri, Path, State};
use axum::response::Response;
use bytes::{BufMut as _, BytesMut};
use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Parameters, Refusal};
use crate::pod::Context;

const PROTOCOLS: [&str; 3] = [
    "v4.channel.k8s.io",
    "v5.channel.k8s.io",
    "portforward.k8s.io",
];

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

pub(super) async fn port_forward(
    State(context): State<Arc<Context>>,
    Path((namespace, pod)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(&context, &namespace, &pod, &uri, upgrade)
}

pub(super) async fn port_forward_by_uid(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, _uid)): Path<(String, String, String)>,
    OriginalUri(uri): OriginalUri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(&context, &namespace, &pod, &uri, upgrade)
}

fn open(
    context: &Context,
    namespace: &str,
    pod: &str,
    uri: &http::Uri,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let ports = ports(&Parameters::of(uri))?;
    let view = context
        .registry
        .get(namespace, pod)
        .ok_or_else(|| Refusal::not_found(format!("pod {namespace}/{pod} is not on this node")))?;
    let ip = view.borrow().ip.ok_or_else(|| {
        Refusal::bad_request(format!(
            "unable to forward port because pod {pod} is not running"
        ))
    })?;
    let upgrade = upgrade
        .map_err(|e| Refusal::bad_request(format!("{e} (ports are forwarded over WebSocket)")))?
        .protocols(PROTOCOLS);
    Ok(upgrade.on_upgrade(move |socket| run(socket, ip, ports)))
}

/// The ports of a request: `port=80&port=81` or `ports=80,81`.
fn ports(parameters: &Parameters) -> Result<Vec<u16>, Refusal> {
    let mut given = parameters.all("port");
    given.extend(parameters.all("ports"));
    let ports = given
        .iter()
        .flat_map(|list| list.split(','))
        .map(|text| {
            text.trim()
                .parse::<u16>()
                .ok()
                .filter(|p| *p > 0)
                .ok_or_else(|| {
                    Refusal::bad_request(format!("invalid port {text:?}: must be 1 to 65535"))
                })
        })
        .collect::<Result<Vec<u16>, _>>()?;
    if ports.is_empty() || ports.len() > 120 {
        return Err(Refusal::bad_request(
            "query parameter \"port\" is required, 1 to 120 times",
        ));
    }
    Ok(ports)
}

async fn run(socket: WebSocket, ip: Ipv4Addr, ports: Vec<u16>) {
    let (mut sink, mut incoming) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Message>(16);
    let mut inputs = Vec::new();
    let mut connections = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let (input, receiver) = mpsc::channel(16);
        inputs.push(input);
        connections.push(forward(index as u8 * 2, ip, port, receiver, out.clone()));
    }
    drop(out);
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        drop(sink.send(super::good_bye()).await);
    };
    let reading = async {
        while let Some(Ok(message)) = incoming.next().await {
            let Message::Binary(bytes) = message else {
                if matches!(message, Message::Close(_)) {
                    return;
                }
                continue;
            };
            let Some(&channel) = bytes.first() else {
                continue;
            };
            if channel % 2 == 0
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                // A port whose connection has ended takes nothing more.
                drop(input.send(bytes.slice(1..)).await);
            }
        }
    };
    let forwarding = async {
        tokio::join!(join_all(connections), writing);
    };
    tokio::select! {
        () = reading => {}
        () = forwarding => {}
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(bytes);
    Message::Binary(frame.freeze())
}

async fn forward(
    channel: u8,
    ip: Ipv4Addr,
    port: u16,
    mut input: mpsc::Receiver<bytes::Bytes>,
    out: mpsc::Sender<Message>,
) {
    for channel in [channel, channel + 1] {
        if out
            .send(message(channel, &port.to_le_bytes()))
            .await
            .is_err()
        {
            return;
        }
    }
    let stream = match TcpStream::connect((ip, port)).await {
        Ok(stream) => stream,
        Err(error) => {
            let text = format!("error forwarding port {port} to pod {ip}: {error}");
            drop(out.send(message(channel + 1, text.as_bytes())).await);
            return;
        }
    };
    let (mut from, mut to) = stream.into_split();
    let upstream = async {
        while let Some(bytes) = input.recv().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let downstream = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if out.send(message(channel, &buffer[..n])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = upstream => {}
        () = downstream => {}
    }
}
