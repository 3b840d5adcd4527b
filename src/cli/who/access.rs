//! The access log: each lookup is in it before its answer is printed.
//!
//! Beside an archiver that is its inbox ([`crate::archive::acts`]), elsewhere the log of the system, where the command ran.

use std::io::{self, ErrorKind};
use std::mem;
use std::path::{Path, PathBuf};

use syslog::{Facility, Formatter3164};

use super::super::{Exit, Failure, cannot, tell};
use super::machine;
use crate::archive::acts::{self, Act, Lookup, Notice};
use crate::archive::answer::Answer;
use crate::config::Archive;
use crate::time::Wall;

/// So many lookups of a batch are one entry, and their answers are printed together.
const MOST: usize = 256;

pub(in crate::cli) struct Access {
    archive: PathBuf,
    case: Option<String>,
    reason: Option<String>,
    lookups: Vec<Lookup>,
    is_told: bool,
}

impl Access {
    pub(in crate::cli) fn new(archive: &Archive, case: Option<&str>, reason: Option<&str>) -> Self {
        Self {
            archive: archive.directory.clone(),
            case: case.map(str::to_owned),
            reason: reason.map(str::to_owned),
            lookups: Vec::new(),
            is_told: false,
        }
    }

    pub(super) fn add(&mut self, answer: &Answer) {
        self.push(
            machine::question(&answer.question),
            machine::verdict(answer.verdict),
            answer.candidates.len(),
        );
    }

    pub(in crate::cli) fn push(
        &mut self,
        question: serde_json::Value,
        verdict: &str,
        answers: usize,
    ) {
        self.lookups.push(Lookup {
            question,
            verdict: verdict.to_owned(),
            answers,
        });
    }

    pub(super) const fn is_full(&self) -> bool {
        self.lookups.len() >= MOST
    }

    /// Writes the lookups since the last time.
    ///
    /// # Errors
    /// When they cannot be written: nobody may see the answers then.
    pub(in crate::cli) fn write(&mut self, now: Wall) -> Result<(), Failure> {
        let lookups = mem::take(&mut self.lookups);
        if lookups.is_empty() {
            return Ok(());
        }
        let notice = notice(Act::Lookup { lookups }, &self.case, &self.reason, now)?;
        match acts::leave(&self.archive, &notice) {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => {
                self.write_to_system(&notice);
                Ok(())
            }
            Err(error) => Err(refused(&self.archive, &error)),
        }
    }

    fn write_to_system(&mut self, notice: &Notice) {
        let formatter = Formatter3164 {
            facility: Facility::LOG_AUTHPRIV,
            process: env!("CARGO_PKG_NAME").to_owned(),
            pid: std::process::id(),
            ..Formatter3164::default()
        };
        let Act::Lookup { lookups } = &notice.act else {
            return;
        };
        let uid = rustix::process::getuid().as_raw();
        let none = "-".to_owned();
        let (case, reason) = (
            self.case.as_ref().unwrap_or(&none),
            self.reason.as_ref().unwrap_or(&none),
        );
        let written = syslog::unix(formatter).and_then(|mut log| {
            lookups.iter().try_for_each(|lookup| {
                let Lookup { question, verdict, answers } = lookup;
                log.notice(format!(
                    "who: uid={uid} case={case:?} reason={reason:?} question={question} verdict={verdict} answers={answers}"
                ))
            })
        });
        if let Err(error) = written
            && !mem::replace(&mut self.is_told, true)
        {
            let root = self.archive.display();
            tell(
                "warning",
                &format!(
                    "this lookup is in no access log: the archive \"{root}\" has no directory \"inbox\", and the log of the \
                     system cannot be written ({error})"
                ),
            );
        }
    }
}

/// # Errors
/// When the configuration requires a case, and there is none.
pub(super) fn check_case(archive: &Archive, case: Option<&str>) -> Result<(), Failure> {
    if archive.require_case && case.is_none_or(|case| case.trim().is_empty()) {
        let message = "expected --case and the reference of the case, found none: archive.require-case is set";
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(())
}

/// An act of the user of this process.
pub(in crate::cli) fn notice(
    act: Act,
    case: &Option<String>,
    reason: &Option<String>,
    now: Wall,
) -> Result<Notice, Failure> {
    let notice = Notice::new(act, now.into());
    let mut notice = notice.map_err(|error| Failure::new(Exit::Os, error))?;
    (notice.case, notice.reason) = (case.clone(), reason.clone());
    let login = std::fs::read_to_string("/proc/self/loginuid");
    let login = login.ok().and_then(|text| text.trim().parse().ok());
    // Not set, or as the file's owner says.
    let known = [u32::MAX, rustix::process::geteuid().as_raw()];
    notice.login_uid = login.filter(|uid| !known.contains(uid));
    Ok(notice)
}

/// Whether no archiver has ever run there.
pub(in crate::cli) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

pub(in crate::cli) fn refused(archive: &Path, error: &io::Error) -> Failure {
    let mut failure = cannot(&archive.join("inbox"), "be written", error);
    if error.kind() == ErrorKind::PermissionDenied {
        failure.message +=
            "; who asks is written down there: ask as root, or as a member of its group";
    }
    failure
}
