//! An archive of two gateways over a midnight, with everything that the columns can say: IPv6, port forwarding, ICMP, no
//! counters, no start, sessions of hours and of days. One of the gateways has merged its first day.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Output};

use nattrail::archive::evidence::Evidence;
use nattrail::archive::row::{Millis, Row};
use nattrail::archive::spool::{Place, Spool};
use nattrail::session::{Counters, Protocol, Provenance, Totals, Tuple};
use serde_json::Value;
use tempfile::TempDir;

use crate::manual;

pub const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// 2026-11-20T06:00:00Z.
const BEGIN: u64 = 1_795_154_400_000;
const HOURS: u64 = 24;
const HOURLY: u64 = 2_100;

/// 2026-11-20T14:30:00Z, the time of the manual's question.
pub const ASKED: u64 = BEGIN + 8 * HOUR + 30 * MINUTE;
/// 2026-11-21T00:00:00Z.
pub const MIDNIGHT: u64 = BEGIN + 18 * HOUR;

/// The archives of the gateways, and a copy of them all without the spools.
pub struct Archive {
    directory: TempDir,
    gateways: Vec<Spool>,
    pub rows: Vec<Row>,
}

impl Archive {
    pub fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let mut numbers = Numbers(7);
        let mut rows = Vec::new();
        let gateways = ["gw-1", "gw-2"].map(|gateway| {
            let root = directory.path().join(gateway);
            let mut spool = Spool::open(&root, gateway, Millis::new(BEGIN)).unwrap();
            for hour in 0..HOURS {
                let begin = BEGIN + hour * HOUR;
                let mut push = |row: Row| {
                    spool.push(&row);
                    rows.push(row);
                };
                (0..HOURLY).for_each(|_| push(numbers.row(begin)));
                if (begin..begin + HOUR).contains(&ASKED) {
                    asked().into_iter().for_each(push);
                }
                let next = hour + 1;
                spool.commit(Place { run: 1, next }).unwrap();
                spool.seal(Millis::new(begin + HOUR)).unwrap();
            }
            let now = Millis::new(BEGIN + HOURS * HOUR + MINUTE).wall();
            let mut evidence = Evidence::new(&root, gateway);
            assert!(evidence.append(spool.sealed_number(), now).unwrap());
            spool
        });
        let mut this = Self {
            directory,
            gateways: gateways.into(),
            rows,
        };
        this.merge(0);
        this
    }

    /// Merges the first day of a gateway, and copies anew.
    pub fn merge(&mut self, gateway: usize) {
        let seals = self.gateways[gateway].compact(Millis::new(BEGIN)).unwrap();
        assert!(!seals.is_empty());
        let copy = self.path("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        for gateway in ["gw-1", "gw-2"] {
            let mut cp = Command::new("cp");
            let cp = cp.arg("-a").arg(self.path(gateway).join(".")).arg(&copy);
            assert!(cp.status().unwrap().success());
            fs::remove_dir_all(copy.join("spool")).unwrap();
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The statements of an example of the manual, about this archive.
    pub fn statements(&self, heading: &str) -> Vec<String> {
        let copy = self.path("copy");
        let example = manual::example(heading).replace("/srv/nat", copy.to_str().unwrap());
        let statements = example.trim_end().trim_end_matches(';').split(";\n");
        statements.map(str::to_owned).collect()
    }

    /// The sessions of nattrail's own answer from the copy.
    pub fn who(&self, question: &[&str]) -> Vec<Value> {
        let output = self.ask("copy", &[&["--json"], question].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        let mut answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
        serde_json::from_value(answer["sessions"].take()).unwrap()
    }

    /// Asks the copy or a gateway.
    pub fn ask(&self, archive: &str, question: &[&str]) -> Output {
        self.run("who", archive, question)
    }

    /// Runs a command about the copy or a gateway.
    pub fn run(&self, command: &str, archive: &str, arguments: &[&str]) -> Output {
        let config = self.path("n.toml");
        // The inbox takes what is asked.
        fs::create_dir_all(self.path("own/inbox")).unwrap();
        let own = self.path("own");
        let text = format!(
            "[pending]\ndatabase = \"/nonexistent/pending.db\"\n[archive]\ndirectory = \"{}\"\n",
            own.display()
        );
        fs::write(&config, text).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_nattrail"));
        program.args([command, "-c"]).arg(config);
        program.arg("--archive").arg(self.path(archive));
        program.args(arguments).output().unwrap()
    }
}

/// Sessions of the address and port of the manual's question. The times at the edges of its interval are in, their
/// neighbours are out.
fn asked() -> Vec<Row> {
    let row = |subscriber: u8, start: Option<u64>, end: u64| Row {
        start: start.map(Millis::new),
        end: Millis::new(end),
        ..outgoing([10, 1, 2, subscriber].into(), [203, 0, 113, 9].into())
    };
    let (first, last) = (ASKED - SECOND, ASKED + 2 * SECOND - 1);
    let forwarded = |subscriber| Row {
        pre: tuple(
            [198, 51, 100, 99].into(),
            4_000,
            [203, 0, 113, 9].into(),
            50_520,
        ),
        post: tuple(
            [198, 51, 100, 99].into(),
            4_000,
            [10, 1, 2, subscriber].into(),
            443,
        ),
        ..row(0, Some(first), last)
    };
    let six = |subscriber: u16| {
        let address = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, last, 9));
        Row {
            start: Some(Millis::new(first)),
            end: Millis::new(last),
            ..outgoing(address(subscriber), address(0))
        }
    };
    vec![
        row(3, Some(ASKED - MINUTE), ASKED + MINUTE),
        row(4, Some(first - MINUTE), first),
        row(5, Some(first - MINUTE), first - 1),
        row(6, Some(last), last + MINUTE),
        row(7, Some(last + 1), last + MINUTE),
        row(8, None, ASKED + SECOND),
        row(9, Some(ASKED - 5 * HOUR), ASKED + 2 * SECOND),
        row(10, Some(ASKED - 70 * HOUR), ASKED + 3 * SECOND),
        forwarded(11),
        six(12),
    ]
}

fn outgoing(subscriber: IpAddr, public: IpAddr) -> Row {
    let server = match subscriber {
        IpAddr::V4(_) => [198, 51, 100, 7].into(),
        IpAddr::V6(_) => "2001:db8:5::7".parse().unwrap(),
    };
    Row {
        pre: tuple(subscriber, 40_356, server, 443),
        post: tuple(public, 50_520, server, 443),
        protocol: Protocol::UDP,
        start: None,
        end: Millis::MIN,
        totals: Some(totals(3, 274, 2, 180)),
        mark: 0,
        zone: 0,
        provenance: Provenance::Kernel,
    }
}

const fn tuple(src: IpAddr, src_port: u16, dst: IpAddr, dst_port: u16) -> Tuple {
    Tuple {
        src,
        dst,
        src_port,
        dst_port,
    }
}

fn totals(packets: u64, octets: u64, answers: u64, answered: u64) -> Totals {
    let counters = |packets, octets| Counters { packets, octets };
    Totals {
        original: counters(packets, octets),
        reply: counters(answers, answered),
    }
}

/// SplitMix64, from the same seed each time.
struct Numbers(u64);

impl Numbers {
    /// A session that ends in the hour from `begin` on.
    fn row(&mut self, begin: u64) -> Row {
        let end = begin + self.below(HOUR);
        let life = match self.below(100) {
            0 => HOUR + self.below(20 * HOUR),
            1 => 24 * HOUR + self.below(48 * HOUR),
            _ => self.below(5 * MINUTE),
        };
        let (subscriber, public) = (self.below(200) as u16, self.below(16) as u16);
        let remote = self.below(1 << 16) as u16;
        // IPv6 in a fifth of the sessions.
        let address = |is_six: bool, net: [u8; 2], host: u16| match is_six {
            true => {
                let net = u16::from_be_bytes(net);
                Ipv6Addr::new(0x2001, 0xdb8, net, 0xfe00, 0, 0, 0, host).into()
            }
            false => {
                let [high, low] = host.to_be_bytes();
                IpAddr::from([net[0], net[1], high, low])
            }
        };
        let is_six = self.one_in(5);
        let inside = address(is_six, [10, 1], 2 << 8 | subscriber);
        let outside = address(is_six, [203, 0], 113 << 8 | public);
        let far = address(is_six, [198, 18], remote);
        let (port, changed) = (self.port(), self.port());
        let post_port = if self.one_in(2) { port } else { changed };
        let (pre, post, protocol) = match self.below(20) {
            0 => {
                let (protocol, echo) = match is_six {
                    true => (Protocol::ICMPV6, 128 << 8),
                    false => (Protocol::ICMP, 8 << 8),
                };
                let (pre, post) = (
                    tuple(inside, port, far, echo),
                    tuple(outside, post_port, far, echo),
                );
                (pre, post, protocol)
            }
            1 => {
                let (pre, post) = (
                    tuple(far, port, outside, 8_443),
                    tuple(far, port, inside, 443),
                );
                (pre, post, Protocol::TCP)
            }
            number => {
                let (pre, post) = (
                    tuple(inside, port, far, 443),
                    tuple(outside, post_port, far, 443),
                );
                (
                    pre,
                    post,
                    if number < 11 {
                        Protocol::TCP
                    } else {
                        Protocol::UDP
                    },
                )
            }
        };
        Row {
            pre,
            post,
            protocol,
            start: (!self.one_in(200)).then(|| Millis::new(end - life)),
            end: Millis::new(end),
            totals: (!self.one_in(8)).then(|| {
                totals(
                    self.below(1 << 20),
                    self.below(1 << 36),
                    self.below(1 << 20),
                    self.below(1 << 36),
                )
            }),
            mark: if self.one_in(9) { u32::MAX } else { 0 },
            zone: if self.one_in(9) { u16::MAX } else { 0 },
            provenance: if self.one_in(50) {
                Provenance::Inferred
            } else {
                Provenance::Kernel
            },
        }
    }

    /// Few enough for several sessions to have the same.
    fn port(&mut self) -> u16 {
        50_500 + self.below(40) as u16
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ value >> 31) % bound
    }
}
