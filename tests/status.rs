//! `nattrail status` and the control socket of the real daemon: its numbers match the sessions made, and no client,
//! however slow or hostile, keeps it from its work.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "how long a real process takes needs the real clock"
)]

mod support;

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use support::collector::Receiver;
use support::daemon::{CAPTURE, Daemon, Home, PROGRAM, STDOUT_TEXT};
use support::gateway::{CLIENT, CLIENT6, Gateway, MASQUERADE, SERVER, SERVER6};
use support::lines::Lines;
use support::record;
use support::status::{ask, assert_conserved, number, status};
use support::traffic::{Tcp, Udp, loopback, ping};
use support::wait_for;

fn scene() -> Option<(Gateway, Home)> {
    let net = Gateway::new(&[])?;
    net.nft(MASQUERADE);
    Some((net, Home::new(&config(""))))
}

fn config(rest: &str) -> String {
    format!("{CAPTURE}{STDOUT_TEXT}\n[pending]\nflush = \"100ms\"\n{rest}")
}

fn socket(home: &Home) -> PathBuf {
    home.runtime().join("control.sock")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Fails with this exit status and, on the standard error, this message.
fn assert_fails(output: &Output, code: i32, message: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(message), "{said}");
    assert!(output.stdout.is_empty());
}

/// Three sessions over UDP, one over TCP and two pings, of which all but the last ping end.
fn make_sessions(net: &Gateway) {
    let (client, server) = (&net.client, &net.server);
    for port in 40_000..40_003 {
        Udp::open(client, (CLIENT, port), (SERVER, 53), server, (SERVER, 53)).exchange(1, 1);
    }
    let from = (CLIENT, 40_000);
    Tcp::open(client, from, (SERVER, 443), server, (SERVER, 443)).exchange(1, 1);
    ping(client, CLIENT6, SERVER6, 1, 1);
    net.end_connections();
    ping(client, CLIENT, SERVER, 1, 1);
}

#[test]
fn its_numbers_are_those_of_the_sessions_that_were_made() {
    let Some((net, home)) = scene() else {
        return;
    };
    let any = SocketAddr::new(loopback(true), 0);
    let [ipfix, v5] = [0, 1].map(|_| Receiver::bind(&net.gateway, any));
    let collector = |receiver: &Receiver, version| {
        let address = receiver.address();
        format!(
            "[[collector]]\naddress = \"{address}\"\nversion = \"{version}\"\nexport-delay = \"0s\"\n"
        )
    };
    home.configure(&config(
        &(collector(&ipfix, "ipfix") + &collector(&v5, "v5")),
    ));
    let daemon = Daemon::start(&net.gateway, &home);
    make_sessions(&net);
    let _ = daemon.wait_for_records(11, record::parse_text);
    let metrics = wait_for("the records to be sent", || {
        let metrics = ask(&home);
        (number(&metrics, "/outputs/0/records") == 11).then_some(metrics)
    });
    assert_conserved(&metrics);

    assert_eq!(number(&metrics, "/pid"), u64::from(daemon.pid()));
    assert_eq!(metrics["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metrics["configuration"], home.config().to_str().unwrap());
    let expected = [
        ("/events/new_by_protocol/udp", 3),
        ("/events/new_by_protocol/tcp", 1),
        ("/events/new_by_protocol/icmp", 1),
        ("/events/new_by_protocol/icmpv6", 1),
        ("/events/destroy_by_protocol/udp", 3),
        ("/events/destroy_by_protocol/icmp", 0),
        ("/events/malformed", 0),
        ("/sessions/creates", 6),
        ("/sessions/deletes", 5),
        ("/sessions/pending", 1),
        ("/sessions/pending_peak", 5),
        ("/sessions/restored", 0),
        ("/gaps/overflow/count", 0),
        ("/gaps/undelivered/count", 0),
        ("/log/records", 11),
        ("/outputs/0/behind", 0),
        ("/outputs/0/lost", 0),
        ("/outputs/0/flow_records", 11),
        ("/outputs/0/sequence", 12),
        ("/outputs/0/template_sends", 1),
        ("/outputs/1/records", 11),
        ("/outputs/1/flow_records", 9),
        ("/outputs/1/not_representable", 2),
        ("/outputs/1/sequence", 9),
        ("/outputs/2/records", 11),
        ("/outputs/2/behind", 0),
    ];
    for (way, expected) in expected {
        assert_eq!(number(&metrics, way), expected, "{way}: {metrics:#}");
    }
    for output in 0..3 {
        assert_eq!(
            metrics["outputs"][output]["state"], "working",
            "{metrics:#}"
        );
    }
    assert!(metrics["sessions"]["pending_peak_time"].is_string());
    assert!(number(&metrics, "/kernel/receive_buffer_octets") > 0);
    assert!(number(&metrics, "/turns/longest_microseconds") > 0);
    assert!(metrics["store"]["available"].as_bool().unwrap());

    let people = status(&home, &[]).output().unwrap();
    assert_eq!(people.status.code(), Some(0));
    let people = text(&people.stdout);
    for line in [
        "Sessions:   creates 6, deletes 5, pending 1, ",
        "Output:     collector 127.0.0.1:",
        "Output:     standard output, format text, target stdout, state working, records 11, behind 0, lost 0,",
    ] {
        assert!(people.contains(line), "{line:?} in {people}");
    }
    daemon.terminate();
}

#[test]
fn a_daemon_with_another_configuration_than_the_one_given_is_mentioned() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    let other = home.path().join("other.toml");
    fs::copy(home.config(), &other).unwrap();
    let said = |command: &str, file: &Path| {
        let mut program = Command::new(PROGRAM);
        program.args([command, "--config"]).arg(file);
        home.dress(&mut program);
        let child = net.gateway.spawn(&mut program).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(!output.stdout.is_empty(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let expected = format!(
        "warning: the daemon that answers has the configuration {}, not {}: ",
        home.config().display(),
        other.display()
    );
    assert_eq!(said("status", &home.config()), "");
    let found = said("status", &other);
    assert!(found.starts_with(&expected), "{found}");
    // A file under check may be about to be installed.
    assert_eq!(said("check", &other), "");
}

#[test]
fn a_configuration_that_has_become_wrong_keeps_nobody_from_asking_the_daemon() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    home.configure("[capture");
    let mut program = Command::new(PROGRAM);
    program
        .args(["status", "--json", "--config"])
        .arg(home.config());
    home.dress(&mut program);
    let child = net.gateway.spawn(&mut program).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.stdout.starts_with(b"{"), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains("line 1") && said.contains("the file is not used"),
        "{said}"
    );
    daemon.terminate();
}

#[test]
fn a_configuration_that_the_daemon_has_not_read_yet_is_mentioned() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    let said = |command: &str| {
        let mut program = Command::new(PROGRAM);
        program.args([command, "--config"]).arg(home.config());
        home.dress(&mut program);
        let child = net.gateway.spawn(&mut program).unwrap();
        let output = child.wait_with_output().unwrap();
        text(&[output.stdout, output.stderr].concat())
    };
    let unread = |command| said(command).contains("has changed since the daemon read it at 2");
    assert!(!unread("status") && !unread("check"));
    // The file was moved there with its old date.
    let new = home.path().join("new.toml");
    fs::write(&new, config("ttl = \"1d\"")).unwrap();
    let long_ago = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    let file = fs::File::options().write(true).open(&new).unwrap();
    file.set_times(long_ago).unwrap();
    fs::rename(new, home.config()).unwrap();
    for command in ["status", "check"] {
        assert!(unread(command), "{}", said(command));
    }
    let other = home.path().join("other.toml");
    fs::copy(home.config(), &other).unwrap();
    daemon.signal(Signal::HUP);
    let _ = daemon.wait_for_message("configuration read again");
    assert!(!unread("status") && !unread("check"));
    // A link to a file from before.
    fs::remove_file(home.config()).unwrap();
    std::os::unix::fs::symlink(&other, home.config()).unwrap();
    assert!(unread("status"), "{}", said("status"));
    daemon.terminate();
}

#[test]
fn numbers_are_conserved_over_a_restart() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    make_sessions(&net);
    let _ = daemon.wait_for_records(11, record::parse_text);
    daemon.terminate();
    let daemon = Daemon::start(&net.gateway, &home);
    let metrics = wait_for("the control socket", || {
        socket(&home).exists().then(|| ask(&home))
    });
    assert_conserved(&metrics);
    assert_eq!(number(&metrics, "/sessions/restored"), 1);
    assert_eq!(number(&metrics, "/gaps/restart/count"), 1);
    daemon.terminate();
}

#[test]
fn check_fails_while_an_output_takes_no_records() {
    let Some((net, home)) = scene() else {
        return;
    };
    let check = || {
        let mut program = Command::new(PROGRAM);
        program.args(["check", "--config"]).arg(home.config());
        home.dress(&mut program);
        // This hides a systemd that might know an installed nattrail.
        program.env("PATH", "/nonexistent").stdout(Stdio::piped());
        let child = net.gateway.spawn(&mut program).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    home.configure(&config(
        "[[syslog]]\ntarget = \"file\"\npath = \"/dev/full\"\n",
    ));
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    let (status, found) = check();
    let well = "\nok      records: no gap and no loss since ";
    assert!(found.contains(well), "{found}");
    assert_eq!(status, Some(0), "{found}");
    make_sessions(&net);
    let (status, found) = wait_for("the file to fail", || {
        let (status, found) = check();
        (status != Some(0)).then_some((status, found))
    });
    let failing = "\nerror   file /dev/full: failing now, ";
    assert!(found.contains(failing), "{found}");
    assert_eq!(status, Some(69), "{found}");
    daemon.kill();
}

#[test]
fn the_socket_is_closed_to_others_and_goes_with_the_daemon() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&socket(&home)), 0o660);
    assert_eq!(mode(&home.runtime()), 0o750);
    daemon.terminate();
    assert!(!socket(&home).exists());
    let output = status(&home, &[]).output().unwrap();
    assert_fails(&output, 69, "no daemon answers on \"");
}

#[test]
fn a_killed_daemon_leaves_a_socket_that_the_next_one_replaces() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    daemon.kill();
    assert!(socket(&home).exists());
    let output = status(&home, &[]).output().unwrap();
    assert_fails(&output, 69, "Connection refused");
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    assert_eq!(number(&ask(&home), "/pid"), u64::from(daemon.pid()));
    daemon.terminate();
}

#[test]
fn a_second_daemon_runs_without_the_socket_of_the_first() {
    let Some((net, home)) = scene() else {
        return;
    };
    let first = Daemon::start(&net.gateway, &home);
    let _ = first.wait_for_message("started");
    let control = format!("[control]\nsocket = \"{}\"\n", socket(&home).display());
    let second = Daemon::start(&net.server, &Home::new(&config(&control)));
    let message = second.wait_for_message("control socket");
    assert!(
        message.contains("another process listens there"),
        "{message}"
    );
    assert_eq!(number(&ask(&home), "/pid"), u64::from(first.pid()));
    second.terminate();
    assert_eq!(number(&ask(&home), "/pid"), u64::from(first.pid()));
    first.terminate();
}

#[test]
fn a_daemon_whose_directory_cannot_be_made_says_so_once_and_runs() {
    let Some((net, home)) = scene() else {
        return;
    };
    home.configure(&config(
        "[control]\nsocket = \"/nonexistent/nattrail/control.sock\"\n",
    ));
    let daemon = Daemon::start(&net.gateway, &home);
    make_sessions(&net);
    let _ = daemon.wait_for_records(11, record::parse_text);
    let ended = daemon.terminate();
    let warnings = ended
        .stderr
        .iter()
        .filter(|line| line.contains("control socket"));
    assert_eq!(warnings.count(), 1, "{:#?}", ended.stderr);
}

#[test]
fn the_socket_can_be_switched_off() {
    let Some((net, home)) = scene() else {
        return;
    };
    home.configure(&config("[control]\nsocket = \"\"\n"));
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    assert!(!home.runtime().exists());
    let output = status(&home, &[]).output().unwrap();
    assert_fails(&output, 69, "control.socket is \"\" in the configuration");
    daemon.terminate();
}

#[test]
fn clients_that_hold_every_place_cost_no_record_and_are_closed_in_time() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    let begun = Instant::now();
    let mut silent: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(socket(&home)).unwrap())
        .collect();
    // Nobody else gets a place, and the refusal is immediate.
    let output = status(&home, &[]).output().unwrap();
    assert_fails(&output, 69, "did not answer");
    make_sessions(&net);
    let _ = daemon.wait_for_records(11, record::parse_text);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );

    for stream in &mut silent {
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    // The time counts from the daemon's last look at the clock before it accepted them.
    assert!(begun.elapsed() >= Duration::from_secs(4));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    let metrics = ask(&home);
    assert_conserved(&metrics);
    assert!(number(&metrics, "/turns/longest_microseconds") < 2_000_000);
    daemon.terminate();
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up_after_five_seconds() {
    let home = Home::new("");
    fs::create_dir(home.runtime()).unwrap();
    let _listener = UnixListener::bind(socket(&home)).unwrap();
    let begun = Instant::now();
    let output = status(&home, &[]).output().unwrap();
    assert_fails(&output, 69, "did not answer within 5 s");
    let took = begun.elapsed();
    assert!((4..8).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn a_daemon_with_a_full_backlog_is_given_up_too() {
    let home = Home::new("");
    fs::create_dir(home.runtime()).unwrap();
    let listener = UnixListener::bind(socket(&home)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(socket(&home)).unwrap();
    let output = status(&home, &[]).output().unwrap();
    assert_fails(&output, 69, "did not answer within 5 s");
}

#[test]
fn what_is_no_metrics_is_not_printed() {
    let home = Home::new("");
    fs::create_dir(home.runtime()).unwrap();
    let listener = UnixListener::bind(socket(&home)).unwrap();
    let answers = ["hello\n", "{\"error\":\"not \\u001b[2J today\"}\n", ""];
    let expected = [
        "expected a JSON object",
        "answered: not ?[2J today",
        "did not answer: ",
    ];
    for (answer, expected) in answers.into_iter().zip(expected) {
        let child = status(&home, &["--json"]).spawn().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 7];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"status\n");
        stream.write_all(answer.as_bytes()).unwrap();
        drop(stream);
        assert_fails(&child.wait_with_output().unwrap(), 69, expected);
    }
}

#[test]
fn without_permission_it_says_whose_socket_it_is() {
    if !support::can_run(&["setpriv"]) {
        return;
    }
    let home = Home::new("");
    fs::create_dir(home.runtime()).unwrap();
    let _listener = UnixListener::bind(socket(&home)).unwrap();
    fs::set_permissions(socket(&home), Permissions::from_mode(0o660)).unwrap();
    // The directories of the program and of the test need not be open to everyone.
    let program = home.path().join("nattrail");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(&program)
        .args(["status", "--config"])
        .arg(home.config());
    home.dress(&mut command);
    assert_fails(&command.output().unwrap(), 77, "permission denied");
}

#[test]
fn watching_through_a_pipe_repeats_without_clearing_a_screen() {
    let Some((net, home)) = scene() else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    let mut child = status(&home, &["--watch=1"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = Lines::read(child.stdout.take().unwrap());
    let headings = |lines: &[String]| {
        let heading = |line: &&String| line.starts_with("nattrail ");
        lines.iter().filter(heading).count()
    };
    let printed = wait_for("two answers", || {
        let lines = lines.so_far();
        (headings(&lines) >= 2).then_some(lines)
    });
    assert!(!printed.concat().contains('\x1b'), "{printed:#?}");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    child.wait().unwrap();
    daemon.terminate();
}
