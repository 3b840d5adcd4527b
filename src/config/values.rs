//! Parsers of single values: text in, a valid value or the expectation out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::tree::Parsed;
use super::units::{parse_duration, parse_size};
use super::{
    Facility, Format, LogScope, MarkFilter, Method, Namespace, NatEventValues, Prefix, Severity,
    Version,
};
use crate::session::Protocol;

/// The kinds of syslog targets; address and path are keys of their own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TargetKind {
    Local,
    Udp,
    File,
    Stdout,
    Journal,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RecordKind {
    Events,
    Triplet,
    Flow,
}

/// Functions that read one of a few words.
macro_rules! choices {
    ($($name:ident: $type:ty { $($text:pat => $value:expr),* $(,)? })*) => {
        $(pub(crate) fn $name(text: &str) -> Parsed<$type> {
            match text {
                $($text => Ok($value),)*
                _ => Err(None),
            }
        })*
    };
}

choices! {
    flag: bool { "true" => true, "false" => false }
    log_scope: LogScope { "nat" => LogScope::Nat, "all" => LogScope::All }
    // There is only one so far.
    transport: () { "udp" => () }
    // By name, or by the number in its header.
    version: Version {
        "v5" | "5" => Version::NetflowV5,
        "v9" | "9" => Version::NetflowV9,
        "ipfix" | "10" => Version::Ipfix,
    }
    // A copy has no triplets beside its events: csv writes events as triplets.
    copied_kind: RecordKind { "events" => RecordKind::Events, "flow" => RecordKind::Flow }
    record_kind: RecordKind {
        "events" => RecordKind::Events,
        "triplet" => RecordKind::Triplet,
        "flow" => RecordKind::Flow,
    }
    nat_event: NatEventValues { "rfc8158" => NatEventValues::Rfc8158, "legacy" => NatEventValues::Legacy }
    target: TargetKind {
        "local" => TargetKind::Local,
        "udp" => TargetKind::Udp,
        "file" => TargetKind::File,
        "stdout" => TargetKind::Stdout,
        "journal" => TargetKind::Journal,
    }
    method: Method { "tc" => Method::Tc, "nft" => Method::Nft, "external" => Method::External }
    format: Format {
        "csv" => Format::Csv,
        "text" => Format::Text,
        "json" => Format::Json,
        "rfc5424" => Format::Rfc5424,
    }
    severity: Severity {
        "emerg" => Severity::Emergency,
        "alert" => Severity::Alert,
        "crit" => Severity::Critical,
        "err" | "error" => Severity::Error,
        "warning" | "warn" => Severity::Warning,
        "notice" => Severity::Notice,
        "info" | "informational" => Severity::Informational,
        "debug" => Severity::Debug,
    }
}

pub(crate) fn facility(text: &str) -> Parsed<Facility> {
    let facility: Result<syslog::Facility, ()> = text.parse();
    facility
        .map(|facility| Facility(facility as u8))
        .map_err(|()| None)
}

pub(crate) fn protocol(text: &str) -> Parsed<Protocol> {
    Protocol::parse(text).ok_or(None)
}

/// `value`, or `value/mask`. A value with bits that the mask clears would match nothing.
pub(crate) fn mark(text: &str) -> Parsed<MarkFilter> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let (Some(value), Some(mask)) = (number(value), number(mask)) else {
        return Err(None);
    };
    if value & !mask != 0 {
        return Err(Some(format!(
            "a value whose bits are all in the mask, such as {:#x}/{mask:#x}",
            value & mask
        )));
    }
    Ok(MarkFilter { value, mask })
}

/// A mark to set, without a mask. A connection without one has 0.
pub(crate) fn mark_value(text: &str) -> Parsed<u32> {
    number(text).filter(|mark| *mark != 0).ok_or(None)
}

/// An address prefix; an address alone is the prefix of its full length.
pub(crate) fn prefix(text: &str) -> Parsed<Prefix> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| None)?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => plain(length).ok_or(None)?,
        None => full,
    };
    if length > full {
        return Err(Some(format!(
            "a prefix length from 0 to {full}, such as \"{address}/{full}\""
        )));
    }
    let network = network_of(address, length);
    if network != address {
        return Err(Some(format!(
            "no bits set beyond the prefix, \"{network}/{length}\""
        )));
    }
    Ok(Prefix { address, length })
}

/// An address with an optional port: `192.0.2.1:2055`, `192.0.2.1`, `[2001:db8::1]:2055`, `2001:db8::1`.
pub(crate) fn address(default_port: u16) -> impl Fn(&str) -> Parsed<SocketAddr> {
    move |text| {
        let within = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let ip = within.unwrap_or(text).parse();
        let alone = ip.map(|ip: IpAddr| SocketAddr::new(ip, default_port));
        text.parse().or(alone).map_err(|_| no_address(text))
    }
}

/// The usual mistakes: an impossible port, and a name, which might mean another host tomorrow.
fn no_address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() && plain::<u16>(port).is_none() {
        Some("a port from 1 to 65535".to_owned())
    } else if host.contains(|c: char| c.is_ascii_alphabetic()) && host.chars().all(letters) {
        Some(format!(
            "an IP address, as names are not looked up (\"getent ahosts {host}\" prints its addresses)"
        ))
    } else {
        None
    }
}

/// The same for a destination, whose address and port cannot be "any".
pub(crate) fn destination(default_port: u16) -> impl Fn(&str) -> Parsed<SocketAddr> {
    move |text| {
        let destination = address(default_port)(text)?;
        let ip = destination.ip();
        if destination.port() == 0 {
            Err(Some("a port from 1 to 65535".to_owned()))
        } else if ip.is_unspecified() || ip == Ipv4Addr::BROADCAST {
            Err(Some("the address of one host".to_owned()))
        } else {
            Ok(destination)
        }
    }
}

pub(crate) fn ipv4_address(text: &str) -> Parsed<Ipv4Addr> {
    text.parse().map_err(|_| None)
}

pub(crate) fn absolute_path(text: &str) -> Parsed<PathBuf> {
    let path = PathBuf::from(text);
    // The kernel's paths end at a NUL.
    let is_whole = path.is_absolute() && !text.contains('\0');
    is_whole.then_some(path).ok_or(None)
}

/// The path of a Unix socket; the empty text for none.
pub(crate) fn optional_socket(text: &str) -> Parsed<Option<PathBuf>> {
    if text.is_empty() {
        return Ok(None);
    }
    // sun_path has 108 bytes, the last one a NUL (unix(7)).
    if text.len() > 107 {
        return Err(None);
    }
    absolute_path(text).map(Some)
}

/// A name as `ip netns` accepts it, or an absolute path.
pub(crate) fn namespace(text: &str) -> Parsed<Namespace> {
    if text.contains(['/', '\0']) {
        absolute_path(text).map(Namespace)
    } else {
        Ok(Namespace(PathBuf::from(text)))
    }
}

/// A name that nft can print and read back, and which leaves room for a suffix below its limit.
pub(crate) fn table_name(text: &str) -> Parsed<String> {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    named(text, begins, 63, "_.-")
}

/// An APP-NAME (RFC 5424 section 6.2.5: 48 characters) that is also a tag in RFC 3164's sense.
pub(crate) fn app_name(text: &str) -> Parsed<String> {
    named(text, !text.is_empty(), 48, "_./-")
}

/// The name of an output. It may begin with a digit: an address makes a good name.
pub(crate) fn output_name(text: &str) -> Parsed<String> {
    // They become names of files.
    named(text, !matches!(text, "" | "." | ".."), 64, "-_.")
}

/// The name of an interface, as nft and tc take it without quotes of their own.
pub(crate) fn interface(text: &str) -> Parsed<String> {
    // IFNAMSIZ is 16, with a NUL. An option begins with a dash.
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    named(text, begins, 15, "-_.")
}

/// One of a program's arguments.
pub(crate) fn argument(text: &str) -> Parsed<String> {
    let is_possible = !text.contains('\0');
    is_possible.then(|| text.to_owned()).ok_or(None)
}

pub(crate) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| {
        let value = Some(time(text)?).filter(|value| range.contains(value));
        value.ok_or(None)
    }
}

pub(crate) fn at_least_a_second(text: &str) -> Parsed<Duration> {
    duration(Duration::from_secs(1)..=Duration::MAX)(text)
}

/// A duration of whole days, in whatever unit.
pub(crate) fn days(text: &str) -> Parsed<Duration> {
    const DAY: u64 = 86_400;
    let is_whole = |time: &Duration| time.subsec_nanos() == 0 && time.as_secs().is_multiple_of(DAY);
    let value = parse_duration(text).filter(|time| *time > Duration::ZERO && is_whole(time));
    value.ok_or(None)
}

/// A duration from 1 s; 0 is never.
pub(crate) fn interval(text: &str) -> Parsed<Option<Duration>> {
    match time(text)? {
        Duration::ZERO => Ok(None),
        value if value >= Duration::from_secs(1) => Ok(Some(value)),
        _ => Err(None),
    }
}

fn time(text: &str) -> Parsed<Duration> {
    let expected = "a whole number with its unit (ms, s, m, h or d), such as \"30s\"";
    parse_duration(text).ok_or_else(|| Some(expected.to_owned()))
}

pub(crate) fn size<T: TryFrom<u64> + PartialOrd>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        let unit = "a whole number of bytes, or one with its unit (KiB, MiB, GiB or TiB), such as \"64MiB\"";
        let bytes = parse_size(text).ok_or_else(|| Some(unit.to_owned()))?;
        let value = bytes.try_into().ok();
        value.filter(|value| range.contains(value)).ok_or(None)
    }
}

/// The size of a socket's buffer.
pub(crate) fn buffer(text: &str) -> Parsed<usize> {
    size(4 << 10..=1 << 30)(text)
}

pub(crate) fn whole<T: std::str::FromStr + PartialOrd>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        let value = plain(text).filter(|value| range.contains(value));
        value.ok_or(None)
    }
}

/// At most `limit` letters, digits and others.
pub(crate) fn named(text: &str, begins: bool, limit: usize, others: &str) -> Parsed<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    if begins && text.len() <= limit && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(None)
    }
}

/// Digits only: `FromStr` would also take a plus sign.
pub(crate) fn plain<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => plain(text),
    }
}

/// The address without the bits beyond the prefix; the length must fit its family.
pub(super) fn network_of(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn expected<T: std::fmt::Debug>(result: Parsed<T>) -> String {
        result.unwrap_err().unwrap_or_default()
    }

    #[test]
    fn a_mark_is_read_in_decimal_and_hexadecimal_with_and_without_mask() {
        let filter = |value, mask| Ok(MarkFilter { value, mask });
        assert_eq!(mark("16"), filter(16, u32::MAX));
        assert_eq!(mark("0x10/0xff"), filter(16, 255));
        assert_eq!(mark("0/1"), filter(0, 1));
        for text in ["", "x", "-1", "1/", "/1", "0x/1", "0x+1", "4294967296"] {
            assert_eq!(mark(text), Err(None), "{text}");
        }
    }

    #[test]
    fn a_mark_outside_its_mask_is_refused_with_the_part_inside() {
        let message = expected(mark("0x1f0/0xff"));
        assert_eq!(
            message,
            "a value whose bits are all in the mask, such as 0xf0/0xff"
        );
    }

    #[test]
    fn host_bits_in_a_prefix_are_refused_with_the_right_prefix() {
        let message = expected(prefix("10.1.2.3/8"));
        assert_eq!(message, "no bits set beyond the prefix, \"10.0.0.0/8\"");
        let message = expected(prefix("2001:db8::1/32"));
        assert_eq!(message, "no bits set beyond the prefix, \"2001:db8::/32\"");
    }

    #[test]
    fn prefixes_of_every_length_are_read() {
        let cases = [
            ("0.0.0.0/0", 0),
            ("10.0.0.0/8", 8),
            ("10.0.0.1", 32),
            ("::/0", 0),
            ("::1", 128),
        ];
        for (text, length) in cases {
            assert_eq!(prefix(text).unwrap().length, length, "{text}");
        }
        assert!(expected(prefix("10.0.0.0/33")).contains("from 0 to 32"));
        for text in ["10.0.0.0/", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/256"] {
            assert_eq!(prefix(text), Err(None), "{text}");
        }
    }

    #[test]
    fn an_endpoint_may_leave_out_its_port() {
        let endpoint = |text: &str| address(9)(text).map(|address| address.to_string());
        let found = |text: &str| Ok(text.to_owned());
        assert_eq!(endpoint("192.0.2.1:2055"), found("192.0.2.1:2055"));
        assert_eq!(endpoint("192.0.2.1"), found("192.0.2.1:9"));
        assert_eq!(endpoint("[2001:db8::1]:2055"), found("[2001:db8::1]:2055"));
        assert_eq!(endpoint("[2001:db8::1]"), found("[2001:db8::1]:9"));
        assert_eq!(endpoint("2001:db8::1"), found("[2001:db8::1]:9"));
        assert_eq!(endpoint("192.0.2"), Err(None));
    }

    #[test]
    fn a_name_and_a_port_that_cannot_be_are_told_apart() {
        let expected = |text: &str| expected(address(9)(text));
        for text in ["collector-1.example:2055", "collector-1.example"] {
            assert_eq!(
                expected(text),
                "an IP address, as names are not looked up (\"getent ahosts collector-1.example\" prints its addresses)"
            );
        }
        for text in [
            "192.0.2.1:70000",
            "192.0.2.1:",
            "192.0.2.1:x",
            "[2001:db8::1]:-1",
        ] {
            assert_eq!(expected(text), "a port from 1 to 65535", "{text}");
        }
        for text in ["a b:1", "$(x)", "2001:db8::zz", ":::1", "1.2.3.4.5:1", ""] {
            assert_eq!(expected(text), "", "{text}");
        }
    }

    #[test]
    fn a_duration_or_a_size_without_its_unit_is_told_the_units() {
        let all = duration(Duration::ZERO..=Duration::MAX);
        for found in [expected(all("10")), expected(interval("1h30m"))] {
            assert!(
                found.contains("(ms, s, m, h or d), such as \"30s\""),
                "{found}"
            );
        }
        assert!(expected(buffer("64MB")).contains("(KiB, MiB, GiB or TiB), such as \"64MiB\""));
        assert_eq!((interval("10ms"), buffer("1")), (Err(None), Err(None)));
    }

    #[test]
    fn a_retention_is_of_whole_days() {
        for (text, number) in [("1d", 1), ("365d", 365), ("48h", 2), ("172800s", 2)] {
            assert_eq!(
                days(text),
                Ok(Duration::from_secs(number * 86_400)),
                "{text}"
            );
        }
        for text in [
            "0d",
            "23h",
            "36h",
            "86400001ms",
            "365",
            "-1d",
            "1y",
            "",
            "never",
        ] {
            assert_eq!(days(text), Err(None), "{text}");
        }
    }

    #[test]
    fn nothing_is_sent_to_port_zero_or_to_other_than_one_host() {
        let port = "a port from 1 to 65535";
        assert_eq!(expected(destination(9)("192.0.2.1:0")), port);
        for text in ["0.0.0.0:1", "[::]:1", "255.255.255.255"] {
            let host = "the address of one host";
            assert_eq!(expected(destination(9)(text)), host, "{text}");
        }
    }

    #[test]
    fn names_that_nft_or_syslog_cannot_carry_are_refused() {
        for text in ["", "1nat", "na t", "na\"t", &"x".repeat(64)] {
            assert_eq!(table_name(text), Err(None), "{text}");
        }
        for text in ["", "na t", "nat:", "nat[1]", &"x".repeat(49)] {
            assert_eq!(app_name(text), Err(None), "{text}");
        }
        for text in ["", ".", "..", "na t", "a/b", "[::1]", &"x".repeat(65)] {
            assert_eq!(output_name(text), Err(None), "{text}");
        }
    }

    #[test]
    fn a_path_that_would_end_at_a_nul_is_refused() {
        for text in ["/a\0b", "\0", "a\0b"] {
            assert_eq!(absolute_path(text), Err(None), "{text:?}");
            assert_eq!(optional_socket(text), Err(None), "{text:?}");
            assert_eq!(namespace(text), Err(None), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text: String) {
            let _ = (mark(&text), prefix(&text), destination(9)(&text), namespace(&text));
            let _ = (facility(&text), protocol(&text), whole(0..=u32::MAX)(&text));
        }

        #[test]
        fn a_prefix_contains_its_own_network(bits: u32, length in 0_u8..=32) {
            let network = network_of(IpAddr::V4(bits.into()), length);
            let parsed = prefix(&format!("{network}/{length}")).unwrap();
            prop_assert!(parsed.contains(IpAddr::V4(bits.into())));
        }
    }
}
