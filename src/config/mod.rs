//! The configuration: typed values, all of them valid by construction.
//!
//! A file (TOML, YAML, JSON or INI by its extension) under `NATTRAIL_*` variables of the environment. Code that has a
//! [`Config`] need not check it again.

mod aggregation;
mod build;
mod document;
pub mod keys;
mod load;
mod problem;
mod selection;
mod syntax;
mod tree;
mod units;
pub(crate) mod values;

pub use aggregation::Rule as AggregationRule;
pub(crate) use document::FILE_VARIABLE;
pub use keys::{Archive, Capture, Control, Log, Metrics, Pending};
pub use load::{Error, Loaded};
pub use problem::Problem;
pub(crate) use problem::quoted;
pub use selection::{Selection, Share};

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use crate::wire::flow::NatEventValues;
use crate::wire::syslog::Style;
pub use crate::wire::syslog::{Facility, Format, Severity, Target};

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub capture: Capture,
    pub pending: Pending,
    pub log: Log,
    pub archive: Archive,
    pub control: Control,
    pub metrics: Metrics,
    pub collectors: Vec<Collector>,
    /// Not empty if `collectors` is: without either, records go to the standard output as text.
    pub syslog: Vec<Syslog>,
    pub monitors: Vec<Monitor>,
}

/// A network namespace by name (as `ip netns` knows it) or by path.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace(pub PathBuf);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogScope {
    /// Translated connections only.
    Nat,
    /// Every connection.
    All,
}

/// `value/mask`: a connection passes when `mark & mask == value`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MarkFilter {
    pub value: u32,
    pub mask: u32,
}

impl MarkFilter {
    pub const fn accepts(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

/// As in the configuration: `1`, `0x10`, `0x10/0xf0`. The error is what was expected.
impl FromStr for MarkFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usual = "a mark such as 1, 0x10 or 0x10/0xf0";
        values::mark(text).map_err(|expected| expected.unwrap_or_else(|| usual.to_owned()))
    }
}

/// The form that [`FromStr`] reads back.
impl fmt::Display for MarkFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

/// An address prefix in CIDR notation. `length` never exceeds the family's 32 or 128.
#[derive(Clone, Copy, Debug, serde::Deserialize, Eq, PartialEq, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    /// As in the configuration: `10.0.0.0/8`, or an address alone.
    ///
    /// # Errors
    /// The expectation: `usual`, unless only one detail of the prefix is wrong.
    pub fn parse(text: &str, usual: &str) -> Result<Self, String> {
        values::prefix(text).map_err(|expected| expected.unwrap_or_else(|| usual.to_owned()))
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && values::network_of(address, self.length) == self.address
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text, "a prefix")
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

/// The form that [`Prefix::parse`] reads back.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// `[[collector]]`: one NetFlow or IPFIX receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// No other collector has it; `None` without one in the configuration.
    pub name: Option<String>,
    pub address: SocketAddr,
    pub version: Version,
    /// The connections whose records it gets.
    pub selection: Selection,
    /// Local address to send from; port 0 lets the kernel choose.
    pub source_address: Option<SocketAddr>,
    /// Whether NAT events (create, delete) are sent.
    pub events: bool,
    /// Whether the three flow records of a finished session are sent.
    pub triplet: bool,
    /// Whether the traffic is sent as flow records, one for each direction.
    pub flow: bool,
    /// Whether one flow record is for both directions (RFC 5103). Always `false` for NetFlow.
    pub biflow: bool,
    /// The rules by which flows are aggregated; without any they are not. Empty with other records, and with `biflow`.
    pub aggregation: Vec<AggregationRule>,
    /// Flows of this time are aggregated.
    pub aggregation_window: Duration,
    /// The most records of the log in a window, so that it never waits until the log has to give them up.
    pub aggregation_records: u64,
    pub nat_event: NatEventValues,
    /// `false` leaves the destination out of NAT events (RFC 6888 REQ-12). Always `true` for NetFlow v5, with triplets and
    /// with flows.
    pub log_destination: bool,
    /// Whether the conntrack zone is sent as ingressVRFID. Always `false` for NetFlow v5.
    pub ingress_vrf: bool,
    /// Whether the post-NAT record of a triplet repeats the counters of the pre-NAT record.
    pub post_nat_counters: bool,
    /// Largest IP packet sent, headers included.
    pub mtu: u16,
    pub template_refresh: Duration,
    /// Templates are sent again after this many messages; never 0.
    pub template_refresh_packets: u32,
    /// Bytes requested with `SO_SNDBUF`; `None` leaves the system's default.
    pub send_buffer: Option<usize>,
    /// Observation domain (IPFIX), source id (v9), engine type and id (v5, low 16 bits).
    pub observation_domain: u32,
    /// Longest time a record waits for its message to fill.
    pub export_delay: Duration,
}

impl Collector {
    /// Its name for people.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("collector {name} ({})", self.address),
            None => format!("collector {}", self.address),
        }
    }

    /// Largest UDP payload that fits the `mtu`.
    pub const fn max_message(&self) -> usize {
        let headers = if self.address.is_ipv4() {
            20 + 8
        } else {
            40 + 8
        };
        self.mtu as usize - headers
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    NetflowV5,
    NetflowV9,
    Ipfix,
}

impl Version {
    /// As in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetflowV5 => "v5",
            Self::NetflowV9 => "v9",
            Self::Ipfix => "ipfix",
        }
    }
}

/// `[[syslog]]`: one target for copies.
#[derive(Clone, Debug, PartialEq)]
pub struct Syslog {
    /// No other target has it; `None` without one in the configuration.
    pub name: Option<String>,
    pub target: Target,
    pub format: Format,
    /// The connections whose records it gets.
    pub selection: Selection,
    /// Whether it has NAT events, or in csv triplets.
    pub events: bool,
    /// Whether it has flows; in csv not beside triplets.
    pub flow: bool,
    pub facility: Facility,
    pub severity: Severity,
    /// APP-NAME, tag or SYSLOG_IDENTIFIER.
    pub app_name: String,
    /// The `exaddr` field of the csv format.
    pub exporter_address: Ipv4Addr,
}

impl Syslog {
    /// Its name for people.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.target),
            None => self.target.to_string(),
        }
    }

    /// The form of its messages.
    pub fn style(&self) -> Style<'_> {
        Style {
            target: &self.target,
            format: self.format,
            events: self.events,
            flow: self.flow,
            facility: self.facility,
            severity: self.severity,
            app_name: &self.app_name,
            exporter_address: self.exporter_address,
        }
    }
}

/// `[[monitor]]`: one port at which mirrored frames arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    /// No other monitor has it; `None` without one in the configuration.
    pub name: Option<String>,
    /// No other monitor has it either.
    pub interface: String,
    /// Never `None` with [`Method::Nft`].
    pub namespace: Option<Namespace>,
    pub method: Method,
    /// Neither is 0. Without a namespace there is at least one of them.
    pub mark: Option<u32>,
    pub zone: Option<u16>,
}

impl Monitor {
    /// Its name for people.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) if *name != self.interface => {
                format!("monitor {name} ({})", self.interface)
            }
            _ => format!("monitor {}", self.interface),
        }
    }
}

/// The way in which mirrored frames get into connection tracking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    Tc,
    Nft,
    External,
}

impl Method {
    /// As in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Nft => "nft",
            Self::External => "external",
        }
    }
}
