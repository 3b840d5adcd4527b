//! `<ptee>`: where nfflowd's lines are copied to, by Log::Dispatch::Config. Each dispatcher becomes a `[[syslog]]`.
//!
//! The lines are logged at the level notice, so that a dispatcher whose levels leave that out never said anything.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::super::Notes;
use super::super::draft::{Draft, Text};
use super::super::general::{Block, Setting};
use super::{named, unknown_block};
use crate::config::{Facility, quoted, values};

/// Log::Dispatch's levels in order.
const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];
const NOTICE: usize = 2;

/// One dispatcher: what the file says of it, over what nfflowd's own configuration does.
struct Dispatcher<'a> {
    name: &'a str,
    block: Option<&'a Block>,
}

/// Where a dispatcher's lines go to here.
#[derive(Debug)]
enum Target {
    Local,
    Udp(String),
    File(String),
}

/// Writes a `[[syslog]]` for each dispatcher in use.
pub(super) fn convert(
    blocks: &[&Block],
    exporter: Option<&str>,
    draft: &mut Draft,
    notes: &mut Notes,
) {
    let mut names: Vec<(usize, &str)> = Vec::new();
    let mut sections: Vec<&Block> = Vec::new();
    for ptee in blocks {
        for option in &ptee.options {
            let message = "unknown: nfflowd has no such option";
            notes.add(option.line, &named("ptee", option), message);
        }
        for inner in &ptee.blocks {
            if inner.name != "conf" {
                unknown_block(inner, "ptee.", notes);
                continue;
            }
            for option in &inner.options {
                if option.name == "dispatchers" {
                    let words = option.value.split_whitespace();
                    names.extend(words.map(|name| (option.line, name)));
                } else {
                    note_option("ptee.conf", option, notes);
                }
            }
            sections.extend(&inner.blocks);
        }
    }
    if names.is_empty() {
        names = vec![(0, "screen"), (0, "syslog")];
    }
    if !names.iter().any(|(_, name)| *name == "screen") {
        let message = "\"screen\" is missing, without which nfflowd sends nothing; the collector is in the result all the same";
        notes.add(names[0].0, "ptee.conf.dispatchers", message);
    }
    for section in &sections {
        if !names.iter().any(|(_, name)| *name == section.name) {
            let path = format!("ptee.conf.{}", quoted(&section.name));
            let message = "not in use, as no line \"dispatchers\" names it: left out";
            notes.add(section.line, &path, message);
        }
    }
    let mut seen = HashSet::new();
    let mut files = HashSet::new();
    let mut copies = HashSet::new();
    for (line, name) in names {
        if !seen.insert(name) {
            continue;
        }
        let block = sections.iter().rev().find(|section| section.name == name);
        let dispatcher = Dispatcher {
            name,
            block: block.copied(),
        };
        let Some(target) = dispatcher.target(line, &mut files, notes) else {
            continue;
        };
        if !matches!(target, Target::File(_)) && !copies.insert(dispatcher.stream(&target)) {
            let message = "another dispatcher sends the same lines to the same place: left out";
            notes.add(dispatcher.line("class", line), &dispatcher.path(), message);
            continue;
        }
        dispatcher.write(&target, line, exporter, draft, notes);
    }
}

impl Dispatcher<'_> {
    /// What the file says, or nfflowd's own configuration.
    fn value(&self, key: &str) -> Option<&str> {
        self.option(key)
            .map(|option| option.value.as_str())
            .or(match (self.name, key) {
                ("screen", "class") => Some("Log::Dispatch::Screen"),
                ("syslog", "class") => Some("Log::Dispatch::Syslog"),
                ("syslog", "ident") => Some("conntrack"),
                ("syslog", "facility") => Some("local6"),
                ("screen" | "syslog", "min_level") => Some("debug"),
                _ => None,
            })
    }

    fn option(&self, key: &str) -> Option<&Setting> {
        let mut options = self.block?.options.iter().rev();
        options.find(|option| option.name == key)
    }

    fn line(&self, key: &str, otherwise: usize) -> usize {
        let block = self.block.map_or(otherwise, |block| block.line);
        self.option(key).map_or(block, |option| option.line)
    }

    fn path(&self) -> String {
        format!("ptee.conf.{}", quoted(self.name))
    }

    /// Where its lines go to, if they go anywhere here; what has no equivalent is in the notes.
    fn target(
        &self,
        line: usize,
        files: &mut HashSet<PathBuf>,
        notes: &mut Notes,
    ) -> Option<Target> {
        let path = self.path();
        let class = self.value("class").unwrap_or_default();
        let kind = class.strip_prefix("Log::Dispatch::").unwrap_or(class);
        self.note_options(kind, notes);
        let target = match kind {
            // nfflowd's way to the next program of its pipe.
            "Screen" => return None,
            "Syslog" => self.syslog_target(line, notes),
            "File" => self.file_target(line, files, notes),
            _ => {
                let message = format!(
                    "no equivalent of its class \"{}\"; nattrail copies to syslog, a file, the journal: see [[syslog]]",
                    quoted(class)
                );
                notes.add(self.line("class", line), &path, message);
                return None;
            }
        };
        if self.is_mute(line, notes) {
            return None;
        }
        target
    }

    /// What tells its lines from those of another dispatcher, as the loader has it.
    fn stream(&self, target: &Target) -> String {
        let facility = self.value("facility").unwrap_or("user");
        let facility = values::facility(facility).unwrap_or(Facility::LOCAL6);
        let ident = self.value("ident").unwrap_or("nfflowd").to_owned();
        let ident = values::app_name(&ident).unwrap_or_else(|_| "nattrail".to_owned());
        format!("{target:?} {facility:?} {ident}")
    }

    /// Names every option that the result does not have.
    fn note_options(&self, kind: &str, notes: &mut Notes) {
        let Some(block) = self.block else {
            return;
        };
        let path = self.path();
        for option in &block.options {
            let converted = match option.name.as_str() {
                "class" | "min_level" | "max_level" => true,
                "ident" | "facility" | "socket" => kind == "Syslog",
                "filename" | "mode" => kind == "File",
                "stderr" => kind == "Screen",
                _ => false,
            };
            if !converted {
                note_option(&path, option, notes);
            }
        }
        for inner in &block.blocks {
            if kind == "Syslog" && inner.name == "socket" {
                continue;
            }
            unknown_block(inner, &format!("{path}."), notes);
        }
    }

    /// Whether the levels leave out the lines, which are notices.
    fn is_mute(&self, line: usize, notes: &mut Notes) -> bool {
        let mut mute = false;
        for key in ["min_level", "max_level"] {
            let Some(text) = self.value(key) else {
                continue;
            };
            let at = self.line(key, line);
            let name = format!("{}.{key}", self.path());
            match level(text) {
                Some(level)
                    if (key == "min_level" && level > NOTICE)
                        || (key == "max_level" && level < NOTICE) =>
                {
                    let message =
                        "nfflowd logs its lines as notices, which this leaves out: so is the copy";
                    notes.add(at, &name, message);
                    mute = true;
                }
                Some(_) => {}
                None => {
                    let message = format!(
                        "expected a level such as notice, found \"{}\"",
                        quoted(text)
                    );
                    notes.add(at, &name, message);
                }
            }
        }
        mute
    }

    fn syslog_target(&self, line: usize, notes: &mut Notes) -> Option<Target> {
        let inner = self.block.and_then(|block| {
            let mut blocks = block.blocks.iter().rev();
            blocks.find(|inner| inner.name == "socket")
        });
        let mut kind = self.value("socket").unwrap_or("unix");
        let (mut host, mut port) = ("127.0.0.1", "514");
        let path = format!("{}.socket", self.path());
        for option in inner.iter().flat_map(|block| &block.options) {
            match option.name.as_str() {
                "type" => kind = &option.value,
                "host" => host = &option.value,
                "port" => port = &option.value,
                _ => note_option(&path, option, notes),
            }
        }
        let at = inner.map_or_else(|| self.line("socket", line), |block| block.line);
        let message = match kind {
            "unix" | "native" => return Some(Target::Local),
            "udp" | "inet" => {
                if let Some(address) = udp_address(host, port) {
                    return Some(Target::Udp(address));
                }
                format!(
                    "expected an IP address and a port, found \"{}\" and \"{}\": left out, add a [[syslog]] of target \"udp\"",
                    quoted(host),
                    quoted(port)
                )
            }
            other => format!(
                "\"{}\" has no equivalent, left out: add a [[syslog]] of target \"local\" or \"udp\"",
                quoted(other)
            ),
        };
        notes.add(at, &path, message);
        None
    }

    fn file_target(
        &self,
        line: usize,
        files: &mut HashSet<PathBuf>,
        notes: &mut Notes,
    ) -> Option<Target> {
        let name = format!("{}.filename", self.path());
        let at = self.line("filename", line);
        let file = self.value("filename").unwrap_or_default().trim();
        if values::absolute_path(file).is_err() {
            let message = format!(
                "expected an absolute path, found \"{}\": left out, add a [[syslog]] of target \"file\"",
                quoted(file)
            );
            notes.add(at, &name, message);
            return None;
        }
        if !files.insert(PathBuf::from(file)) {
            notes.add(at, &name, "another dispatcher writes this file: left out");
            return None;
        }
        if !matches!(self.value("mode"), Some("append" | ">>")) {
            let message = "nfflowd began the file anew at each start; nattrail always appends, logrotate(8) begins it anew";
            notes.add(
                self.line("mode", at),
                &format!("{}.mode", self.path()),
                message,
            );
        }
        Some(Target::File(file.to_owned()))
    }

    fn write(
        &self,
        target: &Target,
        line: usize,
        exporter: Option<&str>,
        draft: &mut Draft,
        notes: &mut Notes,
    ) {
        draft.section("[[syslog]]");
        if matches!(target, Target::Local) {
            draft.remark(
                "Lines only: queries of the journal by field (journalctl NAT_POST_SRC=...) need one more [[syslog]] with \
                 target = \"journal\".",
            );
        }
        let syslog = match target {
            Target::Local => {
                draft.set("target", Text("local"));
                true
            }
            Target::Udp(address) => {
                draft.set("target", Text("udp"));
                draft.set("address", Text(address));
                true
            }
            Target::File(path) => {
                draft.set("target", Text("file"));
                draft.set("path", Text(path));
                false
            }
        };
        draft.remark(
            "The lines that nfflowd wrote: flow-tools' 18 fields, three lines per connection.",
        );
        draft.set("format", Text("csv"));
        if let Some(exporter) = exporter {
            draft.set("exporter-address", Text(exporter));
        }
        if !syslog {
            return;
        }
        let facility = self.value("facility").unwrap_or("user");
        if values::facility(facility).is_ok() {
            draft.set("facility", Text(facility));
        } else {
            let message = format!(
                "expected a facility such as local6, found \"{}\": local6 is taken",
                quoted(facility)
            );
            let name = format!("{}.facility", self.path());
            notes.add(self.line("facility", line), &name, message);
        }
        draft.set("severity", Text("notice"));
        let ident = self.value("ident").unwrap_or("nfflowd");
        if values::app_name(ident).is_ok() {
            draft.remark(
                "As nfflowd called itself, so that rules of the syslog server still match.",
            );
            draft.set("app-name", Text(ident));
        } else {
            let message = format!(
                "expected at most 48 letters, digits, \"_\", \".\", \"/\" and \"-\", found \"{}\": nattrail is taken",
                quoted(ident)
            );
            let name = format!("{}.ident", self.path());
            notes.add(self.line("ident", line), &name, message);
        }
    }
}

fn udp_address(host: &str, port: &str) -> Option<String> {
    let (host, port) = (host.parse::<IpAddr>().ok()?, port.parse().ok()?);
    let address = SocketAddr::new(host, port).to_string();
    values::destination(&address).is_ok().then_some(address)
}

/// Names an option that has no equivalent.
fn note_option(path: &str, option: &Setting, notes: &mut Notes) {
    let message = match option.name.as_str() {
        "format" => {
            "no equivalent: nattrail's lines are those that nfflowd wrote without it; see [[syslog]] format"
        }
        "logopt" => "no equivalent: lines always carry the process id",
        "autoflush" | "close_after_write" | "binmode" | "permissions" | "syswrite"
        | "lazy_open" => {
            "no equivalent: the file is written with each batch and reopened at a reload"
        }
        "lock" => "no equivalent: nattrail has no threads",
        "newline" | "callbacks" | "name" => "no equivalent, and not needed",
        _ => "unknown, without equivalent",
    };
    notes.add(option.line, &named(path, option), message);
}

/// A level's place among Log::Dispatch's, which may also be written short or as that number.
fn level(text: &str) -> Option<usize> {
    let text = match text {
        "warn" => "warning",
        "err" => "error",
        "crit" => "critical",
        "emerg" => "emergency",
        other => other,
    };
    let number = text.parse().ok().filter(|number| *number < LEVELS.len());
    number.or_else(|| LEVELS.iter().position(|level| *level == text))
}
