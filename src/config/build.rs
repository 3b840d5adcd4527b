//! From sections to the typed configuration: every value valid, no combination impossible.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::problem::Problem;
use super::tree::Table;
use super::values::{self, RecordKind, TargetKind};
use super::{Collector, Format, Syslog, Target, Version};

const MINUTE: Duration = Duration::from_secs(60);
const SYSLOG_PORT: u16 = 514;
const LOCAL_SOCKET: &str = "/dev/log";
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
const IPV6_MINIMUM_MTU: u16 = 1280;

/// All collectors that are free of mistakes.
pub(super) fn collectors(tables: &[Table], problems: &mut Vec<Problem>) -> Vec<Collector> {
    let all = built(tables, collector, |one| one.name.as_deref(), problems);
    let mut owners = HashMap::new();
    for (collector, table) in &all {
        let Collector {
            address,
            version,
            observation_domain,
            ..
        } = collector;
        if let Some(twin) = owners.insert((address, version, observation_domain), &table.label) {
            let message = format!(
                "expected an address, version and observation-domain of its own, found those of {twin}"
            );
            table.conflict("address", message, problems);
        }
    }
    all.into_iter().map(|(collector, _)| collector).collect()
}

/// All syslog targets that are free of mistakes.
pub(super) fn syslog(tables: &[Table], problems: &mut Vec<Problem>) -> Vec<Syslog> {
    let all = built(tables, syslog_target, |one| one.name.as_deref(), problems);
    for (index, (syslog, table)) in all.iter().enumerate() {
        let mut before = all[..index].iter();
        if let Some((_, twin)) = before.find(|(other, _)| is_twin(other, syslog)) {
            refuse_twin(&syslog.target, &twin.label, table, problems);
        }
    }
    all.into_iter().map(|(syslog, _)| syslog).collect()
}

/// The outputs of all tables without a mistake. An output is known by its name, in the record log
/// and in the status.
fn built<'a, T>(
    tables: &'a [Table],
    build: fn(&Table, &mut Vec<Problem>) -> Option<T>,
    name: fn(&T) -> Option<&str>,
    problems: &mut Vec<Problem>,
) -> Vec<(T, &'a Table)> {
    let mut owners = HashMap::new();
    let mut all = Vec::with_capacity(tables.len());
    for table in tables {
        if let Some(output) = build(table, problems) {
            if let Some(name) = name(&output)
                && let Some(twin) = owners.insert(name.to_owned(), &table.label)
            {
                let message = format!("expected a name of its own, found that of {twin}");
                table.conflict("name", message, problems);
            }
            all.push((output, table));
        }
        table.finish(problems);
    }
    all
}

/// Whether a target would take the records that another has already.
fn is_twin(one: &Syslog, other: &Syslog) -> bool {
    let same_stream = one.target == other.target;
    match one.target {
        // Two writers into one stream would tear each other's lines apart, and the journal shows all it has at once.
        Target::File { .. } | Target::Stdout | Target::Journal { .. } => same_stream,
        // A syslog server sorts by these, so that each may have its own place there.
        Target::Local { .. } | Target::Udp { .. } => {
            same_stream
                && one.format == other.format
                && one.facility == other.facility
                && one.severity == other.severity
                && one.app_name == other.app_name
        }
    }
}

fn refuse_twin(target: &Target, twin: &str, table: &Table, problems: &mut Vec<Problem>) {
    let (key, own, theirs) = match target {
        Target::File { .. } => ("path", "a file", "that"),
        Target::Stdout | Target::Journal { .. } => ("target", "a target", "that"),
        Target::Local { .. } | Target::Udp { .. } => (
            "target",
            "a target, format, facility, severity or app-name",
            "those",
        ),
    };
    let message = format!("expected {own} of its own, found {theirs} of {twin}");
    table.conflict(key, message, problems);
}

fn collector(table: &Table, problems: &mut Vec<Problem>) -> Option<Collector> {
    let name = table.take("name", values::output_name, problems);
    let version = table.take("version", values::version, problems);
    let records = table.take_list("records", values::record_kind, problems);
    let records = records.and_then(|kinds| record_kinds(&kinds, table, problems));
    if version == Some(Version::NetflowV5) {
        refuse_templates(table, problems);
    }
    let address = table.take("address", values::destination, problems);
    let address = address.map(|(ip, port)| {
        let port = port.unwrap_or(version.map_or(0, default_port));
        SocketAddr::new(ip, port)
    });
    let source = source_address(table, address, problems);
    let transport = table.take("transport", values::transport, problems);
    let nat_event = table.take("nat-event", values::nat_event, problems);
    let destination = table.take("destination", values::flag, problems);
    let zone = table.take("zone", values::flag, problems);
    let post_nat_counters = table.take("post-nat-counters", values::flag, problems);
    let mtu = table.take("mtu", values::whole(576..=9216), problems);
    let refresh = table.take("template-refresh", values::at_least_a_second, problems);
    let refresh_packets = values::whole(1..=u32::MAX);
    let refresh_packets = table.take("template-refresh-packets", refresh_packets, problems);
    let send_buffer = table.take("send-buffer", values::buffer, problems);
    let domain = table.take("observation-domain", values::whole(0..=u32::MAX), problems);
    let export_delay = values::duration(Duration::ZERO..=MINUTE);
    let export_delay = table.take("export-delay", export_delay, problems);
    transport?;
    let (events, triplet) = records?;
    let collector = Collector {
        name,
        address: address?,
        version: version?,
        source,
        events,
        triplet,
        nat_event: nat_event?,
        destination: destination?,
        zone: zone?,
        post_nat_counters: post_nat_counters?,
        mtu: mtu?,
        template_refresh: refresh?,
        template_refresh_packets: refresh_packets?,
        send_buffer,
        observation_domain: domain?,
        export_delay: export_delay?,
    };
    refuse_contradictions(&collector, table, problems);
    Some(collector)
}

fn record_kinds(
    kinds: &[RecordKind],
    table: &Table,
    problems: &mut Vec<Problem>,
) -> Option<(bool, bool)> {
    match kinds {
        [one] => return Some((*one == RecordKind::Events, *one == RecordKind::Triplet)),
        [one, other] if one != other => return Some((true, true)),
        [] => table.missing("records", problems),
        _ => {
            let message = "expected \"events\", \"triplet\" or both, each once, found one twice";
            table.conflict("records", message, problems);
        }
    }
    None
}

fn source_address(
    table: &Table,
    address: Option<SocketAddr>,
    problems: &mut Vec<Problem>,
) -> Option<SocketAddr> {
    let (ip, port) = table.take("source", values::endpoint, problems)?;
    if let Some(address) = address.filter(|address| address.is_ipv4() != ip.is_ipv4()) {
        let family = |ip: IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let message = format!(
            "expected an {} address, as that of the collector, found \"{ip}\"",
            family(address.ip())
        );
        table.conflict("source", message, problems);
    }
    Some(SocketAddr::new(ip, port.unwrap_or(0)))
}

/// NetFlow v5 has one fixed record: what describes templates or their elements is a mistake.
fn refuse_templates(table: &Table, problems: &mut Vec<Problem>) {
    let keys = [
        ("nat-event", "has no natEvent"),
        ("template-refresh", "has no templates"),
        ("template-refresh-packets", "has no templates"),
    ];
    for (name, reason) in keys {
        if table.is_set(name) {
            let message = format!("expected nothing with version \"v5\", which {reason}");
            table.conflict(name, message, problems);
        }
    }
}

fn refuse_contradictions(collector: &Collector, table: &Table, problems: &mut Vec<Problem>) {
    let v5 = collector.version == Version::NetflowV5;
    if !collector.destination && v5 {
        let message =
            "expected true with version \"v5\", whose records cannot leave it out, found false";
        table.conflict("destination", message, problems);
    }
    if !collector.destination && collector.triplet {
        let message =
            "expected true with records \"triplet\", which carry the destination, found false";
        table.conflict("destination", message, problems);
    }
    if collector.zone && v5 {
        let message =
            "expected false with version \"v5\", whose records have no room for it, found true";
        table.conflict("zone", message, problems);
    }
    if v5 && collector.observation_domain > u32::from(u16::MAX) {
        let message = format!(
            "expected at most 65535 with version \"v5\" (engine type and id), found {}",
            collector.observation_domain
        );
        table.conflict("observation-domain", message, problems);
    }
    // RFC 8200 section 5: every IPv6 link carries 1280 bytes.
    if collector.address.is_ipv6() && collector.mtu < IPV6_MINIMUM_MTU {
        let message = format!(
            "expected at least {IPV6_MINIMUM_MTU} over IPv6, found {}",
            collector.mtu
        );
        table.conflict("mtu", message, problems);
    }
}

fn syslog_target(table: &Table, problems: &mut Vec<Problem>) -> Option<Syslog> {
    let name = table.take("name", values::output_name, problems);
    let kind = table.take("target", values::target, problems);
    let address = table.take("address", values::destination, problems);
    let path = table.take("path", values::absolute_path, problems);
    let format = table.take("format", values::format, problems);
    let facility = table.take("facility", values::facility, problems);
    let severity = table.take("severity", values::severity, problems);
    let app_name = table.take("app-name", values::app_name, problems);
    let exporter_address = table.take("exporter-address", values::ipv4_address, problems);
    let kind = kind?;
    let format = format.unwrap_or(default_format(kind));
    let udp = kind == TargetKind::Udp;
    let with_path = !matches!(kind, TargetKind::Udp | TargetKind::Stdout);
    let misplaced = [
        (
            "exporter-address",
            format != Format::Csv,
            "the format is \"csv\", which alone has exaddr",
        ),
        ("address", !udp, "the target is \"udp\""),
        (
            "path",
            !with_path,
            "the target is \"local\", \"file\" or \"journal\"",
        ),
    ];
    for (name, misplaced, place) in misplaced {
        if misplaced && table.is_set(name) {
            let message = format!("expected nothing unless {place}");
            table.conflict(name, message, problems);
        }
    }
    for (name, needed) in [("address", udp), ("path", kind == TargetKind::File)] {
        if needed && !table.is_set(name) {
            table.missing(name, problems);
        }
    }
    Some(Syslog {
        name,
        target: target(kind, address, path)?,
        format,
        facility: facility?,
        severity: severity?,
        app_name: app_name?,
        exporter_address: exporter_address?,
    })
}

fn target(
    kind: TargetKind,
    address: Option<(IpAddr, Option<u16>)>,
    path: Option<PathBuf>,
) -> Option<Target> {
    Some(match kind {
        TargetKind::Local => Target::Local {
            path: path.unwrap_or_else(|| LOCAL_SOCKET.into()),
        },
        TargetKind::Udp => {
            let (ip, port) = address?;
            Target::Udp {
                address: SocketAddr::new(ip, port.unwrap_or(SYSLOG_PORT)),
            }
        }
        TargetKind::File => Target::File { path: path? },
        TargetKind::Stdout => Target::Stdout,
        TargetKind::Journal => Target::Journal {
            path: path.unwrap_or_else(|| JOURNAL_SOCKET.into()),
        },
    })
}

const fn default_format(kind: TargetKind) -> Format {
    match kind {
        TargetKind::Stdout | TargetKind::Journal => Format::Text,
        TargetKind::Local | TargetKind::Udp | TargetKind::File => Format::Csv,
    }
}

const fn default_port(version: Version) -> u16 {
    match version {
        Version::NetflowV5 | Version::NetflowV9 => 2055,
        // RFC 7011 section 10.3.4 and IANA's registry of ports.
        Version::Ipfix => 4739,
    }
}
