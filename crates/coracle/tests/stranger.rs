//! People and programs that have no business here, and those with little: certificates of another
//! authority, wrong tokens, accounts with few rights, pages and names that rebind, other users.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::{Value, json};
use support::cluster::{client_of, create};
use support::{Server, http, kubectl, kubectl_path, root_or_skip, said, skip};

/// The server's kubeconfig with another user in it.
fn kubeconfig_with(server: &Server, name: &str, user: Value) -> PathBuf {
    let text = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"] = user;
    let path = server.scratch().join(name);
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A certificate for an administrator, signed by an authority of the stranger's own.
fn foreign_certificate() -> Value {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "coracle");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "kubernetes-admin");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer).unwrap();
    json!({
        "client-certificate-data": STANDARD.encode(certificate.pem()),
        "client-key-data": STANDARD.encode(key.serialize_pem()),
    })
}

async fn refusal(client: &Client) -> (u16, String, String) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.list(&ListParams::default()).await {
        Ok(_) => panic!("a stranger was let in"),
        Err(kube::Error::Api(status)) => {
            (status.code, status.reason.clone(), status.message.clone())
        }
        Err(other) => panic!("not a Status but a broken connection: {other:?}"),
    }
}

#[tokio::test]
async fn a_strangers_kubeconfig_gets_a_status_not_a_broken_handshake() {
    let server = Server::start();
    let strangers = [
        ("certificate", foreign_certificate()),
        ("token", json!({"token": "made-up"})),
        (
            "looks-signed",
            json!({"token": "eyJhbGciOiJub25lIn0.e30.c2lnbmF0dXJl"}),
        ),
    ];
    for (name, user) in strangers {
        let config = kubeconfig_with(&server, name, user);
        let (code, reason, _) = refusal(&client_of(&config).await).await;
        assert_eq!((code, reason.as_str()), (401, "Unauthorized"), "{name}");
        let Some(kubectl_program) = kubectl_path() else {
            continue;
        };
        let refused = kubectl(&kubectl_program, &server, &["get", "namespaces"])
            .env("KUBECONFIG", &config)
            .output()
            .unwrap();
        assert!(!refused.status.success());
        let text = said(&refused);
        assert!(
            text.contains("Unauthorized") || text.contains("logged in"),
            "{name}: {text}"
        );
    }
    // Nobody in particular is not refused at the door, but may do nothing.
    let (code, reason, message) =
        refusal(&client_of(&kubeconfig_with(&server, "nobody", json!({}))).await).await;
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert!(message.contains("system:anonymous"), "{message}");
    // And the server trusts its own as before.
    let namespaces: Api<Namespace> = Api::all(server.client().await);
    assert!(namespaces.get_opt("kubeflow").await.unwrap().is_some());
}

async fn forbidden<T: std::fmt::Debug>(
    what: &str,
    attempt: impl Future<Output = kube::Result<T>>,
) -> String {
    match attempt.await {
        Err(kube::Error::Api(status)) if status.code == 403 => status.message.clone(),
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn an_account_may_do_what_its_role_says_and_no_more() {
    let server = Server::start();
    let admin = server.client().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    let roles: Api<Role> = Api::namespaced(admin.clone(), "default");
    let bindings: Api<RoleBinding> = Api::namespaced(admin.clone(), "default");
    create(&accounts, json!({"metadata": {"name": "reader"}})).await;
    create(
        &roles,
        json!({"metadata": {"name": "reader"}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"],
                "verbs": ["get"]},
        ]}),
    )
    .await;
    create(
        &bindings,
        json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]}),
    )
    .await;
    let request: TokenRequest =
        serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": []}})).unwrap();
    let token = accounts
        .create_token_request("reader", &PostParams::default(), &request)
        .await
        .unwrap()
        .status
        .unwrap()
        .token;
    let config = kubeconfig_with(&server, "reader", json!({"token": token}));
    let reader = client_of(&config).await;

    let pods: Api<Pod> = Api::namespaced(reader.clone(), "default");
    assert!(
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let maps: Api<ConfigMap> = Api::namespaced(reader.clone(), "default");
    let admins: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    for name in ["one", "two"] {
        create(&admins, json!({"metadata": {"name": name}})).await;
    }
    assert!(maps.get_opt("one").await.unwrap().is_some());
    let list = ListParams::default();
    forbidden("another name", maps.get("two")).await;
    forbidden("another verb", maps.list(&list)).await;
    let elsewhere: Api<Pod> = Api::namespaced(reader.clone(), "kube-system");
    let message = forbidden("another namespace", elsewhere.list(&list)).await;
    for part in [
        "system:serviceaccount:default:reader",
        "list",
        "pods",
        "kube-system",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let everywhere: Api<Pod> = Api::all(reader.clone());
    forbidden("all namespaces", everywhere.list(&list)).await;
    let secrets: Api<Secret> = Api::namespaced(reader.clone(), "default");
    forbidden("another kind", secrets.list(&list)).await;
    let pod = serde_json::from_value(support::cluster::shell_pod("x", "true")).unwrap();
    forbidden("a write", pods.create(&PostParams::default(), &pod)).await;
    // Nobody gives away what he does not have.
    let own_roles: Api<Role> = Api::namespaced(reader.clone(), "default");
    let role = serde_json::from_value(json!({"metadata": {"name": "all"}, "rules": [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}))
    .unwrap();
    forbidden("a role", own_roles.create(&PostParams::default(), &role)).await;

    if let Some(program) = kubectl_path() {
        let can = |args: &[&str]| {
            let all = [&["auth", "can-i"], args].concat();
            let answer = kubectl(&program, &server, &all)
                .env("KUBECONFIG", &config)
                .output();
            String::from_utf8_lossy(&answer.unwrap().stdout)
                .trim()
                .to_owned()
        };
        assert_eq!(can(&["list", "pods"]), "yes");
        assert_eq!(can(&["delete", "pods"]), "no");
    }

    // A right taken away is gone at once; an account that is gone takes its tokens along.
    bindings
        .delete("reader", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    forbidden("without the binding", pods.list(&list)).await;
    accounts
        .delete("reader", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let gone = pods.list(&list).await;
    assert!(
        matches!(&gone, Err(kube::Error::Api(s)) if s.code == 401),
        "{gone:?}"
    );
}

#[tokio::test]
async fn names_and_pages_from_elsewhere_are_refused() {
    let server = Server::start();
    let url = server.url("/apis/v1beta1/healthz");
    let ask = async |headers: &[(&str, &str)]| {
        http::request("GET", &url, headers, "")
            .await
            .unwrap()
            .status
            .as_u16()
    };
    let (good, by_name) = (
        format!("127.0.0.1:{}", server.http_port),
        format!("localhost:{}", server.http_port),
    );
    assert_eq!(ask(&[("Host", &good)]).await, 200);
    assert_eq!(ask(&[("Host", &by_name)]).await, 200);
    for host in [
        "rebound.example.com",
        "127.0.0.1.example.com:8080",
        "",
        "8.8.8.8",
    ] {
        let status = ask(&[("Host", host)]).await;
        assert!((400..500).contains(&status), "Host {host:?}: {status}");
    }
    let own = format!("http://{good}");
    assert_eq!(ask(&[("Host", &good), ("Origin", &own)]).await, 200);
    for origin in ["http://evil.example.com", "null", "http://127.0.0.1:1"] {
        assert_eq!(
            ask(&[("Host", &good), ("Origin", origin)]).await,
            403,
            "Origin {origin}"
        );
    }
}

#[tokio::test]
async fn another_users_process_needs_a_token() {
    if !root_or_skip() {
        return;
    }
    const NOBODY: u32 = 65_534;
    let server = Server::start();
    let curl = |token: Option<&str>| {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--max-time",
            "60",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ]);
        if let Some(token) = token {
            command.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        command
            .arg(server.url("/apis/v1beta1/pipelines"))
            .uid(NOBODY)
            .gid(NOBODY);
        command.current_dir("/").output()
    };
    let Ok(without) = curl(None) else {
        return skip("needs curl");
    };
    assert_eq!(said(&without), "401");
    assert_eq!(said(&curl(Some("made-up")).unwrap()), "401");
    let token = String::from_utf8(server.run(&["token"]).stdout).unwrap();
    assert_eq!(said(&curl(Some(token.trim())).unwrap()), "200");
    // The token is not lying about for them to take.
    let read = Command::new("cat")
        .arg(server.kubeconfig())
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    assert!(!read.unwrap().status.success());
    let asked = server.command(&["token"]).uid(NOBODY).gid(NOBODY).output();
    assert!(asked.is_err() || !asked.unwrap().status.success());
}
