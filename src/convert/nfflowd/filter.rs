//! The selection that nfflowd leaves to conntrack(8): the options in `<conntrack> format` that nattrail also has.

use super::super::draft::Draft;
use super::super::{Note, Setting, Settings};
use crate::config::{quoted, values};

#[derive(Default)]
struct Selection<'a> {
    protocols: Vec<&'a str>,
    source: Vec<&'a str>,
    destination: Vec<&'a str>,
    mark: Option<&'a str>,
    buffer: Option<&'a str>,
    translated: bool,
}

/// Writes `[capture]`.
pub(super) fn convert(settings: &Settings, draft: &mut Draft) {
    let mut selection = Selection::default();
    match settings.last("conntrack.format", &mut draft.notes) {
        Some(format) => selection.read(format, &mut draft.notes),
        // nfflowd's own format selects translated sources.
        None => selection.translated = true,
    }
    selection.write(draft);
}

impl<'a> Selection<'a> {
    fn read(&mut self, format: &'a Setting, notes: &mut Vec<Note>) {
        let mut words = format.value.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let (flag, attached) = match word.split_once('=') {
                Some((flag, value)) if word.starts_with("--") => (flag, Some(value)),
                _ => (word, None),
            };
            let value = attached.or_else(|| words.next_if(|next| !next.starts_with('-')));
            if let Err(message) = self.take(flag, value) {
                let value = value.map(|value| format!(" {value}")).unwrap_or_default();
                let option = quoted(&format!("{flag}{value}"));
                notes.push(format.note(format!("{option}: {message}")));
            }
        }
        let message = "nattrail starts no other programs; its selection is in [capture]";
        notes.push(format.note(message));
    }

    /// The error is the remark on the option of conntrack(8).
    fn take(&mut self, flag: &str, value: Option<&'a str>) -> Result<(), &'static str> {
        let text = value.unwrap_or_default();
        match flag {
            "-E" | "--event" | "-o" | "--output" => {}
            "-e" | "--event-mask" => {
                let complete = ["NEW", "DESTROY"].iter().all(|kind| text.contains(kind));
                if !complete && !text.eq_ignore_ascii_case("all") {
                    return Err("nattrail reads NEW and DESTROY events, always both");
                }
            }
            "-n" | "--src-nat" | "-g" | "--dst-nat" | "-j" | "--any-nat" => {
                self.translated = true;
                if value.is_some() {
                    return Err(
                        "nattrail cannot select by translated address; every translation is logged",
                    );
                }
            }
            "-p" | "--proto" if values::protocol(text).is_ok() => self.protocols.push(text),
            "-s" | "--src" | "--orig-src" if values::prefix(text).is_ok() => self.source.push(text),
            "-d" | "--dst" | "--orig-dst" if values::prefix(text).is_ok() => {
                self.destination.push(text)
            }
            "-m" | "--mark" if values::mark(text).is_ok() => self.mark = value,
            "-b" | "--buffer-size" if values::buffer(text).is_ok() => self.buffer = value,
            _ => {
                return Err("an option of conntrack without equivalent; see the keys of [capture]");
            }
        }
        Ok(())
    }

    fn write(self, draft: &mut Draft) {
        draft.section("[capture]");
        if self.translated {
            draft.remark(
                "nfflowd logged translated sources of tcp, udp and icmp echo over IPv4. nattrail logs every translation of every \
                 protocol; to narrow that, add protocols = [\"tcp\", \"udp\", \"icmp\"].",
            );
        } else {
            draft.remark("conntrack was asked for every connection, translated or not.");
        }
        draft.set("log", if self.translated { "nat" } else { "all" });
        let lists = [
            ("protocols", self.protocols),
            ("source", self.source),
            ("destination", self.destination),
        ];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            draft.set(key, list);
        }
        for (key, value) in [("mark", self.mark), ("receive-buffer", self.buffer)] {
            if let Some(value) = value {
                draft.set(key, value);
            }
        }
    }
}
