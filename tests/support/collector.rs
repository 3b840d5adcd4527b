//! Collectors: a plain UDP receiver, and the readings of nfdump and tshark of the daemon's datagrams.
//!
//! nfcapd is a collector of its own; tshark decodes the datagrams of the plain receiver, written unchanged to a capture
//! file.

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

/// The ports in a capture file. tshark takes some of the ports that the system chooses for a traceroute.
const CAPTURED_PORT: u16 = 2055;

/// Octets that a receiver's socket holds.
const ROOM: usize = 64 << 20;

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
    /// Receives at `address` of the namespace; port 0 for any. There is room for datagrams that nobody reads yet.
    #[must_use]
    pub fn bind(namespace: &Namespace, address: SocketAddr) -> Self {
        let socket = namespace.run(|| UdpSocket::bind(address).unwrap());
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, ROOM).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let datagrams = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (sink, stopped) = (Arc::clone(&datagrams), Arc::clone(&stop));
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => sink.lock().unwrap().push(Datagram {
                        from,
                        payload: buffer[..length].to_vec(),
                    }),
                    // This ends only when nothing is queued.
                    Err(_) if stopped.load(Ordering::Relaxed) => return,
                    Err(_) => {}
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

    /// The datagrams so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Datagram> {
        self.datagrams.lock().unwrap().clone()
    }

    /// Everything sent before this call.
    #[must_use]
    pub fn finish(mut self) -> Vec<Datagram> {
        self.stop();
        self.so_far()
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The data records of NetFlow and IPFIX datagrams, in order, by tshark's field names. Options data is left out.
///
/// # Panics
/// When tshark finds anything malformed or worth an expert's remark.
#[must_use]
pub fn tshark(datagrams: &[Datagram]) -> Vec<Decoded> {
    let directory = TempDir::with_prefix("nattrail-test-").unwrap();
    let capture = directory.path().join("capture.pcap");
    fs::write(&capture, pcap(datagrams)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("tshark");
        command
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .env("HOME", directory.path())
            .arg("-r")
            .arg(&capture)
            .args(["-d", &format!("udp.port=={CAPTURED_PORT},cflow")])
            .args(arguments);
        succeed(&mut command, "")
    };
    let remarks = run(&["-Y", "_ws.malformed || _ws.expert", "-V"]);
    assert_eq!(remarks, "", "tshark finds the datagrams not well-formed");

    let packets: Value =
        serde_json::from_str(&run(&["-T", "json", "--no-duplicate-keys", "-J", "cflow"])).unwrap();
    let mut records = Vec::new();
    for packet in packets.as_array().unwrap() {
        let message = &packet["_source"]["layers"]["cflow"];
        let mut header = Decoded::new();
        for (name, value) in message.as_object().unwrap() {
            if name.starts_with("cflow.") {
                flatten(name, value, &mut header);
            }
        }
        data_records(&header, message, &mut records);
    }
    records
}

/// Milliseconds since 1970 of a time as tshark prints it: in words up to version 4.0, in RFC 3339 since then.
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

/// A data record is an object named "Flow 1" or, in version 5, "pdu 1/2". One with a scope is options data. Every
/// record also gets the fields of the message's header.
fn data_records(header: &Decoded, value: &Value, records: &mut Vec<Decoded>) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        if name.starts_with("Flow ") || name.starts_with("pdu ") {
            let mut record = header.clone();
            flatten(name, inner, &mut record);
            if record.contains_key("cflow.protocol") {
                records.push(record);
            }
        } else {
            data_records(header, inner, records);
        }
    }
}

fn flatten(name: &str, value: &Value, record: &mut Decoded) {
    match value {
        Value::String(text) => {
            record.insert(name.to_owned(), text.clone());
        }
        Value::Object(inner) => {
            for (name, value) in inner {
                flatten(name, value, record);
            }
        }
        // This name occurs more than once.
        Value::Array(values) => {
            for value in values {
                flatten(name, value, record);
            }
        }
        _ => {}
    }
}

/// A capture of raw IP (link type 101) with every datagram in a packet of its own.
fn pcap(datagrams: &[Datagram]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for (index, datagram) in datagrams.iter().enumerate() {
        let packet = packet::ip_udp(
            (datagram.from.ip(), CAPTURED_PORT),
            (datagram.from.ip(), CAPTURED_PORT),
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
    address: SocketAddr,
}

impl Nfcapd {
    /// Starts it, and returns when it has bound its port.
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
        let this = Self {
            child,
            directory,
            address,
        };
        wait_for("nfcapd to bind", || this.receive_queue());
        this
    }

    /// Ends it, which makes it write its file, and returns the records that nfdump reads there.
    #[must_use]
    pub fn finish(mut self) -> Vec<Decoded> {
        // Otherwise it would leave queued datagrams unread.
        wait_for("nfcapd to read its socket", || {
            (self.receive_queue() == Some(0)).then_some(())
        });
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        wait_for("nfcapd to end", || self.child.try_wait().unwrap());
        nfdump(self.directory.path())
    }

    /// Octets queued in its socket, once there is one.
    fn receive_queue(&self) -> Option<u64> {
        let family = if self.address.is_ipv4() {
            "udp"
        } else {
            "udp6"
        };
        let table = fs::read_to_string(format!("/proc/{}/net/{family}", self.child.id())).ok()?;
        let port = format!(":{:04X}", self.address.port());
        // Columns: sl local_address rem_address st tx_queue:rx_queue …
        table.lines().find_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let is_its = columns.get(1)?.ends_with(&port);
            let (_, receive) = columns.get(4)?.split_once(':')?;
            is_its.then(|| u64::from_str_radix(receive, 16).ok())?
        })
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
    // Objects with commas between them, in some versions with the brackets of an array around.
    let output = succeed(&mut command, "");
    let output = output.trim().trim_start_matches('[').trim_end_matches(']');
    let records: Vec<BTreeMap<String, Value>> = serde_json::from_str(&format!("[{output}]"))
        .unwrap_or_else(|error| panic!("{error}: {output}"));
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
