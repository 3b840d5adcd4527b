//! From real kernel NAT to collectors: nfcapd with nfdump, and tshark, for every version and kind of record.
//!
//! Their records equal the output of conntrack(8) about the same sessions, field by field. tshark's records are
//! compared whole, so that no message has surplus content; nfdump shows many fields that no message has, so only the
//! fields that the daemon sends are compared. Both also find the messages well-formed.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::{IpAddr, SocketAddr};

use support::collector::{self, Datagram, Decoded, Nfcapd, Receiver};
use support::conntrack::{Flow, Kind, Watch};
use support::daemon::{CAPTURE, Daemon, Home, STDOUT_TEXT};
use support::decoded::{self, Event, Templated};
use support::gateway::{CLIENT, CLIENT6, Gateway, MASQUERADE, SERVER, SERVER6, WAN};
use support::record;
use support::traffic::{Tcp, Udp, loopback, ping};

/// One run: the events according to conntrack, and the records of the collectors.
struct Export {
    events: Vec<Event>,
    datagrams: Vec<Datagram>,
    tshark: Vec<Decoded>,
    nfdump: Vec<Decoded>,
}

/// Makes sessions of every kind of translation with one collector of each kind, configured alike.
fn export(collector: &str, ruleset: &str, traffic: impl FnOnce(&Gateway)) -> Option<Export> {
    let net = Gateway::new(&["nfcapd", "nfdump", "tshark"])?;
    net.nft(&format!("{MASQUERADE}{FORWARD}{ruleset}"));
    let address = SocketAddr::new(loopback(true), 9995);
    let nfcapd = Nfcapd::start(&net.gateway, address);
    let receiver = Receiver::bind(&net.gateway, SocketAddr::new(loopback(true), 0));
    let mut config = format!("{CAPTURE}{STDOUT_TEXT}");
    for address in [address, receiver.address()] {
        config += &format!("[[collector]]\naddress = \"{address}\"\n{collector}\n");
    }
    let home = Home::new(&config);
    let daemon = Daemon::start(&net.gateway, &home);
    let watch = Watch::start(&net.gateway);

    traffic(&net);
    watch.wait_for_new(&net.table());
    net.end_connections();
    // This excludes the daemon's own packets to the collectors.
    let flows = watch.wait_for_ends(|flow| flow.nat() != "none");
    let records = daemon.wait_for_records(flows.len(), record::parse_text);
    record::assert_records(&records, &flows);
    // This sends the records that still wait for their message to fill.
    daemon.terminate();

    let pair = |(mut flow, record): (Flow, &record::Fields)| {
        let millis = |name: &str| u64::try_from(record::parse_millis(&record[name])).unwrap();
        // It is the time of the create when that is at most a millisecond off.
        if record.contains_key("start") {
            flow.start = Some(millis("start") * 1_000_000);
        }
        let time = millis("time");
        Event { flow, time }
    };
    let datagrams = receiver.finish();
    Some(Export {
        events: flows.into_iter().zip(&records).map(pair).collect(),
        tshark: collector::tshark(&datagrams),
        nfdump: nfcapd.finish(),
        datagrams,
    })
}

const FORWARD: &str = "
table ip forward {
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr 198.51.100.1 udp dport 4000 dnat to 203.0.113.7:4001
    ip daddr 203.0.113.9 tcp dport 8080 dnat to 10.1.2.3:80
  }
}
";

fn sessions_of_every_kind(net: &Gateway) {
    let outside = IpAddr::from([198, 51, 100, 1]);
    let (client, server) = (&net.client, &net.server);
    Tcp::open(
        client,
        (CLIENT, 40_000),
        (SERVER, 443),
        server,
        (SERVER, 443),
    )
    .exchange(1000, 50_000);
    Udp::open(
        client,
        (CLIENT, 40_000),
        (outside, 4000),
        server,
        (SERVER, 4001),
    )
    .exchange(10, 20);
    Udp::open(
        client,
        (CLIENT6, 40_000),
        (SERVER6, 53),
        server,
        (SERVER6, 53),
    )
    .exchange(30, 40);
    Tcp::open(server, (SERVER, 51_000), (WAN, 8080), client, (CLIENT, 80)).exchange(5, 6);
    ping(client, CLIENT, SERVER, 77, 2);
    ping(client, CLIENT6, SERVER6, 78, 3);
}

/// Asserts that exactly the expected records are there, in any order.
fn assert_same(mut found: Vec<Decoded>, mut expected: Vec<Decoded>) {
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// tshark's records without the fields of the messages' headers, times as milliseconds since 1970.
fn tshark_bare(export: &Export) -> Vec<Decoded> {
    const HEADER: [&str; 15] = [
        "count",
        "engine_id",
        "engine_type",
        "exporttime",
        "len",
        "od_id",
        "samplerate",
        "samplingmode",
        "sequence",
        "source_id",
        "sysuptime",
        "timestamp",
        "unix_nsecs",
        "unix_secs",
        "version",
    ];
    let bare = |record: &Decoded| {
        let mut bare = record.clone();
        for name in HEADER {
            bare.remove(&format!("cflow.{name}"));
        }
        // One field is computed by tshark, the other has no meaning.
        bare.remove("cflow.timedelta");
        bare.remove("cflow.padding");
        for (name, value) in &mut bare {
            match name.as_str() {
                "cflow.timestart" | "cflow.timeend" => *value = v5_time(record, value),
                "cflow.abstimestart"
                | "cflow.abstimeend"
                | "cflow.observation_time_milliseconds" => {
                    *value = collector::tshark_millis(value).to_string();
                }
                _ => {}
            }
        }
        bare
    };
    export.tshark.iter().map(bare).collect()
}

/// A time relative to the boot of the exporter in milliseconds since 1970, by the header of its message.
fn v5_time(record: &Decoded, uptime: &str) -> String {
    let whole = |name: &str| record[name].parse::<u64>().unwrap();
    // NetFlow v9 has whole seconds.
    let nanos = record
        .get("cflow.unix_nsecs")
        .map_or(0, |_| whole("cflow.unix_nsecs"));
    let now = whole("cflow.unix_secs") * 1000 + nanos / 1_000_000;
    let boot = now - seconds_to_millis(&record["cflow.sysuptime"]);
    (boot + seconds_to_millis(uptime)).to_string()
}

/// "12.345000000" in milliseconds, exactly.
fn seconds_to_millis(text: &str) -> u64 {
    let (seconds, fraction) = text.split_once('.').unwrap();
    seconds.parse::<u64>().unwrap() * 1000 + fraction[..3].parse::<u64>().unwrap()
}

/// nfdump's records, each with only the fields of the expected record at the same index.
///
/// They are in the order of the messages, which is that of the events.
fn nfdump_bare(export: &Export, expected: &[Decoded]) -> Vec<Decoded> {
    assert_eq!(export.nfdump.len(), expected.len());
    let pick = |(record, expected): (&Decoded, &Decoded)| {
        expected
            .keys()
            .filter_map(|name| {
                let value = record.get(name)?;
                let value = match name.as_str() {
                    "first" | "last" | "t_event" => nfdump_millis(value).to_string(),
                    _ => value.clone(),
                };
                Some((name.clone(), value))
            })
            .collect()
    };
    export.nfdump.iter().zip(expected).map(pick).collect()
}

/// Milliseconds since 1970 of a time as nfdump writes it: UTC, milliseconds not always padded with zeros.
fn nfdump_millis(text: &str) -> u64 {
    let (seconds, millis) = text.split_once('.').unwrap();
    let seconds = record::parse_millis(&format!("{seconds}Z"));
    u64::try_from(seconds).unwrap() + millis.parse::<u64>().unwrap()
}

fn assert_nfdump(export: &Export, expected: &[Decoded]) {
    assert_eq!(nfdump_bare(export, expected), expected);
}

#[test]
fn netflow_v5_dummy_flows() {
    let collector = "version = \"v5\"\nrecords = [\"events\"]";
    let Some(export) = export(collector, "", sessions_of_every_kind) else {
        return;
    };
    let events = &export.events;
    assert_same(
        tshark_bare(&export),
        events.iter().flat_map(decoded::tshark_v5_dummies).collect(),
    );
    let expected: Vec<_> = events.iter().flat_map(decoded::nfdump_v5_dummies).collect();
    assert_nfdump(&export, &expected);
    // SNAT: TCP, UDP, ICMP; DNAT: UDP, TCP; each with its begin and its end. There is no IPv6.
    assert_eq!(expected.len(), 2 * 5);
}

#[test]
fn netflow_v5_triplets() {
    let collector = "version = \"v5\"\nrecords = [\"triplet\"]";
    let Some(export) = export(collector, "", sessions_of_every_kind) else {
        return;
    };
    let events = &export.events;
    assert_same(
        tshark_bare(&export),
        events.iter().flat_map(decoded::tshark_v5_triplet).collect(),
    );
    let ipv4 = events
        .iter()
        .filter(|event| event.flow.original.src.is_ipv4());
    let expected: Vec<_> = ipv4.flat_map(decoded::nfdump_triplet).collect();
    assert_nfdump(&export, &expected);
    assert_eq!(expected.len(), 3 * 4);
}

fn templated_events(name: &str, version: Templated) {
    let collector = format!("version = \"{name}\"\nrecords = [\"events\"]");
    let Some(export) = export(&collector, "", sessions_of_every_kind) else {
        return;
    };
    let events = &export.events;
    assert_same(
        tshark_bare(&export),
        events.iter().map(decoded::tshark_event).collect(),
    );
    let expected = events
        .iter()
        .map(|event| decoded::nfdump_event(event, version))
        .collect::<Vec<_>>();
    assert_nfdump(&export, &expected);
    assert_eq!(expected.len(), 2 * 6);
}

#[test]
fn netflow_v9_events() {
    templated_events("v9", Templated::V9);
}

#[test]
fn ipfix_events() {
    templated_events("ipfix", Templated::Ipfix);
}

fn templated_triplets(name: &str) {
    let collector = format!("version = \"{name}\"\nrecords = [\"triplet\"]");
    let Some(export) = export(&collector, "", sessions_of_every_kind) else {
        return;
    };
    let events = &export.events;
    let mut expected: Vec<_> = events.iter().flat_map(decoded::tshark_triplet).collect();
    for record in expected.iter_mut().filter(|_| name == "v9") {
        // The same times in SysUptime are exact, too.
        for (uptime, time) in [("timestart", "abstimestart"), ("timeend", "abstimeend")] {
            let time = record[&format!("cflow.{time}")].clone();
            record.insert(format!("cflow.{uptime}"), time);
        }
    }
    assert_same(tshark_bare(&export), expected);
    let expected: Vec<_> = events.iter().flat_map(decoded::nfdump_triplet).collect();
    assert_nfdump(&export, &expected);
    assert_eq!(expected.len(), 3 * 6);
}

#[test]
fn netflow_v9_triplets() {
    templated_triplets("v9");
}

#[test]
fn ipfix_triplets() {
    templated_triplets("ipfix");
}

#[test]
fn events_and_triplets_to_one_collector() {
    let collector = "version = \"ipfix\"\nrecords = [\"events\", \"triplet\"]";
    let Some(export) = export(collector, "", sessions_of_every_kind) else {
        return;
    };
    let of_event = |event| {
        let mut records = vec![decoded::tshark_event(event)];
        records.extend(decoded::tshark_triplet(event));
        records
    };
    assert_same(
        tshark_bare(&export),
        export.events.iter().flat_map(of_event).collect(),
    );
}

#[test]
fn legacy_values_without_destination_with_zone() {
    let collector =
        "version = \"ipfix\"\nnat-event = \"legacy\"\nlog-destination = false\ningress-vrf = true";
    let ruleset = "
        table inet zones {
          chain prerouting {
            type filter hook prerouting priority raw
            ct zone set 7
          }
        }";
    let Some(export) = export(collector, ruleset, sessions_of_every_kind) else {
        return;
    };
    let of_event = |event: &Event| {
        let mut record = decoded::tshark_event(event);
        record.retain(|name, _| !name.contains("dst") && !name.contains("destination"));
        let value = if event.flow.kind == Kind::New { 1 } else { 2 };
        record.insert("cflow.nat_event".to_owned(), value.to_string());
        record.insert("cflow.ingress_vrfid".to_owned(), "7".to_owned());
        record
    };
    assert_same(
        tshark_bare(&export),
        export.events.iter().map(of_event).collect(),
    );
}

#[test]
fn many_sessions_fill_messages_up_to_the_mtu() {
    const SESSIONS: u16 = 120;
    let collector = "version = \"ipfix\"\nmtu = 1280\nexport-delay = \"1s\"";
    let Some(export) = export(collector, "", |net| {
        for port in 0..SESSIONS {
            Udp::open(
                &net.client,
                (CLIENT, 10_000 + port),
                (SERVER, 53),
                &net.server,
                (SERVER, 53),
            )
            .exchange(1, 1);
        }
    }) else {
        return;
    };
    assert_same(
        tshark_bare(&export),
        export.events.iter().map(decoded::tshark_event).collect(),
    );
    assert_eq!(export.events.len(), 2 * usize::from(SESSIONS));
    let longest = export
        .datagrams
        .iter()
        .map(|datagram| datagram.payload.len())
        .max();
    // There is no room for another record.
    assert!((1100..=1280 - 20 - 8).contains(&longest.unwrap()));
}

#[test]
fn a_collector_over_ipv6_and_a_source_address() {
    let Some(net) = Gateway::new(&["tshark"]) else {
        return;
    };
    net.nft(MASQUERADE);
    net.gateway.ip("addr add fd00:1:2::99/64 dev lan nodad");
    let source: IpAddr = "fd00:1:2::99".parse().unwrap();
    let receiver = Receiver::bind(&net.gateway, SocketAddr::new(loopback(false), 0));
    let home = Home::new(&format!(
        "{CAPTURE}
         [[collector]]
         address = \"{}\"
         version = \"v9\"
         source-address = \"{source}\"
         observation-domain = 4711
         ",
        receiver.address()
    ));
    let daemon = Daemon::start(&net.gateway, &home);
    ping(&net.client, CLIENT, SERVER, 1, 1);
    daemon.terminate();
    let datagrams = receiver.finish();
    assert!(!datagrams.is_empty());
    assert!(
        datagrams
            .iter()
            .all(|datagram| datagram.from.ip() == source)
    );
    let records = collector::tshark(&datagrams);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["cflow.source_id"], "4711");
}
