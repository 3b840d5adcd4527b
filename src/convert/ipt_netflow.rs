//! The options of the kernel module `ipt_NETFLOW` as nattrail's configuration.
//!
//! They are read from a file of modprobe.d(5), `options ipt_NETFLOW …`, or of sysctl.d(5), `net.netflow.… = …`, or a
//! mixture. A later one overrides an earlier one, as in the kernel. Both the original module and its fork with
//! `targets` and `hooks` are known.

mod destination;
mod lines;

use self::destination::Destination;
use super::draft::Draft;
use super::{Conversion, Note, Setting, Settings};
use crate::config::{AggregationRule, quoted};

/// The module's default destination.
const DEFAULT_DESTINATION: &str = "127.0.0.1:2055";

/// The whole conversion, if the text has an option of the module and a usable destination. `origin` is the name of the
/// file in the result.
pub fn convert(text: &str, origin: &str) -> Result<Conversion, Note> {
    let mut draft = Draft::default();
    let settings = lines::read(text, &mut draft.notes);
    if settings.0.is_empty() {
        let message = "expected \"options ipt_NETFLOW …\" or \"net.netflow.… = …\", found neither";
        return Err(Note::new(0, "", message));
    }
    let streams = streams(&settings, &mut draft.notes);
    draft.section("[capture]");
    draft.remark("Translations only; a collector of flows gets the other connections as well.");
    draft.set("log", "nat");
    if streams.iter().any(|stream| stream.flows) {
        let timeout = active_timeout(&settings, &mut draft.notes);
        draft.set("active-timeout", timeout);
        draft.remark("The module counted packets itself; nattrail has the kernel count them (nf_conntrack_acct).");
        draft.set("set-sysctls", true);
    }
    let (version, common) = common_keys(&settings, &mut draft.notes);
    let first = observation_domain(version, &settings, &mut draft.notes);
    for destination in destinations(&settings, &mut draft.notes)? {
        for (stream, add) in streams.iter().zip(0..) {
            draft.section("[[collector]]");
            draft.set("address", destination.address.to_string());
            if let Some(source) = destination.source {
                draft.set("source-address", source.to_string());
            }
            draft.set("version", version);
            stream.put(&mut draft);
            draft.set("observation-domain", first.wrapping_add(add));
            draft.body += &common.body;
        }
    }
    settings.explain_rest(without_equivalent, &mut draft.notes);
    Ok(draft.conclude(origin))
}

/// The records that one collector gets.
#[derive(Debug)]
struct Stream {
    events: bool,
    flows: bool,
    aggregation: Option<String>,
}

impl Stream {
    fn put(&self, draft: &mut Draft) {
        let kinds = [(self.events, "events"), (self.flows, "flow")];
        let kinds = kinds.into_iter().filter(|(is_sent, _)| *is_sent);
        draft.set("records", kinds.map(|(_, kind)| kind).collect::<Vec<_>>());
        if self.flows {
            draft.set("log", "all");
        }
        if let Some(rules) = &self.aggregation {
            draft.set("aggregation", rules.as_str());
        }
    }
}

/// NAT events, accounted traffic, or both: in one stream as long as nothing is aggregated, which events must not be.
fn streams(settings: &Settings, notes: &mut Vec<Note>) -> Vec<Stream> {
    let is_on = |setting: &Setting| !matches!(integer(&setting.value), None | Some(0));
    let events = settings.last("natevents", notes);
    let (line, events) = events.map_or((0, false), |setting| (setting.line, is_on(setting)));
    let targets = settings.last("targets", notes);
    let hooks = settings.last("hooks", notes);
    let has_hooks = hooks.is_some_and(|hooks| !["", "0", "none"].contains(&hooks.value.trim()));
    let flows = targets.is_none_or(is_on) || has_hooks;
    let has_events = events || !flows;
    if !events {
        let message = match has_events {
            true => "neither NAT events nor accounting were on: nattrail sends NAT events",
            false => {
                "NAT events were off (natevents=0 is the default), and stay so: with \"events\" in the collector's records \
                 nattrail sends them"
            }
        };
        notes.push(Note::new(line, "natevents", message));
    }
    if flows {
        let message = "rules with -j NETFLOW or hooks chose the packets that were accounted: nattrail accounts for every tracked \
                       connection, and the collector's source, destination, protocols and mark choose among them";
        notes.push(Note::new(0, "", message));
    }
    let aggregation = aggregation(settings, notes);
    if let Some((setting, _)) = aggregation.as_ref().filter(|_| !flows) {
        notes.push(setting.note("not used: NAT events are never aggregated"));
    }
    let aggregation = aggregation.filter(|_| flows);
    match aggregation {
        Some((setting, rules)) if has_events => {
            let message = "NAT events are never aggregated: the flows are a stream of their own, with the next engine id; \
                 a collector that adds up the counters of NAT events, as nfdump does in v9, must not take both";
            notes.push(setting.note(message));
            let stream = |events, aggregation| Stream {
                events,
                flows: !events,
                aggregation,
            };
            vec![stream(true, None), stream(false, Some(rules))]
        }
        aggregation => vec![Stream {
            events: has_events,
            flows,
            aggregation: aggregation.map(|(_, rules)| rules),
        }],
    }
}

/// The rules that are usable, if there are any.
fn aggregation<'a>(settings: &'a Settings, notes: &mut Vec<Note>) -> Option<(&'a Setting, String)> {
    let setting = settings.last("aggregation", notes)?;
    let mut usable = Vec::new();
    for rule in setting.value.split(',').map(str::trim) {
        match rule.parse::<AggregationRule>() {
            Ok(_) => usable.push(rule),
            Err(_) if rule.is_empty() => {}
            Err(expected) => {
                let found = quoted(rule);
                let message = format!("expected {expected}, found \"{found}\": left out");
                notes.push(setting.note(message));
            }
        }
    }
    (!usable.is_empty()).then(|| (setting, usable.join(",")))
}

/// The module's default is half an hour.
fn active_timeout(settings: &Settings, notes: &mut Vec<Note>) -> String {
    let Some(setting) = settings.last("active_timeout", notes) else {
        return "30m".to_owned();
    };
    let seconds = integer(&setting.value).filter(|seconds| *seconds > 0);
    let Some(seconds) = seconds else {
        notes.push(setting.unexpected("a number of seconds", "30m is used"));
        return "30m".to_owned();
    };
    format!("{seconds}s")
}

/// The kernel has an int, whose bits go into the header.
fn observation_domain(version: &str, settings: &Settings, notes: &mut Vec<Note>) -> u32 {
    let Some(setting) = settings.last("engine_id", notes) else {
        return 0;
    };
    let Some(number) = integer(&setting.value) else {
        notes.push(setting.unexpected("a number", "the default is used"));
        return 0;
    };
    let id = number as u32;
    if version == "v5" && id > 255 {
        let message = format!("NetFlow v5 has 8 bits for it: {} is used", id & 255);
        notes.push(setting.note(message));
        return id & 255;
    }
    id
}

/// The version, and the keys that all collectors share.
fn common_keys(settings: &Settings, notes: &mut Vec<Note>) -> (&'static str, Draft) {
    let mut keys = Draft::default();
    let mut version = "v5";
    if let Some(protocol) = settings.last("protocol", notes) {
        match integer(&protocol.value) {
            Some(5) => {}
            Some(9) => version = "v9",
            Some(10) => version = "ipfix",
            _ => notes.push(protocol.unexpected("5, 9 or 10", "5 is used")),
        }
    }
    let mut number = |name, valid: fn(i64) -> bool| {
        let setting = settings.last(name, notes)?;
        let number = integer(&setting.value).filter(|number| valid(*number));
        if number.is_none() {
            notes.push(setting.unexpected("a number", "the default is used"));
        }
        Some((setting, number?))
    };
    let buffer = number("sndbuf", |size| size >= 0).filter(|(_, size)| *size != 0);
    let packets = number("refresh_rate", |packets| packets > 0);
    let minutes = number("timeout_rate", |minutes| minutes > 0);
    if let Some((setting, size)) = buffer {
        let clamped = size.clamp(4 << 10, 1 << 30);
        if clamped != size {
            let outcome = format!("{clamped} is used");
            notes.push(setting.unexpected("4096 to 1073741824 bytes", &outcome));
        }
        keys.set("send-buffer", clamped);
    }
    if version == "v5" {
        for (setting, _) in packets.iter().chain(&minutes) {
            notes.push(setting.note("not used: NetFlow v5 has no templates"));
        }
        return (version, keys);
    }
    keys.remark("ipt_NETFLOW's natEvent values, 1 and 2. RFC 8158 has 4 and 5: \"rfc8158\".");
    keys.set("nat-event", "legacy");
    if let Some((_, packets)) = packets {
        keys.set("template-refresh-packets", packets);
    }
    if let Some((_, minutes)) = minutes {
        keys.set("template-refresh", format!("{minutes}m"));
    }
    (version, keys)
}

fn destinations(settings: &Settings, notes: &mut Vec<Note>) -> Result<Vec<Destination>, Note> {
    let name = "destination";
    let given = settings.last(name, notes);
    if given.is_none() {
        let message = format!("not given: the module's default, {DEFAULT_DESTINATION}, is used");
        notes.push(Note::new(0, name, message));
    }
    let text = given.map_or(DEFAULT_DESTINATION, |given| &given.value);
    let line = given.map_or(0, |given| given.line);
    let mut list: Vec<Destination> = Vec::new();
    for entry in destination::entries(text) {
        let shown = quoted(entry);
        let message = match Destination::parse(entry) {
            Ok(found) if list.iter().any(|other| other.address == found.address) => {
                format!("\"{shown}\": a duplicate, left out")
            }
            Ok(found) => {
                let rest = quoted(&found.rest);
                list.push(found);
                if rest.is_empty() {
                    continue;
                }
                format!(
                    "\"{shown}\": nattrail has no equivalent of \"{rest}\": instead of %interface set the collector's source-address \
                     to one of that interface, or route"
                )
            }
            Err(expected) => format!("expected {expected}, found \"{shown}\": left out"),
        };
        notes.push(Note::new(line, name, message));
    }
    if list.is_empty() {
        let message = format!(
            "expected an address to export to, such as destination=192.0.2.10:2055, found \"{}\"",
            quoted(text)
        );
        return Err(Note::new(line, name, message));
    }
    Ok(list)
}

/// A number as the kernel reads it: decimal, 0x for hexadecimal, 0 for octal.
fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        None => (10, lower.as_str()),
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    i64::from(u32::from_str_radix(digits, radix).ok()?).checked_mul(sign)
}

/// The reason why an option is not in the result, and an alternative.
fn without_equivalent(name: &str) -> &'static str {
    match name {
        "active_timeout" => "not needed: it was for traffic accounting, which was off",
        "inactive_timeout" => {
            "no equivalent: a flow ends when the kernel forgets its connection, a timeout after the last packet \
             (net.netfilter.nf_conntrack_*_timeout_*)"
        }
        "sampler" => "no equivalent: nattrail never samples; it accounts for every connection",
        "hashsize" => {
            "no equivalent: nattrail's table grows by itself; the kernel's is net.netfilter.nf_conntrack_buckets"
        }
        "maxflows" => {
            "no equivalent: net.netfilter.nf_conntrack_max limits the number of connections"
        }
        "nfevents_limit" => "no equivalent: nattrail reads every event, and states losses as a gap",
        "snmp_rules" => "no equivalent: records carry no interfaces",
        "promisc" => {
            "no option: a [[monitor]] section takes mirrored frames, see nattrail-monitor(7)"
        }
        "scan_min" => "no equivalent: see collector.export-delay",
        "exportcpu" => {
            "no equivalent: bind the service to a processor with CPUAffinity= in its unit"
        }
        "debug" => "no equivalent: nattrail's log reports changes, \"nattrail status\" the state",
        "hooks_mark" | "hooks_mark_mask" => {
            "no equivalent: the collector's mark selects connections by their ct mark"
        }
        "flush" => {
            "no equivalent: it was a command, not a setting; collector.export-delay says how long records wait"
        }
        _ => "unknown: ipt_NETFLOW has no option of this name",
    }
}

#[cfg(test)]
mod tests;
