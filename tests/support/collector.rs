//! Collectors: a plain UDP receiver, and what nfdump and tshark make of the daemon's datagrams.
//!
//! nfcapd is a collector of its own; tshark decodes the datagrams that the plain receiver took, written to a capture file
//! as they came.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::netns::{Namespace, succeed};
use super::{packet, wait_for};

/// A decoded record: the decoder's own names and spelling.
pub type Decoded = BTreeMap<String, String>;

/// One datagram as it arrived.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: SocketAddr,
    pub payload: Vec<u8>,
}

/// A UDP receiver that keeps everything.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    datagrams: Arc<Mutex<Vec<Datagram>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Receives at `address` of the namespace; port 0 for any.
    #[must_use]
    pub fn bind(namespace: &Namespace, address: SocketAddr) -> Self {
        let socket = namespace.run(|| UdpSocket::bind(address).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let datagrams = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (sink, stopped) = (Arc::clone(&datagrams), Arc::clone(&stop));
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    sink.lock().unwrap().push(Datagram {
                        from,
                        payload: buffer[..length].to_vec(),
                    });
                }
            }
        });
        Self {
            address,
            datagrams,
            stop,
            reader: Some(reader),
        }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn datagrams(&self) -> Vec<Datagram> {
        self.datagrams.lock().unwrap().clone()
    }

    /// The data records of all datagrams, as tshark decodes them, once there are as many as asked for.
    #[must_use]
    pub fn wait_for_decoded(&self, count: usize) -> Vec<Decoded> {
        let mut seen = 0;
        wait_for(&format!("{count} records at {}", self.address), || {
            let datagrams = self.datagrams();
            if datagrams.len() == seen {
                return None;
            }
            seen = datagrams.len();
            let records = tshark(self.address, &datagrams);
            (records.len() >= count).then_some(records)
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The data records of NetFlow and IPFIX datagrams, in order, by tshark's field names. Options data is left out.
///
/// # Panics
/// When tshark finds anything malformed or worth an expert's remark.
#[must_use]
pub fn tshark(to: SocketAddr, datagrams: &[Datagram]) -> Vec<Decoded> {
    let directory = TempDir::with_prefix("nattrail-test-").unwrap();
    let capture = directory.path().join("capture.pcap");
    fs::write(&capture, pcap(to, datagrams)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("tshark");
        command
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .env("HOME", directory.path())
            .arg("-r")
            .arg(&capture)
            .args(["-d", &format!("udp.port=={},cflow", to.port())])
            .args(arguments);
        succeed(&mut command, "")
    };
    let remarks = run(&["-Y", "_ws.malformed || _ws.expert", "-V"]);
    assert_eq!(remarks, "", "tshark finds the datagrams not well-formed");

    let packets: Value =
        serde_json::from_str(&run(&["-T", "json", "--no-duplicate-keys", "-J", "cflow"])).unwrap();
    let mut records = Vec::new();
    for packet in packets.as_array().unwrap() {
        data_records(&packet["_source"]["layers"]["cflow"], &mut records);
    }
    records
}

/// Milliseconds since 1970 of a time as tshark prints it: in words up to version 4.0, RFC 3339 since.
#[must_use]
pub fn tshark_millis(text: &str) -> u64 {
    let words = format_description!(
        "[month repr:short] [day padding:none], [year] [hour]:[minute]:[second].[subsecond]"
    );
    let time = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| {
        // "Nov  2, 2026": the day is padded with a space.
        let text = text.trim_end_matches(" UTC").replace("  ", " ");
        time::PrimitiveDateTime::parse(&text, &words).map(time::PrimitiveDateTime::assume_utc)
    });
    let time = time.unwrap_or_else(|error| panic!("{text}: {error}"));
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap()
}

/// A data record is an object named "Flow 1" or, in version 5, "pdu 1/2". One with a scope is options data.
fn data_records(value: &Value, records: &mut Vec<Decoded>) {
    let Some(object) = value.as_object() else {
        return;
    };
    for (name, inner) in object {
        if name.starts_with("Flow ") || name.starts_with("pdu ") {
            let mut record = Decoded::new();
            flatten(inner, &mut record);
            if record.contains_key("cflow.protocol") {
                records.push(record);
            }
        } else {
            data_records(inner, records);
        }
    }
}

fn flatten(value: &Value, record: &mut Decoded) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        match inner {
            Value::String(text) => {
                record.insert(name.clone(), text.clone());
            }
            Value::Object(_) => flatten(inner, record),
            _ => {}
        }
    }
}

/// A capture of raw IP (link type 101) with every datagram in a packet of its own.
fn pcap(to: SocketAddr, datagrams: &[Datagram]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for (index, datagram) in datagrams.iter().enumerate() {
        let packet = packet::ip_udp(
            (datagram.from.ip(), datagram.from.port()),
            (to.ip(), to.port()),
            &datagram.payload,
        );
        let length = u32::try_from(packet.len()).unwrap();
        for word in [u32::try_from(index).unwrap(), 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

/// nfcapd as a collector; killed on drop.
#[derive(Debug)]
pub struct Nfcapd {
    child: Child,
    directory: TempDir,
}

impl Nfcapd {
    /// Returns when it has bound its port.
    #[must_use]
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Self {
        let directory = TempDir::with_prefix("nattrail-test-").unwrap();
        let child = namespace
            .spawn(
                Command::new("nfcapd")
                    .args(["-b", &address.ip().to_string()])
                    .args(["-p", &address.port().to_string()])
                    .arg("-w")
                    .arg(directory.path())
                    .args(["-S", "0"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null()),
            )
            .unwrap();
        let port = format!(":{:04X}", address.port());
        let table = format!(
            "/proc/{}/net/{}",
            child.id(),
            if address.is_ipv4() { "udp" } else { "udp6" }
        );
        wait_for("nfcapd to bind", || {
            fs::read_to_string(&table)
                .unwrap_or_default()
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1))
                .any(|local| local.ends_with(&port))
                .then_some(())
        });
        Self { child, directory }
    }

    /// Ends it, which makes it write its file, and returns what nfdump reads there.
    #[must_use]
    pub fn finish(mut self) -> Vec<Decoded> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        wait_for("nfcapd to end", || self.child.try_wait().unwrap());
        nfdump(self.directory.path())
    }
}

impl Drop for Nfcapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All records in the files of a directory. Version 1.7.1 writes numbers as strings, later ones do not: here all is text.
fn nfdump(directory: &Path) -> Vec<Decoded> {
    let mut command = Command::new("nfdump");
    command
        .env("TZ", "UTC")
        .arg("-q")
        .arg("-R")
        .arg(directory)
        .args(["-o", "json"]);
    let output = succeed(&mut command, "");
    let records: Vec<BTreeMap<String, Value>> =
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"));
    records
        .into_iter()
        .map(|record| {
            record
                .into_iter()
                .map(|(name, value)| match value {
                    Value::String(text) => (name, text),
                    other => (name, other.to_string()),
                })
                .collect()
        })
        .collect()
}
