//! Pods: one worker each. `machine` decides, `worker` listens and carries out, `work` is what it
//! carries out, `manager` follows the API and starts workers.

pub(crate) mod backoff;
pub(crate) mod container;
pub(crate) mod downward;
pub(crate) mod environment;
pub(crate) mod handler;
pub(crate) mod machine;
pub(crate) mod manager;
pub(crate) mod orphan;
pub(crate) mod paths;
pub(crate) mod probe;
pub(crate) mod record;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod status;
mod work;
pub(crate) mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use stdx::{SharedClock, SharedRng};

use crate::changes::Changes;
use crate::events::Recorder;
use crate::network::services::Services;
use crate::node::addresses::Addresses;
use crate::node::resources::Ledger;
use crate::runtime::{ImageService, Runtime};
use crate::volume::Volumes;

/// The polite signal.
pub(crate) const SIGTERM: i32 = 15;
/// The other one.
pub(crate) const SIGKILL: i32 = 9;

/// What all workers share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    pub(crate) node_name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn ImageService>,
    pub(crate) recorder: Recorder,
    pub(crate) volumes: Volumes,
    pub(crate) changes: Changes,
    pub(crate) services: Services,
    pub(crate) addresses: Addresses,
    pub(crate) ledger: Ledger,
    pub(crate) node: status::NodeFacts,
    pub(crate) api_address: (String, u16),
    pub(crate) cluster_domain: String,
    pub(crate) registry: registry::Registry,
    /// The user this process runs as.
    pub(crate) own_uid: u32,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}
