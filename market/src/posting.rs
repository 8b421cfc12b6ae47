//! When what an account owes is worth a post. A post costs gas whatever it carries, and what is not posted yet is lent by whoever
//! earned it: so posts are made now and then, and sooner when much waits. What is too little waits for more, and is never dropped.

use crate::money::Amount;

/// A post that the contract refused is made anew after so long at most.
pub const REFUSED_SECONDS: u64 = 600;
/// While something goes from an account, what it owes is posted at least so often.
pub const LEAVING_SECONDS: u64 = 3_600;
/// What the contract uses for a post and for each of its rows, in lanes that exist.
const GAS_PER_POST: u128 = 40_000;
const GAS_PER_ROW: u128 = 6_000;
const WEI_PER_COIN: u128 = 1_000_000_000_000_000_000;

/// When a post is due. What is absent makes none due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// Less than this waits for more.
    pub least: Amount,
    /// So long after the last posts.
    pub seconds: u64,
    /// Sooner, when an account owes so much, or so many charges.
    pub amount: Option<Amount>,
    pub charges: Option<u64>,
    /// Sooner, when all accounts together owe one payee so much.
    pub exposure: Option<Amount>,
}

/// What an account owes that no post carries yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owed {
    /// As much of it as one post may credit now.
    pub amount: Amount,
    pub charges: u64,
    /// What the payee that is owed most of all those it owes to is owed by all accounts.
    pub exposure: Amount,
    /// Since the last posts.
    pub waited_seconds: u64,
    /// Since the contract refused its last one.
    pub refused_seconds: Option<u64>,
    pub leaving: Leaving,
}

/// Whether something goes from the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leaving {
    #[default]
    No,
    /// It was posted for since that is known, and lately.
    Known,
    /// It was not.
    New,
}

/// What makes a post due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Leaving,
    Refused,
    Time,
    Amount,
    Charges,
    Exposure,
}

/// Whether an account's post is due, and by what.
pub fn due(owed: &Owed, terms: &Terms) -> Option<Due> {
    // Who goes leaves nothing behind that would have waited for more.
    let least = if owed.leaving == Leaving::No { terms.least } else { Amount::ZERO };
    if owed.amount.is_zero() || owed.amount < least {
        return None;
    }
    // Whatever else is due: the contract is not asked at every look for what it refuses.
    if let Some(seconds) = owed.refused_seconds {
        return (seconds >= terms.seconds.min(REFUSED_SECONDS)).then_some(Due::Refused);
    }
    [
        (owed.leaving == Leaving::New, Due::Leaving),
        (owed.waited_seconds >= terms.seconds, Due::Time),
        (terms.amount.is_some_and(|most| owed.amount >= most), Due::Amount),
        (terms.charges.is_some_and(|most| owed.charges >= most), Due::Charges),
        (terms.exposure.is_some_and(|most| owed.exposure >= most), Due::Exposure),
    ]
    .into_iter()
    .find_map(|(reached, due)| reached.then_some(due))
}

/// What a post of so many rows costs at most, in the token: at a fee for each gas, where one coin of the chain is worth so much.
pub fn cost(rows: u64, fee_wei: u128, coin: Amount) -> Amount {
    let gas = GAS_PER_POST.saturating_add(GAS_PER_ROW.saturating_mul(rows.into()));
    let units = gas.saturating_mul(fee_wei).saturating_mul(coin.units().into()).div_ceil(WEI_PER_COIN);
    // What no amount can say is worth no post.
    u64::try_from(units).map_or(Amount::MAX, |units| Amount::from_units(units).min(Amount::MAX))
}

/// What is worth a post that costs so much, when it has to be worth so many times its cost. Where no post can ever carry that
/// much, as much as one can: more would be waited for in vain. But never less than its cost.
#[must_use]
pub fn worth(least: Amount, cost: Amount, multiple: u64, most: Amount) -> Amount {
    let wanted = least.max(Amount::from_units(cost.units().saturating_mul(multiple)).min(Amount::MAX));
    wanted.min(most.max(cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn units(units: u64) -> Amount {
        Amount::from_units(units)
    }

    const TIME: Terms = Terms { least: units(10), seconds: 3_600, amount: None, charges: None, exposure: None };
    const ALL: Terms = Terms { amount: Some(units(1_000)), charges: Some(50), exposure: Some(units(500)), ..TIME };
    const OWED: Owed =
        Owed { amount: units(10), charges: 1, exposure: units(10), waited_seconds: 3_599, refused_seconds: None, leaving: Leaving::No };

    #[test]
    fn a_post_is_due_by_time_and_sooner_by_what_is_configured() {
        let late = Owed { waited_seconds: 3_600, ..OWED };
        let much = Owed { amount: units(1_000_000), charges: 1_000, exposure: units(1_000_000), ..OWED };
        let cases = [
            ("not yet", OWED, ALL, None),
            ("time", late, TIME, Some(Due::Time)),
            ("time, whatever else is configured", late, ALL, Some(Due::Time)),
            ("by time alone, however much it is", much, TIME, None),
            ("an amount", Owed { amount: units(1_000), ..OWED }, ALL, Some(Due::Amount)),
            ("a unit less", Owed { amount: units(999), ..OWED }, ALL, None),
            ("a number of charges", Owed { charges: 50, ..OWED }, ALL, Some(Due::Charges)),
            ("one less", Owed { charges: 49, ..OWED }, ALL, None),
            ("what a payee is owed by all", Owed { exposure: units(500), ..OWED }, ALL, Some(Due::Exposure)),
            ("a unit less of it", Owed { exposure: units(499), ..OWED }, ALL, None),
        ];
        for (name, owed, terms, expected) in cases {
            assert_eq!(due(&owed, &terms), expected, "{name}");
        }
    }

    #[test]
    fn what_is_too_little_waits_whatever_is_due_unless_something_goes() {
        let little = Owed { amount: units(9), charges: 1_000, exposure: units(1_000_000), waited_seconds: 9_000, ..OWED };
        let cases = [
            ("too little", little, None),
            ("enough", Owed { amount: units(10), ..little }, Some(Due::Time)),
            ("little, of who goes", Owed { leaving: Leaving::New, ..little }, Some(Due::Leaving)),
            ("of who goes and was posted for", Owed { leaving: Leaving::Known, ..little }, Some(Due::Time)),
            (
                "of who goes, before its time",
                Owed { leaving: Leaving::Known, waited_seconds: 1, exposure: units(0), charges: 0, ..little },
                None,
            ),
            ("nothing, of who goes", Owed { amount: units(0), leaving: Leaving::New, ..little }, None),
        ];
        for (name, owed, expected) in cases {
            assert_eq!(due(&owed, &ALL), expected, "{name}");
        }
    }

    #[test]
    fn what_was_refused_is_not_tried_again_at_every_look() {
        let refused = |seconds| Owed {
            amount: units(1_000_000),
            waited_seconds: 9_000,
            refused_seconds: Some(seconds),
            leaving: Leaving::New,
            ..OWED
        };
        for (seconds, every, expected) in
            [(0, 3_600, None), (599, 3_600, None), (600, 3_600, Some(Due::Refused)), (1, 2, None), (2, 2, Some(Due::Refused))]
        {
            assert_eq!(due(&refused(seconds), &Terms { seconds: every, ..ALL }), expected, "after {seconds} s, with posts every {every} s");
        }
    }

    #[test]
    fn a_post_is_worth_a_multiple_of_what_its_gas_costs() {
        // 46,000 gas at a gwei are 0.000046 of a coin; at 2,500 it is 11.5 cents.
        let coin = units(2_500_000_000);
        let cases = [(1, 1_000_000_000, coin, 115_000), (0, 1, coin, 1), (1, 0, coin, 0), (1, 1_000_000_000, units(0), 0)];
        for (rows, fee_wei, coin, expected) in cases {
            assert_eq!(cost(rows, fee_wei, coin), units(expected), "{rows} rows at {fee_wei} wei");
        }
        assert_eq!(cost(100, 20_000_000_000, coin), units(32_000_000), "a hundred rows at 20 gwei");
        assert_eq!(cost(u64::MAX, u128::MAX, Amount::MAX), Amount::MAX);
        for (least, cost, multiple, expected) in [(10, 7, 0, 10), (10, 7, 1, 10), (10, 7, 2, 14), (0, u64::MAX, 2, Amount::MAX.units())] {
            assert_eq!(worth(units(least), units(cost), multiple, Amount::MAX), units(expected), "{multiple} times {cost}");
        }
        for (cost, multiple, most, expected) in [(0, 0, 5, 5), (0, 0, 11, 10), (2, 10, 5, 5), (2, 10, 20, 20), (2, 10, 1, 2), (2, 10, 0, 2)]
        {
            let worth = worth(units(10), units(cost), multiple, units(most));
            assert_eq!(worth, units(expected), "{multiple} times {cost}, of which a post carries {most}");
        }
    }
}
