//! The proxy over loopback, between real sockets and an API server in memory.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use proxy::Options;
use serde_json::{Value, json};
use stdx::{Supervisor, SystemClock, SystemRng};
use support::Api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// How long a test waits for what must come; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    api: Api,
    supervisor: Supervisor,
}

impl World {
    fn start() -> Self {
        let (api, supervisor) = (Api::new(), Supervisor::new());
        let options = Options {
            client: api.client(),
            clock: SystemClock::shared(),
            rng: SystemRng::shared(),
            node_name: "node".to_owned(),
            // No server's: what this one had put on interfaces is taken off.
            node_ip: Ipv4Addr::new(127, 97, 255, 1).into(),
            node_port_addresses: vec![Ipv4Addr::LOCALHOST.into()],
        };
        proxy::start(options, &supervisor);
        Self { api, supervisor }
    }

    fn service(&self, name: &str, address: SocketAddr, protocol: &str) {
        self.api.put(
            "services",
            json!({"metadata": {"name": name, "uid": name}, "spec": {
                "clusterIP": address.ip().to_string(),
                "ports": [{"port": address.port(), "protocol": protocol}]}}),
        );
    }

    fn endpoints(&self, service: &str, protocol: &str, endpoints: &[SocketAddr]) {
        let port = endpoints.first().map_or(1, SocketAddr::port);
        let list: Vec<Value> = endpoints
            .iter()
            .map(|e| json!({"addresses": [e.ip().to_string()]}))
            .collect();
        self.api.put(
            "endpointslices",
            json!({
                "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4",
                "ports": [{"name": "", "port": port, "protocol": protocol}],
                "endpoints": list,
            }),
        );
    }
}

/// A server that says its name, then repeats what it hears until the client has said all.
async fn echo(supervisor: &Supervisor, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    supervisor.spawn("echo", stdx::OnError::Log, repeat(listener, name));
    address
}

async fn repeat(listener: TcpListener, name: &'static str) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(name.as_bytes()).await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        stream.write_all(&heard).await?;
    }
}

async fn repeat_datagrams(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 100];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..length], from).await?;
    }
}

/// An address of the Service range whose port is free.
fn free_address(last: u8) -> SocketAddr {
    let ip = Ipv4Addr::new(127, 96, 15, last);
    std::net::TcpListener::bind((ip, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn ask(address: SocketAddr, text: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Asks until `accept` likes the outcome.
async fn ask_until(address: SocketAddr, accept: impl Fn(&io::Result<String>) -> bool) {
    let tries = async {
        loop {
            let outcome = ask(address, "hello").await;
            if accept(&outcome) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, tries)
        .await
        .expect("the wanted answer");
}

fn is(wanted: &'static str) -> impl Fn(&io::Result<String>) -> bool {
    move |outcome| outcome.as_ref().is_ok_and(|text| text == wanted)
}

fn is_refused(outcome: &io::Result<String>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn connections_reach_the_endpoints_as_they_come_and_go() {
    let world = World::start();
    let (one, two) = (
        echo(&world.supervisor, "one ").await,
        echo(&world.supervisor, "two ").await,
    );
    let address = free_address(1);
    world.service("s", address, "TCP");
    world.endpoints("s", "TCP", &[one]);
    ask_until(address, is("one hello")).await;
    world.endpoints("s", "TCP", &[two]);
    ask_until(address, is("two hello")).await;
    world.endpoints("s", "TCP", &[]);
    ask_until(address, is_refused).await;
    let kept = std::net::TcpListener::bind(address);
    assert_eq!(
        kept.unwrap_err().kind(),
        io::ErrorKind::AddrInUse,
        "the address stays ours"
    );
    world.endpoints("s", "TCP", &[one]);
    ask_until(address, is("one hello")).await;
    world.api.delete("services", "s");
    ask_until(address, is_refused).await;
    // Its old connections are still closing, which does not matter.
    world.service("s", address, "TCP");
    ask_until(address, is("one hello")).await;
    world.supervisor.shutdown().await;
}

#[tokio::test]
async fn an_established_connection_outlives_its_endpoint_and_other_services_changes() {
    let world = World::start();
    let server = echo(&world.supervisor, "one ").await;
    let (address, other) = (free_address(2), free_address(3));
    world.service("s", address, "TCP");
    world.endpoints("s", "TCP", &[server]);
    ask_until(address, is("one hello")).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut name = [0; 4];
    stream.read_exact(&mut name).await.unwrap();
    world.service("other", other, "TCP");
    world.endpoints("other", "TCP", &[server]);
    world.endpoints("s", "TCP", &[]);
    ask_until(address, is_refused).await;
    world.api.delete("services", "other");
    ask_until(other, is_refused).await;
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "still here");
    world.supervisor.shutdown().await;
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_passed_over() {
    let world = World::start();
    let up = echo(&world.supervisor, "up ").await;
    // Nobody listens at this address with the same port.
    let down = SocketAddr::from((Ipv4Addr::new(127, 96, 15, 99), up.port()));
    let address = free_address(4);
    world.service("s", address, "TCP");
    world.endpoints("s", "TCP", &[down, up]);
    ask_until(address, is("up hello")).await;
    for _ in 0..20 {
        assert_eq!(ask(address, "x").await.unwrap(), "up x");
    }
    world.endpoints("s", "TCP", &[down]);
    ask_until(address, Result::is_err).await;
    world.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_tried_again() {
    let world = World::start();
    let server = echo(&world.supervisor, "one ").await;
    let squatter = std::net::TcpListener::bind((Ipv4Addr::new(127, 96, 15, 5), 0)).unwrap();
    let address = squatter.local_addr().unwrap();
    world.service("s", address, "TCP");
    world.endpoints("s", "TCP", &[server]);
    let mut events = world.api.events.subscribe();
    let told = events.wait_for(|events| !events.is_empty());
    let event = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap()[0].clone();
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reason"], "FailedToListen");
    assert_eq!(event["involvedObject"]["kind"], "Service");
    assert_eq!(event["involvedObject"]["name"], "s");
    assert_eq!(
        event["message"],
        format!("cannot listen on {address}: address already in use")
    );
    drop(squatter);
    ask_until(address, is("one hello")).await;
    world.supervisor.shutdown().await;
}

#[tokio::test]
async fn datagrams_go_there_and_back() {
    let world = World::start();
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = server.local_addr().unwrap();
    let echo = repeat_datagrams(server);
    world.supervisor.spawn("echo", stdx::OnError::Log, echo);
    let address = free_address(6);
    world.service("s", address, "UDP");
    world.endpoints("s", "UDP", &[endpoint]);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    let exchange = async {
        let mut buffer = [0; 100];
        loop {
            // Refused until the proxy has its socket.
            if client.send(b"ping").await.is_err() {
                continue;
            }
            if let Ok(length) = client.recv(&mut buffer).await {
                return buffer[..length].to_vec();
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(PATIENCE, exchange).await.unwrap(),
        b"ping"
    );
    world.supervisor.shutdown().await;
}
