//! Whether a daemon runs, as its control socket shows, and its state; without one, whether that socket could be made.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::super::status;
use super::{Exit, Finding, Judgement, error, health, warning};

/// Neither a daemon that does not run yet is a mistake, nor one that has not read the latest configuration yet.
pub(super) fn look(socket: Option<&Path>) -> Vec<Finding> {
    let Some(path) = socket else {
        let found = "it has no control socket and cannot be asked".to_owned();
        return vec![Finding::new("daemon", Ok(found))];
    };
    let object = format!("control socket {}", path.display());
    let answer = match status::ask(path) {
        Ok(answer) => answer,
        Err(reason) if reason.kind() == ErrorKind::NotFound && can_be_made(path) => {
            let found = format!("not running, nobody listens on {object}");
            return vec![Finding::new("daemon", Ok(found))];
        }
        Err(reason) => return vec![Finding::new(object, absence(path, &reason))],
    };
    let Ok(metrics) = status::parse(&answer) else {
        let found = "expected the metrics of a daemon, found something else";
        let judgement = warning(found, "find out what listens there");
        return vec![Finding::new(object, judgement)];
    };
    let unread = status::unread(&metrics).map_or_else(String::new, |unread| format!("; {unread}"));
    let found = format!("running, on {object}{unread}");
    let mut findings = vec![Finding::new("daemon", Ok(found))];
    findings.extend(health::judge(&metrics));
    findings
}

/// The reason why a daemon cannot be asked.
fn absence(path: &Path, reason: &io::Error) -> Judgement {
    let advice = "the daemon would run without one: move it away, or change control.socket";
    let found = fs::symlink_metadata(path);
    match reason.kind() {
        _ if found.is_ok_and(|found| !found.file_type().is_socket()) => {
            warning("expected a socket or nothing, found another file", advice)
        }
        ErrorKind::NotFound => warning(
            "expected its directory, or the one above, to exist, found neither",
            "create the directory, or change control.socket",
        ),
        ErrorKind::PermissionDenied => warning(
            format!("expected to tell whether a daemon runs, found: {reason}"),
            "run as root, or in the group of the socket",
        ),
        ErrorKind::ConnectionRefused => warning(
            "expected a daemon, found the socket of one that was killed",
            "start it; its log may say why it ended",
        ),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => warning(
            "expected the daemon to answer, found that it serves as many clients as it can",
            "ask again, and see who holds connections to this socket",
        ),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => error(
            Exit::Unavailable,
            "expected the daemon to answer within 5 s, found that it does not",
            "its log may say why; a restart loses nothing that the database has",
        ),
        _ => warning(format!("expected to be usable, found: {reason}"), advice),
    }
}

/// The daemon makes the directory of the socket, but not the ones above.
fn can_be_made(path: &Path) -> bool {
    path.ancestors().skip(1).take(2).any(Path::is_dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn look_at(path: &Path) -> Finding {
        look(Some(path)).remove(0)
    }

    #[test]
    fn a_daemon_is_running_where_somebody_answers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let found = || look_at(&path);
        assert!(found().words().1.starts_with("not running"), "{}", found());
        let listener = UnixListener::bind(&path).unwrap();
        let answer = |text: &str| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.read_exact(&mut [0; 7]).unwrap();
                    stream.write_all(text.as_bytes()).unwrap();
                });
                found()
            })
        };
        let running = format!("running, on control socket {}", path.display());
        assert_eq!(answer("{\"pid\":5}").words().1, running);
        assert_eq!(answer("{\"error\":\"no\"}").words().0, "warning");
        assert_eq!(answer("hello").words().0, "warning");
        drop(listener);
        assert_eq!(found().words().0, "warning");
        fs::remove_file(&path).unwrap();
        assert_eq!(found().words().0, "ok");
        assert_eq!(look(None)[0].words().0, "ok");
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
            assert_eq!(look_at(&path).words().0, "warning", "{path:?}");
        }
        let below = directory.path().join("a/sock");
        assert_eq!(look_at(&below).words().0, "ok");
    }
}
