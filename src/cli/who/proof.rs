//! The proof of an answer (`--proof`).

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Exit, Failure, cannot};
use crate::archive::answer::{Answer, Candidate};
use crate::archive::evidence::{Proof, Unproved, prove};
use crate::archive::row::Millis;
use crate::cli::page::create;

const HOUR: u64 = 3_600_000;
/// The archive seals so long after the end of an hour.
const GRACE: u64 = 60_000;

/// Writes the proof of the one session of an answer, and returns a text about it.
pub(super) fn write(path: &Path, answer: &Answer, archives: &[PathBuf]) -> Result<String, Failure> {
    let refuse = |message: String| Failure::new(Exit::Unavailable, message);
    let session = match &answer.candidates[..] {
        [session] => session,
        sessions => {
            return Err(refuse(format!(
                "a proof is of one session, and the answer has {}: ask for its time, port, protocol or other side",
                sessions.len()
            )));
        }
    };
    let Proof {
        bundle,
        shown,
        first_key,
    } = find(session, archives).map_err(refuse)?;
    let mut file = create(path)?;
    let written = file
        .write_all(bundle.to_string().as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| cannot(path, "be written", &error))?;
    Ok(format!(
        "Entry {} of the evidence log \"{}\" tells of the file with this session. The proof of both is in \"{}\"; nattrail-proof(7) \
         says how to check it without nattrail. The first public key of the log is {first_key}.",
        shown.index,
        shown.origin,
        path.display()
    ))
}

fn find(session: &Candidate, archives: &[PathBuf]) -> Result<Proof, String> {
    if session.is_open {
        return Err("the session is still open: it is sealed after its end".to_owned());
    }
    let mut reasons = Vec::new();
    for root in archives {
        match prove(root, &session.gateway, &session.row) {
            Ok(proof) => return Ok(proof),
            Err(Unproved::NotSealed) => {}
            Err(reason) => reasons.push(reason.to_string()),
        }
    }
    if reasons.is_empty() {
        let end = session.row.end.get();
        let sealed = Millis::new(end - end % HOUR + HOUR + GRACE).wall();
        reasons.push(format!(
            "{}: that is done after the end of its hour, at {sealed}; ask again then",
            Unproved::NotSealed
        ));
    }
    Err(reasons.join("; "))
}
