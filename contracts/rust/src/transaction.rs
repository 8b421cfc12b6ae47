//! A transaction is made and signed as bytes before anything is sent: so that a caller can write it down first, and
//! send the same bytes again when no answer came.

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::{Decodable2718, Encodable2718};
use alloy::network::TxSignerSync;
use alloy::primitives::{Address, B256, Bytes, TxKind, U256};
use alloy::signers::local::PrivateKeySigner;

/// What is to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub to: Option<Address>,
    pub data: Bytes,
    pub gas_limit: u64,
}

/// What is offered for inclusion, in wei for a unit of gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    pub max_fee_wei: u128,
    pub priority_fee_wei: u128,
}

/// Bytes that the chain will take as they are, and the hash they will be found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    pub raw: Bytes,
    pub hash: B256,
}

/// Signs one call with one nonce. The same input gives the same bytes.
pub fn sign(
    signer: &PrivateKeySigner,
    chain_id: u64,
    nonce: u64,
    fees: Fees,
    call: &Call,
) -> Result<SignedTransaction, alloy::signers::Error> {
    let mut unsigned = TxEip1559 {
        chain_id,
        nonce,
        gas_limit: call.gas_limit,
        max_fee_per_gas: fees.max_fee_wei,
        max_priority_fee_per_gas: fees.priority_fee_wei,
        to: call.to.map_or(TxKind::Create, TxKind::Call),
        value: U256::ZERO,
        access_list: Default::default(),
        input: call.data.clone(),
    };
    let signature = signer.sign_transaction_sync(&mut unsigned)?;
    let envelope = TxEnvelope::from(unsigned.into_signed(signature));
    Ok(SignedTransaction { raw: envelope.encoded_2718().into(), hash: *envelope.tx_hash() })
}

/// What [`sign`] made these bytes of: the nonce and the call. `None` for others.
pub fn read(mut raw: &[u8]) -> Option<(u64, Call)> {
    let TxEnvelope::Eip1559(signed) = TxEnvelope::decode_2718(&mut raw).ok()? else { return None };
    let TxEip1559 { nonce, gas_limit, to, input, .. } = signed.strip_signature();
    Some((nonce, Call { to: to.to().copied(), data: input, gas_limit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_is_the_same_bytes_and_another_nonce_is_another_transaction() {
        let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap();
        let call = Call { to: Some(Address::repeat_byte(1)), data: Bytes::from_static(b"x"), gas_limit: 21_000 };
        let fees = Fees { max_fee_wei: 10, priority_fee_wei: 1 };
        let first = sign(&signer, 1, 5, fees, &call).unwrap();
        assert_eq!(first, sign(&signer, 1, 5, fees, &call).unwrap());
        assert_ne!(first.hash, sign(&signer, 1, 6, fees, &call).unwrap().hash);
        assert_eq!(first.hash, alloy::primitives::keccak256(&first.raw));
    }

    #[test]
    fn what_was_signed_is_read_from_its_bytes() {
        let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap();
        let fees = Fees { max_fee_wei: 10, priority_fee_wei: 1 };
        for to in [Some(Address::repeat_byte(1)), None] {
            let call = Call { to, data: Bytes::from_static(b"rows"), gas_limit: 21_000 };
            let signed = sign(&signer, 1, 5, fees, &call).unwrap();
            assert_eq!(read(&signed.raw), Some((5, call)));
            assert_eq!(read(&signed.raw[1..]), None);
        }
        assert_eq!(read(&[]), None);
    }
}
