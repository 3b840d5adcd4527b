//! What is said about a file that its parser does not take: the line, what was expected, and what stands there.

#![allow(clippy::unwrap_used)]

use super::{load_with, message};

#[test]
fn a_syntax_error_keeps_its_line() {
    let toml = message("[[collector]\nmtu = 1500\n");
    let expected = "n.toml: line 1: unclosed array table, expected `]`; found [[collector]";
    assert_eq!(toml, expected);
    let json = load_with("n.json", "{\n  \"capture\": }", &[]).unwrap_err();
    assert_eq!(json, "n.json: expected value at line 2 column 14");
    let yaml = load_with("n.yaml", "capture:\n  log: [", &[]).unwrap_err();
    assert!(yaml.contains("line 3 column 1"), "{yaml}");
}

#[test]
fn a_value_without_quotes_is_shown_with_them() {
    let cases = [
        ("ttl = 7d", "ttl = \"7d\""),
        ("log = nat # why", "log = \"nat\""),
        ("address = 192.0.2.1:2055", "address = \"192.0.2.1:2055\""),
        ("source = [10.0.0.0/8]", "source = [\"10.0.0.0/8\"]"),
        ("protocols = [tcp, 47]", "protocols = [\"tcp\", 47]"),
    ];
    for (line, quoted) in cases {
        let found = message(&format!("[capture]\n{line}\n"));
        let expected = format!("n.toml: line 2: expected text in quotes, {quoted}, found {line}");
        assert_eq!(found, expected);
    }
}

#[test]
fn a_syntax_error_of_ini_says_what_was_expected() {
    let cases = [
        (
            "[capture\nlog = nat",
            "line 1: expected a ] behind the name of the section, found [capture",
        ),
        (
            "; a\n[capture]\nlog nat",
            "line 3: expected key = value, or a [section], found log nat",
        ),
        (
            "[capture]\n= nat",
            "line 2: expected the name of a key before the =, found = nat",
        ),
        (
            "[capture]\nlog = \"nat",
            "line 2: expected a quote at the end of the value, found log = \"nat",
        ),
    ];
    for (text, expected) in cases {
        let found = load_with("n.ini", text, &[]).unwrap_err();
        assert_eq!(found, format!("n.ini: {expected}"));
    }
}

#[test]
fn a_section_or_key_that_ini_would_drop_is_refused() {
    let twice = "[collector.a]\naddress = 192.0.2.1\n[collector.a]\nmtu = 1500";
    assert_eq!(
        load_with("n.ini", twice, &[]).unwrap_err(),
        "n.ini: line 3: expected each section and key once, found section [collector.a] again"
    );
    assert_eq!(
        load_with("n.ini", "[capture]\nlog=nat\nlog = all", &[]).unwrap_err(),
        "n.ini: line 3: expected each section and key once, found key log of [capture] again"
    );
}
