//! `<ptee>`: the copies of nfflowd's lines, by Log::Dispatch::Config. Each dispatcher becomes a `[[syslog]]`.
//!
//! The lines are logged at the level notice, so a dispatcher with a higher lowest level never wrote anything. A file
//! moves to a directory where the service of the package may write.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use super::super::draft::Draft;
use super::super::{Note, Setting, Settings, destination};
use crate::config::{Target, quoted, values};

/// The directory of file copies: the unit's `LogsDirectory=`.
const DIRECTORY: &str = "/var/log/nattrail";
/// The package's rules for logrotate, which select files by these extensions.
const LOGROTATE: &str = include_str!("../../../conf/logrotate.d/nattrail");
const EXTENSIONS: [&str; 3] = ["log", "csv", "json"];

/// The levels of Log::Dispatch at which notices are logged.
const LEVELS: [&str; 6] = ["debug", "info", "notice", "0", "1", "2"];

/// One dispatcher: the settings of the file, over nfflowd's own configuration.
struct Dispatcher<'a> {
    name: &'a str,
    settings: &'a Settings,
    /// The line that names it.
    line: usize,
}

/// Writes a `[[syslog]]` for each dispatcher in use.
pub(super) fn convert(settings: &Settings, exporter: Option<IpAddr>, draft: &mut Draft) {
    let mut all = settings.0.iter();
    let is_default = !all.any(|setting| setting.name.starts_with("ptee."));
    let lists = settings.all("ptee.conf.dispatchers").into_iter();
    let mut names: Vec<_> = lists
        .flat_map(|list| list.value.split_whitespace().map(|name| (list.line, name)))
        .collect();
    if names.is_empty() {
        names = vec![(0, "screen"), (0, "syslog")];
    }
    if !names.iter().any(|(_, name)| *name == "screen") {
        let message = "\"screen\" is missing, without which nfflowd sends nothing; the collector is in the result all the same";
        let note = Note::new(names[0].0, "ptee.conf.dispatchers", message);
        draft.notes.push(note);
    }
    let mut seen = HashSet::new();
    let mut streams = Vec::new();
    for (line, name) in names {
        if !seen.insert(name) {
            continue;
        }
        let dispatcher = Dispatcher {
            name,
            settings,
            line,
        };
        let Some(target) = dispatcher.target(&mut draft.notes) else {
            continue;
        };
        let is_file = matches!(target, Target::File { .. });
        let sender = (!is_file).then(|| dispatcher.sender(&mut draft.notes));
        let marks = sender.map(|(facility, ident)| (values::facility(facility), ident));
        let stream = (target, marks);
        if streams.contains(&stream) {
            let message = "another dispatcher sends the same lines to the same place: left out";
            draft.notes.push(dispatcher.note("", message));
        } else {
            write(&stream.0, sender, is_default, exporter, draft);
            streams.push(stream);
        }
    }
    for setting in settings.0.iter().filter(|setting| !setting.seen.get()) {
        let inside = setting.name.strip_prefix("ptee.conf.");
        if let Some((name, _)) = inside.and_then(|inside| inside.split_once('.'))
            && !seen.contains(name)
        {
            setting.seen.set(true);
            let message = "not in use, as no line \"dispatchers\" names its block: left out";
            draft.notes.push(setting.note(message));
        }
    }
}

impl<'a> Dispatcher<'a> {
    /// The path of its block, or of a setting in it: `.ident`.
    fn path(&self, key: &str) -> String {
        format!("ptee.conf.{}{key}", quoted(self.name))
    }

    fn note(&self, key: &str, message: impl Into<String>) -> Note {
        Note::new(self.line, &self.path(key), message)
    }

    fn setting(&self, key: &str, notes: &mut Vec<Note>) -> Option<&'a Setting> {
        self.settings.last(&self.path(&format!(".{key}")), notes)
    }

    /// The file's value, or that of nfflowd's own configuration.
    fn value(&self, key: &str, notes: &mut Vec<Note>) -> &'a str {
        match (self.setting(key, notes), self.name, key) {
            (Some(setting), _, _) => &setting.value,
            (None, "screen", "class") => "Log::Dispatch::Screen",
            (None, "syslog", "class") => "Log::Dispatch::Syslog",
            (None, _, "ident") => "nfflowd",
            (None, "syslog", "facility") => "local6",
            (None, _, "facility") => "user",
            (None, _, "socket") => "unix",
            (None, _, "socket.host") => "127.0.0.1",
            (None, _, "socket.port") => "514",
            _ => "",
        }
    }

    /// Where its lines go to, if they go anywhere here.
    fn target(&self, notes: &mut Vec<Note>) -> Option<Target> {
        let class = self.value("class", notes);
        if let Some(level) = self.setting("min_level", notes)
            && !LEVELS.contains(&level.value.as_str())
        {
            let message =
                "nfflowd logs its lines as notices, which this leaves out: so is the copy";
            notes.push(level.note(message));
            return None;
        }
        match class.strip_prefix("Log::Dispatch::").unwrap_or(class) {
            // nfflowd's way to the next program of its pipe.
            "Screen" => None,
            "Syslog" => self.syslog_target(notes),
            "File" => self.file_target(notes),
            "FileRotate" => {
                let target = self.file_target(notes);
                if let Some(Target::File { path }) = &target {
                    let snippet = self.rotation(path, notes);
                    notes.push(self.note("", snippet));
                }
                target
            }
            _ => {
                let message = format!(
                    "no equivalent of its class \"{}\"; nattrail copies to syslog, a file, the journal: see [[syslog]]",
                    quoted(class)
                );
                notes.push(self.note("", message));
                None
            }
        }
    }

    fn syslog_target(&self, notes: &mut Vec<Note>) -> Option<Target> {
        let kind = match self.setting("socket.type", notes) {
            Some(kind) => &kind.value,
            None => self.value("socket", notes),
        };
        let host = self.value("socket.host", notes);
        let port = self.value("socket.port", notes);
        let message = match kind {
            "unix" | "native" => {
                return Some(Target::Local {
                    path: "/dev/log".into(),
                });
            }
            "udp" | "inet" => {
                let to = host.parse().ok().zip(port.parse().ok());
                if let Some(address) = to.and_then(|(ip, port)| destination(ip, port)) {
                    return Some(Target::Udp { address });
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
        notes.push(self.note(".socket", message));
        None
    }

    fn file_target(&self, notes: &mut Vec<Note>) -> Option<Target> {
        let mode = self.value("mode", notes);
        let file = self.value("filename", notes);
        let Ok(path) = values::absolute_path(file.trim()) else {
            let message = format!(
                "expected an absolute path, found \"{}\": left out, add a [[syslog]] of target \"file\"",
                quoted(file)
            );
            notes.push(self.note(".filename", message));
            return None;
        };
        if !matches!(mode, "append" | ">>") {
            let message = "nfflowd began the file anew at each start; nattrail always appends, logrotate(8) begins it anew";
            notes.push(self.note(".mode", message));
        }
        let writable = within_reach(&path);
        if writable != path {
            let message = format!(
                "the unit lets the service write below {DIRECTORY} only, where the copy is now: {}; for another place see \
                 Sandbox in nattrail.service(8)",
                quoted(&writable.to_string_lossy())
            );
            notes.push(self.note(".filename", message));
        }
        Some(Target::File { path: writable })
    }

    /// The rules by which logrotate rotates the file as Log::Dispatch::FileRotate did: the package's rules, with the
    /// times, sizes and numbers of this file.
    fn rotation(&self, path: &Path, notes: &mut Vec<Note>) -> String {
        let mut number = |key, default: u64| {
            let Some(setting) = self.setting(key, notes) else {
                return default;
            };
            setting.value.parse().unwrap_or_else(|_| {
                let outcome = format!("{default} is used");
                notes.push(setting.unexpected("a whole number", &outcome));
                default
            })
        };
        let (size, kept) = (number("size", 10 << 20), number("max", 1).max(1));
        // The smallest unit of the pattern decides; without a pattern the size.
        let when = match self.value("DatePattern", notes) {
            "" => format!("size {size}"),
            hourly if hourly.contains('H') => "hourly".to_owned(),
            weekly if weekly.contains('w') => "weekly".to_owned(),
            monthly if monthly.contains('M') && !monthly.contains('d') => "monthly".to_owned(),
            _ => "daily".to_owned(),
        };
        let (_, rules) = LOGROTATE.rsplit_once("{\n").unwrap_or_default();
        let rules = rules.replace("\tdaily\n", &format!("\t{when}\n"));
        let rules = rules.replace("\trotate 90\n", &format!("\trotate {kept}\n"));
        let path = path.display().to_string();
        if path.contains(['"', '\\', '*', '?', '[', '{']) {
            return "nattrail does not rotate files, and logrotate cannot name this one: choose a plainer name".to_owned();
        }
        format!(
            "nattrail does not rotate files, logrotate does, which looks once a day: write the following lines to \
             /etc/logrotate.d/local-nattrail, which comes before the package's rules (rotate 90, daily):\n\"{path}\" {{\n{}",
            rules.trim_end().replace('\t', "  ")
        )
    }

    /// The facility and the program, by which the syslog server identifies the lines.
    fn sender(&self, notes: &mut Vec<Note>) -> (&'a str, &'a str) {
        let mut checked = |key, valid: fn(&str) -> bool, expected, default| {
            let value = self.value(key, notes);
            if valid(value) {
                return value;
            }
            if let Some(setting) = self.setting(key, notes) {
                let outcome = format!("{default} is used");
                notes.push(setting.unexpected(expected, &outcome));
            }
            default
        };
        let is_facility = |text: &str| values::facility(text).is_ok();
        let expected = "a facility such as local6";
        let facility = checked("facility", is_facility, expected, "local6");
        let is_name = |text: &str| values::app_name(text).is_ok();
        let expected = "at most 48 letters, digits, \"_\", \".\", \"/\" and \"-\"";
        (facility, checked("ident", is_name, expected, "nattrail"))
    }
}

/// A path where the service may write, and where the package's rules for logrotate find the file.
fn within_reach(path: &Path) -> PathBuf {
    let own = Path::new(DIRECTORY);
    let is_within =
        path.starts_with(own) && !path.components().any(|it| it == Component::ParentDir);
    let (Some(name), false) = (path.file_name(), is_within) else {
        return path.to_owned();
    };
    let mut path = own.join(name);
    let extension = path.extension().and_then(|extension| extension.to_str());
    if !extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) {
        path.as_mut_os_string().push(".csv");
    }
    path
}

fn write(
    target: &Target,
    sender: Option<(&str, &str)>,
    is_default: bool,
    exporter: Option<IpAddr>,
    draft: &mut Draft,
) {
    draft.section("[[syslog]]");
    if matches!(target, Target::Local { .. }) {
        draft.remark(
            "The package's rules for rsyslog write lines of nfflowd or nattrail with facility local6 to files of their own, \
             /var/log/nfflowd-unverified.log for nfflowd: any user of this machine can write such lines. To have lines that only \
             nattrail can write, and every one of them: target = \"file\", path = \"/var/log/nattrail/nfflowd.csv\", without \
             facility, severity and app-name.",
        );
        draft.remark(
            "Queries of the journal by field (journalctl --namespace=nattrail NAT_POST_SRC=...) need one more [[syslog]] with \
             target = \"journal\" and path = \"/run/systemd/journal.nattrail/socket\".",
        );
    }
    draft.set("target", target.kind());
    match target {
        Target::Udp { address } => draft.set("address", address.to_string()),
        Target::File { path } => draft.set("path", path.to_string_lossy()),
        _ => {}
    }
    draft
        .remark("The lines that nfflowd wrote: flow-tools' 18 fields, three lines per connection.");
    draft.set("format", "csv");
    if let Some(exporter) = exporter {
        draft.set("exporter-address", exporter.to_string());
    }
    if let Some((facility, ident)) = sender {
        draft.set("facility", facility);
        if is_default {
            draft.remark("The level in nfflowd's manual; its program used \"notice\", which rules for notices and above need.");
        }
        draft.set("severity", if is_default { "info" } else { "notice" });
        draft.remark("The name that nfflowd used, so that rules of the syslog server still match.");
        draft.set("app-name", ident);
    }
}
