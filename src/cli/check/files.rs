//! The files that the daemon writes: the database and file copies.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::rights::Rights;
use super::{Exit, Finding};

/// Open connections of everybody behind the gateway are nobody else's business.
const WIDEST_MODE: u32 = 0o750;

pub(super) fn state_directory(database: &Path, rights: &Rights) -> Finding {
    // The path is absolute, so it has a parent unless it is the root itself.
    let directory = database.parent().unwrap_or(database);
    let object = format!("state directory {}", directory.display());
    let advice =
        "create it for the user that runs nattrail (chown, chmod 0750), or change pending.database";
    let mode = match fs::metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => {
            return Finding::error(Exit::Unavailable, object, "is not a directory", advice);
        }
        Ok(metadata) => Some(metadata.permissions().mode() & 0o7777),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let found = format!("expected to be readable, found: {error}");
            return Finding::error(Exit::NoPermission, object, found, advice);
        }
    };
    if let Err(found) = rights.may_write(directory) {
        return Finding::error(Exit::NoPermission, object, found, advice);
    }
    match mode {
        None => Finding::ok(object, "not there yet, made at the first start"),
        Some(mode) if mode & 0o777 & !WIDEST_MODE != 0 => {
            let found = format!("expected mode 0750 or narrower, found {mode:04o}");
            let advice = "others may see that and when there are records: give pending.database a directory of its own";
            Finding::warning(object, found, advice)
        }
        Some(mode) => Finding::ok(object, format!("writable, mode {mode:04o}")),
    }
}

/// The database, if there is one already.
pub(super) fn database(path: &Path, rights: &Rights) -> Option<Finding> {
    let object = format!("pending database {}", path.display());
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() {
        let found = "expected a regular file, found something else";
        let advice = "move it away, or change pending.database";
        return Some(Finding::error(Exit::Unavailable, object, found, advice));
    }
    Some(match rights.may_write(path) {
        Ok(()) => Finding::ok(object, "writable"),
        Err(found) => {
            let advice = "give it to the user that runs nattrail (chown)";
            Finding::error(Exit::NoPermission, object, found, advice)
        }
    })
}

pub(super) fn log_file(object: String, path: &Path, rights: &Rights) -> Finding {
    if path.is_dir() {
        let advice = "name a file in it";
        let found = "expected a file, found a directory";
        return Finding::error(Exit::Unavailable, object, found, advice);
    }
    let directory = path.parent().unwrap_or(path);
    if !directory.is_dir() && !rights.are_made(directory) {
        let found = format!("expected a directory {}, found none", directory.display());
        let advice = "create the directory, or change path";
        return Finding::error(Exit::Unavailable, object, found, advice);
    }
    match rights.may_write(path) {
        Ok(()) if path.exists() => Finding::ok(object, "writable"),
        Ok(()) => Finding::ok(object, "not there yet, made at the first start"),
        Err(found) => {
            let advice = "make it writable for the user that runs nattrail, or change path";
            Finding::error(Exit::NoPermission, object, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Verdict;
    use super::*;

    const CALLER: Rights = Rights::caller();

    fn error(finding: &Finding) -> Option<Exit> {
        match finding.verdict {
            Verdict::Error(exit) => Some(exit),
            Verdict::Ok | Verdict::Warning => None,
        }
    }

    #[test]
    fn a_state_directory_that_others_can_read_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let verdict = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            state_directory(&directory.path().join("pending.db"), &CALLER).verdict
        };
        assert_eq!(verdict(0o750), Verdict::Ok);
        assert_eq!(verdict(0o755), Verdict::Warning);
    }

    #[test]
    fn a_state_directory_that_can_be_made_is_well() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("a/b/pending.db");
        assert_eq!(state_directory(&database, &CALLER).verdict, Verdict::Ok);
        assert!(!directory.path().join("a").exists());
    }

    #[test]
    fn a_file_in_the_place_of_the_state_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let finding = state_directory(&file.join("pending.db"), &CALLER);
        // The kernel says ENOTDIR where the parent of a path is a file.
        assert!(error(&finding).is_some(), "{finding}");
    }

    #[test]
    fn a_database_that_is_a_directory_is_an_error_and_one_that_is_not_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(database(&directory.path().join("pending.db"), &CALLER).is_none());
        let finding = database(directory.path(), &CALLER).unwrap();
        assert_eq!(error(&finding), Some(Exit::Unavailable));
    }

    #[test]
    fn a_log_file_needs_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let look = |name: &str| log_file(name.to_owned(), &directory.path().join(name), &CALLER);
        assert_eq!(look("nat.csv").verdict, Verdict::Ok);
        assert!(!directory.path().join("nat.csv").exists());
        assert_eq!(error(&look("none/nat.csv")), Some(Exit::Unavailable));
        assert_eq!(error(&look("")), Some(Exit::Unavailable));
    }
}
