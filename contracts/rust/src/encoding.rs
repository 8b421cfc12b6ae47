//! The encodings that Solidity and Rust share; `contracts/vectors/encodings.json` holds both to the same bytes.

use alloy::primitives::{Address, B256, U256, keccak256};
use alloy::sol_types::{Eip712Domain, SolStruct, SolValue, eip712_domain};

const ROW_BYTES: usize = 13;
const TOTAL_BYTES: usize = 9;

/// "This payee's total is so much": what is posted, and what a voucher is a signature over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub payee: u32,
    /// Below 2^72; see [`Row::new`].
    total_units: u128,
}

impl Row {
    /// None when the total doesn't fit into 72 bits: four billion tokens of 12 decimals, so never with real money.
    pub fn new(payee: u32, total_units: u128) -> Option<Self> {
        (total_units >> (8 * TOTAL_BYTES) == 0).then_some(Self { payee, total_units })
    }
    pub fn total_units(&self) -> u128 {
        self.total_units
    }
}

/// Rows as `post` takes them: 4 bytes of payee and 9 bytes of total each.
pub fn pack_rows(rows: &[Row]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(rows.len() * ROW_BYTES);
    for row in rows {
        packed.extend_from_slice(&row.payee.to_be_bytes());
        packed.extend_from_slice(&row.total_units.to_be_bytes()[16 - TOTAL_BYTES..]);
    }
    packed
}

/// The inverse of [`pack_rows`]; None when the bytes are no whole number of rows.
pub fn unpack_rows(packed: &[u8]) -> Option<Vec<Row>> {
    let (rows, rest) = packed.as_chunks::<ROW_BYTES>();
    rest.is_empty().then(|| {
        rows.iter()
            .map(|bytes| {
                let mut payee = [0; 4];
                payee.copy_from_slice(&bytes[..4]);
                let mut total = [0; 16];
                total[16 - TOTAL_BYTES..].copy_from_slice(&bytes[4..]);
                Row { payee: u32::from_be_bytes(payee), total_units: u128::from_be_bytes(total) }
            })
            .collect()
    })
}

/// The account that a payer opens with this salt on this contract.
pub fn account_id(chain_id: u64, contract: Address, payer: Address, salt: B256) -> B256 {
    keccak256((keccak256("supercargo.account.v1"), U256::from(chain_id), contract, payer, salt).abi_encode())
}

/// The escrow object that a payer binds an account to: unique to the cluster, the namespace's life and the name.
pub fn tenant_id(kube_system_uid: &str, namespace_uid: &str, name: &str) -> B256 {
    let fields = (keccak256("supercargo.tenant.v1"), kube_system_uid.to_owned(), namespace_uid.to_owned(), name.to_owned());
    keccak256(fields.abi_encode_params())
}

mod typed {
    alloy::sol! {
        struct Row { bytes32 account; uint32 payee; uint72 total; }
        struct Release { bytes32 account; uint72 amount; uint40 thawEnd; }
    }
}

fn domain(chain_id: u64, contract: Address) -> Eip712Domain {
    eip712_domain! { name: "Supercargo Escrow", version: "1", chain_id: chain_id, verifying_contract: contract, }
}

/// What the settler signs to let a payer leave in an hour (EIP-712): this thaw and no other. None when a value doesn't fit.
pub fn release_digest(chain_id: u64, contract: Address, account: B256, amount_units: u128, thaw_end: u64) -> Option<B256> {
    let fits = amount_units >> (8 * TOTAL_BYTES) == 0 && thaw_end >> 40 == 0;
    fits.then(|| {
        typed::Release { account, amount: alloy::primitives::Uint::from(amount_units), thawEnd: alloy::primitives::Uint::from(thaw_end) }
            .eip712_signing_hash(&domain(chain_id, contract))
    })
}

/// What the settler signs for a row (EIP-712).
pub fn row_digest(chain_id: u64, contract: Address, account: B256, row: Row) -> B256 {
    typed::Row { account, payee: row.payee, total: alloy::primitives::Uint::from(row.total_units) }
        .eip712_signing_hash(&domain(chain_id, contract))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../vectors/encodings.json")).unwrap()
    }
    fn number(value: &Value) -> u128 {
        value.as_u64().map(u128::from).unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
    }
    fn parse<T: std::str::FromStr>(value: &Value) -> T
    where
        T::Err: std::fmt::Debug,
    {
        value.as_str().unwrap().parse().unwrap()
    }

    #[test]
    fn every_encoding_equals_its_recorded_vector() {
        let v = vectors();
        let row = |n: u8| Row::new(number(&v["rows"][format!("payee{n}")]) as u32, number(&v["rows"][format!("total{n}")])).unwrap();
        let packed = pack_rows(&[row(1), row(2)]);
        assert_eq!(packed, parse::<alloy::primitives::Bytes>(&v["rows"]["packed"]).to_vec());
        assert_eq!(unpack_rows(&packed).unwrap(), [row(1), row(2)]);

        let a = &v["account"];
        let (chain, contract) = (a["chainId"].as_u64().unwrap(), parse(&a["contract"]));
        let id = account_id(chain, contract, parse(&a["payer"]), parse(&a["salt"]));
        assert_eq!(id, parse::<B256>(&a["id"]));
        assert_eq!(row_digest(chain, contract, id, row(1)), parse::<B256>(&v["row"]["digest"]));
        let (amount, thaw_end) = (number(&v["release"]["amount"]), v["release"]["thawEnd"].as_u64().unwrap());
        assert_eq!(release_digest(chain, contract, id, amount, thaw_end), Some(parse(&v["release"]["digest"])));

        let t = &v["tenant"];
        let tenant = tenant_id(t["kubeSystemUid"].as_str().unwrap(), t["namespaceUid"].as_str().unwrap(), t["name"].as_str().unwrap());
        assert_eq!(tenant, parse::<B256>(&t["id"]));
    }

    #[test]
    fn a_total_that_does_not_fit_is_no_row_and_cut_bytes_are_no_rows() {
        assert!(Row::new(1, 1 << 72).is_none());
        assert!(Row::new(1, (1 << 72) - 1).is_some());
        assert!(unpack_rows(&[0; 14]).is_none());
    }
}
