//! The rules of `aggregation`, as the module ipt_NETFLOW writes them: `10.0.0.0/8=16` keeps 16 bits of an address in
//! 10.0.0.0/8, and `80-89=80` replaces the ports from 80 to 89 by 80.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::{Prefix, values};

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rule {
    /// Addresses in the prefix keep so many bits.
    Net(Prefix, u8),
    /// These ports become that one.
    Ports(RangeInclusive<u16>, u16),
}

/// The error is what was expected.
impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usual = "a rule such as 10.0.0.0/8=16 (prefix=bits to keep) or 80-89=80 (ports=port)";
        let (from, to) = text.split_once('=').ok_or(usual)?;
        if from.contains(['.', ':', '/']) {
            let prefix = Prefix::parse(from, usual)?;
            let most = if prefix.address.is_ipv4() { 32 } else { 128 };
            let kept = values::whole(0..=most)(to);
            let kept =
                kept.map_err(|_| format!("from 0 to {most} bits to keep after the \"=\""))?;
            return Ok(Self::Net(prefix, kept));
        }
        let (first, last) = from.split_once('-').unwrap_or((from, from));
        let port = |text| values::whole(0..=u16::MAX)(text).map_err(|_| usual.to_owned());
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("the lower port first, \"{last}-{first}={to}\""));
        }
        Ok(Self::Ports(first..=last, port(to)?))
    }
}

/// The form that [`FromStr`] reads back.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(prefix, kept) => write!(f, "{prefix}={kept}"),
            Self::Ports(ports, port) => write!(f, "{}-{}={port}", ports.start(), ports.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_rules_of_the_module_are_read_and_those_of_ipv6() {
        for (text, written) in [
            ("192.0.0.0/8=16", "192.0.0.0/8=16"),
            ("0.0.0.0/0=0", "0.0.0.0/0=0"),
            ("192.0.2.1=24", "192.0.2.1/32=24"),
            ("2001:db8::/32=48", "2001:db8::/32=48"),
            ("80-89=80", "80-89=80"),
            ("3128=80", "3128-3128=80"),
            ("1024-65535=0", "1024-65535=0"),
        ] {
            let rule: Rule = text.parse().unwrap();
            assert_eq!(rule.to_string(), written);
            assert_eq!(written.parse(), Ok(rule));
        }
    }

    #[test]
    fn a_rule_that_does_not_parse_is_told_what_is_expected() {
        for (text, expected) in [
            ("", "a rule such as"),
            ("192.0.2.0/24", "a rule such as"),
            (
                "192.0.2.1/24=16",
                "no bits set beyond the prefix, \"192.0.2.0/24\"",
            ),
            ("192.0.2.0/33=16", "a prefix length from 0 to 32"),
            ("192.0.2.0/24=33", "from 0 to 32 bits to keep"),
            ("192.0.2.0/24=", "from 0 to 32 bits to keep"),
            ("2001:db8::/32=129", "from 0 to 128 bits to keep"),
            ("89-80=80", "the lower port first, \"80-89=80\""),
            ("80-65536=80", "a rule such as"),
            ("80=80=80", "a rule such as"),
            ("http=80", "a rule such as"),
        ] {
            let found = text.parse::<Rule>().unwrap_err();
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }
}
