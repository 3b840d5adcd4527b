//! The steps of a set-up, by method, for an interface in a known state. Pure: nothing here touches the system.

use super::act::{Act, Failed, HERE};
use super::journal::Journal;
use super::port::{Place, SINK};
use crate::config::{Method, Monitor};
use crate::kernel::namespace::path_of;

/// The comment of the nftables rule that counts the frames on their way to connection tracking.
pub(crate) const TRACKED: &str = "to connection tracking";

/// For what fails on no kernel known.
const NONE: &str = "";
const MOVE: &str = "the namespace must not have an interface of that name";
const NFTABLES: &str = "the kernel needs CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_INGRESS, and from Linux 5.16 on \
                        CONFIG_NETFILTER_EGRESS; otherwise use method \"tc\"";
const CLSACT: &str = "the kernel needs CONFIG_NET_SCH_INGRESS, and nobody else may have an ingress or clsact qdisc at the port";
const TRAFFIC_CONTROL: &str = "the kernel needs CONFIG_NET_CLS_MATCHALL, CONFIG_NET_ACT_CT, CONFIG_NET_ACT_VLAN and \
                               CONFIG_NET_ACT_GACT; otherwise use method = \"nft\" with a namespace";
const VETH: &str =
    "the kernel needs CONFIG_VETH, and the namespace must not have an interface of that name";

/// One step, and how to undo it.
#[derive(Debug)]
pub(super) struct Step {
    /// Follows "cannot".
    pub(super) purpose: &'static str,
    pub(super) act: Act,
    /// The last of them is performed first.
    undo: Vec<Act>,
    pub(super) advice: &'static str,
    /// Whether it makes something that may already be there, which is then another's.
    makes: bool,
}

impl Step {
    pub(super) fn take(&self, journal: &Journal) -> Result<(), Failed> {
        let (before, length) = (self.act.restoring(), journal.length()?);
        for act in self.undo.iter().chain(&before) {
            journal.note(act)?;
        }
        let done = self.act.perform();
        if done.is_err() && self.makes {
            journal.cut(length)?;
        }
        done
    }
}

/// The name of the monitor's tables in nftables.
pub(crate) fn table(monitor: &Monitor) -> String {
    format!("nattrail-monitor-{}", monitor.interface)
}

/// The steps, in their order. The interface comes up at the end, when its egress hook is in place.
pub(super) fn steps(monitor: &Monitor, place: &Place) -> Vec<Step> {
    let mut steps = Steps {
        monitor,
        list: Vec::new(),
    };
    steps.fetch(place);
    match monitor.method {
        Method::Nft => {
            steps.sink(place);
            steps.rules();
        }
        Method::Tc => steps.filters(),
        Method::External => {}
    }
    steps.quiet();
    if monitor.namespace.is_some() {
        steps.settings();
    }
    steps.open(place);
    steps.list
}

struct Steps<'a> {
    monitor: &'a Monitor,
    list: Vec<Step>,
}

impl Steps<'_> {
    /// A command in the monitor's namespace.
    fn run(&mut self, purpose: &'static str, line: &str, undo: &[String], advice: &'static str) {
        let namespace = self.monitor.namespace.as_ref();
        let undo = undo.iter().map(|line| Act::run(namespace, line)).collect();
        let act = Act::run(namespace, line);
        self.list.push(Step {
            purpose,
            act,
            undo,
            advice,
            makes: false,
        });
    }

    /// The same for a command that makes something.
    fn make(&mut self, purpose: &'static str, line: &str, undo: &str, advice: &'static str) {
        self.run(purpose, line, &[undo.to_owned()], advice);
        if let Some(step) = self.list.last_mut() {
            step.makes = true;
        }
    }

    fn set(&mut self, path: &str, value: &str) {
        self.list.push(Step {
            purpose: "set a parameter of the kernel",
            act: Act::set(self.monitor.namespace.as_ref(), path, value),
            undo: Vec::new(),
            advice: NONE,
            makes: false,
        });
    }

    /// Has the interface in the namespace, and down.
    fn fetch(&mut self, place: &Place) {
        let port = &self.monitor.interface;
        let up = format!("ip link set dev {port} up");
        match &self.monitor.namespace {
            Some(namespace) if place.is_outside => {
                let path = path_of(namespace);
                let line = format!("ip link set dev {port} netns {}", path.display());
                let back = format!("ip link set dev {port} netns {HERE}");
                let up = place.is_up.then(|| Act::run(None, &up));
                let back = Act::run(Some(namespace), &back);
                self.list.push(Step {
                    purpose: "move the interface into its namespace",
                    act: Act::run(None, &line),
                    undo: up.into_iter().chain([back]).collect(),
                    advice: MOVE,
                    makes: false,
                });
            }
            _ => {
                let line = format!("ip link set dev {port} down");
                let undo: Vec<_> = place.is_up.then_some(up).into_iter().collect();
                self.run("shut the interface down", &line, &undo, NONE);
            }
        }
    }

    /// Routes that lead everything to where it ends: an interface without a carrier, behind POSTROUTING, where conntrack
    /// takes an entry over. Its mtu makes no packet too long. All packets share one neighbour.
    fn sink(&mut self, place: &Place) {
        let port = &self.monitor.interface;
        // Of the longest names only the end fits.
        let end = &port[port.len().saturating_sub(13)..];
        let (sink, far) = (format!("{SINK}{end}"), format!("p-{end}"));
        // Without it the kernel has no local table, and takes no gateway.
        let down = "ip link set dev lo down".to_owned();
        let undo: Vec<_> = (!place.is_loopback_up)
            .then_some(down)
            .into_iter()
            .collect();
        self.run(
            "start the loopback interface",
            "ip link set dev lo up",
            &undo,
            NONE,
        );
        let line = format!("ip link add dev {sink} mtu 65535 type veth peer name {far} mtu 65535");
        let undo = format!("ip link delete dev {sink}");
        self.make("make the sink", &line, &undo, VETH);
        self.set(&format!("net/ipv6/conf/{sink}/addr_gen_mode"), "1");
        self.set(&format!("net/ipv6/conf/{sink}/disable_ipv6"), "0");
        let line = format!("ip link set dev {sink} arp off up");
        self.run("start the sink", &line, &[], NONE);
        let routes = [("-4", "192.0.0.8", true), ("-6", "fe80::1", place.has_ipv6)];
        for (family, gateway, _) in routes.into_iter().filter(|(_, _, is_known)| *is_known) {
            let line = format!("ip {family} route append default via {gateway} dev {sink} onlink");
            self.run("route into the sink", &line, &[], NONE);
        }
    }

    fn rules(&mut self) {
        let namespace = self.monitor.namespace.as_ref();
        let table = table(self.monitor);
        // It is no error if they are not there.
        let undo = ["netdev", "inet"].map(|family| {
            let input = format!("table {family} {table}\ndelete table {family} {table}\n");
            Act::run_with(namespace, "nft -f -", &input)
        });
        self.list.push(Step {
            purpose: "load the nftables rules",
            act: Act::run_with(namespace, "nft -f -", &ruleset(self.monitor)),
            undo: undo.into(),
            advice: NFTABLES,
            makes: false,
        });
    }

    fn filters(&mut self) {
        let port = self.monitor.interface.clone();
        let undo = format!("tc qdisc delete dev {port} clsact");
        let line = format!("tc qdisc add dev {port} clsact");
        self.make("add the qdisc clsact", &line, &undo, CLSACT);
        let zone = self.monitor.zone.map(|zone| format!(" zone {zone}"));
        let mark = self.monitor.mark.map(|mark| format!(" mark {mark}"));
        let track = format!(
            "action ct commit{}{} pipe action drop",
            zone.unwrap_or_default(),
            mark.unwrap_or_default()
        );
        // Of several VLAN tags the network card takes the first out of the frame, and each pop one more.
        for (hook, preference, protocol, action) in [
            ("egress", 1, "all", "action drop"),
            ("ingress", 1, "ip", track.as_str()),
            ("ingress", 2, "ipv6", &track),
            (
                "ingress",
                3,
                "802.1Q",
                &format!("action vlan pop pipe {track}"),
            ),
            (
                "ingress",
                4,
                "802.1ad",
                &format!("action vlan pop pipe {track}"),
            ),
            ("ingress", 5, "all", "action drop"),
        ] {
            let line = format!(
                "tc filter add dev {port} {hook} preference {preference} protocol {protocol} matchall {action}"
            );
            self.run("add a filter", &line, &[], TRAFFIC_CONTROL);
        }
    }

    /// The interface neither gets addresses nor answers for any.
    fn quiet(&mut self) {
        let port = self.monitor.interface.clone();
        let ip = |family: &str, name: &str| format!("net/{family}/conf/{port}/{name}");
        self.set(&ip("ipv6", "addr_gen_mode"), "1");
        self.set(&ip("ipv6", "accept_ra"), "0");
        self.set(&ip("ipv4", "arp_ignore"), "8");
        // With tc the IP stack gets none of its packets.
        let is_routed = self.monitor.method == Method::Nft;
        let disable = if is_routed { "0" } else { "1" };
        self.set(&ip("ipv6", "disable_ipv6"), disable);
        if is_routed {
            self.set(&ip("ipv4", "rp_filter"), "0");
        }
    }

    /// Those of a namespace of its own. The gateway's stay as they are.
    fn settings(&mut self) {
        if self.monitor.method == Method::Nft {
            self.set("net/ipv4/conf/all/rp_filter", "0");
            self.set("net/ipv4/ip_forward", "1");
            self.set("net/ipv6/conf/all/forwarding", "1");
        }
        // Mirrors reorder, and begin in the middle of connections.
        for name in ["tcp_be_liberal", "tcp_loose", "acct", "timestamp", "events"] {
            self.set(&format!("net/netfilter/nf_conntrack_{name}"), "1");
        }
    }

    /// Each packet is to be counted as it was sent: nothing is merged.
    fn open(&mut self, place: &Place) {
        let port = self.monitor.interface.clone();
        let merge = place
            .gro_max_size
            .map(|size| (" gro_max_size 1", format!(" gro_max_size {size}")));
        let (off, on) = merge.unwrap_or_default();
        let line = format!("ip link set dev {port} arp off promisc on{off} up");
        let arp = if place.has_arp { "on" } else { "off" };
        let promiscuous = if place.is_promiscuous { "on" } else { "off" };
        let mut undo = vec![format!(
            "ip link set dev {port} down arp {arp} promisc {promiscuous}{on}"
        )];
        // The limit of IPv4 follows only sizes that have always been possible.
        if place.gro_max_size.is_some_and(|size| size > 65_536) {
            undo.push(format!("ip link set dev {port} gro_max_size 65536"));
        }
        self.run("start the port", &line, &undo, NONE);
    }
}

/// The rules of the method nft. They drop frames that are not tracked, which thus do not count as lost (`rx_dropped`).
fn ruleset(monitor: &Monitor) -> String {
    let (port, table) = (&monitor.interface, table(monitor));
    let zone = monitor.zone.map(|zone| {
        format!(
            "  chain set-zone {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{port}\" ct zone set {zone}
  }}\n"
        )
    });
    let mark = monitor.mark.map(|mark| {
        format!(
            "  chain set-mark {{
    type filter hook prerouting priority mangle; policy accept;
    iifname \"{port}\" ct mark set {mark}
  }}\n"
        )
    });
    format!(
        "table netdev {table} {{
  chain ingress {{
    type filter hook ingress device \"{port}\" priority filter; policy drop;
    meta protocol {{ 8021q, 8021ad }} counter drop comment \"a second VLAN tag\"
    ip ttl < 2 counter drop comment \"cannot be routed\"
    ip6 hoplimit < 2 counter drop comment \"cannot be routed\"
    vlan id != 0 vlan id set 0
    meta protocol {{ ip, ip6 }} meta pkttype set host counter accept comment \"{TRACKED}\"
  }}
  chain egress {{
    type filter hook egress device \"{port}\" priority filter; policy drop;
  }}
}}
table inet {table} {{
  chain pin {{
    ct state new
  }}
{}{}}}\n",
        zone.unwrap_or_default(),
        mark.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Namespace;

    /// The commands of a set-up.
    fn commands(method: Method, namespace: Option<&str>) -> Vec<String> {
        let monitor = Monitor {
            name: None,
            interface: "eth1".to_owned(),
            namespace: namespace.map(|name| Namespace(name.into())),
            method,
            mark: Some(1),
            zone: Some(9),
        };
        let place = Place {
            is_outside: namespace.is_some(),
            is_up: true,
            is_promiscuous: false,
            has_arp: true,
            gro_max_size: Some(65_536),
            is_loopback_up: true,
            has_ipv6: true,
        };
        let steps = steps(&monitor, &place);
        steps.iter().map(|step| step.act.to_string()).collect()
    }

    #[test]
    fn in_the_gateways_namespace_only_parameters_of_the_port_are_set() {
        let commands = commands(Method::Tc, None);
        let set: Vec<_> = commands
            .iter()
            .filter(|line| line.contains("sysctl"))
            .collect();
        assert!(
            set.len() > 3 && set.iter().all(|line| line.contains("/conf/eth1/")),
            "{set:#?}"
        );
    }

    #[test]
    fn the_port_comes_up_last_behind_its_egress_hook() {
        for (method, egress) in [
            (Method::Tc, "egress preference 1 protocol all"),
            (Method::Nft, "hook egress"),
        ] {
            let commands = commands(method, Some("m"));
            assert!(
                commands.iter().any(|line| line.contains(egress)),
                "{commands:#?}"
            );
            let ups: Vec<_> = commands
                .iter()
                .enumerate()
                .filter(|(_, line)| line.contains("dev eth1") && line.ends_with(" up"))
                .map(|(index, _)| index)
                .collect();
            assert_eq!(ups, [commands.len() - 1], "{commands:#?}");
        }
    }

    #[test]
    fn tc_gives_zone_and_mark_to_tagged_and_untagged_packets_of_both_families() {
        let commands = commands(Method::Tc, None);
        let track = "action ct commit zone 9 mark 1 pipe action drop";
        let protocols = commands.iter().filter(|line| line.ends_with(track));
        let protocols: Vec<_> = protocols
            .filter_map(|line| line.split(' ').nth(9))
            .collect();
        assert_eq!(
            protocols,
            ["ip", "ipv6", "802.1Q", "802.1ad"],
            "{commands:#?}"
        );
    }
}
