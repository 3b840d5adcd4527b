//! The ways out of the program: UDP, datagrams to a local socket, files and the standard output.
//!
//! Nothing here blocks. Nor is there a registration for readiness: a message that cannot be written is tried again when
//! the back-off of its output ends ([`super::output`]). [`Failure`] tells a caller how to go on after an error.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::encoder::{Amount, Load};
use super::file::Appender;
use super::queue::Queue;
use super::stream::Stream;
use super::udp::{GoBack, Udp};
use crate::config::{Collector, Target};
use crate::place::Position;
use crate::time::{Now, Uptime};

/// The reason why nothing was written, by the remedy.
#[derive(Debug)]
pub(super) enum Failure {
    /// The receiver has no room now: try again soon.
    Busy,
    /// The receiver's host, or a router on the way, refused an earlier datagram: go back to it.
    Refused(GoBack, Trouble),
    /// The front message can never be sent: drop it.
    TooLarge,
    /// There is no room on the disk: try again later, without opening anew.
    Stalled(Trouble),
    /// The connection or file is closed by now: try again later.
    Broken(Trouble),
    /// The receiver is gone for good.
    Ended(Trouble),
}

/// An error, and the action that failed.
#[derive(Debug)]
pub(super) struct Trouble {
    action: &'static str,
    error: io::Error,
}

impl Trouble {
    pub(super) const fn new(action: &'static str, error: io::Error) -> Self {
        Self { action, error }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.action, self.error)
    }
}

/// The messages that one write took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// The place of the output after them.
    pub(super) position: Position,
    pub(super) amount: Amount,
}

#[derive(Debug)]
pub(super) enum Transport {
    Udp(Udp),
    Unix(Unix),
    File(Appender),
    Stdout(Stdout),
    #[cfg(test)]
    Fake(fake::Fake),
}

impl Transport {
    pub(super) fn to_collector(config: &Collector) -> Self {
        let any = (unspecified(config.address), 0).into();
        let source = config.source_address.unwrap_or(any);
        Self::Udp(Udp::new(config.address, source, config.send_buffer))
    }

    pub(super) fn to_target(target: &Target) -> Self {
        match target {
            Target::File { path } => Self::File(Appender::new(path.clone())),
            Target::Journal { path } | Target::Local { path } => Self::Unix(Unix {
                path: path.clone(),
                socket: None,
            }),
            Target::Stdout => Self::Stdout(Stdout::new(io::stdout().as_fd().try_clone_to_owned())),
            Target::Udp { address } => {
                let any = (unspecified(*address), 0).into();
                Self::Udp(Udp::new(*address, any, None))
            }
        }
    }

    /// Whether the receiver takes any number of datagrams at once, and may refuse them later.
    pub(super) const fn is_udp(&self) -> bool {
        match self {
            Self::Udp(_) => true,
            #[cfg(test)]
            Self::Fake(fake) => fake.is_udp,
            _ => false,
        }
    }

    /// The local port of a UDP socket; 0 when there is none.
    pub(super) const fn port(&self) -> u16 {
        match self {
            Self::Udp(udp) => udp.port(),
            _ => 0,
        }
    }

    /// See [`Udp::go_on`].
    pub(super) fn go_on(&mut self, port: u16, refused: bool) {
        if let Self::Udp(udp) = self {
            udp.go_on(port, refused);
        }
    }

    /// See [`Udp::host`].
    pub(super) fn host(&self) -> Option<IpAddr> {
        match self {
            Self::Udp(udp) => udp.host(),
            _ => None,
        }
    }

    /// Reads the answers to datagrams. After a refusal, the result tells where to continue.
    pub(super) fn take_refusal(&mut self, now: Now) -> Option<GoBack> {
        match self {
            Self::Udp(udp) => udp.take_refusal(now),
            #[cfg(test)]
            Self::Fake(fake) => fake.refusals.pop_front(),
            _ => None,
        }
    }

    /// See [`Udp::earliest`].
    pub(super) fn earliest(&self) -> Option<Position> {
        match self {
            Self::Udp(udp) => udp.earliest(),
            _ => None,
        }
    }

    /// See [`Udp::doubtful`].
    pub(super) fn doubtful(&self) -> Option<(Position, u32)> {
        match self {
            Self::Udp(udp) => udp.doubtful(),
            _ => None,
        }
    }

    /// See [`Udp::doubt`].
    pub(super) const fn doubt(&mut self, since: Uptime) {
        if let Self::Udp(udp) = self {
            udp.doubt(since);
        }
    }

    /// See [`Udp::settle`].
    pub(super) fn settle(&mut self, now: Now) {
        if let Self::Udp(udp) = self {
            udp.settle(now);
        }
    }

    /// Whether datagrams are out that may still be refused.
    pub(super) fn awaits_answers(&mut self, now: Now) -> bool {
        match self {
            Self::Udp(udp) => udp.awaits_answers(now),
            _ => false,
        }
    }

    /// Opens it unless it is open. Returns whether a UDP socket has another port than before.
    pub(super) fn open(&mut self) -> Result<bool, Failure> {
        let broken = |action| move |error| Failure::Broken(Trouble::new(action, error));
        match self {
            Self::Udp(udp) => return udp.open().map_err(broken("send")),
            Self::Unix(unix) => unix.open().map(drop).map_err(broken("connect"))?,
            Self::File(file) => file.open().map(drop).map_err(broken("open"))?,
            Self::Stdout(_) => {}
            #[cfg(test)]
            Self::Fake(fake) => fake.open()?,
        }
        Ok(false)
    }

    /// Closes it, to be opened again by the next write. The standard output and a UDP socket stay as they are.
    pub(super) fn close(&mut self, queue: &mut Queue<Load>) {
        match self {
            Self::Unix(unix) => unix.socket = None,
            Self::File(file) => {
                file.close(queue.is_torn());
                queue.rewind();
            }
            Self::Udp(_) | Self::Stdout(_) => {}
            #[cfg(test)]
            Self::Fake(fake) => fake.is_open = false,
        }
    }

    /// Takes note that the rest of a partly written message does not follow.
    pub(super) const fn break_off(&mut self) {
        if let Self::File(file) = self {
            file.break_off();
        }
    }

    /// Does one write of queued messages, the first of which begins at `begin`, and takes them off the queue. The queue
    /// must not be empty, and the transport must be open.
    pub(super) fn write(
        &mut self,
        queue: &mut Queue<Load>,
        begin: Position,
        now: Now,
    ) -> Result<Taken, Failure> {
        match self {
            Self::Udp(udp) => send(queue, begin, |bytes, load| {
                let sent = udp.send(bytes, begin, load, now);
                sent.map_err(|error| udp_failure(udp, error, now))
            }),
            Self::Unix(unix) => send(queue, begin, |bytes, _| unix.send(bytes)),
            Self::File(file) => {
                let result = file.write(queue.contiguous(), now);
                if matches!(result, Err(Failure::Broken(_))) {
                    queue.rewind();
                }
                Ok(consume(queue, begin, result?))
            }
            Self::Stdout(stdout) => {
                let count = stdout.write(queue.contiguous())?;
                Ok(consume(queue, begin, count))
            }
            #[cfg(test)]
            Self::Fake(fake) => send(queue, begin, |bytes, load| fake.send(bytes, begin, load)),
        }
    }
}

/// Hands the front message to `send`, and takes it off the queue when that succeeds.
fn send(
    queue: &mut Queue<Load>,
    begin: Position,
    send: impl FnOnce(&[u8], Load) -> Result<(), Failure>,
) -> Result<Taken, Failure> {
    let Some(message) = queue.front() else {
        return Ok(Taken {
            position: begin,
            ..Taken::default()
        });
    };
    send(message.bytes, message.tag)?;
    let taken = Taken {
        position: message.tag.end,
        amount: Amount::of(message.tag, message.bytes.len()),
    };
    queue.pop();
    Ok(taken)
}

/// Takes `octets` off the queue, of whole messages and of a part of one.
fn consume(queue: &mut Queue<Load>, begin: Position, octets: usize) -> Taken {
    let mut taken = Taken {
        position: begin,
        ..Taken::default()
    };
    queue.consume(octets, |load| {
        taken.position = load.end;
        taken.amount += Amount::of(load, 0);
    });
    taken.amount.octets = octets as u64;
    taken
}

const fn unspecified(peer: SocketAddr) -> IpAddr {
    match peer {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// An error of one send: of this datagram, of an earlier one, or of the path.
fn udp_failure(udp: &mut Udp, error: io::Error, now: Now) -> Failure {
    let code = error.raw_os_error();
    if let Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) = code {
        return Failure::Busy;
    }
    let trouble = Trouble::new("send", error);
    match udp.take_refusal(now) {
        Some(go_back) => Failure::Refused(go_back, trouble),
        // Otherwise a router may have found an earlier one too large, and the kernel now sends fragments.
        None if code == Some(libc::EMSGSIZE) => Failure::TooLarge,
        // It may be about a datagram that the output has already gone back to, or about the path from here.
        None => {
            udp.disconnect();
            Failure::Broken(trouble)
        }
    }
}

/// A connected datagram socket to a local receiver. A restarted receiver has a new socket under the old path, so any
/// error but a full queue means to connect again.
#[derive(Debug)]
pub(super) struct Unix {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Unix {
    fn open(&mut self) -> io::Result<&UnixDatagram> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(&self.path)?;
                socket
            }
        };
        Ok(self.socket.insert(socket))
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        let sent = self.open().and_then(|socket| socket.send(message));
        let Err(error) = sent else {
            return Ok(());
        };
        Err(match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Failure::Busy,
            Some(libc::EMSGSIZE) => Failure::TooLarge,
            _ => {
                self.socket = None;
                Failure::Broken(Trouble::new("send", error))
            }
        })
    }
}

/// The standard output, or the error of duplicating it.
#[derive(Debug)]
pub(super) struct Stdout {
    stream: io::Result<Stream>,
}

impl Stdout {
    pub(super) fn new(fd: io::Result<OwnedFd>) -> Self {
        Self {
            stream: fd.map(Stream::new),
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Failure> {
        let trouble = |error| Trouble::new("write", error);
        let stream = self.stream.as_ref().map_err(|error| {
            Failure::Ended(trouble(io::Error::new(error.kind(), error.to_string())))
        })?;
        stream
            .write(bytes)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Failure::Busy,
                Some(libc::ENOSPC | libc::EDQUOT) => Failure::Stalled(trouble(error)),
                _ => Failure::Ended(trouble(error)),
            })
    }
}

#[cfg(test)]
pub(super) mod fake;
