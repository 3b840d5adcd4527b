//! `nattrail tail` and the real daemon: viewers see the records of the copies, within their filters and their speed,
//! and none of them, however slow or hostile, costs the daemon a record.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use support::daemon::{CAPTURE, Daemon, Home, PROGRAM, STDOUT_JSON};
use support::gateway::{CLIENT, CLIENT6, Gateway, MASQUERADE, NEIGHBOUR, SERVER, SERVER6};
use support::lines::Lines;
use support::status::{ask, assert_conserved, number};
use support::traffic::{Tcp, Udp, ping};
use support::{PATIENCE, wait_for};

fn scene() -> Option<(Gateway, Home)> {
    let net = Gateway::new(&[])?;
    net.nft(MASQUERADE);
    let config = format!("{CAPTURE}{STDOUT_JSON}\n[pending]\nflush = \"100ms\"\n");
    Some((net, Home::new(&config)))
}

/// `nattrail tail`, without the influence of the terminal on which the tests run.
fn tail(home: &Home, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("tail").args(arguments);
    command.arg("--config").arg(home.config());
    home.dress(&mut command);
    command.env_remove("NO_COLOR");
    command
}

/// A running `nattrail tail`; killed on drop.
struct Viewer {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Viewer {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        Self {
            stdout: Lines::read(child.stdout.take().unwrap()),
            stderr: Lines::read(child.stderr.take().unwrap()),
            child,
        }
    }

    /// A viewer of text that has begun, as its heading shows.
    fn of_text(home: &Home, arguments: &[&str]) -> Self {
        let viewer = Self::start(tail(home, arguments));
        let _ = viewer.wait_for_lines(1);
        viewer
    }

    fn wait_for_lines(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} lines of a viewer"), || {
            let lines = self.stdout.so_far();
            (lines.len() >= count).then_some(lines)
        })
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends by itself: its status, its output and its messages.
    fn wait(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let status = wait_for("a viewer to end", || self.child.try_wait().unwrap());
        (status.code(), self.stdout.all(), self.stderr.all())
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of the socket that reads on command.
struct Raw {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Raw {
    /// A client that has got its first line.
    fn start(home: &Home, request: &str) -> Self {
        let path = home.runtime().join("control.sock");
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut raw = Self {
            stream,
            read: Vec::new(),
        };
        wait_for("a viewer to begin", || {
            raw.read();
            raw.read.ends_with(b"{\"tail\":\"begin\"}\n").then_some(())
        });
        raw.read.clear();
        raw
    }

    /// Reads everything available.
    fn read(&mut self) {
        let mut room = [0; 64 << 10];
        while let Ok(count @ 1..) = self.stream.read(&mut room) {
            self.read.extend_from_slice(&room[..count]);
        }
    }

    /// The complete lines so far.
    fn lines(&self) -> Vec<Value> {
        let end = self.read.iter().rposition(|byte| *byte == b'\n');
        let complete = &self.read[..end.map_or(0, |end| end + 1)];
        let text = std::str::from_utf8(complete).unwrap();
        text.lines().map(parse).collect()
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// A daemon that has opened its control socket.
fn start(net: &Gateway, home: &Home) -> Daemon {
    let daemon = Daemon::start(&net.gateway, home);
    let _ = daemon.wait_for_message("started");
    daemon
}

/// Sessions of two clients over UDP, TCP, ICMP and IPv6, all of which end: returns the number of records.
fn make_sessions(net: &Gateway) -> usize {
    let (client, server) = (&net.client, &net.server);
    for from in [(CLIENT, 40_000), (CLIENT, 40_001), (NEIGHBOUR, 40_000)] {
        Udp::open(client, from, (SERVER, 53), server, (SERVER, 53)).exchange(1, 1);
    }
    let from = (CLIENT, 40_002);
    Tcp::open(client, from, (SERVER, 443), server, (SERVER, 443)).exchange(1, 1);
    let from = (CLIENT6, 40_003);
    Tcp::open(client, from, (SERVER6, 443), server, (SERVER6, 443)).exchange(1, 1);
    ping(client, CLIENT, SERVER, 4711, 1);
    net.end_connections();
    12
}

/// Makes `sessions` sessions, and ends them.
fn make_many(net: &Gateway, sessions: u16) {
    let socket = net.client.run(|| UdpSocket::bind((CLIENT, 0)).unwrap());
    for port in 10_000..10_000 + sessions {
        // The server refuses them, as the next call shows.
        wait_for("a datagram to go", || {
            socket.send_to(b"x", (SERVER, port)).ok()
        });
    }
    wait_for("the sessions", || {
        let count = net.conntrack(&["-C"]).trim().parse::<u16>().unwrap();
        (count >= sessions).then_some(())
    });
    net.end_connections();
}

/// The records except gaps.
fn events(lines: &[String]) -> Vec<Value> {
    let records = lines.iter().map(|line| parse(line));
    records.filter(|record| record["event"] != "gap").collect()
}

#[test]
fn viewers_see_what_the_copies_have_as_far_as_their_filters_go() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    type Test = fn(&Value) -> bool;
    let filters: [(&[&str], Test); 9] = [
        (&[], |_| true),
        (&["--proto", "tcp,icmp"], |record| record["proto"] != "udp"),
        (&["--src", "10.1.2.4"], |record| {
            record["pre_src"] == "10.1.2.4"
        }),
        (&["--src", "10.1.2.0/24:40000"], |record| {
            record["pre_sport"] == 40_000
        }),
        (&["--src", "[fd00:1:2::3]:40003"], |record| {
            record["pre_sport"] == 40_003
        }),
        (&["--dst", ":443", "--event", "create"], |record| {
            record["pre_dport"] == 443 && record["event"] == "create"
        }),
        (&["--post", "203.0.113.9"], |record| {
            record["post_src"] == "203.0.113.9"
        }),
        (&["--post", "203.0.113.9:4711", "--proto", "1"], |record| {
            record["proto"] == "icmp"
        }),
        (&["--mark", "1"], |_| false),
    ];
    // No more at a time than there are places.
    for some in filters.chunks(5) {
        let before = daemon.printed().len();
        let view = |(arguments, _): &(&[&str], Test)| Viewer::of_text(&home, arguments);
        let viewers: Vec<_> = some.iter().map(view).collect();
        let count = make_sessions(&net);
        let copy = wait_for("the records", || {
            let records = events(&daemon.printed().split_off(before));
            (records.len() == count).then_some(records)
        });
        for ((arguments, wanted), viewer) in some.iter().zip(viewers) {
            let expected: Vec<_> = copy
                .iter()
                .filter(|record| wanted(record))
                .map(row)
                .collect();
            let lines = viewer.wait_for_lines(1 + expected.len());
            assert_eq!(rows(&lines), expected, "{arguments:?}");
        }
    }
    daemon.terminate();
}

/// The first words of a record's line for people.
fn row(record: &Value) -> String {
    let words = ["time", "event", "proto"].map(|name| record[name].as_str().unwrap());
    words.join(" ")
}

/// The same for all lines after the heading.
fn rows(lines: &[String]) -> Vec<String> {
    let words = |line: &String| {
        let words: Vec<_> = line.split_whitespace().take(3).collect();
        words.join(" ")
    };
    lines[1..].iter().map(words).collect()
}

#[test]
fn as_json_it_has_the_lines_of_the_copies() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    let mut viewer = Viewer::start(tail(&home, &["--json", "-n", "20"]));
    wait_for("twenty events after it has begun", || {
        make_sessions(&net);
        viewer.child.try_wait().unwrap()
    });
    let (status, lines, _) = viewer.wait();
    assert_eq!((status, lines.len()), (Some(0), 20));
    let copy = wait_for("the copy", || {
        let copy = daemon.printed();
        copy.contains(&lines[19]).then_some(copy)
    });
    let first = copy.iter().position(|line| *line == lines[0]).unwrap();
    assert_eq!(copy[first..first + 20], lines);
    daemon.terminate();
}

#[test]
fn through_a_pipe_it_is_plain_and_each_value_is_below_its_heading() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    let viewer = Viewer::of_text(&home, &["--proto", "udp", "--src", "10.1.2.4"]);
    make_sessions(&net);
    let lines = viewer.wait_for_lines(3);
    let [heading, create, delete] = lines.as_slice() else {
        panic!("{lines:#?}")
    };
    for (name, value) in [
        ("EVENT", "create"),
        ("PRE-NAT SOURCE", "10.1.2.4:40000"),
        ("PRE-NAT DEST", "203.0.113.7:53"),
        ("POST-NAT SOURCE", "203.0.113.9:"),
        ("POST-NAT DEST", "203.0.113.7:53"),
    ] {
        let at = heading.find(name).unwrap();
        assert!(create[at..].starts_with(value), "{name}: {create}");
    }
    assert!(delete.contains(" orig=1/29 reply=1/29"), "{delete}");
    assert!(!lines.concat().contains('\x1b'), "{lines:#?}");
    daemon.terminate();
}

#[test]
fn on_a_terminal_it_is_coloured_unless_that_is_unwanted() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    let cases: [(&[&str], [&str; 2], bool); 6] = [
        (&[], ["TERM", "xterm"], true),
        (&[], ["NO_COLOR", ""], true),
        (&[], ["NO_COLOR", "1"], false),
        (&[], ["TERM", "dumb"], false),
        (&["--color=always"], ["NO_COLOR", "1"], true),
        (&["--color=never"], ["TERM", "xterm"], false),
    ];
    for (arguments, variable, expected) in cases {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let mut command = tail(&home, arguments);
        command.stdout(terminal);
        command.env(variable[0], variable[1]);
        let mut child = command.spawn().unwrap();
        drop(command);
        let lines = Lines::read(File::from(master));
        let heading = wait_for("the heading", || lines.so_far().into_iter().next());
        assert_eq!(
            heading.contains("\x1b[1m"),
            expected,
            "{arguments:?} {variable:?}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
    daemon.terminate();
}

#[test]
fn it_ends_after_as_many_events_as_wanted() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    let viewer = Viewer::of_text(&home, &["-n", "3"]);
    make_sessions(&net);
    let (status, lines, said) = viewer.wait();
    assert_eq!((status, lines.len()), (Some(0), 4), "{said:#?}");
    assert!(said.is_empty(), "{said:#?}");
    daemon.terminate();
}

#[test]
fn who_does_not_read_is_told_how_many_it_missed_and_costs_nobody_a_record() {
    const SESSIONS: u16 = 10_000;
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    let mut slow = Raw::start(&home, "tail\n");
    let stopped = Viewer::of_text(&home, &[]);
    stopped.signal(Signal::STOP);
    let other = Viewer::of_text(&home, &["--src", "10.1.2.4"]);
    make_many(&net, SESSIONS);
    let count = 2 * usize::from(SESSIONS);
    wait_for("every record", || {
        (daemon.printed().len() >= count).then_some(())
    });
    // The loop goes on, for requests and for viewers.
    let total = count + make_sessions(&net);
    let seen = other.wait_for_lines(3);
    assert!(seen[1].contains("10.1.2.4:40000"), "{seen:#?}");
    // Outputs wait for the commit.
    wait_for("every record", || {
        (daemon.printed().len() >= total).then_some(())
    });
    let metrics = ask(&home);
    assert_conserved(&metrics);
    assert_eq!(number(&metrics, "/gaps/overflow/count"), 0);
    assert!(number(&metrics, "/turns/longest_microseconds") < 2_000_000);

    assert_eq!(events(&daemon.printed()).len(), total);
    let lines = wait_for("the slow viewer to be told", || {
        slow.read();
        let lines = slow.lines();
        (shown(&lines) + missed(&lines) == total as u64).then_some(lines)
    });
    assert!(missed(&lines) > 0);
    assert_eq!(daemon.printed().len(), total, "a viewer's gap is its own");

    stopped.signal(Signal::CONT);
    let line = wait_for("the stopped viewer to be told", || {
        let mut lines = stopped.stdout.so_far().into_iter();
        lines.find(|line| line.starts_with("*** "))
    });
    assert!(
        line.contains(" GAP undelivered: too much for this viewer, "),
        "{line}"
    );
    daemon.terminate();
}

fn shown(lines: &[Value]) -> u64 {
    lines.iter().filter(|line| line["event"] != "gap").count() as u64
}

fn missed(lines: &[Value]) -> u64 {
    let stated = lines.iter().filter(|line| line["cause"] == "undelivered");
    stated.map(|line| line["lost"].as_u64().unwrap()).sum()
}

#[test]
fn hostile_viewers_cost_no_record_and_keep_nobody_from_asking() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    let mut hostile: Vec<Raw> = (0..8).map(|_| Raw::start(&home, "tail\n")).collect();
    for raw in &mut hostile {
        let full = loop {
            if let Err(error) = raw.stream.write(&[b'\n'; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
    make_many(&net, 5_000);
    wait_for("every record", || {
        (daemon.printed().len() >= 10_000).then_some(())
    });
    let metrics = ask(&home);
    assert_conserved(&metrics);
    assert_eq!(number(&metrics, "/gaps/overflow/count"), 0);
    let (status, lines, said) = Viewer::start(tail(&home, &[])).wait();
    assert_eq!((status, lines.len()), (Some(69), 0));
    assert!(said[0].contains("8 others are viewing"), "{said:#?}");

    drop(hostile);
    let viewer = wait_for("a place", || {
        let viewer = Viewer::start(tail(&home, &[]));
        let begun = wait_for("a word of the viewer", || {
            let printed = !viewer.stdout.so_far().is_empty();
            (printed || !viewer.stderr.so_far().is_empty()).then_some(printed)
        });
        begun.then_some(viewer)
    });
    make_sessions(&net);
    let _ = viewer.wait_for_lines(2);
    daemon.terminate();
}

#[test]
fn viewers_that_are_killed_leave_their_places() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    for _ in 0..3 {
        let viewers: Vec<_> = (0..8).map(|_| Viewer::of_text(&home, &[])).collect();
        for viewer in viewers {
            viewer.signal(Signal::KILL);
            let (status, ..) = viewer.wait();
            assert_eq!(status, None);
        }
    }
    make_sessions(&net);
    let _ = Viewer::of_text(&home, &[]);
    assert_conserved(&ask(&home));
    daemon.terminate();
}

#[test]
fn it_ends_quietly_when_nobody_reads_it_also_while_nothing_happens() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    let (mut reader, writer) = io::pipe().unwrap();
    let mut command = tail(&home, &[]);
    command.stdout(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    reader.read_exact(&mut [0; 4]).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    drop(reader);
    let status = wait_for("the viewer to end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let mut said = String::new();
    let _ = child.stderr.take().unwrap().read_to_string(&mut said);
    assert_eq!(said, "");
    daemon.terminate();
}

#[test]
fn a_daemon_that_stops_or_dies_ends_it_with_a_message() {
    let Some((net, home)) = scene() else {
        return;
    };
    type Ended = fn(Daemon);
    let cases: [(Ended, &str); 2] = [
        (
            |daemon| drop(daemon.terminate()),
            "has stopped or is being restarted",
        ),
        (
            |daemon| drop(daemon.kill()),
            "closed the connection without a word",
        ),
    ];
    for (end, expected) in cases {
        let daemon = start(&net, &home);
        let viewer = Viewer::of_text(&home, &["--proto", "udp"]);
        end(daemon);
        let (status, _, said) = viewer.wait();
        assert_eq!(status, Some(69));
        assert!(said.concat().contains(expected), "{said:#?}");
    }
    let (status, _, said) = Viewer::start(tail(&home, &[])).wait();
    assert_eq!(status, Some(69));
    assert!(
        said.concat().contains("no daemon answers on \""),
        "{said:#?}"
    );
}

#[test]
fn gaps_are_shown_whatever_the_filter() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = start(&net, &home);
    let viewer = Viewer::of_text(&home, &["--src", "192.0.2.1"]);
    let mut nft = Command::new("nft");
    nft.args(["delete", "table", "inet", "nattrail"]);
    net.gateway.succeed(&mut nft, "");
    let lines = viewer.wait_for_lines(2);
    assert!(lines[1].starts_with("*** 2"), "{lines:#?}");
    let what = " GAP tracking-off: connection tracking may have been off, from 2";
    assert!(lines[1].contains(what), "{lines:#?}");
    daemon.terminate();
}

#[test]
fn a_daemon_that_accepts_and_says_nothing_is_given_up() {
    let home = Home::new("");
    std::fs::create_dir(home.runtime()).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(home.runtime().join("control.sock"));
    let (status, lines, said) = Viewer::start(tail(&home, &[])).wait();
    assert_eq!((status, lines.len()), (Some(69), 0));
    assert!(
        said.concat().contains("did not answer within 5 s"),
        "{said:#?}"
    );
    assert!(PATIENCE > Duration::from_secs(5));
}

#[test]
fn a_filter_that_is_wrong_is_a_usage_error_that_says_what_was_expected() {
    let home = Home::new("");
    let many = "1,".repeat(16) + "1";
    let cases: [(&[&str], &str); 7] = [
        (&["--zone", "x"], "a number from 0 to 65535"),
        (
            &["--event", "begin"],
            "[possible values: create, delete, flow]",
        ),
        (
            &["--src", "10.1.2.3/8"],
            "no bits set beyond the prefix, \"10.0.0.0/8\"",
        ),
        (&["--post", "somewhere"], "203.0.113.9:50001"),
        (&["--proto", "tpc"], "a protocol such as tcp"),
        (
            &["--mark", "0x3/0x1"],
            "a value whose bits are all in the mask",
        ),
        (
            &["--zone", &many],
            "at most 16 values in a filter, found 17",
        ),
    ];
    for (arguments, expected) in cases {
        let (status, _, said) = Viewer::start(tail(&home, arguments)).wait();
        assert_eq!(status, Some(64), "{arguments:?}");
        assert!(said.concat().contains(expected), "{said:#?}");
    }
}
