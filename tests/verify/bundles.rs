//! Proofs of one answer: written by `nattrail who --proof`, and checked by `nattrail verify --bundle` and by the recipe of the
//! manual.

use super::*;
use crate::support::can_run;
use crate::support::recipe::recipe;

/// The session of the third hour that begins with it.
pub const QUESTION: [&str; 6] = [
    "who",
    "203.0.113.9:3000",
    "--proto",
    "udp",
    "--at",
    "2026-11-20 22:00:30",
];

impl Archive {
    fn proof(&self) -> PathBuf {
        self.directory.path().join("session.proof")
    }

    /// Asks the question with a proof.
    pub fn prove(&self, question: &[&str]) -> Output {
        let file = self.proof();
        self.run(&[question, &["--proof", file.to_str().unwrap()]].concat())
    }

    pub fn verify_proof(&self, key: &str) -> Output {
        self.run(&[
            "verify",
            "--bundle",
            self.proof().to_str().unwrap(),
            "--key",
            key,
        ])
    }
}

#[test]
fn the_proof_of_an_answer_shows_the_session_and_nothing_else() {
    let archive = Archive::new();
    let output = archive.prove(&QUESTION);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let output = archive.verify_proof(&archive.key());
    assert_eq!(status(&output), 0, "{}", stdout(&output));
    let shown = stdout(&output);
    for line in [
        "log                         nattrail/gw1\n",
        "gateway                     gw1\n",
        "end                         2026-11-20T22:01:00.000Z\n",
        "source before translation   10.1.2.3:40356\n",
        "source after translation    203.0.113.9:3000\n",
        "sent                        3 packets, 274 octets\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    let other = Archive::new().key();
    let output = archive.verify_proof(&other);
    assert_eq!(status(&output), 4);
    assert!(stdout(&output).contains("is not the one that was given"));
}

#[test]
fn a_proof_is_refused_after_any_octet_of_it_was_changed() {
    let archive = Archive::new();
    archive.prove(&QUESTION);
    let (key, whole) = (archive.key(), fs::read(archive.proof()).unwrap());
    for at in (0..whole.len()).step_by(whole.len() / 30) {
        let mut octets = whole.clone();
        octets[at] ^= 1;
        fs::write(archive.proof(), octets).unwrap();
        let output = archive.verify_proof(&key);
        assert_eq!(status(&output), 4, "octet {at}: {}", stdout(&output));
        assert!(stdout(&output).starts_with("WRONG "));
    }
}

#[test]
fn the_recipe_of_the_manual_takes_the_proof_of_an_answer() {
    if !can_run(&["python3", "openssl"]) {
        return;
    }
    let mut archive = Archive::new();
    // The file and the entry after a day was merged, too.
    for _ in 0..2 {
        assert_eq!(status(&archive.prove(&QUESTION)), 0);
        let program = archive.directory.path().join("check.py");
        fs::write(&program, recipe()).unwrap();
        let mut python = Command::new("python3");
        let python = python.arg(&program).arg(archive.proof()).arg(archive.key());
        let output = python
            .current_dir(archive.directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let shown = stdout(&output);
        assert!(
            shown.contains("source before translation 10.1.2.3 40356\n"),
            "{shown}"
        );
        assert!(
            shown.contains("source after translation 203.0.113.9 3000\n"),
            "{shown}"
        );
        archive.spool.compact(Millis::new(START)).unwrap();
        archive.sign();
    }
}

#[test]
fn an_answer_without_a_proof_is_given_and_says_why() {
    let mut archive = Archive::new();
    archive.hour();
    let no_proof = |question: &[&str], reason: &str| {
        let output = archive.prove(question);
        assert_eq!(status(&output), 69);
        let (answer, said) = (stdout(&output), stderr(&output));
        assert!(answer.contains("10.1.2.3"), "{answer}");
        assert!(said.contains(reason), "{said}");
        assert!(!archive.proof().exists());
    };
    let at = |address: &'static str, time: &'static str| ["who", address, "--at", time];
    no_proof(
        &at("203.0.113.9:7001", "2026-11-21 02:20:30"),
        "no entry of its evidence log names the file",
    );
    no_proof(
        &at("203.0.113.9:7003", "2026-11-21 03:00:30"),
        "that is done after the end of its hour, at 2026-11-21T04:01:00",
    );
    let day = [
        "who",
        "--subscriber",
        "10.1.2.3",
        "--from",
        "2026-11-20",
        "--until",
        "2026-11-20",
    ];
    no_proof(&day, "a proof is of one session, and the answer has 17");
    // A file with the session, and with one that nobody sealed.
    let mut other = Archive::empty();
    (0..2).for_each(|_| other.hour());
    let begin = START + 2 * HOUR;
    other.spool.push(&row(
        "10.1.2.3",
        9_999,
        Protocol::UDP,
        begin,
        begin + MINUTE,
    ));
    other.hour();
    let file = archive.files("sessions").remove(2);
    fs::copy(other.files("sessions").remove(2), file).unwrap();
    no_proof(&QUESTION, "is not the file that its evidence log names");
}
