//! A gateway with a daemon and an archiver, and the archive's rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nattrail::archive::row::{Millis, Row};
use nattrail::archive::spool::Reader;
use nattrail::archive::table::Table;
use nattrail::archive::tree::ArchivedGap;
use nattrail::archive::wanted::Wanted;
use serde_json::Value;

use crate::ledger::{Generator, Key};
use crate::support::daemon::{CAPTURE, Daemon, Home, PROGRAM};
use crate::support::gateway::{Gateway, MASQUERADE};
use crate::support::manager::Manager;
use crate::support::record::parse_millis;
use crate::support::status::{ask, number};
use crate::support::wait_for;

pub struct Scene {
    // Dropped in this order: the processes before their environment.
    pub daemon: Option<Daemon>,
    pub archiver: Option<Daemon>,
    pub manager: Manager,
    pub home: Home,
    pub net: Gateway,
    pub sessions: Generator,
    /// The archive and the copies.
    outputs: usize,
}

impl Scene {
    /// Both processes run, and the archive keeps what the copy in [`Self::file`] has, too.
    pub fn new() -> Option<Self> {
        Self::prepared("", |_, _| ())
    }

    /// The same with more copies, after something that comes before both processes.
    pub fn prepared(copies: &str, prepare: impl FnOnce(&Gateway, &Path)) -> Option<Self> {
        let net = Gateway::new(&[])?;
        net.nft(MASQUERADE);
        net.keep_accounts();
        let home = Home::new("");
        let path = |name: &str| home.path().join(name).display().to_string();
        home.configure(&format!(
            "{CAPTURE}\n[pending]\nflush = \"100ms\"\n[archive]\ndirectory = \"{}\"\ngateway = \"gw-1\"\n
             [[syslog]]\ntarget = \"file\"\npath = \"{}\"\nformat = \"json\"\n{copies}",
            path("archive"),
            path("records.json")
        ));
        let sessions = Generator::new(&net);
        prepare(&net, &home.path().join("archive"));
        let mut this = Self {
            daemon: None,
            archiver: None,
            manager: Manager::new(),
            home,
            net,
            sessions,
            outputs: 2 + copies.matches("[[syslog]]").count(),
        };
        this.start_daemon();
        this.start_archiver();
        // Before that the daemon keeps nothing for it.
        wait_for("the daemon to hear of the archive", || {
            (ask(&this.home)["outputs"].as_array()?.len() == this.outputs).then_some(())
        });
        // A daemon that is killed before it has noted that down would keep nothing, either.
        let commits = || number(&ask(&this.home), "/store/commits");
        let before = commits();
        wait_for("the daemon to note it down", || {
            (commits() > before + 1).then_some(())
        });
        Some(this)
    }

    pub fn start_daemon(&mut self) {
        let daemon = self.manager.start(&self.net.gateway, &self.home);
        let _ = daemon.wait_for_message("started: ");
        self.daemon = Some(daemon);
    }

    pub fn start_archiver(&mut self) {
        self.archiver = Some(Daemon::spawn(
            &self.net.gateway,
            &mut self.command(&["archive", "run"]),
        ));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        self.home.dress(&mut command);
        command
            .arg("--config")
            .arg(self.home.config())
            .args(arguments);
        command
    }

    pub fn root(&self) -> PathBuf {
        self.home.path().join("archive")
    }

    pub fn file(&self) -> PathBuf {
        self.home.path().join("records.json")
    }

    /// Waits until the archive and the copy have everything that the daemon knows.
    pub fn wait_until_archived(&self) {
        wait_for("the archive to have all records", || {
            let status = ask(&self.home);
            let outputs = status["outputs"].as_array().unwrap();
            let behind = outputs
                .iter()
                .map(|output| output["behind"].as_u64().unwrap());
            let waits = number(&status, "/sessions/pending") + behind.sum::<u64>();
            (waits == 0 && outputs.len() == self.outputs).then_some(())
        });
    }

    /// How often the archive has each session, by its ports, with its end.
    pub fn rows(&self) -> BTreeMap<(Key, i64), u32> {
        let mut found = BTreeMap::new();
        let mut count = |row: Row| {
            let key = (row.pre.src_port, row.pre.dst_port);
            let end = i64::try_from(row.end.get()).unwrap();
            *found.entry((key, end)).or_default() += 1;
        };
        let all = Wanted::alive(Millis::default()..=Millis::MAX);
        let reader = Reader::open(&self.root()).unwrap();
        reader.find(&all, &mut count).unwrap();
        for path in reader.sessions(&all.alive).unwrap() {
            Table::open(&path).unwrap().for_each(&mut count).unwrap();
        }
        found
    }

    /// The archive has what the copy has, and nothing more often than that: the copy repeats records after a crash. Returns the
    /// sessions.
    pub fn assert_archived_once(&self) -> BTreeSet<(Key, i64)> {
        let mut copied: BTreeMap<_, u32> = BTreeMap::new();
        for session in self.ended() {
            *copied.entry((session.key, session.end)).or_default() += 1;
        }
        let rows = self.rows();
        let is_double =
            |(row, count): &(&_, &u32)| **count > copied.get(*row).copied().unwrap_or(1);
        let doubles: Vec<_> = rows.iter().filter(is_double).collect();
        assert!(doubles.is_empty(), "{doubles:?}");
        let expected: BTreeSet<_> = copied.into_keys().collect();
        let archived: BTreeSet<_> = rows.into_keys().collect();
        let missing: Vec<_> = expected.difference(&archived).collect();
        let gaps = self.gaps();
        assert!(
            missing.is_empty(),
            "{} missing, {:?}; gaps: {gaps:#?}",
            missing.len(),
            missing.iter().take(3).collect::<Vec<_>>()
        );
        let others: Vec<_> = archived.difference(&expected).collect();
        assert!(others.is_empty(), "{others:?}");
        archived
    }

    /// The gaps in the archive.
    pub fn gaps(&self) -> Vec<ArchivedGap> {
        let reader = Reader::open(&self.root()).unwrap();
        let all = Millis::default()..=Millis::MAX;
        let seals = reader.seals(&all).unwrap().into_iter();
        let sealed = seals.flat_map(|seal| seal.gaps);
        sealed.chain(reader.gaps().iter().cloned()).collect()
    }

    /// The sessions in the copy that ended. A kill may leave a line torn, which the next run repeats.
    pub fn ended(&self) -> Vec<Ended> {
        let text = fs::read_to_string(self.file()).unwrap();
        let records = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let deletes = records.filter(|record| record["event"] == "delete");
        let ended = deletes.map(|record| {
            let port = |name: &str| u16::try_from(record[name].as_u64().unwrap()).unwrap();
            let time = |name: &str| parse_millis(record[name].as_str().unwrap());
            Ended {
                key: (port("pre_sport"), port("pre_dport")),
                post_sport: port("post_sport"),
                start: time("start"),
                end: time("end"),
            }
        });
        ended.collect()
    }
}

/// A session as the copy has it, with times in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub key: Key,
    pub post_sport: u16,
    pub start: i64,
    pub end: i64,
}
