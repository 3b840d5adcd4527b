//! The step from sections to the typed configuration: every value valid, no combination impossible.

use std::time::Duration;

use super::tree::{Parsed, Table, every};
use super::values::{self, RecordKind, TargetKind};
use super::{Collector, Format, Log, Method, Monitor, Selection, Syslog, Target, Version};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The room in the log for a record. That of an event takes at most 145 octets; the rest is for those that come while a
/// window leaves.
const RECORD: u64 = 200;
/// For mirrored connections that share connection tracking with the gateway's own.
const MIRROR_ZONE: u16 = 65_535;
const SYSLOG_PORT: u16 = 514;
const LOCAL_SOCKET: &str = "/dev/log";
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// The key in which an output is the twin of another, and the expectation, for a message that ends with that other.
type Twin = (&'static str, &'static str);

/// All collectors that are free of mistakes. `capture` is the selection of those without their own.
pub(super) fn collectors(
    tables: &mut [Table],
    capture: &Selection,
    log: Option<&Log>,
) -> Vec<Collector> {
    let build = |table: &mut Table| collector(table, capture, log);
    built(tables, build, |one, other| {
        let place = |one: &Collector| (one.address, one.version, one.observation_domain);
        let own = "an address, version and observation-domain of its own, found those";
        let is_twin = place(one) == place(other);
        [
            same_name(&one.name, &other.name),
            is_twin.then_some(("address", own)),
        ]
    })
}

/// All syslog targets that are free of mistakes.
pub(super) fn syslog(tables: &mut [Table], capture: &Selection) -> Vec<Syslog> {
    let build = |table: &mut Table| syslog_target(table, capture);
    built(tables, build, |one, other| {
        [same_name(&one.name, &other.name), same_records(one, other)]
    })
}

/// All monitors that are free of mistakes.
pub(super) fn monitors(tables: &mut [Table]) -> Vec<Monitor> {
    built(tables, monitor, |one, other| {
        let is_twin = one.interface == other.interface;
        [
            same_name(&one.name, &other.name),
            is_twin.then_some(("interface", "an interface of its own, found that")),
        ]
    })
}

/// The sections of a list, of all tables without a mistake. A twin of an earlier one is a mistake.
fn built<T>(
    tables: &mut [Table],
    build: impl Fn(&mut Table) -> Option<T>,
    twins: fn(&T, &T) -> [Option<Twin>; 2],
) -> Vec<T> {
    let mut all: Vec<(T, String)> = Vec::with_capacity(tables.len());
    for table in tables {
        if let Some(output) = build(table) {
            for (other, label) in &all {
                let twins: Vec<_> = twins(&output, other).into_iter().flatten().collect();
                for (key, own) in &twins {
                    table.complain(key, format!("expected {own} of {label}"));
                }
                // With several twins, naming the first is enough.
                if !twins.is_empty() {
                    break;
                }
            }
            all.push((output, table.label.clone()));
        }
        table.finish();
    }
    all.into_iter().map(|(output, _)| output).collect()
}

/// Its name identifies it, an output also in the record log and in the status.
fn same_name(one: &Option<String>, other: &Option<String>) -> Option<Twin> {
    (one.is_some() && one == other).then_some(("name", "a name of its own, found that"))
}

/// A target that would get the same records as another one is its twin.
fn same_records(one: &Syslog, other: &Syslog) -> Option<Twin> {
    if one.target != other.target {
        return None;
    }
    match one.target {
        // Two writers into one stream would tear each other's lines apart, and the journal shows both at once.
        Target::File { .. } => Some(("path", "a file of its own, found that")),
        Target::Stdout | Target::Journal { .. } => {
            Some(("target", "a target of its own, found that"))
        }
        // A syslog server sorts by these, so each copy may have its own place there.
        Target::Local { .. } | Target::Udp { .. } => {
            let own = "a target, format, facility, severity or app-name of its own, found those";
            let is_twin = one.format == other.format
                && one.facility == other.facility
                && one.severity == other.severity
                && one.app_name == other.app_name;
            is_twin.then_some(("target", own))
        }
    }
}

fn collector(table: &mut Table, capture: &Selection, log: Option<&Log>) -> Option<Collector> {
    let version = table.take("version", values::version);
    let default_port = match version {
        Some(Version::NetflowV5 | Version::NetflowV9) => 2055,
        // RFC 7011 section 10.3.4 and IANA's registry of ports.
        Some(Version::Ipfix) | None => 4739,
    };
    let address = table.take("address", values::destination(default_port));
    let source_address = table.take("source-address", values::address(0));
    let [events, triplet, flow] = records(table, values::record_kind);
    let biflow = table.take("biflow", values::flag);
    let log_destination = table.take("log-destination", values::flag);
    let aggregation = table.take_list("aggregation", values::aggregation);
    let ingress_vrf = table.take("ingress-vrf", values::flag);
    let mtu = table.take("mtu", values::whole(576..=9216));
    let domain = table.take("observation-domain", values::whole(0..=u32::MAX));
    // There is one transport so far.
    table.take("transport", values::transport);
    let v5 = version == Some(Version::NetflowV5);
    let expected = "nothing with version \"v5\", which has neither natEvent nor templates";
    for name in ["nat-event", "template-refresh", "template-refresh-packets"] {
        table.refuse_if(v5, name, expected);
    }
    let hidden = log_destination == Some(false);
    let expected = "true with version \"v5\", whose records cannot leave it out";
    table.refuse_if(v5 && hidden, "log-destination", expected);
    let expected = "true with records \"triplet\" and \"flow\", which carry the destination";
    let carries = triplet == Some(true) || flow == Some(true);
    table.refuse_if(carries && hidden, "log-destination", expected);
    let is_biflow = biflow == Some(true);
    let expected = "false without version \"ipfix\" and records \"flow\"";
    let has_none = version.is_some_and(|version| version != Version::Ipfix) || flow == Some(false);
    table.refuse_if(is_biflow && has_none, "biflow", expected);
    let aggregates = aggregation.as_ref().is_some_and(|rules| !rules.is_empty());
    let is_exact = events == Some(true) || triplet == Some(true) || flow == Some(false);
    let expected = "nothing unless records is [\"flow\"]: events and triplets stay exact";
    table.refuse_if(aggregates && is_exact, "aggregation", expected);
    let expected = "nothing with biflow, as a sum has one direction";
    table.refuse_if(aggregates && is_biflow, "aggregation", expected);
    let window = table.take("aggregation-window", values::duration(SECOND..=HOUR));
    let is_long = window
        .zip(log)
        .is_some_and(|(window, log)| window > log.age / 2);
    let expected = "at most half of log.age, as the records of a window wait in the log";
    table.refuse_if(aggregates && is_long, "aggregation-window", expected);
    let expected = "false with version \"v5\", whose records have no room for it";
    table.refuse_if(v5 && ingress_vrf == Some(true), "ingress-vrf", expected);
    let expected = "at most 65535 with version \"v5\" (engine type and id)";
    table.refuse_if(v5 && domain > Some(65_535), "observation-domain", expected);
    if let Some(address) = address {
        let is_other = source_address.is_some_and(|source| source.is_ipv4() != address.is_ipv4());
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let expected = format!("an {family} address, as that of the collector");
        table.refuse_if(is_other, "source-address", &expected);
        // RFC 8200 section 5: every IPv6 link carries 1280 bytes.
        let is_small = address.is_ipv6() && mtu.is_some_and(|mtu| mtu < 1280);
        table.refuse_if(is_small, "mtu", "at least 1280 over IPv6");
    }
    every!(Collector {
        name: Some(table.take("name", values::output_name)),
        address,
        version,
        selection: selection(table, capture),
        source_address: Some(source_address),
        events,
        triplet,
        flow,
        biflow,
        aggregation,
        aggregation_window: window,
        aggregation_records: log.map(|log| log.size / RECORD),
        nat_event: table.take("nat-event", values::nat_event),
        log_destination,
        ingress_vrf,
        post_nat_counters: table.take("post-nat-counters", values::flag),
        mtu,
        template_refresh: table.take("template-refresh", values::at_least_a_second),
        template_refresh_packets: table
            .take("template-refresh-packets", values::whole(1..=u32::MAX)),
        send_buffer: Some(table.take("send-buffer", values::buffer)),
        observation_domain: domain,
        export_delay: table.take("export-delay", values::duration(Duration::ZERO..=MINUTE)),
    })
}

/// Whether an output has events, triplets and flows, each of which may be named once.
fn records(table: &mut Table, parse: fn(&str) -> Parsed<RecordKind>) -> [Option<bool>; 3] {
    let kinds = table.take_list("records", parse);
    let is_wrong = |kinds: &[RecordKind]| {
        let is_again = |(index, kind)| kinds[..index].contains(kind);
        kinds.is_empty() || kinds.iter().enumerate().any(is_again)
    };
    if kinds.as_deref().is_some_and(is_wrong) {
        table.refuse_value("records");
    }
    let has = |kind| Some(kinds.as_ref()?.contains(&kind));
    [RecordKind::Events, RecordKind::Triplet, RecordKind::Flow].map(has)
}

fn syslog_target(table: &mut Table, capture: &Selection) -> Option<Syslog> {
    let kind = table.take("target", values::target);
    let address = table.take("address", values::destination(SYSLOG_PORT));
    let path = table.take("path", values::absolute_path);
    let default_format = kind.map(|kind| match kind {
        TargetKind::Stdout | TargetKind::Journal => Format::Text,
        TargetKind::Local | TargetKind::Udp | TargetKind::File => Format::Csv,
    });
    let format = table.take("format", values::format).or(default_format);
    let [events, _, flow] = records(table, values::copied_kind);
    let is_both = events == Some(true) && flow == Some(true);
    let expected = "only one of \"events\" and \"flow\" with the format \"csv\", as both would count the traffic";
    table.refuse_if(is_both && format == Some(Format::Csv), "records", expected);
    if let Some(kind) = kind {
        let is_udp = kind == TargetKind::Udp;
        let has_path = !is_udp && kind != TargetKind::Stdout;
        let expected = "nothing unless the format is \"csv\", which alone has exaddr";
        table.refuse_if(format != Some(Format::Csv), "exporter-address", expected);
        table.refuse_if(!is_udp, "address", "nothing unless the target is \"udp\"");
        let expected = "nothing unless the target is \"local\", \"file\" or \"journal\"";
        table.refuse_if(!has_path, "path", expected);
        for (name, is_needed) in [("address", is_udp), ("path", kind == TargetKind::File)] {
            if is_needed && !table.is_set(name) {
                table.refuse_value(name);
            }
        }
    }
    let path_or = |default: &str| path.clone().unwrap_or_else(|| default.into());
    let target = kind.and_then(|kind| {
        Some(match kind {
            TargetKind::Local => Target::Local {
                path: path_or(LOCAL_SOCKET),
            },
            TargetKind::Udp => Target::Udp { address: address? },
            TargetKind::File => Target::File {
                path: path.clone()?,
            },
            TargetKind::Stdout => Target::Stdout,
            TargetKind::Journal => Target::Journal {
                path: path_or(JOURNAL_SOCKET),
            },
        })
    });
    every!(Syslog {
        name: Some(table.take("name", values::output_name)),
        target,
        format,
        selection: selection(table, capture),
        events,
        flow,
        facility: table.take("facility", values::facility),
        severity: table.take("severity", values::severity),
        app_name: table.take("app-name", values::app_name),
        exporter_address: table.take("exporter-address", values::ipv4_address),
    })
}

/// The selection of an output, key by key.
fn selection(table: &mut Table, capture: &Selection) -> Option<Selection> {
    let Selection {
        log,
        mark,
        zone,
        protocols,
        source,
        destination,
    } = capture;
    let prefixes = |table: &mut Table, name: &str| table.take_list(name, values::prefix);
    every!(Selection {
        log: table.take_or("log", log, |it, name| it.take(name, values::log_scope)),
        mark: table.take_or("mark", mark, |it, name| {
            it.take(name, values::optional(values::mark))
        }),
        zone: table.take_or("zone", zone, |it, name| {
            it.take(name, values::optional(values::whole(0..=u16::MAX)))
        }),
        protocols: table.take_or("protocols", protocols, |it, name| {
            it.take_list(name, values::protocol)
        }),
        source: table.take_or("source", source, prefixes),
        destination: table.take_or("destination", destination, prefixes),
    })
}

fn monitor(table: &mut Table) -> Option<Monitor> {
    let namespace = table.take("namespace", values::namespace);
    let method = table.take("method", values::method);
    let mark = table.take("mark", values::mark_value);
    let zone = table.take("zone", values::whole(1..=u16::MAX));
    if namespace.is_none() && !table.is_set("namespace") {
        match method {
            // The firewall of the gateway would reject mirrored packets, and its answers go to their senders; its NAT rules
            // would translate them; and those to its own addresses would be delivered.
            Some(Method::Nft) => table.complain(
                "namespace",
                "expected a namespace of its own with method \"nft\", found nothing: the gateway's firewall and NAT would \
                 act on mirrored packets; make one (\"ip netns add monitor\"), or use method \"tc\""
                    .to_owned(),
            ),
            Some(Method::External) if mark.is_none() && zone.is_none() => table.complain(
                "mark",
                "expected a mark or a zone without a namespace, found neither: one of them tells mirrored connections from \
                 the gateway's own"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    let own = (method == Some(Method::Tc) && namespace.is_none()).then_some(MIRROR_ZONE);
    every!(Monitor {
        name: Some(table.take("name", values::output_name)),
        interface: table.take("interface", values::interface),
        namespace: Some(namespace),
        method,
        mark: Some(mark),
        zone: Some(zone.or(own)),
    })
}
