//! What a post says of each lane, and what it is called.

use crate::Lane;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// What one post of an account may credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub units: Amount,
    /// What the chain has of each lane. Payees claim with vouchers, so it may have more than was posted, and that takes no
    /// room any more.
    pub credited: BTreeMap<u32, Amount>,
    /// Payees that the contract does not know: it would refuse a post with a row of theirs.
    pub unknown: BTreeSet<u32>,
}

/// With nothing that is known to be on the chain.
impl From<Amount> for Room {
    fn from(units: Amount) -> Self {
        Self { units, credited: BTreeMap::new(), unknown: BTreeSet::new() }
    }
}

impl Room {
    /// How much a post within it books.
    pub fn books(&self, lanes: &[Lane]) -> u64 {
        rows_within(lanes, self).1
    }

    /// Whether its payee can be posted to.
    pub(crate) fn takes(&self, lane: &Lane) -> bool {
        !self.unknown.contains(&lane.payee)
    }

    /// What of a lane is on the chain, or planned to be.
    fn there(&self, lane: &Lane) -> u64 {
        self.credited.get(&lane.payee).copied().unwrap_or_default().min(lane.total).max(lane.planned).units()
    }
}

/// What of each lane there is room for: those with least to credit first, so that one large lane keeps nobody waiting. With
/// what they add to what was planned, and whether that is all of it; of lanes whose payees can be posted to.
pub(crate) fn rows_within(lanes: &[Lane], room: &Room) -> (Vec<(u32, u64)>, u64, bool) {
    let missing = |lane: &Lane| lane.total.units() - room.there(lane);
    let mut order: Vec<&Lane> = lanes.iter().filter(|lane| room.takes(lane)).collect();
    order.sort_by_key(|lane| (missing(lane), lane.payee));
    let (mut left, mut more, mut whole, mut rows) = (room.units.units(), 0, true, Vec::new());
    for lane in order {
        let part = missing(lane).min(left);
        left -= part;
        let total = room.there(lane) + part;
        whole &= total == lane.total.units();
        if total > lane.planned.units() {
            more += total - lane.planned.units();
            rows.push((lane.payee, total));
        }
    }
    rows.sort_unstable();
    (rows, more, whole)
}

/// Of the rows of `charges` those of which nothing is owed to any of these payees, neither as the provider nor as a fee. Whose
/// provider was never noted counts to none of them.
pub(crate) fn owed_to_others(payees: &BTreeSet<u32>) -> String {
    if payees.is_empty() {
        return String::new();
    }
    let payees = payees.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    format!(
        " AND payee NOT IN ({payees}) AND NOT EXISTS (SELECT 1 FROM reservations r JOIN lanes l ON l.funding = charges.funding \
         WHERE r.work = charges.work AND l.payee IN ({payees}) AND r.split LIKE '%\"' || CAST(l.payee AS TEXT) || '\":%')"
    )
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

    fn lane(payee: u32, total: u64, planned: u64) -> Lane {
        Lane { payee, total: Amount::from_units(total), planned: Amount::from_units(planned), posted: Amount::ZERO }
    }

    #[test]
    fn who_is_owed_least_is_paid_first_and_the_rest_waits() {
        let lanes = [lane(1, 100, 10), lane(2, 50, 40), lane(3, 7, 7), lane(4, 30, 0)];
        for (room, rows, sum, whole) in [
            (u64::MAX, vec![(1, 100), (2, 50), (4, 30)], 130, true),
            (130, vec![(1, 100), (2, 50), (4, 30)], 130, true),
            (129, vec![(1, 99), (2, 50), (4, 30)], 129, false),
            (40, vec![(2, 50), (4, 30)], 40, false),
            (5, vec![(2, 45)], 5, false),
            (0, vec![], 0, false),
        ] {
            let room = Room::from(Amount::from_units(room));
            assert_eq!(rows_within(&lanes, &room), (rows, sum, whole), "{room:?}");
        }
        assert_eq!(rows_within(&lanes[2..3], &Amount::MAX.into()), (vec![], 0, true));
    }

    #[test]
    fn what_a_payee_has_claimed_takes_no_room_and_is_booked_all_the_same() {
        let lanes = [lane(1, 100, 10), lane(2, 50, 40)];
        for (claimed, room, rows, sum, whole) in [
            (100, 10, vec![(1, 100), (2, 50)], 100, true),
            (100, 9, vec![(1, 100), (2, 49)], 99, false),
            (100, 0, vec![(1, 100)], 90, false),
            (70, 10, vec![(1, 70), (2, 50)], 70, false),
            (70, 40, vec![(1, 100), (2, 50)], 100, true),
            // What is planned and not there yet, and more than is owed: another ledger's.
            (0, 10, vec![(2, 50)], 10, false),
            (500, 10, vec![(1, 100), (2, 50)], 100, true),
        ] {
            let credited = [(1, Amount::from_units(claimed))].into();
            let room = Room { credited, ..Room::from(Amount::from_units(room)) };
            assert_eq!(rows_within(&lanes, &room), (rows, sum, whole), "{room:?}");
            assert_eq!(room.books(&lanes), sum);
        }
    }

    #[test]
    fn a_payee_that_the_contract_does_not_know_takes_no_row_and_no_room_of_others() {
        let lanes = [lane(1, 100, 10), lane(2, 50, 40)];
        for (unknown, room, rows, sum, whole) in [
            (vec![2], 90, vec![(1, 100)], 90, true),
            (vec![2], 89, vec![(1, 99)], 89, false),
            (vec![1, 3], u64::MAX, vec![(2, 50)], 10, true),
            (vec![1, 2], u64::MAX, vec![], 0, true),
        ] {
            let room = Room { unknown: unknown.into_iter().collect(), ..Room::from(Amount::from_units(room)) };
            assert_eq!(rows_within(&lanes, &room), (rows, sum, whole), "{room:?}");
            assert_eq!(room.books(&lanes), sum);
        }
    }
}
