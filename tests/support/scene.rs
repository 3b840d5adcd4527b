//! A scene for one comparison: a gateway with a ruleset, and the daemon and conntrack(8) listening to the same events.

use std::fs;
use std::net::IpAddr;

use super::conntrack::{Flow, Kind, Watch};
use super::daemon::{CAPTURE, Daemon, Home, STDOUT_TEXT};
use super::gateway::Gateway;
use super::record::{self, Fields};
use super::traffic::{Tcp, Udp};

/// A gateway with a ruleset, and the daemon and conntrack listening.
pub struct Scene {
    // Dropped in this order: the daemon before its environment.
    daemon: Daemon,
    watch: Watch,
    home: Home,
    pub net: Gateway,
}

impl Scene {
    pub fn new(ruleset: &str, capture: &str) -> Option<Self> {
        let net = Gateway::new(&[])?;
        net.nft(ruleset);
        let home = Home::new("");
        let copy = home.path().join("records.json");
        home.configure(&format!(
            "{CAPTURE}{capture}{STDOUT_TEXT}
             [[syslog]]
             target = \"file\"
             path = \"{}\"
             format = \"json\"
             ",
            copy.display()
        ));
        let daemon = Daemon::start(&net.gateway, &home);
        let watch = Watch::start(&net.gateway);
        Some(Self {
            daemon,
            watch,
            home,
            net,
        })
    }

    /// Ends all connections and compares the records with those of conntrack's events that `logged` selects: as text
    /// while the daemon runs, as JSON when it has finished. Returns the events.
    pub fn compare(self, logged: impl Fn(&Flow) -> bool) -> Vec<Flow> {
        self.watch.wait_for_new(&self.net.table());
        self.net.end_connections();
        let events = self.watch.wait_for_ends(logged);

        let text = self
            .daemon
            .wait_for_records(events.len(), record::parse_text);
        record::assert_records(&text, &events);
        let ended = self.daemon.terminate();
        assert_eq!(ended.stdout.len(), events.len(), "{:#?}", ended.stdout);

        let json = fs::read_to_string(self.home.path().join("records.json")).unwrap();
        let json: Vec<Fields> = json.lines().map(record::parse_json).collect();
        assert_eq!(json, text);
        events
    }

    /// The same for translated sessions, which must be exactly these, by protocol and translation.
    pub fn compare_translated(self, sessions: &[(u8, &str)]) -> Vec<Flow> {
        let events = self.compare(|flow| flow.nat() != "none");
        let kinds = |kind: Kind| -> Vec<(u8, &str)> {
            let of_kind = events.iter().filter(|event| event.kind == kind);
            let mut sessions: Vec<_> = of_kind.map(|event| (event.protocol, event.nat())).collect();
            sessions.sort_unstable();
            sessions
        };
        let mut sessions = sessions.to_vec();
        sessions.sort_unstable();
        assert_eq!(kinds(Kind::New), sessions);
        assert_eq!(kinds(Kind::Destroy), sessions);
        events
    }

    pub fn tcp(&self, from: (IpAddr, u16), to: (IpAddr, u16), listen: (IpAddr, u16)) -> Tcp {
        Tcp::open(&self.net.client, from, to, &self.net.server, listen)
    }

    pub fn udp(&self, from: (IpAddr, u16), to: (IpAddr, u16), listen: (IpAddr, u16)) -> Udp {
        Udp::open(&self.net.client, from, to, &self.net.server, listen)
    }
}

/// The only DESTROY among the events.
#[must_use]
pub fn destroyed(events: &[Flow]) -> &Flow {
    let mut destroyed = events.iter().filter(|event| event.kind == Kind::Destroy);
    let only = destroyed.next().expect("a DESTROY");
    assert_eq!(destroyed.next(), None);
    only
}
