//! Sessions that continually begin and end on the container's gateway, and their records in its journal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::container::Container;
use crate::support::conntrack::Flow;
use crate::support::record::{Fields, parse_json};

/// A client behind the gateway, and beyond it a silent network.
pub const NETWORK: &str = r"
ip netns add client
ip netns add server
ip link add lan type veth peer name eth0 netns client
ip link set lan up
ip addr add 10.1.2.1/24 dev lan
ip -n client link set eth0 up
ip -n client addr add 10.1.2.3/24 dev eth0
ip -n client route add default via 10.1.2.1
ip link add wan type veth peer name eth0 netns server
ip -n server link set eth0 up
ip link set wan up
ip addr add 203.0.113.9/24 dev wan
ip neigh add 203.0.113.7 lladdr 02:00:00:00:00:07 dev wan nud permanent
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 600 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout
nft 'table ip nat {
  chain postrouting { type nat hook postrouting priority srcnat; oifname wan masquerade; }
}'
";

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// The number of sessions with the same destination port.
const SOURCES: u16 = 16;
const FIRST_SOURCE: u16 = 40_000;
/// The pause between the sessions of two destination ports.
const PAUSE: Duration = Duration::from_millis(10);
/// The number of destination ports after which a session ends.
const LIFE: u16 = 100;

/// The key of a session here: source and destination port as sent by the client, and the source port after translation.
pub type Key = (u16, u16, u16);

/// The sessions that the kernel made during an action, and those in the journal.
#[derive(Debug, Default)]
pub struct Account {
    pub made: BTreeSet<Key>,
    pub creates: BTreeMap<Key, Vec<Fields>>,
    pub deletes: BTreeMap<Key, Vec<Fields>>,
    pub gaps: Vec<Fields>,
}

impl Account {
    /// Begins and ends sessions during `act` and for a second before and after, then ends all.
    ///
    /// # Panics
    /// When the journal never gets each session's end.
    pub fn of(container: &Container, act: impl FnOnce()) -> Self {
        let cursor =
            container.run("journalctl --namespace=nattrail --quiet --lines=0 --show-cursor");
        let cursor = cursor.trim().trim_start_matches("-- cursor: ").to_owned();
        let stop = AtomicBool::new(false);
        let mut account = Self::default();
        thread::scope(|scope| {
            let load = scope.spawn(|| make_sessions(container, &stop));
            thread::sleep(Duration::from_secs(1));
            act();
            thread::sleep(Duration::from_secs(1));
            stop.store(true, Ordering::Relaxed);
            account.made = load.join().unwrap();
        });
        let left = container.with_network("conntrack", &["-L", "-p", "udp", "-o", "extended,id"]);
        account.made.extend(keys(&left));
        container.with_network("conntrack", &["-F"]);
        account.wait_for_records(container, &cursor);
        account
    }

    /// Asserts that each session has one create and one delete, and that nothing reports a loss.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn assert_lossless(&self) {
        assert!(self.gaps.is_empty(), "{:#?}", self.gaps);
        self.assert_each_once();
    }

    /// Asserts that each session has one create and one delete.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn assert_each_once(&self) {
        self.assert_recorded(|records| records.len() == 1);
    }

    /// Asserts that the crash is stated, and that each session is recorded nevertheless. Records that had not reached
    /// the database may come twice, recognisable by the session's id, or as inferred.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn assert_crash_is_stated(&self) {
        let stated = self.gaps.iter().any(|gap| gap["cause"] == "restart");
        assert!(stated, "{:#?}", self.gaps);
        self.assert_recorded(|records| {
            let observed = records.iter().filter(|r| !r.contains_key("inferred"));
            let ids: BTreeSet<&String> = observed.map(|record| &record["id"]).collect();
            !records.is_empty() && records.len() <= 2 && ids.len() <= 1
        });
    }

    fn assert_recorded(&self, is_right: impl Fn(&[Fields]) -> bool) {
        assert!(self.made.len() > 1000, "only {} sessions", self.made.len());
        for (kind, records) in [("create", &self.creates), ("delete", &self.deletes)] {
            let none = Vec::new();
            for key in &self.made {
                let records = records.get(key).unwrap_or(&none);
                assert!(
                    is_right(records),
                    "{kind} of {key:?}: {records:#?}, of {} sessions; gaps: {:#?}",
                    self.made.len(),
                    self.gaps
                );
            }
            let invented = records.keys().find(|key| !self.made.contains(key));
            assert_eq!(
                invented, None,
                "{kind} of a session that the kernel never made"
            );
        }
    }

    fn wait_for_records(&mut self, container: &Container, cursor: &str) {
        // This uses no match: with one, journalctl skips the first entry after the cursor.
        let command = format!(
            "journalctl --namespace=nattrail --sync; journalctl --namespace=nattrail --quiet --output=json --after-cursor='{cursor}' | grep '\"NAT_EVENT\"'"
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.read(&container.run(&command));
            let is_missing = |key: &&Key| !self.deletes.contains_key(key);
            let missing: Vec<&Key> = self.made.iter().filter(is_missing).take(10).collect();
            if missing.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no delete of {missing:?}, among others; gaps: {:#?}\n{}",
                self.gaps,
                container.run(
                    "nattrail status; journalctl --no-pager --unit='systemd-journald*' --lines=20"
                )
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn read(&mut self, journal: &str) {
        self.creates.clear();
        self.deletes.clear();
        self.gaps.clear();
        for entry in journal.lines().map(parse_json) {
            let record: Fields = entry
                .into_iter()
                .filter_map(|(name, value)| {
                    Some((name.strip_prefix("NAT_")?.to_ascii_lowercase(), value))
                })
                .collect();
            if record["event"] == "gap" {
                self.gaps.push(record);
                continue;
            }
            // A session of an earlier step may end now.
            if record["pre_src"] != CLIENT.to_string() {
                continue;
            }
            let port = |name: &str| record[name].parse::<u16>().unwrap();
            let key = (port("pre_sport"), port("pre_dport"), port("post_sport"));
            let records = match record["event"].as_str() {
                "create" => &mut self.creates,
                _ => &mut self.deletes,
            };
            records.entry(key).or_default().push(record);
        }
    }
}

/// Begins sessions, and ends each a second later. Returns the ended ones.
fn make_sessions(container: &Container, stop: &AtomicBool) -> BTreeSet<Key> {
    let bind = |number| UdpSocket::bind((CLIENT, FIRST_SOURCE + number)).unwrap();
    let sockets: Vec<UdpSocket> = container.within("client", || (0..SOURCES).map(bind).collect());
    let mut ended = BTreeSet::new();
    let mut port = 1000;
    while !stop.load(Ordering::Relaxed) {
        for socket in &sockets {
            socket.send_to(b"x", (SERVER, port)).unwrap();
        }
        if port >= 1000 + LIFE {
            let old = (port - LIFE).to_string();
            let arguments = ["-D", "-p", "udp", "--dport", &old, "-o", "extended,id"];
            ended.extend(keys(&container.with_network("conntrack", &arguments)));
        }
        port += 1;
        thread::sleep(PAUSE);
    }
    ended
}

/// The client's sessions in the output of conntrack.
fn keys(listing: &str) -> impl Iterator<Item = Key> {
    let flows = listing.lines().filter_map(Flow::parse);
    let flows = flows.filter(|flow| flow.original.src == CLIENT);
    flows.map(|flow| {
        let (original, reply) = (&flow.original, &flow.reply);
        (original.src_port, original.dst_port, reply.dst_port)
    })
}
