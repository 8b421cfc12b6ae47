//! One way to make an HTTP client, with this program's one TLS provider; and how programs of others reach the local cluster
//! on a machine that has a proxy for the rest of the world.

use anyhow::{Context, Result};

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
    fn what_was_reached_directly_before_still_is() {
        assert_eq!(beside(""), NEAR);
        assert_eq!(beside("intranet.test"), format!("intranet.test,{NEAR}"));
    }
}
