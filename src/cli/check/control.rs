//! Whether a daemon runs, which its control socket shows, and how it fares; and if none runs, whether that socket could be
//! made.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;

use super::super::{remark, status};
use super::{Finding, health};
use crate::daemon::clock;
use crate::metrics::Metrics;

/// For a daemon that is there: it answers as soon as its loop has turned.
const PATIENCE: Duration = Duration::from_secs(1);

/// That no daemon runs is no mistake: whoever checks may be about to start it. When one goes by another configuration than
/// `file`, that is remarked.
pub(super) fn look(socket: Option<&Path>, file: Option<&Path>) -> Vec<Finding> {
    let Some(path) = socket else {
        let found = "no control socket, so that it cannot be asked";
        return vec![Finding::ok("daemon", found)];
    };
    let answer = status::ask(path, clock::uptime().saturating_add(PATIENCE));
    match answer.as_deref() {
        Ok(answer) => presence(path, answer, file),
        Err(error) => vec![absence(path, error)],
    }
}

/// What the daemon answered, judged.
fn presence(path: &Path, answer: &[u8], file: Option<&Path>) -> Vec<Finding> {
    let object = format!("control socket {}", path.display());
    let answer: Option<Value> = serde_json::from_slice(answer).ok();
    let answer = answer.filter(|answer| answer.get("error").is_none());
    let metrics = answer
        .as_ref()
        .and_then(|answer| Metrics::deserialize(answer).ok());
    let (Some(answer), Some(metrics)) = (answer, metrics) else {
        let found = "expected the metrics of a daemon, found something else";
        let advice = "see what listens there";
        return vec![Finding::warning(object, found, advice)];
    };
    if let Some(message) = file.and_then(|file| status::stranger(&answer, file)) {
        remark(&message);
    }
    let mut findings = vec![Finding::ok("daemon", format!("running, on {object}"))];
    findings.extend(health::judge(&metrics));
    findings
}

/// Why there is no daemon to be asked.
fn absence(path: &Path, error: &io::Error) -> Finding {
    let object = format!("control socket {}", path.display());
    let advice = "the daemon would run without one: move it away, or change control.socket";
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let found = "expected a socket or nothing, found another file";
            return Finding::warning(object, found, advice);
        }
        _ => {}
    }
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
            let found = "expected the daemon to answer within 1 s, found it busy";
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

    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::super::Verdict;
    use super::*;

    fn look_at(path: &Path) -> Finding {
        look(Some(path), None).remove(0)
    }

    #[test]
    fn a_daemon_is_running_where_somebody_answers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let found = || look_at(&path);
        assert!(found().found.starts_with("not running"), "{}", found());
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
        assert_eq!(
            answer("{\"pid\":5}").found,
            format!("running, on control socket {}", path.display())
        );
        assert_eq!(answer("{\"error\":\"no\"}").verdict, Verdict::Warning);
        assert_eq!(answer("hello").verdict, Verdict::Warning);
        drop(listener);
        assert!(found().found.starts_with("not running"), "{}", found());
        assert_eq!(found().verdict, Verdict::Ok);
        assert_eq!(look(None, None)[0].verdict, Verdict::Ok);
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
            assert_eq!(look_at(&path).verdict, Verdict::Warning, "{path:?}");
        }
        let below = directory.path().join("a/sock");
        assert_eq!(look_at(&below).verdict, Verdict::Ok);
    }
}
