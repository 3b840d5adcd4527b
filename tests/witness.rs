//! Witnesses outside of the archive: checkpoints in the copies of records, and time stamps of an authority, here one made with
//! openssl.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use nattrail::archive::evidence::Evidence;
use nattrail::archive::proof::tiles::read_checkpoint;
use nattrail::archive::proof::timestamp::Token;
use nattrail::archive::proof::witness;
use nattrail::archive::row::Millis;
use nattrail::archive::spool::{Place, Spool};
use nattrail::session::{Gap, GapCause};
use nattrail::time::Wall;
use serde_json::Value;
use support::{can_run, wait_for};
use tempfile::TempDir;

/// 2026-11-20T20:00:00Z.
const START: u64 = 1_795_204_800_000;
const HOUR: u64 = 3_600_000;

/// A sealed and signed archive of one gateway.
struct Archive {
    directory: TempDir,
    /// The program of `archive.timestamp` and its arguments, in TOML.
    timestamp: String,
}

impl Archive {
    fn new() -> Self {
        let archive = Self {
            directory: TempDir::new().unwrap(),
            timestamp: "[]".to_owned(),
        };
        archive.hour(0, 1);
        archive
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> PathBuf {
        self.path("archive/log/gw1")
    }

    /// Seals and signs an hour that tells of so many lost records.
    fn hour(&self, number: u64, lost: u64) {
        let root = self.path("archive");
        let begin = START + number * HOUR;
        // A process that another test starts may hold the locks until it runs its program.
        let open = || Spool::open(&root, "gw1", Millis::new(begin)).ok();
        let mut spool = wait_for("the lock of the spool", open);
        spool.push_gap(&Gap {
            cause: GapCause::Overflow,
            from: Wall::from_millis(begin),
            to: Wall::from_millis(begin + 1),
            lost: Some(lost),
        });
        let next = number + 1;
        spool.commit(Place { run: 1, next }).unwrap();
        spool.seal(Millis::new(begin + HOUR)).unwrap();
        let now = Wall::from_millis(begin + HOUR + 1);
        let mut evidence = Evidence::new(&root, "gw1");
        let append = || evidence.append(spool.sealed_number(), now).ok();
        assert!(wait_for("the lock of the log", append));
    }

    /// The newest checkpoint as a syslog server has it, in the format `text`.
    fn line(&self) -> String {
        let (note, _) = read_checkpoint(&self.log().join("checkpoint")).unwrap();
        let words = witness::words(&note).unwrap();
        let words: Vec<_> = words.split(' ').collect();
        let [origin, size, root, signature] = words[..] else {
            panic!("{words:?}")
        };
        format!(
            "Nov 20 21:00:01 gw1 nattrail[7]: time=2026-11-20T21:00:01.000Z event=checkpoint origin={origin} size={size} \
             root=\"{root}\" signature=\"{signature}\"\n"
        )
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let config = self.path("n.toml");
        let text = format!(
            "[archive]\ndirectory = \"{}\"\ngateway = \"gw1\"\ntimestamp = {}\n",
            self.path("archive").display(),
            self.timestamp,
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nattrail"));
        command.arg("-c").arg(config).args(arguments);
        said(&command.stdin(Stdio::null()).output().unwrap())
    }

    fn verify(&self, arguments: &[&str]) -> (i32, Value) {
        let (status, said) = self.run(&[&["verify", "--json"], arguments].concat());
        let json = said.lines().find(|line| line.starts_with('{'));
        let object = json.and_then(|line| serde_json::from_str(line).ok());
        (status, object.unwrap_or_else(|| panic!("{said}")))
    }

    /// The findings of `verify`: each file, and the reason.
    fn findings(&self, arguments: &[&str]) -> Vec<String> {
        let (_, audit) = self.verify(arguments);
        let findings = audit["findings"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        findings
            .map(|it| format!("{}: {}", text(&it["file"]), text(&it["reason"])))
            .collect()
    }

    /// The names below `timestamps` of the log, sorted.
    fn stamps(&self) -> Vec<String> {
        let names = fs::read_dir(self.log().join("timestamps"));
        let names = names.into_iter().flatten();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = names
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Makes a program of these lines of sh the one that asks the authority.
    fn ask_by(&mut self, script: &str) {
        let path = self.path("authority");
        fs::write(&path, script).unwrap();
        self.timestamp = format!("[\"sh\", \"{}\"]", path.display());
    }
}

/// The exit status, and both outputs.
fn said(output: &Output) -> (i32, String) {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(said).unwrap(),
    )
}

#[test]
fn a_log_that_was_cut_and_signed_anew_is_caught_by_a_line_of_a_copy() {
    let archive = Archive::new();
    let backup = archive.path("backup");
    let copy = |from: &Path, to: &Path| {
        let done = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(done.unwrap().success());
    };
    copy(&archive.path("archive"), &backup);
    let mut syslog = String::new();
    for line in 0..5_000 {
        syslog += &format!("Nov 20 20:00:01 gw1 nattrail[7]: event=create id={line}\n");
    }
    syslog += &archive.line();
    archive.hour(1, 2);
    syslog += &format!("{}{}", archive.line(), archive.line());
    let file = archive.path("gateway.log");
    fs::write(&file, &syslog).unwrap();
    let witness = ["--witness", file.to_str().unwrap()];
    let (status, audit) = archive.verify(&witness);
    assert_eq!((status, &audit["witnesses"]), (0, &2.into()), "{audit:#}");
    // Somebody with the key of the day goes back, and tells of the second hour otherwise.
    fs::remove_dir_all(archive.path("archive")).unwrap();
    copy(&backup, &archive.path("archive"));
    let cut = "log/gw1/checkpoint: the log is cut off: it has 2 entries, and a witness saw 3";
    assert_eq!(archive.findings(&witness), [cut]);
    archive.hour(1, 3);
    assert_eq!(archive.verify(&[]).0, 0, "without a witness it looks sound");
    let rewritten = "log/gw1/checkpoint: the first 3 entries are not those that a witness saw";
    assert_eq!(archive.findings(&witness), [rewritten]);
    assert_eq!(archive.verify(&witness).0, 4);
}

#[test]
fn a_copy_with_lines_of_another_gateway_is_told_of_and_no_finding() {
    let archive = Archive::new();
    let file = archive.path("gateways.log");
    let other = archive.line().replace("nattrail/gw1", "nattrail/gw2");
    fs::write(&file, format!("{other}{}", archive.line())).unwrap();
    let (status, said) = archive.run(&["verify", "--witness", file.to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("1 checkpoints that were kept elsewhere agree\n"),
        "{said}"
    );
    assert!(
        said.contains("checkpoints of \"nattrail/gw2\", a log that is not in this archive"),
        "{said}"
    );
    fs::write(&file, "event=create\n").unwrap();
    let (status, said) = archive.run(&["verify", "--witness", file.to_str().unwrap()]);
    assert_eq!(status, 65, "{said}");
    assert!(
        said.contains("gateways.log: it has no checkpoint"),
        "{said}"
    );
}

/// An authority in the directory of an archive: `sh` with this script.
fn authority(archive: &Archive) -> String {
    let setup = r#"set -e
cat >ts.cnf <<'EOF'
[tsa]
default_tsa = one
[one]
serial = serial
signer_cert = tsa.pem
certs = ca.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_alg = sha256
EOF
echo 'extendedKeyUsage = critical, timeStamping' >usage
new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $new -keyout ca.key -out ca.pem -subj /CN=ca -days 9
openssl req $new -keyout tsa.key -out tsa.csr -subj /CN=tsa
openssl x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile usage -out tsa.pem -days 9
"#;
    let mut sh = Command::new("sh");
    let made = sh
        .args(["-c", setup])
        .current_dir(archive.directory.path())
        .output();
    let (status, said) = said(&made.unwrap());
    assert_eq!(status, 0, "{said}");
    format!(
        "cd {}\ncat >query\nopenssl ts -reply -config ts.cnf -queryfile query -out reply.tsr 2>/dev/null\ncat reply.tsr\n",
        archive.directory.path().display()
    )
}

#[test]
fn the_newest_checkpoint_gets_a_time_stamp_that_openssl_accepts() {
    if !can_run(&["openssl"]) {
        return;
    }
    let mut archive = Archive::new();
    let script = authority(&archive);
    archive.ask_by(&script);
    let (status, said) = archive.run(&["archive", "timestamp"]);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.starts_with("the log nattrail/gw1 had 2 entries at 20"),
        "{said}"
    );
    archive.hour(1, 2);
    let (status, said) = archive.run(&["archive", "timestamp"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(
        archive.stamps(),
        ["2.checkpoint", "2.tsr", "3.checkpoint", "3.tsr"]
    );
    let (status, said) = archive.run(&["archive", "timestamp"]);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("has a time stamp over its 3 entries already"),
        "{said}"
    );

    let stored = archive.log().join("timestamps");
    let newest = fs::read(archive.log().join("checkpoint")).unwrap();
    assert_eq!(fs::read(stored.join("3.checkpoint")).unwrap(), newest);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&stored), 0o750);
    assert_eq!(mode(&stored.join("3.tsr")), 0o640);
    // As in nattrail-proof(7).
    let verified = Command::new("openssl")
        .args([
            "ts",
            "-verify",
            "-data",
            "3.checkpoint",
            "-in",
            "3.tsr",
            "-CAfile",
        ])
        .arg(archive.path("ca.pem"))
        .current_dir(&stored)
        .output();
    let (status, verified) = self::said(&verified.unwrap());
    assert_eq!(status, 0, "{verified}");
    let (status, audit) = archive.verify(&[]);
    assert_eq!(status, 0, "{audit:#}");
    assert_eq!(audit["logs"][0]["timestamps"], 2);
    assert_eq!(audit["logs"][0]["newest_timestamp"]["size"], 3);
    let (_, said) = archive.run(&["verify"]);
    assert!(
        said.contains("  2 time stamps, the newest over 3 entries of 20"),
        "{said}"
    );
}

#[test]
fn a_time_stamp_that_does_not_fit_the_log_is_a_finding() {
    if !can_run(&["openssl"]) {
        return;
    }
    let mut archive = Archive::new();
    let script = authority(&archive);
    archive.ask_by(&script);
    assert_eq!(archive.run(&["archive", "timestamp"]).0, 0);
    archive.hour(1, 2);
    assert_eq!(archive.run(&["archive", "timestamp"]).0, 0);
    let stored = |name: &str| archive.log().join("timestamps").join(name);
    let answer = fs::read(stored("3.tsr")).unwrap();
    let expect = |file: &str, reason: &str| {
        let expected = format!("log/gw1/timestamps/{file}: {reason}");
        assert_eq!(archive.findings(&[]), [expected]);
    };
    fs::copy(stored("2.tsr"), stored("3.tsr")).unwrap();
    expect(
        "3.tsr",
        "the time stamp is about other octets than those of the checkpoint beside it",
    );
    fs::write(stored("3.tsr"), "garbage").unwrap();
    expect(
        "3.tsr",
        "expected a time-stamp response of RFC 3161, found something else",
    );
    fs::remove_file(stored("3.tsr")).unwrap();
    expect("3.tsr", "the file is missing");
    fs::write(stored("3.tsr"), &answer).unwrap();
    fs::write(stored("other"), "").unwrap();
    expect("other", "the file does not belong to the log");
    fs::remove_file(stored("other")).unwrap();
    // An answer comes before its checkpoint.
    fs::write(stored("4.tsr"), &answer).unwrap();
    assert_eq!(archive.findings(&[]), Vec::<String>::new());
    let old = fs::File::options()
        .write(true)
        .open(stored("4.tsr"))
        .unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    expect("4.checkpoint", "the file is missing");
    fs::remove_file(stored("4.tsr")).unwrap();
    let note = fs::read_to_string(stored("3.checkpoint")).unwrap();
    fs::copy(stored("2.checkpoint"), stored("3.checkpoint")).unwrap();
    expect(
        "3.checkpoint",
        "the checkpoint is not of the size that its name says",
    );
    fs::write(stored("3.checkpoint"), note).unwrap();
    assert_eq!(archive.findings(&[]), Vec::<String>::new());

    for at in 0..answer.len() {
        let _ = Token::read(&answer[..at]);
        for bit in 0..8 {
            let mut changed = answer.clone();
            changed[at] ^= 1 << bit;
            let _ = Token::read(&changed);
        }
    }
}

#[test]
fn an_answer_that_is_none_is_refused_and_leaves_nothing() {
    if !can_run(&["openssl"]) {
        return;
    }
    let mut archive = Archive::new();
    let (status, said) = archive.run(&["archive", "timestamp"]);
    assert_eq!(status, 78, "{said}");
    assert!(
        said.contains("archive.timestamp: expected a program and its arguments, found none"),
        "{said}"
    );
    let right = authority(&archive);
    let query = |what: &str| right.replace("cat >query\n", &format!("cat >given\n{what}\n"));
    let own = "openssl ts -query -sha256 -data n.toml -cert -out query 2>/dev/null";
    // The right imprint, but a nonce of its own.
    let replayed =
        "openssl ts -query -sha256 -data archive/log/gw1/checkpoint -cert -out query 2>/dev/null";
    let bad_digest = "openssl ts -query -sha384 -data n.toml -out query 2>/dev/null";
    let cases = [
        (
            query(own),
            "the token is about other octets than those of the checkpoint",
        ),
        (
            query(replayed),
            "the token has another nonce than the request",
        ),
        (
            query(bad_digest),
            "the authority gives no token: rejection: ",
        ),
        (
            "cat\n".to_owned(),
            "expected a time-stamp response of RFC 3161, found something else",
        ),
        (
            "true\n".to_owned(),
            "expected a time-stamp response of RFC 3161, found something else",
        ),
        (
            "echo no route >&2; exit 7\n".to_owned(),
            "ended with exit status: 7: no route",
        ),
        (
            "sleep 600 & sleep 600\n".to_owned(),
            "gave no answer within 1s, and was ended",
        ),
        (
            "cat /dev/zero\n".to_owned(),
            "printed more than 65536 octets",
        ),
    ];
    for (script, reason) in cases {
        archive.ask_by(&script);
        let timeout = if script.contains("sleep") {
            "1s"
        } else {
            "20s"
        };
        let (status, said) = archive.run(&["archive", "timestamp", "--timeout", timeout]);
        assert_eq!(status, 69, "{script}: {said}");
        assert!(
            said.contains("error: archive.timestamp: \"sh\": "),
            "{said}"
        );
        assert!(said.contains(reason), "{script}: {said}");
        assert_eq!(archive.stamps(), Vec::<String>::new(), "{script}");
    }
    archive.timestamp = "[\"/nonexistent/curl\"]".to_owned();
    let (status, said) = archive.run(&["archive", "timestamp"]);
    assert_eq!(status, 69, "{said}");
    assert!(
        said.contains("\"/nonexistent/curl\": cannot be started: "),
        "{said}"
    );
    let (_, said) = archive.run(&["check"]);
    let missing = "warning archive.timestamp: expected a program, found no \"/nonexistent/curl\"";
    assert!(said.contains(missing), "{said}");
}
