//! The peer: gives back the body that it was sent, over TLS and just enough HTTP, and does nothing else.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[tokio::main(flavor = "current_thread")]
pub async fn serve(certificate: &Path, key: &Path) {
    let chain = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    eprintln!("{}", serde_json::json!({ "listen": listener.local_addr().expect("an address").to_string() }));
    loop {
        let (stream, _) = listener.accept().await.expect("a client");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that goes away ends its connection.
            let _ = connection(stream, acceptor).await;
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut bytes = Vec::with_capacity(64 << 10);
    loop {
        let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let length = crate::client::content_length(&bytes[..head]).expect("our own clients say it");
        while bytes.len() < head + length {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        answer.extend(bytes.drain(..head + length).skip(head));
        stream.write_all(&answer).await?;
    }
}
