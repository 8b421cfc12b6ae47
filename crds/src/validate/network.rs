//! Address ranges that a task asks for: how they are written, and which of them nobody may reach.

use super::{Finding, MOST_RULES, finding};
use crate::task::ComputeTaskSpec;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

const NODE: &str = "the node itself, which no task may reach";
const LINK: &str = "link-local, where the cloud's metadata is, which no task may reach";
const METADATA: &str = "the cloud's metadata, which no task may reach";
/// Where nothing but the node, its neighbours on the link and the cloud's metadata answers.
const NEVER: [(&str, &str); 11] = [
    ("0.0.0.0/8", NODE),
    ("127.0.0.0/8", NODE),
    ("169.254.0.0/16", LINK),
    // Alibaba's, Azure's and Oracle's; Amazon's and Google's of IPv6.
    ("100.100.100.200/32", METADATA),
    ("168.63.129.16/32", METADATA),
    ("192.0.0.192/32", METADATA),
    ("fd00:ec2::254/128", METADATA),
    ("fd20:ce::254/128", METADATA),
    ("::/128", NODE),
    ("::1/128", NODE),
    ("fe80::/10", LINK),
];

/// An address range as bits, so that one can be held to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    four: bool,
    first: u128,
    bits: u32,
}

impl Range {
    fn width(self) -> u32 {
        if self.four { 32 } else { 128 }
    }

    /// The bits of an address that don't count.
    fn rest(self) -> u128 {
        let free = self.width() - self.bits;
        if free == 128 { u128::MAX } else { (1_u128 << free) - 1 }
    }

    /// An address, a slash, and how many of its bits count.
    pub fn read(text: &str) -> Option<Self> {
        let (address, digits) = text.split_once('/')?;
        // Rust reads `+8` and `08` as 8; Kubernetes does not.
        let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        let bits: u32 = digits.parse().ok().filter(|_| plain)?;
        Some(Self { bits, ..Self::of(address.parse().ok()?) }).filter(|range| bits <= range.width())
    }

    /// One address alone.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(four) => Self { four: true, first: u128::from(u32::from(four)), bits: 32 },
            IpAddr::V6(six) => Self { four: false, first: u128::from(six), bits: 128 },
        }
    }

    /// What no task may reach, whatever it asks for.
    pub fn never() -> impl Iterator<Item = Self> {
        NEVER.iter().filter_map(|(never, _)| Self::read(never))
    }

    pub fn holds(self, other: Self) -> bool {
        self.four == other.four && self.bits <= other.bits && other.first & !self.rest() == self.first
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = if self.four {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(self.first).unwrap_or_default()))
        } else {
            IpAddr::V6(self.first.into())
        };
        write!(formatter, "{first}/{}", self.bits)
    }
}

pub(super) fn network(spec: &ComputeTaskSpec, findings: &mut Vec<Finding>) {
    for (index, rule) in spec.network.rules.iter().enumerate().take(MOST_RULES) {
        if let Err(why) = judged(&rule.cidr) {
            findings.push(finding(format!("spec.network.rules[{index}].cidr"), why));
        }
    }
}

fn judged(text: &str) -> Result<(), String> {
    let short: String = text.chars().take(49).collect();
    let range = Range::read(text).ok_or_else(|| format!("{short:?} is not an address range such as \"203.0.113.0/24\""))?;
    if range.first & range.rest() != 0 {
        return Err(format!("{short:?} has bits set after the first {}: write the range's first address", range.bits));
    }
    // ::ffff:0:0/96
    if !range.four && range.bits >= 96 && range.first >> 32 == 0xffff {
        return Err(format!("{short:?} is an IPv4 range in IPv6's spelling: write it as IPv4"));
    }
    match NEVER.iter().find(|(never, _)| Range::read(never).is_some_and(|never| never.holds(range))) {
        Some((_, why)) => Err(format!("{short:?} is {why}: name other addresses")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_both_families_are_read() {
        for good in ["0.0.0.0/0", "203.0.113.7/32", "::/0", "2001:db8::/32", "2001:db8::1/128", "10.0.0.0/8", "168.63.129.0/24", "fd00::/8"]
        {
            assert_eq!(judged(good), Ok(()), "{good}");
        }
        for bad in ["", "/", "1.2.3.4/33", "::/129", "::1/64", "a/8", "1.2.3.4/x", "10.0.0.0/+8", "10.0.0.0/08", "0.0.0.0/00"] {
            assert!(judged(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_reaches_the_node_or_the_metadata_of_any_cloud() {
        let narrower = ["127.1.0.0/16", "169.254.169.254/32", "fe80::1/128", "::ffff:10.0.0.0/104"];
        for range in NEVER.iter().map(|(range, _)| *range).chain(narrower) {
            assert!(judged(range).is_err(), "{range}");
        }
    }
}
