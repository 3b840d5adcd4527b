//! Whether mirrored frames arrive at the monitor ports and become connections: step by step, up to the first that fails.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};
use serde_json::Value;

use super::{Exit, Finding, Flaw, Judgement, error, warning};
use crate::config::{Config, LogScope, Method, Monitor, Namespace, Selection};
use crate::kernel::clock;
use crate::kernel::dump::{Dump, Pace};
use crate::kernel::namespace::{is_same, within};
use crate::kernel::netdev::{Interfaces, Received};
use crate::monitor;
use crate::wire::ctnetlink::{Entry, Listing};

/// Frames of a mirror that is in use arrive within this time.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);
/// The largest table is listed within this time.
const LISTED: Duration = Duration::from_secs(30);

const SET_UP: &str = "run \"nattrail monitor up\", or enable nattrail-monitor@.service";

/// The findings of one monitor. An error ends them: the later steps cannot be well.
pub(super) fn look(monitor: &Monitor, config: &Config) -> Vec<Finding> {
    let mut report = Report {
        title: monitor.title(),
        findings: Vec::new(),
    };
    let _ = follow(monitor, config, &mut report);
    report.findings
}

struct Report {
    title: String,
    findings: Vec<Finding>,
}

impl Report {
    /// `None` after an error.
    fn add(&mut self, step: &str, judgement: Judgement) -> Option<()> {
        let is_error = matches!(&judgement, Err(flaw) if flaw.exit.is_some());
        let object = format!("{}: {step}", self.title);
        self.findings.push(Finding::new(object, judgement));
        (!is_error).then_some(())
    }
}

/// The way of a frame.
fn follow(monitor: &Monitor, config: &Config, report: &mut Report) -> Option<()> {
    let namespace = monitor.namespace.as_ref();
    let namespace = namespace.filter(|namespace| !is_same(Some(namespace), None));
    report.add("interface", interface(monitor, namespace))?;
    let passed = passed(monitor, namespace);
    report.add("frames", frames(monitor, namespace))?;
    if monitor.method != Method::External {
        report.add("rules", rules(monitor, namespace, passed))?;
    }
    report.add("connections", connections(monitor, namespace))?;
    report.add("settings", settings(namespace))?;
    report.add("records", records(monitor, config))?;
    report.add("losses", losses(monitor, namespace))
}

fn counters(monitor: &Monitor, namespace: Option<&Namespace>) -> Result<Received, Flaw> {
    let received = within(namespace, || {
        Interfaces::open()?.received(&monitor.interface)
    });
    match received.and_then(|received| received) {
        Ok(Some(received)) => Ok(received),
        Ok(None) => error(
            Exit::Unavailable,
            "expected the interface to exist in its network namespace, found none of that name",
            SET_UP,
        ),
        Err(reason) => error(
            super::exit_of(&reason),
            reason.to_string(),
            "the namespace has to exist, and entering it needs CAP_SYS_ADMIN",
        ),
    }
}

fn interface(monitor: &Monitor, namespace: Option<&Namespace>) -> Judgement {
    counters(monitor, namespace)?;
    if monitor.method == Method::External {
        return Ok("there".to_owned());
    }
    let line = format!("ip -json link show dev {}", monitor.interface);
    let links = ask(namespace, &line)?;
    let flags = links[0]["flags"].as_array().cloned().unwrap_or_default();
    for (flag, expected) in [("UP", "up"), ("PROMISC", "promiscuous")] {
        if !flags.iter().any(|it| it == flag) {
            let found = format!("expected the interface to be {expected}, found that it is not");
            return error(Exit::Unavailable, found, SET_UP);
        }
    }
    match flags.iter().any(|it| it == "NO-CARRIER") {
        true => error(
            Exit::Unavailable,
            "expected a carrier, found none",
            "see the cable, and whether the port of the switch is on",
        ),
        false => Ok("up, promiscuous, with a carrier".to_owned()),
    }
}

fn frames(monitor: &Monitor, namespace: Option<&Namespace>) -> Judgement {
    let before = counters(monitor, namespace)?;
    let end = clock::uptime().saturating_add(PATIENCE);
    loop {
        let number = counters(monitor, namespace)?
            .packets
            .wrapping_sub(before.packets);
        if number > 0 {
            return Ok(format!("they arrive ({number} just now)"));
        }
        if clock::uptime() >= end {
            return error(
                Exit::Unavailable,
                format!(
                    "expected frames to arrive within {} s, found none",
                    PATIENCE.as_secs()
                ),
                "see the session of the switch (SPAN, port mirroring): its sources, its destination port, and whether it is on",
            );
        }
        thread::sleep(PAUSE);
    }
}

/// The frames that have come past the rules, by their own counters; the error is why there is no counter.
fn passed(monitor: &Monitor, namespace: Option<&Namespace>) -> Result<u64, Flaw> {
    let line = match monitor.method {
        Method::External => return Ok(0),
        Method::Nft => format!("nft --json list table netdev {}", monitor::table(monitor)),
        Method::Tc => format!(
            "tc -json -statistics filter show dev {} ingress",
            monitor.interface
        ),
    };
    let answer = ask(namespace, &line)?;
    Ok(match monitor.method {
        Method::Nft => nft_packets(&answer),
        _ => tc_packets(&answer),
    })
}

fn nft_packets(answer: &Value) -> u64 {
    let objects = answer["nftables"].as_array().into_iter().flatten();
    let mut rules = objects.map(|object| &object["rule"]);
    let rule = rules.find(|rule| rule["comment"] == monitor::TRACKED);
    let mut expressions = rule
        .and_then(|rule| rule["expr"].as_array())
        .into_iter()
        .flatten();
    let packets = expressions.find_map(|expression| expression["counter"]["packets"].as_u64());
    packets.unwrap_or_default()
}

fn tc_packets(answer: &Value) -> u64 {
    let filters = answer.as_array().into_iter().flatten();
    let actions = filters.flat_map(|filter| {
        filter["options"]["actions"]
            .as_array()
            .into_iter()
            .flatten()
    });
    let tracking = actions.filter(|action| action["kind"] == "ct");
    tracking
        .filter_map(|action| action["stats"]["packets"].as_u64())
        .sum()
}

fn rules(monitor: &Monitor, namespace: Option<&Namespace>, before: Result<u64, Flaw>) -> Judgement {
    let before = before?;
    let end = clock::uptime().saturating_add(PATIENCE);
    loop {
        let number = passed(monitor, namespace)?.wrapping_sub(before);
        if number > 0 {
            return Ok(format!("IP packets pass them ({number} just now)"));
        }
        if clock::uptime() >= end {
            return error(
                Exit::Unavailable,
                format!(
                    "expected IP packets to pass them within {} s, found none",
                    PATIENCE.as_secs()
                ),
                "if the rules are there (nft list ruleset, tc filter show), the mirror has no plain IP: PPPoE and MPLS are \
                 not taken apart",
            );
        }
        thread::sleep(PAUSE);
    }
}

fn connections(monitor: &Monitor, namespace: Option<&Namespace>) -> Judgement {
    let is_mirrored = |entry: &Entry| {
        let session = &entry.session;
        let has_mark = monitor.mark.is_none_or(|mark| session.mark == mark);
        has_mark && monitor.zone.is_none_or(|zone| session.zone.id == zone)
    };
    match is_listed(namespace, is_mirrored) {
        Ok(true) => Ok("connection tracking has mirrored ones".to_owned()),
        Ok(false) => error(
            Exit::Unavailable,
            "expected mirrored connections in the table of connection tracking, found none",
            match monitor.method {
                Method::External => {
                    "find out whether your rules see the frames, set mark and zone, and let them be routed: the largest of \
                     net.ipv4.conf.all.rp_filter and the interface's own is 0, and forwarding is on for IPv4 and IPv6"
                }
                Method::Tc => "see \"conntrack -S\" and nf_conntrack_max: the table may be full",
                Method::Nft => {
                    "see \"conntrack -S\" and nf_conntrack_max; multicast and packets with a TTL of 1 are not tracked"
                }
            },
        ),
        Err(reason) => error(
            super::exit_of(&reason),
            format!("expected to read the table of connection tracking, found: {reason}"),
            "run this as root",
        ),
    }
}

/// Whether connection tracking has an entry of that kind.
fn is_listed(namespace: Option<&Namespace>, is_it: impl Fn(&Entry) -> bool) -> io::Result<bool> {
    let mut poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
    let dump = Dump::request(Listing::Table, Pace::Fast, namespace, &waker)?;
    let mut events = Events::with_capacity(1);
    let end = clock::uptime().saturating_add(LISTED);
    loop {
        while let Some(piece) = dump.receive()? {
            if piece.entries.iter().any(&is_it) {
                return Ok(true);
            }
            if piece.is_last {
                return Ok(false);
            }
        }
        if clock::uptime() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        poll.poll(&mut events, Some(PAUSE))?;
    }
}

/// Those that [`super::kernel_settings`] does not judge.
fn settings(namespace: Option<&Namespace>) -> Judgement {
    let names = ["nf_conntrack_tcp_be_liberal", "nf_conntrack_tcp_loose"];
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/netfilter/{name}"));
    let values = within(namespace, || {
        names.map(|name| (name, read(name).unwrap_or_default()))
    });
    for (name, value) in values.unwrap_or_default() {
        if value.trim() == "0" {
            return warning(
                format!(
                    "net.netfilter.{name}: expected 1, found 0: packets that a mirror reorders are not counted"
                ),
                "set it with sysctl -w, if all of this namespace may be judged so; a namespace of its own is better",
            );
        }
    }
    Ok("packets out of order are counted".to_owned())
}

/// Whether a daemon with this configuration reports the connections.
fn records(monitor: &Monitor, config: &Config) -> Judgement {
    if !is_same(
        monitor.namespace.as_ref(),
        config.capture.namespace.as_ref(),
    ) {
        return warning(
            "expected capture.namespace to be that of the monitor, found another: this daemon does not see its connections",
            "set capture.namespace, or run a daemon of its own there (nattrail@NAME)",
        );
    }
    let (zone, mark) = (monitor.zone.unwrap_or(0), monitor.mark.unwrap_or(0));
    let accepts = |selection: &Selection| {
        selection.log == LogScope::All
            && selection.zone.is_none_or(|wanted| wanted == zone)
            && selection.mark.is_none_or(|wanted| wanted.accepts(mark))
    };
    match config.selections().iter().any(accepts) {
        true => Ok("the daemon logs these connections".to_owned()),
        false => warning(
            "expected an output with log \"all\" and the zone and mark of the monitor, found none: mirrored connections are \
             not translated here, so none is logged",
            "set log = \"all\" for a collector or a copy, or in [capture]",
        ),
    }
}

fn losses(monitor: &Monitor, namespace: Option<&Namespace>) -> Judgement {
    match counters(monitor, namespace)?.lost {
        0 => Ok("none at the port".to_owned()),
        lost => warning(
            format!(
                "expected none at the port, found {lost} frames dropped since the interface was made, whether it was set up or not"
            ),
            "give it a larger ring (ethtool -G) and mtu, or mirror less; the daemon states a gap for new ones",
        ),
    }
}

/// What a tool of the system says, in JSON.
fn ask(namespace: Option<&Namespace>, line: &str) -> Result<Value, Flaw> {
    let failed = |found: String| error(Exit::Unavailable, found, SET_UP);
    match monitor::ask(namespace, line) {
        Ok(text) => {
            serde_json::from_str(&text).or_else(|reason| failed(format!("\"{line}\": {reason}")))
        }
        Err(reason) => failed(reason),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_counter_of_nft_is_that_of_the_rule_with_the_comment() {
        let counter = |packets| json!([{"match": {}}, {"counter": {"packets": packets, "bytes": 1}}, {"accept": null}]);
        let answer = json!({"nftables": [
            {"metainfo": {}},
            {"rule": {"comment": "cannot be routed", "expr": counter(7)}},
            {"rule": {"comment": monitor::TRACKED, "expr": counter(5)}},
        ]});
        assert_eq!(nft_packets(&answer), 5);
        assert_eq!(nft_packets(&json!({})), 0);
    }

    #[test]
    fn the_counters_of_tc_are_those_of_the_action_ct() {
        let action =
            |kind: &str, packets: u64| json!({"kind": kind, "stats": {"packets": packets}});
        let filter = |actions: Value| json!({"kind": "matchall", "options": {"actions": actions}});
        let answer = json!([
            {"kind": "matchall"},
            filter(json!([action("ct", 3), action("gact", 3)])),
            filter(json!([action("vlan", 9), action("ct", 4)])),
        ]);
        assert_eq!(tc_packets(&answer), 7);
    }
}
