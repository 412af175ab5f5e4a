//! What the composition root hands to [`crate::Server::open`]. Nothing here acts.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use db::Db;
use serde_json::Value;
use stdx::{SharedClock, SharedRng};

use crate::admission::Admission;
use crate::auth::UserInfo;

/// An IPv4 network: its first address and the length of its prefix.
pub type Cidr = (Ipv4Addr, u8);

/// Everything a server needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where objects are kept. The server makes its own tables in it and is its only writer.
    pub db: Db,
    /// The time of creation stamps, token lifetimes and watch timeouts.
    pub clock: SharedClock,
    /// Where uids, generated names, cluster IPs and node ports are drawn.
    pub rng: SharedRng,
    /// Cluster IPs are drawn from this network.
    pub service_cidr: Cidr,
    /// Loopback networks that Endpoints, EndpointSlices and external IPs may name all the same:
    /// this instance's own Pod and node addresses.
    pub exempt_cidrs: Vec<Cidr>,
    /// Node ports are drawn from this range, both ends included (30000-32767 upstream).
    pub node_port_range: (u16, u16),
    /// The Ed25519 or ECDSA P-256 private key that signs service-account tokens: PKCS#8, PEM or DER.
    pub service_account_key: Vec<u8>,
    /// The `iss` claim of those tokens, also their default audience.
    pub issuer: String,
    /// Further admission hooks; they run after the built-in ones, in this order.
    pub admission: Vec<Arc<dyn Admission>>,
    /// How kubelets are reached for logs, exec, attach and port-forward; `None` uses plain HTTP.
    pub kubelet_client: Option<Arc<rustls::ClientConfig>>,
    /// Objects made in the first start's one transaction, after the server's own.
    pub bootstrap: Vec<Value>,
    /// The address of Service `default/kubernetes`, inside `service_cidr`.
    pub kubernetes_service_ip: Ipv4Addr,
    /// The endpoint behind Service `default/kubernetes`: where the API is really served.
    pub kubernetes_endpoint: Option<(Ipv4Addr, u16)>,
    /// Bearer tokens that are users.
    pub static_tokens: HashMap<String, UserInfo>,
    /// The certificate (DER) that signs client certificates; `None` trusts none.
    pub client_ca: Option<Vec<u8>>,
    /// The build part of `gitVersion` in `/version`: `v1.34.2+<suffix>`.
    pub git_version_suffix: String,
}

impl Options {
    /// Options for `db` with upstream's ranges, no hooks and no users.
    pub fn new(db: Db, clock: SharedClock, rng: SharedRng, service_account_key: Vec<u8>) -> Self {
        Self {
            db,
            clock,
            rng,
            service_cidr: (Ipv4Addr::new(127, 96, 0, 0), 16),
            exempt_cidrs: Vec::new(),
            node_port_range: (30_000, 32_767),
            service_account_key,
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            admission: Vec::new(),
            kubelet_client: None,
            bootstrap: Vec::new(),
            kubernetes_service_ip: Ipv4Addr::new(127, 96, 0, 1),
            kubernetes_endpoint: None,
            static_tokens: HashMap::new(),
            client_ca: None,
            git_version_suffix: "coracle".to_owned(),
        }
    }
}
