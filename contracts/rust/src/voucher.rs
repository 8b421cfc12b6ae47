//! Vouchers: rows that the settler signed for a payee, who can claim with them when the settler is gone; and what a payee's
//! owner signs to be given them.

use crate::encoding::{Row, row_digest};
use alloy::primitives::{Address, B256, Bytes, Signature};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use serde::{Deserialize, Serialize};

/// A signed row with all that a claim needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Voucher {
    pub chain_id: u64,
    pub contract: Address,
    pub account: B256,
    pub payee: u32,
    /// In base units; as text, since not every reader's numbers are whole.
    #[serde(with = "digits")]
    pub total_units: u64,
    pub signer: Address,
    pub signature: Bytes,
    /// Unix seconds.
    pub signed_at: i64,
}

/// What is answered to a payee.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Vouchers {
    pub vouchers: Vec<Voucher>,
    /// There are others, after the last of these.
    #[serde(default)]
    pub more: bool,
}

/// The voucher of a row. The same row gives the same bytes.
pub fn sign_row(
    signer: &PrivateKeySigner,
    chain_id: u64,
    contract: Address,
    account: B256,
    row: Row,
) -> Result<Bytes, alloy::signers::Error> {
    let signature = signer.sign_hash_sync(&row_digest(chain_id, contract, account, row))?;
    Ok(Bytes::copy_from_slice(&signature.as_bytes()))
}

impl Voucher {
    /// As the contract takes it.
    pub fn row(&self) -> Row {
        Row::new(self.payee, self.total_units.into()).expect("64 bits fit into 72")
    }

    /// Whether it was signed by who is said to have signed it.
    pub fn is_signed(&self) -> bool {
        let digest = row_digest(self.chain_id, self.contract, self.account, self.row());
        let signature = Signature::from_raw(&self.signature).ok();
        signature.and_then(|signature| signature.recover_address_from_prehash(&digest).ok()) == Some(self.signer)
    }
}

/// That whoever signed it wants what a payee is given, now and there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayeeRequest<'a> {
    pub chain_id: u64,
    pub contract: Address,
    pub payee: u32,
    /// Of the address that is asked, without what comes after a question mark.
    pub path: &'a str,
    /// Unix seconds.
    pub at: i64,
}

impl PayeeRequest<'_> {
    /// In words, for whoever signs it (EIP-191).
    pub fn text(&self) -> String {
        let Self { chain_id, contract, payee, path, at } = self;
        format!("Supercargo: payee {payee} of {contract} on chain {chain_id} asks for {path} at {at}")
    }

    pub fn sign(&self, signer: &PrivateKeySigner) -> Result<Bytes, alloy::signers::Error> {
        Ok(Bytes::copy_from_slice(&signer.sign_message_sync(self.text().as_bytes())?.as_bytes()))
    }

    /// Who signed it; `None` when these bytes are no signature.
    pub fn signer(&self, signature: &[u8]) -> Option<Address> {
        let signature = Signature::from_raw(signature).ok()?;
        // Of each signature there are two forms: only one is taken.
        let signature = signature.normalize_s().is_none().then_some(signature)?;
        signature.recover_address_from_msg(self.text().as_bytes()).ok()
    }
}

mod digits {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(units: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(units)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| de::Error::custom("an amount in base units is a whole number as text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PrivateKeySigner {
        PrivateKeySigner::from_bytes(&B256::repeat_byte(byte)).unwrap()
    }

    fn voucher() -> Voucher {
        let (contract, account) = (Address::repeat_byte(1), B256::repeat_byte(2));
        let signature = sign_row(&key(7), 1, contract, account, Row::new(3, 5).unwrap()).unwrap();
        let signer = key(7).address();
        Voucher { chain_id: 1, contract, account, payee: 3, total_units: 5, signer, signature, signed_at: 9 }
    }

    #[test]
    fn a_voucher_is_what_was_signed_and_nothing_else() {
        let good = voucher();
        assert!(good.is_signed());
        for bad in [
            Voucher { chain_id: 2, ..good.clone() },
            Voucher { contract: Address::repeat_byte(9), ..good.clone() },
            Voucher { account: B256::repeat_byte(9), ..good.clone() },
            Voucher { payee: 4, ..good.clone() },
            Voucher { total_units: 6, ..good.clone() },
            Voucher { signer: key(8).address(), ..good.clone() },
            Voucher { signature: Bytes::from_static(&[1; 65]), ..good.clone() },
            Voucher { signature: Bytes::new(), ..good.clone() },
        ] {
            assert!(!bad.is_signed(), "{bad:?}");
        }
        let written = serde_json::to_string(&Vouchers { vouchers: vec![good.clone()], more: false }).unwrap();
        assert!(written.contains("\"totalUnits\":\"5\""), "{written}");
        assert_eq!(serde_json::from_str::<Vouchers>(&written).unwrap().vouchers, [good]);
    }

    #[test]
    fn a_request_is_for_one_payee_one_path_one_chain_and_one_time() {
        let request = PayeeRequest { chain_id: 1, contract: Address::repeat_byte(1), payee: 3, path: "/v1/vouchers/c/3", at: 9 };
        let signature = request.sign(&key(7)).unwrap();
        assert_eq!(request.signer(&signature), Some(key(7).address()));
        for other in [
            PayeeRequest { chain_id: 2, ..request.clone() },
            PayeeRequest { contract: Address::repeat_byte(2), ..request.clone() },
            PayeeRequest { payee: 4, ..request.clone() },
            PayeeRequest { path: "/v1/vouchers/c/4", ..request.clone() },
            PayeeRequest { at: 10, ..request.clone() },
        ] {
            assert_ne!(other.signer(&signature), Some(key(7).address()), "{other:?}");
        }
        assert_eq!(request.signer(&signature[..64]), None);
        assert_eq!(request.signer(&[0; 65]), None);
    }
}
