//! The operator's HTTP API, for reading only. A payee is given its vouchers for the proof that it holds the payee's key. What
//! an Escrow or a task has cost is told to whoever may `get` that very object in the cluster; to everybody else it is as if
//! it were not there. Who asks proves it by a token of the cluster that is made for this API alone.

mod connection;
mod costs;
mod gate;
mod vouchers;

#[cfg(test)]
mod tests;

pub use gate::{Cluster, Gate};

use crate::settlement::Owners;
use std::sync::Arc;
use supercargo_ledger::Ledger;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Reply};

/// What is answered from.
#[derive(Clone)]
pub struct Api<G> {
    pub ledger: Ledger,
    pub owners: Owners,
    pub chains: Arc<[Chain]>,
    pub gate: G,
    pub now: fn() -> i64,
}

/// A chain whose vouchers are served.
#[derive(Debug, Clone)]
pub struct Chain {
    pub name: String,
    pub chain_id: u64,
    pub contract: supercargo_contracts::Address,
}

/// Why there is nothing to tell, in words.
#[derive(Debug)]
pub struct Refusal(StatusCode, String);

impl Refusal {
    fn no_proof(words: impl Into<String>) -> Self {
        Self(StatusCode::UNAUTHORIZED, words.into())
    }

    fn not_there(words: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, words.into())
    }

    /// Asking again may help. What went wrong is for the log, and not for whoever asks.
    fn later(doing: &str, error: impl std::fmt::Display) -> Self {
        tracing::warn!(%error, "{doing}");
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("{doing} failed: ask again later"))
    }
}

fn answer<T: serde::Serialize>(found: Result<T, Refusal>) -> Response {
    let mut response = match found {
        Ok(found) => warp::reply::json(&found).into_response(),
        Err(Refusal(status, words)) => {
            warp::reply::with_status(warp::reply::json(&serde_json::json!({ "error": words })), status).into_response()
        }
    };
    // What one may read no other may find in a cache.
    response.headers_mut().insert("cache-control", warp::http::HeaderValue::from_static("no-store"));
    response
}

/// Every path of this version.
pub fn routes<G: Gate>(api: Api<G>) -> BoxedFilter<(Response,)> {
    let with = move || {
        let api = api.clone();
        warp::any().map(move || api.clone())
    };
    let vouchers = warp::path!("v1" / "vouchers" / String / u32)
        .and(warp::query::<vouchers::Page>())
        .and(warp::header::optional("supercargo-at"))
        .and(warp::header::optional("supercargo-signature"))
        .and(with())
        .then(|chain: String, payee, page, at, signature, api: Api<G>| async move {
            answer(vouchers::of(&api, &chain, payee, page, at, signature).await)
        });
    let escrow = warp::path!("v1" / "escrows" / String / String).and(warp::header::optional("authorization")).and(with()).then(
        |namespace: String, name: String, token, api: Api<G>| async move { answer(costs::of_escrow(&api, &namespace, &name, token).await) },
    );
    let task = warp::path!("v1" / "tasks" / String / "cost")
        .and(warp::header::optional("authorization"))
        .and(with())
        .then(|uid: String, token, api: Api<G>| async move { answer(costs::of_task(&api, &uid, token).await) });
    let receipt = warp::path!("v1" / "receipts" / String)
        .and(warp::header::optional("authorization"))
        .and(with())
        .then(|uid: String, token, api: Api<G>| async move { answer(costs::receipt(&api, &uid, token).await) });
    warp::get().and(vouchers.or(escrow).unify().or(task).unify().or(receipt).unify()).boxed()
}

/// Serves until told to stop.
pub async fn serve<G: Gate>(listener: TcpListener, api: Api<G>, stop: CancellationToken) {
    connection::serve(listener, connection::Limits::default(), routes(api), stop).await;
}
