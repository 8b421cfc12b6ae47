//! Which vouchers to claim with now: of each lane the one for most that its account lets through. What is left is told, and when it
//! can go on.

use supercargo_contracts::{AccountState, LaneState, SettlerKeys, Voucher};
use supercargo_market::money::Amount;

/// A lane as the chain has it, and what was signed for it.
#[derive(Debug)]
pub struct Lane {
    pub payee: u32,
    pub state: LaneState,
    /// The one for least first.
    pub vouchers: Vec<Voucher>,
}

/// What holds for all accounts of a settler.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The newest block's.
    pub now: u64,
    /// So long a lane is closed after a credit.
    pub window_seconds: u64,
    /// Nothing can be claimed before.
    pub halted_until: u64,
}

/// What can be claimed of an account in one transaction, and what is said of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub vouchers: Vec<Voucher>,
    pub words: Vec<String>,
}

/// Those whose signatures are still good, and how many are not.
pub fn good(vouchers: Vec<Voucher>, keys: &SettlerKeys, now: u64) -> (Vec<Voucher>, usize) {
    let all = vouchers.len();
    let good: Vec<Voucher> = vouchers.into_iter().filter(|voucher| keys.are_good(voucher.signer, now)).collect();
    let old = all - good.len();
    (good, old)
}

pub fn choose(account: &AccountState, lanes: &[Lane], clock: Clock) -> Claims {
    let (mut claims, mut left) = (Claims::default(), account.clone());
    for lane in lanes {
        let (payee, posted) = (lane.payee, lane.state.posted_units);
        let above: Vec<(u128, &Voucher)> = lane.vouchers.iter().filter_map(|voucher| more(voucher, posted)).collect();
        let Some((all, _)) = above.last().copied() else { continue };
        if let Some(opens_at) = closed_until(&lane.state, clock) {
            claims
                .words
                .push(format!("{} for payee {payee} from {opens_at} (Unix seconds) on: until then its lane takes no more", units(all)));
            continue;
        }
        let Some((credit, voucher)) = above.iter().rev().find(|(more, _)| *more <= left.spendable_units).copied() else {
            let when = goes_on(&left, above[0].0, clock.now, clock);
            claims.words.push(format!("{} for payee {payee}, and nothing of it now: {when}", units(all)));
            continue;
        };
        left.spendable_units -= credit;
        left.balance_units = left.balance_units.saturating_sub(credit);
        left.allowance_units = left.allowance_units.saturating_sub(credit);
        claims.vouchers.push(voucher.clone());
        let next = above.iter().map(|(more, _)| *more).find(|more| *more > credit);
        let rest = next.map(|next| {
            let when = goes_on(&left, next - credit, clock.now.saturating_add(clock.window_seconds), clock);
            format!("; {} are left: {when}", units(all - credit))
        });
        claims.words.push(format!("{} for payee {payee} now{}", units(credit), rest.unwrap_or_default()));
    }
    claims
}

/// What a voucher is good for beyond what its lane has.
fn more(voucher: &Voucher, posted: u128) -> Option<(u128, &Voucher)> {
    let more = u128::from(voucher.total_units).checked_sub(posted)?;
    (more > 0).then_some((more, voucher))
}

/// Until when a lane takes nothing: what it has is not mature. A case takes what comes in, until a window before it lapses.
fn closed_until(lane: &LaneState, Clock { now, window_seconds, .. }: Clock) -> Option<u64> {
    if lane.posted_units <= lane.mature_units {
        return None;
    }
    match lane.disputed_until {
        0 => Some(lane.matures_at),
        until => (now.saturating_add(window_seconds) >= until).then_some(until),
    }
}

/// When the least of what is left can be claimed, not before `earliest`; or who has to do what for it.
fn goes_on(account: &AccountState, needed: u128, earliest: u64, clock: Clock) -> String {
    let AccountState { burst_units, allowance_units, balance_units, rate_units_per_second, spendable_units, frozen_until, .. } = *account;
    for (has, what, help) in [
        (burst_units, "lets no more through at once than", "its payer has to raise its burst"),
        (allowance_units, "has an allowance of", "its payer has to raise it"),
        (balance_units, "has", "its payer has to put more in"),
    ] {
        if needed > has {
            return format!("the least that can be claimed is {} and the account {what} {}: {help}", units(needed), units(has));
        }
    }
    // While nothing may leave, nobody says how full the bucket is.
    let stands_until = frozen_until.max(clock.halted_until);
    if stands_until > clock.now {
        return format!("go on at {} (Unix seconds): until then nothing leaves the account", stands_until.max(earliest));
    }
    let missing = needed.saturating_sub(spendable_units);
    if missing > 0 && rate_units_per_second == 0 {
        return "the account's rate is 0: its payer has to raise it".to_owned();
    }
    let seconds = missing.div_ceil(rate_units_per_second.max(1));
    let filled = clock.now.saturating_add(u64::try_from(seconds).unwrap_or(u64::MAX));
    format!("go on at {} (Unix seconds)", filled.max(earliest))
}

fn units(units: u128) -> Amount {
    Amount::from_units(u64::try_from(units).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use supercargo_contracts::{Address, B256, Bytes};

    const UNIT: u64 = 1_000_000;
    const CLOCK: Clock = Clock { now: 1_000, window_seconds: 100, halted_until: 0 };

    fn voucher(payee: u32, total: u64) -> Voucher {
        let (account, signer) = (B256::repeat_byte(2), Address::repeat_byte(7));
        let (contract, signature) = (Address::repeat_byte(1), Bytes::from(total.to_be_bytes()));
        Voucher { chain_id: 1, contract, account, payee, total_units: total * UNIT, signer, signature, signed_at: 9 }
    }

    fn lane(payee: u32, posted: u64, totals: &[u64]) -> Lane {
        let posted_units = u128::from(posted * UNIT);
        let state = LaneState {
            posted_units,
            mature_units: posted_units,
            withdrawn_units: 0,
            matures_at: 0,
            disputed_until: 0,
            case_fee_units: 0,
            returned_units: 0,
        };
        Lane { payee, state, vouchers: totals.iter().map(|total| voucher(payee, *total)).collect() }
    }

    fn matures(lane: Lane, matures_at: u64, disputed_until: u64) -> Lane {
        let state = LaneState { mature_units: 0, matures_at, disputed_until, ..lane.state };
        Lane { state, ..lane }
    }

    /// With a burst of 20, of which so much is there now, and a token in 10 seconds.
    fn account(spendable: u64) -> AccountState {
        AccountState {
            payer: Address::repeat_byte(3),
            tenant: B256::ZERO,
            balance_units: u128::from(1_000 * UNIT),
            thawing_units: 0,
            thaw_end: 0,
            spendable_units: u128::from(spendable * UNIT),
            allowance_units: u128::from(500 * UNIT),
            burst_units: u128::from(20 * UNIT),
            rate_units_per_second: u128::from(UNIT / 10),
            settler: 1,
            guardian: Address::ZERO,
            frozen_until: 0,
            credited_units: 0,
        }
    }

    fn said(account: &AccountState, lanes: &[Lane]) -> (Vec<u64>, Vec<String>) {
        let Claims { vouchers, words } = choose(account, lanes, CLOCK);
        (vouchers.iter().map(|voucher| voucher.total_units / UNIT).collect(), words)
    }

    #[test]
    fn the_greatest_that_fits_is_claimed_and_what_is_left_is_told_with_its_time() {
        let steps = [10, 20, 30, 45];
        for (posted, spendable, claimed, words) in [
            (0, 20, vec![20], "20.00 for payee 3 now; 25.00 are left: go on at 1100 (Unix seconds)"),
            (0, 15, vec![10], "10.00 for payee 3 now; 35.00 are left: go on at 1100 (Unix seconds)"),
            (20, 20, vec![30], "10.00 for payee 3 now; 15.00 are left: go on at 1100 (Unix seconds)"),
            // The bucket takes longer than the lane is closed.
            (10, 10, vec![20], "10.00 for payee 3 now; 25.00 are left: go on at 1100 (Unix seconds)"),
            (20, 10, vec![30], "10.00 for payee 3 now; 15.00 are left: go on at 1150 (Unix seconds)"),
            (25, 20, vec![45], "20.00 for payee 3 now"),
            (0, 4, vec![], "45.00 for payee 3, and nothing of it now: go on at 1060 (Unix seconds)"),
            (9, 1, vec![10], "1.00 for payee 3 now; 35.00 are left: go on at 1100 (Unix seconds)"),
        ] {
            assert_eq!(
                said(&account(spendable), &[lane(3, posted, &steps)]),
                (claimed, vec![words.to_owned()]),
                "{posted} with {spendable}"
            );
        }
        for posted in [45, 50] {
            assert_eq!(said(&account(20), &[lane(3, posted, &steps)]), (vec![], vec![]), "there is nothing beyond {posted}");
        }
    }

    #[test]
    fn claims_that_follow_each_other_get_all_of_it_and_nothing_twice() {
        let (steps, mut posted, mut claims) = ([10, 20, 30, 40, 45], 0, Vec::new());
        while let [total] = said(&account(20), &[lane(3, posted, &steps)]).0[..] {
            // Who asks again meanwhile claims nothing.
            let waits = matures(lane(3, total, &steps), 1_100, 0);
            assert!(said(&account(20), &[waits]).0.is_empty());
            claims.push(total - posted);
            posted = total;
        }
        assert_eq!((posted, claims), (45, vec![20, 20, 5]));
    }

    #[test]
    fn lanes_of_an_account_share_what_it_lets_through() {
        let lanes = [lane(3, 0, &[10, 15]), lane(4, 0, &[10]), lane(5, 0, &[5])];
        let (claimed, words) = said(&account(20), &lanes);
        assert_eq!(claimed, [15, 5]);
        assert_eq!(words[1], "10.00 for payee 4, and nothing of it now: go on at 1050 (Unix seconds)");
    }

    #[test]
    fn a_lane_that_is_closed_waits_and_one_with_an_open_case_takes_more_until_a_window_before_its_end() {
        for (matures_at, disputed_until, opens_at) in
            [(1_080, 0, Some(1_080)), (9_000, 9_000, None), (1_101, 1_101, None), (1_100, 1_100, Some(1_100))]
        {
            let (claimed, words) = said(&account(20), &[matures(lane(3, 5, &[10]), matures_at, disputed_until)]);
            assert_eq!(claimed.is_empty(), opens_at.is_some(), "{words:?}");
            if let Some(opens_at) = opens_at {
                let expected = format!("5.00 for payee 3 from {opens_at} (Unix seconds) on: until then its lane takes no more");
                assert_eq!(words, [expected]);
            }
        }
    }

    #[test]
    fn what_no_waiting_helps_is_told_with_who_has_to_do_what() {
        let units = |units: u64| u128::from(units * UNIT);
        let least = "50.00 for payee 3, and nothing of it now: the least that can be claimed is 30.00 and the account";
        let cases = [
            (account(20), format!("{least} lets no more through at once than 20.00: its payer has to raise its burst")),
            (
                AccountState { burst_units: units(40), allowance_units: units(29), ..account(20) },
                format!("{least} has an allowance of 29.00: its payer has to raise it"),
            ),
            (
                AccountState { burst_units: units(40), balance_units: units(5), ..account(5) },
                format!("{least} has 5.00: its payer has to put more in"),
            ),
            (
                AccountState { burst_units: units(40), rate_units_per_second: 0, ..account(5) },
                "50.00 for payee 3, and nothing of it now: the account's rate is 0: its payer has to raise it".to_owned(),
            ),
            (
                AccountState { burst_units: units(40), frozen_until: 4_000, ..account(0) },
                "50.00 for payee 3, and nothing of it now: go on at 4000 (Unix seconds): until then nothing leaves the account".to_owned(),
            ),
        ];
        for (account, words) in cases {
            assert_eq!(said(&account, &[lane(3, 0, &[30, 50])]), (vec![], vec![words]));
        }
    }

    #[test]
    fn what_a_key_signed_whose_time_is_over_is_left_out() {
        let keys = SettlerKeys { hot: Address::repeat_byte(8), previous: Address::repeat_byte(7), previous_until: 2_000, halted_until: 0 };
        let new = Voucher { signer: Address::repeat_byte(8), ..voucher(3, 5) };
        let both = vec![new.clone(), voucher(3, 9)];
        assert_eq!(good(both.clone(), &keys, 1_999), (both.clone(), 0));
        assert_eq!(good(both, &keys, 2_000), (vec![new], 1));
    }
}
