//! Starting the daemon into the background: it is this program again, `run --background`, in a session of its own.
//!
//! Who starts it waits until it says that it is ready (sd_notify(3), on a socket of our own) or ends, and shows until then
//! what it logs. There is no fork without exec, so that nothing of this process reaches into the daemon but its
//! environment, the lock on the pid file, and the pipe of its log.

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::pidfile::Claim;
use crate::daemon::clock;
use crate::kernel::inherited;

/// What service managers give a daemon.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a service manager says to its own services, and is not to reach the daemon.
const OF_A_MANAGER: [&str; 7] = [
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// How a start went.
#[derive(Debug)]
pub enum Outcome {
    Ready(Pid),
    Ended(ExitStatus),
    /// It is neither; it is left alone.
    Slow(Pid),
}

/// Starts the daemon and waits for it.
pub fn start(
    file: Option<&Path>,
    directories: &[(&str, String)],
    runtime: &Path,
    claim: Claim,
) -> io::Result<Outcome> {
    let notify = Socket::bind(runtime)?;
    let (log, writer) = io::pipe()?;
    // Else a descriptor of whoever called this would be open as long as the daemon runs: such as that of debconf, which
    // waits until it is closed.
    inherited::close_at_exec()?;
    fcntl_setfd(claim.file(), FdFlags::empty())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--background"]);
    if let Some(file) = file {
        command.arg("--config").arg(std::path::absolute(file)?);
    }
    for name in OF_A_MANAGER {
        command.env_remove(name);
    }
    command
        .envs(directories.iter().map(|(name, value)| (name, value)))
        .env("NOTIFY_SOCKET", &notify.path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(writer));
    // The daemon's number is known to others before its first instruction.
    inherited::ignore_hangup();
    let mut child = command.spawn()?;
    // The command has the pipe's other end, whose closing is to tell of the daemon's end.
    drop(command);
    let pid = Pid::from_child(&child);
    if let Err(error) = claim.write(pid) {
        // Nobody could find it to stop it.
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    wait(&mut child, pid, &notify, log)
}

fn wait(child: &mut Child, pid: Pid, notify: &Socket, mut log: PipeReader) -> io::Result<Outcome> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    fcntl_setfl(&log, OFlags::NONBLOCK)?;
    let deadline = clock::uptime().saturating_add(PATIENCE);
    loop {
        let left = deadline.saturating_since(clock::uptime());
        if left.is_zero() {
            return Ok(Outcome::Slow(pid));
        }
        let mut ready = [
            PollFd::new(&process, PollFlags::IN),
            PollFd::new(&notify.socket, PollFlags::IN),
            PollFd::new(&log, PollFlags::IN),
        ];
        let left = Timespec::try_from(left).ok();
        match poll(&mut ready, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = !ready[0].revents().is_empty();
        let is_ready = notify.says_ready();
        show(&mut log)?;
        if is_ready {
            return Ok(Outcome::Ready(pid));
        }
        if ended {
            return child.wait().map(Outcome::Ended);
        }
    }
}

/// Hands on what the daemon has logged so far.
fn show(log: &mut PipeReader) -> io::Result<()> {
    let mut room = [0; 4096];
    loop {
        match log.read(&mut room) {
            Ok(0) => return Ok(()),
            // Nobody is left to be told when the standard error is gone.
            Ok(count) => drop(io::stderr().write_all(&room[..count])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Where the daemon says that it is ready; nobody who may not enter the runtime directory reaches it.
struct Socket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Socket {
    fn bind(runtime: &Path) -> io::Result<Self> {
        let path = runtime.join(format!("start.{}.sock", std::process::id()));
        // Of an earlier process of this number.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path })
    }

    fn says_ready(&self) -> bool {
        let mut room = [0; 4096];
        while let Ok(count) = self.socket.recv(&mut room) {
            let mut lines = room[..count].split(|byte| *byte == b'\n');
            if lines.any(|line| line == b"READY=1") {
                return true;
            }
        }
        false
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What stays is removed by a later start, or when the machine starts.
        let _ = fs::remove_file(&self.path);
    }
}
