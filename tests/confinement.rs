//! What the real daemon gives up after its start, and that it does all its work without.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use nattrail::kernel::landlock;
use rustix::process::Signal;

use support::daemon::{CAPTURE, Daemon, Home, PROGRAM, STDOUT_TEXT};
use support::gateway::{CLIENT, Gateway, MASQUERADE, SERVER};
use support::record;
use support::status::ask;
use support::traffic::Udp;
use support::wait_for;

const DAC_OVERRIDE: u64 = 1 << 1;
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;

fn scene(programs: &[&str]) -> Option<(Gateway, Home)> {
    let net = Gateway::new(programs)?;
    net.nft(MASQUERADE);
    Some((net, Home::new(&config(""))))
}

fn config(rest: &str) -> String {
    format!("{CAPTURE}{rest}{STDOUT_TEXT}\n[pending]\nflush = \"100ms\"\n")
}

fn file_target(path: &std::path::Path) -> String {
    let path = path.display();
    format!("[[syslog]]\ntarget = \"file\"\npath = \"{path}\"\nformat = \"text\"\n")
}

fn udp(net: &Gateway, port: u16) {
    let (client, server) = (&net.client, &net.server);
    Udp::open(client, (CLIENT, port), (SERVER, 53), server, (SERVER, 53)).exchange(1, 1);
}

/// The lines of /proc/PID/status that are about privileges: sets of capabilities, and `NoNewPrivs`.
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

fn assert_held(daemon: &Daemon, permitted: u64, effective: u64) {
    // What it keeps in reserve is effective for a moment now and then.
    let held = wait_for("the effective capabilities", || {
        let held = privileges(daemon);
        (held["CapEff"] == effective).then_some(held)
    });
    assert_eq!(held["CapPrm"], permitted, "{held:x?}");
    assert_eq!(held["CapBnd"], permitted, "{held:x?}");
    assert_eq!((held["CapInh"], held["CapAmb"]), (0, 0), "{held:x?}");
    assert_eq!(held["NoNewPrivs"], 1);
}

/// Whether what needs Landlock can be tested; says so where it cannot.
fn has_landlock() -> bool {
    match landlock::abi() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("*** this kernel has no Landlock: {error} ***");
            false
        }
    }
}

#[test]
fn root_keeps_one_capability_and_says_what_is_in_force() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    let daemon = Daemon::start(&net.gateway, &home);
    let line = daemon.wait_for_message("confined: ");
    let expected = "confined: capabilities CAP_NET_ADMIN; no new privileges; files ";
    assert!(line.starts_with(expected), "{line}");
    let _ = daemon.wait_for_message("started");
    assert_held(&daemon, NET_ADMIN, NET_ADMIN);
    let confinement = &ask(&home)["confinement"];
    assert_eq!(confinement["capabilities"][0], "CAP_NET_ADMIN");
    assert_eq!(confinement["no_new_privileges"], true);
    let abi = landlock::abi().ok().map(u64::from);
    assert_eq!(confinement["landlock_abi"].as_u64(), abi);
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
    let _ = daemon.wait_for_message("had been removed, and was made again");
    daemon.terminate();
}

#[test]
fn with_a_namespace_it_keeps_the_capability_to_enter_it_in_reserve() {
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
    assert_held(&daemon, NET_ADMIN | SYS_ADMIN, NET_ADMIN);
    // Two ways back into the namespace: the table, and an audit.
    net.nft("delete table inet nattrail");
    let _ = daemon.wait_for_message("had been removed, and was made again");
    let audits = || ask(&home)["sessions"]["audits"].as_u64().unwrap();
    let before = audits();
    wait_for("an audit", || (audits() > before).then_some(()));
    udp(&net, 40_000);
    let _ = daemon.wait_for_records(2, record::parse_text);
    assert_held(&daemon, NET_ADMIN | SYS_ADMIN, NET_ADMIN);
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
    let _ = daemon.wait_for_message("belongs to another user: CAP_DAC_OVERRIDE is kept");
    let _ = daemon.wait_for_message("started");
    let held = NET_ADMIN | DAC_OVERRIDE;
    assert_held(&daemon, held, held);
    daemon.terminate();
}

#[test]
fn a_file_in_a_new_directory_takes_a_restart_and_one_beside_the_others_does_not() {
    let Some((net, home)) = scene(&[]) else {
        return;
    };
    if !has_landlock() {
        return;
    }
    let [old, new] = ["old", "new"].map(|name| home.path().join(name));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&new).unwrap();
    let (first, beside, outside) = (old.join("a.log"), old.join("b.log"), new.join("c.log"));
    let targets = |files: &[&std::path::PathBuf]| {
        let targets: Vec<_> = files.iter().map(|file| file_target(file)).collect();
        config("") + &targets.concat()
    };
    home.configure(&targets(&[&first]));
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    home.configure(&targets(&[&first, &beside, &outside]));
    daemon.signal(Signal::HUP);
    let line = daemon.wait_for_message("restart it");
    assert!(line.contains(outside.to_str().unwrap()), "{line}");
    let _ = daemon.wait_for_message("configuration read again");
    udp(&net, 40_000);
    let lines =
        |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    wait_for("the record in both files", || {
        (lines(&first) == 1 && lines(&beside) == 1).then_some(())
    });
    assert!(!outside.exists());
    let said = daemon
        .logged()
        .iter()
        .filter(|line| line.contains("restart it"))
        .count();
    assert_eq!(said, 1);
    daemon.terminate();
    let daemon = Daemon::start(&net.gateway, &home);
    udp(&net, 40_001);
    wait_for("the record after a restart", || {
        (lines(&outside) >= 1).then_some(())
    });
    daemon.terminate();
}

#[test]
fn without_landlock_the_rest_holds_and_nothing_is_missing() {
    let Some((net, home)) = scene(&["strace"]) else {
        return;
    };
    // strace answers in the kernel's place, as a kernel does that was built without.
    let mut traced = Command::new("strace");
    traced.args(["-D", "-qq", "-e", "trace=landlock_create_ruleset"]);
    traced.args(["-e", "inject=landlock_create_ruleset:error=ENOSYS", "-o"]);
    traced.arg(home.path().join("strace"));
    traced.args([PROGRAM, "run", "--config"]).arg(home.config());
    home.dress(&mut traced);
    let daemon = Daemon::spawn(&net.gateway, &mut traced);
    let line = daemon.wait_for_message("confined: ");
    let expected = "confined: capabilities CAP_NET_ADMIN; no new privileges; files not confined";
    assert!(line.starts_with(expected), "{line}");
    let _ = daemon.wait_for_message("started");
    assert_held(&daemon, NET_ADMIN, NET_ADMIN);
    udp(&net, 40_000);
    let _ = daemon.wait_for_records(1, record::parse_text);
    let warned = daemon
        .logged()
        .into_iter()
        .find(|line| line.contains("Landlock:"));
    assert_eq!(warned, None, "an old kernel is nothing to warn of");
    daemon.terminate();
}
