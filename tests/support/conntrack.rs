//! The output of conntrack(8): the reference for the daemon's records.
//!
//! Neither of its output formats has everything: the text has no fractions of a second, the XML has no ICMP fields. So
//! two of them listen, and their reports of one event are matched by kind and conntrack id.

use std::collections::HashMap;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use super::lines::Lines;
use super::netns::Namespace;
use super::wait_for;

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A line of the table.
    Entry,
    New,
    Destroy,
}

/// One connection as conntrack prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    pub kind: Kind,
    pub protocol: u8,
    pub original: Side,
    pub reply: Side,
    pub mark: u32,
    pub zone: u16,
    pub id: u32,
    /// Nanoseconds since 1970; in a destroy and an entry only.
    pub start: Option<u64>,
    pub stop: Option<u64>,
}

/// One direction of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// For GRE the key; 0 where the protocol has no ports.
    pub src_port: u16,
    pub dst_port: u16,
    pub icmp: Option<Icmp>,
    pub packets: Option<u64>,
    pub octets: Option<u64>,
}

/// The ends of a packet as NetFlow writes them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub src_port: u16,
    pub dst_port: u16,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Icmp {
    pub r#type: u8,
    pub code: u8,
    pub id: u16,
}

impl Flow {
    /// Parses a line of `-o extended,id`. `None` for any other line, such as the closing summary.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let family = words
            .iter()
            .position(|word| matches!(*word, "ipv4" | "ipv6"))?;
        let mut sides = Vec::new();
        let mut flow_fields: HashMap<&str, &str> = HashMap::new();
        let mut side: HashMap<&str, &str> = HashMap::new();
        for (key, value) in words.iter().filter_map(|word| word.split_once('=')) {
            if key == "src" && !side.is_empty() {
                sides.push(Side::from_fields(&side)?);
                side.clear();
            }
            // ICMP has an id in each direction, before the connection's.
            let of_icmp = key == "id" && side.contains_key("type") && !side.contains_key("id");
            if of_icmp || Side::KEYS.contains(&key) {
                side.insert(key, value);
            } else {
                flow_fields.insert(key, value);
            }
        }
        sides.push(Side::from_fields(&side)?);
        let [original, reply] = <[Side; 2]>::try_from(sides).ok()?;
        Some(Self {
            kind: if words.contains(&"[NEW]") {
                Kind::New
            } else if words.contains(&"[DESTROY]") {
                Kind::Destroy
            } else {
                Kind::Entry
            },
            protocol: words.get(family + 3)?.parse().ok()?,
            original,
            reply,
            mark: number(&flow_fields, "mark"),
            zone: ["zone", "zone-orig", "zone-reply"]
                .into_iter()
                .find_map(|key| flow_fields.get(key)?.parse().ok())
                .unwrap_or(0),
            id: number(&flow_fields, "id"),
            start: None,
            stop: None,
        })
    }

    /// The packet as it arrived. NetFlow's ports for ICMP are the query identifier and type * 256 + code.
    #[must_use]
    pub fn pre_nat(&self) -> Packet {
        let Side { src, dst, .. } = self.original;
        let (src_port, dst_port) = self.original.netflow_ports();
        Packet {
            src,
            dst,
            src_port,
            dst_port,
        }
    }

    /// The same packet as it left, and which the answer is for.
    #[must_use]
    pub fn post_nat(&self) -> Packet {
        let (src_port, dst_port) = match (self.original.icmp, self.reply.icmp) {
            (Some(query), Some(answer)) => (answer.id, query.type_and_code()),
            _ => (self.reply.dst_port, self.reply.src_port),
        };
        Packet {
            src: self.reply.dst,
            dst: self.reply.src,
            src_port,
            dst_port,
        }
    }

    /// The answer as it comes from the far side.
    #[must_use]
    pub fn return_path(&self) -> Packet {
        let Side { src, dst, .. } = self.reply;
        let (src_port, dst_port) = self.reply.netflow_ports();
        Packet {
            src,
            dst,
            src_port,
            dst_port,
        }
    }

    /// `snat`, `dnat`, both or `none`, by the same comparison as conntrack's `-n` and `-g`.
    #[must_use]
    pub fn nat(&self) -> &'static str {
        let (original, reply) = (&self.original, &self.reply);
        // The ids of an ICMP query are the ports of both ends.
        let ports = |side: &Side| match side.icmp {
            Some(icmp) => (icmp.id, icmp.id),
            None => (side.src_port, side.dst_port),
        };
        let snat = original.src != reply.dst || ports(original).0 != ports(reply).1;
        let dnat = original.dst != reply.src
            || (original.icmp.is_none() && original.dst_port != reply.src_port);
        match (snat, dnat) {
            (false, false) => "none",
            (true, false) => "snat",
            (false, true) => "dnat",
            (true, true) => "snat+dnat",
        }
    }
}

impl Icmp {
    fn type_and_code(self) -> u16 {
        u16::from_be_bytes([self.r#type, self.code])
    }
}

impl Side {
    const KEYS: [&str; 10] = [
        "src", "dst", "sport", "dport", "srckey", "dstkey", "type", "code", "packets", "bytes",
    ];

    fn from_fields(fields: &HashMap<&str, &str>) -> Option<Self> {
        Some(Self {
            src: fields.get("src")?.parse().ok()?,
            dst: fields.get("dst")?.parse().ok()?,
            src_port: port(fields, "sport", "srckey"),
            dst_port: port(fields, "dport", "dstkey"),
            icmp: fields.contains_key("type").then(|| Icmp {
                r#type: number(fields, "type"),
                code: number(fields, "code"),
                id: number(fields, "id"),
            }),
            packets: fields.get("packets").and_then(|text| text.parse().ok()),
            octets: fields.get("bytes").and_then(|text| text.parse().ok()),
        })
    }

    fn netflow_ports(&self) -> (u16, u16) {
        match self.icmp {
            Some(icmp) => (icmp.id, icmp.type_and_code()),
            None => (self.src_port, self.dst_port),
        }
    }
}

/// The table of a namespace.
#[must_use]
pub fn list(namespace: &Namespace) -> Vec<Flow> {
    let run = |family: &str, format: &str| {
        let mut command = Command::new("conntrack");
        command.args(["-L", "-f", family, "-o", format]);
        namespace.succeed(&mut command, "")
    };
    let mut flows = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let mut times = Times::default();
        run(family, "xml,id,ktimestamp")
            .lines()
            .for_each(|line| times.read(line));
        flows.extend(
            run(family, "extended,id")
                .lines()
                .filter_map(Flow::parse)
                .map(|flow| times.complete(flow)),
        );
    }
    flows
}

/// conntrack(8) listening to the events of a namespace, from [`Watch::start`] on.
#[derive(Debug)]
pub struct Watch {
    text: Listener,
    xml: Listener,
}

impl Watch {
    /// Starts it, and returns when both listeners have joined their netlink groups.
    #[must_use]
    pub fn start(namespace: &Namespace) -> Self {
        Self {
            text: Listener::start(namespace, "extended,id"),
            xml: Listener::start(namespace, "xml,id,ktimestamp"),
        }
    }

    /// Every event so far that both listeners have reported, in the kernel's order.
    #[must_use]
    pub fn events(&self) -> Vec<Flow> {
        let mut times = Times::default();
        for line in self.xml.lines.so_far() {
            times.read(&line);
        }
        let mut flows = Vec::new();
        for flow in self
            .text
            .lines
            .so_far()
            .iter()
            .filter_map(|line| Flow::parse(line))
        {
            if !times.knows(&flow) {
                break;
            }
            flows.push(times.complete(flow));
        }
        flows
    }

    /// Waits for the NEW events of these entries of the table.
    pub fn wait_for_new(&self, entries: &[Flow]) {
        wait_for("the NEW events of conntrack -E", || {
            let events = self.events();
            let is_known = |entry: &Flow| events.iter().any(|event| event.id == entry.id);
            entries.iter().all(is_known).then_some(())
        });
    }

    /// The events that `logged` selects, once every NEW among them has its DESTROY.
    #[must_use]
    pub fn wait_for_ends(&self, logged: impl Fn(&Flow) -> bool) -> Vec<Flow> {
        wait_for("a DESTROY of conntrack -E for every NEW", || {
            let mut events = self.events();
            events.retain(&logged);
            let count = |kind| events.iter().filter(|event| event.kind == kind).count();
            (count(Kind::New) == count(Kind::Destroy)).then_some(events)
        })
    }
}

/// Whether a process has a netfilter netlink socket that has joined a multicast group.
#[must_use]
pub fn is_listening(pid: u32) -> bool {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            let target = target.to_str()?;
            Some(
                target
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    // Columns: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode; NETLINK_NETFILTER is 12.
    std::fs::read_to_string(format!("/proc/{pid}/net/netlink"))
        .unwrap_or_default()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|columns| {
            columns.len() > 9
                && columns[1] == "12"
                && columns[3] != "00000000"
                && inodes.iter().any(|inode| inode == columns[9])
        })
}

/// One `conntrack -E`; killed on drop.
#[derive(Debug)]
struct Listener {
    child: Child,
    lines: Lines,
}

impl Listener {
    fn start(namespace: &Namespace, format: &str) -> Self {
        let mut child = namespace
            .spawn(
                Command::new("conntrack")
                    .args(["-E", "-e", "NEW,DESTROY", "-o", format])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null()),
            )
            .unwrap();
        let pid = child.id();
        let listener = Self {
            lines: Lines::read(child.stdout.take().unwrap()),
            child,
        };
        wait_for("conntrack -E to listen", || is_listening(pid).then_some(()));
        listener
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Start and stop in nanoseconds from the XML, by kind and id, each the first of those not yet taken: an id can recur.
#[derive(Default)]
struct Times(HashMap<(Kind, u32), Vec<StartStop>>);

type StartStop = (Option<u64>, Option<u64>);

impl Times {
    fn read(&mut self, line: &str) {
        let Some(id) = element(line, "id").and_then(|id| u32::try_from(id).ok()) else {
            return;
        };
        let kind = if line.contains("<flow type=\"new\">") {
            Kind::New
        } else if line.contains("<flow type=\"destroy\">") {
            Kind::Destroy
        } else {
            Kind::Entry
        };
        self.0
            .entry((kind, id))
            .or_default()
            .push((element(line, "start"), element(line, "stop")));
    }

    fn knows(&self, flow: &Flow) -> bool {
        self.0
            .get(&(flow.kind, flow.id))
            .is_some_and(|times| !times.is_empty())
    }

    fn complete(&mut self, mut flow: Flow) -> Flow {
        if let Some(times) = self.0.get_mut(&(flow.kind, flow.id))
            && !times.is_empty()
        {
            (flow.start, flow.stop) = times.remove(0);
        }
        flow
    }
}

/// The number in `<name>…</name>`.
fn element(line: &str, name: &str) -> Option<u64> {
    let (_, rest) = line.split_once(&format!("<{name}>"))?;
    rest.split_once('<')?.0.parse().ok()
}

fn port(fields: &HashMap<&str, &str>, port: &str, key: &str) -> u16 {
    if let Some(text) = fields.get(port) {
        return text.parse().unwrap();
    }
    fields.get(key).map_or(0, |text| {
        u16::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
    })
}

fn number<T: std::str::FromStr + Default>(fields: &HashMap<&str, &str>, key: &str) -> T {
    fields
        .get(key)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
