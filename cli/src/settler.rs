//! `kubectl supercargo settler`: the keys that post and sign for accounts. The cold key names the hot one; it stays in a drawer.

use crate::transaction::On;
use anyhow::{Context, Result};
use clap::Subcommand;
use supercargo_contracts::{Address, calls};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Become a settler: the sender's key is its cold key; prints the number that the operator's configuration names
    Enroll {
        /// The address of the hot key, which the operator has
        hot: Address,
        #[command(flatten)]
        on: On,
    },
    /// Name another hot key, by the cold one: what the old one signed stays good for seven days
    Rotate {
        settler: u32,
        /// The address of the new hot key
        hot: Address,
        /// The old key is in other hands: what it signed is void at once, vouchers too
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        on: On,
    },
    /// Its keys, and what the hot one has left for gas
    Show {
        settler: u32,
        #[command(flatten)]
        on: On,
    },
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Enroll { hot, on } => {
            let receipt = on.signing.transact("enrolling a settler", on.contract, calls::enroll_call(hot)).await?;
            if let Some(receipt) = receipt {
                println!("settler {}", receipt.number.context("the receipt names no settler")?);
            }
            Ok(())
        }
        Command::Rotate { settler, hot, compromised, on } => {
            on.signing.transact("naming another hot key", on.contract, calls::rotate_call(settler, hot, compromised)).await.map(drop)
        }
        Command::Show { settler, on } => {
            let chain = on.signing.chain()?;
            let (hot, cold) = chain.settler(on.contract, settler).await?;
            println!("hot   {hot}");
            println!("cold  {cold}");
            println!("gas   {} gwei on the hot key", chain.gas_balance_wei(hot).await? / 1_000_000_000);
            Ok(())
        }
    }
}
