//! The daemon in an operator's hands and in bad conditions: signals, a damaged database, a full or read-only disk, no
//! permission. It reports the fault, does what it still can, and recovers when possible.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, Permissions};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;

use support::daemon::{CAPTURE, Daemon, Home, PROGRAM, STDOUT_TEXT};
use support::gateway::{CLIENT, Gateway, MASQUERADE, SERVER};
use support::record;
use support::traffic::{Udp, ping};
use support::wait_for;

/// A masquerading gateway and a configuration that stores every 100 ms.
fn scene(programs: &[&str]) -> Option<(Gateway, Home)> {
    let net = Gateway::new(programs)?;
    net.nft(MASQUERADE);
    Some((net, Home::new(&config(""))))
}

fn config(capture: &str) -> String {
    format!("{CAPTURE}{capture}{STDOUT_TEXT}\n[pending]\nflush = \"100ms\"\n")
}

fn udp(net: &Gateway, port: u16) {
    let (client, server) = (&net.client, &net.server);
    Udp::open(client, (CLIENT, port), (SERVER, 53), server, (SERVER, 53)).exchange(1, 1);
}

#[test]
fn sigint_ends_it_like_sigterm() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait().status.code(), Some(0));
}

#[test]
fn sighup_with_a_wrong_configuration_keeps_the_old_one() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    home.configure(&config("protcols = [\"tcp\"]\n"));
    daemon.signal(Signal::HUP);
    let _ = daemon.wait_for_message("the configuration stays as it was");
    let message = daemon.wait_for_message("protcols");
    assert!(message.contains("nattrail.toml"), "{message}");
    assert!(
        message.contains("protocols"),
        "names the nearest: {message}"
    );
    udp(&net, 40_000);
    let records = daemon.wait_for_records(1, record::parse_text);
    assert_eq!(records[0]["proto"], "udp");
    daemon.terminate();
}

#[test]
fn sighup_takes_a_right_configuration() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    udp(&net, 40_000);
    let _ = daemon.wait_for_records(1, record::parse_text);
    home.configure(&config("protocols = [\"icmp\"]\n"));
    daemon.signal(Signal::HUP);
    let _ = daemon.wait_for_message("configuration read again");
    udp(&net, 40_001);
    ping(&net.client, CLIENT, SERVER, 1, 1);
    net.end_connections();
    // The open session gets its delete; the later one is filtered out.
    let records = daemon.wait_for_records(4, record::parse_text);
    let mut seen: Vec<String> = records
        .iter()
        .map(|record| format!("{} {}", record["event"], record["proto"]))
        .collect();
    seen.sort();
    let expected = ["create icmp", "create udp", "delete icmp", "delete udp"];
    assert_eq!(seen, expected);
    assert_eq!(daemon.terminate().stdout.len(), 4);
}

#[test]
fn sighup_lets_logrotate_take_the_file() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let file = home.path().join("nat.log");
    let rotated = home.path().join("nat.log.1");
    let target = format!(
        "[[syslog]]\ntarget = \"file\"\npath = \"{}\"\n",
        file.display()
    );
    home.configure(&format!("{CAPTURE}{target}format = \"text\"\n"));
    let daemon = Daemon::start(&net.gateway, &home);
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    udp(&net, 40_000);
    wait_for("the first record", || (lines(&file) == 1).then_some(()));
    fs::rename(&file, &rotated).unwrap();
    udp(&net, 40_001);
    wait_for("the second record", || (lines(&rotated) == 2).then_some(()));
    daemon.signal(Signal::HUP);
    wait_for("a new file", || file.exists().then_some(()));
    udp(&net, 40_002);
    wait_for("the third record", || (lines(&file) == 1).then_some(()));
    assert_eq!(lines(&rotated), 2);
    daemon.terminate();
}

#[test]
fn sigusr1_logs_statistics() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    for port in 40_000..40_003 {
        udp(&net, port);
    }
    net.end_connections();
    ping(&net.client, CLIENT, SERVER, 1, 1);
    let _ = daemon.wait_for_records(7, record::parse_text);
    daemon.signal(Signal::USR1);
    let message = daemon.wait_for_message("Sessions: ");
    assert!(
        message.contains("Sessions:   creates 4, deletes 3, pending 1, max "),
        "{message}"
    );
    daemon.terminate();
}

/// A daemon whose standard error is a full pipe that nobody reads, as when journald is stopped.
fn start_unheard(net: &Gateway, home: &Home) -> (Daemon, PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let probe = writer.try_clone().unwrap();
    let mut daemon = Daemon::spawn(&net.gateway, home.command().stderr(writer));
    daemon.wait_until_ready(&net.gateway);
    wait_for("a full pipe", || {
        daemon.signal(Signal::USR1);
        let mut ends = [PollFd::new(&probe, PollFlags::OUT)];
        (poll(&mut ends, Some(&Timespec::default())).unwrap() == 0).then_some(())
    });
    (daemon, reader)
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nothing() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let (daemon, mut reader) = start_unheard(&net, &home);
    for port in 0..200 {
        daemon.signal(Signal::USR1);
        udp(&net, 40_000 + port);
    }
    let _ = daemon.wait_for_records(200, record::parse_text);
    daemon.terminate_within(Duration::from_secs(4));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.ends_with('\n'), "only whole lines: {text}");
}

#[test]
fn log_lines_that_nobody_read_are_stated_to_whoever_reads_again() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let (daemon, mut reader) = start_unheard(&net, &home);
    for _ in 0..20 {
        daemon.signal(Signal::USR1);
        std::thread::yield_now();
    }
    fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
    let mut text = Vec::new();
    wait_for("the statement of what was lost", || {
        let _ = reader.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        text.contains("warning: log lines lost here: ")
            .then_some(())
    });
    daemon.terminate();
}

#[test]
fn a_damaged_database_is_set_aside_and_a_new_one_begun() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let database = home.state().join("pending.db");
    let garbage = b"this is no database ".repeat(500);
    fs::write(&database, &garbage).unwrap();
    let daemon = Daemon::start(&net.gateway, &home);
    let message = daemon.wait_for_message("is damaged");
    assert!(message.contains(database.to_str().unwrap()), "{message}");
    let aside = message
        .split('"')
        .find(|part| Path::new(part) != database && Path::new(part).is_file())
        .unwrap_or_else(|| panic!("no file named in {message}"));
    assert_eq!(fs::read(aside).unwrap(), garbage);

    udp(&net, 40_000);
    let _ = daemon.wait_for_records(1, record::parse_text);
    wait_for("the session in the new database", || {
        (pending(None, &home).len() == 1).then_some(())
    });
    daemon.terminate();
}

#[test]
fn a_second_daemon_on_the_same_database_is_refused() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let first = Daemon::start(&net.gateway, &home);
    let _ = first.wait_for_message("started");
    let second = Daemon::spawn(&net.server, &mut home.command()).wait();
    assert_eq!(second.status.code(), Some(69));
    let message = second.stderr.last().unwrap();
    assert!(message.contains("pending.db"), "{message}");
    first.terminate();
}

#[test]
fn a_second_daemon_beside_the_first_is_told_of_it() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let first = Daemon::start(&net.gateway, &home);
    let _ = first.wait_for_message("started");
    // Anybody's, of a name like those of the daemon.
    let forged = net.gateway.run(|| {
        let address = SocketAddr::from_abstract_name("nattrail/nattrail/\x1b[31m").unwrap();
        UnixDatagram::bind_addr(&address).unwrap()
    });
    for _ in 0..2 {
        let second = Daemon::spawn(&net.gateway, &mut home.command()).wait();
        assert_eq!(second.status.code(), Some(69));
        let expected = format!(
            "nattrail already runs, as process {}, and uses the nftables table \"inet nattrail\"",
            first.pid()
        );
        let message = second.stderr.last().unwrap();
        assert!(message.contains(&expected), "{message}");
    }
    first.terminate();
    drop(forged);
}

#[test]
fn a_network_namespace_that_is_not_there_is_named_with_its_key() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    home.configure(&config("namespace = \"none\"\n"));
    let ended = Daemon::spawn(&net.gateway, &mut home.command()).wait();
    assert_eq!(ended.status.code(), Some(71));
    let message = ended.stderr.last().unwrap();
    let expected = "capture.namespace: network namespace \"/run/netns/none\": No such file";
    assert!(message.contains(expected), "{message}");
    assert!(message.contains("ip netns add"), "{message}");
}

/// Starts the daemon with its state directory on a separate file system, which only the daemon's mount namespace has
/// and which goes with it.
fn start_on_small_disk(net: &Gateway, home: &Home, then: &str) -> Daemon {
    let script =
        format!("mount -t tmpfs -o size=512k nattrail-test \"$0\" && {then} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(home.state())
        .args([PROGRAM, "run", "--config"])
        .arg(home.config());
    home.dress(&mut command);
    let mut daemon = Daemon::spawn(&net.gateway, &mut command);
    daemon.wait_until_ready(&net.gateway);
    daemon
}

/// The state directory in the daemon's mount namespace.
fn state_of(daemon: &Daemon, home: &Home) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
    root.join(home.state().strip_prefix("/").unwrap())
}

/// The output of `nattrail pending`, in the daemon's mount namespace if there is one.
fn pending(daemon: Option<&Daemon>, home: &Home) -> Vec<String> {
    let mut command = match daemon {
        Some(daemon) => {
            let mut command = Command::new("nsenter");
            command.args([
                "--mount",
                "--root",
                "--target",
                &daemon.pid().to_string(),
                PROGRAM,
            ]);
            command
        }
        None => Command::new(PROGRAM),
    };
    command
        .args(["pending", "--json", "--config"])
        .arg(home.config());
    command.env("STATE_DIRECTORY", home.state());
    let output = command.stderr(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Sessions begin during the disk's trouble and afterwards: all are recorded, and stored in the end.
fn goes_on_and_recovers(net: &Gateway, home: &Home, daemon: Daemon, recover: impl FnOnce()) {
    const SESSIONS: u16 = 200;
    for port in 0..SESSIONS {
        udp(net, 10_000 + port);
    }
    let _ = daemon.wait_for_records(usize::from(SESSIONS), record::parse_text);
    let message = daemon.wait_for_message("records leave from memory");
    let database = home.state().join("pending.db");
    assert!(message.contains(database.to_str().unwrap()), "{message}");

    recover();
    let _ = daemon.wait_for_message("is available again");
    udp(net, 20_000);
    wait_for("all sessions in the database", || {
        (pending(Some(&daemon), home).len() == usize::from(SESSIONS) + 1).then_some(())
    });
    let ended = daemon.terminate();
    let said = |part: &str| {
        ended
            .stderr
            .iter()
            .filter(|line| line.contains(part))
            .count()
    };
    assert_eq!(
        said("records leave from memory"),
        1,
        "once, not every flush"
    );
}

#[test]
fn a_full_disk_stops_no_record() {
    let Some((net, home)) = scene(&["unshare", "nsenter"]) else {
        return;
    };
    let daemon = start_on_small_disk(&net, &home, "true");
    let state = state_of(&daemon, &home);
    wait_for("the database", || {
        state.join("pending.db").exists().then_some(())
    });
    let filler = state.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 1024]).is_ok() {}
    drop(file);
    goes_on_and_recovers(&net, &home, daemon, || fs::remove_file(&filler).unwrap());
}

#[test]
fn a_read_only_disk_stops_no_record() {
    let Some((net, home)) = scene(&["unshare", "nsenter"]) else {
        return;
    };
    let daemon = start_on_small_disk(&net, &home, "mount -o remount,ro \"$0\"");
    let pid = daemon.pid().to_string();
    goes_on_and_recovers(&net, &home, daemon, || {
        let mut command = Command::new("nsenter");
        command.args([
            "--mount",
            "--root",
            "--target",
            &pid,
            "mount",
            "-o",
            "remount,rw",
        ]);
        assert!(command.arg(home.state()).status().unwrap().success());
    });
}

#[test]
fn without_permission_it_names_the_capability() {
    let Some((net, home)) = scene(&["setpriv"]) else {
        return;
    };
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
        .args(["run", "--config"])
        .arg(home.config());
    home.dress(&mut command);
    let ended = Daemon::spawn(&net.gateway, &mut command).wait();
    assert_eq!(ended.status.code(), Some(77), "{:#?}", ended.stderr);
    let message = ended.stderr.join("\n");
    assert!(message.contains("CAP_NET_ADMIN"), "{message}");
}
