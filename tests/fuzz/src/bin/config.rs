//! The configuration: whatever the loader takes, written as TOML with every key, is taken for the same.

#![no_main]

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::time::Duration;

use nattrail::config::{Archive, Log, Monitor, Severity, Syslog, Target};
use nattrail::config::{
    Capture, Collector, Config, Control, Facility, LogScope, Metrics, NatEventValues, Pending,
    Selection,
};
use nattrail_fuzz::{Scratch, check_message, words};

libfuzzer_sys::fuzz_target!(init: nattrail_fuzz::prepare(seeds(), words()), |data: &[u8]| run(data));

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
}

const EXTENSIONS: [&str; 4] = ["toml", "yaml", "json", "ini"];

/// The first octet says which format it is. Behind a NUL each, variables of the environment follow.
fn seeds() -> Vec<String> {
    let sample = include_str!("../../../../conf/nattrail.toml");
    let settings = sample
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')));
    let every_key: Vec<_> = sample
        .lines()
        .filter(|line| line.starts_with('['))
        .chain(settings)
        .collect();
    let mut seeds = vec![format!("0{}", every_key.join("\n"))];
    seeds.extend(
        [
            "0[capture]\nlog = \"all\"\nprotocols = [\"tcp\", 47]\n[[collector]]\naddress = \"192.0.2.1\"\nversion = 9\n\
             \0NATTRAIL_COLLECTOR_0_MTU=900\0NATTRAIL_SYSLOG_0_TARGET=journal\0STATE_DIRECTORY=/a:/b",
            "0[collector.a]\naddress = \"[2001:db8::1]:99\"\nrecords = [\"events\", \"triplet\"]\nsource-address = \"::1\"\ningress-vrf = true\n",
            "1capture:\n  mark: 0x10/0xff\n  zone: 7\n  source: [10.0.0.0/8, \"fd00::/8\"]\ncollector:\n  - &a\n    address: 192.0.2.1\n    \
             version: v5\n    observation-domain: 7\nsyslog:\n  b:\n    target: udp\n    address: 192.0.2.2\n    format: rfc5424\n",
            "2{\"capture\": {\"resync\": \"0s\", \"active-timeout\": \"30m\", \"namespace\": \"blue\"}, \"syslog\": [{\"target\": \"file\", \"path\": \"/a\\u0020b\", \
             \"facility\": \"local3\", \"severity\": \"warn\"}], \"log\": {\"size\": 16777216, \"age\": null}}",
            "3[metrics]\nlisten = 127.0.0.1\n[pending]\nttl = 2d ; comment\nmax = 7\n[collector.c]\naddress = 192.0.2.1\n\
             [syslog.d]\ntarget = local\nexporter-address = 192.0.2.9\nlog = all\nmark =\nsource = 10.0.0.0/8\n[collector.e]\naddress = 192.0.2.1\nrecords = flow\naggregation = 192.0.0.0/8=16,2001:db8::/32=48,80-89=80,3128=80\n",
            "0[monitor.a]\ninterface = \"eth1\"\nnamespace = \"m\"\nmethod = \"nft\"\nmark = \"0x10\"\n[monitor.b]\ninterface = \"eth2\"\n",
        ]
        .map(str::to_owned),
    );
    seeds
}

fn run(data: &[u8]) {
    let Some((format, rest)) = data.split_first() else {
        return;
    };
    let mut parts = rest.split(|octet| *octet == 0);
    let text = parts.next().unwrap_or_default();
    let variables = parts.filter_map(|part| std::str::from_utf8(part).ok()?.split_once('='));
    let environment: Vec<_> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    SCRATCH.with(|scratch| {
        let extension = EXTENSIONS[usize::from(*format) % EXTENSIONS.len()];
        match scratch.load(extension, text, &environment) {
            Err(message) => check_message(&message),
            Ok(config) => {
                let printed = printed(&config);
                assert!(
                    !printed.contains("\\u0000"),
                    "a NUL ends a path early: {printed}"
                );
                let again = scratch.load("toml", printed.as_bytes(), &[]);
                assert_eq!(again.as_ref(), Ok(&config), "{printed}");
            }
        }
    });
}

/// The structs are taken apart, so that a key that is new is missed here.
fn printed(config: &Config) -> String {
    let Config {
        capture,
        pending,
        log,
        archive,
        control,
        metrics,
        collectors,
        syslog,
        monitors,
    } = config;
    let mut out = Printer("[capture]\n".to_owned());
    let Capture {
        namespace,
        table,
        log: scope,
        mark,
        zone,
        protocols,
        source,
        destination,
        set_sysctls,
        receive_buffer,
        reliable,
        resync,
        active_timeout,
    } = capture;
    out.set(
        "namespace",
        namespace.as_ref().map(|namespace| text(&namespace.0)),
    );
    out.set("table", Some(table));
    print_selection(
        &Selection {
            log: *scope,
            mark: *mark,
            zone: *zone,
            protocols: protocols.clone(),
            source: source.clone(),
            destination: destination.clone(),
        },
        &mut out,
    );
    out.set("set-sysctls", Some(set_sysctls));
    out.set("receive-buffer", Some(receive_buffer));
    out.set("reliable", Some(reliable));
    out.set("resync", Some(duration(resync.unwrap_or_default())));
    out.set("active-timeout", active_timeout.map(duration));
    out.0 += "[pending]\n";
    let Pending {
        database,
        ttl,
        flush,
        max,
    } = pending;
    out.set("database", Some(text(database)));
    out.set("ttl", Some(duration(*ttl)));
    out.set("flush", Some(duration(*flush)));
    out.set("max", Some(max));
    out.0 += "[log]\n";
    let Log { size, age } = log;
    out.set("size", Some(size));
    out.set("age", Some(duration(*age)));
    out.0 += "[archive]\n";
    let Archive {
        directory,
        gateway,
        require_case,
        keep,
        keep_lookups,
        timestamp,
    } = archive;
    out.set("directory", Some(text(directory)));
    out.set("gateway", gateway.as_ref());
    out.set("require-case", Some(require_case));
    out.set("keep", keep.map(duration));
    out.set("keep-lookups", keep_lookups.map(duration));
    out.list("timestamp", timestamp);
    out.0 += "[control]\n";
    let Control { socket } = control;
    out.set("socket", Some(socket.as_deref().map_or("", text)));
    out.0 += "[metrics]\n";
    let Metrics { listen } = metrics;
    out.set("listen", listen.as_ref());
    collectors
        .iter()
        .for_each(|collector| print_collector(collector, &mut out));
    syslog.iter().for_each(|copy| print_syslog(copy, &mut out));
    monitors
        .iter()
        .for_each(|monitor| print_monitor(monitor, &mut out));
    out.0
}

/// In `[capture]`, the empty text is the default.
fn print_selection(selection: &Selection, out: &mut Printer) {
    let Selection {
        log,
        mark,
        zone,
        protocols,
        source,
        destination,
    } = selection;
    out.set(
        "log",
        Some(if *log == LogScope::Nat { "nat" } else { "all" }),
    );
    let any = String::new;
    out.set("mark", Some(mark.map_or_else(any, |mark| mark.to_string())));
    out.set("zone", Some(zone.map_or_else(any, |zone| zone.to_string())));
    out.list("protocols", protocols.iter().map(|protocol| protocol.0));
    out.list("source", source);
    out.list("destination", destination);
}

fn print_collector(collector: &Collector, out: &mut Printer) {
    let Collector {
        name,
        address,
        version,
        selection,
        source_address,
        events,
        triplet,
        flow,
        biflow,
        aggregation,
        aggregation_window,
        aggregation_records: _,
        nat_event,
        log_destination,
        ingress_vrf,
        post_nat_counters,
        mtu,
        template_refresh,
        template_refresh_packets,
        send_buffer,
        observation_domain,
        export_delay,
    } = collector;
    out.0 += "[[collector]]\n";
    out.set("name", name.as_ref());
    out.set("address", Some(address));
    out.set("version", Some(version.name()));
    print_selection(selection, out);
    out.set("source-address", source_address.as_ref());
    let kinds = [(events, "events"), (triplet, "triplet"), (flow, "flow")].into_iter();
    out.list(
        "records",
        kinds.filter(|(is_sent, _)| **is_sent).map(|(_, kind)| kind),
    );
    out.set("log-destination", Some(log_destination));
    out.set("post-nat-counters", Some(post_nat_counters));
    out.set("biflow", Some(biflow));
    out.list("aggregation", aggregation);
    out.set("aggregation-window", Some(duration(*aggregation_window)));
    out.set("mtu", Some(mtu));
    out.set("send-buffer", send_buffer.as_ref());
    out.set("observation-domain", Some(observation_domain));
    out.set("export-delay", Some(duration(*export_delay)));
    // The others are not to be set for v5.
    if version.name() != "v5" {
        out.set("ingress-vrf", Some(ingress_vrf));
        out.set(
            "nat-event",
            Some(if *nat_event == NatEventValues::Legacy {
                "legacy"
            } else {
                "rfc8158"
            }),
        );
        out.set("template-refresh", Some(duration(*template_refresh)));
        out.set("template-refresh-packets", Some(template_refresh_packets));
    }
}

fn print_syslog(syslog: &Syslog, out: &mut Printer) {
    const FACILITIES: [&str; 24] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
        "authpriv", "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4",
        "local5", "local6", "local7",
    ];
    const SEVERITIES: [&str; 8] = [
        "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
    ];
    let Syslog {
        name,
        target,
        format,
        selection,
        events,
        flow,
        facility: Facility(facility),
        severity,
        app_name,
        exporter_address,
    } = syslog;
    out.0 += "[[syslog]]\n";
    out.set("name", name.as_ref());
    out.set("target", Some(target.kind()));
    let kinds = [(events, "events"), (flow, "flow")].into_iter();
    out.list(
        "records",
        kinds
            .filter(|(is_copied, _)| **is_copied)
            .map(|(_, kind)| kind),
    );
    match target {
        Target::Local { path } | Target::File { path } | Target::Journal { path } => {
            out.set("path", Some(text(path)))
        }
        Target::Udp { address } => out.set("address", Some(address)),
        Target::Stdout => {}
    }
    out.set("format", Some(format.name()));
    print_selection(selection, out);
    out.set("facility", Some(FACILITIES[usize::from(*facility) / 8]));
    let severity: &Severity = severity;
    out.set("severity", Some(SEVERITIES[*severity as usize]));
    out.set("app-name", Some(app_name));
    if format.name() == "csv" {
        out.set("exporter-address", Some(exporter_address));
    }
}

fn print_monitor(monitor: &Monitor, out: &mut Printer) {
    let Monitor {
        name,
        interface,
        namespace,
        method,
        mark,
        zone,
    } = monitor;
    out.0 += "[[monitor]]\n";
    out.set("name", name.as_ref());
    out.set("interface", Some(interface));
    out.set(
        "namespace",
        namespace.as_ref().map(|namespace| text(&namespace.0)),
    );
    out.set("method", Some(method.name()));
    out.set("mark", mark.as_ref());
    out.set("zone", zone.as_ref());
}

struct Printer(String);

impl Printer {
    /// TOML takes every value as text, written as JSON does but for one character.
    fn set(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            let _ = writeln!(self.0, "{key} = {}", quoted(&value));
        }
    }

    fn list(&mut self, key: &str, values: impl IntoIterator<Item = impl Display>) {
        let values: Vec<_> = values.into_iter().map(|value| quoted(&value)).collect();
        let _ = writeln!(self.0, "{key} = [{}]", values.join(", "));
    }
}

fn quoted(value: &impl Display) -> String {
    serde_json::Value::from(value.to_string())
        .to_string()
        .replace('\u{7f}', "\\u007F")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
