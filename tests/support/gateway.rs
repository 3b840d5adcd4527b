//! A throw-away gateway: a client behind it, a server beyond it, IPv4 and IPv6 on both sides.
//!
//! ```text
//!   client               gateway                         server
//!   10.1.2.3, .4  ──  lan 10.1.2.1    wan 203.0.113.9  ──  203.0.113.7
//!   fd00:1:2::3   ──  fd00:1:2::1   2001:db8:9::9      ──  2001:db8:9::7
//!                     198.51.100.0/24 and 2001:db8:51::/64 lead from the server to the gateway
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use super::conntrack::{self, Flow};
use super::netns::{Namespace, unique};

pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
/// A second address of the client.
pub const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 4));
pub const LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 1));
pub const WAN: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

pub const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, 3));
pub const WAN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9));
pub const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7));

/// The default ruleset of a test.
pub const MASQUERADE: &str = "
table inet nat {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname wan masquerade
  }
}
";

/// Three namespaces that are a network with a gateway in the middle. Nothing is translated until a ruleset does it.
#[derive(Debug)]
pub struct Gateway {
    // Dropped in this order: all interfaces go with the gateway.
    pub gateway: Namespace,
    pub client: Namespace,
    pub server: Namespace,
}

impl Gateway {
    /// `None`, with a message, where the test cannot run: see [`can_run`](super::can_run). `programs` are those that
    /// the test needs besides the ones used here.
    pub fn new(programs: &[&str]) -> Option<Self> {
        let programs = [&["ip", "nft", "conntrack"], programs].concat();
        super::can_run(&programs).then(Self::build)
    }

    fn build() -> Self {
        let group = unique();
        let net = Self {
            gateway: Namespace::new(group, "gateway"),
            client: Namespace::new(group, "client"),
            server: Namespace::new(group, "server"),
        };
        // nodad: an address under duplicate address detection cannot be used for a second.
        net.gateway.ip(&format!(
            "link add lan type veth peer name eth0 netns {client}
             link add wan type veth peer name eth0 netns {server}
             link set lan up
             link set wan up
             addr add 10.1.2.1/24 dev lan
             addr add 203.0.113.9/24 dev wan
             addr add fd00:1:2::1/64 dev lan nodad
             addr add 2001:db8:9::9/64 dev wan nodad",
            client = net.client.name(),
            server = net.server.name(),
        ));
        net.client.ip("link set eth0 up
             addr add 10.1.2.3/24 dev eth0
             addr add 10.1.2.4/24 dev eth0
             addr add fd00:1:2::3/64 dev eth0 nodad
             route add default via 10.1.2.1
             route add default via fd00:1:2::1");
        net.server.ip("link set eth0 up
             addr add 203.0.113.7/24 dev eth0
             addr add 2001:db8:9::7/64 dev eth0 nodad
             route add 10.1.2.0/24 via 203.0.113.9
             route add 198.51.100.0/24 via 203.0.113.9
             route add fd00:1:2::/64 via 2001:db8:9::9
             route add 2001:db8:51::/64 via 2001:db8:9::9");
        net.gateway.sysctl("net/ipv4/ip_forward", "1");
        net.gateway.sysctl("net/ipv6/conf/all/forwarding", "1");
        net
    }

    /// Loads a ruleset into the gateway.
    pub fn nft(&self, ruleset: &str) {
        self.gateway
            .succeed(Command::new("nft").args(["-f", "-"]), ruleset);
    }

    /// Makes the kernel account and keep timestamps when no daemon does.
    pub fn keep_accounts(&self) {
        for name in ["events", "acct", "timestamp"] {
            self.gateway
                .sysctl(&format!("net/netfilter/nf_conntrack_{name}"), "1");
        }
    }

    /// The connections that the kernel tracks now.
    pub fn table(&self) -> Vec<Flow> {
        conntrack::list(&self.gateway)
    }

    /// Ends every connection now. Left to itself the kernel reports an expiry only when its garbage collector passes,
    /// up to a minute late.
    pub fn end_connections(&self) {
        self.conntrack(&["-F"]);
    }

    /// Runs conntrack(8) in the gateway.
    pub fn conntrack(&self, arguments: &[&str]) -> String {
        self.gateway
            .succeed(Command::new("conntrack").args(arguments), "")
    }
}
