//! `nattrail who` as a user runs it: an archive directory, the forms of the answer, and the exit statuses.

#![allow(clippy::unwrap_used)]

#[path = "support/answer.rs"]
mod answer;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nattrail::archive::row::Millis;
use nattrail::archive::spool::{Place, Spool};
use nattrail::session::{Gap, GapCause, Protocol};
use nattrail::time::Wall;
use serde_json::Value;
use tempfile::TempDir;

use self::answer::{row, status, stderr, stdout};

/// 2026-11-20T14:00:00Z.
const HOUR: u64 = 1_795_183_200_000;

const MINUTE: u64 = 60_000;

/// A copy of a gateway's archive: the hour from 14:00 on, with a gap from 14:50 to 14:51.
struct Archive(TempDir);

impl Archive {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("copy");
        let mut spool = Spool::open(&root, "gw1", Millis::new(HOUR)).unwrap();
        let mut push = |subscriber: &str, port: u16, protocol, from: u64, to: u64| {
            spool.push(&row(subscriber, port, protocol, HOUR + from, HOUR + to));
        };
        push("10.1.2.3", 50520, Protocol::UDP, 29 * MINUTE, 31 * MINUTE);
        push("10.1.2.4", 50520, Protocol::TCP, 20 * MINUTE, 40 * MINUTE);
        push("10.1.2.5", 50521, Protocol::UDP, 20 * MINUTE, 40 * MINUTE);
        spool.push_gap(&Gap {
            cause: GapCause::Overflow,
            from: Wall::from_millis(HOUR + 50 * MINUTE),
            to: Wall::from_millis(HOUR + 51 * MINUTE),
            lost: Some(12),
        });
        spool.commit(Place { run: 1, next: 1 }).unwrap();
        spool.seal(Millis::new(HOUR + 60 * MINUTE)).unwrap();
        drop(spool);
        fs::remove_dir_all(root.join("spool")).unwrap();
        // That of the host, where an archiver takes lookups.
        fs::create_dir_all(directory.path().join("own/inbox")).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn who(&self, arguments: &[&str]) -> Command {
        self.who_with("", arguments)
    }

    /// `keys` are more lines of the section `[archive]`.
    fn who_with(&self, keys: &str, arguments: &[&str]) -> Command {
        let own = self.path("own");
        let config = self.write(
            "n.toml",
            &format!(
                "[pending]\ndatabase = \"/nonexistent/pending.db\"\n[archive]\ndirectory = \"{}\"\n{keys}",
                own.display()
            ),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_nattrail"));
        command
            .args(["who", "-c", &config, "--archive"])
            .arg(self.path("copy"));
        command.args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NATTRAIL_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.who(arguments).output().unwrap()
    }
}

const AT: [&str; 2] = ["--at", "2026-11-20 14:30:00"];

fn at<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&AT[..], rest].concat()
}

#[test]
fn one_subscriber_is_status_0_with_a_sentence_and_a_table() {
    let archive = Archive::new();
    let output = archive.ask(&at(&["203.0.113.9:50520", "--proto", "udp"]));
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "\
Who used 203.0.113.9:50520 by udp at 2026-11-20 14:30:00 UTC (±1 s)?
The subscriber 10.1.2.3 behind gateway gw1 used 203.0.113.9:50520 at 2026-11-20 14:30:00 UTC (±1 s), in one session.
Note: The time was given without a zone and was taken as UTC.

GATEWAY  PROTO  PRE-NAT SOURCE  POST-NAT SOURCE    POST-NAT DEST     START (UTC)              END (UTC)                OUT/IN OCTETS  CERTAINTY
gw1      udp    10.1.2.3:40356  203.0.113.9:50520  198.51.100.7:443  2026-11-20 14:29:00.000  2026-11-20 14:31:00.000  274/180
"
    );
}

#[test]
fn several_are_status_2_and_the_answer_says_what_would_decide() {
    let archive = Archive::new();
    let output = archive.ask(&at(&["203.0.113.9:50520"]));
    assert_eq!(status(&output), 2);
    let text = stdout(&output);
    assert!(
        text.contains("Ambiguous: 2 different parties used 203.0.113.9:50520"),
        "{text}"
    );
    assert!(
        text.contains("One of these would decide: the protocol."),
        "{text}"
    );
    assert!(text.contains("Note: The protocol is missing."), "{text}");
    let output = archive.ask(&at(&["203.0.113.9", "--proto", "udp"]));
    assert_eq!(status(&output), 2);
    let text = stdout(&output);
    assert!(
        text.contains("One of these would decide: the source port."),
        "{text}"
    );
    assert!(text.contains("Note: The source port is missing."), "{text}");
}

#[test]
fn none_is_status_3_where_records_may_be_missing_and_says_which() {
    let archive = Archive::new();
    let ask = |time: &str| {
        let output = archive.ask(&["203.0.113.9:1", "--at", time]);
        assert_eq!(status(&output), 3);
        stdout(&output)
    };
    let lines = [
        (
            "2026-11-20 14:50:30",
            "gateway gw1: the kernel's queue was full, from 2026-11-20 14:50:00 UTC to 2026-11-20 14:51:00 UTC; 12 events lost",
        ),
        (
            "2026-11-20 14:30:00",
            "gateway gw1: sessions that were still open at 2026-11-20 15:00:00 UTC are not in this copy",
        ),
        (
            "2026-11-20 13:00:00",
            "gateway gw1: no record from 2026-11-20 12:59:59 UTC to 2026-11-20 14:00:00 UTC is here",
        ),
        (
            "2026-11-20 16:00:00",
            "no record of that time or later was found",
        ),
        (
            "2199-01-01 00:00:00",
            "had not come when the question was asked",
        ),
    ];
    for (time, expected) in lines {
        let text = ask(time);
        assert!(
            text.contains("Not known: no such session is recorded"),
            "{text}"
        );
        assert!(
            text.contains("May be missing: ") && text.contains(expected),
            "{text}"
        );
    }
}

#[test]
fn a_subscribers_address_is_answered_with_a_hint() {
    let archive = Archive::new();
    let text = stdout(&archive.ask(&at(&["10.1.2.3:40356"])));
    assert!(
        text.contains(
            "10.1.2.3 is not a public address but one of a subscriber: --subscriber 10.1.2.3"
        ),
        "{text}"
    );
}

#[test]
fn reverse_questions_list_sessions() {
    let archive = Archive::new();
    let interval = ["--from", "2026-11-20", "--until", "2026-11-20", "--csv"];
    let count = |question: &[&str]| {
        let output = archive.ask(&[question, &interval].concat());
        (status(&output), stdout(&output).lines().count() - 1)
    };
    assert_eq!(count(&["--subscriber", "10.1.2.3"]), (0, 1));
    assert_eq!(count(&["--subscriber", "10.1.2.0/24"]), (0, 3));
    assert_eq!(count(&["--server", "198.51.100.7:443"]), (0, 3));
    assert_eq!(
        count(&["--server", "198.51.100.7", "--proto", "tcp"]),
        (0, 1)
    );
    assert_eq!(count(&["--server", "198.51.100.7:80"]), (3, 1));
}

#[test]
fn json_has_the_names_of_the_copies() {
    let archive = Archive::new();
    let output = archive.ask(&at(&["203.0.113.9:50520", "--proto", "udp", "--json"]));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["verdict"], "one");
    let session = &answer["sessions"][0];
    for (name, value) in [
        ("pre_src", "10.1.2.3".into()),
        ("pre_sport", 40356.into()),
        ("post_src", "203.0.113.9".into()),
        ("post_sport", 50520.into()),
        ("post_dst", "198.51.100.7".into()),
        ("proto", "udp".into()),
        ("start", "2026-11-20T14:29:00.000Z".into()),
        ("end", "2026-11-20T14:31:00.000Z".into()),
        ("orig_octets", 274.into()),
        ("nat", "snat".into()),
        ("gateway", "gw1".into()),
        ("open", false.into()),
        ("fit", "exact".into()),
    ] {
        let value: Value = value;
        assert_eq!(session[name], value, "{name}: {session}");
    }
}

#[test]
fn csv_has_a_value_for_each_column() {
    let archive = Archive::new();
    let list = archive.write("list.csv", "10.1.2.3,,,\"Doe,\u{1b} Jane\"\n");
    let output = archive.ask(&at(&["203.0.113.9:50520", "--csv", "--subscribers", &list]));
    assert_eq!(
        stdout(&output),
        "line,verdict,rank,gateway,role,fit,start,end,open,nat,proto,pre_src,pre_sport,pre_dst,pre_dport,post_src,post_sport,\
         post_dst,post_dport,orig_packets,orig_octets,reply_packets,reply_octets,mark,zone,inferred,subscriber\n\
         ,several,1,gw1,subscriber,exact,2026-11-20T14:29:00.000Z,2026-11-20T14:31:00.000Z,no,snat,udp,10.1.2.3,40356,\
         198.51.100.7,443,203.0.113.9,50520,198.51.100.7,443,3,274,3,180,0x0,0,no,\"Doe,? Jane\"\n\
         ,several,2,gw1,subscriber,exact,2026-11-20T14:20:00.000Z,2026-11-20T14:40:00.000Z,no,snat,tcp,10.1.2.4,40356,\
         198.51.100.7,443,203.0.113.9,50520,198.51.100.7,443,3,274,3,180,0x0,0,no,\n"
    );
    let none = stdout(&archive.ask(&at(&["203.0.113.9:1", "--csv"])));
    let columns = |line: &str| line.matches(',').count();
    let lines: Vec<_> = none.lines().collect();
    assert_eq!(lines[1].split(',').nth(1), Some("none-gap"));
    assert_eq!(columns(lines[0]), columns(lines[1]));
}

#[test]
fn a_batch_answers_what_can_be_read_and_names_the_rest() {
    let archive = Archive::new();
    let text = "203.0.113.9:50521 2026-11-20 14:30:00\nnothing\n203.0.113.9:50520 udp 2026-11-20 14:30:00\n";
    let file = archive.write("batch.txt", text);
    let output = archive.ask(&["--batch", &file]);
    assert_eq!(status(&output), 65);
    let (out, err) = (stdout(&output), stderr(&output));
    assert!(
        out.contains("Request of line 1\n") && out.contains("Request of line 3\n"),
        "{out}"
    );
    assert!(
        out.contains("The subscriber 10.1.2.5") && out.contains("The subscriber 10.1.2.3"),
        "{out}"
    );
    assert!(
        err.starts_with("error: line 2: expected an address and a time"),
        "{err}"
    );
    let json = stdout(&archive.ask(&["--batch", &file, "--json"]));
    let lines: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let brief = |it: &Value| (it["line"].as_u64().unwrap(), it["error"].is_string());
    let brief: Vec<_> = lines.iter().map(brief).collect();
    assert_eq!(brief, [(1, false), (2, true), (3, false)]);
    let good = archive.write(
        "good.txt",
        "203.0.113.9:50521 2026-11-20 14:30:00\n203.0.113.9:1 2026-11-20 14:30:00\n",
    );
    assert_eq!(status(&archive.ask(&["--batch", &good])), 3);
    let output = archive.ask(&["--batch", "-"]);
    assert_eq!(status(&output), 65);
    assert!(stderr(&output).contains("\"-\": expected requests, found none"));
}

#[test]
fn the_page_is_self_contained_and_escapes_what_it_is_given() {
    let archive = Archive::new();
    let page = archive.path("answer.html");
    let list = archive.write("list.csv", "10.1.2.3,,,<b>Jane & John</b>\n");
    let arguments = [
        "203.0.113.9:50520",
        "--proto",
        "udp",
        "--case",
        "<script>4711\"",
        "--reason",
        "order & reason",
        "--html",
        page.to_str().unwrap(),
        "--subscribers",
        &list,
    ];
    assert_eq!(status(&archive.ask(&at(&arguments))), 0);
    let html = fs::read_to_string(&page).unwrap();
    for expected in [
        "<title>Address translation record, case &lt;script&gt;4711&quot;</title>",
        "<dt>Case</dt><dd>&lt;script&gt;4711&quot;</dd>",
        "<dt>Reason</dt><dd>order &amp; reason</dd>",
        "<p class=\"verdict one\">The subscriber 10.1.2.3 behind gateway gw1 used 203.0.113.9:50520",
        "<p>Subscriber: &lt;b&gt;Jane &amp; John&lt;/b&gt;</p>",
        "<dt>Post-NAT source</dt><dd>203.0.113.9:50520</dd>",
        "<h2>Proof</h2>",
    ] {
        assert!(html.contains(expected), "{expected}\n{html}");
    }
    for outside in [
        "<script", "http:", "https:", "src=", "href=", "url(", "@import", "<b>",
    ] {
        assert!(!html.contains(outside), "{outside}");
    }
    let mode = fs::metadata(&page).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

#[test]
fn wrong_command_lines_say_what_is_expected() {
    let archive = Archive::new();
    let cases: [(&[&str], &str); 9] = [
        (&[], "required"),
        (&["203.0.113.9:50520"], "--at"),
        (
            &["203.0.113.9:x", "--at", "@1"],
            "expected an address with or without a port",
        ),
        (
            &["203.0.113.9:1", "--at", "soon"],
            "expected a time such as",
        ),
        (
            &["203.0.113.9:1", "--at", "2026-11-20 14:30:00 CET"],
            "abbreviations are ambiguous",
        ),
        (
            &["203.0.113.9:1", "--at", "@1", "--skew", "2"],
            "expected a duration",
        ),
        (
            &["203.0.113.9:1", "--from", "@2", "--until", "@1"],
            "expected a time after that of --from",
        ),
        (
            &["--subscriber", "10.1.2.3/8", "--at", "@1"],
            "no bits set beyond the prefix",
        ),
        (&["--batch", "x", "--at", "@1"], "cannot be used with"),
    ];
    for (arguments, expected) in cases {
        let output = archive.ask(arguments);
        assert_eq!(status(&output), 64, "{arguments:?}");
        assert!(
            stderr(&output).contains(expected),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let archive = Archive::new();
    let wrong = archive.write("list.csv", "10.1.2.3\n");
    let missing = archive.path("missing").display().to_string();
    let cases: [(&[&str], i32, &str); 4] = [
        (
            &["--subscribers", &wrong],
            65,
            "line 1: expected an address or prefix, from, until",
        ),
        (&["--subscribers", &missing], 71, "cannot be read"),
        (&["--html", "/nonexistent/a.html"], 71, "cannot be written"),
        (
            &["--archive", &missing],
            69,
            "expected a directory, found none",
        ),
    ];
    for (arguments, expected, message) in cases {
        let output = archive.ask(&at(&[&["203.0.113.9:50520"], arguments].concat()));
        assert_eq!(status(&output), expected, "{arguments:?}");
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}

/// The only file of sessions.
fn sealed(archive: &Archive) -> PathBuf {
    let mut path = archive.path("copy/sessions");
    while path.is_dir() {
        path = fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
    }
    path
}

/// Expects that the answer is not certain, because of this file.
fn assert_may_be_missing(archive: &Archive, file: &Path, reason: &str) {
    let output = archive.ask(&at(&["203.0.113.9:50520", "--proto", "udp"]));
    let text = stdout(&output);
    let start = format!("May be missing: \"{}\" ", file.display());
    let mut lines = text.lines().filter_map(|it| it.strip_prefix(&start));
    assert!(lines.any(|it| it.contains(reason)), "{reason}: {text}");
}

#[test]
fn a_file_of_the_archive_that_is_cut_short_is_named_and_leaves_no_certainty() {
    let archive = Archive::new();
    let file = sealed(&archive);
    let octets = fs::read(&file).unwrap();
    for length in [
        0,
        4,
        11,
        octets.len() / 2,
        octets.len() - 9,
        octets.len() - 1,
    ] {
        fs::write(&file, &octets[..length]).unwrap();
        assert_may_be_missing(&archive, &file, "is damaged: ");
        let output = archive.ask(&at(&["203.0.113.9:50520", "--proto", "udp"]));
        assert_eq!(status(&output), 3);
    }
}

#[test]
fn a_file_of_another_program_is_named_and_the_rest_is_answered() {
    let archive = Archive::new();
    let file = sealed(&archive);
    let text = file.with_file_name("gw9-20261120T140000Z-20261120T150000Z-1-1.parquet");
    fs::write(&text, "no Parquet at all\n").unwrap();
    // Names that the archive does not give are none of its files.
    for name in [
        "sessions/notes.txt",
        "notes.txt",
        "other/x.parquet",
        "sessions/x.parquet",
    ] {
        let path = archive.path("copy").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "no Parquet at all\n").unwrap();
    }
    let reason = "is not a file of this archive: it is not Parquet; its sessions are left out: move it out of the archive";
    assert_may_be_missing(&archive, &text, reason);
    let answer = stdout(&archive.ask(&at(&["203.0.113.9:50520", "--proto", "udp"])));
    assert!(answer.contains("10.1.2.3:40356"), "{answer}");
    assert_eq!(answer.matches("May be missing: ").count(), 1, "{answer}");
}

#[test]
fn an_empty_archive_knows_nothing_and_says_what_to_do() {
    let archive = Archive::new();
    fs::remove_dir_all(archive.path("copy")).unwrap();
    fs::create_dir(archive.path("copy")).unwrap();
    let output = archive.ask(&at(&["203.0.113.9:50520"]));
    assert_eq!(status(&output), 3);
    let text = stdout(&output);
    let expected = "May be missing: no record of that time or later was found: name the directory of an archive that has that time";
    assert!(text.contains(expected), "{text}");
}

impl Archive {
    /// The lookups in the inbox of the host's own archive.
    fn noted(&self) -> Vec<Value> {
        let entries = fs::read_dir(self.path("own/inbox")).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let read = paths.into_iter().map(|path| fs::read(path).unwrap());
        read.map(|text| serde_json::from_slice(&text).unwrap())
            .collect()
    }
}

#[test]
fn a_lookup_is_in_the_access_log_with_case_reason_question_and_number_of_answers() {
    let archive = Archive::new();
    let asked = at(&["203.0.113.9:50520", "--case", "4711", "--reason", "abuse"]);
    assert_eq!(status(&archive.ask(&asked)), 2);
    let noted = archive.noted();
    assert_eq!(noted.len(), 1);
    assert_eq!(
        (&noted[0]["act"], &noted[0]["case"], &noted[0]["reason"]),
        (&"lookup".into(), &"4711".into(), &"abuse".into())
    );
    let lookup = &noted[0]["lookups"][0];
    assert_eq!(lookup["question"]["address"], "203.0.113.9");
    assert_eq!(lookup["question"]["port"], 50520);
    assert_eq!(
        (&lookup["verdict"], &lookup["answers"]),
        (&"several".into(), &2.into())
    );
}

#[test]
fn a_batch_is_in_the_access_log_with_every_question() {
    let archive = Archive::new();
    let lines = "203.0.113.9:50521 2026-11-20T14:30:00Z\n".repeat(600);
    let batch = archive.write("batch", &lines);
    let output = archive.ask(&["--batch", &batch, "--csv"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 601);
    let lookups = archive.noted().into_iter();
    let mut numbers: Vec<_> = lookups
        .map(|it| it["lookups"].as_array().unwrap().len())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [88, 256, 256]);
}

#[test]
fn an_answer_that_cannot_be_written_down_is_not_given() {
    let archive = Archive::new();
    // A link to a place in which nobody can make a file, root included.
    fs::remove_dir(archive.path("own/inbox")).unwrap();
    std::os::unix::fs::symlink("/sys", archive.path("own/inbox")).unwrap();
    let output = archive.ask(&at(&["203.0.113.9:50521"]));
    assert!(stdout(&output).is_empty(), "{}", stdout(&output));
    assert!(stderr(&output).contains("inbox"), "{}", stderr(&output));
    assert_ne!(status(&output), 0);
}

#[test]
fn a_case_is_required_where_the_configuration_says_so() {
    let archive = Archive::new();
    let ask = |rest: &[&str]| {
        let asked = at(&[&["203.0.113.9:50521"], rest].concat());
        archive
            .who_with("require-case = true\n", &asked)
            .output()
            .unwrap()
    };
    let refused = ask(&[]);
    assert_eq!(status(&refused), 64);
    assert!(stderr(&refused).contains("expected --case"));
    assert!(stdout(&refused).is_empty() && archive.noted().is_empty());
    assert_eq!(status(&ask(&["--case", " "])), 64);
    assert_eq!(status(&ask(&["--case", "4711"])), 0);
    assert_eq!(archive.noted().len(), 1);
}
