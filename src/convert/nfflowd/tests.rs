//! Files of nfflowd, and the result of each part: a key, or a note with its line.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::testing::{load, loaded};
use super::*;
use crate::config::{Config, Facility, LogScope, Severity, Target, Version};

fn converted(text: &str) -> (Config, Vec<String>) {
    loaded(&convert(text, "nfflowd.conf").unwrap())
}

const SENDER: &str = "<flow_send>\n args 192.0.2.1\n args 198.51.100.9\n args 9995\n</flow_send>\n";

#[test]
fn the_smallest_file_gives_what_nfflowd_does_with_it() {
    let (config, notes) = converted(SENDER);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(config.capture.log, LogScope::Nat);
    assert_eq!(config.pending.ttl.as_secs(), DEFAULT_TTL);
    let [collector] = config.collectors.as_slice() else {
        panic!("{:?}", config.collectors);
    };
    assert_eq!(collector.address.to_string(), "198.51.100.9:9995");
    assert_eq!(collector.version, Version::NetflowV5);
    assert_eq!(
        collector.source_address.unwrap().ip().to_string(),
        "192.0.2.1"
    );
    assert!(collector.triplet && !collector.events && collector.post_nat_counters);
    let [copy] = config.syslog.as_slice() else {
        panic!("{:?}", config.syslog);
    };
    let path = "/dev/log".into();
    assert_eq!(copy.target, Target::Local { path });
    assert_eq!(copy.format, crate::config::Format::Csv);
    assert_eq!(copy.facility, Facility(22 << 3));
    assert_eq!(copy.severity, Severity::Informational);
    assert_eq!(copy.app_name, "nfflowd");
    assert_eq!(copy.exporter_address.to_string(), "192.0.2.1");
}

#[test]
fn a_sender_of_0_lets_the_system_choose() {
    for any in ["0", "0.0.0.0"] {
        let text = SENDER.replace("192.0.2.1", any);
        assert_eq!(
            converted(&text).0.collectors[0].source_address,
            None,
            "{any}"
        );
    }
}

#[test]
fn ttl_copies_and_selection_are_taken_over() {
    let text = format!(
        "{SENDER}\
<ct2ft>
    ttl = 172800
</ct2ft>
<conntrack>
    format -E -e NEW,DESTROY -o timestamp -p tcp --src=10.0.0.0/8 -m 7 -b 8388608
</conntrack>
<ptee>
    <conf>
        dispatchers screen
        dispatchers remote
        dispatchers syslog
        dispatchers book
        <syslog>
            facility local3
            ident    gate-7
        </syslog>
        <remote>
            class     Log::Dispatch::Syslog
            min_level info
            facility  daemon
            <socket>
                type udp
                host 198.51.100.8
                port 5140
            </socket>
        </remote>
        <book>
            class     Log::Dispatch::File
            min_level notice
            filename  /var/log/nat flows.csv
            mode      append
        </book>
    </conf>
</ptee>
"
    );
    let (config, notes) = converted(&text);
    let [format, file] = notes.as_slice() else {
        panic!("{notes:#?}");
    };
    assert_eq!(
        format,
        "line 10: conntrack.format: nattrail starts no other programs; its selection is in [capture]"
    );
    assert!(
        file.starts_with("line 17: ptee.conf.book.filename: the unit lets the service write"),
        "{file}"
    );
    assert_eq!(config.pending.ttl.as_secs(), 172_800);
    assert_eq!(config.capture.log, LogScope::All);
    assert_eq!(config.capture.protocols.len(), 1);
    assert_eq!(config.capture.source[0].length, 8);
    assert_eq!(config.capture.mark.unwrap().value, 7);
    assert_eq!(config.capture.receive_buffer, 8 << 20);
    let targets: Vec<_> = config.syslog.iter().map(|copy| &copy.target).collect();
    let expected = [
        Target::Udp {
            address: "198.51.100.8:5140".parse().unwrap(),
        },
        Target::Local {
            path: "/dev/log".into(),
        },
        Target::File {
            path: "/var/log/nattrail/nat flows.csv".into(),
        },
    ];
    assert_eq!(targets, expected.iter().collect::<Vec<_>>());
    assert_eq!(config.syslog[1].app_name, "gate-7");
    assert_ne!(config.syslog[1].facility, Facility(22 << 3));
    assert_eq!(config.syslog[1].severity, Severity::Notice);
}

/// The file and the notes of a dispatcher with these lines.
fn file(lines: &str) -> (std::path::PathBuf, Vec<String>) {
    let block = format!("dispatchers screen book\n<book>\n{lines}\nmode append\n</book>\n");
    let (config, notes) = converted(&format!(
        "{SENDER}<ptee>\n<conf>\n{block}</conf>\n</ptee>\n"
    ));
    let [copy] = config.syslog.as_slice() else {
        panic!("{:?}", config.syslog);
    };
    let Target::File { path } = &copy.target else {
        panic!("{copy:?}");
    };
    (path.clone(), notes)
}

#[test]
fn a_file_is_where_the_service_may_write_and_logrotate_finds_it() {
    let cases = [
        ("/srv/flows/nat.csv", "/var/log/nattrail/nat.csv"),
        ("/srv/flows/nat", "/var/log/nattrail/nat.csv"),
        ("/var/log/nattrail/flows", "/var/log/nattrail/flows"),
        ("/var/log/nattrail/../x.csv", "/var/log/nattrail/x.csv"),
    ];
    for (from, to) in cases {
        let (path, notes) = file(&format!("class Log::Dispatch::File\nfilename {from}"));
        assert_eq!(path, std::path::Path::new(to));
        assert_eq!(notes.len(), usize::from(from != to), "{notes:#?}");
    }
}

#[test]
fn a_file_that_rotates_comes_with_rules_for_logrotate() {
    let rotate = "class Log::Dispatch::FileRotate\nfilename /var/log/nattrail/nat.csv\n";
    let cases = [
        ("", "size 10485760", "rotate 1"),
        ("size 5000\nmax 7", "size 5000", "rotate 7"),
        ("DatePattern yyyy-MM-dd-HH\nmax 48", "hourly", "rotate 48"),
        ("DatePattern yyyy-MM-dd", "daily", "rotate 1"),
        ("DatePattern yyyy-ww", "weekly", "rotate 1"),
        ("DatePattern yyyy-MM", "monthly", "rotate 1"),
    ];
    for (lines, when, kept) in cases {
        let (_, notes) = file(&format!("{rotate}{lines}"));
        let [note] = notes.as_slice() else {
            panic!("{notes:#?}");
        };
        let expected = format!(
            "\n\"/var/log/nattrail/nat.csv\" {{\n  su nattrail nattrail\n  {when}\n  {kept}\n  dateext\n"
        );
        assert!(note.contains(&expected), "{note}");
        assert!(note.ends_with("  endscript\n}"), "{note}");
    }
    let (_, notes) = file(&rotate.replace("nat.csv", "n*t.csv"));
    assert!(notes[0].ends_with("choose a plainer name"), "{notes:#?}");
    let (_, notes) = file(&format!("{rotate}max many"));
    let notes = notes.join("\n");
    assert!(
        notes.contains("max: expected a whole number, found \"many\": 1 is used"),
        "{notes}"
    );
}

#[test]
fn without_the_syslog_dispatcher_there_is_no_copy() {
    let text = format!("{SENDER}<ptee>\n<conf>\ndispatchers screen\n</conf>\n</ptee>\n");
    assert_eq!(converted(&text).0.syslog, []);
}

#[test]
fn everything_else_is_named_with_its_line() {
    let text = "\
verbose yes
<<include more.conf>>
<flow_send>
    progname /opt/flow-send
    args 192.0.2.1
    args 198.51.100.9
    args 9995
    format -V7 -s %s/%s/%s -x 5
    colour blue
</flow_send>
<flow_import>
    format -z0
    depth 1
</flow_import>
<conntrack>
    progname conntrack
    init_format -L
    format -E -e NEW -n 203.0.113.9 --label x
    args 1
</conntrack>
<ct2ft>
    ttl a week
    <deep>
        a 1
    </deep>
</ct2ft>
<ptee>
    <conf>
        format %m
        dispatchers mail
        dispatchers quiet
        dispatchers syslog
        <mail>
            class Log::Dispatch::Email::MailSend
            to root
        </mail>
        <quiet>
            class Log::Dispatch::Syslog
            min_level error
        </quiet>
        <syslog>
            ident has spaces
            facility local9
            logopt ndelay,pid
            socket tcp
        </syslog>
        <old>
            class Log::Dispatch::Syslog
        </old>
    </conf>
</ptee>
<colour>
    b 2
</colour>
";
    let (_, notes) = converted(text);
    let said = |line: usize, part: &str| {
        let prefix = format!("line {line}: ");
        notes
            .iter()
            .any(|note| note.starts_with(&prefix) && note.contains(part))
    };
    let expected = [
        (1, "verbose: unknown"),
        (2, "include: no equivalent"),
        (4, "flow_send.progname"),
        (8, "flow_send.format: no equivalent"),
        (9, "flow_send.colour: unknown"),
        (12, "flow_import.format"),
        (13, "flow_import.depth: unknown"),
        (16, "conntrack.progname"),
        (17, "conntrack.init_format"),
        (18, "NEW and DESTROY"),
        (18, "-n 203.0.113.9"),
        (18, "--label x"),
        (19, "conntrack.args"),
        (22, "expected seconds, found \"a week\""),
        (24, "ct2ft.deep.a: unknown"),
        (29, "ptee.conf.format"),
        (30, "\"screen\" is missing"),
        (30, "no equivalent of its class"),
        (35, "ptee.conf.mail.to"),
        (
            39,
            "ptee.conf.quiet.min_level: nfflowd logs its lines as notices",
        ),
        (44, "ptee.conf.syslog.logopt"),
        (32, "ptee.conf.syslog.socket: \"tcp\" has no equivalent"),
        (48, "ptee.conf.old.class: not in use"),
        (53, "colour.b: unknown"),
    ];
    for (line, part) in expected {
        assert!(
            said(line, part),
            "line {line}: {part}\n{}",
            notes.join("\n")
        );
    }
}

#[test]
fn a_copy_whose_facility_and_name_are_none_has_the_defaults_and_says_so() {
    let copy =
        "<ptee>\n<conf>\n<syslog>\nident a b\nfacility local9\n</syslog>\n</conf>\n</ptee>\n";
    let (config, notes) = converted(&format!("{SENDER}{copy}"));
    assert_eq!(config.syslog[0].app_name, "nattrail");
    assert_eq!(config.syslog[0].facility, Facility(22 << 3));
    let notes = notes.join("\n");
    assert!(
        notes.contains("line 9: ptee.conf.syslog.ident: expected"),
        "{notes}"
    );
    assert!(
        notes.contains("line 10: ptee.conf.syslog.facility: expected"),
        "{notes}"
    );
}

#[test]
fn a_file_that_names_no_collector_gives_nothing() {
    let cases = [
        ("", "<flow_send>: expected three lines \"args\""),
        (
            "<flow_send>\nargs 1.2.3.4 5.6.7.8 9\n</flow_send>",
            "line 2: <flow_send>: expected three lines",
        ),
        (
            &SENDER.replace("198.51.100.9", "flows.example.net"),
            "line 3: flow_send.args: expected an IP address",
        ),
        (
            &SENDER.replace("9995", "0"),
            "line 3: flow_send.args: expected the address of one host and a port",
        ),
        (
            &SENDER.replace("9995", "99950"),
            "line 3: flow_send.args: expected the address of one host and a port",
        ),
        (
            &SENDER.replace("198.51.100.9", "255.255.255.255"),
            "line 3: flow_send.args: expected the address of one host",
        ),
        (
            &SENDER.replace("198.51.100.9", "2001:db8::1"),
            "line 2: flow_send.args: expected a source and a collector",
        ),
        ("<flow_send>\n", "line 1: <flow_send>: expected its end"),
    ];
    for (text, expected) in cases {
        let message = convert(text, "nfflowd.conf").unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}
#[test]
fn two_dispatchers_with_the_same_lines_for_the_same_place_give_one_copy() {
    let text = |more: &str| {
        format!(
            "{SENDER}<ptee>\n<conf>\ndispatchers screen a b\n<a>\nclass Log::Dispatch::Syslog\n</a>\n\
             <b>\nclass Log::Dispatch::Syslog\n{more}</b>\n</conf>\n</ptee>\n"
        )
    };
    let (config, notes) = converted(&text(""));
    assert_eq!(config.syslog.len(), 1);
    let named = |note: &String| note.contains("same lines to the same place");
    assert!(notes.iter().any(named), "{notes:#?}");
    let (config, _) = converted(&text("facility local3\n"));
    assert_eq!(config.syslog.len(), 2);
}

/// Meaningful lines in any order, with any values.
fn line() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "<flow_send>",
        "</flow_send>",
        "<ct2ft>",
        "</ct2ft>",
        "<ptee>",
        "</ptee>",
        "<conf>",
        "</conf>",
        "<conntrack>",
        "</conntrack>",
        "<syslog>",
        "</syslog>",
        "<socket>",
        "</socket>",
        "args 192.0.2.1",
        "args 9995",
        "dispatchers screen",
        "dispatchers syslog",
        "class Log::Dispatch::File",
        "class Log::Dispatch::Syslog",
        "filename /a//b",
        "filename /a/b/",
        "type udp",
        "host 192.0.2.8",
        "socket inet",
        "ident a\\#\"b",
        "mode >>",
        "x <<E",
        "E",
        "/*",
        "*/",
        "a \\",
    ]);
    let names = prop::sample::select(vec![
        "args",
        "ttl",
        "format",
        "ident",
        "facility",
        "filename",
        "min_level",
        "max_level",
        "socket",
        "dispatchers",
        "class",
        "host",
        "port",
    ]);
    prop_oneof![
        3 => words.prop_map(str::to_owned),
        1 => (names, "\\PC{0,20}").prop_map(|(name, value)| format!("{name} {value}")),
        1 => any::<u64>().prop_map(|ttl| format!("ttl {ttl}")),
        1 => "-[a-z] [0-9./x]{0,12}".prop_map(|flag| format!("format -E {flag}")),
        1 => any::<String>(),
    ]
}

proptest! {
    #[test]
    fn whatever_is_converted_is_loaded(lines in prop::collection::vec(line(), 0..20), wrapped in any::<bool>()) {
        let mut text = lines.join("\n");
        if wrapped {
            // Thus most cases reach a result.
            let settings = lines.iter().filter(|line| !line.trim_start().starts_with(['<', '/']) && !line.contains("<<"));
            let settings: Vec<_> = settings.map(|line| line.replace(['\r', '\n', '\\'], "")).collect();
            let settings = settings.join("\n");
            text = format!(
                "{SENDER}<ct2ft>\n{settings}\n</ct2ft>\n<conntrack>\n{settings}\n</conntrack>\n<ptee>\n<conf>\ndispatchers screen \
                 syslog book\n<syslog>\n{settings}\n</syslog>\n<book>\nclass Log::Dispatch::File\n{settings}\n</book>\n\
                 </conf>\n</ptee>\n"
            );
        }
        if let Ok(conversion) = convert(&text, "a\nb") {
            load(&conversion);
        }
    }
}
