//! Copies as real receivers take them: rsyslog on a local socket and over UDP, journald through its native protocol.
//!
//! Each receiver runs for one test alone, with its own configuration, sockets and files, and ends with it.
#![allow(clippy::unwrap_used)]

#[path = "support/log.rs"]
mod log;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use nattrail::config::{Facility, Format, Severity, Syslog, Target};
use nattrail::export::output::Output;
use nattrail::metrics::State;
use nattrail::session::{
    Counters, EventKind, NatEvent, Protocol, Provenance, Record, Session, Totals, Tuple, Zone,
};
use nattrail::time::{Now, Uptime, Wall};
use nattrail::wire::syslog::Host;

use log::{BEGIN, Followed};

const POST_SRC: &str = "192.0.2.1";

#[test]
fn rsyslog_takes_text_from_its_local_socket() {
    let Some(rsyslog) = Rsyslog::start("rsyslog_takes_text_from_its_local_socket") else {
        return;
    };
    let mut target = target(rsyslog.local(), Format::Text);
    target.push(&[create(), delete()]);
    let lines = rsyslog.lines(&mut target, 2);
    assert_eq!(
        lines[0],
        "local6.info|nattrail|nattrail[4711]:|-|4711|||\
         | time=2026-03-01T12:00:00.000Z event=create nat=snat proto=tcp pre_src=10.0.0.7 pre_sport=40000 \
         pre_dst=198.51.100.5 pre_dport=443 post_src=192.0.2.1 post_sport=61000 post_dst=198.51.100.5 post_dport=443"
    );
    assert!(lines[1].contains("| time=2026-03-01T12:01:00.000Z event=delete "));
    assert!(lines[1].ends_with("reply_packets=8 reply_octets=64000"));
}

#[test]
fn rsyslog_takes_a_whole_triplet_from_its_local_socket() {
    let Some(rsyslog) = Rsyslog::start("rsyslog_takes_a_whole_triplet_from_its_local_socket")
    else {
        return;
    };
    let mut target = target(rsyslog.local(), Format::Csv);
    target.push(&[create(), delete()]);
    let lines = rsyslog.lines(&mut target, 3);
    let tuples: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| {
            let (_, message) = line.rsplit_once('|').unwrap();
            let fields: Vec<&str> = message.split(',').collect();
            assert_eq!(fields.len(), 18);
            (fields[8], fields[9])
        })
        .collect();
    assert_eq!(
        tuples,
        [
            ("10.0.0.7", "198.51.100.5"),
            (POST_SRC, "198.51.100.5"),
            ("198.51.100.5", POST_SRC)
        ]
    );
}

#[test]
fn rsyslog_parses_the_structured_data_of_a_session_over_udp() {
    let Some(rsyslog) = Rsyslog::start("rsyslog_parses_the_structured_data_of_a_session_over_udp")
    else {
        return;
    };
    let mut target = target(rsyslog.udp(), Format::Rfc5424);
    target.push(&[create(), delete()]);
    let lines = rsyslog.lines(&mut target, 2);
    // Facility and severity, APP-NAME, tag, MSGID, PROCID, three parameters by name, message.
    assert_eq!(
        lines[0],
        "local6.info|nattrail|nattrail[4711]|SADD|4711|10.0.0.7|192.0.2.1|61000|"
    );
    assert_eq!(
        lines[1],
        "local6.info|nattrail|nattrail[4711]|SDEL|4711|10.0.0.7|192.0.2.1|61000|"
    );
}

#[test]
fn rsyslog_takes_json_over_udp_as_the_message() {
    let Some(rsyslog) = Rsyslog::start("rsyslog_takes_json_over_udp_as_the_message") else {
        return;
    };
    let mut target = target(rsyslog.udp(), Format::Json);
    target.push(&[create()]);
    let lines = rsyslog.lines(&mut target, 1);
    let message = lines[0]
        .strip_prefix("local6.info|nattrail|nattrail[4711]|SADD|4711||||")
        .unwrap();
    let object: serde_json::Value = serde_json::from_str(message).unwrap();
    assert_eq!(object["post_sport"], 61000);
}

#[test]
fn rsyslog_that_is_restarted_misses_nothing() {
    let Some(mut rsyslog) = Rsyslog::start("rsyslog_that_is_restarted_misses_nothing") else {
        return;
    };
    let mut target = target(rsyslog.local(), Format::Text);
    target.push(&[create()]);
    rsyslog.lines(&mut target, 1);
    rsyslog.stop();
    target.push(&[(); 5].map(|()| delete()));
    target.drain(now(10_000));
    let waiting = target.metrics();
    assert_eq!((waiting.behind, waiting.state), (5, State::Failing));
    rsyslog.launch();
    let lines = rsyslog.lines(&mut target, 6);
    assert_eq!(lines.len(), 6);
    let metrics = target.metrics();
    assert_eq!((metrics.messages, metrics.lost), (6, 0));
    assert_eq!((metrics.behind, metrics.state), (0, State::Working));
}

#[test]
fn a_line_that_another_user_forges_is_not_in_the_file_of_records() {
    let test = "a_line_that_another_user_forges_is_not_in_the_file_of_records";
    if !rustix::process::geteuid().is_root() {
        return not_run(test, "to be another user needs root");
    }
    // This is the shipped snippet with other paths.
    let shipped = include_str!("../conf/rsyslog.d/20-nattrail.conf");
    let place = |directory: &Path| {
        let [records, socket] = ["records", "socket"].map(|name| directory.join(name));
        for (path, mode) in [(directory, 0o755), (&records, 0o755), (&socket, 0o750)] {
            // The first one already exists.
            let _ = fs::create_dir(path);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let [records, socket] = [records, socket].map(|path| path.display().to_string());
        let placed = shipped.replace("/run/nattrail-rsyslog", &socket);
        placed.replace("/var/log", &records)
    };
    let Some(rsyslog) = Rsyslog::start_with(test, place) else {
        return;
    };
    let own = rsyslog.path("socket/socket");
    let forge = |socket: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "logger"]);
        command.args([
            "--socket-errors=on",
            "-t",
            "nattrail",
            "-p",
            "local6.info",
            "--socket",
        ]);
        command.arg(socket).arg("event=create post_src=192.0.2.66");
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(!forge(&own), "it must not reach the socket");
    assert!(forge(&rsyslog.path("log")), "everybody may log");
    let mut target = target(Target::Local { path: own }, Format::Text);
    let forged = rsyslog.lines_of("records/nattrail-unverified.log", &mut target, 1);
    assert!(forged[0].contains("post_src=192.0.2.66"), "{forged:?}");
    target.push(&[create()]);
    let real = rsyslog.lines_of("records/nattrail.log", &mut target, 1);
    assert!(real[0].contains(" post_src=192.0.2.1 "), "{real:?}");
    assert_eq!(real.len(), 1, "{real:?}");
}

#[test]
fn the_journal_finds_a_session_by_its_fields() {
    let Some(journal) = Journal::start("the_journal_finds_a_session_by_its_fields") else {
        return;
    };
    let mut target = target(journal.target(), Format::Text);
    target.push(&[create(), delete()]);
    let entries = journal.entries(
        &mut target,
        &["-t", "nattrail", "NAT_POST_SRC=192.0.2.1"],
        2,
    );
    let event = &entries[0];
    assert_eq!(event["NAT_EVENT"], "create");
    assert_eq!(event["NAT_PRE_SRC"], "10.0.0.7");
    assert_eq!(event["NAT_POST_SPORT"], "61000");
    assert_eq!(event["PRIORITY"], "6");
    assert_eq!(event["SYSLOG_FACILITY"], "22");
    assert!(
        event["MESSAGE"]
            .as_str()
            .unwrap()
            .starts_with("time=2026-03-01T12:00:00.000Z event=create nat=snat ")
    );
    assert_eq!(entries[1]["NAT_DURATION"], "60.000");
    assert!(journal.query(&["NAT_POST_SRC=192.0.2.2"]).is_empty());
}

fn target(target: Target, format: Format) -> Followed {
    let config = Syslog {
        name: None,
        target,
        format,
        events: true,
        flow: false,
        facility: Facility(22 << 3),
        severity: Severity::Informational,
        app_name: "nattrail".to_owned(),
        exporter_address: POST_SRC.parse().unwrap(),
    };
    let host = Host {
        hostname: "gw.example.net".to_owned(),
        pid: 4711,
    };
    Followed::new(Output::to_copy(&config, &host, BEGIN))
}

fn now(millis: u64) -> Now {
    Now::new(
        Wall::from_millis(1_772_366_460_000 + millis),
        Uptime::from_millis(3_600_000 + millis),
    )
}

fn create() -> Record {
    let start = Wall::from_secs(1_772_366_400);
    Record::Event(event(EventKind::Create, start, None))
}

fn delete() -> Record {
    let totals = Totals {
        original: Counters {
            packets: 10,
            octets: 1200,
        },
        reply: Counters {
            packets: 8,
            octets: 64000,
        },
    };
    Record::Event(event(EventKind::Delete, now(0).wall, Some(totals)))
}

fn event(kind: EventKind, time: Wall, totals: Option<Totals>) -> NatEvent {
    let tuple = |src: &str, src_port, dst: &str, dst_port| Tuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        src_port,
        dst_port,
    };
    NatEvent {
        kind,
        session: Session {
            original: tuple("10.0.0.7", 40000, "198.51.100.5", 443),
            reply: tuple("198.51.100.5", 443, POST_SRC, 61000),
            protocol: Protocol::TCP,
            zone: Zone::default(),
            id: None,
            mark: 0,
        },
        time,
        start: Some(Wall::from_secs(1_772_366_400)),
        totals,
        provenance: Provenance::Kernel,
        end_reason: None,
        in_parts: false,
        first_mark: None,
    }
}

/// Lets the target write and calls `poll` until it has something, for at most twenty seconds.
fn wait_for<T>(target: &mut Followed, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    for step in 0..400 {
        target.drain(now(20_000 + step * 1000));
        if let Some(found) = poll() {
            return Some(found);
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Reports that a test did not run, and fails it where that must not happen.
fn not_run(test: &str, missing: &str) {
    eprintln!("NOT RUN: {test}: {missing}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{test} cannot run: {missing}"
    );
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Rsyslog {
    directory: tempfile::TempDir,
    address: SocketAddr,
    /// The part of its configuration between inputs and rules.
    snippet: String,
    process: Option<Process>,
}

impl Rsyslog {
    const PROGRAM: &str = "/usr/sbin/rsyslogd";

    fn start(test: &str) -> Option<Self> {
        Self::start_with(test, |_| String::new())
    }

    /// Starts it with a snippet that gets the directory of all files.
    fn start_with(test: &str, snippet: impl Fn(&Path) -> String) -> Option<Self> {
        if !Path::new(Self::PROGRAM).exists() {
            not_run(test, "rsyslogd is not installed (package rsyslog)");
            return None;
        }
        // The port is free again for rsyslog, and no other test here uses a port at the same address.
        static HOSTS: AtomicU8 = AtomicU8::new(1);
        let host = Ipv4Addr::new(127, 0, 1, HOSTS.fetch_add(1, Ordering::Relaxed));
        let socket = UdpSocket::bind((host, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let directory = tempfile::tempdir().unwrap();
        let mut rsyslog = Self {
            snippet: snippet(directory.path()),
            directory,
            address,
            process: None,
        };
        rsyslog.launch();
        Some(rsyslog)
    }

    fn launch(&mut self) {
        let path = |name: &str| self.path(name).display().to_string();
        let config = format!(
            r#"global(workDirectory="{}")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="mmpstrucdata")
input(type="imuxsock" Socket="{}" CreatePath="off")
input(type="imudp" address="{}" port="{}")
{}
template(name="all" type="string" string="%syslogfacility-text%.%syslogseverity-text%|%programname%|%syslogtag%|%msgid%|%procid%|%$!rfc5424-sd!nsess!isaddr%|%$!rfc5424-sd!nsess!xsaddr%|%$!rfc5424-sd!nsess!xsport%|%msg%\n")
action(type="mmpstrucdata")
:programname, isequal, "nattrail" action(type="omfile" file="{}" template="all")
"#,
            self.directory.path().display(),
            path("log"),
            self.address.ip(),
            self.address.port(),
            self.snippet,
            path("out"),
        );
        fs::write(self.path("conf"), config).unwrap();
        let child = Command::new(Self::PROGRAM)
            .arg("-n")
            .arg("-f")
            .arg(self.path("conf"))
            .arg("-i")
            .arg(self.path("pid"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(Process(child));
        for _ in 0..400 {
            // The bound port shows that rsyslog listens.
            if self.path("log").exists() && UdpSocket::bind(self.address).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("rsyslogd does not listen");
    }

    fn stop(&mut self) {
        self.process = None;
        let _ = fs::remove_file(self.path("log"));
        let _ = fs::remove_file(self.path("pid"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn local(&self) -> Target {
        Target::Local {
            path: self.path("log"),
        }
    }

    fn udp(&self) -> Target {
        Target::Udp {
            address: self.address,
        }
    }

    /// The lines that rsyslog wrote, once there are as many as expected.
    fn lines(&self, target: &mut Followed, expected: usize) -> Vec<String> {
        self.lines_of("out", target, expected)
    }

    fn lines_of(&self, file: &str, target: &mut Followed, expected: usize) -> Vec<String> {
        let out = self.path(file);
        let read = || fs::read_to_string(&out).unwrap_or_default();
        let lines = wait_for(target, || {
            let lines: Vec<String> = read().lines().map(str::to_owned).collect();
            (lines.len() >= expected).then_some(lines)
        });
        lines.unwrap_or_else(|| panic!("{expected} lines expected, found: {}", read()))
    }
}

/// A journald in its own mount namespace, with an empty /run.
struct Journal {
    process: Process,
}

impl Journal {
    const PROGRAM: &str = "/usr/lib/systemd/systemd-journald";

    fn start(test: &str) -> Option<Self> {
        if !Path::new(Self::PROGRAM).exists() {
            not_run(test, "systemd-journald is not installed (package systemd)");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            not_run(test, "a mount namespace for journald needs root");
            return None;
        }
        let script = r#"mount -t tmpfs tmpfs /run
            mkdir -p /run/systemd/journal /run/systemd/journald.conf.d
            printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitBurst=0\n' \
                >/run/systemd/journald.conf.d/test.conf
            exec "$1""#;
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", script])
            .args(["sh", Self::PROGRAM])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self {
            process: Process(child),
        })
    }

    /// A path under journald's own /run, seen from outside its mount namespace.
    fn run(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/{path}", self.process.0.id()))
    }

    fn target(&self) -> Target {
        Target::Journal {
            path: self.run("systemd/journal/socket"),
        }
    }

    fn query(&self, matches: &[&str]) -> Vec<serde_json::Value> {
        let output = Command::new("journalctl")
            .arg("-D")
            .arg(self.run("log/journal"))
            .args(["-o", "json", "--no-pager", "-q"])
            .args(matches)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn entries(
        &self,
        target: &mut Followed,
        matches: &[&str],
        expected: usize,
    ) -> Vec<serde_json::Value> {
        wait_for(target, || {
            let entries = self.query(matches);
            (entries.len() >= expected).then_some(entries)
        })
        .unwrap_or_else(|| panic!("journald has not {expected} entries for {matches:?}"))
    }
}
