//! The options of the kernel module `ipt_NETFLOW` as nattrail's configuration.
//!
//! They are read where they are kept: `options ipt_NETFLOW …` in a file of modprobe.d(5), or `net.netflow.… = …` in one of
//! sysctl.d(5), also mixed. A later one overrides an earlier one, as in the kernel. Both the original module and its fork
//! with `targets` and `hooks` are known.

mod destination;
mod lines;

use self::destination::Destination;
use self::lines::Given;
use super::draft::{Draft, List, Text};
use super::{Conversion, Notes, Unfit};
use crate::config::quoted;

/// What the module exports to when it is not told.
const DEFAULT_DESTINATION: &str = "127.0.0.1:2055";

const BUFFER: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 30;

/// The whole conversion; `origin` is what the result calls the file.
///
/// # Errors
/// When no option of the module is in the text, or no destination is left that could be sent to.
pub(crate) fn convert(text: &str, origin: &str) -> Result<Conversion, Unfit> {
    let mut notes = Notes::default();
    let given = lines::read(text, &mut notes);
    if given.is_empty() {
        let message = "expected \"options ipt_NETFLOW …\" or \"net.netflow.… = …\", found neither";
        return Err(Unfit::new(0, "", message));
    }
    let options = Options::of(&given, &mut notes);
    let destinations = options.destinations(&mut notes)?;
    let mut draft = Draft::default();
    draft.section("[capture]");
    draft.remark("Translations only, as with natevents=1.");
    draft.set("log", Text("nat"));
    for destination in &destinations {
        options.write(destination, &mut draft);
    }
    Ok(notes.conclude(origin, &draft))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    V5,
    V9,
    Ipfix,
}

/// The options that decide something, each as it was given last.
struct Options<'a> {
    destination: Option<&'a Given>,
    protocol: Protocol,
    domain: u32,
    send_buffer: Option<u64>,
    refresh_packets: Option<u32>,
    refresh_minutes: Option<u32>,
}

impl<'a> Options<'a> {
    fn of(given: &'a [Given], notes: &mut Notes) -> Self {
        let mut this = Self {
            destination: None,
            protocol: Protocol::V5,
            domain: 0,
            send_buffer: None,
            refresh_packets: None,
            refresh_minutes: None,
        };
        let mut events = None;
        for (index, option) in given.iter().enumerate() {
            let mut later = given[index + 1..].iter();
            if let Some(later) = later.find(|later| later.name == option.name) {
                let message = format!("overridden in line {}", later.line);
                notes.add(option.line, &option.shown, message);
                continue;
            }
            match option.name.as_str() {
                "natevents" => events = Some(option),
                _ => this.take(option, notes),
            }
        }
        this.explain(given, events, notes);
        this
    }

    fn take(&mut self, option: &'a Given, notes: &mut Notes) {
        let number = integer(&option.value);
        match (option.name.as_str(), number) {
            ("destination", _) => self.destination = Some(option),
            ("protocol", Some(5)) => self.protocol = Protocol::V5,
            ("protocol", Some(9)) => self.protocol = Protocol::V9,
            ("protocol", Some(10)) => self.protocol = Protocol::Ipfix,
            ("protocol", _) => expected(option, "5, 9 or 10, and 5 is taken", notes),
            // The kernel has an int, of which the header takes the bits.
            ("engine_id", Some(id)) => self.domain = id as u32,
            ("sndbuf", Some(0)) => self.send_buffer = None,
            ("sndbuf", Some(size)) if u64::try_from(size).is_ok() => {
                let size = size.unsigned_abs();
                let clamped = size.clamp(*BUFFER.start(), *BUFFER.end());
                self.send_buffer = Some(clamped);
                if clamped != size {
                    expected(
                        option,
                        &format!("4096 to 1073741824 bytes, and {clamped} is taken"),
                        notes,
                    );
                }
            }
            ("refresh_rate", Some(packets @ 1..)) => {
                self.refresh_packets = u32::try_from(packets).ok();
            }
            ("timeout_rate", Some(minutes @ 1..)) => {
                self.refresh_minutes = u32::try_from(minutes).ok();
            }
            ("engine_id" | "sndbuf" | "refresh_rate" | "timeout_rate", _) => {
                expected(option, "a number, and the default is taken", notes);
            }
            (name, _) => {
                let message = without_equivalent(name);
                notes.add(option.line, &option.shown, message);
            }
        }
    }

    /// What options mean together.
    fn explain(&self, given: &[Given], events: Option<&Given>, notes: &mut Notes) {
        let on =
            events.is_some_and(|option| integer(&option.value).is_some_and(|value| value != 0));
        if !on {
            let message = "NAT events were off (natevents=0 is the default): nattrail logs them, and nothing else";
            let (line, name) =
                events.map_or((0, "natevents"), |option| (option.line, &option.shown));
            notes.add(line, name, message);
        }
        let targets = given.iter().rev().find(|option| option.name == "targets");
        if targets.is_none_or(|option| integer(&option.value) != Some(0)) {
            let message = "traffic accounting (rules with -j NETFLOW, hooks) is not nattrail's: keep the module for that, with \
                           natevents=0, or use another exporter such as softflowd or pmacct";
            notes.add(0, "", message);
        }
        if self.protocol == Protocol::V5 {
            let names = ["refresh_rate", "timeout_rate"];
            for option in given
                .iter()
                .filter(|option| names.contains(&option.name.as_str()))
            {
                let message = "not used: NetFlow v5 has no templates";
                notes.add(option.line, &option.shown, message);
            }
            if self.domain > 255 {
                let message = format!(
                    "NetFlow v5 has 8 bits for it: {} is taken",
                    self.domain & 255
                );
                let line = given.iter().rev().find(|option| option.name == "engine_id");
                notes.add(line.map_or(0, |option| option.line), "engine_id", message);
            }
        }
    }

    fn destinations(&self, notes: &mut Notes) -> Result<Vec<Destination>, Unfit> {
        let (line, text) = self
            .destination
            .map_or((0, DEFAULT_DESTINATION), |given| (given.line, &given.value));
        let name = "destination";
        if self.destination.is_none() {
            let message =
                format!("not given: the module's default, {DEFAULT_DESTINATION}, is taken");
            notes.add(0, name, message);
        }
        let mut list: Vec<Destination> = Vec::new();
        for entry in destination::entries(text) {
            match Destination::parse(entry) {
                Ok(found) if list.iter().any(|other| other.address == found.address) => {
                    let message = format!("\"{}\": there already, left out", quoted(entry));
                    notes.add(line, name, message);
                }
                Ok(found) => {
                    for message in found.remarks(entry) {
                        notes.add(line, name, message);
                    }
                    list.push(found);
                }
                Err(expected) => {
                    let message =
                        format!("expected {expected}, found \"{}\": left out", quoted(entry));
                    notes.add(line, name, message);
                }
            }
        }
        if list.is_empty() {
            let message = format!(
                "expected an address to export to, such as destination=192.0.2.10:2055, found \"{}\"",
                quoted(text)
            );
            return Err(Unfit::new(line, name, message));
        }
        Ok(list)
    }

    fn write(&self, destination: &Destination, draft: &mut Draft) {
        draft.section("[[collector]]");
        draft.set("address", Text(&destination.address.to_string()));
        let version = match self.protocol {
            Protocol::V5 => "v5",
            Protocol::V9 => "v9",
            Protocol::Ipfix => "ipfix",
        };
        draft.set("version", Text(version));
        draft.set("records", List(&["events".to_owned()]));
        if let Some(source) = destination.source {
            draft.set("source", Text(&source.to_string()));
        }
        if let Some(size) = self.send_buffer {
            draft.set("send-buffer", size);
        }
        if self.protocol == Protocol::V5 {
            draft.set("observation-domain", self.domain & 255);
            return;
        }
        draft.set("observation-domain", self.domain);
        draft.remark("ipt_NETFLOW's natEvent values, 1 and 2. RFC 8158 has 4 and 5: \"rfc8158\".");
        draft.set("nat-event", Text("legacy"));
        if let Some(packets) = self.refresh_packets {
            draft.set("template-refresh-packets", packets);
        }
        if let Some(minutes) = self.refresh_minutes {
            draft.set("template-refresh", Text(&format!("{minutes}m")));
        }
    }
}

fn expected(option: &Given, what: &str, notes: &mut Notes) {
    let message = format!("expected {what}; found \"{}\"", quoted(&option.value));
    notes.add(option.line, &option.shown, message);
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

/// Why an option is not in the result, and what to do instead.
fn without_equivalent(name: &str) -> &'static str {
    match name {
        "active_timeout" | "inactive_timeout" => {
            "no equivalent: an event leaves at once (collector.export-delay), the kernel decides when a connection ends"
        }
        "aggregation" => "no equivalent: a record says who it was; aggregate in the collector",
        "sampler" => "no equivalent: the module did not sample NAT events, and nattrail never does",
        "hashsize" => {
            "no equivalent: nattrail's table grows by itself; the kernel's is net.netfilter.nf_conntrack_buckets"
        }
        "maxflows" => {
            "no equivalent: connections are as many as net.netfilter.nf_conntrack_max lets be"
        }
        "nfevents_limit" => {
            "no equivalent: nattrail reads what there is, and states what was lost as a gap"
        }
        "snmp_rules" => "no equivalent: NAT events carry no interfaces",
        "promisc" => "no equivalent: mirrored traffic is not translated here",
        "scan_min" => "no equivalent: see collector.export-delay",
        "exportcpu" => {
            "no equivalent: bind the service to a processor with CPUAffinity= in its unit"
        }
        "debug" => "no equivalent: nattrail's log says what changes, \"nattrail status\" the rest",
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
