//! Quantities as Kubernetes writes them, kept as they were read: `4` is never printed as `"4"`, nor `1000m` as `1`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// What the API server holds a quantity's text to.
pub const PATTERN: &str =
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    Number(i64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("{0:?} is not a quantity such as \"4\", \"500m\" or \"8Gi\"")]
    Malformed(String),
    #[error("{0:?} is negative: it must be more than 0")]
    Negative(String),
    #[error("{0:?} is more than any node could give")]
    TooLarge(String),
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Quantity {
    /// In whole units (bytes, devices), a fraction rounded up.
    pub fn units(&self) -> Result<u64, QuantityError> {
        self.scaled(0)
    }

    /// In thousandths (of a core), a fraction of that rounded up.
    pub fn millis(&self) -> Result<u64, QuantityError> {
        self.scaled(3)
    }

    /// The value times `10^decimals`, rounded up.
    fn scaled(&self, decimals: i32) -> Result<u64, QuantityError> {
        let text = self.to_string();
        let malformed = || QuantityError::Malformed(text.chars().take(40).collect());
        if text.starts_with('-') {
            return Err(QuantityError::Negative(text.chars().take(40).collect()));
        }
        let unsigned = text.strip_prefix('+').unwrap_or(&text);
        let end = unsigned.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(malformed());
        }
        let (binary, exponent) = suffix_scale(suffix).ok_or_else(malformed)?;
        let too_large = || QuantityError::TooLarge(text.chars().take(40).collect());
        let digits: u128 = [whole, fraction].concat().parse().map_err(|_| too_large())?;
        let value = digits.checked_mul(binary).ok_or_else(too_large)?;
        let places = i32::try_from(fraction.len()).map_err(|_| too_large())?;
        let exponent = exponent.saturating_add(decimals).saturating_sub(places);
        let scaled = match (10_u128.checked_pow(exponent.unsigned_abs()), exponent >= 0) {
            _ if value == 0 => 0,
            (Some(power), true) => value.checked_mul(power).ok_or_else(too_large)?,
            (None, true) => return Err(too_large()),
            (Some(power), false) => value.div_ceil(power),
            // However little it is, it is more than nothing: Kubernetes rounds up too.
            (None, false) => 1,
        };
        u64::try_from(scaled).map_err(|_| too_large())
    }
}

/// What a suffix multiplies by: a power of two, and a power of ten.
fn suffix_scale(suffix: &str) -> Option<(u128, i32)> {
    let binary = |power: u32| Some((1_u128 << (10 * power), 0));
    match suffix {
        "" => Some((1, 0)),
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => Some((1, exponent_of(suffix.strip_prefix(['e', 'E'])?)?)),
    }
}

/// The power of ten that is written behind an `e`. One past all counting is as good as any other that is.
fn exponent_of(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let most = if text.starts_with('-') { -1_000 } else { 1_000 };
    plain.then(|| text.parse::<i32>().map_or(most, |power| power.clamp(-1_000, 1_000)))
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }], "pattern": PATTERN, "maxLength": 32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_has_its_value() {
        let cases = [
            ("4", 4, 4_000),
            ("500m", 1, 500),
            ("1.5", 2, 1_500),
            ("8Gi", 8 << 30, 8_000 << 30),
            ("79G", 79_000_000_000, 79_000_000_000_000),
        ];
        for (text, units, millis) in cases {
            assert_eq!(Quantity::from(text).units(), Ok(units), "{text}");
            assert_eq!(Quantity::from(text).millis(), Ok(millis), "{text}");
        }
        assert_eq!(Quantity::from("1e3").units(), Ok(1_000));
        assert_eq!(Quantity::from("0.5Gi").units(), Ok(1 << 29));
        assert_eq!(Quantity::from("100n").millis(), Ok(1));
        for little in ["1e-31", "1e-999999999999", "0.0000000000000000000000000001n", "1e-10"] {
            assert_eq!(Quantity::from(little).units(), Ok(1), "{little} is more than nothing");
        }
        for nothing in ["0e-31", "0e31", "0.0Ei"] {
            assert_eq!(Quantity::from(nothing).units(), Ok(0), "{nothing}");
        }
    }

    #[test]
    fn what_is_no_quantity_says_so() {
        assert_eq!(
            Quantity::from("lots").units().expect_err("words").to_string(),
            "\"lots\" is not a quantity such as \"4\", \"500m\" or \"8Gi\""
        );
        assert!(matches!(Quantity::from("-1").units(), Err(QuantityError::Negative(_))));
        for much in ["99999Ei", "1e31", "1e99999999999", "99999999999999999999999999999999"] {
            assert!(matches!(Quantity::from(much).units(), Err(QuantityError::TooLarge(_))), "{much}");
        }
        for text in ["", ".", "1..2", "1Qi", "Gi", "1e", "1e+", "1e1.5", "1e--1"] {
            assert!(matches!(Quantity::from(text).units(), Err(QuantityError::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn a_quantity_is_printed_as_it_was_read() {
        for json in ["4", "\"4\"", "\"1000m\""] {
            let quantity: Quantity = serde_json::from_str(json).expect("a quantity");
            assert_eq!(serde_json::to_string(&quantity).expect("prints"), json);
        }
    }
}
