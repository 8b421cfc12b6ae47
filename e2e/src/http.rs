//! One way to make an HTTP client, with this program's one TLS provider.

use anyhow::{Context, Result};

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
