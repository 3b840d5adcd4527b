//! Configurations that are loaded from texts, and the messages about the faults in them.

#![allow(clippy::unwrap_used)]

mod monitors;
mod outputs;
mod syntax;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Format as CopyFormat, LogScope, Target, Version};

/// Loads `text` as a file of that name, with variables.
fn load_with(name: &str, text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    fs::write(&file, text).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let prefix = format!("{}/", directory.path().display());
    Config::load(Some(&file), variables)
        .map(|loaded| loaded.config)
        .map_err(|error| error.to_string().replace(&prefix, ""))
}

fn load(text: &str) -> Result<Config, String> {
    load_with("n.toml", text, &[])
}

fn message(text: &str) -> String {
    load(text).unwrap_err()
}

#[test]
fn an_empty_file_is_the_default() {
    for name in ["n.toml", "n.yaml", "n.yml", "n.ini"] {
        assert_eq!(load_with(name, "", &[]).unwrap(), Config::default());
    }
    assert_eq!(load_with("n.json", "{}", &[]).unwrap(), Config::default());
    let yaml = "# nothing but\n# comments\n";
    assert_eq!(load_with("n.yaml", yaml, &[]).unwrap(), Config::default());
}

#[test]
fn without_any_destination_records_go_to_the_standard_output_as_text() {
    let config = Config::default();
    assert!(config.collectors.is_empty());
    assert_eq!(config.syslog.len(), 1);
    assert_eq!(config.syslog[0].target, Target::Stdout);
    assert_eq!(config.syslog[0].format, CopyFormat::Text);
}

#[test]
fn with_a_collector_nothing_goes_to_the_standard_output() {
    let config = load("[[collector]]\naddress = \"192.0.2.1\"").unwrap();
    assert!(config.syslog.is_empty());
}

#[test]
fn the_four_formats_say_the_same() {
    let toml = r#"
        [capture]
        log = "all"
        mark = "0x10/0xff"
        protocols = ["tcp", 47]
        source = ["10.0.0.0/8"]
        reliable = false
        [pending]
        ttl = "2h"
        [collector.a]
        address = "192.0.2.1"
        version = 9
        records = ["events", "triplet"]
        mtu = 1400
        [collector.b]
        address = "[2001:db8::1]:4740"
        [syslog.one]
        target = "file"
        path = "/var/log/nat.csv"
    "#;
    let yaml = "
capture:
  log: all
  mark: 0x10/0xff
  protocols: [tcp, 47]
  source: [10.0.0.0/8]
  reliable: false
pending:
  ttl: 2h
collector:
  - name: a
    address: 192.0.2.1
    version: 9
    records: [events, triplet]
    mtu: 1400
  - name: b
    address: '[2001:db8::1]:4740'
syslog:
  - name: one
    target: file
    path: /var/log/nat.csv
";
    let json = r#"{
        "capture": {"log": "all", "mark": "0x10/0xff", "protocols": ["tcp", 47],
                    "source": ["10.0.0.0/8"], "reliable": false},
        "pending": {"ttl": "2h"},
        "collector": [
            {"name": "a", "address": "192.0.2.1", "version": 9, "records": ["events", "triplet"], "mtu": 1400},
            {"name": "b", "address": "[2001:db8::1]:4740"}],
        "syslog": {"one": {"target": "file", "path": "/var/log/nat.csv"}}
    }"#;
    let ini = "
; a comment
[capture]
log = all
mark = 0x10/0xff
protocols = tcp, 47
source = 10.0.0.0/8
reliable = false
[pending]
ttl = 2h
[collector.b]
address = [2001:db8::1]:4740
[collector.a]
address = 192.0.2.1
version = 9
records = events,triplet
mtu = 1400
[syslog.one]
target = file
path = /var/log/nat.csv
";
    let config = load(toml).unwrap();
    assert_eq!(config.capture.log, LogScope::All);
    assert_eq!(config.pending.ttl, Duration::from_secs(7200));
    assert_eq!(config.collectors[0].version, Version::NetflowV9);
    assert_eq!(config.collectors[0].address.port(), 2055);
    assert_eq!(config.collectors[1].address.port(), 4740);
    assert_eq!(load_with("n.yaml", yaml, &[]).unwrap(), config);
    assert_eq!(load_with("n.json", json, &[]).unwrap(), config);
    assert_eq!(load_with("n.ini", ini, &[]).unwrap(), config);
}

#[test]
fn the_environment_is_on_top() {
    let text = "[capture]\nlog = \"all\"\ntable = \"mine\"\n\
                [[collector]]\naddress = \"192.0.2.1\"\nmtu = 1400";
    let variables = [
        ("NATTRAIL_CONFIG", "/ignored/here"),
        ("NATTRAIL_CAPTURE_LOG", "nat"),
        ("NATTRAIL_CAPTURE_SET_SYSCTLS", "true"),
        ("NATTRAIL_CAPTURE_PROTOCOLS", "tcp,udp"),
        ("NATTRAIL_PENDING_TTL", "1d"),
        ("NATTRAIL_COLLECTOR_0_ADDRESS", "192.0.2.2"),
        ("NATTRAIL_COLLECTOR_7_ADDRESS", "192.0.2.7"),
        ("NATTRAIL_COLLECTOR_7_TEMPLATE_REFRESH_PACKETS", "3"),
        ("NATTRAIL_COLLECTOR_10_ADDRESS", "192.0.2.10"),
        ("NATTRAIL_SYSLOG_0_TARGET", "local"),
        ("PATH", "/bin"),
    ];
    let config = load_with("n.toml", text, &variables).unwrap();
    assert_eq!(config.capture.log, LogScope::Nat);
    assert_eq!(config.capture.table, "mine");
    assert!(config.capture.set_sysctls);
    assert_eq!(config.capture.protocols.len(), 2);
    assert_eq!(config.pending.ttl, Duration::from_secs(86_400));
    let addresses: Vec<_> = config
        .collectors
        .iter()
        .map(|collector| collector.address.to_string())
        .collect();
    assert_eq!(
        addresses,
        ["192.0.2.2:4739", "192.0.2.7:4739", "192.0.2.10:4739"]
    );
    assert_eq!(config.collectors[0].mtu, 1400);
    assert_eq!(config.collectors[1].template_refresh_packets, 3);
    assert!(matches!(config.syslog[0].target, Target::Local { .. }));
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    let variables = [
        ("NATTRAIL_CAPTURE_LGO", "nat"),
        ("NATTRAIL_CAPTURE_LOG", "natt"),
        ("NATTRAIL_COLLECTOR_1_MTU", "9000"),
        ("NATTRAIL_COLLECTOR_1_ADRESS2", "::1"),
        ("NATTRAIL_COLOUR", "red"),
        ("NATTRAIL_PENDING_TTL\u{200b}", "1s"),
    ];
    let expected = "\
NATTRAIL_CAPTURE_LGO: unknown variable, did you mean NATTRAIL_CAPTURE_LOG
NATTRAIL_COLLECTOR_1_ADRESS2: unknown variable, did you mean NATTRAIL_COLLECTOR_1_ADDRESS
NATTRAIL_COLOUR: unknown variable, expected NATTRAIL_, the section, for collector and syslog a number, and the key, \
such as NATTRAIL_CAPTURE_LOG or NATTRAIL_COLLECTOR_0_ADDRESS
NATTRAIL_PENDING_TTL\\u{200b}: unknown variable, did you mean NATTRAIL_PENDING_TTL
NATTRAIL_CAPTURE_LOG: capture.log: expected \"nat\" or \"all\", found \"natt\"
environment: collector[0].address: expected an IP address, with or without a port, such as \"192.0.2.10:2055\" or \
\"[2001:db8::10]:4739\" (names are not looked up), found nothing";
    assert_eq!(load_with("n.toml", "", &variables).unwrap_err(), expected);
}

#[test]
fn the_database_is_in_the_state_directory() {
    let database = |variables: &[(&str, &str)]| {
        let config = load_with("n.toml", "", variables).unwrap();
        config.pending.database.display().to_string()
    };
    assert_eq!(database(&[]), "/var/lib/nattrail/pending.db");
    let directories = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")];
    assert_eq!(database(&directories), "/var/lib/a/pending.db");
}

#[test]
fn the_control_socket_is_in_the_runtime_directory_unless_it_is_switched_off() {
    let socket = |text: &str, variables: &[(&str, &str)]| {
        let config = load_with("n.toml", text, variables).unwrap();
        config.control.socket.map(|path| path.display().to_string())
    };
    let some = |path: &str| Some(path.to_owned());
    assert_eq!(socket("", &[]), some("/run/nattrail/control.sock"));
    let directories = [("RUNTIME_DIRECTORY", "/run/a:/run/b")];
    assert_eq!(socket("", &directories), some("/run/a/control.sock"));
    let named = "[control]\nsocket = \"/run/x.sock\"";
    assert_eq!(socket(named, &directories), some("/run/x.sock"));
    assert_eq!(socket("[control]\nsocket = \"\"", &directories), None);
    assert_eq!(socket("", &[("NATTRAIL_CONTROL_SOCKET", "")]), None);
}

#[test]
fn a_control_socket_has_a_path_that_the_kernel_can_bind() {
    let expected = "expected an absolute path of at most 107 bytes, or \"\" for no socket";
    for path in ["control.sock", &format!("/run/{}", "x".repeat(103))] {
        let text = format!("[control]\nsocket = \"{path}\"");
        let found = message(&text);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn metrics_are_listened_for_nowhere_unless_it_is_said_where() {
    let listen = |text: &str| {
        let config = load_with("n.toml", text, &[]).unwrap();
        config.metrics.listen.map(|address| address.to_string())
    };
    assert_eq!(listen(""), None);
    let found = listen("[metrics]\nlisten = \"::1\"");
    assert_eq!(found.as_deref(), Some("[::1]:9469"));
    let found = listen("[metrics]\nlisten = \"0.0.0.0:80\"");
    assert_eq!(found.as_deref(), Some("0.0.0.0:80"));
    let found = message("[metrics]\nlisten = \"localhost\"");
    assert!(found.contains("expected an IP address"), "{found}");
}

#[test]
fn an_unknown_key_is_named_with_its_nearest() {
    assert_eq!(
        message("[capture]\nlgo = \"nat\""),
        "n.toml: capture.lgo: unknown key, did you mean \"log\""
    );
    assert_eq!(
        message("[capture]\nmtu = 1500"),
        "n.toml: capture.mtu: unknown key, mtu is a key of [collector]"
    );
    assert_eq!(
        message("[pending]\ncolour = 1"),
        "n.toml: pending.colour: unknown key, expected one of database, ttl, flush, max"
    );
}

#[test]
fn an_unknown_section_is_named_with_its_nearest() {
    assert_eq!(
        message("[captur]\nlog = \"nat\""),
        "n.toml: captur: unknown section, did you mean \"capture\""
    );
    assert_eq!(
        message("mark = 16"),
        "n.toml: mark: unknown section, mark is a key of [capture]"
    );
}

#[test]
fn a_wrong_type_is_named() {
    assert_eq!(
        message("capture = 5"),
        "n.toml: capture: expected a table of the keys of [capture], found 5"
    );
    assert_eq!(
        message("[capture]\nreliable = [true]"),
        "n.toml: capture.reliable: expected true or false, found [true]"
    );
    assert_eq!(
        message("[capture]\nreliable = 1"),
        "n.toml: capture.reliable: expected true or false, found 1"
    );
    assert_eq!(
        message("[collector]\naddress = \"192.0.2.1\""),
        "n.toml: collector: expected [[collector]] or [collector.NAME], found [collector]"
    );
}

#[test]
fn a_wrong_value_is_named() {
    assert_eq!(
        message("[capture]\nlog = \"natt\""),
        "n.toml: capture.log: expected \"nat\" or \"all\", found \"natt\""
    );
    assert_eq!(
        message("[pending]\nflush = \"50ms\""),
        "n.toml: pending.flush: expected a duration from 100ms to 1m, found \"50ms\""
    );
    assert_eq!(
        message("[archive]\nkeep = \"12h\""),
        "n.toml: archive.keep: expected a whole number of days, at least one, such as \"365d\", found \"12h\""
    );
    assert_eq!(
        message("[capture]\nsource = [\"10.0.0.0/8\", \"192.168.1.7/24\"]"),
        "n.toml: capture.source: expected no bits set beyond the prefix, \"192.168.1.0/24\", found \
         \"192.168.1.7/24\""
    );
}

#[test]
fn every_mistake_is_named_at_once() {
    let text = "[capture]\nlog = 1\ncolor = 2\n[pending]\nttl = \"x\"\n[[collector]]\nmtu = 1";
    let expected = "\
n.toml: capture.log: expected \"nat\" or \"all\", found 1
n.toml: capture.color: unknown key, expected one of namespace, table, log, mark, zone, protocols, source, destination, \
set-sysctls, receive-buffer, reliable, resync, active-timeout
n.toml: pending.ttl: expected a whole number with its unit (ms, s, m, h or d), such as \"30s\", found \"x\"
n.toml: line 6: collector[0].address: expected an IP address, with or without a port, such as \"192.0.2.10:2055\" or \
\"[2001:db8::10]:4739\" (names are not looked up), found nothing
n.toml: line 6: collector[0].mtu: expected a whole number from 576 to 9216, found 1";
    assert_eq!(message(text), expected);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let load = |path: &str| {
        let loaded = Config::load(Some(Path::new(path)), std::iter::empty());
        loaded.unwrap_err().to_string()
    };
    assert_eq!(
        load("/nonexistent/n.toml"),
        "/nonexistent/n.toml: expected a readable text file, found: No such file or directory (os error 2)"
    );
    assert_eq!(
        load("/nonexistent/n.conf"),
        "/nonexistent/n.conf: expected a readable text file, found: No such file or directory (os error 2)",
        "that there is none goes before how it would have to be named"
    );
    assert_eq!(
        load("/dev/zero"),
        "/dev/zero: expected a readable text file, found: no regular file of at most 1 MiB"
    );
}

#[test]
fn a_file_that_others_can_write_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("n.toml");
    fs::write(&file, "").unwrap();
    let warnings = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Config::load(Some(&file), std::iter::empty()).unwrap();
        let warnings = loaded.warnings.iter();
        warnings.map(Problem::to_string).collect::<Vec<_>>()
    };
    assert!(warnings(0o644).is_empty());
    assert_eq!(
        warnings(0o664),
        [format!(
            "{}: expected a file that only its owner can write, found mode 0664: run chmod go-w on it",
            file.display()
        )]
    );
}

#[test]
fn the_log_has_bounds_that_have_bounds() {
    let log = load("[log]\nsize = \"1TiB\"\nage = \"1s\"").unwrap().log;
    assert_eq!((log.size, log.age), (1 << 40, Duration::from_secs(1)));
    assert_eq!(
        message("[log]\nsize = \"1MiB\""),
        "n.toml: log.size: expected a size from 16MiB to 1TiB, found \"1MiB\""
    );
}

#[test]
fn an_entry_may_have_the_name_of_a_key() {
    let config = load("[syslog.path]\ntarget = \"stdout\"").unwrap();
    assert_eq!(config.syslog[0].target, Target::Stdout);
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,12}",
        Just("true".to_owned()),
        Just("-1.5".to_owned()),
        "\"[ -!#-\\[\\]-~]{0,12}\"",
        Just("\"v5\"".to_owned()),
        Just("\"192.0.2.1:0\"".to_owned()),
        Just("[\"events\", [], {}]".to_owned()),
    ]
}

proptest! {
    #[test]
    fn no_configuration_makes_the_loader_panic(
        lines in prop::collection::vec(
            (0..crate::config::keys::all().count(), any::<bool>(), scalar()), 0..12),
    ) {
        let mut text = String::new();
        for (index, header, value) in lines {
            let key = crate::config::keys::all().nth(index).unwrap();
            if header && key.section.is_list() {
                text += &format!("[[{}]]\n", key.section.name());
            } else if header {
                text += &format!("[{}]\n", key.section.name());
            }
            text += &format!("{} = {value}\n", key.name);
        }
        if let Ok(root) = crate::config::syntax::parse(FileFormat::Toml, &text) {
            let _ = assemble(root, "n.toml", std::iter::empty());
        }
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "[ -~\n]{0,60}", name: String, value: String) {
        for format in [FileFormat::Toml, FileFormat::Yaml, FileFormat::Json, FileFormat::Ini] {
            if let Ok(root) = crate::config::syntax::parse(format, &text) {
                let variable = (format!("NATTRAIL_{name}"), value.clone());
                let _ = assemble(root, "n", std::iter::once(variable));
            }
        }
    }
}

#[test]
fn interim_flow_records_that_no_output_takes_are_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("n.toml");
    let warnings = |outputs: &str| {
        let text = format!("[capture]\nactive-timeout = \"30m\"\n{outputs}");
        fs::write(&file, text).unwrap();
        let loaded = Config::load(Some(&file), std::iter::empty()).unwrap();
        let warnings = loaded.warnings.iter();
        warnings.map(Problem::to_string).collect::<Vec<_>>()
    };
    let expected = "capture.active-timeout: expected a collector or a copy with records \"flow\", found none: nobody gets \
                    the flow records";
    assert_eq!(warnings(""), [format!("{}: {expected}", file.display())]);
    let collector = "[[collector]]\naddress = \"192.0.2.1\"\nrecords = [\"flow\"]\n";
    assert!(warnings(collector).is_empty());
}
