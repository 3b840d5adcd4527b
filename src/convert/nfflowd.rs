//! An `nfflowd.conf` (Net::Netfilter::NetFlow) as nattrail's configuration.
//!
//! nfflowd lays the file over a configuration of its own, which is repeated here where it decides what left the gateway:
//! three NetFlow v5 flows per finished connection, and the same lines to the local syslog, facility local6, level notice,
//! from a program named conntrack.

mod copies;
mod filter;

use std::net::IpAddr;

use super::draft::{Draft, List, Text};
use super::general::{self, Block, Setting};
use super::{Conversion, Notes, Unfit};
use crate::config::{quoted, values};

/// What nfflowd forgets connections after, in seconds.
const DEFAULT_TTL: u64 = 7 * 24 * 60 * 60;

const NO_PROGRAMS: &str = "no equivalent: nattrail starts no other programs";

/// The whole conversion; `origin` is what the result calls the file.
///
/// # Errors
/// When the text is not in the format of Config::General, or names no collector that could be sent to.
pub(crate) fn convert(text: &str, origin: &str) -> Result<Conversion, Unfit> {
    let root = general::parse(text)?;
    let mut notes = Notes::default();
    for option in &root.options {
        let message = if option.name == "include" {
            "no equivalent: put the text of that file here, and convert the whole"
        } else {
            "unknown: nfflowd has no option of this name outside of its blocks"
        };
        notes.add(option.line, &quoted(&option.name), message);
    }
    let mut parts = Parts::default();
    for block in &root.blocks {
        parts.sort_in(block, &mut notes);
    }
    let mut draft = Draft::default();
    let sender = Sender::of(&parts.flow_send, &mut notes)?;
    filter::convert(&parts.conntrack, &mut draft, &mut notes);
    pending(&parts.ct2ft, &mut draft, &mut notes);
    sender.write(&mut draft);
    copies::convert(
        &parts.ptee,
        sender.exporter.as_deref(),
        &mut draft,
        &mut notes,
    );
    for option in parts.flow_import.iter().flat_map(|block| &block.options) {
        let reason = match option.name.as_str() {
            "progname" | "format" | "args" => NO_PROGRAMS,
            _ => "unknown: nfflowd has no such option",
        };
        notes.add(option.line, &named("flow_import", option), reason);
    }
    Ok(notes.conclude(origin, &draft))
}

/// The blocks of the file by their name; each may be there several times.
#[derive(Default)]
struct Parts<'a> {
    conntrack: Vec<&'a Block>,
    ct2ft: Vec<&'a Block>,
    ptee: Vec<&'a Block>,
    flow_import: Vec<&'a Block>,
    flow_send: Vec<&'a Block>,
}

impl<'a> Parts<'a> {
    fn sort_in(&mut self, block: &'a Block, notes: &mut Notes) {
        let part = match block.name.as_str() {
            "conntrack" => &mut self.conntrack,
            "ct2ft" => &mut self.ct2ft,
            "ptee" => &mut self.ptee,
            "flow_import" => &mut self.flow_import,
            "flow_send" => &mut self.flow_send,
            _ => {
                return unknown_block(block, "", notes);
            }
        };
        part.push(block);
        if block.name != "ptee" {
            for inner in &block.blocks {
                unknown_block(inner, &format!("{}.", block.name), notes);
            }
        }
    }
}

/// Names a block that nfflowd does not know, and all that is in it.
fn unknown_block(block: &Block, around: &str, notes: &mut Notes) {
    let path = format!("{around}{}", quoted(&block.name));
    notes.add(block.line, &path, "unknown: nfflowd has no such block");
    for option in &block.options {
        notes.add(option.line, &named(&path, option), "unknown, as its block");
    }
    for inner in &block.blocks {
        unknown_block(inner, &format!("{path}."), notes);
    }
}

fn named(path: &str, option: &Setting) -> String {
    format!("{path}.{}", quoted(&option.name))
}

fn pending(blocks: &[&Block], draft: &mut Draft, notes: &mut Notes) {
    let mut seconds = DEFAULT_TTL;
    for option in blocks.iter().flat_map(|block| &block.options) {
        let name = named("ct2ft", option);
        if option.name != "ttl" {
            notes.add(option.line, &name, "unknown: nfflowd has no such option");
            continue;
        }
        match option.value.parse::<u64>() {
            // As Perl's || has it.
            Ok(0) => {
                seconds = DEFAULT_TTL;
                notes.add(option.line, &name, "0 is the default, 7 days");
            }
            Ok(value) if value.checked_mul(1000).is_some() => seconds = value,
            _ => {
                let found = quoted(&option.value);
                let message = format!("expected seconds, found \"{found}\": 7 days are taken");
                notes.add(option.line, &name, message);
            }
        }
    }
    draft.section("[pending]");
    draft.remark(
        "nfflowd forgot a connection of this age. nattrail closes it with a record that says so, and only when the kernel no \
         longer has it.",
    );
    let ttl = if seconds.is_multiple_of(86_400) {
        format!("{}d", seconds / 86_400)
    } else {
        format!("{seconds}s")
    };
    draft.set("ttl", Text(&ttl));
}

/// What `<flow_send>` says: from where to where.
struct Sender {
    source: Option<IpAddr>,
    /// nfflowd puts the first argument into the field exaddr of its lines as it is.
    exporter: Option<String>,
    collector: String,
}

impl Sender {
    fn of(blocks: &[&Block], notes: &mut Notes) -> Result<Self, Unfit> {
        let mut arguments = Vec::new();
        for option in blocks.iter().flat_map(|block| &block.options) {
            let name = named("flow_send", option);
            match option.name.as_str() {
                "args" => arguments.push(option),
                "progname" => notes.add(option.line, &name, NO_PROGRAMS),
                "format" => explain_format(option, notes),
                _ => notes.add(option.line, &name, "unknown: nfflowd has no such option"),
            }
        }
        let [source, address, port] = arguments.as_slice() else {
            let line = blocks.first().map_or(0, |block| block.line);
            let message = format!(
                "expected three lines \"args\" (source address, collector address, port), as nfflowd does, found {}",
                arguments.len()
            );
            return Err(Unfit::new(line, "<flow_send>", message));
        };
        let collector = collector(address, port)?;
        let exporter = match source.value.as_str() {
            "" | "0" => None,
            text => Some(parsed(source, text)?),
        };
        // flow-send takes 0 for any.
        let source_address = exporter.filter(|ip: &IpAddr| !ip.is_unspecified());
        if source_address.is_some_and(|ip| ip.is_ipv6() != collector.starts_with('[')) {
            let message = "expected a source and a collector address of one family, found two";
            return Err(Unfit::new(source.line, "flow_send.args", message));
        }
        Ok(Self {
            source: source_address,
            exporter: exporter.filter(IpAddr::is_ipv4).map(|ip| ip.to_string()),
            collector,
        })
    }

    fn write(&self, draft: &mut Draft) {
        draft.section("[[collector]]");
        draft.set("address", Text(&self.collector));
        draft.set("version", Text("v5"));
        draft.remark("Three flows at the end of a connection, in nfflowd's order: before, after, and return.");
        draft.set("records", List(&["triplet".to_owned()]));
        if let Some(source) = self.source {
            draft.set("source", Text(&source.to_string()));
        }
    }
}

/// `address:port` of the collector.
fn collector(address: &Setting, port: &Setting) -> Result<String, Unfit> {
    let ip = parsed(address, &address.value)?;
    let number: Option<u16> = port.value.parse().ok();
    let text = match (ip, number) {
        (IpAddr::V4(ip), Some(number)) => format!("{ip}:{number}"),
        (IpAddr::V6(ip), Some(number)) => format!("[{ip}]:{number}"),
        (_, None) => String::new(),
    };
    if values::destination(&text).is_ok() {
        return Ok(text);
    }
    let message = format!(
        "expected the address of one host and a port from 1 to 65535, found \"{}\" and \"{}\"",
        quoted(&address.value),
        quoted(&port.value)
    );
    Err(Unfit::new(address.line, "flow_send.args", message))
}

fn parsed(argument: &Setting, text: &str) -> Result<IpAddr, Unfit> {
    text.parse().map_err(|_| {
        let found = quoted(text);
        let message = format!(
            "expected an IP address, found \"{found}\": write the address instead of the name (getent ahosts {found})"
        );
        Unfit::new(argument.line, "flow_send.args", message)
    })
}

fn explain_format(option: &Setting, notes: &mut Notes) {
    let name = "flow_send.format";
    notes.add(option.line, name, NO_PROGRAMS);
    for word in option.value.split_whitespace() {
        match word {
            "-V5" | "-s" | "%s/%s/%s" => {}
            other if other.starts_with("-V") => {
                let message = format!(
                    "{}: nattrail sends NetFlow v5, v9 and IPFIX, and the result v5: change the collector's version",
                    quoted(other)
                );
                notes.add(option.line, name, message);
            }
            other => {
                let message = format!(
                    "{}: an option of flow-send without equivalent",
                    quoted(other)
                );
                notes.add(option.line, name, message);
            }
        }
    }
}

#[cfg(test)]
mod tests;
