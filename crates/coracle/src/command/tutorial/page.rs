//! The web page at the end: where it answers, and what the model says to three test digits.

use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

use super::kfp::Client;
use crate::failure::{Failure, Result};

/// The page's address: the load balancer's where its port may be opened, else the node port.
pub(super) async fn find(service: &Service) -> Result<String> {
    let candidates = candidates(service);
    let mut problems = Vec::new();
    for url in &candidates {
        match Client::new(url).get("/digit").await {
            Ok(_) => return Ok(format!("{url}/")),
            Err(failure) => problems.push(failure.to_string()),
        }
    }
    Err(
        Failure::failed(format!("the page does not answer: {}", problems.join("; ")))
            .hint("kubectl -n kubeflow get events --field-selector involvedObject.name=web-ui"),
    )
}

fn candidates(service: &Service) -> Vec<String> {
    let ingress = service
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref())
        .and_then(|lb| lb.ingress.as_ref())
        .and_then(|all| all.first())
        .and_then(|first| first.ip.clone());
    let port = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.as_ref())
        .and_then(|p| p.first());
    let mut urls = Vec::new();
    if let (Some(ip), Some(port)) = (&ingress, port) {
        urls.push(match port.port {
            80 => format!("http://{ip}"),
            other => format!("http://{ip}:{other}"),
        });
    }
    if let Some(node_port) = port.and_then(|p| p.node_port) {
        urls.push(format!("http://127.0.0.1:{node_port}"));
    }
    urls
}

/// Shows the model three digits it has never seen; a line for each.
pub(super) async fn three_digits(url: &str) -> Result<Vec<String>> {
    let client = Client::new(url.trim_end_matches('/'));
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.push(line(&client.get("/digit").await?)?);
    }
    Ok(lines)
}

fn line(answer: &Value) -> Result<String> {
    if let Some(error) = answer["error"].as_str() {
        return Err(Failure::failed(format!(
            "the model does not answer: {error}"
        )));
    }
    let (truth, said) = (&answer["truth"], &answer["prediction"]);
    let sure = said
        .as_u64()
        .and_then(|digit| answer["probabilities"][usize::try_from(digit).ok()?].as_f64())
        .unwrap_or_default();
    let verdict = if truth == said { "right" } else { "wrong" };
    Ok(format!(
        "test picture {} shows a {truth}; the model says {said} ({:.0} % sure, {:.1} ms): {verdict}",
        answer["index"],
        sure * 100.0,
        answer["latencyMs"].as_f64().unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_load_balancer_comes_first_and_the_node_port_second() {
        let service: Service = serde_json::from_value(json!({
            "spec": {"ports": [{"port": 80, "nodePort": 31234}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "127.98.0.10"}]}}}))
        .unwrap();
        assert_eq!(
            candidates(&service),
            ["http://127.98.0.10", "http://127.0.0.1:31234"]
        );
    }

    #[test]
    fn an_answer_is_told_in_one_line() {
        let answer = json!({"index": 3, "truth": 7, "prediction": 7, "latencyMs": 1.25,
            "probabilities": [0, 0, 0, 0, 0, 0, 0, 0.93, 0, 0]});
        assert_eq!(
            line(&answer).unwrap(),
            "test picture 3 shows a 7; the model says 7 (93 % sure, 1.2 ms): right"
        );
        assert!(line(&json!({"error": "no"})).is_err());
    }
}
