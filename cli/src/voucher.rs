//! `kubectl supercargo voucher`: what a payee can claim on the chain without the operator. Pull them while it lives; claim with
//! them when it doesn't.

use crate::claim::{self, Claims, Clock, Lane};
use crate::transaction::On;
use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use supercargo_contracts::{Address, B256, BlockId, Bytes, Chain, PayeeRequest, Row, Voucher, Vouchers, calls};

/// An answer has at most 200 of some 500 bytes each.
const MOST_BYTES: usize = 1 << 20;
/// Nobody has so many accounts that it pays to ask on.
const MOST_PAGES: usize = 500;
const PATIENCE: Duration = Duration::from_secs(30);
/// The operator signs for no more steps of a lane at a time. Where a file has more than some such sets, old ones are left out.
const MOST_OF_LANE: usize = 256;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take a payee's newest vouchers from the operator, and keep them in a file
    Pull {
        payee: u32,
        #[command(flatten)]
        on: On,
        /// The operator's API: its Service supercargo-api, port 8081
        #[arg(long, env = "SUPERCARGO_API")]
        api: String,
        /// The chain's name in the operator's configuration, as the ProviderPool has it
        #[arg(long, default_value = "default")]
        chain: String,
        /// Where they are kept: what is there already stays
        #[arg(long, default_value = "vouchers.json")]
        file: PathBuf,
    },
    /// Claim with the vouchers of a file as much as goes now: anybody may, and what is credited is the payee's to collect
    Claim {
        #[arg(default_value = "vouchers.json")]
        file: PathBuf,
        #[command(flatten)]
        on: On,
    },
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Pull { payee, on, api, chain, file } => pull(payee, &on, &api, &chain, &file).await,
        Command::Claim { file, on } => claim(&file, &on).await,
    }
}

async fn pull(payee: u32, on: &On, api: &str, chain: &str, file: &Path) -> Result<()> {
    let key = on.signing.signer()?.context("whose vouchers are they? Give --keystore or --key-file: the key that registered the payee")?;
    let chain_id = on.signing.chain()?.chain_id().await?;
    let client = reqwest::Client::builder().timeout(PATIENCE).build().context("making an HTTP client")?;
    let path = format!("/v1/vouchers/{chain}/{payee}");
    let (mut found, mut after) = (Vec::new(), None::<(B256, u64)>);
    for _ in 0..MOST_PAGES {
        let at = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).context("reading the clock")?.as_secs())?;
        let request = PayeeRequest { chain_id, contract: on.contract, payee, path: &path, at };
        let query = after.map(|(after, below)| format!("?after={after}&below={below}")).unwrap_or_default();
        let asked = client
            .get(format!("{}{path}{query}", api.trim_end_matches('/')))
            .header("supercargo-at", at.to_string())
            .header("supercargo-signature", request.sign(&key)?.to_string());
        let page = read(asked.send().await.with_context(|| format!("asking {api}"))?).await?;
        after = page.vouchers.last().map(|last| (last.account, last.total_units));
        found.extend(page.vouchers);
        if !page.more || after.is_none() {
            break;
        }
    }
    for voucher in &found {
        check(voucher, chain_id, on.contract, payee)?;
    }
    let known = kept(file)?;
    let (pulled, all) = (found.len(), merged(known, found));
    let all = thinned(&on.signing.chain()?, chain_id, on.contract, all).await;
    keep(file, &all)?;
    println!("{pulled} vouchers of payee {payee}, {} in {}", all.len(), file.display());
    Ok(())
}

/// No more than an answer has.
async fn read(mut answer: reqwest::Response) -> Result<Vouchers> {
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.context("reading the answer")? {
        body.extend_from_slice(&part);
        if body.len() > MOST_BYTES {
            bail!("the answer is longer than any answer of the operator");
        }
    }
    if !status.is_success() {
        let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let words = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or("without a word");
        bail!("the operator says no ({status}): {words}");
    }
    serde_json::from_slice(&body).context("the answer is no list of vouchers")
}

/// What can't be claimed with is worth nothing, whoever says that it is a voucher.
fn check(voucher: &Voucher, chain_id: u64, contract: Address, payee: u32) -> Result<()> {
    let whose = format!("the voucher of account {}", voucher.account);
    if (voucher.chain_id, voucher.contract, voucher.payee) != (chain_id, contract, payee) {
        bail!("{whose} is for payee {} of {} on chain {}", voucher.payee, voucher.contract, voucher.chain_id);
    }
    if !voucher.is_signed() {
        bail!("{whose} is not signed by {}", voucher.signer);
    }
    Ok(())
}

fn kept(file: &Path) -> Result<Vec<Voucher>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(serde_json::from_str::<Vouchers>(&text).with_context(|| format!("{} holds no vouchers", file.display()))?.vouchers),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

/// Of each lane all of them, for a claim takes the greatest that fits; of two for as much the one that was signed later, for keys
/// change.
fn merged(known: Vec<Voucher>, found: Vec<Voucher>) -> Vec<Voucher> {
    let mut steps: BTreeMap<(u64, Address, B256, u32, u64), Voucher> = BTreeMap::new();
    for voucher in known.into_iter().chain(found) {
        let step = (voucher.chain_id, voucher.contract, voucher.account, voucher.payee, voucher.total_units);
        if steps.get(&step).is_none_or(|kept| voucher.signed_at > kept.signed_at) {
            steps.insert(step, voucher);
        }
    }
    steps.into_values().collect()
}

fn is_same_lane(one: &Voucher, other: &Voucher) -> bool {
    (one.chain_id, one.contract, one.account, one.payee) == (other.chain_id, other.contract, other.account, other.payee)
}

/// Without those of long lanes of this contract that have matured on the chain, for which nobody claims any more. What can't be
/// asked is kept.
async fn thinned(chain: &Chain, chain_id: u64, contract: Address, vouchers: Vec<Voucher>) -> Vec<Voucher> {
    let mut thin = Vec::new();
    for lane in vouchers.chunk_by(is_same_lane) {
        let is_asked = lane.len() > MOST_OF_LANE && (lane[0].chain_id, lane[0].contract) == (chain_id, contract);
        let state = if is_asked { chain.lane(contract, lane[0].account, lane[0].payee, BlockId::latest()).await.ok() } else { None };
        thin.extend(unripe(lane, state.map_or(0, |state| state.mature_units)));
    }
    thin
}

/// Of a lane's vouchers those for more than what has matured, and the last.
fn unripe(lane: &[Voucher], mature_units: u128) -> impl Iterator<Item = Voucher> {
    let last = lane.last().map(|last| last.total_units);
    lane.iter().filter(move |voucher| u128::from(voucher.total_units) > mature_units || Some(voucher.total_units) == last).cloned()
}

/// Wholly or not at all: what was there is worth money.
fn keep(file: &Path, vouchers: &[Voucher]) -> Result<()> {
    let text = serde_json::to_string_pretty(&Vouchers { vouchers: vouchers.to_vec(), more: false })?;
    let beside = file.with_extension("new");
    let write = || {
        let mut out = std::fs::File::create(&beside)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&beside, file)
    };
    write().with_context(|| format!("writing {}", file.display()))
}

async fn claim(file: &Path, on: &On) -> Result<()> {
    let chain = on.signing.chain()?;
    let chain_id = chain.chain_id().await?;
    let here = |voucher: &Voucher| (voucher.chain_id, voucher.contract) == (chain_id, on.contract) && voucher.is_signed();
    let mut accounts: BTreeMap<B256, Vec<Voucher>> = BTreeMap::new();
    for voucher in kept(file)?.into_iter().filter(here) {
        accounts.entry(voucher.account).or_default().push(voucher);
    }
    let mut found = false;
    let refused = each(accounts, async |account, vouchers| {
        let Claims { vouchers, words } = claims(&chain, on.contract, account, vouchers).await?;
        found |= !words.is_empty();
        words.iter().for_each(|words| println!("account {account}: {words}"));
        if !vouchers.is_empty() {
            on.signing.transact("claiming with vouchers", on.contract, claim_data(account, &vouchers)).await?;
        }
        Ok(())
    })
    .await;
    ensure!(refused == 0, "{refused} of the accounts let nothing be claimed now: see above");
    if !found {
        println!("there is nothing to claim now");
    }
    Ok(())
}

/// Does that for each account, and says how many of them refused: what one lets nobody have now is no reason to leave what others do.
async fn each(accounts: BTreeMap<B256, Vec<Voucher>>, mut claim: impl AsyncFnMut(B256, Vec<Voucher>) -> Result<()>) -> usize {
    let mut refused = 0;
    for (account, vouchers) in accounts {
        if let Err(error) = claim(account, vouchers).await {
            eprintln!("account {account}: {error:#}");
            refused += 1;
        }
    }
    refused
}

/// What the chain lets be claimed of an account now.
async fn claims(chain: &Chain, contract: Address, account: B256, vouchers: Vec<Voucher>) -> Result<Claims> {
    let (height, (window_seconds, _)) = (chain.height().await?, chain.window_and_thaw(contract).await?);
    let now = chain.block(height).await?.context("the endpoint lacks its newest block")?.timestamp;
    let at = BlockId::number(height);
    let state = chain.account(contract, account, at).await?;
    let keys = chain.settler_keys(contract, state.settler).await?;
    let (good, old) = claim::good(vouchers, &keys, now);
    let mut lanes: BTreeMap<u32, Vec<Voucher>> = BTreeMap::new();
    for voucher in good {
        lanes.entry(voucher.payee).or_default().push(voucher);
    }
    let mut found = Vec::new();
    for (payee, mut vouchers) in lanes {
        vouchers.sort_by_key(|voucher| voucher.total_units);
        found.push(Lane { payee, state: chain.lane(contract, account, payee, at).await?, vouchers });
    }
    let mut claims = claim::choose(&state, &found, Clock { now, window_seconds, halted_until: keys.halted_until });
    if old > 0 {
        claims.words.push(format!("{old} vouchers are signed by a key that its settler has no more: pull newer ones"));
    }
    Ok(claims)
}

fn claim_data(account: B256, vouchers: &[Voucher]) -> Bytes {
    match vouchers {
        [one] => calls::claim_call(account, one.row(), one.signature.clone()),
        many => {
            let rows: Vec<Row> = many.iter().map(Voucher::row).collect();
            calls::claim_many_call(account, &rows, many.iter().flat_map(|one| one.signature.to_vec()).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supercargo_contracts::{PrivateKeySigner, sign_row};

    fn voucher(account: u8, total_units: u64, signed_at: i64) -> Voucher {
        let key: PrivateKeySigner = format!("0x{}", "07".repeat(32)).parse().expect("a key");
        let (contract, account) = (Address::repeat_byte(1), B256::repeat_byte(account));
        let row = Row::new(3, total_units.into()).expect("fits");
        let signature = sign_row(&key, 1, contract, account, row).expect("signs");
        Voucher { chain_id: 1, contract, account, payee: 3, total_units, signer: key.address(), signature, signed_at }
    }

    #[test]
    fn what_is_kept_is_never_less_than_what_was() {
        let known = vec![voucher(1, 50, 5), voucher(2, 10, 5)];
        // An operator with old books tells of less.
        let found = vec![voucher(1, 40, 9), voucher(2, 10, 9), voucher(3, 1, 9)];
        assert_eq!(merged(known, found), [voucher(1, 40, 9), voucher(1, 50, 5), voucher(2, 10, 9), voucher(3, 1, 9)]);
    }

    #[test]
    fn what_has_matured_is_left_out_of_a_long_lane_and_never_the_last() {
        let lane = [voucher(1, 10, 5), voucher(1, 20, 5), voucher(1, 30, 5)];
        for (mature, left) in [(0, 3), (9, 3), (10, 2), (20, 1), (99, 1)] {
            assert_eq!(unripe(&lane, mature).collect::<Vec<_>>(), lane[3 - left..], "{mature} are mature");
        }
    }

    #[tokio::test]
    async fn an_account_that_refuses_keeps_no_other_from_being_claimed_from() {
        let accounts = [1, 2, 3].map(|number| (B256::repeat_byte(number), vec![voucher(number, 50, 5)]));
        let mut claimed = Vec::new();
        let refused = each(accounts.into(), async |account, vouchers| {
            ensure!(account != B256::repeat_byte(1), "frozen");
            claimed.extend(vouchers.into_iter().map(|voucher| voucher.account));
            Ok(())
        })
        .await;
        assert_eq!((refused, claimed), (1, vec![B256::repeat_byte(2), B256::repeat_byte(3)]));
        assert_eq!(each(BTreeMap::new(), async |_, _| bail!("nobody is asked")).await, 0);
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_one_that_is_not_there_is_empty() {
        let folder = std::env::temp_dir().join(format!("vouchers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("vouchers.json");
        assert_eq!(kept(&file).expect("is empty"), []);
        keep(&file, &[voucher(1, 50, 5)]).expect("writes");
        keep(&file, &[voucher(1, 60, 6)]).expect("writes again");
        assert_eq!(kept(&file).expect("reads"), [voucher(1, 60, 6)]);
        std::fs::write(&file, "{").expect("writes");
        assert!(kept(&file).is_err(), "what can't be read is not taken for nothing");
        std::fs::remove_dir_all(&folder).expect("goes");
    }

    #[test]
    fn what_nobody_could_claim_with_is_refused_in_words() {
        let (good, contract) = (voucher(1, 50, 5), Address::repeat_byte(1));
        check(&good, 1, contract, 3).expect("is good");
        for (bad, words) in [
            (Voucher { chain_id: 2, ..good.clone() }, "on chain 2"),
            (Voucher { payee: 4, ..good.clone() }, "is for payee 4"),
            (Voucher { total_units: 51, ..good.clone() }, "is not signed by"),
        ] {
            let error = check(&bad, 1, contract, 3).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn several_vouchers_of_an_account_are_one_claim() {
        let (first, second) = (voucher(1, 50, 5), voucher(1, 60, 5));
        assert_eq!(
            claim_data(first.account, std::slice::from_ref(&first)),
            calls::claim_call(first.account, first.row(), first.signature.clone())
        );
        let joined: Bytes = [first.signature.to_vec(), second.signature.to_vec()].concat().into();
        let many = calls::claim_many_call(first.account, &[first.row(), second.row()], joined);
        assert_eq!(claim_data(first.account, &[first, second]), many);
    }
}
