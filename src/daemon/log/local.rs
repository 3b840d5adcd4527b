//! The daemon's log in the local syslog, facility daemon.
//!
//! Nothing waits: a line that the syslog does not take at once (it is being restarted, or does not read) is lost and
//! counted, and the first that is taken again says how many were.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use log::Level;

use crate::config::{Facility, Severity};
use crate::time::Wall;
use crate::wire::syslog;

const TAG: &str = "nattrail";
const DAEMON: Facility = Facility(::syslog::Facility::LOG_DAEMON);

pub(super) struct Local {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    lost: u64,
}

impl Local {
    pub(super) fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            socket: None,
            lost: 0,
        }
    }

    /// Sends the line, or counts it.
    pub(super) fn push(&mut self, level: Level, line: &str, now: Wall) {
        if self.lost > 0 {
            let notice = format!(
                "log lines lost here: {}, syslog did not take them",
                self.lost
            );
            if self.send(Level::Warn, &notice, now).is_ok() {
                self.lost = 0;
            }
        }
        if self.lost > 0 || self.send(level, line, now).is_err() {
            self.lost += 1;
        }
    }

    fn send(&mut self, level: Level, line: &str, now: Wall) -> io::Result<()> {
        let mut message = Vec::new();
        syslog::local_line(&mut message, (DAEMON, severity(level)), TAG, now, line);
        // A syslog that was restarted has a new socket under the old path.
        if let Some(socket) = &self.socket {
            match socket.send(&message) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => self.socket = None,
            }
        }
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        self.socket.insert(socket).send(&message).map(drop)
    }
}

const fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::Error,
        Level::Warn => Severity::Warning,
        Level::Info => Severity::Informational,
        Level::Debug | Level::Trace => Severity::Debug,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut room = [0; 1024];
        let count = socket.recv(&mut room).unwrap();
        String::from_utf8(room[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_line_reaches_the_local_syslog() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let syslog = UnixDatagram::bind(&path).unwrap();
        let mut local = Local::new(&path);
        local.push(Level::Warn, "a: b", Wall::from_millis(1_700_000_000_000));
        let pid = std::process::id();
        assert_eq!(
            received(&syslog),
            format!("<28>Nov 14 22:13:20 nattrail[{pid}]: a: b")
        );
    }

    #[test]
    fn lines_that_no_syslog_takes_are_counted_and_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut local = Local::new(&path);
        let mut push = |line| local.push(Level::Info, line, Wall::default());
        push("one");
        push("two");
        let first = UnixDatagram::bind(&path).unwrap();
        push("three");
        assert!(received(&first).ends_with("lost here: 2, syslog did not take them"));
        assert!(received(&first).ends_with(": three"));
        drop(first);
        std::fs::remove_file(&path).unwrap();
        push("four");
        let second = UnixDatagram::bind(&path).unwrap();
        push("five");
        assert!(received(&second).contains("lost here: 1,"));
        assert!(received(&second).ends_with(": five"));
    }
}
