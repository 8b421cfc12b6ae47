//! `kubectl supercargo`: the people's commands. Each that touches a chain prints the exact transaction, and sends it only
//! when asked to: nobody needs another tool to start, and nobody has to trust this one with a key.

mod claim;
mod escrow;
mod payee;
mod receipt;
mod settler;
mod task;
mod transaction;
mod voucher;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "kubectl supercargo", bin_name = "kubectl supercargo", version, about = "Escrows, payees and tasks of Supercargo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The account on the chain that an Escrow pays from
    #[command(subcommand)]
    Escrow(escrow::Command),
    /// The number under which a provider is paid
    #[command(subcommand)]
    Payee(payee::Command),
    /// The operator's keys on the chain
    #[command(subcommand)]
    Settler(settler::Command),
    /// What a payee can claim without the operator
    #[command(subcommand)]
    Voucher(voucher::Command),
    /// Receipts: what a task cost, checked by whoever has one
    #[command(subcommand)]
    Receipt(receipt::Command),
    /// Tasks, in plain words
    #[command(subcommand)]
    Task(task::Command),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ran: Result<()> = match Arguments::parse().command {
        Command::Escrow(command) => escrow::run(command).await,
        Command::Payee(command) => payee::run(command).await,
        Command::Settler(command) => settler::run(command).await,
        Command::Voucher(command) => voucher::run(command).await,
        Command::Receipt(command) => receipt::run(command).await,
        Command::Task(command) => task::run(command).await,
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
