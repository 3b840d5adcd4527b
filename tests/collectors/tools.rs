//! The tools that read the messages, and the conditions for running them.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nattrail::config::{self, Version};
use nattrail::export::output::Output;
use nattrail::session::Record;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::at;
use crate::log::{BEGIN, Followed};

fn export(collector: &config::Collector, records: &[Record]) {
    let mut exporter = Followed::new(Output::to_collector(collector, BEGIN, at(0)));
    exporter.push(records);
    // Each call sends a burst of messages.
    for burst in 0..100 {
        exporter.drain(at(5001 + 2 * burst));
    }
    assert!(exporter.is_through());
}

pub fn through_nfdump(config: &config::Collector, records: &[Record]) -> Vec<Value> {
    capture(config, records).flows()
}

/// The files that nfcapd made of the messages.
pub struct Capture {
    directory: TempDir,
}

pub fn capture(config: &config::Collector, records: &[Record]) -> Capture {
    let directory = tempfile::tempdir().unwrap();
    let nfcapd = Nfcapd::start(directory.path());
    let config = config::Collector {
        address: nfcapd.address,
        ..config.clone()
    };
    export(&config, records);
    nfcapd.stop();
    Capture { directory }
}

impl Capture {
    pub fn nfdump(&self, arguments: &[&str]) -> String {
        let file = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with("nfcapd.2")
            })
            .unwrap();
        let output = Command::new("nfdump")
            .arg("-r")
            .arg(file)
            .args(arguments)
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn flows(&self) -> Vec<Value> {
        // With -q, nfdump 1.7.1 prints the elements of the array without its brackets, 1.7.5 with them.
        let text = self.nfdump(&["-q", "-o", "json"]);
        let elements = text.trim().trim_start_matches('[').trim_end_matches(']');
        let flows: Value = serde_json::from_str(&format!("[{elements}]")).unwrap();
        flows.as_array().unwrap().clone()
    }
}

/// The messages as a capture of packets.
pub struct Pcap {
    directory: TempDir,
    pub messages: usize,
}

impl Pcap {
    pub fn new(config: &config::Collector, records: &[Record]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let config = config::Collector {
            address: socket.local_addr().unwrap(),
            ..config.clone()
        };
        export(&config, records);
        let mut bytes = [0; 2000];
        let (mut text, mut messages) = (String::new(), 0);
        while receive_queue(config.address) != Some(0) {
            let length = socket.recv(&mut bytes).unwrap();
            text.push_str("000000");
            for byte in &bytes[..length] {
                write!(text, " {byte:02x}").unwrap();
            }
            text.push('\n');
            messages += 1;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("text"), text).unwrap();
        let port = match config.version {
            Version::Ipfix => 4739,
            _ => 2055,
        };
        let status = Command::new("text2pcap")
            .args(["-q", "-u", &format!("50000,{port}"), "text", "pcap"])
            .current_dir(directory.path())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        Self {
            directory,
            messages,
        }
    }

    pub fn tshark(&self, arguments: &[&str]) -> String {
        let output = Command::new("tshark")
            .args(["-r", "pcap"])
            .args(arguments)
            .current_dir(self.directory.path())
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// All values of each field of the NetFlow dissector in the only message.
    pub fn fields(&self, names: &[&str]) -> Vec<String> {
        assert_eq!(self.messages, 1);
        let names = names.iter().map(|name| format!("cflow.{name}"));
        let arguments: Vec<_> = names.flat_map(|name| ["-e".to_owned(), name]).collect();
        let mut all = vec!["-T", "fields"];
        all.extend(arguments.iter().map(String::as_str));
        let text = self.tshark(&all);
        text.trim_end_matches('\n')
            .split('\t')
            .map(str::to_owned)
            .collect()
    }

    pub fn check(&self, expected: &[(&str, &str)]) {
        let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
        for ((name, expected), found) in expected.iter().zip(self.fields(&names)) {
            assert_eq!(found, *expected, "{name}");
        }
    }
}

/// A collector on a port of its own, ended when dropped.
struct Nfcapd {
    child: Child,
    address: SocketAddr,
}

impl Nfcapd {
    fn start(directory: &Path) -> Self {
        let address = free_address();
        let child = Command::new("nfcapd")
            .args([
                "-b",
                "127.0.0.1",
                "-S",
                "0",
                "-p",
                &address.port().to_string(),
                "-w",
            ])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nfcapd = Self { child, address };
        wait_for("nfcapd to listen", || receive_queue(address).is_some());
        nfcapd
    }

    /// Lets it read the received datagrams and write its file.
    fn stop(mut self) {
        wait_for("nfcapd to read", || receive_queue(self.address) == Some(0));
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Nfcapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// Octets that wait to be read on a local UDP port.
fn receive_queue(address: SocketAddr) -> Option<u64> {
    let port = format!(":{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/udp").unwrap();
    let line = table.lines().find(|line| {
        line.split_whitespace()
            .nth(1)
            .is_some_and(|local| local.ends_with(&port))
    })?;
    let (_, queue) = line.split_whitespace().nth(4)?.split_once(':')?;
    u64::from_str_radix(queue, 16).ok()
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited five seconds for {what}");
}

pub fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut complete = true;
    for tool in tools {
        if !std::env::split_paths(&path).any(|directory| directory.join(tool).exists()) {
            eprintln!("NOT TESTED: this test needs {tool}, which is not installed");
            complete = false;
        }
    }
    assert!(
        complete || std::env::var("CI").as_deref() != Ok("true"),
        "{tools:?} are needed in CI"
    );
    complete
}
