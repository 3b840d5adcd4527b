//! The report for programs. Names may be added, not changed.

use serde_json::{Map, Value, json};

use super::Report;
use super::text::{listed, verdict};
use crate::archive::report::{EvidenceLog, Kind, PublicAddress, Ranked, Sum};
use crate::cli::who::machine::hole;

pub(super) fn json(report: &Report) -> Value {
    let (totals, holdings) = (&report.totals, &report.holdings);
    let protocols = totals.protocols.iter().map(|(protocol, sum)| {
        json!({"proto": protocol.to_string(), "sessions": sum.sessions, "octets": sum.octets})
    });
    let subscribers = |rank| -> Vec<_> {
        let ranked = totals.subscribers.top(report.top, rank);
        ranked.iter().map(|it| subscriber(report, it)).collect()
    };
    let available = Kind::ALL.map(|kind| (kind.name().to_owned(), kind.available().into()));
    json!({
        "day": report.day.to_string(),
        "made": report.made.wall(),
        "sentence": verdict(report),
        "complete": report.is_complete(),
        "gateways": holdings.gateways.iter().map(|name| &**name).collect::<Vec<_>>(),
        "sessions": {
            "alive": totals.sessions,
            "begun": totals.begun,
            "ended": totals.ended.sessions,
            "octets": totals.ended.octets,
            "open": totals.open,
            "without_start": totals.without_start,
            "without_counters": totals.uncounted,
        },
        "minutes": {"begun": totals.begun_by_minute, "open": totals.open_by_minute},
        "protocols": protocols.collect::<Vec<_>>(),
        "subscribers": {
            "count": totals.subscribers.count(),
            "exact": totals.subscribers.is_exact(),
            "short_sessions": totals.subscribers.short.sessions,
            "short_octets": totals.subscribers.short.octets,
            "by_octets": subscribers(|sum: &Sum| sum.octets),
            "by_sessions": subscribers(|sum: &Sum| sum.sessions),
        },
        "ports": {
            "available": Value::Object(available.into_iter().collect()),
            "address_count": totals.address_count,
            "addresses": listed(report).iter().map(address).collect::<Vec<_>>(),
            "sessions_without": holdings.without_ports,
        },
        "gaps": holdings.holes.iter().map(hole).collect::<Vec<_>>(),
        "other_gaps": holdings.other_gaps.iter().map(hole).collect::<Vec<_>>(),
        "problems": holdings.problems,
        "archive": {
            "files": holdings.files,
            "octets": holdings.octets,
            "sealed": holdings.sealed,
            "unsealed": holdings.unsealed,
            "open": holdings.open,
        },
        "logs": holdings.logs.iter().map(log).collect::<Vec<_>>(),
    })
}

fn subscriber(report: &Report, it: &Ranked) -> Value {
    let mut object = json!({
        "gateway": &*it.gateway,
        "address": it.address.to_string(),
        "sessions": it.sum.sessions,
        "octets": it.sum.octets,
    });
    let name = report.name(it);
    if !name.is_empty() {
        object["subscriber"] = name.into();
    }
    object
}

fn address(it: &PublicAddress) -> Value {
    let mut object = Map::from_iter([
        ("gateway".to_owned(), (*it.gateway).into()),
        ("address".to_owned(), it.address.to_string().into()),
        ("sessions".to_owned(), it.sessions.into()),
    ]);
    for (kind, ports) in Kind::ALL.into_iter().zip(&it.ports) {
        // The minute is that of the day.
        let value = json!({"peak": ports.peak, "minute": ports.minute, "all": ports.all});
        object.insert(kind.name().to_owned(), value);
    }
    object.into()
}

fn log(log: &EvidenceLog) -> Value {
    json!({
        "gateway": log.gateway,
        "entries": log.entries,
        "checkpoint_written": log.written,
        "newest_key": log.key.as_ref().map(|(key, _)| key.to_string()),
        "newest_key_made": log.key.as_ref().map(|(_, made)| made),
    })
}
