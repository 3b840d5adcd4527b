//! Others check what the archive's proof says: the recipe of nattrail-proof(7), word for word, and the implementation that
//! signed notes and tiles come from.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nattrail::archive::proof::bundle::Bundle;
use nattrail::archive::proof::log::Log;
use nattrail::archive::proof::rows::{RowPath, RowProof, RowTree};
use nattrail::archive::proof::tiles::Reader;
use nattrail::archive::proof::verify::{Report, verify};
use nattrail::archive::row::{Millis, Row};
use nattrail::session::{Counters, Protocol, Provenance, Totals, Tuple};
use nattrail::time::Wall;
use serde_json::{Value, json};
use support::can_run;
use support::recipe::recipe;
use tempfile::TempDir;

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proof/peer.go");
const START: u64 = 1_795_000_000;
const DAY: u64 = 86_400;

/// A log of three days, with an entry for a file of [`rows`] on each and many others.
struct Archive(TempDir);

impl Archive {
    fn new() -> Self {
        let memory = tempfile::tempdir_in("/dev/shm");
        let archive = Self(memory.or_else(|_| tempfile::tempdir()).unwrap());
        let mut tree = RowTree::default();
        rows().iter().for_each(|row| tree.push(row));
        let mut log = archive.open(START);
        for day in 0..3 {
            for number in 0..99 {
                let entry = json!({"files": [{"rows": tree.rows(), "row_root": tree.root()}], "number": number});
                let now = Wall::from_secs(START + day * DAY + number);
                log.append(entry.to_string().as_bytes(), now).unwrap();
            }
        }
        archive
    }

    fn open(&self, secs: u64) -> Log {
        let keys = self.0.path().join("keys");
        Log::open(
            &self.log(),
            &keys,
            "gw1.example/nattrail",
            Wall::from_secs(secs),
        )
        .unwrap()
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn report(&self) -> Report {
        let report = verify(
            &self.log(),
            None,
            &[],
            Wall::from_secs(START),
            &mut |_, _| (),
        );
        report.unwrap()
    }

    /// Writes a proof of an entry and a row.
    fn prove(&self, index: u64, row: u64) -> PathBuf {
        let reader = Reader::open(&self.log()).unwrap();
        let bundle = Bundle::make(&reader, index, Some(row_proof(row))).unwrap();
        self.write(&bundle.to_string())
    }

    fn write(&self, proof: &str) -> PathBuf {
        let path = self.0.path().join("row.tlog-proof");
        fs::write(&path, proof).unwrap();
        path
    }

    /// Runs the program of the manual.
    fn check(&self, proof: &Path, key: &str) -> Output {
        let program = self.0.path().join("check.py");
        fs::write(&program, recipe()).unwrap();
        let mut python = Command::new("python3");
        let python = python.arg(program).arg(proof).arg(key);
        python.current_dir(self.0.path()).output().unwrap()
    }
}

/// Rows with everything that a row can have, and one with as little as possible.
fn rows() -> Vec<Row> {
    let tuple = |src: &str, src_port, dst: &str, dst_port| Tuple {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        src_port,
        dst_port,
    };
    let original = Counters {
        packets: 3,
        octets: 300,
    };
    let reply = Counters {
        packets: 70_000,
        octets: 1 << 40,
    };
    let full = Row {
        pre: tuple("2001:db8::1", 4_000, "2001:db8:f::5", 53),
        post: tuple("2001:db8:a::9", 50_520, "2001:db8:b::7", 5_353),
        protocol: Protocol(17),
        start: Some(Millis::new(START * 1_000)),
        end: Millis::new(START * 1_000 + 61_007),
        totals: Some(Totals { original, reply }),
        mark: 7,
        zone: 9,
        provenance: Provenance::Inferred,
    };
    let least = Row {
        pre: tuple("10.1.2.3", 40_356, "198.51.100.7", 443),
        post: tuple("203.0.113.9", 50_520, "198.51.100.7", 443),
        protocol: Protocol(6),
        start: None,
        totals: None,
        mark: 0,
        zone: 0,
        provenance: Provenance::Kernel,
        ..full
    };
    vec![full, least, full, least, least]
}

fn row_proof(index: u64) -> RowProof {
    let rows = rows();
    let mut path = RowPath::new(index, rows.len() as u64).unwrap();
    rows.iter().for_each(|row| path.push(row));
    path.finish().unwrap()
}

/// Changes the line `extra` of a proof.
fn edit(proof: &str, change: impl FnOnce(&mut Value)) -> String {
    let line = proof.lines().nth(1).unwrap();
    let python = "import base64,sys;sys.stdout.buffer.write(base64.b64decode(sys.argv[1]))";
    let extra = run(
        "python3",
        &["-c", python, line.strip_prefix("extra ").unwrap()],
    );
    let mut extra: Value = serde_json::from_str(&extra).unwrap();
    change(&mut extra);
    let python = "import base64,sys;print(base64.b64encode(sys.argv[1].encode()).decode(),end='')";
    let extra = run("python3", &["-c", python, &extra.to_string()]);
    proof.replacen(line, &format!("extra {extra}"), 1)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn the_recipe_of_the_manual_shows_the_row() {
    if !can_run(&["python3", "openssl"]) {
        return;
    }
    let archive = Archive::new();
    let first = archive.report().epochs[0].key.to_string();
    // An entry of each day, the last one under the newest checkpoint.
    for (index, row) in [(1, 0), (150, 1), (299, 4)] {
        let output = archive.check(&archive.prove(index, row), &first);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let shown = text(&output.stdout);
        assert!(
            shown.starts_with(&format!("entry {index} of gw1.example/nattrail")),
            "{shown}"
        );
        let expected = if row == 0 {
            "protocol 17\n\
             start 2026-11-18T11:06:40.000+00:00\n\
             end 2026-11-18T11:07:41.007+00:00 inferred\n\
             source after translation 2001:db8:a::9 50520\n\
             source before translation 2001:db8::1 4000\n\
             destination before translation 2001:db8:f::5 53\n\
             destination after translation 2001:db8:b::7 5353\n\
             mark 7\n\
             zone 9\n\
             packets and octets sent 3 300\n\
             packets and octets received 70000 1099511627776\n"
        } else {
            "protocol 6\n\
             start unknown\n\
             end 2026-11-18T11:07:41.007+00:00 observed\n\
             source after translation 203.0.113.9 50520\n\
             source before translation 10.1.2.3 40356\n\
             destination before translation 198.51.100.7 443\n"
        };
        assert!(shown.ends_with(expected), "{shown}");
    }
}

#[test]
fn the_recipe_of_the_manual_does_not_take_a_false_proof() {
    if !can_run(&["python3", "openssl"]) {
        return;
    }
    let archive = Archive::new();
    let first = archive.report().epochs[0].key.to_string();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let (true_one, early) = (read(archive.prove(150, 1)), read(archive.prove(1, 1)));
    let late = read(archive.prove(299, 1));
    let other = Archive::new();
    let others = other.report().epochs[0].key.to_string();
    let swap = |value: &mut Value, from: &str, to: &str| {
        let text = value.as_str().unwrap().replacen(from, to, 1);
        *value = text.into();
    };
    let head = |proof: &str| proof.split_once("\n\n").unwrap().0.to_owned();
    let note = |proof: &str| proof.split_once("\n\n").unwrap().1.to_owned();
    for (what, proof) in [
        (
            "another entry",
            edit(&true_one, |extra| extra["entry"] = "e30=".into()),
        ),
        (
            "another row",
            edit(&true_one, |extra| {
                swap(&mut extra["row"]["octets"], "A", "B")
            }),
        ),
        (
            "another number of the row",
            edit(&true_one, |extra| extra["row"]["index"] = 2.into()),
        ),
        (
            "more rows",
            edit(&true_one, |extra| extra["row"]["rows"] = 6.into()),
        ),
        (
            "a shorter path of the row",
            edit(&true_one, |extra| {
                drop(extra["row"]["path"].as_array_mut().unwrap().pop())
            }),
        ),
        (
            "no keys",
            edit(&true_one, |extra| extra["keys"] = json!([])),
        ),
        (
            "a missing key",
            edit(&true_one, |extra| {
                drop(extra["keys"].as_array_mut().unwrap().pop())
            }),
        ),
        (
            "a key entry that was changed",
            edit(&true_one, |extra| {
                swap(&mut extra["keys"][1], "2026", "2025")
            }),
        ),
        (
            "another index",
            true_one.replacen("index 150", "index 151", 1),
        ),
        (
            "the checkpoint of another day",
            format!("{}\n\n{}", head(&true_one), note(&late)),
        ),
        (
            "an entry of a day before",
            format!("{}\n\n{}", head(&early), note(&late)),
        ),
        ("another log", read(other.prove(150, 1))),
    ] {
        assert_ne!(proof, true_one);
        let output = archive.check(&archive.write(&proof), &first);
        assert!(!output.status.success(), "{what}: {}", text(&output.stdout));
        let bundle = proof.parse::<Bundle>();
        let is_shown = bundle.is_ok_and(|bundle| bundle.check(&first.parse().unwrap()).is_ok());
        assert!(!is_shown, "{what}");
    }
    assert!(
        !archive
            .check(&archive.write(&true_one), &others)
            .status
            .success()
    );
    let same = edit(&true_one, |_| ());
    assert!(
        archive
            .check(&archive.write(&same), &first)
            .status
            .success()
    );
}

#[test]
fn the_reference_implementation_of_notes_and_tiles_takes_the_log_and_its_proofs() {
    if !can_run(&["go"]) {
        return;
    }
    let archive = Archive::new();
    let report = archive.report();
    assert_eq!((report.findings, report.size), (vec![], 300));
    let newest = report.epochs.last().unwrap().key.to_string();
    let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (day, index) in [(0, 1), (1, 150), (2, 299)] {
        let mut go = Command::new("go");
        go.args(["run", PEER]).arg(archive.log()).arg(&newest);
        go.arg(archive.prove(index, 0))
            .arg(report.epochs[day].key.to_string());
        go.env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode");
        let output = go.env("GOCACHE", build.join("go")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with("300 {\"files\":"));
    }
}
