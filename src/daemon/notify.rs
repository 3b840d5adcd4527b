//! Talking to the service manager: sd_notify(3) by hand, its file-descriptor store and its watchdog.
//!
//! Messages are datagrams to the socket in `NOTIFY_SOCKET`; without that variable nothing happens. No call blocks:
//! messages that the manager cannot take now are tried again later, in order, because nobody would notice the loss of
//! `READY=1` or `FDSTORE=1` in time. A manager that is gone is mentioned once and left alone from then on.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::clock;
use crate::config::Namespace;
use crate::time::{Now, Uptime};

/// Wait before the manager is tried again when its queue is full.
const RETRY: Duration = Duration::from_millis(50);
/// The most messages that wait for the manager: enough for a start and a reload or two.
const WAITING: usize = 32;

/// The name under which the manager keeps the event socket of a network namespace (`FDNAME=`): at most 255 characters of
/// ASCII, without control characters and colons.
pub fn stored_name(namespace: Option<&Namespace>) -> String {
    let mut name = "nattrail-events".to_owned();
    if let Some(namespace) = namespace {
        let text = namespace.0.to_string_lossy();
        name.push('@');
        name.extend(text.chars().map(|char| match char {
            ' '..='~' if char != ':' => char,
            _ => '_',
        }));
    }
    name.truncate(255);
    name
}

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    /// Connected to the manager, if one is there.
    socket: Option<UnixDatagram>,
    waiting: VecDeque<Message>,
    retry: Uptime,
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Message {
    text: String,
    descriptor: Option<OwnedFd>,
}

#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    next: Uptime,
}

impl Notifier {
    /// `variable` looks up the environment.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>, now: Now) -> Self {
        let socket = variable("NOTIFY_SOCKET").and_then(|name| {
            let connected = connect(&name).inspect_err(|error| {
                let name = name.display();
                log::warn!(
                    "cannot notify the service manager at NOTIFY_SOCKET \"{name}\": {error}"
                );
            });
            connected.ok()
        });
        Self {
            watchdog: socket.as_ref().and_then(|_| Watchdog::of(variable, now)),
            socket,
            waiting: VecDeque::new(),
            retry: now.up,
        }
    }

    /// The daemon has started, or has read its configuration again.
    pub fn ready(&mut self, status: &str, now: Now) {
        self.send(&format!("READY=1\nSTATUS={status}"), None, now);
    }

    /// The daemon reads its configuration again.
    pub fn reloading(&mut self, now: Now) {
        let at = clock::monotonic_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={at}"), None, now);
    }

    pub fn stopping(&mut self, now: Now) {
        self.send("STOPPING=1\nSTATUS=finishing what is in hand", None, now);
    }

    /// Gives the manager a descriptor to keep until the next start. A manager keeps the same descriptor only once.
    pub fn store(&mut self, name: &str, descriptor: BorrowedFd<'_>, now: Now) {
        // The manager must not watch it: at an overflow, which is an error on the socket, it would close the socket.
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
        match descriptor.try_clone_to_owned() {
            Ok(copy) => self.send(&text, Some(copy), now),
            Err(error) => log::warn!("cannot give the event socket to the manager: {error}"),
        }
    }

    /// Has the manager close the descriptors with this name.
    pub fn discard(&mut self, name: &str, now: Now) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None, now);
    }

    /// Whether every message so far has reached a manager that is there.
    pub fn is_heard(&self) -> bool {
        self.socket.is_some() && self.waiting.is_empty()
    }

    pub fn poll_timeout(&self) -> Option<Uptime> {
        let retry = (!self.waiting.is_empty()).then_some(self.retry);
        let watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.next);
        [retry, watchdog].into_iter().flatten().min()
    }

    /// Sends a sign of life when it is due, and the messages that the manager could not take before.
    pub fn handle_timeout(&mut self, now: Now) {
        if !self.waiting.is_empty() && now.up >= self.retry {
            self.send_waiting(now);
        }
        if let Some(watchdog) = &mut self.watchdog
            && now.up >= watchdog.next
        {
            watchdog.next = now.up.saturating_add(watchdog.interval);
            // As long as others wait, the manager does not read, and this one would only queue behind them.
            if self.waiting.is_empty() {
                self.send("WATCHDOG=1", None, now);
            }
        }
    }

    fn send(&mut self, text: &str, descriptor: Option<OwnedFd>, now: Now) {
        if self.socket.is_none() || self.waiting.len() == WAITING {
            return;
        }
        self.waiting.push_back(Message {
            text: text.to_owned(),
            descriptor,
        });
        if self.waiting.len() == 1 {
            self.send_waiting(now);
        }
    }

    fn send_waiting(&mut self, now: Now) {
        while let (Some(socket), Some(message)) = (&self.socket, self.waiting.front()) {
            match message.send(socket) {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    self.retry = now.up.saturating_add(RETRY);
                    return;
                }
                Err(error) => {
                    log::warn!("cannot notify the service manager any more: {error}");
                    self.socket = None;
                    self.watchdog = None;
                    self.waiting.clear();
                }
            }
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => {
            return Err(io::Error::other(
                "expected a path, or @ and an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

impl Message {
    fn send(&self, socket: &UnixDatagram) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = self.descriptor.as_ref().map(AsFd::as_fd);
        if descriptors.is_some() {
            // There is room for one descriptor.
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors.as_slice()));
        }
        let text = [IoSlice::new(self.text.as_bytes())];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(socket, &text, &mut ancillary, flags).map(drop)
    }
}

impl Watchdog {
    /// The manager expects a sign of life every `WATCHDOG_USEC` from the process `WATCHDOG_PID`, or from any process
    /// when that is not set: twice as many are sent (sd_watchdog_enabled(3)).
    fn of(variable: impl Fn(&str) -> Option<OsString>, now: Now) -> Option<Self> {
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = variable("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(std::process::id().into());
        let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_ours)?;
        let interval = Duration::from_micros(micros.div_ceil(2));
        Some(Self {
            interval,
            next: now.up.saturating_add(interval),
        })
    }
}

#[cfg(test)]
mod tests;
