//! The options of the kernel module `ipt_NETFLOW` as nattrail's configuration.
//!
//! They are read from a file of modprobe.d(5), `options ipt_NETFLOW …`, or of sysctl.d(5), `net.netflow.… = …`, or a
//! mixture. A later one overrides an earlier one, as in the kernel. Both the original module and its fork with
//! `targets` and `hooks` are known.

mod destination;
mod lines;

use self::destination::Destination;
use super::draft::Draft;
use super::{Conversion, Note, Settings};
use crate::config::quoted;

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
    explain_purpose(&settings, &mut draft.notes);
    draft.section("[capture]");
    draft.remark("Translations only, as with natevents=1.");
    draft.set("log", "nat");
    let common = common_keys(&settings, &mut draft.notes);
    for destination in destinations(&settings, &mut draft.notes)? {
        draft.section("[[collector]]");
        draft.set("address", destination.address.to_string());
        if let Some(source) = destination.source {
            draft.set("source-address", source.to_string());
        }
        draft.body += &common.body;
    }
    settings.explain_rest(without_equivalent, &mut draft.notes);
    Ok(draft.conclude(origin))
}

/// The keys that all collectors share.
fn common_keys(settings: &Settings, notes: &mut Vec<Note>) -> Draft {
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
    keys.set("version", version);
    keys.set("records", vec!["events"]);
    let mut number = |name, valid: fn(i64) -> bool| {
        let setting = settings.last(name, notes)?;
        let number = integer(&setting.value).filter(|number| valid(*number));
        if number.is_none() {
            notes.push(setting.unexpected("a number", "the default is used"));
        }
        Some((setting, number?))
    };
    let domain = number("engine_id", |_| true);
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
    // The kernel has an int, whose bits go into the header.
    let mut id = domain.map_or(0, |(_, id)| id as u32);
    if let Some((setting, _)) = domain.filter(|_| version == "v5" && id > 255) {
        id &= 255;
        let message = format!("NetFlow v5 has 8 bits for it: {id} is used");
        notes.push(setting.note(message));
    }
    keys.set("observation-domain", id);
    if version == "v5" {
        for (setting, _) in packets.iter().chain(&minutes) {
            notes.push(setting.note("not used: NetFlow v5 has no templates"));
        }
        return keys;
    }
    keys.remark("ipt_NETFLOW's natEvent values, 1 and 2. RFC 8158 has 4 and 5: \"rfc8158\".");
    keys.set("nat-event", "legacy");
    if let Some((_, packets)) = packets {
        keys.set("template-refresh-packets", packets);
    }
    if let Some((_, minutes)) = minutes {
        keys.set("template-refresh", format!("{minutes}m"));
    }
    keys
}

/// The module's purpose.
fn explain_purpose(settings: &Settings, notes: &mut Vec<Note>) {
    let events = settings.last("natevents", notes);
    if events.is_none_or(|option| matches!(integer(&option.value), None | Some(0))) {
        let message = "NAT events were off (natevents=0 is the default): nattrail logs them, and nothing else";
        let line = events.map_or(0, |option| option.line);
        notes.push(Note::new(line, "natevents", message));
    }
    let mut targets = settings.0.iter().rev();
    let targets = targets.find(|option| option.name == "targets");
    if targets.is_none_or(|option| integer(&option.value) != Some(0)) {
        let message = "nattrail does no traffic accounting (rules with -j NETFLOW, hooks): keep the module for that, with \
                       natevents=0, or use another exporter such as softflowd or pmacct";
        notes.push(Note::new(0, "", message));
    }
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
                    "\"{shown}\": nattrail has no equivalent of \"{rest}\": instead of %interface set the collector's source-address to an \
                     address of it, or route"
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
        "active_timeout" | "inactive_timeout" => {
            "no equivalent: an event leaves at once (collector.export-delay), the kernel decides when a connection ends"
        }
        "aggregation" => {
            "no equivalent: a record identifies one connection; aggregate in the collector"
        }
        "sampler" => "no equivalent: the module did not sample NAT events, and nattrail never does",
        "hashsize" => {
            "no equivalent: nattrail's table grows by itself; the kernel's is net.netfilter.nf_conntrack_buckets"
        }
        "maxflows" => {
            "no equivalent: net.netfilter.nf_conntrack_max limits the number of connections"
        }
        "nfevents_limit" => "no equivalent: nattrail reads every event, and states losses as a gap",
        "snmp_rules" => "no equivalent: NAT events carry no interfaces",
        "promisc" => "no equivalent: mirrored traffic is not translated here",
        "scan_min" => "no equivalent: see collector.export-delay",
        "exportcpu" => {
            "no equivalent: bind the service to a processor with CPUAffinity= in its unit"
        }
        "debug" => "no equivalent: nattrail's log reports changes, \"nattrail status\" the state",
        "targets" => "not needed: nattrail has no iptables target, and loads no module of its own",
        "hooks" | "hooks_mark" | "hooks_mark_mask" => {
            "no equivalent: they were for traffic accounting; capture.mark selects connections by their ct mark"
        }
        "flush" => {
            "no equivalent: it was a command, not a setting; collector.export-delay says how long records wait"
        }
        _ => "unknown: ipt_NETFLOW has no option of this name",
    }
}

#[cfg(test)]
mod tests;
