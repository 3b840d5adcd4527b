//! The two sides of the conservation check: the sessions made, and the records that the daemon wrote of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::support::gateway::{CLIENT, Gateway, SERVER};
use crate::support::record::{Fields, parse_json, parse_millis};
use crate::support::wait_for;

/// The key of a session here: its source and destination port.
pub type Key = (u16, u16);

const SOURCES: u16 = 16;
const FIRST_SOURCE: u16 = 40_000;
const FIRST_DESTINATION: u16 = 1000;
/// Datagrams sent at once: the receiving end of a veth queues a thousand.
const BURST: usize = 200;

/// Makes sessions of one datagram each, no two with the same tuple.
pub struct Generator {
    sockets: Vec<UdpSocket>,
    made: u32,
}

impl Generator {
    pub fn new(net: &Gateway) -> Self {
        Self::silence(net);
        net.gateway
            .sysctl("net/netfilter/nf_conntrack_udp_timeout", "600");
        let bind = |number| UdpSocket::bind((CLIENT, FIRST_SOURCE + number)).unwrap();
        let sockets = net.client.run(|| (0..SOURCES).map(bind).collect());
        Self { sockets, made: 0 }
    }

    /// The server sends no answer, not even that nobody listens: it would be one more packet of the session.
    pub fn silence(net: &Gateway) {
        let ruleset = "table inet silent {
            chain input { type filter hook input priority 0; meta l4proto udp drop; }
        }";
        net.server
            .succeed(Command::new("nft").args(["-f", "-"]), ruleset);
    }

    /// Begins sessions, without waiting for the kernel to have them.
    pub fn begin(&mut self, count: u32) -> Vec<Key> {
        let key = |number: u32| {
            let (source, destination) = (number % u32::from(SOURCES), number / u32::from(SOURCES));
            let destination = u32::from(FIRST_DESTINATION) + destination;
            (
                FIRST_SOURCE + source as u16,
                u16::try_from(destination).expect("fewer than a million sessions in a test"),
            )
        };
        let keys: Vec<Key> = (self.made..self.made + count).map(key).collect();
        self.made += count;
        self.send(&keys);
        keys
    }

    /// Sends a datagram of each session.
    pub fn send(&self, keys: &[Key]) {
        for &(source, destination) in keys {
            let socket = &self.sockets[usize::from(source - FIRST_SOURCE)];
            socket.send_to(b"x", (SERVER, destination)).unwrap();
        }
    }

    /// Begins sessions, and returns when the kernel has them all besides `others`.
    pub fn begin_all(&mut self, net: &Gateway, count: u32, others: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        while keys.len() < count as usize {
            let rest = count as usize - keys.len();
            keys.extend(self.begin(rest.min(BURST) as u32));
        }
        self.confirm(net, &keys, others);
        keys
    }

    /// Repeats datagrams that did not get through, until the kernel has these sessions besides `others`. Returns
    /// whether that was necessary.
    pub fn confirm(&self, net: &Gateway, keys: &[Key], others: usize) -> bool {
        let mut repeated = false;
        wait_for("the kernel to have every session", || {
            let present = open(net);
            if present == keys.len() + others {
                return Some(repeated);
            }
            assert!(present < keys.len() + others, "more than were made");
            repeated = true;
            for burst in keys.chunks(BURST) {
                self.send(burst);
            }
            None
        })
    }
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

/// How many sessions are in the kernel's table.
pub fn open(net: &Gateway) -> usize {
    net.conntrack(&["-L"]).lines().count()
}

/// How many sessions have ended and wait to be reported.
pub fn dying(net: &Gateway) -> usize {
    net.conntrack(&["-L", "dying"]).lines().count()
}

/// The records that the daemon wrote, in order.
#[derive(Debug, Default)]
pub struct Ledger {
    pub sessions: BTreeMap<Key, Vec<Fields>>,
    pub gaps: Vec<Gap>,
}

#[derive(Clone, Debug)]
pub struct Gap {
    pub cause: String,
    /// Milliseconds since 1970.
    pub from: i64,
    pub to: i64,
    pub lost: Option<u64>,
}

impl Gap {
    pub fn of(record: &Fields) -> Option<Self> {
        (record["event"] == "gap").then(|| Self {
            cause: record["cause"].clone(),
            from: parse_millis(&record["from"]),
            to: parse_millis(&record["to"]),
            lost: record.get("lost").map(|lost| lost.parse().unwrap()),
        })
    }
}

impl Ledger {
    /// Reads a copy in the format `json`.
    pub fn read(path: &Path) -> Self {
        let mut ledger = Self::default();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            ledger.add(parse_json(line));
        }
        ledger
    }

    fn add(&mut self, record: Fields) {
        if let Some(gap) = Gap::of(&record) {
            self.gaps.push(gap);
            return;
        }
        let port = |name: &str| record[name].parse::<u16>().unwrap();
        let key = (port("pre_sport"), port("pre_dport"));
        self.sessions.entry(key).or_default().push(record);
    }

    pub fn gaps_of(&self, cause: &str) -> Vec<&Gap> {
        self.gaps.iter().filter(|gap| gap.cause == cause).collect()
    }

    /// Asserts that each recorded session has one create and one delete after it, and was made.
    ///
    /// # Panics
    /// When one has other records, or was never made.
    pub fn assert_each_once(&self, made: &[Key]) {
        let made: BTreeSet<Key> = made.iter().copied().collect();
        for (key, records) in &self.sessions {
            assert!(made.contains(key), "never made: {records:#?}");
            let kinds: Vec<&str> = records.iter().map(|r| r["event"].as_str()).collect();
            assert_eq!(kinds, ["create", "delete"], "{records:#?}");
            let (start, end) = (&records[1]["start"], &records[1]["end"]);
            assert!(parse_millis(start) <= parse_millis(end), "{records:#?}");
        }
    }

    /// Asserts that all sessions are recorded, and no others.
    ///
    /// # Panics
    /// When one is missing, is recorded in part or twice, or was never made.
    pub fn assert_complete(&self, made: &[Key]) {
        self.assert_each_once(made);
        let missing = made.iter().filter(|key| !self.sessions.contains_key(key));
        let missing: Vec<&Key> = missing.take(10).collect();
        assert!(
            missing.is_empty(),
            "not recorded, among others: {missing:?}"
        );
        assert_eq!(self.sessions.len(), made.len());
    }
}
