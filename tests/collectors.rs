//! What independent collectors and decoders read from the messages of [`nattrail::export::collector::Collector`].
//!
//! Needs nfcapd and nfdump, tshark and text2pcap, and for one test root and ip. Where one is missing, the test says so
//! and does nothing; with CI=true it fails.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nattrail::config::{self, NatEventValues, Version};
use nattrail::export::collector::Collector;
use nattrail::session::{
    Counters, EventKind, NatEvent, Protocol, Provenance, Record, Session, Totals, Tuple, Zone,
};
use nattrail::time::{Now, Uptime, Wall};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

/// 2026-11-20 20:24:48 UTC.
const START: u64 = 1_795_206_288_000;
/// When the sessions begin and end, as nfdump writes it.
const BEGIN: &str = "2026-11-20T20:24:48.123";
const END: &str = "2026-11-20T20:24:52.567";
const VERSIONS: [Version; 3] = [Version::NetflowV5, Version::NetflowV9, Version::Ipfix];

#[test]
fn nfdump_reads_nat_events_from_netflow_9_and_ipfix() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in [Version::NetflowV9, Version::Ipfix] {
        let config = config::Collector {
            zone: true,
            ..collector(version)
        };
        let flows = through_nfdump(&config, &events());
        let text = lines(
            &flows,
            "nat_event_id t_event proto src4_addr src_port src4_xlt_ip src_xlt_port dst4_addr dst_port \
             dst4_xlt_ip dst_xlt_port ingress_vrf",
        );
        let snat = "6 10.1.2.3 40356 203.0.113.9 50520 203.0.113.7 443 203.0.113.7 443 77";
        let dnat = "17 198.51.100.5 33000 198.51.100.5 33000 203.0.113.9 53 10.0.0.53 5353 77";
        let expected = [
            format!("4 {BEGIN} {snat}"),
            format!("5 {END} {snat}"),
            format!("4 {BEGIN} {dnat}"),
            format!("5 {END} {dnat}"),
        ];
        assert_eq!(text, expected, "{version:?}");
        // The delete records have the life of the session.
        let times = lines(&flows, "first last");
        assert_eq!(times[1], format!("{BEGIN} {END}"));
    }
}

#[test]
fn nfdump_reads_triplets_from_every_version() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in VERSIONS {
        let config = config::Collector {
            events: false,
            triplet: true,
            ..collector(version)
        };
        let flows = through_nfdump(&config, &events()[..2]);
        let text = lines(
            &flows,
            "proto src4_addr src_port dst4_addr dst_port in_packets in_bytes first last",
        );
        let expected = [
            format!("6 10.1.2.3 40356 203.0.113.7 443 4 218 {BEGIN} {END}"),
            format!("6 203.0.113.9 50520 203.0.113.7 443 4 218 {BEGIN} {END}"),
            format!("6 203.0.113.7 443 203.0.113.9 50520 8 436 {BEGIN} {END}"),
        ];
        assert_eq!(text, expected, "{version:?}");
    }
}

#[test]
fn nfdump_reads_dummy_flows_from_netflow_5() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    let flows = through_nfdump(&collector(Version::NetflowV5), &events());
    let text = lines(
        &flows,
        "first last proto src4_addr src_port dst4_addr dst_port ip4_next_hop src_as dst_as tcp_flags \
         in_packets in_bytes",
    );
    let snat = "6 10.1.2.3 40356 203.0.113.7 443 203.0.113.9 50520 0";
    let dnat = "17 198.51.100.5 33000 10.0.0.53 5353 203.0.113.9 0 53";
    let expected = [
        format!("{BEGIN} {BEGIN} {snat} ...A..S. 0 0"),
        format!("{END} {END} {snat} .....R.F 0 0"),
        format!("{BEGIN} {BEGIN} {dnat} ...A..S. 0 0"),
        format!("{END} {END} {dnat} .....R.F 0 0"),
    ];
    assert_eq!(text, expected);
}

#[test]
fn nfcapd_misses_nothing_in_a_sequence_of_messages() {
    if !have(&["nfcapd", "nfdump"]) {
        return;
    }
    for version in VERSIONS {
        let config = config::Collector {
            template_refresh_packets: 3,
            triplet: true,
            ..collector(version)
        };
        let events: Vec<_> = (0..50).flat_map(|_| events()).collect();
        let capture = capture(&config, &events);
        // Two sessions make four NAT events and six flows.
        assert_eq!(capture.flows().len(), 500, "{version:?}");
        // Of IPFIX, nfdump does not count the data records of options, against RFC 7011 section 3.1.
        if version != Version::Ipfix {
            let summary = capture.nfdump(&["-I"]);
            assert!(summary.contains("Sequence failures: 0"), "{summary}");
        }
    }
}

#[test]
fn tshark_finds_nothing_wrong_with_a_sequence_of_messages() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    let events: Vec<_> = (0..50).flat_map(|_| events()).collect();
    for version in VERSIONS {
        for mtu in [576, 1500] {
            let config = config::Collector {
                template_refresh_packets: 3,
                triplet: true,
                zone: version != Version::NetflowV5,
                mtu,
                ..collector(version)
            };
            let pcap = Pcap::new(&config, &events);
            assert!(pcap.messages > 5);
            let complaints = pcap.tshark(&["-Y", "_ws.malformed || _ws.expert"]);
            assert_eq!(complaints, "", "{version:?}");
            let decoded = pcap.tshark(&["-Y", "cflow"]);
            assert_eq!(decoded.lines().count(), pcap.messages, "{version:?}");
        }
    }
}

#[test]
fn tshark_reads_the_fields_of_nat_events() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    for version in [Version::NetflowV9, Version::Ipfix] {
        let config = config::Collector {
            zone: true,
            ..collector(version)
        };
        let pcap = Pcap::new(&config, &events());
        let fields = [
            ("nat_event", "4,5,4,5"),
            ("protocol", "6,6,17,17"),
            ("srcaddr", "10.1.2.3,10.1.2.3,198.51.100.5,198.51.100.5"),
            ("srcport", "40356,40356,33000,33000"),
            (
                "post_natsource_ipv4_address",
                "203.0.113.9,203.0.113.9,198.51.100.5,198.51.100.5",
            ),
            ("post_naptsource_transport_port", "50520,50520,33000,33000"),
            ("dstaddr", "203.0.113.7,203.0.113.7,203.0.113.9,203.0.113.9"),
            ("dstport", "443,443,53,53"),
            (
                "post_natdestination_ipv4_address",
                "203.0.113.7,203.0.113.7,10.0.0.53,10.0.0.53",
            ),
            ("post_naptdestination_transport_port", "443,443,5353,5353"),
            ("ingress_vrfid", "77,77,77,77"),
            ("initiator_octets", "218,60"),
            ("initiator_packets", "4,1"),
            ("responder_octets", "436,120"),
            ("responder_packets", "8,2"),
        ];
        pcap.check(&fields);
        let times = pcap.fields(&["observation_time_milliseconds"]).remove(0);
        assert_eq!(times.matches("20:24:48.123").count(), 2, "{times}");
        assert_eq!(times.matches("20:24:52.567").count(), 2, "{times}");
    }
}

#[test]
fn tshark_reads_the_fields_of_dummy_flows() {
    if !have(&["tshark", "text2pcap"]) {
        return;
    }
    let pcap = Pcap::new(&collector(Version::NetflowV5), &events());
    let fields = [
        ("srcaddr", "10.1.2.3,10.1.2.3,198.51.100.5,198.51.100.5"),
        ("srcport", "40356,40356,33000,33000"),
        ("dstaddr", "203.0.113.7,203.0.113.7,10.0.0.53,10.0.0.53"),
        ("dstport", "443,443,5353,5353"),
        ("nexthop", "203.0.113.9,203.0.113.9,203.0.113.9,203.0.113.9"),
        ("srcas", "50520,50520,0,0"),
        ("dstas", "0,0,53,53"),
        ("tcpflags", "0x12,0x05,0x12,0x05"),
        ("protocol", "6,6,17,17"),
    ];
    pcap.check(&fields);
}

#[test]
fn what_a_full_socket_cannot_take_waits_and_an_unreachable_network_is_counted() {
    if !have(&["ip"]) || !is_root() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link add va type veth peer name vb");
    namespace.ip("addr add 10.99.0.1/24 dev va");
    namespace.ip("link set vb up");
    namespace.ip("link set va up");
    namespace.enter();
    let config = config::Collector {
        address: "10.99.0.2:2055".parse().unwrap(),
        // The kernel makes the least it knows of that: two or three messages.
        send_buffer: Some(1),
        ..collector(Version::Ipfix)
    };
    let mut exporter = Collector::new(&config, at(0)).unwrap();
    for event in (0..100).flat_map(|_| events()) {
        exporter.push(&Record::Event(event), at(0));
    }
    // Nobody answers for the address, so that the kernel keeps the messages and the socket fills.
    exporter.drain(at(0));
    let full = exporter.statistics();
    assert!(full.messages >= 1 && full.queued_messages > 5, "{full:?}");
    assert_eq!(exporter.poll_timeout(), Some(at(5).up));
    exporter.drain(at(4));
    assert_eq!(exporter.statistics(), full);

    namespace.ip("neigh replace 10.99.0.2 lladdr 02:00:00:00:00:02 dev va");
    let mut now = 10_000;
    wait_for("the socket to take the rest", || {
        now += 1000;
        exporter.drain(at(now));
        exporter.is_idle()
    });
    let sent = exporter.statistics();
    assert_eq!((sent.records, sent.dropped, sent.failed), (400, 0, 0));

    namespace.ip("link set va down");
    exporter.push(&Record::Event(events()[0]), at(1_000_000));
    exporter.drain(at(1_000_000));
    let failed = exporter.statistics();
    assert_eq!((failed.records, failed.failed), (400, 1));
    namespace.ip("link set va up");
    namespace.ip("neigh replace 10.99.0.2 lladdr 02:00:00:00:00:02 dev va");
    exporter.push(&Record::Event(events()[0]), at(1_001_000));
    exporter.drain(at(1_001_000));
    let recovered = exporter.statistics();
    assert_eq!((recovered.records, recovered.failed), (401, 1));
    // The templates were in the message that was lost.
    assert_eq!(recovered.template_sends, failed.template_sends + 1);
}

fn collector(version: Version) -> config::Collector {
    config::Collector {
        address: "127.0.0.1:0".parse().unwrap(),
        version,
        source: None,
        events: true,
        triplet: false,
        nat_event: NatEventValues::Rfc8158,
        destination: true,
        zone: false,
        post_nat_counters: true,
        mtu: 1500,
        template_refresh: Duration::from_secs(1800),
        template_refresh_packets: 20,
        send_buffer: None,
        observation_domain: 5,
        export_delay: Duration::from_secs(1),
    }
}

fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
    Tuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        src_port,
        dst_port,
    }
}

/// The lives of two sessions, one with its source translated and one with its destination.
fn events() -> Vec<NatEvent> {
    let zone = Zone {
        id: 77,
        ..Zone::default()
    };
    let snat = Session {
        original: tuple("10.1.2.3", 40356, "203.0.113.7", 443),
        reply: tuple("203.0.113.7", 443, "203.0.113.9", 50520),
        protocol: Protocol::TCP,
        zone,
        id: Some(1),
        mark: 0,
    };
    let dnat = Session {
        original: tuple("198.51.100.5", 33000, "203.0.113.9", 53),
        reply: tuple("10.0.0.53", 5353, "198.51.100.5", 33000),
        protocol: Protocol::UDP,
        ..snat
    };
    let life = |session, packets: u64, octets: u64| {
        let create = NatEvent {
            kind: EventKind::Create,
            session,
            time: Wall::from_millis(START + 123),
            start: Some(Wall::from_millis(START + 123)),
            totals: None,
            provenance: Provenance::Kernel,
        };
        let counters = |factor| Counters {
            packets: factor * packets,
            octets: factor * octets,
        };
        let delete = NatEvent {
            kind: EventKind::Delete,
            time: Wall::from_millis(START + 4567),
            totals: Some(Totals {
                original: counters(1),
                reply: counters(2),
            }),
            ..create
        };
        [create, delete]
    };
    [life(snat, 4, 218), life(dnat, 1, 60)].concat()
}

fn at(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(START + millis),
        Uptime::from_millis(3_600_000 + millis),
    )
}

fn export(collector: &config::Collector, events: &[NatEvent]) {
    let mut exporter = Collector::new(collector, at(0)).unwrap();
    for event in events {
        exporter.push(&Record::Event(*event), at(5000));
    }
    // A burst of messages each time.
    for _ in 0..10 {
        exporter.drain(at(5001));
    }
    assert!(exporter.is_idle());
}

fn through_nfdump(config: &config::Collector, events: &[NatEvent]) -> Vec<Value> {
    capture(config, events).flows()
}

/// What nfcapd made of it.
struct Capture {
    directory: TempDir,
}

fn capture(config: &config::Collector, events: &[NatEvent]) -> Capture {
    let directory = tempfile::tempdir().unwrap();
    let nfcapd = Nfcapd::start(directory.path());
    let config = config::Collector {
        address: nfcapd.address,
        ..config.clone()
    };
    export(&config, events);
    nfcapd.stop();
    Capture { directory }
}

impl Capture {
    fn nfdump(&self, arguments: &[&str]) -> String {
        let file = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with("nfcapd.2")
            })
            .unwrap();
        let output = Command::new("nfdump")
            .arg("-r")
            .arg(file)
            .args(arguments)
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    fn flows(&self) -> Vec<Value> {
        // Quiet, nfdump prints the elements of the array without its brackets.
        let text = format!("[{}]", self.nfdump(&["-q", "-o", "json"]));
        let flows: Value = serde_json::from_str(&text).unwrap();
        flows.as_array().unwrap().clone()
    }
}

/// The named fields of each flow in one line.
fn lines(flows: &[Value], names: &str) -> Vec<String> {
    let line = |flow: &Value| {
        let values: Vec<_> = names
            .split_whitespace()
            .map(|name| match &flow[name] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        values.join(" ")
    };
    flows.iter().map(line).collect()
}

/// The messages as a capture of packets.
struct Pcap {
    directory: TempDir,
    messages: usize,
}

impl Pcap {
    fn new(config: &config::Collector, events: &[NatEvent]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let config = config::Collector {
            address: socket.local_addr().unwrap(),
            ..config.clone()
        };
        export(&config, events);
        let mut bytes = [0; 2000];
        let (mut text, mut messages) = (String::new(), 0);
        while receive_queue(config.address) != Some(0) {
            let length = socket.recv(&mut bytes).unwrap();
            text.push_str("000000");
            for byte in &bytes[..length] {
                write!(text, " {byte:02x}").unwrap();
            }
            text.push('\n');
            messages += 1;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("text"), text).unwrap();
        let port = match config.version {
            Version::Ipfix => 4739,
            _ => 2055,
        };
        let status = Command::new("text2pcap")
            .args(["-q", "-u", &format!("50000,{port}"), "text", "pcap"])
            .current_dir(directory.path())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        Self {
            directory,
            messages,
        }
    }

    fn tshark(&self, arguments: &[&str]) -> String {
        let output = Command::new("tshark")
            .args(["-r", "pcap"])
            .args(arguments)
            .current_dir(self.directory.path())
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// All values of each field of the NetFlow dissector in the only message.
    fn fields(&self, names: &[&str]) -> Vec<String> {
        assert_eq!(self.messages, 1);
        let names = names.iter().map(|name| format!("cflow.{name}"));
        let arguments: Vec<_> = names.flat_map(|name| ["-e".to_owned(), name]).collect();
        let mut all = vec!["-T", "fields"];
        all.extend(arguments.iter().map(String::as_str));
        let text = self.tshark(&all);
        text.trim_end_matches('\n')
            .split('\t')
            .map(str::to_owned)
            .collect()
    }

    fn check(&self, expected: &[(&str, &str)]) {
        let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
        for ((name, expected), found) in expected.iter().zip(self.fields(&names)) {
            assert_eq!(found, *expected, "{name}");
        }
    }
}

/// A collector on a port of its own, ended when dropped.
struct Nfcapd {
    child: Child,
    address: SocketAddr,
}

impl Nfcapd {
    fn start(directory: &Path) -> Self {
        let address = free_address();
        let child = Command::new("nfcapd")
            .args([
                "-b",
                "127.0.0.1",
                "-S",
                "0",
                "-p",
                &address.port().to_string(),
                "-w",
            ])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nfcapd = Self { child, address };
        wait_for("nfcapd to listen", || receive_queue(address).is_some());
        nfcapd
    }

    /// Lets it read what has arrived and write its file.
    fn stop(mut self) {
        wait_for("nfcapd to read", || receive_queue(self.address) == Some(0));
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Nfcapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network namespace of its own, removed when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Self {
        let name = format!("nattrail-collectors-{}", std::process::id());
        let namespace = Self { name };
        namespace.run(&["netns", "add", &namespace.name]);
        namespace
    }

    fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split(' '));
        self.run(&all);
    }

    fn run(&self, arguments: &[&str]) {
        let output = Command::new("ip").args(arguments).output().unwrap();
        assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    }

    /// Moves the calling thread, which ends with its test.
    fn enter(&self) {
        let file = fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT TESTED: this test makes a network namespace and needs root");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "root is needed in CI"
        );
    }
    root
}

fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// Octets that wait to be read on a local UDP port.
fn receive_queue(address: SocketAddr) -> Option<u64> {
    let port = format!(":{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/udp").unwrap();
    let line = table.lines().find(|line| {
        line.split_whitespace()
            .nth(1)
            .is_some_and(|local| local.ends_with(&port))
    })?;
    let (_, queue) = line.split_whitespace().nth(4)?.split_once(':')?;
    u64::from_str_radix(queue, 16).ok()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited five seconds for {what}");
}

fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut complete = true;
    for tool in tools {
        if !std::env::split_paths(&path).any(|directory| directory.join(tool).exists()) {
            eprintln!("NOT TESTED: this test needs {tool}, which is not installed");
            complete = false;
        }
    }
    assert!(
        complete || std::env::var("CI").as_deref() != Ok("true"),
        "{tools:?} are needed in CI"
    );
    complete
}
