//! A kubelet with a runtime and an API that are not real, and a clock that a test moves.

pub(crate) mod api;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::api::FakeApi;
use kubelet::runtime::ContainerSpec;
use kubelet::runtime::fake::{Behaviour, FakeImages, FakeRuntime};
use kubelet::{Capacity, Kubelet, Options};
use serde_json::{Value, json};
use stdx::{Clock as _, ManualClock, SeededRng, Supervisor};

pub(crate) struct Rig {
    pub(crate) api: FakeApi,
    pub(crate) runtime: FakeRuntime,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) kubelet: Option<(Kubelet, Supervisor)>,
    pub(crate) address: SocketAddr,
}

impl Rig {
    /// A running kubelet of node `n`.
    pub(crate) async fn new(
        script: impl Fn(&ContainerSpec) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::new(start));
        let api = FakeApi::new(clock.clone());
        let mut rig = Self {
            runtime: FakeRuntime::new(clock.clone(), script),
            api,
            clock,
            dir: tempfile::tempdir().unwrap(),
            kubelet: None,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        rig.start().await;
        rig
    }

    pub(crate) async fn start(&mut self) {
        let supervisor = Supervisor::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        self.address = listener.local_addr().unwrap();
        let options = Options {
            client: self.api.client(),
            clock: self.clock.clone(),
            rng: Arc::new(SeededRng::new(1)),
            node_name: "n".to_owned(),
            node_labels: vec![("disk".to_owned(), "fast".to_owned())],
            data_dir: self.dir.path().to_owned(),
            node_ip: Ipv4Addr::new(127, 97, 0, 1),
            pod_cidr: (Ipv4Addr::new(127, 97, 0, 0), 20),
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(FakeImages),
            listener,
            tls: tls(),
            api_address: ("127.96.0.1".to_owned(), 443),
            cluster_domain: "cluster.local".to_owned(),
            leave_pods_running: false,
            max_pods: 250,
            capacity: Some(Capacity {
                milli_cpu: 2000,
                memory: 1 << 30,
                ephemeral_storage: 1 << 30,
            }),
            version: "v1.34.2".to_owned(),
        };
        let kubelet = Kubelet::start(options, &supervisor).await.unwrap();
        self.kubelet = Some((kubelet, supervisor));
    }

    /// Ends the kubelet as a crash does: nothing is told, nothing is cleaned.
    pub(crate) async fn crash(&mut self) {
        let (kubelet, supervisor) = self.kubelet.take().unwrap();
        supervisor.shutdown().await;
        drop(kubelet);
    }

    /// Creates a Pod bound to the node.
    pub(crate) fn pod(&self, name: &str, spec: Value) -> Value {
        let mut spec = spec;
        spec["nodeName"] = json!("n");
        self.api.put(
            "pods",
            "default",
            name,
            json!({"metadata": {}, "spec": spec}),
        )
    }

    /// Moves time on until `done` is; every timer that is waiting gets its turn.
    pub(crate) async fn wait_for<T>(&self, done: impl Future<Output = T>) -> T {
        let mut done = std::pin::pin!(done);
        loop {
            tokio::select! {
                biased;
                result = &mut done => return result,
                () = tokio::task::yield_now() => self.clock.advance(Duration::from_millis(20)),
            }
        }
    }

    /// The directory of the Pod.
    /// Where volumes lie whose files come from objects: in memory, where the machine has a place for
    /// that, in a folder named by the Pod's and a hash of where that is.
    pub(crate) fn volumes_of_files(&self, pod: &Value) -> std::path::PathBuf {
        let dir = self.pod_dir(pod);
        let user = rustix::process::geteuid().as_raw();
        let memory = std::fs::read_dir(format!("/dev/shm/coracle-{user}"));
        let hash = |bytes: &[u8]| {
            bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
            })
        };
        let uid = dir.file_name().unwrap().to_str().unwrap();
        let name = format!("{uid}.{:016x}", hash(dir.as_os_str().as_encoded_bytes()));
        memory
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.ends_with(&name))
            .unwrap_or_else(|| dir.join("volumes"))
    }

    pub(crate) fn pod_dir(&self, pod: &Value) -> std::path::PathBuf {
        self.dir
            .path()
            .join("pods")
            .join(pod["metadata"]["uid"].as_str().unwrap())
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }
}

fn tls() -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

pub(crate) fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

pub(crate) fn waiting(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
        .as_str()
        .unwrap_or_default()
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
