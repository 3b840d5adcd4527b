//! From sections to the typed configuration: every value valid, no combination impossible.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::Problem;
use super::tree::{Table, Wrong};
use super::values::{self, RecordKind, TargetKind};
use super::{
    Capture, Collector, Control, Format, Log, Metrics, NatEventValues, Pending, Syslog, Target,
    Version,
};

const LARGEST_BUFFER: usize = 1 << 30;
const MINUTE: Duration = Duration::from_secs(60);
const METRICS_PORT: u16 = 9469;
const SYSLOG_PORT: u16 = 514;
const LOCAL_SOCKET: &str = "/dev/log";
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
const IPV6_MINIMUM_MTU: u16 = 1280;

/// `None` when there is a mistake in the section; it is among the `problems` then.
pub(super) fn capture(mut table: Table, problems: &mut Vec<Problem>) -> Option<Capture> {
    let namespace = table.take("namespace", values::namespace, problems);
    let name = table.take("table", values::table_name, problems);
    let log = table.take("log", values::log_scope, problems);
    let mark = table.take("mark", values::mark, problems);
    let protocols = table.take_list("protocols", values::protocol, problems);
    let source = table.take_list("source", values::prefix, problems);
    let destination = table.take_list("destination", values::prefix, problems);
    let set_sysctls = table.take("set-sysctls", values::flag, problems);
    let receive_buffer = table.take("receive-buffer", buffer(), problems);
    let reliable = table.take("reliable", values::flag, problems);
    let resync = table.take("resync", values::interval, problems);
    table.finish(problems);
    Some(Capture {
        namespace,
        table: name?,
        log: log?,
        mark,
        protocols: protocols?,
        source: source?,
        destination: destination?,
        set_sysctls: set_sysctls?,
        receive_buffer: receive_buffer?,
        reliable: reliable?,
        resync: resync?,
    })
}

/// The same for `[pending]`, whose database is in `state_directory` unless the key says otherwise.
pub(super) fn pending(
    mut table: Table,
    state_directory: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Pending> {
    let database = table.take("database", values::absolute_path, problems);
    let ttl = table.take("ttl", at_least_a_second(), problems);
    let flush = values::duration(Duration::from_millis(100)..=MINUTE);
    let flush = table.take("flush", flush, problems);
    let max = table.take("max", values::whole(1..=4_000_000_000), problems);
    table.finish(problems);
    Some(Pending {
        database: database.unwrap_or_else(|| state_directory.join("pending.db")),
        ttl: ttl?,
        flush: flush?,
        max: max?,
    })
}

/// The same for `[log]`.
pub(super) fn log(mut table: Table, problems: &mut Vec<Problem>) -> Option<Log> {
    let size = table.take("size", values::size(16 << 20..=1 << 40), problems);
    let age = table.take("age", at_least_a_second(), problems);
    table.finish(problems);
    Some(Log {
        size: size?,
        age: age?,
    })
}

/// The same for `[control]`, whose socket is in `runtime_directory` unless the key says otherwise.
pub(super) fn control(
    mut table: Table,
    runtime_directory: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Control> {
    let given = table.is_given("socket");
    let socket = table.take("socket", values::optional_socket, problems);
    table.finish(problems);
    let default = || Some(runtime_directory.join("control.sock"));
    Some(Control {
        socket: if given { socket? } else { default() },
    })
}

/// The same for `[metrics]`, in which nothing but a value can be wrong.
pub fn metrics(mut table: Table, problems: &mut Vec<Problem>) -> Metrics {
    let listen = table.take("listen", values::endpoint, problems);
    table.finish(problems);
    let address = |(ip, port): (_, Option<u16>)| SocketAddr::new(ip, port.unwrap_or(METRICS_PORT));
    Metrics {
        listen: listen.map(address),
    }
}

/// All collectors that are free of mistakes.
pub(super) fn collectors(tables: Vec<Table>, problems: &mut Vec<Problem>) -> Vec<Collector> {
    let mut built = Vec::with_capacity(tables.len());
    let mut owners = HashMap::with_capacity(tables.len());
    let mut names = HashMap::new();
    for mut table in tables {
        if let Some(collector) = collector(&mut table, problems) {
            let identity = (
                collector.address,
                collector.version,
                collector.observation_domain,
            );
            if let Some(twin) = owners.get(&identity) {
                let message = format!(
                    "expected an address, version and observation-domain of its own, found those of {twin}"
                );
                table.conflict("address", message, problems);
            } else {
                owners.insert(identity, table.label.clone());
            }
            refuse_second(collector.name.as_deref(), &mut names, &table, problems);
            built.push(collector);
        }
        table.finish(problems);
    }
    built
}

/// All syslog targets that are free of mistakes.
pub(super) fn syslog(tables: Vec<Table>, problems: &mut Vec<Problem>) -> Vec<Syslog> {
    let mut built: Vec<Syslog> = Vec::with_capacity(tables.len());
    let mut labels: Vec<String> = Vec::with_capacity(tables.len());
    let mut names = HashMap::new();
    for mut table in tables {
        if let Some(syslog) = syslog_target(&mut table, problems) {
            if let Some(twin) = built.iter().position(|other| is_twin(other, &syslog)) {
                refuse_twin(&syslog.target, &labels[twin], &table, problems);
            }
            refuse_second(syslog.name.as_deref(), &mut names, &table, problems);
            labels.push(table.label.clone());
            built.push(syslog);
        }
        table.finish(problems);
    }
    built
}

/// An output is known by its name: where it goes on in the record log, and to whoever reads the status.
fn refuse_second(
    name: Option<&str>,
    owners: &mut HashMap<String, String>,
    table: &Table,
    problems: &mut Vec<Problem>,
) {
    let Some(name) = name else { return };
    if let Some(twin) = owners.get(name) {
        let message = format!("expected a name of its own, found that of {twin}");
        table.conflict("name", message, problems);
    } else {
        owners.insert(name.to_owned(), table.label.clone());
    }
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

fn collector(table: &mut Table, problems: &mut Vec<Problem>) -> Option<Collector> {
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
    // There is one transport so far, so that its value decides nothing.
    let transport = table.take("transport", values::transport, problems);
    let nat_event = table.take("nat-event", values::nat_event, problems);
    let destination = table.take("destination", values::flag, problems);
    let zone = table.take("zone", values::flag, problems);
    let post_nat_counters = table.take("post-nat-counters", values::flag, problems);
    let mtu = table.take("mtu", values::whole(576..=9216), problems);
    let refresh = table.take("template-refresh", at_least_a_second(), problems);
    let refresh_packets = values::whole(1..=u32::MAX);
    let refresh_packets = table.take("template-refresh-packets", refresh_packets, problems);
    let send_buffer = table.take("send-buffer", buffer(), problems);
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
        nat_event: nat_event.unwrap_or(NatEventValues::Rfc8158),
        destination: destination?,
        zone: zone?,
        post_nat_counters: post_nat_counters?,
        mtu: mtu?,
        template_refresh: refresh.unwrap_or(Duration::from_secs(30 * 60)),
        template_refresh_packets: refresh_packets.unwrap_or(20),
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
    let count = |kind| kinds.iter().filter(|other| **other == kind).count();
    let (events, triplet) = (count(RecordKind::Events), count(RecordKind::Triplet));
    if kinds.is_empty() {
        table.missing("records", problems);
        return None;
    }
    if events > 1 || triplet > 1 {
        let message = "expected \"events\", \"triplet\" or both, each once, found one twice";
        table.conflict("records", message, problems);
        return None;
    }
    Some((events == 1, triplet == 1))
}

fn source_address(
    table: &mut Table,
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

fn syslog_target(table: &mut Table, problems: &mut Vec<Problem>) -> Option<Syslog> {
    let name = table.take("name", values::output_name, problems);
    let kind = table.take("target", values::target, problems);
    let (address_given, path_given) = (table.is_set("address"), table.is_set("path"));
    let address = table.take("address", values::destination, problems);
    let path = table.take("path", values::absolute_path, problems);
    let format = table.take("format", values::format, problems);
    let facility = table.take("facility", values::facility, problems);
    let severity = table.take("severity", values::severity, problems);
    let app_name = table.take("app-name", values::app_name, problems);
    let exporter_given = table.is_set("exporter-address");
    let exporter_address = table.take("exporter-address", values::ipv4_address, problems);
    let kind = kind?;
    let format = format.unwrap_or(default_format(kind));
    if exporter_given && format != Format::Csv {
        let message = "expected nothing unless the format is \"csv\", which alone has exaddr";
        table.conflict("exporter-address", message, problems);
    }
    if address_given && kind != TargetKind::Udp {
        let message = "expected nothing unless the target is \"udp\"";
        table.conflict("address", message, problems);
    }
    if path_given && matches!(kind, TargetKind::Udp | TargetKind::Stdout) {
        let message = "expected nothing unless the target is \"local\", \"file\" or \"journal\"";
        table.conflict("path", message, problems);
    }
    if kind == TargetKind::Udp && !address_given {
        table.missing("address", problems);
    }
    if kind == TargetKind::File && !path_given {
        table.missing("path", problems);
    }
    Some(Syslog {
        name,
        target: target(kind, address, path)?,
        format,
        facility: facility?,
        severity: severity?,
        app_name: app_name?,
        exporter_address: exporter_address.unwrap_or(Ipv4Addr::LOCALHOST),
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

fn buffer() -> impl Fn(&str) -> Result<usize, Wrong> {
    values::size(4 << 10..=LARGEST_BUFFER)
}

fn at_least_a_second() -> impl Fn(&str) -> Result<Duration, Wrong> {
    values::duration(Duration::from_secs(1)..=Duration::MAX)
}
