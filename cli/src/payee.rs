//! `kubectl supercargo payee`: the number under which a provider is paid.

use crate::transaction::On;
use anyhow::{Context, Result};
use clap::Subcommand;
use supercargo_contracts::{Address, B256, BlockId, calls};
use supercargo_market::money::Amount;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Become a payee: prints the number that a ProviderPool names
    Register {
        /// Where the money goes; the sender's own address if not given
        #[arg(long)]
        pay_to: Option<Address>,
        #[command(flatten)]
        on: On,
    },
    /// Have another address paid, in seven days
    SetPayTo {
        payee: u32,
        pay_to: Address,
        #[command(flatten)]
        on: On,
    },
    /// Collect what is mature of these accounts' lanes; anybody may, and the money goes to the payee
    Collect {
        payee: u32,
        #[arg(required = true)]
        accounts: Vec<B256>,
        #[command(flatten)]
        on: On,
    },
    /// What an account's lane to a payee says
    Show {
        payee: u32,
        accounts: Vec<B256>,
        #[command(flatten)]
        on: On,
    },
}

fn amount(units: u128) -> String {
    u64::try_from(units).map_or_else(|_| "more than can be said".to_owned(), |units| Amount::from_units(units).to_string())
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Register { pay_to, on } => {
            let pay_to = pay_to.map_or_else(|| on.signing.sender(), Ok)?;
            let receipt = on.signing.transact("registering a payee", on.contract, calls::register_call(pay_to)).await?;
            if let Some(receipt) = receipt {
                println!("payee {}", receipt.number.context("the receipt names no payee")?);
            }
            Ok(())
        }
        Command::SetPayTo { payee, pay_to, on } => {
            on.signing.transact("scheduling another address", on.contract, calls::set_pay_to_call(payee, pay_to)).await.map(drop)
        }
        Command::Collect { payee, accounts, on } => {
            let receipt = on.signing.transact("collecting", on.contract, calls::collect_call(payee, &accounts)).await?;
            if let Some(units) = receipt.and_then(|receipt| receipt.collected_units) {
                println!("collected {}", amount(units));
            }
            Ok(())
        }
        Command::Show { payee, accounts, on } => {
            let chain = on.signing.chain()?;
            let (owner, pay_to) = chain.payee(on.contract, payee).await?;
            println!("payee {payee} of {owner}, paid to {pay_to}");
            for account in accounts {
                let lane = chain.lane(on.contract, account, payee, BlockId::latest()).await?;
                println!(
                    "{account}: posted {}, mature {}, collected {}",
                    amount(lane.posted_units),
                    amount(lane.mature_units),
                    amount(lane.withdrawn_units)
                );
            }
            Ok(())
        }
    }
}
