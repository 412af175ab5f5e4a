//! Wires the parts together, in the order in which they need each other, and takes them apart again.
//!
//! Storage and the spawner come first, then the API server, then everything that is a client of it.
//! Every client has an identity of its own and passes RBAC like anyone else.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use apiserver::UserInfo;
use apiserver::auth::client_verifier;
use artifacts::{Providers, Stores};
use db::Db;
use kubelet::runtime::catalogue::{Catalogue, Entry};
use kubelet::runtime::process::ProcessRuntime;
use kubelet::runtime::python::Python;
use pipelines::api::Api;
use pipelines::recurring::{self, Recurring};
use pipelines::runner::Runner;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use spawner::Spawner;
use stdx::{OnError, SharedClock, SharedRng, Supervisor};

use super::bootstrap::{self, ML_PIPELINE_PORT, NAMESPACE};
use super::guard::Guard;
use super::image_policy::ImagePolicies;
use super::{fetch, http, landing};
use crate::cli::VERSION;
use crate::failure::{Failure, Result, attempting};
use crate::instance::pki::{Pair, Pki, ServerNames};
use crate::instance::ports::{self, Bound, Ports};
use crate::instance::{DataDir, ServerState, Slice, kubeconfig, state};
use crate::settings::Settings;

/// What a start is asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) data: DataDir,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) kube_listen: Option<SocketAddr>,
    pub(crate) leave_pods: bool,
    pub(crate) no_mounts: bool,
    pub(crate) ephemeral: bool,
    pub(crate) settings: Settings,
    pub(crate) cron_time_zone: jiff::tz::TimeZone,
    pub(crate) run_ttl: Option<std::time::Duration>,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
}

/// A server that is ready.
pub(crate) struct Running {
    state: ServerState,
    notes: Vec<String>,
    data: DataDir,
    leave_pods: bool,
    kubelet: kubelet::Kubelet,
    apiserver: apiserver::Server,
    databases: [Db; 2],
    storage: Supervisor,
    spawner: Spawner,
}

impl Running {
    /// Where it is.
    pub(crate) fn state(&self) -> &ServerState {
        &self.state
    }

    /// What a person should know about this start.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ends Pods (or leaves them), then everything else, storage last.
    pub(crate) async fn stop(self, supervisor: &Supervisor) {
        self.kubelet.drain().await;
        tracing::info!("the node has ended its Pods");
        self.apiserver.shutdown().await;
        tracing::info!("the Kubernetes API has stopped");
        supervisor.shutdown().await;
        tracing::info!("all tasks have ended");
        for database in &self.databases {
            database.close().await;
        }
        self.storage.shutdown().await;
        if !self.leave_pods {
            if let Err(error) = self.spawner.shutdown().await {
                tracing::warn!("end the spawner: {}", stdx::error::chain(&error));
            }
        }
        if let Err(error) = std::fs::remove_file(self.data.state()) {
            tracing::warn!("remove {}: {error}", self.data.state().display());
        }
    }
}

/// Starts everything; answers when clients can use it.
pub(crate) async fn start(options: Options, supervisor: &Supervisor) -> Result<Running> {
    let data = options.data.clone();
    let slice = Slice::lease(&data)?;
    let remembered = Ports::load(&data);
    let kube = ports::bind(
        "--kube-listen",
        options.kube_listen,
        remembered.kube,
        ports::KUBE_PORT,
    )?;
    let web = ports::bind(
        "--listen",
        options.listen,
        remembered.http,
        ports::HTTP_PORT,
    )?;
    let keep = |bound: &Bound, given: bool, before: Option<u16>| {
        if given {
            before
        } else {
            Some(bound.address.port())
        }
    };
    let chosen = Ports {
        kube: keep(&kube, options.kube_listen.is_some(), remembered.kube),
        http: keep(&web, options.listen.is_some(), remembered.http),
    };
    if chosen != remembered {
        chosen.save(&data)?;
    }
    let mut notes: Vec<String> = [("Kubernetes API", &kube), ("dashboard", &web)]
        .into_iter()
        .filter_map(|(what, bound)| {
            let (port, holder) = bound.moved_from.as_ref()?;
            Some(format!(
                "port {port} is taken by {holder}; the {what} uses {} and keeps it",
                bound.address.port()
            ))
        })
        .collect();

    let storage = Supervisor::new();
    let (spawner, kube_db, pipelines_db) = tokio::join!(
        start_spawner(&options, &slice, supervisor),
        Db::open(
            db::Options::file(data.kube_db()),
            apiserver::MIGRATIONS,
            &storage
        ),
        Db::open(
            db::Options::file(data.pipelines_db()),
            pipelines::api::MIGRATIONS,
            &storage
        ),
    );
    let spawner = spawner?;
    let kube_db = kube_db.map_err(attempting("open the object store"))?;
    let pipelines_db = pipelines_db.map_err(attempting("open the pipelines store"))?;
    if !spawner.mounts() {
        notes.push(
            "this machine refuses mount namespaces: built-in images work, host images see no \
             volumes (`coracle doctor` says more)"
                .to_owned(),
        );
    }

    let kube_address = reachable(kube.address);
    let names = server_names(&kube, &slice);
    let node_ip = slice.node();
    let pki = Pki::open(
        &data,
        &names,
        node_ip.into(),
        &*options.clock,
        &*options.rng,
    )?;
    let apiserver = open_apiserver(&options, &slice, &pki, kube_db.clone(), kube_address).await?;
    serve_kubernetes(&apiserver, kube.listener, &pki, supervisor)?;
    let config = kubeconfig::render(&format!("https://{kube_address}"), &pki);
    kubeconfig::write(&data.kubeconfig(), &config)?;

    let node_name = node_name();
    let clients = Clients {
        apiserver: apiserver.clone(),
    };
    start_controllers(&options, &clients, &pki, supervisor)?;
    proxy::start(
        proxy::Options {
            client: clients.user("system:kube-proxy", &["system:authenticated"], "kube-proxy"),
            clock: options.clock.clone(),
            rng: options.rng.clone(),
            node_name: node_name.clone(),
            node_ip: node_ip.into(),
            node_port_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        },
        supervisor,
    );
    let kubelet = start_kubelet(
        &options,
        &clients,
        &pki,
        &slice,
        &spawner,
        &node_name,
        kube_address,
        supervisor,
    )
    .await?;
    let pipelines = start_pipelines(&options, &clients, pipelines_db.clone(), supervisor).await?;
    let state = ServerState {
        pid: std::process::id(),
        start_time: state::start_time(std::process::id()).unwrap_or_default(),
        version: VERSION.to_owned(),
        kube: kube_address,
        http: reachable(web.address),
        node_name,
        ephemeral: options.ephemeral,
    };
    serve_http(web, &state, &data, &clients, pipelines, node_ip, supervisor).await?;
    state.save(&data)?;
    Ok(Running {
        state,
        notes,
        data,
        leave_pods: options.leave_pods,
        kubelet,
        apiserver,
        databases: [kube_db, pipelines_db],
        storage,
        spawner,
    })
}

/// The in-process clients, each with its own identity.
#[derive(Clone)]
struct Clients {
    apiserver: apiserver::Server,
}

impl Clients {
    fn user(&self, name: &str, groups: &[&str], agent: &str) -> kube::Client {
        self.apiserver
            .client_for(UserInfo::new(name, groups), agent)
    }

    fn account(&self, namespace: &str, name: &str, agent: &str) -> kube::Client {
        self.apiserver
            .client_for(UserInfo::service_account(namespace, name), agent)
    }

    /// The identity of a controller, as upstream names them.
    fn controller(&self, name: &str) -> kube::Client {
        const AUTHENTICATED: &[&str] = &["system:authenticated"];
        match name {
            "kube-controller-manager" | "kube-scheduler" => {
                self.user(&format!("system:{name}"), AUTHENTICATED, name)
            }
            _ => self.account("kube-system", name, "kube-controller-manager"),
        }
    }

    fn pipelines(&self) -> kube::Client {
        self.account(NAMESPACE, "ml-pipeline", "ml-pipeline")
    }
}

async fn start_spawner(
    options: &Options,
    slice: &Slice,
    supervisor: &Supervisor,
) -> Result<Spawner> {
    let mut spawner = spawner::Options::new(options.data.root());
    if options.no_mounts {
        spawner.mode = spawner::Mode::NoMounts;
    }
    let lease = slice
        .lease_fd()
        .try_clone()
        .map_err(attempting("copy the slice's lease"))?;
    spawner.held = vec![lease];
    Spawner::start_or_attach(spawner, supervisor)
        .await
        .map_err(attempting("start the spawner"))
}

/// How this machine's own clients reach a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    }
}

fn server_names(kube: &Bound, slice: &Slice) -> ServerNames {
    let mut ips: Vec<IpAddr> = vec![
        Ipv4Addr::LOCALHOST.into(),
        std::net::Ipv6Addr::LOCALHOST.into(),
        slice.kubernetes_service().into(),
        slice.node().into(),
    ];
    if !kube.address.ip().is_unspecified() && !ips.contains(&kube.address.ip()) {
        ips.push(kube.address.ip());
    }
    let service = ["", ".default", ".default.svc", ".default.svc.cluster.local"];
    let mut dns: Vec<String> = service
        .iter()
        .map(|end| format!("kubernetes{end}"))
        .collect();
    dns.push("localhost".to_owned());
    ServerNames { ips, dns }
}

async fn open_apiserver(
    options: &Options,
    slice: &Slice,
    pki: &Pki,
    db: Db,
    address: SocketAddr,
) -> Result<apiserver::Server> {
    let key = pki.service_account_key.clone().into_bytes();
    let mut server = apiserver::Options::new(db, options.clock.clone(), options.rng.clone(), key);
    server.service_cidr = slice.services();
    // The one exemption from the rule against loopback endpoints: this instance's own addresses.
    server.exempt_cidrs = vec![slice.pods()];
    server.admission = vec![Arc::new(ImagePolicies)];
    server.kubelet_client = Some(Arc::new(kubelet_client(pki)?));
    server.bootstrap = bootstrap::objects();
    server.kubernetes_service_ip = slice.kubernetes_service();
    server.kubernetes_endpoint = match address.ip() {
        IpAddr::V4(ip) => Some((ip, address.port())),
        IpAddr::V6(_) => None,
    };
    server.static_tokens =
        HashMap::from([(pki.admin_token.clone(), UserInfo::admin("kubernetes-admin"))]);
    server.client_ca = Some(certificates(&pki.ca)?.remove(0).to_vec());
    apiserver::Server::open(server)
        .await
        .map_err(attempting("open the Kubernetes API"))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(attempting("read a certificate"))?;
    if read.is_empty() {
        return Err(Failure::environment(
            "a certificate file of the data directory is empty",
        ));
    }
    Ok(read)
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(attempting("read a key"))
}

pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pki: &Pki) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&pki.ca)? {
        roots
            .add(certificate)
            .map_err(attempting("trust the own authority"))?;
    }
    Ok(Arc::new(roots))
}

/// How the API server reaches the node agent.
fn kubelet_client(pki: &Pki) -> Result<ClientConfig> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(attempting("set up TLS"))?
        .with_root_certificates(roots(pki)?)
        .with_client_auth_cert(
            certificates(&pki.kubelet_client.certificate)?,
            key(&pki.kubelet_client.key)?,
        )
        .map_err(attempting("set up TLS"))
}

fn server_tls(
    pair: &Pair,
    verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
) -> Result<ServerConfig> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(attempting("set up TLS"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&pair.certificate)?, key(&pair.key)?)
        .map_err(attempting("set up TLS"))
}

fn tokio_listener(listener: TcpListener) -> Result<tokio::net::TcpListener> {
    listener
        .set_nonblocking(true)
        .map_err(attempting("set up a listener"))?;
    tokio::net::TcpListener::from_std(listener).map_err(attempting("set up a listener"))
}

fn serve_kubernetes(
    apiserver: &apiserver::Server,
    listener: TcpListener,
    pki: &Pki,
    supervisor: &Supervisor,
) -> Result<()> {
    let mut tls = server_tls(&pki.server, client_verifier())?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (server, listener) = (apiserver.clone(), tokio_listener(listener)?);
    let connections = supervisor.clone();
    supervisor.spawn("kubernetes listener", OnError::Shutdown, async move {
        server.serve_tls(listener, Arc::new(tls), connections).await
    });
    Ok(())
}

fn start_controllers(
    options: &Options,
    clients: &Clients,
    pki: &Pki,
    supervisor: &Supervisor,
) -> Result<()> {
    let controllers = clients.clone();
    let options = controllers::Options {
        client_for: Arc::new(move |name| controllers.controller(name)),
        clock: options.clock.clone(),
        rng: options.rng.clone(),
        volumes_root: Some(options.data.volumes()),
        root_ca_pem: pki.ca.clone(),
        node_pod_cidr: None,
    };
    controllers::start(options, supervisor).map_err(attempting("start the controllers"))
}

async fn start_kubelet(
    options: &Options,
    clients: &Clients,
    pki: &Pki,
    slice: &Slice,
    spawner: &Spawner,
    node_name: &str,
    kube_address: SocketAddr,
    supervisor: &Supervisor,
) -> Result<kubelet::Kubelet> {
    let built_in = images::catalogue().iter().flat_map(|image| {
        image.patterns.iter().map(|pattern| Entry {
            user: image.user,
            ..Entry::built_in(*pattern, image.program)
        })
    });
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots(pki)?, provider())
            .build()
            .map_err(attempting("set up TLS"))?;
    let listener = TcpListener::bind((slice.node(), 0))
        .map_err(|e| Failure::environment(format!("listen on {}: {e}", slice.node())))?;
    // Where port 443 of the service address may be opened the proxy will serve it.
    let service = slice.kubernetes_service();
    let api_address = match TcpListener::bind((service, 443)) {
        Ok(_) => (service.to_string(), 443),
        Err(_) => (kube_address.ip().to_string(), kube_address.port()),
    };
    let user = format!("system:node:{node_name}");
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let python = Python::new(
        options.data.python(),
        pyenv::Places::of(|name| variables.get(name).cloned()),
        pyenv::Ambient::of(variables.clone()),
        options.clock.clone(),
    );
    let runtime =
        ProcessRuntime::new(spawner.clone(), options.clock.clone(), VERSION).with_python(python);
    let kubelet = kubelet::Options {
        client: clients.user(&user, &["system:nodes", "system:authenticated"], "kubelet"),
        clock: options.clock.clone(),
        rng: options.rng.clone(),
        node_name: node_name.to_owned(),
        node_labels: Vec::new(),
        data_dir: options.data.kubelet(),
        node_ip: slice.node(),
        pod_cidr: slice.pods(),
        runtime: Arc::new(runtime),
        images: Arc::new(Catalogue::with_host_images(
            options.settings.images.iter().cloned().chain(built_in),
        )),
        listener,
        tls: Arc::new(server_tls(&pki.kubelet, verifier)?),
        api_address,
        cluster_domain: "cluster.local".to_owned(),
        leave_pods_running: options.leave_pods,
        max_pods: 1000,
        capacity: None,
        version: format!("v1.34.2+coracle-{VERSION}"),
    };
    kubelet::Kubelet::start(kubelet, supervisor)
        .await
        .map_err(attempting("start the node"))
}

async fn start_pipelines(
    options: &Options,
    clients: &Clients,
    db: Db,
    supervisor: &Supervisor,
) -> Result<axum::Router> {
    let client = clients.pipelines();
    let runner = Runner::start(
        pipelines::runner::Options {
            stores: Stores::new(Some(options.data.artifacts()), Providers::default()),
            ..pipelines::runner::Options::default()
        },
        db.clone(),
        client.clone(),
        options.clock.clone(),
        options.rng.clone(),
        supervisor,
    )
    .await
    .map_err(attempting("start pipelines"))?;
    let api = Api {
        db,
        runner,
        client,
        clock: options.clock.clone(),
        rng: options.rng.clone(),
        namespace: NAMESPACE.to_owned(),
        fetch: Some(fetch::from_the_web()),
        counts: pipelines::api::Counts::default(),
        recurring: Recurring::new(recurring::Settings {
            zone: options.cron_time_zone.clone(),
        }),
    };
    api.start_recurring_runs(supervisor);
    api.start_retention(options.run_ttl, supervisor);
    Ok(api.router())
}

async fn serve_http(
    web: Bound,
    state: &ServerState,
    data: &DataDir,
    clients: &Clients,
    pipelines: axum::Router,
    node_ip: Ipv4Addr,
    supervisor: &Supervisor,
) -> Result<()> {
    let facts = landing::Facts {
        http: state.http_url(),
        kube: state.kube_url(),
        kubeconfig: data.kubeconfig().display().to_string(),
        pipelines: pipelines.clone(),
    };
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .map(ToString::to_string)
        .collect();
    hosts.extend([node_ip.to_string(), web.address.ip().to_string()]);
    let service = [
        "",
        ".kubeflow",
        ".kubeflow.svc",
        ".kubeflow.svc.cluster.local",
    ];
    hosts.extend(service.iter().map(|end| format!("ml-pipeline{end}")));
    hosts.dedup();
    let guard = Guard {
        hosts,
        client: clients.pipelines(),
        any_host: web.address.ip().is_unspecified(),
    };
    let router = http::guarded(landing::router(facts).merge(pipelines), guard);
    http::spawn(tokio_listener(web.listener)?, router.clone(), supervisor);
    // Pods come in by Service `ml-pipeline`, at the node's address.
    let node = SocketAddr::new(node_ip.into(), ML_PIPELINE_PORT);
    let listener = TcpListener::bind(node)
        .map_err(|e| Failure::environment(format!("listen on {node} for Pods: {e}")))?;
    http::spawn(tokio_listener(listener)?, router, supervisor);
    let publisher = clients.user("system:coracle", &["system:masters"], "coracle");
    bootstrap::publish(&publisher, node_ip, ML_PIPELINE_PORT)
        .await
        .map_err(attempting("publish Service ml-pipeline"))
}

/// The machine's name as a node may have it (RFC 1123).
fn node_name() -> String {
    let uname = rustix::system::uname();
    let raw = uname.nodename().to_string_lossy().to_lowercase();
    let clean: String = raw
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let trimmed = clean.trim_matches(['-', '.']);
    if trimmed.is_empty() {
        "coracle".to_owned()
    } else {
        trimmed.to_owned()
    }
}
