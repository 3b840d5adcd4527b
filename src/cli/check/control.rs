//! Whether a daemon runs, which its control socket shows; and if none does, whether that socket could be made.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use super::super::control::connect_by;
use super::Finding;
use crate::daemon::clock;

/// For a daemon that is there: it answers as soon as its loop has turned.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// That no daemon runs is no mistake: whoever checks may be about to start it.
pub fn look(socket: Option<&Path>) -> Finding {
    let Some(path) = socket else {
        let found = "no control socket, so that \"nattrail status\" cannot ask it";
        return Finding::ok("daemon", found);
    };
    let object = format!("control socket {}", path.display());
    let advice = "the daemon would run without one: move it away, or change control.socket";
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let found = "expected a socket or nothing, found another file";
            return Finding::warning(object, found, advice);
        }
        _ => {}
    }
    let error = match connect_by(path, clock::uptime().saturating_add(PATIENCE)) {
        Ok(_) => return Finding::ok("daemon", format!("running, on {object}")),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::NotFound if !can_be_made(path) => {
            let found = "expected its directory, or the one above, to exist, found neither";
            let advice = "create the directory, or change control.socket";
            Finding::warning(object, found, advice)
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Finding::ok("daemon", format!("not running, nobody listens on {object}"))
        }
        ErrorKind::PermissionDenied => {
            let found = format!("expected to be asked whether a daemon runs, found: {error}");
            let advice = "run as root, or in the group of the socket";
            Finding::warning(object, found, advice)
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            let found = "expected the daemon to take a connection within 1 s, found it busy";
            let advice = "its log may say why";
            Finding::warning(object, found, advice)
        }
        _ => {
            let found = format!("expected to be usable, found: {error}");
            Finding::warning(object, found, advice)
        }
    }
}

/// The daemon makes the directory of the socket, but not those above.
fn can_be_made(path: &Path) -> bool {
    let directory = path.parent();
    let above = directory.and_then(Path::parent);
    [directory, above].into_iter().flatten().any(Path::is_dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::net::UnixListener;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_daemon_is_running_where_somebody_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let found = || look(Some(&path));
        assert!(found().found.starts_with("not running"), "{}", found());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(found().found.starts_with("running"), "{}", found());
        drop(listener);
        assert!(found().found.starts_with("not running"), "{}", found());
        assert_eq!(found().verdict, Verdict::Ok);
        assert_eq!(look(None).verdict, Verdict::Ok);
    }

    #[test]
    fn a_socket_that_cannot_be_made_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [
            file.clone(),
            file.join("sock"),
            directory.path().join("a/b/sock"),
        ] {
            assert_eq!(look(Some(&path)).verdict, Verdict::Warning, "{path:?}");
        }
        let below = directory.path().join("a/sock");
        assert_eq!(look(Some(&below)).verdict, Verdict::Ok);
    }
}
