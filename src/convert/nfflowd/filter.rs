//! What nfflowd lets conntrack(8) select: the options in `<conntrack> format` that nattrail knows too.

use super::super::Notes;
use super::super::draft::{Draft, List, Text};
use super::super::general::{Block, Setting};
use super::{NO_PROGRAMS, named};
use crate::config::{quoted, values};

const FORMAT: &str = "conntrack.format";

#[derive(Default)]
struct Selection {
    protocols: Vec<String>,
    source: Vec<String>,
    destination: Vec<String>,
    mark: Option<String>,
    buffer: Option<String>,
    translated: bool,
}

/// Writes `[capture]`.
pub(super) fn convert(blocks: &[&Block], draft: &mut Draft, notes: &mut Notes) {
    // nfflowd's own format asks for translated sources.
    let mut selection = Selection {
        translated: true,
        ..Selection::default()
    };
    for option in blocks.iter().flat_map(|block| &block.options) {
        match option.name.as_str() {
            "format" => selection = Selection::of(option, notes),
            "progname" | "init_format" | "init_args" => {
                notes.add(option.line, &named("conntrack", option), NO_PROGRAMS);
            }
            "args" => {
                let message =
                    "no equivalent: put what it stands for into format, and convert again";
                notes.add(option.line, "conntrack.args", message);
            }
            _ => {
                let message = "unknown: nfflowd has no such option";
                notes.add(option.line, &named("conntrack", option), message);
            }
        }
    }
    selection.write(draft);
}

impl Selection {
    fn of(option: &Setting, notes: &mut Notes) -> Self {
        let mut this = Self::default();
        let mut words = option.value.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let (flag, attached) = match word.split_once('=') {
                Some((flag, value)) if word.starts_with("--") => (flag, Some(value)),
                _ => (word, None),
            };
            let value = attached.or_else(|| words.next_if(|next| !next.starts_with('-')));
            if let Some(message) = this.take(flag, value) {
                notes.add(option.line, FORMAT, message);
            }
        }
        let message = "nattrail starts no other programs; what it selected is in [capture]";
        notes.add(option.line, FORMAT, message);
        this
    }

    /// Returns what there is to say about the option of conntrack(8).
    fn take(&mut self, flag: &str, value: Option<&str>) -> Option<String> {
        let text = value.unwrap_or_default();
        let usable = match flag {
            "-E" | "--event" | "-o" | "--output" => return None,
            "-e" | "--event-mask" => {
                let complete = ["NEW", "DESTROY"].iter().all(|kind| text.contains(kind));
                let all = text.eq_ignore_ascii_case("all");
                return (!complete && !all)
                    .then(|| "-e: nattrail reads NEW and DESTROY events, always both".to_owned());
            }
            "-n" | "--src-nat" | "-g" | "--dst-nat" | "-j" | "--any-nat" => {
                self.translated = true;
                if value.is_some() {
                    return Some(format!(
                        "{flag} {}: nattrail cannot select by translated address; every translation is logged",
                        quoted(text)
                    ));
                }
                return None;
            }
            "-p" | "--proto" if values::protocol(text).is_ok() => &mut self.protocols,
            "-s" | "--src" | "--orig-src" if values::prefix(text).is_ok() => &mut self.source,
            "-d" | "--dst" | "--orig-dst" if values::prefix(text).is_ok() => &mut self.destination,
            "-m" | "--mark" if values::mark(text).is_ok() => {
                self.mark = Some(text.to_owned());
                return None;
            }
            "-b" | "--buffer-size" if buffer(text) => {
                self.buffer = Some(text.to_owned());
                return None;
            }
            _ => {
                let separator = if value.is_some() { " " } else { "" };
                return Some(format!(
                    "{}{separator}{}: an option of conntrack without equivalent; see the keys of [capture]",
                    quoted(flag),
                    quoted(text)
                ));
            }
        };
        usable.push(text.to_owned());
        None
    }

    fn write(&self, draft: &mut Draft) {
        draft.section("[capture]");
        if self.translated {
            draft.remark(
                "nfflowd knew translated sources of tcp, udp and icmp echo over IPv4. nattrail logs every translation of every \
                 protocol; to narrow that, add protocols = [\"tcp\", \"udp\", \"icmp\"].",
            );
        } else {
            draft.remark("conntrack was asked for every connection, translated or not.");
        }
        draft.set("log", Text(if self.translated { "nat" } else { "all" }));
        let lists = [
            ("protocols", &self.protocols),
            ("source", &self.source),
            ("destination", &self.destination),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                draft.set(key, List(list));
            }
        }
        if let Some(mark) = &self.mark {
            draft.set("mark", Text(mark));
        }
        if let Some(buffer) = &self.buffer {
            draft.set("receive-buffer", Text(buffer));
        }
    }
}

/// What `capture.receive-buffer` takes.
fn buffer(text: &str) -> bool {
    values::size(4 << 10..=1 << 30)(text).is_ok()
}
