//! Finding the module's options in files of modprobe.d(5) and sysctl.d(5).
//!
//! Lines about other modules or settings are counted, as they stay in force in their file; a line that concerns the
//! module and is not an option is named.

use super::super::{Note, Settings, unquoted};
use crate::config::quoted;

/// All options of the module in the order of the file.
pub(super) fn read(text: &str, notes: &mut Vec<Note>) -> Settings {
    let mut given = Settings::default();
    let mut others = 0;
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut line = first.to_owned();
        // A comment can be continued too. The line feed stays, so that lines can be counted.
        while line.ends_with('\\') {
            line.pop();
            line.push('\n');
            line.push_str(lines.next().map_or("", |(_, next)| next));
        }
        let line = line.trim_end();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if !modprobe(line, index + 1, &mut given, notes) && !sysctl(line, index + 1, &mut given) {
            others += 1;
        }
    }
    if others > 0 {
        let message =
            format!("lines that are not about ipt_NETFLOW: {others}; leave them where they are");
        notes.push(Note::new(0, "", message));
    }
    given
}

/// Whether it is a line of modprobe.d about this module, or its line in /etc/modules.
fn modprobe(line: &str, number: usize, given: &mut Settings, notes: &mut Vec<Note>) -> bool {
    let words = words(line, number);
    let texts: Vec<_> = words.iter().map(|(_, word)| word.as_str()).collect();
    let options = match texts.as_slice() {
        [module, ..] if is_module(module) => &words[1..],
        ["options", module, ..] if is_module(module) => &words[2..],
        [command, others @ ..] if others.iter().any(|word| is_module(word)) => {
            let message = "not an option of the module: remove the line together with the module";
            notes.push(Note::new(number, &quoted(command), message));
            return true;
        }
        _ => return false,
    };
    for (line, word) in options {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        add(given, name, value, *line);
    }
    true
}

fn sysctl(line: &str, number: usize, given: &mut Settings) -> bool {
    let Some((key, value)) = line.split_once('=') else {
        return false;
    };
    // A leading dash means that errors are ignored (sysctl.d(5)).
    let key = key.trim().trim_start_matches('-').trim();
    let name = ["net.netflow.", "net/netflow/"]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix));
    if let Some(name) = name {
        add(given, name, value.trim(), number);
    }
    name.is_some()
}

/// Writes underscores, as the kernel takes a dash for one.
fn add(given: &mut Settings, name: &str, value: &str, line: usize) {
    given.add(&name.replace('-', "_"), unquoted(value), line);
}

/// modprobe treats - and _ alike.
fn is_module(name: &str) -> bool {
    let name = name.replace('-', "_");
    ["ipt_netflow", "ip6t_netflow"]
        .iter()
        .any(|module| name.eq_ignore_ascii_case(module))
}

/// Words between white space, which double quotes can keep together (the kernel's next_arg), each with its line.
fn words(text: &str, first: usize) -> Vec<(usize, String)> {
    let mut words = vec![(first, String::new())];
    let (mut within, mut line) = (false, first);
    for c in text.chars() {
        if c == '\n' {
            line += 1;
        }
        if c.is_whitespace() && !within {
            words.push((line, String::new()));
            continue;
        }
        within ^= c == '"';
        if let Some((_, word)) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|(_, word)| !word.is_empty());
    for (_, word) in &mut words {
        *word = unquoted(word).to_owned();
    }
    words
}
