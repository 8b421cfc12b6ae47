//! Connections, with bounds: who dawdles or floods costs the others nothing but a place.

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reply::Response;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At once; who comes beyond them waits to be accepted.
    pub connections: usize,
    /// For a request's head.
    pub head: Duration,
    /// For a whole connection, its answers included.
    pub connection: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, head: Duration::from_secs(5), connection: Duration::from_secs(30) }
    }
}

pub async fn serve(listener: TcpListener, limits: Limits, routes: BoxedFilter<(Response,)>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let routes = routes.clone();
                    tokio::spawn(async move {
                        one(stream, limits, routes).await;
                        drop(place);
                    });
                }
                // A client that is gone again, or no file descriptor left: neither is a reason to stop, nor to spin.
                Err(error) => {
                    tracing::warn!("accepting a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
        }
    }
}

/// What goes wrong on one connection is that client's to see. No body is ever read.
async fn one(stream: TcpStream, limits: Limits, routes: BoxedFilter<(Response,)>) {
    let service = TowerToHyperService::new(warp::service(routes));
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(16 << 10);
    let _ = tokio::time::timeout(limits.connection, protocol.serve_connection(TokioIo::new(stream), service)).await;
}
