//! Messages about a file that its parser rejects: the line, the expected text, and the text found there.

#![allow(clippy::unwrap_used)]

use super::{load_with, message};

#[test]
fn a_syntax_error_keeps_its_line() {
    let toml = message("[[collector]\nmtu = 1500\n");
    let expected = "n.toml: line 1: unclosed array table, expected `]`; found [[collector]";
    assert_eq!(toml, expected);
    let twice = message("[capture]\nmark = 1\nmark = 2\n");
    assert_eq!(twice, "n.toml: line 3: duplicate key; found mark = 2");
    let json = load_with("n.json", "{\n  \"capture\": }", &[]).unwrap_err();
    assert_eq!(json, "n.json: expected value at line 2 column 14");
    let yaml = load_with("n.yaml", "capture:\n  log: [", &[]).unwrap_err();
    assert!(yaml.contains("line 3 column 1"), "{yaml}");
    let ini = load_with("n.ini", "[capture]\nlog = \"nat", &[]).unwrap_err();
    assert!(ini.starts_with("n.ini: 2:11 "), "{ini}");
}

#[test]
fn a_value_without_quotes_is_told_to_have_them() {
    for line in [
        "ttl = 7d",
        "log = nat # why",
        "address = 192.0.2.1:2055",
        "source = [10.0.0.0/8]",
        "protocols = [tcp, 47]",
    ] {
        let found = message(&format!("[capture]\n{line}\n"));
        let expected = "expected text in quotes, such as \"nat\" or [\"tcp\", \"udp\"]";
        assert_eq!(found, format!("n.toml: line 2: {expected}, found {line}"));
    }
}

#[test]
fn a_line_of_ini_that_is_neither_key_nor_section_is_shown() {
    for (text, found) in [
        (
            "[capture\nlog = nat",
            "line 1: expected key = value or [section], found [capture",
        ),
        (
            "; a\n[capture]\nlog nat",
            "line 3: expected key = value or [section], found log nat",
        ),
        (
            "[capture]\n= nat",
            "line 2: expected key = value or [section], found = nat",
        ),
    ] {
        assert_eq!(
            load_with("n.ini", text, &[]).unwrap_err(),
            format!("n.ini: {found}")
        );
    }
}

#[test]
fn a_section_or_key_that_ini_would_drop_is_refused() {
    let twice = "[collector.a]\naddress = 192.0.2.1\n[collector.a]\nmtu = 1500";
    assert_eq!(
        load_with("n.ini", twice, &[]).unwrap_err(),
        "n.ini: line 3: expected each section and key once, found [collector.a] again"
    );
    assert_eq!(
        load_with("n.ini", "[capture]\nlog=nat\nlog = all", &[]).unwrap_err(),
        "n.ini: line 3: expected each section and key once, found log = all again"
    );
}

#[test]
fn a_key_that_json_would_drop_is_refused() {
    let twice = "{\"collector\": {\"a\": {\"address\": \"192.0.2.1\"},\n\t\"a\": {\"address\": \"192.0.2.2\"}}}";
    let found = load_with("n.json", twice, &[]).unwrap_err();
    assert!(
        found.starts_with("n.json: ") && found.contains("\"a\"): duplicated key in mapping"),
        "{found}"
    );
    // A value that is no YAML is none the worse for it.
    let escaped = "{\"capture\": {\"namespace\": \"/\\ud83d\\ude00\"}}";
    assert!(load_with("n.json", escaped, &[]).is_ok());
}

#[test]
fn a_message_holds_nothing_that_a_terminal_would_obey() {
    let found = message("[capture]\ntable = \"\u{1b}[2J\"\n");
    assert!(!found.contains(char::is_control), "{found:?}");
    let found = load_with("n.toml", "", &[("NATTRAIL_\u{1b}[2J", "")]).unwrap_err();
    assert!(!found.contains(char::is_control), "{found:?}");
}
