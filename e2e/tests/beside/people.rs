//! What buyers do for themselves with `kubectl supercargo`: nothing is sent that was not shown, and money comes out only as the
//! contract lets it.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use supercargo_contracts::{AccountState, B256, BlockId, Chain};
use supercargo_e2e::chain_setup::Person;
use supercargo_e2e::journey::{Journey, Stage, condition_of, journey};
use supercargo_e2e::people::{self, printed};
use supercargo_e2e::wait;

/// The buyer's key, with a password and a cost that would not do outside of a test.
const KEYSTORE: &str = r#"{"crypto": {"cipher": "aes-128-ctr", "cipherparams": {"iv": "000102030405060708090a0b0c0d0e0f"},
"ciphertext": "726a05ef0dd970feb5b49ffa498d09c2ac4016a8f7263620fc86fde49f46870b", "kdf": "scrypt", "kdfparams": {"dklen": 32, "n": 1024,
"p": 1, "r": 8, "salt": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
"mac": "3cf75aeaf20969c5d64c176559cb4b257afffc1370af1a5e81b5aa34b6b64a2d"}, "id": "00000000-0000-4000-8000-000000000001", "version": 3}"#;

/// What the chain says of an account now.
async fn account(stage: &Stage, account: B256) -> Result<AccountState> {
    Ok(Chain::connect(&stage.info.chain_url)?.account(stage.market.addresses.escrow, account, BlockId::latest()).await?)
}

/// A command about the journey's Escrow.
async fn escrow(journey: &Journey, words: &str, signed: &[&str]) -> Result<String> {
    let Stage { info, market, .. } = &journey.stage;
    let namespace = journey.namespace.as_str();
    let which = ["-n", namespace, "--salt", namespace, "--rpc", &info.chain_url];
    people::command(info, market, &[&words.split_whitespace().collect::<Vec<_>>(), &which[..], signed].concat()).await
}

#[tokio::test]
async fn a_command_shows_its_transaction_and_sends_it_only_when_asked_to() {
    journey("shown", |journey| async move {
        let id = journey.funded(5).await?;
        let had = account(&journey.stage, id).await?.allowance_units;
        let buyer = Person::Buyer.signer().address().to_string();
        let shown = escrow(&journey, "escrow raise default --allowance 60", &["--from", &buyer]).await?;
        ensure!(shown.contains("not sent"), "{shown}");
        ensure!(account(&journey.stage, id).await?.allowance_units == had, "what was only shown changed something");

        let folder = tempfile::tempdir()?;
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).map(|()| file.display().to_string())
        };
        let keystore = write("keystore.json", KEYSTORE)?;
        let (right, wrong) = (write("password", "a password\n")?, write("wrong", "another\n")?);
        let signed = |password| ["--keystore", keystore.as_str(), "--password-file", password, "--send"];
        let refused = escrow(&journey, "escrow raise default --allowance 60", &signed(&wrong)).await.err().context("a wrong password")?;
        ensure!(format!("{refused:#}").contains("keystore.json"), "{refused:#}");
        let sent = escrow(&journey, "escrow raise default --allowance 60", &signed(&right)).await?;
        ensure!(printed(&shown, "  data")? == printed(&sent, "  data")?, "what is sent is what was shown:\n{shown}\n{sent}");
        ensure!(account(&journey.stage, id).await?.allowance_units == 60_000_000);
        let lower = escrow(&journey, "escrow raise default --allowance 1", &signed(&right)).await.err().context("a lower allowance")?;
        ensure!(format!("{lower:#}").contains("would lower what is allowed now"), "{lower:#}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_thaws_is_offered_to_no_task_and_comes_out_when_it_has_thawed() {
    journey("thaws", |journey| async move {
        let id = journey.funded(5).await?;
        let key = Person::Buyer.key_file(&journey.stage.layout).display().to_string();
        let signed = ["--key-file", key.as_str(), "--send"];
        escrow(&journey, "escrow thaw 2 default", &signed).await?;
        wait::until("the Escrow to tell of the thaw", Duration::from_secs(60), || async {
            let escrow = journey.get("escrow", "default").await?;
            let leaving = condition_of(&escrow, "Leaving").context("the condition Leaving")?;
            ensure!(leaving["status"] == "True", "{leaving}");
            let status = &escrow["status"];
            Ok((status["thawing"] == "2.00" && status["available"] == "3.00").then_some(()))
        })
        .await?;
        let shown = escrow(&journey, "escrow show default", &["--from", &Person::Buyer.signer().address().to_string()]).await?;
        ensure!(printed(&shown, "thawing")? == "2.00" && printed(&shown, "balance")? == "5.00", "{shown}");
        let early = escrow(&journey, "escrow withdraw default", &signed).await.err().context("it thaws for days")?;
        ensure!(format!("{early:#}").contains("thaws until"), "{early:#}");
        ensure!(account(&journey.stage, id).await?.balance_units == 5_000_000);
        Ok(())
    })
    .await;
}
