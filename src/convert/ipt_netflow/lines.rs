//! Finding the module's options in files of modprobe.d(5) and sysctl.d(5).
//!
//! What belongs to other modules or settings is counted, as it stays in force where it is; what concerns the module and is
//! not an option is named.

use super::super::Notes;
use crate::config::quoted;

/// One option, as it is written somewhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Given {
    /// With underscores, as the kernel takes a dash for one.
    pub name: String,
    /// As it is written.
    pub shown: String,
    pub value: String,
    pub line: usize,
}

/// All options of the module in the order of the file.
pub(super) fn read(text: &str, notes: &mut Notes) -> Vec<Given> {
    let mut given = Vec::new();
    let mut others = 0;
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut line = first.to_owned();
        // A comment can be continued too. The line feed stays, to count the lines by.
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
        let message = if others == 1 {
            "1 line is not about ipt_NETFLOW: it stays as it is where it is".to_owned()
        } else {
            format!(
                "{others} lines are not about ipt_NETFLOW: they stay as they are where they are"
            )
        };
        notes.add(0, "", message);
    }
    given
}

/// Whether the line was one of modprobe.d about this module, or its line in /etc/modules.
fn modprobe(line: &str, number: usize, given: &mut Vec<Given>, notes: &mut Notes) -> bool {
    let words = words(line, number);
    let mut words = words.iter().map(|(line, word)| (*line, word.as_str()));
    let (command, module) = match words.next() {
        Some((_, first)) if is_module(first) => ("options", first),
        Some((_, first)) => (first, words.next().unwrap_or_default().1),
        None => return false,
    };
    let known = [
        "alias",
        "blacklist",
        "install",
        "options",
        "remove",
        "softdep",
        "weakdep",
    ];
    if command == "alias" && words.clone().any(|(_, word)| is_module(word))
        || is_module(module) && command != "options"
    {
        if !known.contains(&command) {
            return false;
        }
        let message = "not an option of the module: remove the line together with the module";
        notes.add(number, &quoted(command), message);
        return true;
    }
    if command != "options" || !is_module(module) {
        return false;
    }
    for (line, word) in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        given.push(option(name, value, line));
    }
    true
}

fn sysctl(line: &str, number: usize, given: &mut Vec<Given>) -> bool {
    let Some((key, value)) = line.split_once('=') else {
        return false;
    };
    // A dash in front: an error is of no consequence (sysctl.d(5)).
    let key = key.trim().trim_start_matches('-').trim();
    let name = ["net.netflow.", "net/netflow/"]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix));
    if let Some(name) = name {
        given.push(option(name, value.trim(), number));
    }
    name.is_some()
}

fn option(name: &str, value: &str, line: usize) -> Given {
    Given {
        name: name.replace('-', "_"),
        shown: quoted(name),
        value: unquoted(value).to_owned(),
        line,
    }
}

/// modprobe takes - and _ for the same.
fn is_module(name: &str) -> bool {
    let name = name.replace('-', "_");
    ["ipt_netflow", "ip6t_netflow"]
        .iter()
        .any(|module| name.eq_ignore_ascii_case(module))
}

/// Words between white space, of which double quotes keep some together (the kernel's next_arg), each with its line.
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

fn unquoted(text: &str) -> &str {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(text)
}
