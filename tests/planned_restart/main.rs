//! The daemon under a service manager that keeps its event socket: a planned restart loses nothing.
//!
//! The records hold the events of the time without a daemon as if one had run: observed, with their true times, once.
//! Collectors see one continuous exporter.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "traffic for some seconds")]

#[path = "../support/mod.rs"]
mod support;

mod exports;

use std::collections::HashMap;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RawProtocol, SocketFlags, SocketType, socket_with};
use rustix::process::Signal;

use support::conntrack::{Kind, Watch};
use support::daemon::{CAPTURE, Daemon, Ended, Home, STDOUT_TEXT};
use support::gateway::{CLIENT, Gateway, MASQUERADE, SERVER};
use support::manager::Manager;
use support::netns::Namespace;
use support::record::{self, Fields};
use support::traffic::{Tcp, Udp, ping};
use support::wait_for;

struct Scene {
    net: Gateway,
    manager: Manager,
    home: Home,
}

impl Scene {
    /// A masquerading gateway, and a daemon that prints its records. `capture` continues that section.
    fn new(capture: &str, rest: &str) -> Option<Self> {
        let net = Gateway::new(&[])?;
        net.nft(MASQUERADE);
        let home = Home::new(&format!(
            "{CAPTURE}{capture}{STDOUT_TEXT}{rest}\n[pending]\nflush = \"100ms\"\n"
        ));
        Some(Self {
            net,
            manager: Manager::new(),
            home,
        })
    }

    fn start(&self) -> Daemon {
        self.manager.start(&self.net.gateway, &self.home)
    }

    fn udp(&self, port: u16) -> Udp {
        let (client, server) = (&self.net.client, &self.net.server);
        Udp::open(client, (CLIENT, port), (SERVER, 53), server, (SERVER, 53))
    }

    /// Whether the daemon's table exists.
    fn is_pinned(&self) -> bool {
        let mut command = Command::new("nft");
        let tables = self
            .net
            .gateway
            .succeed(command.args(["list", "tables"]), "");
        tables.contains("table inet nattrail")
    }
}

fn records(ended: &[Ended], kind: &str) -> Vec<Fields> {
    let lines = ended.iter().flat_map(|ended| &ended.stdout);
    let mut records: Vec<Fields> = lines.map(|line| record::parse_text(line)).collect();
    records.retain(|record| record["event"] == kind);
    records
}

fn wait_for_kind(daemon: &Daemon, kind: &str, count: usize) {
    let part = format!("event={kind}");
    wait_for(&format!("{count} records of kind {kind}"), || {
        let lines = daemon.printed();
        let found = lines.iter().filter(|line| line.contains(&part)).count();
        (found >= count).then_some(())
    });
}

#[test]
fn what_begins_and_ends_while_no_daemon_runs_is_observed() {
    let Some(scene) = Scene::new("", "") else {
        return;
    };
    let daemon = scene.start();
    let watch = Watch::start(&scene.net.gateway);
    let (client, server) = (&scene.net.client, &scene.net.server);
    let mut tcp = Tcp::open(
        client,
        (CLIENT, 40_000),
        (SERVER, 443),
        server,
        (SERVER, 443),
    );
    tcp.exchange(1000, 10_000);
    scene.udp(40_000).exchange(100, 200);
    wait_for_kind(&daemon, "create", 2);

    let first = daemon.terminate();
    // Nobody reads. One session from before ends, one begins and ends, one begins and stays open.
    tcp.exchange(1, 1);
    ping(client, CLIENT, SERVER, 4711, 2);
    watch.wait_for_new(&scene.net.table());
    scene.net.end_connections();
    scene.udp(40_001).exchange(5, 6);
    assert!(scene.is_pinned(), "connection tracking has to stay on");

    let daemon = scene.start();
    wait_for_kind(&daemon, "create", 2);
    watch.wait_for_new(&scene.net.table());
    scene.net.end_connections();
    let mut events = watch.wait_for_ends(|_| true);
    wait_for_kind(&daemon, "delete", 4);
    let ended = [first, daemon.terminate()];

    events.sort_by_key(|event| event.kind == Kind::Destroy);
    let all = [records(&ended, "create"), records(&ended, "delete")].concat();
    record::assert_records(&all, &events);
    assert_eq!(records(&ended, "gap"), []);
    assert_eq!(scene.manager.stored(), ["nattrail-events"]);
}

/// One-packet sessions, each with its own port, and now and then the end of all open ones.
fn make_sessions(net: &Gateway, per_second: u32, done: &AtomicBool) -> u16 {
    let socket = net
        .client
        .run(|| UdpSocket::bind((CLIENT, 50_000)).unwrap());
    let begun = Instant::now();
    let mut port = 1000;
    while !done.load(Ordering::Relaxed) && port < u16::MAX {
        socket.send_to(&[0x5a; 8], (SERVER, port)).unwrap();
        port += 1;
        let due = Duration::from_secs(1) / per_second * u32::from(port - 1000);
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    port - 1000
}

/// Ends the work of other threads, even while a panic unwinds.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replaces the daemon several times in the middle of thousands of sessions per second, and lets every one of them end.
fn restarts_under_load(capture: &str) {
    const RESTARTS: usize = 5;
    let Some(scene) = Scene::new(capture, "") else {
        return;
    };
    let done = AtomicBool::new(false);
    let mut ended = Vec::new();
    let (made, daemon) = thread::scope(|scope| {
        let mut daemon = scene.start();
        let guard = Done(&done);
        let maker = scope.spawn(|| make_sessions(&scene.net, 4000, &done));
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                scene.net.end_connections();
                thread::sleep(Duration::from_millis(150));
            }
        });
        for _ in 0..RESTARTS {
            thread::sleep(Duration::from_millis(400));
            ended.push(daemon.terminate());
            thread::sleep(Duration::from_millis(200));
            daemon = scene.start();
        }
        drop(guard);
        (maker.join().unwrap(), daemon)
    });
    // The last packet may still be on its way.
    wait_for("the last sessions to end", || {
        scene.net.end_connections();
        let text = daemon.printed().join("\n");
        let last = format!("pre_dport={}", 1000 + made - 1);
        let is_delete = |line: &str| line.contains("event=delete") && line.contains(&last);
        text.lines().any(is_delete).then_some(())
    });
    wait_for("the kernel to owe nothing", || {
        scene.net.end_connections();
        let pending = || scene.net.conntrack(&["-L", "dying"]).trim().is_empty();
        (scene.net.table().is_empty() && pending()).then_some(())
    });
    ended.push(daemon.terminate());

    assert!(made > 2000, "only {made} sessions");
    assert_eq!(records(&ended, "gap"), []);
    for kind in ["create", "delete"] {
        let records = records(&ended, kind);
        let mut seen: HashMap<&str, u32> = HashMap::new();
        for record in &records {
            *seen.entry(&record["pre_dport"]).or_default() += 1;
        }
        let ports = (1000..1000 + made).map(|port| port.to_string());
        let missing: Vec<String> = ports
            .filter(|port| !seen.contains_key(port.as_str()))
            .collect();
        seen.retain(|_, times| *times > 1);
        assert_eq!(
            (missing, seen),
            Default::default(),
            "{kind}s lost and repeated"
        );
        assert_eq!(records.len(), usize::from(made), "{kind}s");
    }
    for record in records(&ended, "delete") {
        assert_eq!(record.get("inferred"), None, "{record:?}");
    }
}

#[test]
fn under_load_every_session_has_one_create_and_one_delete() {
    restarts_under_load("");
}

#[test]
fn so_too_with_a_buffer_for_a_hundred_events() {
    restarts_under_load("receive-buffer = \"64KiB\"\n");
}

#[test]
fn an_overflow_between_two_runs_is_a_gap_where_delivery_is_not_reliable() {
    let Some(scene) = Scene::new("reliable = false\nreceive-buffer = \"64KiB\"\n", "") else {
        return;
    };
    let mut ended = vec![scene.start().terminate()];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let maker = scope.spawn(|| make_sessions(&scene.net, 4000, &done));
        thread::sleep(Duration::from_millis(300));
        drop(Done(&done));
        maker.join().unwrap();
    });
    let daemon = scene.start();
    let made = scene.net.table().len();
    wait_for_kind(&daemon, "create", made);
    ended.push(daemon.terminate());
    let gaps = records(&ended, "gap");
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    assert_eq!(gaps[0]["cause"], "overflow");
    // The NEW events that did not fit, or found the socket congested.
    let lost: usize = gaps[0]["lost"].parse().unwrap();
    let observed = records(&ended, "create");
    let observed = observed
        .iter()
        .filter(|record| !record.contains_key("inferred"));
    assert_eq!(observed.count() + lost, made);
}

#[test]
fn a_crash_is_a_gap_though_the_socket_was_kept() {
    let Some(scene) = Scene::new("", "") else {
        return;
    };
    let daemon = scene.start();
    scene.udp(40_000).exchange(1, 1);
    wait_for_kind(&daemon, "create", 1);
    daemon.kill();
    scene.net.end_connections();
    let daemon = scene.start();
    wait_for_kind(&daemon, "delete", 1);
    let ended = [daemon.terminate()];
    let gap = &records(&ended, "gap")[0];
    assert_eq!(gap["cause"], "restart");
    // The events that the crash destroyed are not known; those queued since then are.
    assert_eq!(records(&ended, "delete")[0].get("inferred"), None);
}

#[test]
fn without_a_manager_the_table_goes_with_the_daemon() {
    let Some(scene) = Scene::new("", "") else {
        return;
    };
    let daemon = Daemon::start(&scene.net.gateway, &scene.home);
    assert!(scene.is_pinned());
    daemon.terminate();
    assert!(!scene.is_pinned());
}

/// The daemon gets a descriptor that is not its event socket: it logs why it does not use it, has the manager discard
/// it, and runs.
fn is_refused(scene: &Scene, descriptor: impl Into<OwnedFd>, reason: &str) {
    scene.manager.replace_store("nattrail-events", descriptor);
    let daemon = scene.start();
    let refused = "\"nattrail-events\" that the service manager kept is not used: ";
    let message = daemon.wait_for_message(refused);
    assert!(message.ends_with(reason), "{message}");
    assert!(message.starts_with("warning: "), "{message}");
    scene.udp(40_000).exchange(1, 1);
    wait_for_kind(&daemon, "create", 1);
    let kept = inode_of(&scene.manager.take_stored());
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let own = sockets.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let own: Vec<_> = own.collect();
    let expected = format!("socket:[{kept}]");
    assert!(
        own.iter().any(|link| link.to_str() == Some(&expected)),
        "the store has {expected}, not one of {own:?}"
    );
    daemon.terminate();
    scene.net.end_connections();
}

fn inode_of(descriptor: &OwnedFd) -> u64 {
    rustix::fs::fstat(descriptor).unwrap().st_ino
}

fn netlink(namespace: &Namespace, protocol: i32) -> OwnedFd {
    let protocol = RawProtocol::new(protocol.cast_unsigned()).map(rustix::net::Protocol::from_raw);
    namespace.run(|| {
        let flags = SocketFlags::CLOEXEC;
        socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).unwrap()
    })
}

#[test]
fn what_is_no_event_socket_of_the_namespace_is_refused() {
    let (Some(scene), Some(other)) = (Scene::new("", ""), Scene::new("", "")) else {
        return;
    };
    let netfilter = "it is no netlink socket of netfilter's";
    let gateway = &scene.net.gateway;
    is_refused(&scene, File::open("/dev/zero").unwrap(), netfilter);
    is_refused(&scene, netlink(gateway, libc::NETLINK_GENERIC), netfilter);
    is_refused(
        &scene,
        netlink(gateway, libc::NETLINK_NETFILTER),
        "it hears the groups 0x0, expected 0x5 (new and ended connections)",
    );
    let _ = other.start().terminate();
    is_refused(
        &scene,
        other.manager.take_stored(),
        "it belongs to another network namespace",
    );
}

#[test]
fn a_socket_that_a_later_run_did_not_use_is_refused() {
    let Some(scene) = Scene::new("", "") else {
        return;
    };
    let _ = scene.start().terminate();
    // This daemon receives the same events on a socket of its own.
    let daemon = Daemon::start(&scene.net.gateway, &scene.home);
    scene.udp(40_001).exchange(1, 1);
    wait_for_kind(&daemon, "create", 1);
    let _ = daemon.terminate();
    let stale = scene.manager.take_stored();
    is_refused(&scene, stale, "a later run listened with another one");
}

#[test]
fn another_namespace_is_followed_under_a_name_of_its_own() {
    let Some(scene) = Scene::new("", "") else {
        return;
    };
    let name = scene.net.gateway.name();
    scene.home.configure(&format!(
        "{CAPTURE}namespace = \"{name}\"\n{STDOUT_TEXT}\n[pending]\nflush = \"100ms\"\n"
    ));
    let start = || scene.manager.start(&scene.net.server, &scene.home);
    let first = start().terminate();
    scene.udp(40_000).exchange(1, 1);
    scene.net.end_connections();
    let daemon = start();
    wait_for_kind(&daemon, "delete", 1);
    let ended = [first, daemon.terminate()];
    assert_eq!(records(&ended, "gap"), []);
    assert_eq!(records(&ended, "delete")[0].get("inferred"), None);
    assert_eq!(scene.manager.stored(), [format!("nattrail-events@{name}")]);
}

#[test]
fn the_manager_is_told_of_start_reload_and_stop() {
    let Some(scene) = Scene::new("", "") else {
        return;
    };
    let daemon = scene.start();
    daemon.signal(Signal::HUP);
    wait_for("the reload", || {
        (scene.manager.count("READY") == 2).then_some(())
    });
    daemon.terminate();
    let messages = scene.manager.messages();
    let first: Vec<&str> = messages
        .iter()
        .filter_map(|message| message.text.lines().next())
        .collect();
    assert_eq!(
        first,
        [
            "FDSTORE=1",
            "READY=1",
            "RELOADING=1",
            "READY=1",
            "STOPPING=1"
        ]
    );
    assert_eq!(
        messages[1].value("STATUS"),
        Some("0 collectors, 1 copy, translated connections only")
    );
    let began: u64 = messages[2]
        .value("MONOTONIC_USEC")
        .unwrap()
        .parse()
        .unwrap();
    assert!(began > 0);
}

#[test]
fn signs_of_life_come_in_time_under_load_too() {
    let Some(scene) = Scene::new("", "") else {
        return;
    };
    const TIMEOUT: Duration = Duration::from_millis(500);
    let usec = TIMEOUT.as_micros().to_string();
    let manager = &scene.manager;
    let more = [("WATCHDOG_USEC", usec.as_str())];
    let daemon = manager.start_with(&scene.net.gateway, &scene.home, &more);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _guard = Done(&done);
        scope.spawn(|| make_sessions(&scene.net, 4000, &done));
        thread::sleep(Duration::from_secs(2));
    });
    let asked = Instant::now();
    daemon.terminate();
    let messages = manager.messages();
    let ready = messages
        .iter()
        .find(|message| message.value("READY").is_some());
    let mut times = vec![ready.unwrap().at];
    let signs = messages
        .iter()
        .filter(|message| message.text == "WATCHDOG=1");
    times.extend(signs.map(|message| message.at).filter(|at| *at < asked));
    times.push(asked);
    assert!(times.len() > 4, "{}", times.len());
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] < TIMEOUT, "{:?}", pair[1] - pair[0]);
    }
}
