//! The controllers alone, beside any API server: `cargo run -p controllers --example run --
//! KUBECONFIG [VOLUMES]`. Every controller acts as the user of the kubeconfig.

use std::path::PathBuf;
use std::sync::Arc;

use controllers::Options;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use stdx::{Supervisor, SystemClock, SystemRng};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: run KUBECONFIG [VOLUMES]")?;
    let volumes_root = arguments.next().map(PathBuf::from);
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let root_ca_pem = "the certificates of the server are not known here\n".to_owned();
    let client = Client::try_from(config)?;
    let supervisor = Supervisor::new();
    let options = Options {
        client_for: Arc::new(move |_| client.clone()),
        clock: SystemClock::shared(),
        rng: SystemRng::shared(),
        volumes_root,
        root_ca_pem,
        node_pod_cidr: None,
    };
    controllers::start(options, &supervisor)?;
    tokio::signal::ctrl_c().await?;
    supervisor.shutdown().await;
    Ok(())
}
