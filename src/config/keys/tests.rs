//! The sample configuration is the table of keys.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use super::*;
use crate::config::Config;

#[test]
fn every_key_is_in_the_table_once() {
    let mut seen = HashSet::new();
    for key in all() {
        assert!(
            seen.insert((key.section, key.name)),
            "{} twice in {}",
            key.name,
            key.section.name()
        );
    }
}

#[test]
fn a_misspelt_word_finds_its_nearest() {
    let names: Vec<_> = all().map(|key| key.name).collect();
    assert_eq!(nearest("lgo", &names), Some("log"));
    assert_eq!(nearest("TTL", &names), Some("ttl"));
    assert_eq!(nearest("set_sysctls", &names), Some("set-sysctls"));
    assert_eq!(nearest("recieve-buffer", &names), Some("receive-buffer"));
    assert_eq!(nearest("colour", &names), None);
    assert_eq!(nearest("", &names), None);
}

#[test]
fn a_reload_keeps_the_keys_that_take_a_restart_and_names_those_that_differ() {
    let current =
        load("[capture]\ntable = \"a\"\n[control]\nsocket = \"/a\"\n[pending]\nttl = \"1d\"");
    let read =
        load("[capture]\ntable = \"b\"\n[control]\nsocket = \"/b\"\n[pending]\nttl = \"2d\"");
    let (merged, differing) = current.reloaded(read.clone());
    assert_eq!(differing, ["capture.table", "control.socket"]);
    assert_eq!(
        (&merged.capture, &merged.control),
        (&current.capture, &current.control)
    );
    assert_eq!(merged.pending, read.pending);
    assert!(merged.reloaded(merged.clone()).1.is_empty());
}

/// The `conf/nattrail.toml` that follows from the table.
fn sample() -> String {
    let mut text = String::from(INTRODUCTION);
    for section in Section::ALL {
        text += &format!("\n{}", comment(section.introduction()));
        let name = section.name();
        if section.is_list() {
            text += &format!("#[[{name}]]\n");
        } else {
            text += &format!("[{name}]\n");
        }
        for key in section.keys() {
            text += &format!("\n{}", comment(key.doc));
            text += &format!("#{} = {}\n", key.name, key.preset.sample());
        }
    }
    text
}

const INTRODUCTION: &str = "\
# This is the configuration of nattrail. It has every key as a comment with its default: remove the # from a key to change
# it. For a key of a collector or syslog target, also remove the # from its section; copy the section for more of them.
#
# A variable of the environment overrides a key, such as NATTRAIL_CAPTURE_LOG or NATTRAIL_COLLECTOR_0_ADDRESS: collectors
# and syslog targets are counted from 0, and commas separate the values of a list. Run \"nattrail check\" after a change.
";

fn comment(text: &str) -> String {
    let mut comment = String::new();
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > 118 {
            comment += &format!("{line}\n");
            line = String::from("#");
        }
        line += &format!(" {word}");
    }
    format!("{comment}{line}\n")
}

#[test]
fn the_sample_shows_every_key_with_its_default() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/nattrail.toml");
    if std::env::var_os("NATTRAIL_WRITE").is_some() {
        std::fs::write(file, sample()).unwrap();
    }
    let found = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        found == sample(),
        "conf/nattrail.toml: expected this text, which follows from the table of keys:\n{}",
        sample()
    );
}

#[test]
fn the_sample_is_the_default_configuration() {
    assert_eq!(load(&sample()), Config::default());
}

#[test]
fn the_sample_with_every_key_taken_out_of_its_comment_keeps_the_defaults() {
    let text: Vec<_> = sample()
        .lines()
        .map(|line| {
            // Keys and sections begin right after the `#`, sentences after a space.
            let setting = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
            setting.unwrap_or(line).to_owned()
        })
        .collect();
    let config = load(&text.join("\n"));
    assert_eq!(config.capture, Config::default().capture);
    assert_eq!(config.pending, Config::default().pending);
    assert_eq!(config.control, Config::default().control);
    assert_eq!(config.metrics, Config::default().metrics);
    let bare = load("[[collector]]\naddress = \"192.0.2.10\"\n[[syslog]]\ntarget = \"local\"");
    assert_eq!(config.log, Config::default().log);
    assert_eq!(config.collectors, bare.collectors);
    assert_eq!(config.syslog, bare.syslog);
}

fn load(text: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nattrail.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), std::iter::empty())
        .unwrap()
        .config
}
