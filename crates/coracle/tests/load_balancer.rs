//! A LoadBalancer Service on an address of a real network: two network namespaces, joined by a pair
//! of virtual interfaces, one with a server in it, the other with a client.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

use std::process::Command;

use serde_json::json;
use support::{Server, kubectl, kubectl_path, repository, root_or_skip, said, skip, until};

/// The interface in each of the two namespaces.
const INTERFACE: &str = "veth0";
const ADDRESS: &str = "10.213.7.100";
/// Nobody's hardware address.
const STALE: &str = "02:00:00:00:00:99";

/// Two networks of their own, joined; gone with this value.
struct Networks {
    server: String,
    client: String,
}

impl Networks {
    fn make() -> Self {
        let name = |role: &str| format!("coracle-{role}-{}", std::process::id());
        let networks = Self {
            server: name("server"),
            client: name("client"),
        };
        let ends = [
            (&networks.server, "10.213.7.1/24"),
            (&networks.client, "10.213.7.2/24"),
        ];
        for (namespace, _) in ends {
            ip(&["netns", "add", namespace]);
        }
        let [(server, _), (client, _)] = ends;
        let pair = format!(
            "link add {INTERFACE} netns {server} type veth peer name {INTERFACE} netns {client}"
        );
        ip(&pair.split(' ').collect::<Vec<_>>());
        for (namespace, address) in ends {
            ip(&["-n", namespace, "addr", "add", address, "dev", INTERFACE]);
            ip(&["-n", namespace, "link", "set", INTERFACE, "up"]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        networks
    }

    /// The addresses of the server's side, as `ip` lists them.
    fn addresses(&self) -> String {
        ip(&["-n", &self.server, "-o", "-4", "addr", "show"])
    }

    /// The hardware address of the server's interface.
    fn mac(&self) -> String {
        let link = ip(&["-n", &self.server, "-o", "link", "show", INTERFACE]);
        let (_, rest) = link.split_once("link/ether ").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// The hardware address that the client knows for the Service's.
    fn neighbour(&self) -> Option<String> {
        let known = ip(&["-n", &self.client, "neigh", "show", ADDRESS]);
        let (_, rest) = known.split_once("lladdr ")?;
        rest.split_whitespace().next().map(str::to_owned)
    }

    /// What the page answers to the client.
    fn ask(&self) -> Option<String> {
        let url = format!("http://{ADDRESS}/healthz");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--max-time", "5", &url]);
        let output = inside(&self.client, &curl).output().unwrap();
        let body = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(body)
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .output();
        }
    }
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same command inside a network namespace.
fn inside(namespace: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("ip");
    wrapped.args(["netns", "exec", namespace]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Runs `coracle up -d` inside the namespace.
fn up(server: &Server, networks: &Networks) {
    let done = inside(&networks.server, &server.up_command(true)).output();
    let done = done.unwrap();
    assert!(
        done.status.success(),
        "coracle up: {}\n{}",
        said(&done),
        server.log_tail()
    );
}

fn has_tool(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok()
        || Command::new(name).arg("-V").output().is_ok();
    if !found {
        skip(&format!("needs {name}"));
    }
    found
}

/// The address pool, a page, and its Service, as documents of one file.
fn service() -> String {
    let labels = json!({"app": "page"});
    let pool =
        format!("address-pools: [{{name: net, protocol: layer2, addresses: [{ADDRESS}/32]}}]");
    let objects = [
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "config", "namespace": "metallb-system"},
            "data": {"config": pool}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "page", "namespace": "default"},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "page",
                    "image": "gcr.io/kubeflow-examples/mnist/web-ui"}]}}}}),
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "page", "namespace": "default"},
            "spec": {"type": "LoadBalancer", "selector": labels,
                "ports": [{"port": 80, "targetPort": 5000}]}}),
    ];
    objects.map(|object| object.to_string()).join("\n")
}

#[tokio::test]
async fn another_machine_reaches_a_service_at_its_load_balancer_address() {
    if !root_or_skip() || !has_tool("ip") || !has_tool("curl") {
        return;
    }
    let Some(program) = kubectl_path() else {
        return;
    };
    let networks = Networks::make();
    let server = Server::prepare(&[]);
    up(&server, &networks);
    let kubectl_ok = |args: &[&str]| {
        let output = inside(&networks.server, &kubectl(&program, &server, args)).output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "kubectl {args:?}: {}",
            said(&output)
        );
    };

    // As if somebody else had had the address before.
    let stale = [
        "neigh", "replace", ADDRESS, "lladdr", STALE, "dev", INTERFACE, "nud", "stale",
    ];
    ip(&[&["-n", networks.client.as_str()][..], &stale[..]].concat());
    let manifest = repository("examples/mnist/manifests/metallb.yaml");
    kubectl_ok(&["apply", "-f", manifest.to_str().unwrap()]);
    let file = server.scratch().join("page.json");
    std::fs::write(&file, service()).unwrap();
    kubectl_ok(&["apply", "-f", file.to_str().unwrap()]);
    let ingress = format!("--for=jsonpath={{.status.loadBalancer.ingress[0].ip}}={ADDRESS}");
    kubectl_ok(&["wait", "service/page", &ingress, "--timeout=150s"]);
    let mac = networks.mac();
    until(
        "the announcement reaches the neighbour unasked",
        async || (networks.neighbour()? == mac).then_some(()),
    )
    .await;
    let page = until("the page answers the other machine", async || {
        networks.ask()
    })
    .await;
    assert_eq!(page, "ok");
    assert_eq!(networks.neighbour(), Some(mac));

    // The address is ours for as long as a Service has it, and nothing else of the machine's is.
    let ours = format!("{ADDRESS}/32");
    assert!(
        networks.addresses().contains(&ours),
        "{}",
        networks.addresses()
    );
    kubectl_ok(&["delete", "service", "page"]);
    let without = async || (!networks.addresses().contains(&ours)).then_some(());
    until("the address of a deleted Service goes", without).await;
    assert!(networks.addresses().contains("10.213.7.1/24"));
    kubectl_ok(&["apply", "-f", file.to_str().unwrap()]);
    until("the page answers again", async || networks.ask()).await;

    // A killed server leaves it, the next one takes it over, and gives it up at the end.
    server.kill();
    assert!(
        networks.addresses().contains(&ours),
        "{}",
        networks.addresses()
    );
    up(&server, &networks);
    until("the page answers after a crash", async || networks.ask()).await;
    server.stop();
    assert!(
        !networks.addresses().contains(&ours),
        "{}",
        networks.addresses()
    );
    assert!(networks.addresses().contains("10.213.7.1/24"));
}
