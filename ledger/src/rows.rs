//! What a post says of each lane, and what it is called.

use crate::Lane;
use sha2::{Digest, Sha256};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// What of each lane there is room for: those that are owed least first, so that one large lane keeps nobody waiting. With
/// the sum, and whether that is all of it.
pub(crate) fn rows_within(lanes: &[Lane], room: Amount) -> (Vec<(u32, u64)>, u64, bool) {
    let owed = |lane: &Lane| lane.total.units() - lane.planned.units();
    let mut order: Vec<&Lane> = lanes.iter().collect();
    order.sort_by_key(|lane| (owed(lane), lane.payee));
    let (mut left, mut rows) = (room.units(), Vec::new());
    for lane in order {
        let part = owed(lane).min(left);
        left -= part;
        if part > 0 {
            rows.push((lane.payee, lane.planned.units() + part));
        }
    }
    rows.sort_unstable();
    let all: u64 = lanes.iter().map(owed).sum();
    let more = all.min(room.units());
    (rows, more, more == all)
}

/// The same rows of an account give the same name.
pub(crate) fn post_id(funding: &FundingId, rows: &[(u32, u64)]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"supercargo.post");
    hasher.update(funding.as_str());
    for (payee, total) in rows {
        hasher.update(payee.to_be_bytes());
        hasher.update(total.to_be_bytes());
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_owed_least_is_paid_first_and_the_rest_waits() {
        let lane = |payee, total, planned| Lane {
            payee,
            total: Amount::from_units(total),
            planned: Amount::from_units(planned),
            posted: Amount::ZERO,
        };
        let lanes = [lane(1, 100, 10), lane(2, 50, 40), lane(3, 7, 7), lane(4, 30, 0)];
        for (room, rows, sum, whole) in [
            (u64::MAX, vec![(1, 100), (2, 50), (4, 30)], 130, true),
            (130, vec![(1, 100), (2, 50), (4, 30)], 130, true),
            (129, vec![(1, 99), (2, 50), (4, 30)], 129, false),
            (40, vec![(2, 50), (4, 30)], 40, false),
            (5, vec![(2, 45)], 5, false),
            (0, vec![], 0, false),
        ] {
            assert_eq!(rows_within(&lanes, Amount::from_units(room)), (rows, sum, whole), "room for {room}");
        }
        assert_eq!(rows_within(&lanes[2..3], Amount::MAX), (vec![], 0, true));
    }
}
