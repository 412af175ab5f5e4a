//! A program's way into the cluster: the service account its Pod carries.

use std::path::Path;

use kube::Config;
use kube::config::AuthInfo;

use crate::Failure;
use crate::pod::Pod;

const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A client of the API server that the Pod's environment names, as the Pod's service account.
pub(crate) fn client(pod: &Pod) -> Result<kube::Client, Failure> {
    let config = config(pod)?;
    kube::Client::try_from(config).map_err(|e| Failure::work(format!("reach the cluster: {e}")))
}

/// The namespace the Pod runs in.
pub(crate) fn namespace(pod: &Pod) -> Result<String, Failure> {
    read(pod, "namespace").map(|text| text.trim().to_owned())
}

fn config(pod: &Pod) -> Result<Config, Failure> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .and_then(|value| value.into_string().ok())
            .ok_or_else(|| Failure::work(format!("{name} is not set: this program runs in a Pod")))
    };
    let (host, port) = (
        variable("KUBERNETES_SERVICE_HOST")?,
        variable("KUBERNETES_SERVICE_PORT")?,
    );
    let url = format!("https://{host}:{port}")
        .parse()
        .map_err(|e| Failure::work(format!("the API server's address {host}:{port}: {e}")))?;
    let mut config = Config::new(url);
    config.root_cert = Some(certificates(&read(pod, "ca.crt")?)?);
    config.default_namespace = namespace(pod)?;
    config.auth_info = AuthInfo {
        // The file, not its content: the node renews tokens in place.
        token_file: Some(
            pod.path(&Path::new(ACCOUNT).join("token"))
                .to_string_lossy()
                .into_owned(),
        ),
        ..AuthInfo::default()
    };
    Ok(config)
}

fn read(pod: &Pod, name: &str) -> Result<String, Failure> {
    let path = pod.path(&Path::new(ACCOUNT).join(name));
    std::fs::read_to_string(&path).map_err(|e| {
        Failure::work(format!(
            "read the service account's {name} at {}: {e}",
            path.display()
        ))
    })
}

/// The certificates of a PEM bundle, DER.
fn certificates(bundle: &str) -> Result<Vec<Vec<u8>>, Failure> {
    use base64::Engine as _;
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    bundle
        .split(BEGIN)
        .skip(1)
        .map(|block| {
            let body: String = block
                .split(END)
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            base64::engine::general_purpose::STANDARD
                .decode(body)
                .map_err(|e| Failure::work(format!("the service account's ca.crt: {e}")))
        })
        .collect()
}
