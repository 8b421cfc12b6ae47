//! `kubectl supercargo escrow`: the account on the chain. What it needs to know stands in the Escrow's status.

use crate::transaction::Signing;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kube::{Api, Client};
use supercargo_contracts::calls::{self, Limits};
use supercargo_contracts::{AccountState, Address, B256, BlockId, account_id};
use supercargo_crds::Escrow;
use supercargo_crds::common::Money;
use supercargo_crds::escrow::{EscrowStatus, Funding};
use supercargo_market::money::Amount;

/// Which Escrow.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// The Escrow's name
    #[arg(default_value = "default")]
    name: String,
    #[arg(long, short)]
    namespace: Option<String>,
    /// Tells the payer's accounts apart: any text
    #[arg(long, default_value = "supercargo")]
    salt: String,
    #[command(flatten)]
    signing: Signing,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open the account: without money, with the limits that the settler can never pass
    Open {
        #[command(flatten)]
        which: Which,
        /// How much may be paid out in all, until it is raised
        #[arg(long)]
        allowance: Amount,
        /// How much may be paid out at once
        #[arg(long)]
        burst: Amount,
        /// How fast the burst refills, an hour
        #[arg(long)]
        per_hour: Amount,
        /// Who else may freeze the account and dispute what it owes, and move nothing: the key to keep in a drawer
        #[arg(long)]
        guardian: Option<Address>,
    },
    /// Bind the account to this Escrow and no other, for ever
    Bind {
        #[command(flatten)]
        which: Which,
    },
    /// Put money in
    Deposit {
        amount: Amount,
        #[command(flatten)]
        which: Which,
    },
    /// Raise the account's limits at once: what is not given stays as it is, and nothing can be lowered this way
    Raise {
        #[command(flatten)]
        which: Which,
        /// How much more may be paid out in all
        #[arg(long)]
        allowance: Option<Amount>,
        /// How much may be paid out at once
        #[arg(long)]
        burst: Option<Amount>,
        /// How fast the burst refills, an hour
        #[arg(long)]
        per_hour: Option<Amount>,
    },
    /// Begin to take money out: it can be withdrawn when the thaw ends
    Thaw {
        amount: Amount,
        #[command(flatten)]
        which: Which,
    },
    /// Take out what has thawed
    Withdraw {
        #[command(flatten)]
        which: Which,
    },
    /// What the chain says of the account, and what the operator's books say
    Show {
        #[command(flatten)]
        which: Which,
    },
}

/// What the Escrow's status says that a transaction needs.
struct Facts {
    contract: Address,
    settler: u32,
    tenant: B256,
    account: B256,
    status: EscrowStatus,
}

impl Which {
    async fn facts(&self) -> Result<Facts> {
        let client = Client::try_default().await.context("reaching the cluster")?;
        let namespace = self.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let api: Api<Escrow> = Api::namespaced(client, &namespace);
        let escrow = api.get(&self.name).await.with_context(|| format!("reading Escrow {namespace}/{}", self.name))?;
        if escrow.spec.funding != Funding::Chain {
            bail!("Escrow {namespace}/{} has funding Internal: it has no account on a chain", self.name);
        }
        let status = escrow.status.unwrap_or_default();
        let not_yet =
            || format!("Escrow {namespace}/{} has no status yet: is the operator running, and is its chain configured?", self.name);
        let contract: Address = status.contract.clone().with_context(not_yet)?.parse().context("reading the contract's address")?;
        let settler = status.settler.with_context(not_yet)?;
        let tenant: B256 = status.tenant.clone().with_context(not_yet)?.parse().context("reading the tenant")?;
        let chain_id = self.signing.chain()?.chain_id().await?;
        if Some(chain_id) != status.chain_id.map(i64::unsigned_abs) {
            bail!("{} serves chain id {chain_id}, and the Escrow's chain has id {}", self.signing.rpc, status.chain_id.unwrap_or_default());
        }
        let salt = supercargo_contracts::keccak256(self.salt.as_bytes());
        let account = match &escrow.spec.account_id {
            Some(account) => account.parse().context("reading spec.accountId")?,
            None => account_id(chain_id, contract, self.signing.sender()?, salt),
        };
        let settler = u32::try_from(settler).context("reading the settler's number")?;
        Ok(Facts { contract, settler, tenant, account, status })
    }
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Open { which, allowance, burst, per_hour, guardian } => open(&which, allowance, burst, per_hour, guardian).await,
        Command::Bind { which } => {
            let facts = which.facts().await?;
            which
                .signing
                .transact("binding the account to the Escrow", facts.contract, calls::bind_call(facts.account, facts.tenant))
                .await
                .map(drop)
        }
        Command::Raise { which, allowance, burst, per_hour } => raise(&which, allowance, burst, per_hour).await,
        Command::Deposit { amount, which } => deposit(&which, amount).await,
        Command::Thaw { amount, which } => {
            let facts = which.facts().await?;
            which.signing.transact("thawing", facts.contract, calls::thaw_call(facts.account, amount.units())).await.map(drop)
        }
        Command::Withdraw { which } => {
            let facts = which.facts().await?;
            which.signing.transact("withdrawing", facts.contract, calls::withdraw_call(facts.account)).await.map(drop)
        }
        Command::Show { which } => show(&which).await,
    }
}

async fn open(which: &Which, allowance: Amount, burst: Amount, per_hour: Amount, guardian: Option<Address>) -> Result<()> {
    let facts = which.facts().await?;
    let salt = supercargo_contracts::keccak256(which.salt.as_bytes());
    let limits = Limits {
        allowance_units: allowance.units(),
        burst_units: burst.units(),
        rate_units_per_second: per_hour.units() / 3_600,
        settler: facts.settler,
    };
    let data =
        calls::open_call(salt, guardian.unwrap_or_default(), limits).context("--burst or --per-hour is more than the contract can hold")?;
    which.signing.transact("opening an account", facts.contract, data).await?;
    let chain_id = which.signing.chain()?.chain_id().await?;
    let account = account_id(chain_id, facts.contract, which.signing.sender()?, salt);
    println!("account {account}");
    println!("name it in the Escrow: spec.accountId: \"{account}\"");
    Ok(())
}

async fn raise(which: &Which, allowance: Option<Amount>, burst: Option<Amount>, per_hour: Option<Amount>) -> Result<()> {
    let facts = which.facts().await?;
    let state = which.signing.chain()?.account(facts.contract, facts.account, BlockId::latest()).await?;
    if state.payer == Address::ZERO {
        bail!("account {} does not exist on this chain", facts.account);
    }
    let data = calls::raise_call(facts.account, raised(&state, allowance, burst, per_hour)?)
        .context("--burst or --per-hour is more than the contract can hold")?;
    which.signing.transact("raising the account's limits", facts.contract, data).await.map(drop)
}

/// What the limits are to be: what they are, unless something else is asked for.
fn raised(state: &AccountState, allowance: Option<Amount>, burst: Option<Amount>, per_hour: Option<Amount>) -> Result<Limits> {
    let now = |units: u128| u64::try_from(units).context("the account's limits are more than can be said here");
    let pick = |asked: Option<u64>, units: u128, flag: &str| match (asked, now(units)?) {
        (Some(asked), now) if asked < now => bail!("{flag} would lower what is allowed now: that takes a thaw"),
        (asked, now) => Ok(asked.unwrap_or(now)),
    };
    Ok(Limits {
        allowance_units: pick(allowance.map(Amount::units), state.allowance_units, "--allowance")?,
        burst_units: pick(burst.map(Amount::units), state.burst_units, "--burst")?,
        rate_units_per_second: pick(per_hour.map(|hour| hour.units() / 3_600), state.rate_units_per_second, "--per-hour")?,
        settler: state.settler,
    })
}

/// The token lets the contract take exactly this much, and the contract takes it.
async fn deposit(which: &Which, amount: Amount) -> Result<()> {
    let facts = which.facts().await?;
    let token = which.signing.chain()?.token(facts.contract).await?;
    which.signing.transact("allowing the contract to take the deposit", token, calls::approve_call(facts.contract, amount.units())).await?;
    which.signing.transact("depositing", facts.contract, calls::deposit_call(facts.account, amount.units())).await.map(drop)
}

async fn show(which: &Which) -> Result<()> {
    let facts = which.facts().await?;
    let state = which.signing.chain()?.account(facts.contract, facts.account, BlockId::latest()).await?;
    if state.payer == Address::ZERO {
        bail!("account {} does not exist on this chain", facts.account);
    }
    println!("account    {}", facts.account);
    println!("payer      {}", state.payer);
    println!(
        "bound      {}",
        if state.tenant == facts.tenant {
            "to this Escrow"
        } else if state.tenant == B256::ZERO {
            "to nothing yet"
        } else {
            "to another Escrow"
        }
    );
    println!("balance    {}", amount(state.balance_units));
    println!("thawing    {}", amount(state.thawing_units));
    println!("spendable  {} now, {} in all", amount(state.spendable_units), amount(state.allowance_units));
    println!("settler    {}{}", state.settler, if state.settler == facts.settler { "" } else { ", which is not this operator" });
    println!("credited   {} to payees, ever", amount(state.credited_units));
    for line in books(&state, &facts.status) {
        println!("{line}");
    }
    Ok(())
}

fn amount(units: u128) -> String {
    u64::try_from(units).map_or_else(|_| "more than can be said".to_owned(), |units| Amount::from_units(units).to_string())
}

/// What the Escrow's status has of the operator's books. The chain's newest block is ahead of what is final.
fn books(state: &AccountState, status: &EscrowStatus) -> Vec<String> {
    let (Some(posted), Some(owed)) = (status.posted, status.owed) else { return vec!["books      don't know it yet".to_owned()] };
    let differs = match state.credited_units.checked_sub(posted.0.units().into()) {
        Some(0) => "as the chain".to_owned(),
        Some(more) => format!("{} less than the chain, until that is final and booked", amount(more)),
        None => "more than the chain: what was final was undone, or this endpoint is behind".to_owned(),
    };
    let of = |part: Option<Money>| part.unwrap_or_default().0;
    vec![
        format!("books      {} posted, {differs}; {} owed beside it", posted.0, owed.0),
        format!("           {} reserved, {} available", of(status.reserved), of(status.available)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> AccountState {
        AccountState {
            payer: Address::ZERO,
            tenant: B256::ZERO,
            balance_units: 0,
            thawing_units: 0,
            thaw_end: 0,
            spendable_units: 0,
            allowance_units: 5_000_000,
            burst_units: 2_000_000,
            rate_units_per_second: 1_000,
            settler: 3,
            guardian: Address::ZERO,
            frozen_until: 0,
            credited_units: 0,
        }
    }

    #[test]
    fn what_the_books_say_stands_beside_what_the_chain_says_with_what_differs() {
        let money = |text: &str| Some(Money(text.parse().expect("an amount")));
        let status = EscrowStatus { posted: money("2"), owed: money("0.50"), reserved: money("1"), ..EscrowStatus::default() };
        let told = |credited_units| books(&AccountState { credited_units, ..state() }, &status);
        assert_eq!(
            told(2_000_000),
            ["books      2.00 posted, as the chain; 0.50 owed beside it", "           1.00 reserved, 0.00 available"]
        );
        assert!(told(2_250_000)[0].contains("2.00 posted, 0.25 less than the chain, until that is final and booked;"));
        assert!(told(0)[0].contains("2.00 posted, more than the chain: what was final was undone, or this endpoint is behind;"));
        assert_eq!(books(&state(), &EscrowStatus::default()), ["books      don't know it yet"]);
    }

    #[test]
    fn what_is_not_raised_stays_and_nothing_is_lowered() {
        let state = state();
        let amount = |text: &str| Some(text.parse::<Amount>().expect("an amount"));
        let limits = raised(&state, amount("6"), None, amount("7.20")).expect("it is more");
        let expected = Limits { allowance_units: 6_000_000, burst_units: 2_000_000, rate_units_per_second: 2_000, settler: 3 };
        assert_eq!(limits, expected);
        let error = raised(&state, None, amount("1.99"), None).expect_err("it is less").to_string();
        assert_eq!(error, "--burst would lower what is allowed now: that takes a thaw");
    }
}
