//! `nattrail report` as a user runs it: a copy of an archive, the forms of the report, and the exit statuses.

#![allow(clippy::unwrap_used)]

#[path = "support/answer.rs"]
mod answer;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nattrail::archive::row::{Millis, Row};
use nattrail::archive::spool::{Place, Spool};
use nattrail::session::{Counters, Gap, GapCause, Protocol, Totals};
use nattrail::time::Wall;
use serde_json::Value;
use tempfile::TempDir;

use self::answer::{status, stderr, stdout};

/// 2026-11-20T00:00:00Z.
const DAY: u64 = 1_795_132_800_000;

const HOUR: u64 = 3_600_000;

const MINUTE: u64 = 60_000;

/// A copy of a gateway's archive, of the day and the hours around it, with a gap from 14:50 to 14:51.
struct Archive(TempDir);

impl Archive {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("copy");
        let mut spool = Spool::open(&root, "gw1", Millis::new(DAY - HOUR)).unwrap();
        // By the end, with the minutes of start and end of the day.
        let sessions = [
            (
                "10.1.2.3",
                50520,
                Protocol::UDP,
                DAY - 2 * MINUTE,
                DAY - MINUTE,
            ),
            ("10.1.2.3", 50520, Protocol::UDP, DAY - MINUTE, DAY + MINUTE),
            (
                "10.1.2.4",
                50520,
                Protocol::TCP,
                DAY + 50 * MINUTE,
                DAY + 70 * MINUTE,
            ),
            (
                "10.1.2.3",
                50521,
                Protocol::TCP,
                DAY + 60 * MINUTE,
                DAY + 65 * MINUTE,
            ),
            (
                "10.1.2.4",
                80,
                Protocol::TCP,
                DAY + 60 * MINUTE,
                DAY + 61 * MINUTE,
            ),
            (
                "10.1.2.4",
                50522,
                Protocol::UDP,
                DAY + 20 * HOUR,
                DAY + 24 * HOUR + MINUTE,
            ),
        ];
        for hour in 0..26 {
            let until = DAY + hour * HOUR;
            let ended = |end: u64| (until - HOUR..until).contains(&end);
            for (subscriber, port, protocol, start, end) in sessions {
                if ended(end) {
                    spool.push(&row(subscriber, port, protocol, start, end));
                }
            }
            if hour == 15 {
                for cause in [GapCause::Overflow, GapCause::InsertFailed] {
                    spool.push_gap(&Gap {
                        cause,
                        from: Wall::from_millis(DAY + 14 * HOUR + 50 * MINUTE),
                        to: Wall::from_millis(DAY + 14 * HOUR + 51 * MINUTE),
                        lost: Some(12),
                    });
                }
            }
            spool.commit(Place { run: 1, next: 1 }).unwrap();
            spool.seal(Millis::new(until)).unwrap();
        }
        drop(spool);
        fs::remove_dir_all(root.join("spool")).unwrap();
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

    fn report(&self, arguments: &[&str]) -> Output {
        let config = self.write(
            "n.toml",
            "[pending]\ndatabase = \"/nonexistent/pending.db\"\n[archive]\ndirectory = \"/nonexistent/archive\"\n",
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_nattrail"));
        command.args(["report", "-c", &config, "--archive"]);
        command.arg(self.path("copy"));
        command.args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NATTRAIL_") {
                command.env_remove(name);
            }
        }
        command.output().unwrap()
    }

    fn json(&self) -> Value {
        let output = self.report(&["--day", "2026-11-20", "--json"]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The page, with the names of the operator's list.
    fn page(&self) -> String {
        let list = self.write("list.csv", "10.1.2.4,,,\"<Doe & \"\"Co\"\">\"\n");
        let path = self.path("report.html").display().to_string();
        let output = self.report(&[
            "--day",
            "2026-11-20",
            "--html",
            &path,
            "--subscribers",
            &list,
        ]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        fs::read_to_string(path).unwrap()
    }

    /// The only sealed file of a directory.
    fn file(&self, directory: &str) -> PathBuf {
        let mut files = fs::read_dir(self.path(directory)).unwrap();
        files.next().unwrap().unwrap().path()
    }
}

/// A session with a thousand octets.
fn row(subscriber: &str, port: u16, protocol: Protocol, start: u64, end: u64) -> Row {
    let counters = |octets| Counters { packets: 3, octets };
    Row {
        totals: Some(Totals {
            original: counters(300),
            reply: counters(700),
        }),
        ..answer::row(subscriber, port, protocol, start, end)
    }
}

#[test]
fn json_has_the_sums_of_the_day() {
    let report = Archive::new().json();
    assert_eq!(report["day"], "2026-11-20");
    let sessions = &report["sessions"];
    for (name, expected) in [("alive", 5), ("begun", 4), ("ended", 4), ("octets", 4000)] {
        assert_eq!(sessions[name], expected, "{name}");
    }
    for (minute, begun, open) in [(0, 0, 1), (2, 0, 0), (50, 1, 1), (60, 2, 3), (1439, 0, 1)] {
        assert_eq!(report["minutes"]["begun"][minute], begun, "{minute}");
        assert_eq!(report["minutes"]["open"][minute], open, "{minute}");
    }
    let first = &report["subscribers"]["by_octets"][0];
    assert_eq!(
        (&first["address"], &first["octets"]),
        (&"10.1.2.3".into(), &2000.into())
    );
    assert_eq!(report["protocols"][0]["proto"], "tcp");
    assert_eq!(report["protocols"][0]["sessions"], 3);
    let address = &report["ports"]["addresses"][0];
    assert_eq!(address["address"], "203.0.113.9");
    assert_eq!(
        address["tcp"],
        serde_json::json!({"peak": 2, "minute": 60, "all": 2})
    );
    assert_eq!(
        address["udp"],
        serde_json::json!({"peak": 1, "minute": 0, "all": 2})
    );
    let mut gaps = report["gaps"].as_array().unwrap().iter();
    let gap = gaps.find(|gap| gap["cause"] == "overflow").unwrap();
    assert_eq!(gap["lost"], 12);
    assert_eq!(report["other_gaps"][0]["cause"], "insert-failed");
    assert_eq!(report["archive"]["sealed"], 5);
}

#[test]
fn text_says_the_same_for_people() {
    let archive = Archive::new();
    let output = archive.report(&["--day", "2026-11-20"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    for expected in [
        "5 sessions. Records may be missing.",
        "the kernel's queue was full, from 2026-11-20 14:50:00 UTC to 2026-11-20 14:51:00 UTC; 12 events lost",
        "Note: gateway gw1: all ports of the NAT pool were in use, or packets raced for one",
        "at most 2 at 01:00",
        "gw1      203.0.113.9  5         2 (0.0 %) at 01:00  1 (0.0 %) at 00:00",
        "gw1      10.1.2.3  2         2.0 kB",
        "tcp       3         3.0 kB",
        "records until      the end of the day",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let page = Archive::new().page();
    let mut open = Vec::new();
    let (mut tags, mut plots) = (0, 0);
    for part in page.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap();
        assert!(!text.contains('>'), "{text}");
        let name = tag.split([' ', '/']).next().unwrap();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{part}");
        } else if !tag.ends_with('/') && !["!DOCTYPE", "meta"].contains(&name) {
            open.push(name);
        }
        assert!(
            !["script", "link", "img", "iframe", "a"].contains(&name),
            "{tag}"
        );
        if name == "svg" {
            plots += 1;
            assert!(tag.contains("role=\"img\""), "{tag}");
            assert!(part.ends_with('\n'), "{part}");
        }
        tags += 1;
    }
    assert!(open.is_empty() && tags > 200, "{open:?}");
    // Two of sessions, one each of gaps, ports and protocols, two of subscribers.
    assert_eq!(plots, 7);
    assert_eq!(
        page.matches("<svg ").count(),
        page.matches("role=\"img\">\n<title>").count()
    );
    let namespace = "xmlns=\"http://www.w3.org/2000/svg\"";
    assert_eq!(page.replace(namespace, "").matches("http").count(), 0);
    assert_eq!(
        page.matches("url(").count() + page.matches("@import").count(),
        0
    );
}

#[test]
fn the_page_names_subscribers_and_gaps() {
    let page = Archive::new().page();
    for expected in [
        "<h1>Address translation on 2026-11-20 (UTC)</h1>",
        "&lt;Doe &amp; &quot;Co&quot;&gt;",
        "<title>14:50 to 14:52</title>",
        "gw1 overflow",
        "gw1 insert-failed",
        "12 events lost",
        "64,512 ports from 1024 to 65535",
    ] {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_rest_is_counted() {
    let archive = Archive::new();
    let file = archive.file("copy/sessions/date=2026-11-20/hour=01");
    let octets = fs::read(&file).unwrap();
    fs::write(&file, &octets[..octets.len() - 9]).unwrap();
    let report = archive.json();
    assert_eq!(report["sessions"]["alive"], 2);
    let problem = report["problems"][0].as_str().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        problem.contains(name) && problem.contains("is damaged"),
        "{problem}"
    );
}

#[test]
fn a_file_that_is_in_two_directories_counts_once() {
    let archive = Archive::new();
    let second = archive.path("second");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(archive.path("copy"))
        .arg(&second)
        .status();
    assert!(copied.unwrap().success());
    let second = second.display().to_string();
    let output = archive.report(&["--day", "2026-11-20", "--json", "--archive", &second]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["sessions"], archive.json()["sessions"]);
}

#[test]
fn a_day_without_sessions_has_a_status_of_its_own() {
    let archive = Archive::new();
    let output = archive.report(&["--day", "2026-11-18"]);
    assert_eq!(status(&output), 3, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("No session of that day is known, but records may be missing."),
        "{text}"
    );
    assert!(
        text.contains("gateway gw1: no record from 2026-11-18 00:00:00 UTC"),
        "{text}"
    );
    let path = archive.path("report.html").display().to_string();
    let output = archive.report(&["--day", "2026-11-18", "--html", &path]);
    assert_eq!(status(&output), 3);
    assert!(
        fs::read_to_string(path)
            .unwrap()
            .contains("No session of that day is known")
    );
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let archive = Archive::new();
    let missing = archive.path("missing").display().to_string();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--day", "2199-01-01"], 64, "expected a day up to today ("),
        (
            &["--day", "20.11.2026"],
            64,
            "expected a day such as 2026-11-20",
        ),
        (&["--top", "0"], 64, "1..=4096"),
        (
            &["--archive", &missing],
            69,
            "expected a directory, found none",
        ),
        (&["--html", "/nonexistent/a.html"], 71, "cannot be written"),
        (&["--subscribers", &missing], 71, "cannot be read"),
    ];
    for (arguments, expected, message) in cases {
        let output = archive.report(arguments);
        assert_eq!(status(&output), expected, "{arguments:?}");
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}
