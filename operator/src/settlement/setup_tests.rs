//! A chain that is not what the configuration says: each is one clear sentence, over an endpoint of a few lines.

use super::SettlementError;
use super::agree::{Agreed, Terms};
use super::course::{self, no_agreement};
use super::evm::EvmNode;
use super::owners::Owners;
use super::rail::{Node, Seen, Takes};
use super::setup::{self, Wires};
use crate::runtime::config::ChainConfig;
use alloy::rpc::types::Block;
use alloy::sol_types::{SolError, SolValue};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use supercargo_contracts::{Address, B256, Bytes, Chain, Escrow, PrivateKeySigner, U256, keccak256};
use supercargo_ledger::{Post, PostState};
use supercargo_market::account::Times;
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;
use warp::Filter;

const SETTLER: u32 = 1;
/// Asked for this payee the contract gives no reason.
const STRANGE: u32 = 66;

/// What a chain has.
#[derive(Clone)]
struct There {
    chain_id: u64,
    code: &'static str,
    token: Option<Address>,
    decimals: Option<u64>,
    hot: Option<Address>,
    /// Whoever has these owns them; of others it can't be asked while it is away.
    payees: &'static [u32],
    away: bool,
    /// It has the block that it calls its newest.
    newest: bool,
}

fn contract() -> Address {
    Address::repeat_byte(0xc0)
}

fn token() -> Address {
    Address::repeat_byte(0x70)
}

fn key() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(1)).expect("a key")
}

fn all_is_well() -> There {
    There {
        chain_id: 1,
        code: "0x60",
        token: Some(token()),
        decimals: Some(6),
        hot: Some(key().address()),
        payees: &[1],
        away: false,
        newest: true,
    }
}

impl There {
    /// What a contract answers; or that it refuses, and with which data.
    fn call(&self, data: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        let is = |signature: &str| data.starts_with(&keccak256(signature)[..4]);
        let number = |number: u64| U256::from(number).abi_encode();
        if is("TOKEN()") {
            return self.token.map(|token| token.abi_encode()).ok_or_else(Vec::new);
        }
        if is("decimals()") {
            return self.decimals.map(number).ok_or_else(Vec::new);
        }
        if is("WINDOW()") {
            return Ok(number(60));
        }
        if is("THAW()") {
            return Ok(number(600));
        }
        if is("viewLane(bytes32,uint32)") {
            // It matures, and a case about it is open: it takes what comes in until a window before 1,000.
            return Ok([5, 0, 0, 0, 1_000, 0, 0].map(number).concat());
        }
        if is("viewPayee(uint32)") {
            let payee = u32::from_be_bytes(data[32..36].try_into().expect("a number"));
            let owner = Address::repeat_byte(5).abi_encode();
            let known = || [owner.clone(), owner.clone(), number(0), owner.clone()].concat();
            // Another contract refuses for reasons of its own.
            let refusal = || if payee == STRANGE { Vec::new() } else { Escrow::UnknownPayee { payee }.abi_encode() };
            return self.payees.contains(&payee).then(known).ok_or_else(refusal);
        }
        assert!(is("viewSettler(uint32)"), "nobody asks that: {data:?}");
        let words = |hot: Address| [hot.abi_encode(), hot.abi_encode(), number(0), hot.abi_encode(), number(0)].concat();
        self.hot.map(words).ok_or_else(|| Escrow::UnknownSettler { settler: SETTLER }.abi_encode())
    }

    fn answer(&self, asked: &Value) -> Value {
        let result = match asked["method"].as_str().expect("a method") {
            "eth_chainId" => json!(format!("{:#x}", self.chain_id)),
            "eth_getCode" => json!(self.code),
            "eth_blockNumber" => json!("0x0"),
            "eth_getBlockByNumber" if !self.newest => Value::Null,
            "eth_getBlockByNumber" => serde_json::to_value(Block::<B256>::default()).expect("a block"),
            "eth_call" => {
                let call = &asked["params"][0];
                let data: Bytes = call["input"].as_str().or(call["data"].as_str()).expect("data").parse().expect("hex");
                if self.away && data.starts_with(&keccak256("viewPayee(uint32)")[..4]) {
                    let error = json!({ "code": -32_000, "message": "header not found" });
                    return json!({ "jsonrpc": "2.0", "id": asked["id"], "error": error });
                }
                match self.call(&data) {
                    Ok(result) => json!(Bytes::from(result)),
                    Err(data) => {
                        let error = json!({ "code": 3, "message": "execution reverted", "data": Bytes::from(data) });
                        return json!({ "jsonrpc": "2.0", "id": asked["id"], "error": error });
                    }
                }
            }
            other => panic!("nobody asks for {other}"),
        };
        json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })
    }

    /// Where it answers.
    async fn listen(self) -> String {
        // An error only says that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let page = warp::body::json().map(move |asked: Value| warp::reply::json(&self.answer(&asked)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        tokio::spawn(warp::serve(page).incoming(listener).run());
        url
    }
}

/// As it is configured, over one endpoint.
async fn configured(there: There) -> ChainConfig {
    let rpcs = vec![there.listen().await];
    ChainConfig {
        rpcs,
        contract: contract().to_string(),
        token_address: Some(token().to_string()),
        settler: SETTLER,
        settler_key_file: "keys/key".into(),
        ..course::tests::config()
    }
}

async fn look(config: &ChainConfig) -> Result<(Wires, Agreed), SettlementError> {
    let wires = setup::wires(config, key())?;
    let terms = Terms { chain_id: config.chain_id, now: 0, oldest_seconds: 3_600 };
    let agreed = wires.endpoints.look(terms).await.map_err(|none| no_agreement(config, &none))?;
    Ok((wires, agreed))
}

/// All that is asked of a chain before anything is paid on it.
async fn check(there: There) -> Result<Times, SettlementError> {
    let config = configured(there).await;
    let (wires, agreed) = look(&config).await?;
    let seen = Seen { endpoints: &wires.endpoints, agreed: &agreed, pen: &wires.pen };
    let times = setup::check_contract(&seen, &config).await?;
    setup::check_key(&seen, &config).await?;
    Ok(times)
}

#[tokio::test]
async fn a_chain_that_is_what_the_configuration_says_is_taken_with_its_contracts_times() {
    let times = check(all_is_well()).await.expect("all is well");
    assert_eq!(times, Times { window_seconds: 60, thaw_seconds: 600 });
}

#[tokio::test]
async fn whatever_is_set_up_wrongly_is_told_in_words_that_name_it() {
    let (contract, token, ours, other) = (contract(), token(), key().address(), Address::repeat_byte(9));
    let well = all_is_well();
    let not_ours = |why: &str| format!("what is at {contract} on chain c is not our contract: {why}");
    let cases = [
        (There { code: "0x", ..well.clone() }, format!("there is no contract at {contract} on chain c")),
        (There { token: None, ..well.clone() }, not_ours("the contract gave no reason (is the address right?)")),
        (There { token: Some(other), ..well.clone() }, format!("the contract on chain c holds token {other}, and {token} is configured")),
        (There { decimals: Some(18), ..well.clone() }, format!("token {token} has 18 decimals: this version knows tokens with 6")),
        (
            There { decimals: None, ..well.clone() },
            format!("{token}, which the contract on chain c holds, is no token: the contract gave no reason (is the address right?)"),
        ),
        (There { hot: Some(other), ..well.clone() }, format!("the key in keys/key is {ours}, and settler 1's hot key is {other}")),
        (There { hot: None, ..well.clone() }, "settler 1 is not enrolled: no settler has the number 1: it has to enroll first".to_owned()),
        (There { chain_id: 5, ..well }, "endpoint 1 (127.0.0.1) serves chain id 5, and 1 is configured".to_owned()),
    ];
    for (there, words) in cases {
        let error = check(there).await.expect_err(&words);
        assert!(matches!(error, SettlementError::Stalled(_)), "asking again would change nothing: {error}");
        assert_eq!(error.to_string(), words);
    }
}

/// Who is unknown after that, and what is said of it.
async fn fees_to(there: There, owners: &Owners, payees: &[u32]) -> (BTreeSet<u32>, Result<Option<String>, SettlementError>) {
    let config = configured(there).await;
    let (wires, agreed) = look(&config).await.expect("it answers");
    let seen = Seen { endpoints: &wires.endpoints, agreed: &agreed, pen: &wires.pen };
    let said = setup::check_fees(&seen, &config, owners, &payees.iter().copied().collect()).await;
    (owners.unknown("c"), said)
}

#[tokio::test]
async fn fees_for_payees_that_the_contract_does_not_know_are_told_and_nobody_is_unknown_because_an_endpoint_is_away() {
    let (owners, contract) = (Owners::default(), contract());
    let (unknown, said) = fees_to(There { away: true, ..all_is_well() }, &owners, &[1, 9]).await;
    assert!(matches!(said, Err(SettlementError::Chain(_))), "it is asked again: {said:?}");
    assert!(unknown.is_empty());
    let (unknown, said) = fees_to(all_is_well(), &owners, &[1, STRANGE]).await;
    assert!(matches!(said, Err(SettlementError::Waiting(_))), "that says nothing of the payee: {said:?}");
    assert!(unknown.is_empty());

    assert_eq!(fees_to(all_is_well(), &owners, &[1]).await.1.expect("it answers"), None);
    let (unknown, said) = fees_to(all_is_well(), &owners, &[1, 9, 12]).await;
    let words = format!(
        "the configuration's fees.shares name payee 9, 12, and the contract {contract} on chain c knows none of that number: fees for it \
         are kept and not posted until it is registered, or another is named"
    );
    assert_eq!((unknown, said.expect("it answers")), ([9, 12].into(), Some(words)));
    let (unknown, _) = fees_to(There { away: true, ..all_is_well() }, &owners, &[9, 12]).await;
    assert_eq!(unknown, [9, 12].into(), "nor is anybody known because of that");
    let (unknown, _) = fees_to(There { payees: &[1, 9], ..all_is_well() }, &owners, &[9, 12]).await;
    assert_eq!(unknown, [12].into(), "it was registered");
}

#[tokio::test]
async fn an_endpoint_that_lacks_its_newest_block_does_not_say_which_rows_would_be_credited() {
    let post = Post {
        id: "p".to_owned(),
        funding: FundingId::chain("c", &B256::ZERO.to_string()),
        state: PostState::Planned,
        rows: vec![(7, 9)],
        amount: Amount::from_units(9),
        lines_root: [0; 32],
        journal_head: [0; 32],
        winner: None,
        block: None,
    };
    let takes = async |newest| {
        let chain = Chain::connect(&There { newest, ..all_is_well() }.listen().await).expect("an address");
        EvmNode { chain, contract: contract(), signer: key().address() }.takes(&post).await
    };
    assert_eq!(takes(true).await.expect("it answers"), Takes::All);
    let error = takes(false).await.expect_err("it doesn't know the time");
    assert!(matches!(error, SettlementError::Waiting(_)), "asking again may help: {error}");
}

#[tokio::test]
async fn a_token_that_is_not_configured_is_whichever_the_contract_holds() {
    let mut config = configured(There { token: Some(Address::repeat_byte(9)), ..all_is_well() }).await;
    config.token_address = None;
    let (wires, agreed) = look(&config).await.expect("it answers");
    let seen = Seen { endpoints: &wires.endpoints, agreed: &agreed, pen: &wires.pen };
    assert!(setup::check_contract(&seen, &config).await.is_ok());
}

#[tokio::test]
async fn an_address_that_is_none_is_told_before_anything_is_asked() {
    let config = configured(all_is_well()).await;
    let words = |config: &ChainConfig| setup::wires(config, key()).err().map(|error| error.to_string());
    assert_eq!(
        words(&ChainConfig { contract: "0x12".to_owned(), ..config.clone() }),
        Some("\"0x12\" is not a contract's address".to_owned())
    );
}
