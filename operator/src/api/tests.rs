//! Who is told what, and who is not.

use super::gate::{GateError, Thing};
use super::*;
use crate::world::records::{Place, Placement};
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use supercargo_contracts::{Address, B256, PayeeRequest, PrivateKeySigner};
use supercargo_crds::Escrow;
use supercargo_ledger::{Charge, Posting, Voucher, VoucherTerms};
use supercargo_market::asset::Asset;
use supercargo_market::fees::FeeSchedule;
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::receipt;
use supercargo_market::work::{FundingId, SegmentId, WorkId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NOW: i64 = 1_800_000_000;

/// A cluster where `reader` may read what is in namespace n, `stranger` nothing, and nobody else is known.
#[derive(Clone, Default)]
struct Few {
    away: bool,
    bound: bool,
}

impl Gate for Few {
    async fn who(&self, token: &str) -> Result<Option<UserInfo>, GateError> {
        if self.away {
            return Err(GateError::Silent);
        }
        let known = ["reader", "stranger"].contains(&token);
        Ok(known.then(|| UserInfo { username: Some(token.to_owned()), ..UserInfo::default() }))
    }

    async fn may_get(&self, who: &UserInfo, thing: &Thing) -> Result<bool, GateError> {
        Ok(who.username.as_deref() == Some("reader") && thing.namespace == "n")
    }

    async fn escrow(&self, namespace: &str, name: &str) -> Result<Option<Escrow>, GateError> {
        let status = if self.bound { "True" } else { "False" };
        let since = "2026-01-01T00:00:00Z";
        let escrow = json!({
            "apiVersion": "supercargo.dev/v1alpha1", "kind": "Escrow", "metadata": { "name": name, "namespace": namespace, "uid": "e" },
            "spec": { "funding": "Chain", "token": "USDC", "chain": "c", "accountId": format!("0x{:064x}", 1) },
            "status": {
                "observedGeneration": 1,
                "conditions": [{ "type": "Bound", "status": status, "reason": "R", "message": "", "lastTransitionTime": since }],
            },
        });
        Ok((name == "default").then(|| serde_json::from_value(escrow).expect("an escrow")))
    }
}

fn account(number: usize) -> FundingId {
    FundingId::chain("c", &format!("0x{number:064x}"))
}

fn key(byte: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(byte)).expect("a key")
}

/// The books of an account with a task, and the API over them.
async fn api(gate: Few) -> Api<Few> {
    let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
    let fence = ledger.take_lead("test").await.expect("leads");
    let deposited = Amount::from_units(1_000_000);
    let placement = Placement {
        attempt: 0,
        namespace: "n".into(),
        task: "train".into(),
        token: "USDC".into(),
        tenancy: "Shared".into(),
        resource_name: "nvidia.com/gpu".into(),
        run_seconds: 60,
        hold_seconds: 60,
        bound: NOW,
        billed_before_seconds: 0,
        workers: Vec::<Place>::new(),
    };
    let detail = serde_json::to_string(&placement).expect("is JSON");
    let postings = [
        Posting::Fund { funding: account(1), asset: Asset::of(&account(1), "USDC"), deposited, withdrawn: Amount::ZERO },
        Posting::Reserve {
            work: WorkId::task("uid-of-train"),
            funding: account(1),
            asset: Asset::of(&account(1), "USDC"),
            amount: Amount::from_units(250_000),
            detail,
            parent: None,
        },
    ];
    ledger.commit(fence, &postings).await.expect("commits");
    let owners = Owners::default();
    owners.learn("c", 7, key(7).address());
    let chain = Chain { name: "c".into(), chain_id: 1, contract: Address::repeat_byte(9) };
    Api { ledger, owners, chains: [chain].into(), gate, now: || NOW }
}

/// One request over a connection of its own, and the answer's status and body.
async fn ask(api: &Api<Few>, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let (listener, address) = listen().await;
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, api.clone(), stop.clone()));
    let answer = exchange(TcpStream::connect(address).await.expect("connects"), method, path, headers).await;
    stop.cancel();
    server.await.expect("it ends");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    assert!(status != 200 || head.contains("cache-control: no-store"), "{head}");
    (status, serde_json::from_str(body).unwrap_or_default())
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn exchange(mut stream: TcpStream, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer));
    read.await.expect("the answer comes in its time").expect("reads");
    answer
}

async fn get(api: &Api<Few>, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    ask(api, "GET", path, headers).await
}

#[tokio::test]
async fn costs_are_told_to_who_may_get_the_object_and_hidden_from_everybody_else() {
    let api = api(Few { bound: true, ..Few::default() }).await;
    let (status, told) = get(&api, "/v1/escrows/n/default", &[("authorization", "Bearer reader")]).await;
    let expected = json!({
        "token": "USDC", "deposited": "1.00", "withdrawn": "0.00", "available": "0.75", "reserved": "0.25", "held": "0.00", "owed": "0.00",
        "posted": "0.00", "absorbed": "0.00",
    });
    assert_eq!((status, told), (200, expected));
    let (status, told) = get(&api, "/v1/tasks/uid-of-train/cost", &[("authorization", "bearer reader")]).await;
    let expected = json!({
        "namespace": "n", "name": "train", "token": "USDC", "reserved": "0.25", "held": "0.00", "charged": "0.00", "settled": "0.00",
        "absorbed": "0.00",
    });
    assert_eq!((status, told), (200, expected));

    let long = format!("Bearer {}", "x".repeat(15_000));
    for (path, token, expected) in [
        ("/v1/escrows/n/default", None, 401),
        ("/v1/escrows/n/default", Some("Bearer "), 401),
        ("/v1/escrows/n/default", Some("Basic reader"), 401),
        ("/v1/escrows/n/default", Some("Bearer nobody"), 401),
        ("/v1/escrows/n/default", Some(long.as_str()), 401),
        ("/v1/escrows/n/default", Some("Bearer stranger"), 404),
        ("/v1/escrows/other/default", Some("Bearer reader"), 404),
        ("/v1/escrows/n/missing", Some("Bearer reader"), 404),
        ("/v1/escrows/n/..%2f..%2fsecrets", Some("Bearer reader"), 404),
        ("/v1/tasks/uid-of-train/cost", None, 401),
        ("/v1/tasks/uid-of-train/cost", Some("Bearer stranger"), 404),
        ("/v1/tasks/uid-of-nobody/cost", Some("Bearer reader"), 404),
        ("/v1/receipts/uid-of-train", None, 401),
        ("/v1/receipts/uid-of-train", Some("Bearer stranger"), 404),
        ("/v1/receipts/uid-of-train", Some("Bearer reader"), 404),
    ] {
        let headers: Vec<_> = token.into_iter().map(|token| ("authorization", token)).collect();
        let (status, said) = get(&api, path, &headers).await;
        assert_eq!(status, expected, "{path} with {token:?}");
        assert!(!said.to_string().contains("0.25"), "{said}");
    }
    let hidden = [("/v1/escrows/n/missing", "Bearer reader"), ("/v1/escrows/n/default", "Bearer stranger")];
    let [missing, forbidden] =
        [get(&api, hidden[0].0, &[("authorization", hidden[0].1)]).await, get(&api, hidden[1].0, &[("authorization", hidden[1].1)]).await];
    assert_eq!(missing, forbidden, "what may not be read looks as if it were not there");
}

#[tokio::test]
async fn what_a_task_has_used_is_told_while_it_runs_and_what_is_missing_when_it_is() {
    let api = api(Few { bound: true, ..Few::default() }).await;
    let fence = api.ledger.take_lead("test").await.expect("leads");
    let deposited = Amount::from_units(100_000);
    let hold = Posting::Hold { at: NOW, works: vec![(WorkId::task("uid-of-train"), Amount::from_units(60_000))] };
    let lost = Posting::Fund { funding: account(1), asset: Asset::of(&account(1), "USDC"), deposited, withdrawn: Amount::ZERO };
    api.ledger.commit(fence, &[hold, lost]).await.expect("commits");
    let reader = [("authorization", "Bearer reader")];
    let (_, task) = get(&api, "/v1/tasks/uid-of-train/cost", &reader).await;
    assert_eq!((&task["reserved"], &task["held"], &task["charged"]), (&json!("0.25"), &json!("0.06"), &json!("0.00")));
    let (_, escrow) = get(&api, "/v1/escrows/n/default", &reader).await;
    assert_eq!((&escrow["held"], &escrow["shortfall"], &escrow["available"]), (&json!("0.06"), &json!("0.15"), &json!("0.00")));
}

#[tokio::test]
async fn a_receipt_that_is_told_holds_when_it_is_checked() {
    let api = api(Few::default()).await;
    let fence = api.ledger.take_lead("test").await.expect("leads");
    let (work, held) =
        (WorkId::task("uid-of-train"), Held { devices: 1, device_price: "3.60".parse().expect("a price"), ..Held::default() });
    let charge = Posting::Charge(Charge {
        work: work.clone(),
        attempt: 0,
        segment: SegmentId::of_pod("p", 0),
        seconds: 61,
        evidence: Evidence::Record,
        place: "acme/n1".into(),
        fault: false,
        cost: rating::cost(&held, 61).expect("fits"),
        payee: Some(7),
        fees: FeeSchedule::default(),
        metered: None,
        day: 0,
    });
    api.ledger.commit(fence, &[charge, Posting::Release { work }]).await.expect("commits");
    let (status, told) = get(&api, "/v1/receipts/uid-of-train", &[("authorization", "Bearer reader")]).await;
    assert_eq!(status, 200);
    let checked = receipt::verify(&told.to_string(), &receipt::Expected::default(), &|_, _, _| false).expect("it holds");
    assert_eq!(told["digest"], hex::encode(checked.digest));
}

#[tokio::test]
async fn an_account_that_an_escrow_only_names_is_not_told() {
    let (status, told) = get(&api(Few::default()).await, "/v1/escrows/n/default", &[("authorization", "Bearer reader")]).await;
    assert_eq!((status, told), (404, json!({ "error": "its account is not bound to this Escrow yet" })));
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_no_answer() {
    let api = api(Few { away: true, bound: true }).await;
    let (status, told) = get(&api, "/v1/escrows/n/default", &[("authorization", "Bearer reader")]).await;
    assert_eq!((status, told), (503, json!({ "error": "asking whose token it is failed: ask again later" })));
}

async fn keep(api: &Api<Few>, accounts: usize) {
    let fence = api.ledger.take_lead("test").await.expect("leads");
    let terms = VoucherTerms { chain_id: 1, contract: Address::repeat_byte(9).to_string(), signer: key(1).address().to_string() };
    let mut vouchers = Vec::new();
    for number in 1..=accounts {
        let (funding, amount) = (account(number), Amount::from_units(1_000_000));
        let fund =
            Posting::Fund { asset: Asset::of(&funding, "USDC"), funding: funding.clone(), deposited: amount, withdrawn: Amount::ZERO };
        api.ledger.commit(fence, &[fund]).await.expect("commits");
        vouchers.push(Voucher {
            funding,
            payee: 7,
            total: Amount::from_units(5),
            step: Amount::MAX,
            terms: terms.clone(),
            signature: vec![1; 65],
            signed_at: 9,
        });
    }
    api.ledger.keep_vouchers(fence, &vouchers).await.expect("keeps");
}

/// What is answered to a request that this key signed for this payee and path at this time.
async fn asked(api: &Api<Few>, by: u8, payee: u32, path: &str, at: i64, query: &str) -> (u16, Value) {
    let request = PayeeRequest { chain_id: 1, contract: Address::repeat_byte(9), payee, path, at };
    let signature = request.sign(&key(by)).expect("signs").to_string();
    get(api, &format!("{path}{query}"), &[("supercargo-at", &at.to_string()), ("supercargo-signature", &signature)]).await
}

#[tokio::test]
async fn vouchers_are_given_for_the_proof_of_the_payees_key_and_for_nothing_else() {
    let api = api(Few::default()).await;
    keep(&api, 1).await;
    let path = "/v1/vouchers/c/7";
    let (status, told) = asked(&api, 7, 7, path, NOW, "").await;
    assert_eq!((status, &told["vouchers"][0]["totalUnits"], &told["more"]), (200, &json!("5"), &json!(false)));
    for (name, by, payee, path, at, expected) in [
        ("another key", 8, 7, path, NOW, 401),
        ("signed for another payee", 7, 8, path, NOW, 401),
        ("just in time", 7, 7, path, NOW - 120, 200),
        ("too old", 7, 7, path, NOW - 121, 401),
        ("from the future", 7, 7, path, NOW + 121, 401),
        ("a payee that nothing is known of", 7, 8, "/v1/vouchers/c/8", NOW, 404),
        ("another chain", 7, 7, "/v1/vouchers/d/7", NOW, 404),
    ] {
        let (status, told) = asked(&api, by, payee, path, at, "").await;
        assert_eq!(status, expected, "{name}: {told}");
        assert_eq!(told.get("vouchers").is_some(), expected == 200, "{name}: {told}");
    }
    for headers in [&[][..], &[("supercargo-at", "soon"), ("supercargo-signature", "0x00")], &[("supercargo-at", "1800000000")]] {
        assert_eq!(get(&api, path, headers).await.0, 401, "{headers:?}");
    }
    let bad = format!("0x{}", "11".repeat(2_000));
    assert_eq!(get(&api, path, &[("supercargo-at", "1800000000"), ("supercargo-signature", &bad)]).await.0, 401);
}

#[tokio::test]
async fn more_vouchers_than_an_answer_takes_are_asked_for_after_the_last() {
    let api = api(Few::default()).await;
    keep(&api, 201).await;
    let (_, first) = asked(&api, 7, 7, "/v1/vouchers/c/7", NOW, "").await;
    let vouchers = first["vouchers"].as_array().expect("vouchers");
    assert_eq!((vouchers.len(), &first["more"]), (200, &json!(true)));
    let after = format!("?after={}", vouchers[199]["account"].as_str().expect("an account"));
    let (_, rest) = asked(&api, 7, 7, "/v1/vouchers/c/7", NOW, &after).await;
    assert_eq!((rest["vouchers"].as_array().map(Vec::len), &rest["more"]), (Some(1), &json!(false)));
}

#[tokio::test]
async fn an_accounts_vouchers_are_told_from_the_one_for_most_down_and_go_on_in_the_next_answer() {
    let api = api(Few::default()).await;
    keep(&api, 2).await;
    let steps: Vec<Voucher> = {
        let one = api.ledger.vouchers("c", 7, &FundingId::from_stored(""), 1).await.expect("reads").remove(0);
        (1..=250).map(|number| Voucher { total: Amount::from_units(number), step: Amount::from_units(1), ..one.clone() }).collect()
    };
    let fence = api.ledger.take_lead("test").await.expect("leads");
    api.ledger.keep_vouchers(fence, &steps).await.expect("keeps");
    let totals = |told: &Value| -> Vec<String> {
        let vouchers = told["vouchers"].as_array().expect("vouchers").iter();
        vouchers.map(|voucher| voucher["totalUnits"].as_str().expect("text").to_owned()).collect()
    };
    let text = |numbers: &mut dyn Iterator<Item = u64>| numbers.map(|number| number.to_string()).collect::<Vec<_>>();
    let (_, first) = asked(&api, 7, 7, "/v1/vouchers/c/7", NOW, "").await;
    assert_eq!((totals(&first), &first["more"]), (text(&mut (51..=250).rev()), &json!(true)));
    let after = format!("?after={}&below=51", first["vouchers"][199]["account"].as_str().expect("an account"));
    let (_, rest) = asked(&api, 7, 7, "/v1/vouchers/c/7", NOW, &after).await;
    assert_eq!((totals(&rest), &rest["more"]), (text(&mut (1..=50).rev().chain([5])), &json!(false)));
}

#[tokio::test]
async fn nothing_can_be_written_and_no_other_path_is_there() {
    let api = api(Few::default()).await;
    for (method, path, expected) in [("POST", "/v1/vouchers/c/7", 405), ("GET", "/v1/secrets", 404), ("GET", "/metrics", 404)] {
        assert_eq!(ask(&api, method, path, &[]).await.0, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn who_says_nothing_holds_a_place_for_a_while_and_no_longer() {
    let api = api(Few { bound: true, ..Few::default() }).await;
    let (listener, address) = listen().await;
    let limits = connection::Limits { connections: 1, head: Duration::from_millis(50), connection: Duration::from_secs(60) };
    let stop = CancellationToken::new();
    let server = tokio::spawn(connection::serve(listener, limits, routes(api), stop.clone()));
    let silent = TcpStream::connect(address).await.expect("connects");
    let asking = TcpStream::connect(address).await.expect("connects");
    let answer = exchange(asking, "GET", "/v1/escrows/n/default", &[("authorization", "Bearer reader")]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(silent);
    stop.cancel();
    server.await.expect("it ends");
}
