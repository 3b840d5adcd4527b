//! The files that the daemon writes: the database and file copies.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::rights::Rights;
use super::{Exit, Flaw, Judgement, error, warning};
use crate::export::file::{LINK_ADVICE, follows_link};
use crate::store;

/// The open connections of the users behind the gateway are private.
const WIDEST_MODE: u32 = 0o750;
const NOT_YET: &str = "not there yet; the first start makes it";

pub(super) fn state_directory(directory: &Path, rights: &Rights) -> Judgement {
    let advice =
        "create it for the user that runs nattrail (chown, chmod 0750), or change pending.database";
    let mode = match fs::metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => {
            let found = "expected a directory, found another file";
            return error(Exit::Unavailable, found, advice);
        }
        Ok(metadata) => Some(metadata.permissions().mode() & 0o7777),
        Err(reason) if reason.kind() == ErrorKind::NotFound => None,
        Err(reason) => {
            let found = format!("expected to be readable, found: {reason}");
            return error(Exit::NoPermission, found, advice);
        }
    };
    may_write(directory, rights, advice)?;
    match mode {
        None => Ok(NOT_YET.to_owned()),
        Some(mode) if mode & 0o777 & !WIDEST_MODE != 0 => warning(
            format!("expected mode 0750 or narrower, found {mode:04o}"),
            "others can see whether and when there are records: give pending.database a directory of its own",
        ),
        Some(mode) => Ok(format!("writable, mode {mode:04o}")),
    }
}

/// The database, if it already exists.
pub(super) fn database(path: &Path, rights: &Rights) -> Option<Judgement> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() {
        let found = "expected a regular file, found something else";
        let advice = "move it away, or change pending.database";
        return Some(error(Exit::Unavailable, found, advice));
    }
    if store::is_foreign(path).unwrap_or(false) {
        let found = "expected a database of nattrail, found another file";
        let advice = "move it away, or change pending.database";
        return Some(error(Exit::Unavailable, found, advice));
    }
    let advice = "give it to the user that runs nattrail (chown)";
    Some(may_write(path, rights, advice).map(|()| "writable".to_owned()))
}

/// A program by its path or, as the service would look for it, by its name.
pub(super) fn program(name: &str) -> Judgement {
    let directories = match name.contains('/') {
        true => "",
        false => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    };
    let mut paths = directories.split(':').map(|it| Path::new(it).join(name));
    match paths.find(|path| path.is_file()) {
        Some(path) => Ok(format!("program {}", path.display())),
        None => warning(
            format!("expected a program, found no \"{name}\""),
            "install it, or change the key",
        ),
    }
}

pub(super) fn log_file(path: &Path, rights: &Rights) -> Judgement {
    if path.is_dir() {
        let found = "expected a file, found a directory";
        return error(Exit::Unavailable, found, "name a file in it");
    }
    let directory = path.parent().unwrap_or(path);
    if !directory.is_dir() && !rights.are_made(directory) {
        let found = format!("expected a directory {}, found none", directory.display());
        let advice = "create the directory, or change path";
        return error(Exit::Unavailable, found, advice);
    }
    if let Err(found) = follows_link(path, rights.user()) {
        return error(Exit::NoPermission, found, LINK_ADVICE);
    }
    let advice = "make it writable for the user that runs nattrail, or change path";
    may_write(path, rights, advice)?;
    Ok(if path.exists() { "writable" } else { NOT_YET }.to_owned())
}

fn may_write(path: &Path, rights: &Rights, advice: &'static str) -> Result<(), Flaw> {
    let writable = rights.may_write(path);
    writable.or_else(|found| error(Exit::NoPermission, found, advice))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::{lchown, symlink};

    use rustix::process::geteuid;

    use super::super::tests::exit;
    use super::*;

    #[test]
    fn a_state_directory_that_others_can_read_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let verdict = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            state_directory(directory.path(), &Rights::default()).map_err(|flaw| flaw.exit)
        };
        assert!(verdict(0o750).is_ok());
        assert_eq!(verdict(0o755), Err(None));
    }

    #[test]
    fn a_state_directory_that_can_be_made_is_well() {
        let directory = tempfile::tempdir().unwrap();
        let made = directory.path().join("a/b");
        assert!(state_directory(&made, &Rights::default()).is_ok());
        assert!(!directory.path().join("a").exists());
    }

    #[test]
    fn a_file_in_the_place_of_the_state_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let found = state_directory(&file, &Rights::default());
        assert_eq!(exit(found), Some(Exit::Unavailable));
    }

    #[test]
    fn a_database_that_is_a_directory_is_an_error_and_one_that_is_not_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(database(&directory.path().join("pending.db"), &Rights::default()).is_none());
        let found = database(directory.path(), &Rights::default()).unwrap();
        assert_eq!(exit(found), Some(Exit::Unavailable));
    }

    #[test]
    fn a_log_file_needs_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let look = |name: &str| log_file(&directory.path().join(name), &Rights::default());
        assert!(look("nat.csv").is_ok());
        assert!(!directory.path().join("nat.csv").exists());
        assert_eq!(exit(look("none/nat.csv")), Some(Exit::Unavailable));
        assert_eq!(exit(look("")), Some(Exit::Unavailable));
    }

    #[test]
    fn a_log_file_is_no_symbolic_link_of_somebody_else() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("nat.csv");
        symlink(directory.path().join("target"), &link).unwrap();
        assert!(log_file(&link, &Rights::default()).is_ok());
        if !geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            return;
        }
        lchown(&link, Some(1000), None).unwrap();
        let found = log_file(&link, &Rights::default());
        assert_eq!(exit(found), Some(Exit::NoPermission));
    }
}
