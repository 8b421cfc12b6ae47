//! Money: integers of a token's base units, with decimals only where people read and write. Six decimals an amount,
//! nine a price; nothing is rounded when it is parsed and nothing is lost when it is printed.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Decimals of an amount: every token of this version has six.
pub const AMOUNT_DECIMALS: u32 = 6;
/// Decimals of a price.
pub const PRICE_DECIMALS: u32 = 9;
/// What an amount in a manifest looks like.
pub const AMOUNT_PATTERN: &str = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?$";
/// What a price in a manifest looks like.
pub const PRICE_PATTERN: &str = r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?$";
const AMOUNT_WHOLE_DIGITS: usize = 12;
const PRICE_WHOLE_DIGITS: usize = 9;

/// Why a text is not money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("{text:?} is not a decimal number such as \"12.50\": digits, no sign, no exponent, no leading zero")]
    NotDecimal { text: String },
    #[error("{text:?} has more than {decimals} decimals")]
    TooPrecise { text: String, decimals: u32 },
    #[error("{text:?} has more than {digits} digits before the point")]
    TooLarge { text: String, digits: usize },
}

/// An amount of a token, in its base units (millionths).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(u64);

/// A price an hour, in billionths of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Price(u64);

impl Amount {
    pub const ZERO: Self = Self(0);
    /// The greatest amount that a manifest can say.
    pub const MAX: Self = Self(999_999_999_999_999_999);

    pub const fn from_units(units: u64) -> Self {
        Self(units)
    }

    pub const fn units(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// What is left after taking `other`, or nothing.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Price {
    pub const ZERO: Self = Self(0);
    /// The greatest price that a manifest can say.
    pub const MAX: Self = Self(999_999_999_999_999_999);

    pub const fn from_nanos_per_hour(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn nanos_per_hour(self) -> u64 {
        self.0
    }
}

/// Reads a decimal into an integer of `10^-decimals`, refusing whatever would not be exact.
fn parse(text: &str, decimals: u32, whole_digits: usize) -> Result<u64, MoneyError> {
    let not_decimal = || MoneyError::NotDecimal { text: text.chars().take(40).collect() };
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(not_decimal()),
        None => (text, ""),
    };
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(not_decimal());
    }
    if whole.len() > whole_digits {
        return Err(MoneyError::TooLarge { text: text.chars().take(40).collect(), digits: whole_digits });
    }
    if fraction.len() > decimals as usize {
        return Err(MoneyError::TooPrecise { text: text.chars().take(40).collect(), decimals });
    }
    let padding = std::iter::repeat_n(b'0', decimals as usize - fraction.len());
    let digits = whole.bytes().chain(fraction.bytes()).chain(padding);
    // At most 18 digits by the checks above, and 10^18 < 2^64.
    Ok(digits.fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0')))
}

/// Prints at least `least` decimals, and as many as it takes to lose nothing.
fn print(formatter: &mut fmt::Formatter<'_>, value: u64, decimals: u32, least: usize) -> fmt::Result {
    let one = 10_u64.pow(decimals);
    let fraction = format!("{:0width$}", value % one, width = decimals as usize);
    let kept = fraction.trim_end_matches('0').len().max(least);
    formatter.pad(&format!("{}.{}", value / one, &fraction[..kept]))
}

impl FromStr for Amount {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse(text, AMOUNT_DECIMALS, AMOUNT_WHOLE_DIGITS).map(Self)
    }
}

impl FromStr for Price {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        parse(text, PRICE_DECIMALS, PRICE_WHOLE_DIGITS).map(Self)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(formatter, self.0, AMOUNT_DECIMALS, 2)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(formatter, self.0, PRICE_DECIMALS, 2)
    }
}

macro_rules! serde_as_decimal {
    ($kind:ty) => {
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}
serde_as_decimal!(Amount);
serde_as_decimal!(Price);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_read_exactly() {
        let cases = [("0", 0), ("1", 1_000_000), ("0.5", 500_000), ("0.000001", 1), ("48.00", 48_000_000)];
        for (text, units) in cases {
            assert_eq!(text.parse::<Amount>(), Ok(Amount(units)), "{text}");
        }
        assert_eq!("999999999999.999999".parse(), Ok(Amount::MAX));
        assert_eq!("0.000000001".parse(), Ok(Price(1)));
    }

    #[test]
    fn what_is_not_exact_is_refused_in_words() {
        for text in ["", ".", "1.", ".5", "01", "+1", "-1", "1e3", "1,5", " 1", "1 ", "0x10", "٣"] {
            assert!(matches!(text.parse::<Amount>(), Err(MoneyError::NotDecimal { .. })), "{text:?}");
        }
        let error = "0.0000001".parse::<Amount>().expect_err("seven decimals");
        assert_eq!(error.to_string(), "\"0.0000001\" has more than 6 decimals");
        let error = "1000000000000".parse::<Amount>().expect_err("thirteen digits");
        assert_eq!(error.to_string(), "\"1000000000000\" has more than 12 digits before the point");
    }

    #[test]
    fn amounts_print_two_decimals_or_as_many_as_needed() {
        assert_eq!(Amount(0).to_string(), "0.00");
        assert_eq!(Amount(1_500_000).to_string(), "1.50");
        assert_eq!(Amount(1).to_string(), "0.000001");
        assert_eq!(Price(2_100_000_000).to_string(), "2.10");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same(units in 0..=Amount::MAX.0) {
            prop_assert_eq!(Amount(units).to_string().parse(), Ok(Amount(units)));
            prop_assert_eq!(Price(units).to_string().parse(), Ok(Price(units)));
        }
    }
}
