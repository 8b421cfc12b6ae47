//! One way to make an HTTP client, with this program's one TLS provider; and how programs of others reach the local cluster
//! on a machine that has a proxy for the rest of the world.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Everything of the local cluster has an address in here.
const NEAR: &str = "localhost,127.0.0.1,10.0.0.0/8,.svc,.cluster.local";

/// Installs the TLS provider; a second call changes nothing.
pub fn install_tls() {
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client that gives up after a few seconds: whoever waits asks again.
pub fn client() -> Result<reqwest::Client> {
    install_tls();
    reqwest::Client::builder().timeout(std::time::Duration::from_secs(5)).no_proxy().build().context("making an HTTP client")
}

/// What a chain answers to a JSON-RPC call.
pub async fn rpc(url: &str, method: &str, params: Value) -> Result<Value> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let asked = || format!("asking the chain for {method}");
    let answer: Value = client()?.post(url).json(&body).send().await.with_context(asked)?.json().await.with_context(asked)?;
    result(answer).with_context(asked)
}

fn result(mut answer: Value) -> Result<Value> {
    ensure!(answer["error"].is_null() && answer.get("result").is_some(), "{answer}");
    Ok(answer["result"].take())
}

/// What a program has to find in its environment so that it reaches the cluster directly, whatever proxy it finds there too.
pub fn direct() -> [(&'static str, String); 2] {
    let kept = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")).unwrap_or_default();
    let all = beside(&kept);
    [("NO_PROXY", all.clone()), ("no_proxy", all)]
}

fn beside(kept: &str) -> String {
    if kept.is_empty() { NEAR.to_owned() } else { format!("{kept},{NEAR}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_an_error_or_none_is_no_result() {
        assert_eq!(result(json!({ "id": 1, "result": null })).expect("nothing is an answer too"), Value::Null);
        assert_eq!(result(json!({ "id": 1, "result": "0x1" })).expect("a result"), "0x1");
        let refused = json!({ "id": 1, "error": { "code": -32601, "message": "Method not found" } });
        assert!(result(refused).expect_err("an error").to_string().contains("Method not found"));
        assert!(result(json!({ "id": 1 })).is_err());
    }

    #[test]
    fn what_was_reached_directly_before_still_is() {
        assert_eq!(beside(""), NEAR);
        assert_eq!(beside("intranet.test"), format!("intranet.test,{NEAR}"));
    }
}
