//! A viewer: its view and how far its socket takes it.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use mio::net::UnixStream;
use rustix::net::SendFlags;

use crate::export::view::{Line, View};
use crate::time::{Now, Uptime};

/// How long a viewer for which lines wait may read nothing before another may take its place.
pub(super) const TOLERANCE: Duration = Duration::from_secs(60);

/// The lines that go to one viewer.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) view: View,
    /// Since when the socket takes nothing. mio reports by edges when it takes something again.
    pub(super) stuck_since: Option<Uptime>,
}

impl Viewer {
    pub(super) const fn new(view: View) -> Self {
        Self {
            view,
            stuck_since: None,
        }
    }

    /// Writes what goes without waiting. That is not more than the queue holds, as nothing is added meanwhile. `is_ready`
    /// says that something has happened to the socket since the last call.
    ///
    /// # Errors
    /// When the viewer is gone.
    pub(super) fn go_on(
        &mut self,
        stream: &mut UnixStream,
        is_ready: bool,
        line: &mut Line,
        now: Now,
    ) -> io::Result<()> {
        self.view.handle_timeout(now, line);
        if self.view.contiguous().is_empty() {
            return if is_ready { look_after(stream) } else { Ok(()) };
        }
        if self.stuck_since.is_some() && !is_ready {
            return Ok(());
        }
        loop {
            match stream.write(self.view.contiguous()) {
                Ok(count) => {
                    self.view.consume(count);
                    self.stuck_since = None;
                    if self.view.contiguous().is_empty() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert(now.up);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Fails when the peer has closed the connection. One that has only ended its own sending still reads; an empty message
/// tells the two apart (net/unix/af_unix.c, unix_stream_sendmsg: EPIPE comes before the length is looked at).
fn look_after(stream: &UnixStream) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::send(stream, &[], flags)?;
    Ok(())
}
