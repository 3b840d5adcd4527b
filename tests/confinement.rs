//! The rights that the real daemon gives up after its start, and its work without them.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::chown;
use std::process::Command;

use rustix::process::Signal;

use support::daemon::{CAPTURE, Daemon, Home, PROGRAM, STDOUT_TEXT};
use support::gateway::{CLIENT, Gateway, MASQUERADE, SERVER};
use support::record;
use support::status::ask;
use support::traffic::Udp;
use support::wait_for;

const DAC_OVERRIDE: u64 = 1 << 1;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
/// The capabilities of a daemon that root started by hand.
const HELD: u64 = NET_ADMIN | NET_BIND_SERVICE | DAC_OVERRIDE;

fn scene(programs: &[&str]) -> Option<(Gateway, Home)> {
    let net = Gateway::new(programs)?;
    net.nft(MASQUERADE);
    Some((net, Home::new(&config(""))))
}

fn config(rest: &str) -> String {
    format!("{CAPTURE}{rest}{STDOUT_TEXT}\n[pending]\nflush = \"100ms\"\n")
}

fn udp(net: &Gateway, port: u16) {
    let (client, server) = (&net.client, &net.server);
    Udp::open(client, (CLIENT, port), (SERVER, 53), server, (SERVER, 53)).exchange(1, 1);
}

/// The lines of /proc/PID/status about privileges: sets of capabilities, and `NoNewPrivs`.
fn privileges(daemon: &Daemon) -> HashMap<String, u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = |line: &str| {
        let (name, value) = line.split_once(":\t")?;
        let hex = name.starts_with("Cap") || name == "NoNewPrivs";
        let value = u64::from_str_radix(value, 16).ok()?;
        hex.then(|| (name.to_owned(), value))
    };
    text.lines().filter_map(line).collect()
}

fn assert_held(daemon: &Daemon, expected: u64) {
    let held = privileges(daemon);
    assert_eq!(held["CapEff"], expected, "{held:x?}");
    assert_eq!(held["CapPrm"], expected, "{held:x?}");
    assert_eq!((held["CapInh"], held["CapAmb"]), (0, 0), "{held:x?}");
    assert_eq!(held["NoNewPrivs"], 1);
}

/// Starts the daemon with a read-only disk on its state directory, in its own mount namespace, and with a database in a
/// missing directory of that disk.
fn start_on_read_only_disk(net: &Gateway, home: &Home) -> Daemon {
    let database = home.state().join("a/b/pending.db");
    let database = format!("database = \"{}\"\n", database.display());
    home.configure(&(config("") + &database));
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t tmpfs -o ro nattrail-test \"$0\" && exec \"$@\"")
        .arg(home.state())
        .args([PROGRAM, "run", "--config"])
        .arg(home.config());
    home.dress(&mut command);
    let daemon = Daemon::spawn(&net.gateway, &mut command);
    let _ = daemon.wait_for_message("records leave from memory");
    let _ = daemon.wait_for_message("started");
    daemon
}

/// Mounts at the state directory, in the daemon's mount namespace.
fn mount(daemon: &Daemon, home: &Home, arguments: &[&str]) {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--root", "--target", &daemon.pid().to_string()]);
    command.arg("mount").args(arguments).arg(home.state());
    assert!(command.status().unwrap().success());
}

#[test]
fn root_keeps_what_it_works_with_and_says_what_is_in_force() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let line = daemon.wait_for_message("confined: ");
    let held = "CAP_DAC_OVERRIDE CAP_NET_BIND_SERVICE CAP_NET_ADMIN";
    let expected = format!("confined: capabilities {held}; no new privileges");
    assert!(line.starts_with(&expected), "{line}");
    let _ = daemon.wait_for_message("started");
    assert_held(&daemon, HELD);
    let confinement = &ask(&home)["confinement"];
    assert_eq!(confinement["capabilities"][2], "CAP_NET_ADMIN");
    assert_eq!(confinement["no_new_privileges"], true);
    udp(&net, 40_000);
    let _ = daemon.wait_for_records(1, record::parse_text);
    daemon.terminate();
}

#[test]
fn confined_it_still_makes_its_table_again() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    net.nft("delete table inet nattrail");
    let _ = daemon.wait_for_message("was removed; nattrail restored it");
    daemon.terminate();
}

#[test]
fn with_a_namespace_it_keeps_the_capability_to_enter_it() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let namespace = format!(
        "namespace = \"{}\"\nresync = \"1s\"\n",
        net.gateway.path().display()
    );
    home.configure(&config(&namespace));
    let daemon = Daemon::spawn(&net.server, &mut home.command());
    let _ = daemon.wait_for_message("started");
    assert_held(&daemon, HELD | SYS_ADMIN);
    // The daemon re-enters the namespace in two ways: for the table, and for an audit.
    net.nft("delete table inet nattrail");
    let _ = daemon.wait_for_message("was removed; nattrail restored it");
    let audits = || ask(&home)["sessions"]["audits"].as_u64().unwrap();
    let before = audits();
    wait_for("an audit", || (audits() > before).then_some(()));
    udp(&net, 40_000);
    let _ = daemon.wait_for_records(2, record::parse_text);
    assert_held(&daemon, HELD | SYS_ADMIN);
    let ended = daemon.terminate();
    let failed = ended.stderr.iter().find(|line| line.contains("cannot"));
    assert_eq!(failed, None);
}

#[test]
fn files_of_another_user_stay_within_reach_of_root() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    chown(home.state(), Some(65_534), Some(65_534)).unwrap();
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    wait_for("the database", || {
        home.state().join("pending.db").exists().then_some(())
    });
    udp(&net, 40_000);
    let _ = daemon.wait_for_records(1, record::parse_text);
    daemon.terminate();
}

#[test]
fn the_database_is_made_once_a_read_only_disk_can_be_written() {
    let Some((net, home)) = scene(&["unshare", "nsenter"]) else {
        return;
    };
    let daemon = start_on_read_only_disk(&net, &home);
    mount(&daemon, &home, &["-o", "remount,rw"]);
    let _ = daemon.wait_for_message("is available again");
    let root = format!("/proc/{}/root", daemon.pid());
    let database = home.state().join("a/b/pending.db");
    let seen = std::path::Path::new(&root).join(database.strip_prefix("/").unwrap());
    assert!(seen.is_file());
    daemon.terminate();
}

#[test]
fn the_database_is_made_on_a_disk_mounted_after_the_start() {
    let Some((net, home)) = scene(&["unshare", "nsenter"]) else {
        return;
    };
    let daemon = start_on_read_only_disk(&net, &home);
    mount(&daemon, &home, &["-t", "tmpfs", "nattrail-test"]);
    let _ = daemon.wait_for_message("is available again");
    daemon.terminate();
}

#[test]
fn a_source_port_below_1024_may_come_with_a_reload() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let collector = net
        .gateway
        .run(|| UdpSocket::bind("127.0.0.1:2055"))
        .unwrap();
    collector.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    let section =
        "[[collector]]\naddress = \"127.0.0.1:2055\"\nsource-address = \"127.0.0.1:700\"\n";
    home.configure(&(config("") + section));
    daemon.signal(Signal::HUP);
    let _ = daemon.wait_for_message("configuration read again");
    udp(&net, 40_000);
    let (_, source) = collector.recv_from(&mut [0; 2048]).unwrap();
    assert_eq!(source.port(), 700);
    daemon.terminate();
}
