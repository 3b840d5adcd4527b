//! A gateway whose daemon has every kind of output at once, and the receivers of all of them.
//!
//! ```text
//!   gateway                    far
//!   mgt 192.0.2.1  ──  eth0 192.0.2.2, lo 192.0.2.129: the collectors and the syslog server
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::ledger::{Generator, Key};
use crate::read::{self, Decoder, Header, Item, Lines};
use crate::support::collector::{Datagram, Receiver};
use crate::support::daemon::{CAPTURE, Daemon, Home};
use crate::support::gateway::{Gateway, MASQUERADE};
use crate::support::manager::Manager;
use crate::support::netns::{Namespace, unique};
use crate::support::status::{ask, number};
use crate::support::wait_until;

/// The time that a test waits for the record log.
pub const LONG: Duration = Duration::from_secs(120);

const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 129));

/// The outputs beyond the network, in the order of the configuration.
pub const FAR_OUTPUTS: [(&str, u16); 4] =
    [("ipfix", 4739), ("v9", 2055), ("v5", 2056), ("syslog", 514)];
/// All outputs, in the order of the status.
pub const OUTPUTS: [&str; 7] = ["ipfix", "v9", "v5", "syslog", "local", "file", "journal"];

/// The daemon's own packets are not tracked, so the table has only the sessions that a test makes.
const UNTRACKED: &str = "
table ip untracked {
  chain output { type filter hook output priority raw; oifname { mgt, lo } notrack; }
  chain prerouting { type filter hook prerouting priority raw; iifname { mgt, lo } notrack; }
}
";

pub struct Scene {
    // Dropped in this order: the daemon before its environment.
    pub daemon: Option<Daemon>,
    pub manager: Manager,
    pub home: Home,
    pub net: Gateway,
    far: Namespace,
    router: Option<Namespace>,
    receivers: Vec<Receiver>,
    /// The messages of closed receivers.
    earlier: [Vec<Datagram>; 4],
    pub local: Option<Mailbox>,
    pub journal: Option<Mailbox>,
    pub sessions: Generator,
    pub made: Vec<Key>,
}

impl Scene {
    /// A gateway without a daemon, its far receivers away: there is no route to them.
    pub fn new() -> Option<Self> {
        let net = Gateway::new(&[])?;
        let far = Namespace::new(unique(), "far");
        net.gateway.ip(&format!(
            "link add mgt type veth peer name eth0 netns {}
             link set mgt up
             addr add 192.0.2.1/25 dev mgt",
            far.name()
        ));
        far.ip("link set eth0 up
             addr add 192.0.2.2/25 dev eth0
             addr add 192.0.2.129/32 dev lo");
        net.nft(&format!("{MASQUERADE}{UNTRACKED}"));
        net.keep_accounts();
        let home = Home::new("");
        let sessions = Generator::new(&net);
        Some(Self {
            daemon: None,
            manager: Manager::new(),
            local: Some(Mailbox::bind(home.path().join("local.sock"))),
            journal: Some(Mailbox::bind(home.path().join("journal.sock"))),
            home,
            net,
            far,
            router: None,
            receivers: Vec::new(),
            earlier: Default::default(),
            sessions,
            made: Vec::new(),
        })
    }

    /// Configures every kind of output; `collector` holds further keys of each collector, `rest` ends the file.
    pub fn configure(&self, collector: &str, rest: &str) {
        let mut config = format!("{CAPTURE}\n[pending]\nflush = \"100ms\"\n{rest}\n");
        for (version, port) in &FAR_OUTPUTS[..3] {
            config += &format!(
                "[[collector]]\naddress = \"{FAR}:{port}\"\nversion = \"{version}\"\n{collector}\n"
            );
        }
        let path = |name: &str| self.home.path().join(name).display().to_string();
        config += &format!(
            "[[syslog]]\ntarget = \"udp\"\naddress = \"{FAR}\"\nformat = \"rfc5424\"\n
             [[syslog]]\ntarget = \"local\"\npath = \"{}\"\nformat = \"text\"\n
             [[syslog]]\ntarget = \"file\"\npath = \"{}\"\nformat = \"json\"\n
             [[syslog]]\ntarget = \"journal\"\npath = \"{}\"\n",
            path("local.sock"),
            path("records.json"),
            path("journal.sock"),
        );
        self.home.configure(&config);
    }

    pub fn start(&mut self) {
        let daemon = Daemon::start(&self.net.gateway, &self.home);
        let _ = daemon.wait_for_message("started: ");
        self.daemon = Some(daemon);
        // A session that the first audit finds is not announced by its own event.
        self.wait_for_status("the first audit", |status| {
            number(status, "/sessions/audits") > 0
        });
    }

    /// The same, with the descriptors that the service manager has kept.
    pub fn start_managed(&mut self) {
        let daemon = self.manager.start(&self.net.gateway, &self.home);
        let _ = daemon.wait_for_message("started: ");
        self.daemon = Some(daemon);
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    pub fn take_daemon(&mut self) -> Daemon {
        self.daemon.take().unwrap()
    }

    pub fn add_route(&self) {
        self.net
            .gateway
            .ip("route add 192.0.2.129/32 via 192.0.2.2");
    }

    /// Puts the far host behind a router, whose link takes at most 1280 octets at once.
    pub fn narrow_way(&mut self) {
        let behind = Namespace::new(unique(), "behind");
        let router = std::mem::replace(&mut self.far, behind);
        router.ip(&format!(
            "addr del 192.0.2.129/32 dev lo
             link add narrow mtu 1280 type veth peer name eth0 mtu 1280 netns {}
             link set narrow up
             route add 192.0.2.129/32 dev narrow",
            self.far.name()
        ));
        router.sysctl("net/ipv4/ip_forward", "1");
        self.far.ip("link set eth0 up
             addr add 192.0.2.129/32 dev eth0
             route add default dev eth0");
        self.router = Some(router);
    }

    pub fn delete_route(&self) {
        self.net.gateway.ip("route del 192.0.2.129/32");
    }

    /// Starts the far receivers.
    pub fn listen(&mut self) {
        assert!(self.receivers.is_empty());
        for (_, port) in FAR_OUTPUTS {
            self.receivers.push(self.receive(port));
        }
    }

    /// A receiver at another port.
    pub fn receive(&self, port: u16) -> Receiver {
        Receiver::bind(&self.far, SocketAddr::new(FAR, port))
    }

    /// Closes them: their host answers that the port is unreachable.
    pub fn close(&mut self) {
        for (index, receiver) in self.receivers.drain(..).enumerate() {
            self.earlier[index].extend(receiver.finish());
        }
    }

    /// Makes sessions and waits until the daemon has announced them, then ends them and waits for their ends.
    pub fn make(&mut self, count: u32) {
        self.begin(count);
        self.end();
    }

    pub fn begin(&mut self, count: u32) {
        let creates = number(&ask(&self.home), "/sessions/creates");
        self.made
            .extend(self.sessions.begin_all(&self.net, count, 0));
        self.wait_for_status("the creates", |status| {
            number(status, "/sessions/creates") == creates + u64::from(count)
        });
    }

    pub fn end(&self) {
        self.net.end_connections();
        self.wait_for_status("the deletes to be in the database", |status| {
            let next = number(status, "/log/serial").cast_signed() + 1;
            let has_all = || {
                self.committed()
                    .is_some_and(|(committed, _)| committed == next)
            };
            number(status, "/sessions/pending") == 0 && has_all()
        });
    }

    pub fn wait_for_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let answer = wait_until(Instant::now() + LONG, || {
            let status = ask(&self.home);
            is_so(&status).then_some(status)
        });
        answer.unwrap_or_else(|| panic!("waited {LONG:?} for {what} in {:#}", ask(&self.home)))
    }

    /// Waits until every output has taken every record.
    pub fn wait_until_taken(&self) -> Value {
        self.wait_for_status("all outputs to take all", |status| {
            let outputs = status["outputs"].as_array().unwrap();
            let taken = |output: &Value| number(output, "/behind") == 0;
            outputs.iter().all(taken)
        })
    }

    /// Waits until the database has every record, and has noted that these outputs (by parts of their keys) took all.
    pub fn wait_until_committed(&self, outputs: &[&str]) {
        let committed = wait_until(Instant::now() + LONG, || {
            let (next, places) = self.committed()?;
            let taken = |part: &&str| {
                let mut found = places.iter().filter(|(key, _)| key.contains(*part));
                found.all(|(_, serial)| *serial == next)
            };
            let known = number(&ask(&self.home), "/log/serial").cast_signed() + 1;
            (next == known && outputs.iter().all(taken)).then_some(())
        });
        assert!(committed.is_some(), "{:?}", self.committed());
    }

    /// The serial of the next record, and the place of each output, as of the database.
    pub fn committed(&self) -> Option<(i64, Vec<(String, i64)>)> {
        let path = self.home.state().join("pending.db");
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let next = connection.query_row("SELECT serial FROM run", [], |row| row.get(0));
        let mut select = connection.prepare("SELECT key, serial FROM output").ok()?;
        let places = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let places = places.ok()?.collect::<Result<_, _>>().ok()?;
        Some((next.ok()?, places))
    }

    fn datagrams(&self, index: usize) -> Vec<Datagram> {
        let mut datagrams = self.earlier[index].clone();
        if let Some(receiver) = self.receivers.get(index) {
            datagrams.extend(receiver.so_far());
        }
        datagrams
    }

    /// The messages that reached a far output, and their contents.
    pub fn far(&self, index: usize) -> (Vec<Header>, Vec<Item>) {
        let datagrams = self.datagrams(index);
        let mut items = Vec::new();
        if FAR_OUTPUTS[index].0 == "syslog" {
            let lines = datagrams
                .iter()
                .map(|datagram| std::str::from_utf8(&datagram.payload).unwrap());
            return (
                Vec::new(),
                lines.map(|line| read::line(Lines::Rfc5424, line)).collect(),
            );
        }
        let mut decoder = Decoder::default();
        let headers = datagrams
            .iter()
            .map(|datagram| decoder.message(datagram, &mut items))
            .collect();
        (headers, items)
    }

    /// The datagrams of a far output that gets lines.
    pub fn texts(&self, index: usize) -> Vec<String> {
        let datagrams = self.datagrams(index).into_iter();
        let text = |datagram: Datagram| String::from_utf8(datagram.payload).unwrap();
        datagrams.map(text).collect()
    }

    pub fn file(&self) -> PathBuf {
        self.home.path().join("records.json")
    }

    /// The items of an output, by its index in [`OUTPUTS`].
    pub fn items(&self, index: usize) -> Vec<Item> {
        let texts = |mailbox: &Option<Mailbox>, format| {
            let texts = mailbox.as_ref().unwrap().so_far();
            texts.iter().map(|text| read::line(format, text)).collect()
        };
        match OUTPUTS[index] {
            "local" => texts(&self.local, Lines::Rfc3164),
            "journal" => texts(&self.journal, Lines::Journal),
            "file" => fs::read_to_string(self.file())
                .unwrap_or_default()
                .lines()
                .map(|line| read::line(Lines::Json, line))
                .collect(),
            _ => self.far(index).1,
        }
    }

    /// The number of events of an output, and its gaps: for so many events that reading each would take long.
    pub fn counts(&self, index: usize) -> (u64, Vec<Item>) {
        let of_lines = |format, texts: &mut dyn Iterator<Item = String>| {
            let (gaps, events): (Vec<_>, Vec<_>) = texts.partition(|text| text.contains("cause"));
            let gaps = gaps.iter().map(|text| read::line(format, text)).collect();
            (events.len() as u64, gaps)
        };
        let of_mailbox = |format, mailbox: &Option<Mailbox>| {
            of_lines(format, &mut mailbox.as_ref().unwrap().so_far().into_iter())
        };
        match OUTPUTS[index] {
            "local" => of_mailbox(Lines::Rfc3164, &self.local),
            "journal" => of_mailbox(Lines::Journal, &self.journal),
            "file" => {
                let text = fs::read_to_string(self.file()).unwrap();
                of_lines(Lines::Json, &mut text.lines().map(str::to_owned))
            }
            "syslog" => of_lines(Lines::Rfc5424, &mut self.texts(index).into_iter()),
            _ => {
                let items = self.far(index).1;
                let all = items.len();
                let gaps = items
                    .into_iter()
                    .filter(|item| matches!(item, Item::Gap { .. }));
                let gaps: Vec<_> = gaps.collect();
                ((all - gaps.len()) as u64, gaps)
            }
        }
    }

    /// Runs a program in the gateway.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        self.net.gateway.succeed(command.args(arguments), "")
    }
}

/// A local datagram socket that keeps its messages.
pub struct Mailbox {
    texts: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Mailbox {
    pub fn bind(path: PathBuf) -> Self {
        Self::slow(path, Duration::ZERO)
    }

    /// A slow one, which pauses after each ten datagrams, as many as the kernel queues for it.
    pub fn slow(path: PathBuf, pause: Duration) -> Self {
        // A restarted receiver does this.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let texts = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (sink, stopped) = (Arc::clone(&texts), Arc::clone(&stop));
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let text = std::str::from_utf8(&buffer[..length]).unwrap();
                    sink.lock().unwrap().push(text.to_owned());
                    count += 1;
                    if count % 10 == 0 && !pause.is_zero() {
                        thread::sleep(pause);
                    }
                }
            }
        });
        Self {
            texts,
            stop,
            reader: Some(reader),
        }
    }

    pub fn so_far(&self) -> Vec<String> {
        self.texts.lock().unwrap().clone()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
