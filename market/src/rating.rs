//! Rating: from seconds and quantities to money. The seconds of a work under one card are added up first and divided
//! once, so rounding costs less than one base unit however often something is charged.

use crate::money::{Amount, Price};

const NANOS_PER_UNIT: u128 = 1_000;
const SECONDS_PER_HOUR: u128 = 3_600;
const MILLIS: u128 = 1_000;
const GIB: u128 = 1 << 30;
const MIB: u128 = 1 << 20;
/// What a numerator is divided by to give base units.
const DENOMINATOR: u128 = NANOS_PER_UNIT * SECONDS_PER_HOUR * MILLIS * GIB;

/// What one worker holds while it runs, with the prices of its card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    pub devices: u32,
    pub device_price: Price,
    pub cpu_millis: u64,
    pub cpu_price: Price,
    pub memory_bytes: u64,
    pub memory_gib_price: Price,
    /// What the node's other devices cost an hour, all of them together: for who has the node alone.
    pub beside_price: Price,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cost is greater than any amount of money that the books can hold")]
pub struct TooMuch;

/// An exact cost: a numerator over a denominator that all costs share. Adding loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ExactCost(u128);

impl ExactCost {
    pub fn checked_add(self, other: Self) -> Result<Self, TooMuch> {
        self.0.checked_add(other.0).map(Self).ok_or(TooMuch)
    }

    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// What is charged: rounded down.
    pub fn charged(self) -> Result<Amount, TooMuch> {
        Self::amount(self.0 / DENOMINATOR)
    }

    /// What is reserved for it: rounded up.
    pub fn reserved(self) -> Result<Amount, TooMuch> {
        Self::amount(self.0.div_ceil(DENOMINATOR))
    }

    /// How often it fits into an amount: for ever when it costs nothing at all.
    pub fn times_within(self, amount: Amount) -> u64 {
        let whole = u128::from(amount.units()).saturating_mul(DENOMINATOR);
        whole.checked_div(self.0).map_or(u64::MAX, |times| u64::try_from(times).unwrap_or(u64::MAX))
    }

    /// How often it has to be paid until that is the amount, or more: never, when it costs nothing at all.
    pub fn times_to(self, amount: Amount) -> Option<u64> {
        let whole = u128::from(amount.units()).checked_mul(DENOMINATOR)?;
        if whole == 0 { Some(0) } else { (self.0 > 0).then(|| whole.div_ceil(self.0)).and_then(|times| u64::try_from(times).ok()) }
    }

    pub fn times(self, count: u64) -> Result<Self, TooMuch> {
        self.0.checked_mul(u128::from(count)).map(Self).ok_or(TooMuch)
    }

    fn amount(units: u128) -> Result<Amount, TooMuch> {
        u64::try_from(units).map(Amount::from_units).map_err(|_| TooMuch)
    }

    /// Digits for the books; `from_digits` reads them back.
    pub fn to_digits(self) -> String {
        self.0.to_string()
    }

    pub fn from_digits(digits: &str) -> Option<Self> {
        digits.parse().ok().map(Self)
    }
}

/// CPU and memory over time: what a card with the basis Used bills in the place of what was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantity {
    pub cpu_milli_seconds: u64,
    pub memory_mib_seconds: u64,
}

/// A quantity times its price, exactly.
fn part(quantity: u128, price: Price, scale: u128) -> Option<u128> {
    quantity.checked_mul(scale).and_then(|scaled| scaled.checked_mul(u128::from(price.nanos_per_hour())))
}

/// What so many seconds of it cost, exactly.
pub fn cost(held: &Held, seconds: u64) -> Result<ExactCost, TooMuch> {
    let cpu = part(u128::from(held.cpu_millis), held.cpu_price, GIB);
    let memory = part(u128::from(held.memory_bytes), held.memory_gib_price, MILLIS);
    let per_second = [cpu, memory].into_iter().chain(of_devices(held)).try_fold(0_u128, |sum, part| sum.checked_add(part?));
    per_second.and_then(|rate| rate.checked_mul(u128::from(seconds))).map(ExactCost).ok_or(TooMuch)
}

/// The same with CPU and memory as they were used, never above what was held.
pub fn cost_of_used(held: &Held, seconds: u64, used: &Quantity) -> Result<ExactCost, TooMuch> {
    let held_for = |quantity: u64| u128::from(quantity).checked_mul(u128::from(seconds));
    let cpu = held_for(held.cpu_millis).map(|most| most.min(u128::from(used.cpu_milli_seconds)));
    let memory = held_for(held.memory_bytes).map(|most| most.min(u128::from(used.memory_mib_seconds) * MIB));
    let cpu = cpu.and_then(|cpu| part(cpu, held.cpu_price, GIB));
    let memory = memory.and_then(|memory| part(memory, held.memory_gib_price, MILLIS));
    let devices = of_devices(held).map(|part| part?.checked_mul(u128::from(seconds)));
    [cpu, memory].into_iter().chain(devices).try_fold(0_u128, |sum, part| sum.checked_add(part?)).map(ExactCost).ok_or(TooMuch)
}

/// A second of its devices, and of those beside them.
fn of_devices(held: &Held) -> [Option<u128>; 2] {
    [part(u128::from(held.devices), held.device_price, MILLIS * GIB), part(1, held.beside_price, MILLIS * GIB)]
}

/// Everything included, for an hour: what is compared with a price limit.
pub fn price_per_hour(held: &Held) -> Result<Amount, TooMuch> {
    cost(held, 3_600)?.reserved()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one_gpu(per_hour: &str) -> Held {
        Held { devices: 1, device_price: per_hour.parse().expect("a price"), ..Held::default() }
    }

    #[test]
    fn an_hour_costs_the_price() {
        let cases = [("2.10", "2.10"), ("0.000000001", "0.00"), ("3600", "3600.00")];
        for (price, amount) in cases {
            assert_eq!(cost(&one_gpu(price), 3_600).and_then(ExactCost::charged).expect("fits").to_string(), amount);
        }
    }

    #[test]
    fn cpu_and_memory_are_priced_by_thousandths_and_bytes() {
        let held = Held {
            cpu_millis: 1_500,
            cpu_price: "0.02".parse().expect("a price"),
            memory_bytes: 8 << 30,
            memory_gib_price: "0.004".parse().expect("a price"),
            ..Held::default()
        };
        assert_eq!(price_per_hour(&held).expect("fits").to_string(), "0.062");
    }

    #[test]
    fn who_has_a_node_alone_pays_for_its_other_devices_too() {
        let held = Held { beside_price: "3.50".parse().expect("a price"), ..one_gpu("2.10") };
        assert_eq!(price_per_hour(&held).expect("fits").to_string(), "5.60");
    }

    #[test]
    fn a_reservation_rounds_up_and_a_charge_rounds_down() {
        let second = cost(&one_gpu("1"), 1).expect("fits");
        assert_eq!(second.charged().expect("fits").units(), 277);
        assert_eq!(second.reserved().expect("fits").units(), 278);
    }

    #[test]
    fn more_than_the_books_can_hold_is_an_error() {
        let held = Held { devices: u32::MAX, device_price: Price::MAX, ..Held::default() };
        assert_eq!(cost(&held, u64::MAX), Err(TooMuch));
    }

    #[test]
    fn what_was_used_is_never_more_than_what_was_held() {
        let held = Held {
            cpu_millis: 1_000,
            cpu_price: "3.60".parse().expect("a price"),
            memory_bytes: 1 << 30,
            memory_gib_price: "0.36".parse().expect("a price"),
            ..one_gpu("36")
        };
        // Of 10 s: the devices cost 0.10 whatever was used; all of CPU 0.01 and all of memory 0.001.
        let cases = [
            ("nothing is shown", 0, 0, "0.10"),
            ("half of the CPU", 5_000, 0, "0.105"),
            ("a quarter of the memory", 0, 2_560, "0.10025"),
            ("all of both", 10_000, 10_240, "0.111"),
            ("more than there was", u64::MAX, u64::MAX, "0.111"),
        ];
        for (name, cpu_milli_seconds, memory_mib_seconds, expected) in cases {
            let used = Quantity { cpu_milli_seconds, memory_mib_seconds };
            assert_eq!(cost_of_used(&held, 10, &used).and_then(ExactCost::charged).expect("fits").to_string(), expected, "{name}");
        }
        assert_eq!(cost_of_used(&held, 10, &Quantity { cpu_milli_seconds: u64::MAX, memory_mib_seconds: u64::MAX }), cost(&held, 10));
        assert_eq!(cost_of_used(&held, 0, &Quantity { cpu_milli_seconds: 7, memory_mib_seconds: 7 }), Ok(ExactCost::default()));
    }

    proptest! {
        #[test]
        fn charging_in_parts_costs_what_charging_at_once_does(price in 0_u64..10_000_000_000_000, parts in prop::collection::vec(0_u64..10_000, 1..50)) {
            let held = Held { devices: 3, device_price: Price::from_nanos_per_hour(price), cpu_millis: 7, cpu_price: Price::from_nanos_per_hour(price), ..Held::default() };
            let mut sum = ExactCost::default();
            for seconds in &parts {
                sum = sum.checked_add(cost(&held, *seconds).expect("fits")).expect("fits");
            }
            prop_assert_eq!(sum, cost(&held, parts.iter().sum()).expect("fits"));
            prop_assert_eq!(ExactCost::from_digits(&sum.to_digits()), Some(sum));
        }

        #[test]
        fn a_budget_is_never_overspent_by_the_seconds_it_pays_for(price in 1_u64..10_000_000_000_000, budget in 0_u64..1_000_000_000, workers in 1_u32..64) {
            let held = one_gpu(&Price::from_nanos_per_hour(price).to_string());
            let second = cost(&Held { devices: workers, ..held }, 1).expect("fits");
            let seconds = second.times_within(Amount::from_units(budget));
            let all = cost(&Held { devices: workers, ..held }, seconds).expect("fits").reserved().expect("fits");
            prop_assert!(all.units() <= budget);
        }
    }
}
