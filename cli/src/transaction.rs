//! A transaction for a person: shown exactly as it would be, and sent when asked with a key of theirs.

use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use supercargo_contracts::{Address, Bytes, Chain, PrivateKeySigner, Receipt};

/// Whose key signs, and whether anything is sent.
#[derive(Debug, Clone, Args)]
pub struct Signing {
    /// The chain's endpoint
    #[arg(long, env = "SUPERCARGO_RPC")]
    pub rpc: String,
    /// Sends the transaction instead of only printing it
    #[arg(long)]
    pub send: bool,
    /// An encrypted keystore file; its password is in --password-file
    #[arg(long, requires = "password_file", conflicts_with = "key_file")]
    pub keystore: Option<PathBuf>,
    #[arg(long)]
    pub password_file: Option<PathBuf>,
    /// A file with the private key in hex
    #[arg(long)]
    pub key_file: Option<PathBuf>,
    /// Whose transaction it would be, when it is only printed
    #[arg(long, conflicts_with_all = ["keystore", "key_file"])]
    pub from: Option<Address>,
}

/// Which contract.
#[derive(Debug, Clone, Args)]
pub struct On {
    /// The escrow contract's address
    #[arg(long, env = "SUPERCARGO_CONTRACT")]
    pub contract: Address,
    #[command(flatten)]
    pub signing: Signing,
}

impl Signing {
    pub fn chain(&self) -> Result<Chain> {
        Ok(Chain::connect(&self.rpc)?)
    }

    pub fn signer(&self) -> Result<Option<PrivateKeySigner>> {
        if let Some(path) = &self.key_file {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            return Ok(Some(text.trim().parse().with_context(|| format!("{} does not hold a private key in hex", path.display()))?));
        }
        let (Some(keystore), Some(password)) = (&self.keystore, &self.password_file) else { return Ok(None) };
        let password = std::fs::read_to_string(password).with_context(|| format!("reading {}", password.display()))?;
        let signer = PrivateKeySigner::decrypt_keystore(keystore, password.trim_end_matches('\n'))
            .with_context(|| format!("opening {}", keystore.display()))?;
        Ok(Some(signer))
    }

    /// Whose transactions these are.
    pub fn sender(&self) -> Result<Address> {
        match (self.signer()?, self.from) {
            (Some(signer), _) => Ok(signer.address()),
            (None, Some(from)) => Ok(from),
            (None, None) => bail!("whose transaction is it? Give --keystore, --key-file, or --from to print it only"),
        }
    }

    /// Prints the transaction; with --send also sends it and waits until it is included.
    pub async fn transact(&self, what: &'static str, to: Address, data: Bytes) -> Result<Option<Receipt>> {
        let chain = self.chain()?;
        println!("{what}");
        println!("  chain  {}", chain.chain_id().await?);
        println!("  from   {}", self.sender()?);
        println!("  to     {to}");
        println!("  value  0");
        println!("  data   {data}");
        if !self.send {
            println!("  not sent: add --send to send it, or give it to a wallet of yours");
            return Ok(None);
        }
        let Some(signer) = self.signer()? else { bail!("--send needs a key: give --keystore or --key-file") };
        let receipt = chain.execute(what, &signer, to, data).await?;
        println!("  sent   {} in block {}, {} gas", receipt.hash, receipt.block_number, receipt.gas_used);
        Ok(Some(receipt))
    }
}
