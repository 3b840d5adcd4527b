//! Files that are made to stop the daemon: none of them takes long, much memory or much stack, or fills the log.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::{load, load_with, message};

/// The text again and again, 1 MiB of it with what goes before and after.
fn filled(before: &str, repeated: &str, after: &str) -> String {
    let room = (1 << 20) - before.len() - after.len();
    format!("{before}{}{after}", repeated.repeat(room / repeated.len()))
}

/// The same with a number in each, in place of `#`.
fn numbered(before: &str, repeated: &str, after: &str) -> String {
    let mut text = before.to_owned();
    for index in 0.. {
        let next = repeated.replace('#', &index.to_string());
        if text.len() + next.len() + after.len() > 1 << 20 {
            break;
        }
        text += &next;
    }
    text + after
}

/// Files of about 1 MiB that are work for the parser, for its stack, or for whoever says what is wrong in them.
fn hostile_toml() -> Vec<String> {
    let key = vec!["a"; 79].join(".");
    let inline = format!("{key} = {{").repeat(78);
    let long = "k".repeat(1_000_000);
    vec![
        format!("{inline}a = 1{}", "}".repeat(78)),
        format!("[{key}]\n{inline}a = 1{}\n", "}".repeat(78)),
        filled("a = ", "[", ""),
        filled("a = ", "{a = ", ""),
        filled("a", ".a", " = 1"),
        numbered("", &format!("[{key}.k#]\n"), ""),
        filled("", "=\n", ""),
        filled("", "[[collector]]\n", ""),
        numbered("[capture]\n", "k# = 1\n", ""),
        numbered("", "k# = 1\n", ""),
        numbered(
            &format!("[collector.{}]\n", &long[..500_000]),
            "k# = 1\n",
            "",
        ),
        format!("[capture]\n{long} = 1"),
        format!("[capture]\nlog = \"{long}\""),
        filled("[capture]\nprotocols = [", "\"x\",", "]"),
        filled("[capture]\nprotocols = \"", ",", "\""),
        filled("collector = [", "{address=\"192.0.2.1\"},", "]"),
        filled("syslog = [", "{target=\"stdout\"},", "]"),
    ]
}

fn hostile_yaml() -> Vec<String> {
    let flow = format!("{}{},", "[".repeat(250), "]".repeat(250));
    let bomb: String = ('b'..='i').zip('a'..).fold(
        "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned(),
        |bomb, (name, last)| {
            let aliases = vec![format!("*{last}"); 9].join(",");
            format!("{bomb}{name}: &{name} [{aliases}]\n")
        },
    );
    let tag = format!("%TAG !e! {}\n---\n", "x".repeat(500_000));
    vec![
        filled("", "- ", ""),
        filled("", ": ", ""),
        filled("", "? ", ""),
        filled("", "[", ""),
        filled("a: [", &flow, "]"),
        bomb,
        filled(&tag, "- !e!x y\n", ""),
        numbered("", "- &a# x\n", ""),
        numbered("capture:\n", " k#: 1\n", ""),
        numbered("? {", "k#: 1,", "}\n: 1"),
        filled("", "x\n", ""),
    ]
}

fn hostile_json() -> Vec<String> {
    let json = format!("{}{},", "[".repeat(120), "]".repeat(120));
    vec![
        filled("", "[", ""),
        filled("", "{\"a\":", ""),
        filled("{\"a\":[", &json, "1]}"),
        filled("{\"collector\":[", "{},", "{}]}"),
        numbered("{\"capture\":{", "\"k#\":1,", "\"k\":1}}"),
        filled("{\"", "\\u0001", "\":1}"),
    ]
}

fn hostile_ini() -> Vec<String> {
    let long = "k".repeat(1_000_000);
    vec![
        numbered("[capture]\n", "k# = 1\n", ""),
        numbered("", "[collector.k#]\na = 1\n", ""),
        filled("", "[", ""),
        filled("[collector", ".a", "]\na = 1"),
        format!("{long} = 1"),
    ]
}

/// What is allowed for a file, in a program that is not optimised; it is the processor's time, so that other tests do not
/// count.
const PATIENCE: Duration = Duration::from_secs(15);

/// The stack of a test's thread is 2 MiB, a quarter of what the daemon has.
fn are_refused_in_few_words(name: &str, files: &[String]) {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the time the test took, not a time it is about"
    )]
    let spent = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap()
    };
    for text in files {
        let beginning: String = text.chars().take(60).collect();
        let begun = spent();
        let message = load_with(name, text, &[]).unwrap_err();
        assert!(spent() - begun < PATIENCE, "{beginning}");
        assert!(message.lines().count() <= 51, "{beginning}: {message}");
        assert!(message.len() <= 32 << 10, "{beginning}: {message}");
    }
}

#[test]
fn hostile_toml_is_refused_in_few_words() {
    are_refused_in_few_words("n.toml", &hostile_toml());
}

#[test]
fn hostile_yaml_is_refused_in_few_words() {
    are_refused_in_few_words("n.yaml", &hostile_yaml());
}

#[test]
fn hostile_json_is_refused_in_few_words() {
    are_refused_in_few_words("n.json", &hostile_json());
}

#[test]
fn hostile_ini_is_refused_in_few_words() {
    are_refused_in_few_words("n.ini", &hostile_ini());
}

#[test]
fn mistakes_beyond_the_fiftieth_are_counted() {
    let message = message(&numbered("[capture]\n", "k# = 1\n", ""));
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(lines.len(), 51);
    assert!(
        lines[49].starts_with("n.toml: capture.k10"),
        "{}",
        lines[49]
    );
    let beyond = lines[50].strip_prefix("n.toml: and ").unwrap();
    let count: usize = beyond.strip_suffix(" more").unwrap().parse().unwrap();
    assert!(count > 90_000, "{count}");
}

#[test]
fn thousands_of_collectors_and_targets_are_no_mistake() {
    let collectors = numbered(
        "",
        "[[collector]]\naddress = \"192.0.2.1:1\"\nobservation-domain = #\n",
        "",
    );
    assert!(load(&collectors).unwrap().collectors.len() > 15_000);
    let targets = numbered("syslog:\n", "- {target: file, path: /#}\n", "");
    assert!(load_with("n.yaml", &targets, &[]).unwrap().syslog.len() > 30_000);
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    assert_eq!(
        message(&"\n".repeat((1 << 20) + 1)),
        "n.toml: expected at most 1 MiB (1048576 bytes), found 1048577 bytes"
    );
}
