//! The gateway under load: it translates the client's packets, counts them, and drops them on the far side.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::gateway::Gateway;
use crate::support::netns::{Namespace, succeed};

/// The most entries that may remain in the table besides the load's.
const STRAYS: u64 = 4;

const SERVER_MAC: &str = "02:00:00:00:00:07";

/// Traffic to the collector on the loopback interface is not tracked. The rule of a `nat` chain sees the first packet
/// of every connection, and no other.
const GATEWAY_RULES: &str = "
table ip bench {
  counter made {}
  chain output { type filter hook output priority raw; oifname lo notrack; }
  chain prerouting { type filter hook prerouting priority raw; iifname lo notrack; }
  chain postrouting {
    type nat hook postrouting priority srcnat
    ip saddr 10.1.2.0/24 oifname wan counter name made snat to 203.0.113.9
  }
}
";

const SERVER_RULES: &str = "
table netdev bench {
  chain ingress { type filter hook ingress device eth0 priority 0; policy drop; }
}
";

pub struct Network {
    net: Gateway,
}

impl Network {
    /// A gateway with accounting and timestamps, whose UDP connections expire after `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let net = Gateway::new(&[]).expect("the programs were looked for before");
        net.server
            .ip(&format!("link set eth0 address {SERVER_MAC}"));
        net.gateway.ip(&format!(
            "neigh replace 203.0.113.7 lladdr {SERVER_MAC} dev wan nud permanent
             route add 198.18.0.0/15 via 203.0.113.7"
        ));
        net.nft(GATEWAY_RULES);
        net.server
            .succeed(Command::new("nft").args(["-f", "-"]), SERVER_RULES);
        net.keep_accounts();
        let network = Self { net };
        network.set_timeout(timeout);
        network
    }

    /// Sets the lifetime of connections made from now on.
    pub fn set_timeout(&self, timeout: Duration) {
        for name in ["udp_timeout", "udp_timeout_stream"] {
            let seconds = timeout.as_secs().max(1).to_string();
            self.gateway()
                .sysctl(&format!("net/netfilter/nf_conntrack_{name}"), &seconds);
        }
    }

    pub fn gateway(&self) -> &Namespace {
        &self.net.gateway
    }

    pub fn client(&self) -> &Namespace {
        &self.net.client
    }

    /// Connections that were translated and entered the table, since the beginning.
    pub fn made(&self) -> u64 {
        let counters = self.net.gateway.succeed(
            Command::new("nft").args(["list", "counter", "ip", "bench", "made"]),
            "",
        );
        let translated = number_after(&counters, "packets ").sum::<u64>();
        let failed: u64 = number_after(&self.net.conntrack(&["-S"]), "insert_failed=").sum();
        translated - failed
    }

    /// Entries of the table, including those whose end nobody has taken yet.
    pub fn entries(&self) -> u64 {
        let count = self
            .gateway()
            .read_sysctl("net/netfilter/nf_conntrack_count");
        count.parse().expect("the kernel writes a number")
    }

    pub fn end_connections(&self) {
        self.net.end_connections();
    }

    /// Ends the connections from this source port.
    pub fn end_connections_from(&self, port: u16) {
        let mut command = Command::new("conntrack");
        command.args(["-D", "-p", "udp", "--orig-port-src", &port.to_string()]);
        let child = self
            .gateway()
            .spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let _ = child.and_then(|mut child| child.wait());
    }

    /// Waits until all connections have ended and been reported. Returns false if some have not after `patience`.
    pub fn wait_until_empty(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.entries() > STRAYS {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(100));
        }
        true
    }
}

/// Each number that follows `name`.
fn number_after<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.split(name).skip(1).filter_map(|rest| {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// Whether the programs that the network needs can run.
pub fn is_possible() -> bool {
    crate::support::can_run(&["ip", "nft", "conntrack"])
}

/// Removes the namespaces of a killed process.
pub fn sweep(pid: u32) {
    let list = succeed(Command::new("ip").args(["netns", "list"]), "");
    let prefix = format!("nattrail-test-{pid}-");
    for name in list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        if name.starts_with(&prefix) {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}
