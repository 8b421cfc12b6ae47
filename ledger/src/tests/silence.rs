//! A server that is there no more and has not hung up: what was asked of it is given up in time, and counts once whatever became
//! of it.

use super::*;
use crate::store::Store;
use crate::{LedgerError, Outcome};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// So often it is asked again, each time for as long as a transaction may take.
const TRIES: usize = 200;
const SOCKET: &str = ".s.PGSQL.5432";

/// Hands on what comes, unless it is to be silent: then it keeps that to itself.
async fn hand_on(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut open: watch::Receiver<bool>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read) = from.read(&mut bytes).await {
        let still_there = read > 0 && open.wait_for(|open| *open).await.is_ok();
        if !still_there || to.write_all(&bytes[..read]).await.is_err() {
            break;
        }
    }
    // Whoever listens on the other side hears that nothing more comes.
    let _ = to.shutdown().await;
}

/// Stands between us and a server whose socket is in that folder.
async fn stand_between(ours: &Path, theirs: String, open: watch::Receiver<bool>) {
    let listener = UnixListener::bind(ours.join(SOCKET)).expect("listens");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(Path::new(&theirs).join(SOCKET)).await.expect("the server is there");
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(hand_on(from_client, to_server, open.clone()));
            tokio::spawn(hand_on(from_server, to_client, open.clone()));
        }
    });
}

/// Books at a server that is silent when it is told to be.
async fn books(place: &Place) -> (Store, watch::Sender<bool>) {
    let folder = place.url.split("host=").nth(1).and_then(|rest| rest.split('&').next()).expect("a folder").to_owned();
    let (speaks, open) = watch::channel(true);
    stand_between(place.folder.path(), folder.clone(), open).await;
    let mut store = Store::open(&place.url.replace(&folder, &place.folder.path().display().to_string()), None).await.expect("opens");
    store.patience = Duration::from_millis(300);
    (store, speaks)
}

/// What is asked for is given up, whoever asks and however often: no place is kept for a connection that does not answer.
#[tokio::test]
async fn what_was_given_up_leaves_its_place_to_others_though_the_server_never_hangs_up() {
    let Some(place) = Place::postgres().await else { return };
    let (store, speaks) = books(&place).await;
    let (pool, ledger) = (store.pool.clone(), Ledger::of(store, None));
    let fence = ledger.take_lead("test").await.expect("leads");
    ledger.commit(fence, &[fund(1_000), reserve("a", 400)]).await.expect("commits");
    let most = pool.options().get_max_connections();
    let all = futures::future::join_all((0..most).map(|_| pool.acquire())).await;

    speaks.send_replace(false);
    let asked = all.into_iter().map(async |connection| {
        let mut connection = connection.expect("there are as many places");
        // More than goes into a socket that nobody empties.
        let query = sqlx::query("SELECT $1").bind("x".repeat(8 << 20));
        tokio::time::timeout(Duration::from_millis(300), query.execute(&mut *connection)).await.expect_err("nobody answers");
    });
    futures::future::join_all(asked).await;
    assert!(matches!(ledger.commit(fence, &[charge("a", 0, 100)]).await, Err(LedgerError::Silent { .. })));
    settles(|| pool.size() == 0, "every place is free while the server is still silent").await;

    speaks.send_replace(true);
    let read = ledger.funding(&account()).await.expect("reads at once").expect("is there");
    assert_eq!(read.reserved, units(400));
}

/// Looks again until it is so.
async fn settles(mut is: impl FnMut() -> bool, what: &str) {
    let looks = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looks).await.unwrap_or_else(|_| panic!("waited 20 s until {what}"));
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_in_time_and_what_was_asked_counts_once() {
    let Some(place) = Place::postgres().await else { return };
    let (store, speaks) = books(&place).await;
    let ledger = Ledger::of(store, None);
    let fence = ledger.take_lead("test").await.expect("leads");
    ledger.commit(fence, &[fund(1_000), reserve("a", 400)]).await.expect("commits");

    speaks.send_replace(false);
    let asked = [charge("a", 0, 100)];
    let error = ledger.commit(fence, &asked).await.expect_err("nobody answers");
    assert!(error.to_string().starts_with("committing postings: the database has not answered for 0 s"), "{error}");
    assert!(matches!(ledger.take_lead("another").await, Err(LedgerError::Silent { .. })));

    speaks.send_replace(true);
    let (mut fence, mut outcome) = (fence, None);
    for _ in 0..TRIES {
        match ledger.commit(fence, &asked).await {
            Ok(outcomes) => outcome = outcomes.into_iter().next(),
            // Who asked to lead meanwhile may have been heard after all.
            Err(LedgerError::Fenced { current, .. }) => fence = Fence(current),
            // What was given up holds its locks until the server hears of that.
            Err(LedgerError::Silent { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if outcome.is_some() {
            break;
        }
    }
    assert!(matches!(outcome, Some(Outcome::Applied | Outcome::Already)), "it is taken once the server speaks again: {outcome:?}");
    let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
    assert_eq!((balance.owed, balance.reserved), (units(100), units(300)));
    ledger.verify().await.expect("the journal is whole");
}
