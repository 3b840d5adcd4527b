//! The compared programs, each started the same way, and their records counted.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nattrail::config::Config;
use nattrail::kernel::conntrack::{Batch, Datagram, EventSocket};
use nattrail::metrics::Metrics;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::family;
use crate::support::conntrack::is_listening;
use crate::support::daemon::{Home, PROGRAM};
use crate::support::gateway::WAN;
use crate::support::netns::Namespace;
use crate::support::{find_program, wait_until};

/// The argument that makes this program the null reader.
pub const NULL_READER: &str = "null-reader";

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Kind {
    /// It reads and counts, nothing else.
    Null,
    /// nattrail with its database and IPFIX events.
    Nattrail,
    /// The same and a CSV file.
    NattrailCsv,
    /// nattrail with IPFIX events, and a viewer whose filter matches nothing.
    NattrailTailNothing,
    /// The same, and the viewer wants everything.
    NattrailTail,
    /// conntrack -E to a file.
    Conntrack,
    /// ulogd2 to a file.
    Ulogd,
    /// ulogd2 to SQLite.
    UlogdSqlite,
    /// natlog to a file. All connections come from one address and port here, which may be why it keeps so few: that is not
    /// examined.
    Natlog,
}

impl Kind {
    /// The programs compared by default.
    pub const ALL: [Self; 7] = [
        Self::Null,
        Self::Nattrail,
        Self::NattrailCsv,
        Self::Conntrack,
        Self::Ulogd,
        Self::UlogdSqlite,
        Self::Natlog,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null reader",
            Self::Nattrail => "nattrail, IPFIX",
            Self::NattrailCsv => "nattrail, IPFIX, CSV",
            Self::NattrailTailNothing => "nattrail, tail nothing",
            Self::NattrailTail => "nattrail, tail",
            Self::Conntrack => "conntrack -E, file",
            Self::Ulogd => "ulogd2, file",
            Self::UlogdSqlite => "ulogd2, SQLite",
            Self::Natlog => "natlog, file",
        }
    }

    /// The programs that it needs and that are missing.
    pub fn missing(self) -> Option<&'static str> {
        let needed = match self {
            Self::Null
            | Self::Nattrail
            | Self::NattrailCsv
            | Self::NattrailTailNothing
            | Self::NattrailTail => None,
            Self::Conntrack => Some("conntrack"),
            Self::Ulogd => Some("ulogd"),
            Self::UlogdSqlite if ulogd_plugin("output_SQLITE3").is_none() => {
                return Some("ulogd2-sqlite3");
            }
            Self::UlogdSqlite => Some("ulogd"),
            Self::Natlog => Some("natlog"),
        };
        needed.filter(|program| find_program(program).is_none())
    }

    /// The arguments of the viewer, where there is one.
    const fn viewer(self) -> Option<&'static [&'static str]> {
        match self {
            Self::NattrailTailNothing => Some(&["tail", "--json", "--src", "192.0.2.1"]),
            Self::NattrailTail => Some(&["tail", "--json"]),
            _ => None,
        }
    }
}

/// The records that a program has kept of the load.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub creates: Option<u64>,
    pub deletes: u64,
    pub metrics: Option<Metrics>,
}

/// A running program; killed on drop.
pub struct Reader {
    kind: Kind,
    home: Home,
    child: Child,
    viewer: Option<Child>,
    /// Receives the collector's datagrams, and drops them when it is full.
    _collector: UdpSocket,
}

impl Reader {
    /// Starts it, and returns when it listens.
    pub fn start(kind: Kind, gateway: &Namespace) -> Self {
        let collector = gateway.run(|| UdpSocket::bind(("127.0.0.1", 0)).unwrap());
        let home = Home::new(&nattrail_configuration(&collector, None));
        Self::start_in(kind, home, collector, gateway)
    }

    fn start_in(kind: Kind, home: Home, collector: UdpSocket, gateway: &Namespace) -> Self {
        if kind == Kind::NattrailCsv {
            let csv = output(&home);
            home.configure(&nattrail_configuration(&collector, Some(&csv)));
        }
        let mut command = command(kind, &home);
        let messages = File::create(home.path().join("messages")).unwrap();
        command.stdin(Stdio::null()).stderr(messages);
        let child = gateway.spawn(&mut command).unwrap();
        let mut reader = Self {
            kind,
            home,
            child,
            viewer: None,
            _collector: collector,
        };
        let messages = reader.home.path().join("messages");
        let listens = || family(reader.pid()).into_iter().any(is_listening);
        let patience = Instant::now() + Duration::from_secs(60);
        let listening = wait_until(patience, || listens().then_some(()));
        assert!(
            listening.is_some(),
            "{} does not listen: {}",
            kind.name(),
            fs::read_to_string(messages).unwrap_or_default()
        );
        reader.viewer = kind.viewer().map(|arguments| {
            let answers = wait_until(patience, || reader.metrics());
            assert!(answers.is_some(), "{} does not answer", kind.name());
            let mut command = Command::new(PROGRAM);
            command.args(arguments);
            command.arg("--config").arg(reader.home.config());
            reader.home.dress(&mut command);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        });
        reader
    }

    /// Ends it by a planned stop, and starts it again where it stopped.
    pub fn restart(self, gateway: &Namespace, meanwhile: impl FnOnce()) -> Self {
        let (kind, home, collector) = self.stop();
        meanwhile();
        Self::start_in(kind, home, collector, gateway)
    }

    /// Has nattrail read its configuration again, with one more line in `[capture]`.
    pub fn reload(&self, line: &str) {
        let before = fs::read_to_string(self.home.config()).unwrap();
        let after = before.replacen("[capture]\n", &format!("[capture]\n{line}\n"), 1);
        self.home.configure(&after);
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), Signal::HUP).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status of nattrail; `None` while it does not answer, and for other programs.
    pub fn metrics(&self) -> Option<Metrics> {
        let mut stream = UnixStream::connect(self.home.runtime().join("control.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"status\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        serde_json::from_slice(&answer).ok()
    }

    /// Stops it and counts its records.
    pub fn finish(self) -> Kept {
        let metrics = self.metrics();
        let (kind, home, _) = self.stop();
        let address = WAN.to_string();
        match kind {
            Kind::Nattrail | Kind::NattrailCsv | Kind::NattrailTailNothing | Kind::NattrailTail => {
                Kept {
                    creates: metrics.as_ref().map(|metrics| metrics.sessions.creates),
                    deletes: metrics
                        .as_ref()
                        .map_or(0, |metrics| metrics.sessions.deletes),
                    metrics,
                }
            }
            Kind::Null => {
                let said = fs::read_to_string(output(&home)).unwrap_or_default();
                let mut counts = said.split_whitespace().flat_map(str::parse);
                Kept {
                    creates: counts.next(),
                    deletes: counts.next().unwrap_or(0),
                    metrics: None,
                }
            }
            Kind::Conntrack | Kind::Ulogd => {
                let [creates, deletes] =
                    count_lines(&output(&home), &["[NEW]", "[DESTROY]"], &address);
                Kept {
                    creates: Some(creates),
                    deletes,
                    metrics: None,
                }
            }
            Kind::UlogdSqlite => count_rows(&home),
            Kind::Natlog => {
                let [all, unfinished] = count_lines(&output(&home), &["via", "(EOP)"], &address);
                Kept {
                    creates: None,
                    deletes: all - unfinished,
                    metrics: None,
                }
            }
        }
    }

    fn stop(mut self) -> (Kind, Home, UdpSocket) {
        self.terminate();
        let socket = self._collector.try_clone().unwrap();
        let home = std::mem::replace(&mut self.home, Home::new(""));
        (self.kind, home, socket)
    }

    fn terminate(&mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let deadline = Instant::now() + Duration::from_secs(60);
        let ended = wait_until(deadline, || self.child.try_wait().ok().flatten());
        if ended.is_none() {
            eprintln!(
                "*** {} does not end when it is told to ***",
                self.kind.name()
            );
        }
        let _ = self.child.kill();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(viewer) = &mut self.viewer {
            let _ = viewer.kill();
            let _ = viewer.wait();
        }
        for pid in family(self.pid()).into_iter().rev() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = self.child.wait();
    }
}

/// The null reader: the same socket as nattrail's, read the same way.
pub fn null_reader() {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop)).unwrap();
    let socket =
        EventSocket::open(&Config::default().capture, &Config::default().selections()).unwrap();
    let mut poll = Poll::new().unwrap();
    let mut ready = Events::with_capacity(1);
    let source = socket.as_fd().as_raw_fd();
    let registered = poll
        .registry()
        .register(&mut SourceFd(&source), Token(0), Interest::READABLE);
    registered.unwrap();
    let mut batch = Batch::new();
    let mut counts = [0_u64; 2];
    while !stop.load(Ordering::Relaxed) {
        match socket.receive(&mut batch) {
            Ok(()) => {
                for datagram in batch.iter() {
                    if let Datagram::Kernel(bytes) = datagram {
                        // The low octet of nlmsg_type: 0 is IPCTNL_MSG_CT_NEW, 2 IPCTNL_MSG_CT_DELETE.
                        counts[usize::from(bytes[4] == 2)] += 1;
                    }
                }
            }
            // A signal ends the wait too.
            Err(_) => drop(poll.poll(&mut ready, Some(Duration::from_millis(500)))),
        }
    }
    println!("{} {}", counts[0], counts[1]);
}

fn nattrail_configuration(collector: &UdpSocket, csv: Option<&Path>) -> String {
    let address = collector.local_addr().unwrap();
    let copy = csv.map(|path| {
        format!(
            "[[syslog]]\ntarget = \"file\"\nformat = \"csv\"\npath = \"{}\"\n",
            path.display()
        )
    });
    format!(
        "[capture]\nset-sysctls = true\n[[collector]]\naddress = \"{address}\"\nversion = \"ipfix\"\n{}",
        copy.unwrap_or_default()
    )
}

/// The file of programs that write to a file.
fn output(home: &Home) -> PathBuf {
    home.path().join("records")
}

fn database(home: &Home) -> PathBuf {
    home.path().join("ulogd.db")
}

/// All get the same receive buffer as an option. conntrack 1.4.7 enlarges the buffer of another socket than the one on
/// which it receives events.
fn command(kind: Kind, home: &Home) -> Command {
    let buffer = Config::default().capture.receive_buffer.to_string();
    let file = || File::create(output(home)).unwrap();
    match kind {
        Kind::Null => {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.arg(NULL_READER).stdout(file());
            command
        }
        Kind::Nattrail | Kind::NattrailCsv | Kind::NattrailTailNothing | Kind::NattrailTail => {
            let mut command = home.command();
            command.stdout(Stdio::null());
            command
        }
        Kind::Conntrack => {
            let mut command = Command::new("conntrack");
            let events = ["-E", "-e", "NEW,DESTROY", "-n", "-o", "timestamp", "-b"];
            command.args(events).arg(buffer).stdout(file());
            command
        }
        Kind::Ulogd | Kind::UlogdSqlite => {
            let configuration = home.path().join("ulogd.conf");
            fs::write(&configuration, ulogd_configuration(kind, home, &buffer)).unwrap();
            let mut command = Command::new("ulogd");
            command.arg("-c").arg(configuration).stdout(Stdio::null());
            command
        }
        Kind::Natlog => {
            let conntrack = find_program("conntrack").unwrap_or_default();
            let mut command = Command::new("natlog");
            command
                .args([
                    "--config",
                    "/dev/null",
                    "--no-daemon",
                    "--protocol",
                    "udp",
                    "--log",
                ])
                .arg(output(home))
                .arg("--conntrack-command")
                .arg(format!(
                    "{} -p udp -E -n -o timestamp -e NEW,DESTROY -b {buffer}",
                    conntrack.display()
                ))
                .arg("conntrack")
                .stdout(Stdio::null());
            command
        }
    }
}

/// Events as they come, without ulogd's own table of them, which a log of translations does not need.
fn ulogd_configuration(kind: Kind, home: &Home, buffer: &str) -> String {
    let (plugins, stack, section): (&[&str], _, _) = if kind == Kind::Ulogd {
        let section = format!("[emu1]\nfile=\"{}\"\nsync=0\n", output(home).display());
        let plugins = &["filter_IP2STR", "filter_PRINTFLOW", "output_LOGEMU"];
        (
            plugins,
            "ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU",
            section,
        )
    } else {
        let database = database(home);
        let connection = Connection::open(&database).unwrap();
        connection.execute_batch(ULOGD_TABLE).unwrap();
        let section = format!(
            "[sqlite1]\ntable=\"ulog_ct\"\ndb=\"{}\"\n",
            database.display()
        );
        (
            &["filter_IP2STR", "output_SQLITE3"],
            "ct1:NFCT,ip2str1:IP2STR,sqlite1:SQLITE3",
            section,
        )
    };
    let mut text = format!(
        "[global]\nlogfile=\"{}\"\n",
        home.path().join("ulogd.log").display()
    );
    for plugin in ["inpflow_NFCT"].iter().chain(plugins) {
        let path = ulogd_plugin(plugin).unwrap_or_default();
        text.push_str(&format!("plugin=\"{}\"\n", path.display()));
    }
    // ulogd sets only a size below the largest.
    text.push_str(&format!(
        "stack={stack}\n[ct1]\nevent_mask=0x00000005\nhash_enable=0\n\
         netlink_socket_buffer_size={buffer}\nnetlink_socket_buffer_maxsize={buffer}0\n{section}"
    ));
    text
}

/// Columns are named as ulogd's keys, with underscores.
const ULOGD_TABLE: &str = "CREATE TABLE ulog_ct (
  ct_event INT, ct_id INT, flow_start_sec INT, flow_start_usec INT, flow_end_sec INT, flow_end_usec INT,
  orig_ip_saddr_str TEXT, orig_ip_daddr_str TEXT, orig_l4_sport INT, orig_l4_dport INT, orig_ip_protocol INT,
  reply_ip_saddr_str TEXT, reply_ip_daddr_str TEXT, reply_l4_sport INT, reply_l4_dport INT,
  orig_raw_pktlen INT, orig_raw_pktcount INT, reply_raw_pktlen INT, reply_raw_pktcount INT);";

fn ulogd_plugin(name: &str) -> Option<PathBuf> {
    let file = format!("ulogd_{name}.so");
    let libraries = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut places = libraries.map(|entry| entry.path().join("ulogd").join(&file));
    places.find(|path| path.is_file())
}

/// The number of lines with `address` that have each of the words.
fn count_lines<const N: usize>(path: &Path, words: &[&str; N], address: &str) -> [u64; N] {
    let mut counts = [0; N];
    let Ok(file) = File::open(path) else {
        return counts;
    };
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if line.contains(address) {
            for (count, word) in counts.iter_mut().zip(words) {
                *count += u64::from(line.contains(word));
            }
        }
    }
    counts
}

fn count_rows(home: &Home) -> Kept {
    // ct.event of the library: 1 is a new connection, 4 an end.
    let connection = Connection::open(database(home)).unwrap();
    let count = |event: u32| -> u64 {
        let sql = "SELECT count(*) FROM ulog_ct WHERE ct_event = ?1 AND reply_ip_daddr_str = ?2";
        let row = connection.query_row(sql, (event, WAN.to_string()), |row| row.get::<_, i64>(0));
        row.map_or(0, i64::cast_unsigned)
    };
    Kept {
        creates: Some(count(1)),
        deletes: count(4),
        metrics: None,
    }
}
