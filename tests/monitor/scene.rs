//! A gateway with a monitor port: a switch mirrors frames to its interface eth1.
//!
//! ```text
//!   client ── lan  gateway  wan ── server        the gateway's own traffic, with NAT
//!                  eth1 ── sw (switch)           the mirror
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::frames::{Counts, Script, Tuple};
use crate::support::daemon::{Daemon, Home, PROGRAM};
use crate::support::gateway::{Gateway, MASQUERADE};
use crate::support::lines::Lines;
use crate::support::netns::{Namespace, unique};
use crate::support::{can_run, packet, record, wait_for};

/// Sends the frames of its standard input, in hexadecimal, one per line.
const SEND: &str = "
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('sw', 0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))
";

/// Prints the frames that arrive, in hexadecimal, one per line.
const CAPTURE: &str = "
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
s.bind(('sw', 0))
print('listening', flush=True)
while True:
    frame, address = s.recvfrom(65535)
    if address[2] != socket.PACKET_OUTGOING:
        print(frame.hex(), flush=True)
";

pub struct Scene {
    // Dropped in this order: what runs before where it runs.
    capture: Capture,
    pub home: Home,
    /// The namespace for the monitor port.
    pub monitor: Namespace,
    pub switch: Namespace,
    pub net: Gateway,
}

impl Scene {
    /// `None`, with a message, where the test cannot run.
    pub fn new() -> Option<Self> {
        if !can_run(&["python3", "tc"]) {
            return None;
        }
        let net = Gateway::new(&[])?;
        net.nft(MASQUERADE);
        let group = unique();
        let monitor = Namespace::new(group, "monitor");
        let switch = Namespace::new(group, "switch");
        // The switch sends nothing of its own. eth1 is down: a frame that leaves it does so because it was set up. One of
        // more than 1,500 octets is too long for eth1.
        net.gateway.ip(&format!(
            "link add eth1 type veth peer name sw netns {}",
            switch.name()
        ));
        switch.sysctl("net/ipv6/conf/sw/disable_ipv6", "1");
        switch.ip("link set sw mtu 3000 arp off up");
        let capture = Capture::start(&switch);
        Some(Self {
            capture,
            home: Home::new(""),
            monitor,
            switch,
            net,
        })
    }

    /// `nattrail monitor …` with this configuration, in the gateway.
    pub fn command(&self, arguments: &[&str], config: &str) -> Output {
        let file = self.home.path().join("monitor.toml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(file);
        self.home.dress(&mut command);
        let child = self.net.gateway.spawn(&mut command).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The same, which must succeed.
    pub fn succeed(&self, arguments: &[&str], config: &str) -> String {
        let output = self.command(arguments, config);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, which must fail; returns the message.
    pub fn fail(&self, arguments: &[&str], config: &str) -> String {
        let output = self.command(arguments, config);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// A daemon in the gateway, with its own database: `config` is its [capture] and more; records go to its standard output.
    pub fn daemon(&self, name: &str, config: &str) -> (Daemon, Home) {
        let home = Home::new(&format!(
            "{config}
             [control]
             socket = \"{path}/control.sock\"
             [[syslog]]
             target = \"stdout\"
             format = \"json\"
             ",
            path = self.home.path().join(name).display()
        ));
        fs::create_dir(self.home.path().join(name)).unwrap();
        let daemon = Daemon::spawn(&self.net.gateway, &mut home.command());
        let _ = daemon.wait_for_message("started: ");
        (daemon, home)
    }

    pub fn send(&self, script: &Script) {
        let lines: String = script
            .frames
            .iter()
            .map(|frame| hex(frame) + "\n")
            .collect();
        let file = self.home.path().join("frames");
        fs::write(&file, lines).unwrap();
        let mut command = Command::new("python3");
        command
            .args(["-c", SEND])
            .stdin(fs::File::open(file).unwrap());
        let status = self.switch.spawn(&mut command).unwrap().wait().unwrap();
        assert!(status.success());
    }

    /// Sends the frames again and again while the work is done.
    pub fn while_sending(&self, script: &Script, work: impl FnOnce()) {
        let over = AtomicBool::new(false);
        let end = EndOnDrop(&over);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.send(script);
                }
            });
            // Also when the work panics.
            let _end = end;
            work();
        });
    }

    /// Sends frames that are too long for the port, which drops them.
    pub fn drop_frames(&self, count: usize) {
        let script = format!(
            "
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('sw', 0))
for _ in range({count}):
    try:
        s.send(bytes(12) + b'\\x08\\x00' + bytes(2000))
    except OSError:
        pass
"
        );
        self.switch
            .succeed(Command::new("python3").args(["-c", &script]), "");
    }

    /// Shows that the capture would have seen them: the interface is up again, and speaks IPv6.
    pub fn assert_heard(&self) {
        self.net.gateway.ip("link set eth1 up");
        wait_for("a frame from the interface", || {
            (self.capture.lines.so_far().len() > 1).then_some(())
        });
    }

    /// The frames that have left by the monitor port: none.
    pub fn assert_silent(&self) {
        assert_eq!(
            self.capture.lines.so_far(),
            ["listening"],
            "frames left by the monitor port"
        );
    }
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A listener to what leaves by the monitor port; killed on drop.
struct Capture {
    child: Child,
    lines: Lines,
}

impl Capture {
    fn start(switch: &Namespace) -> Self {
        let mut command = Command::new("python3");
        command
            .args(["-c", CAPTURE])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = switch.spawn(&mut command).unwrap();
        let lines = Lines::read(child.stdout.take().unwrap());
        wait_for("the capture to listen", || {
            (!lines.so_far().is_empty()).then_some(())
        });
        Self { child, lines }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The connections that a daemon has reported so far, by its delete records, each with its counters, mark and zone. Each
/// has a create record before.
pub fn reported(daemon: &Daemon) -> Vec<(Tuple, Counts, [String; 2])> {
    let mut open: BTreeMap<Tuple, u32> = BTreeMap::new();
    let mut ended = Vec::new();
    for line in daemon.printed() {
        let fields = record::parse_json(&line);
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        if field("event") == "gap" {
            continue;
        }
        let protocol = match field("proto").as_str() {
            "tcp" => packet::TCP,
            "udp" => packet::UDP,
            "icmp" => packet::ICMP,
            "icmpv6" => packet::ICMPV6,
            other => panic!("{other}: {line}"),
        };
        let number = |name: &str| {
            field(name)
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{name}: {line}"))
        };
        let port = |name: &str| u16::try_from(number(name)).unwrap();
        let address = |name: &str| field(name).parse::<IpAddr>().unwrap();
        let ports = match fields.contains_key("pre_id") {
            true => [port("pre_id"), port("pre_id")],
            false => [port("pre_sport"), port("pre_dport")],
        };
        let from = (address("pre_src"), ports[0]);
        let tuple = (protocol, from, (address("pre_dst"), ports[1]));
        if field("event") == "create" {
            *open.entry(tuple).or_default() += 1;
            continue;
        }
        let opened = open
            .get_mut(&tuple)
            .unwrap_or_else(|| panic!("no create before {line}"));
        *opened = opened
            .checked_sub(1)
            .unwrap_or_else(|| panic!("two ends: {line}"));
        let counts = ["orig", "reply"].map(|side| {
            (
                number(&format!("{side}_packets")),
                number(&format!("{side}_octets")),
            )
        });
        ended.push((tuple, counts, [field("mark"), field("zone")]));
    }
    ended
}

/// Ends all connections of the namespace, and returns those that the daemon has reported, once there are `count`.
pub fn ended(
    daemon: &Daemon,
    namespace: &Namespace,
    count: usize,
) -> Vec<(Tuple, Counts, [String; 2])> {
    wait_for("the creates", || {
        let creates = daemon
            .printed()
            .iter()
            .filter(|line| line.contains("\"create\""))
            .count();
        (creates >= count).then_some(())
    });
    namespace.succeed(
        Command::new("conntrack").arg("-F").stderr(Stdio::null()),
        "",
    );
    wait_for(
        &format!("{count} ends; there are {:#?}", daemon.printed()),
        || {
            let ended = reported(daemon);
            (ended.len() >= count).then_some(ended)
        },
    )
}

/// Compares what was reported with what was sent, record for record.
pub fn assert_mirrored(
    reported: Vec<(Tuple, Counts, [String; 2])>,
    script: &Script,
    marks: [&str; 2],
) {
    let expected: Vec<_> = script
        .connections
        .iter()
        .map(|(tuple, counts)| (*tuple, *counts, marks.map(str::to_owned)))
        .collect();
    let mut reported = reported;
    reported.sort();
    assert_eq!(reported, expected);
}
