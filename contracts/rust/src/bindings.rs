//! Generated from the committed ABI and bytecode, so that building this crate needs no compiler for contracts.

use alloy::sol;

sol!(
    #[sol(rpc)]
    #[derive(Debug)]
    Escrow,
    "../abi/Escrow.json"
);

sol!(
    #[sol(rpc)]
    #[derive(Debug)]
    TestToken,
    "../abi/TestToken.json"
);
