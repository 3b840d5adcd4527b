//! An `nfflowd.conf` (Net::Netfilter::NetFlow) as nattrail's configuration.
//!
//! nfflowd lays the file over a configuration of its own, which is repeated here as far as it decides on the exports:
//! three NetFlow v5 flows per finished connection, and the same lines to the local syslog, facility local6, from a
//! program named nfflowd (conntrack before 1.0).

mod copies;
mod filter;
mod general;

use std::net::IpAddr;

use super::draft::Draft;
use super::{Conversion, Note, Setting, Settings, destination};
use crate::config::quoted;

const DAY: u64 = 24 * 60 * 60;
/// The seconds after which nfflowd forgets connections.
const DEFAULT_TTL: u64 = 7 * DAY;

/// The whole conversion, if the text is in the format of Config::General and names a usable collector. `origin` is the
/// name of the file in the result.
pub fn convert(text: &str, origin: &str) -> Result<Conversion, Note> {
    let settings = general::parse(text)?;
    let mut draft = Draft::default();
    filter::convert(&settings, &mut draft);
    pending(&settings, &mut draft);
    let exporter = collector(&settings, &mut draft)?;
    copies::convert(&settings, exporter, &mut draft);
    settings.explain_rest(without_equivalent, &mut draft.notes);
    Ok(draft.conclude(origin))
}

/// The reason why a setting is not in the result, and an alternative.
fn without_equivalent(path: &str) -> &'static str {
    let (blocks, name) = path.rsplit_once('.').unwrap_or(("", path));
    match (blocks, name) {
        (_, "include") => "no equivalent: put the text of that file here, and convert the whole",
        ("flow_send", "format") => {
            "no equivalent: nattrail starts no other programs; it sends NetFlow v5, and v9 or IPFIX by the collector's version"
        }
        ("flow_send" | "flow_import" | "conntrack", "progname" | "format")
        | ("flow_import", "args")
        | ("conntrack", "init_format" | "init_args") => {
            "no equivalent: nattrail starts no other programs"
        }
        ("conntrack", "args") => "no equivalent: put its options into format, and convert again",
        (conf, "format") if conf.starts_with("ptee.conf") => {
            "no equivalent: nattrail's lines are those that nfflowd wrote without it; see [[syslog]] format"
        }
        (_, "max_level") => "no equivalent: a copy has all lines, as notices",
        (_, "logopt") => "no equivalent: lines always carry the process id",
        (
            _,
            "autoflush" | "close_after_write" | "binmode" | "permissions" | "syswrite"
            | "lazy_open",
        ) => "no equivalent: the file is written with each batch and reopened at a reload",
        (_, "lock" | "newline" | "callbacks" | "name" | "stderr") => {
            "no equivalent, and not needed"
        }
        _ => "unknown, or without equivalent",
    }
}

fn pending(settings: &Settings, draft: &mut Draft) {
    let notes = &mut draft.notes;
    let mut seconds = DEFAULT_TTL;
    if let Some(ttl) = settings.last("ct2ft.ttl", notes) {
        match ttl.value.parse::<u64>() {
            // Perl's || treats it so.
            Ok(0) => notes.push(ttl.note("0 is the default, 7 days")),
            Ok(value) if value.checked_mul(1000).is_some() => seconds = value,
            _ => notes.push(ttl.unexpected("seconds", "7 days are used")),
        }
    }
    draft.section("[pending]");
    draft.remark(
        "nfflowd forgot a connection of this age. nattrail closes it with a record that says so, and only when the kernel no \
         longer has it.",
    );
    let ttl = if seconds.is_multiple_of(DAY) {
        format!("{}d", seconds / DAY)
    } else {
        format!("{seconds}s")
    };
    draft.set("ttl", ttl);
}

/// Writes the source and the destination from `<flow_send>`, and returns the address that nfflowd puts into the field
/// exaddr of its lines: the first argument, unchanged.
fn collector(settings: &Settings, draft: &mut Draft) -> Result<Option<IpAddr>, Note> {
    let arguments = settings.all("flow_send.args");
    let [source, address, port] = arguments.as_slice() else {
        let line = arguments.first().map_or(0, |argument| argument.line);
        let message = format!(
            "expected three lines \"args\" (source address, collector address, port), as nfflowd does, found {}",
            arguments.len()
        );
        return Err(Note::new(line, "<flow_send>", message));
    };
    let ip = parsed(address)?;
    let to = port
        .value
        .parse()
        .ok()
        .and_then(|port| destination(ip, port));
    let to = to.ok_or_else(|| {
        address.note(format!(
            "expected the address of one host and a port from 1 to 65535, found \"{ip}\" and \"{}\"",
            quoted(&port.value)
        ))
    })?;
    let exporter = match source.value.as_str() {
        "" | "0" => None,
        _ => Some(parsed(source)?),
    };
    draft.section("[[collector]]");
    draft.set("address", to.to_string());
    draft.set("version", "v5");
    draft.remark(
        "Three flows at the end of a connection, in nfflowd's order: before, after, and return.",
    );
    draft.set("records", vec!["triplet"]);
    // flow-send treats 0 as any.
    if let Some(from) = exporter.filter(|ip| !ip.is_unspecified()) {
        if from.is_ipv6() != to.is_ipv6() {
            let message = "expected a source and a collector address of one family, found two";
            return Err(source.note(message));
        }
        draft.set("source-address", from.to_string());
    }
    Ok(exporter.filter(IpAddr::is_ipv4))
}

fn parsed(argument: &Setting) -> Result<IpAddr, Note> {
    argument.value.parse().map_err(|_| {
        let found = quoted(&argument.value);
        argument.note(format!(
            "expected an IP address, found \"{found}\": write the address instead of the name (getent ahosts {found})"
        ))
    })
}

#[cfg(test)]
mod tests;
