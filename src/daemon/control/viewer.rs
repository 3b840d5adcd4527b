//! A viewer: its view and its progress on the socket.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::export::view::filter::Filter;
use crate::export::view::{Line, View};
use crate::time::{Now, Uptime};

/// The time for which a viewer with waiting lines may read nothing before another may take its place.
pub(super) const TOLERANCE: Duration = Duration::from_secs(60);

/// The lines that go to one viewer.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) view: View,
    /// Since when the socket takes nothing. mio reports by edges when it takes data again.
    pub(super) stuck_since: Option<Uptime>,
}

impl Viewer {
    pub(super) fn new(filter: Filter) -> Self {
        Self {
            view: View::new(filter),
            stuck_since: None,
        }
    }

    /// Writes what goes without waiting, at most the content of the queue, as nothing is added meanwhile. `is_ready`
    /// tells that the socket has changed since the last call.
    ///
    /// # Errors
    /// When the viewer is gone. One that has only ended its own sending still reads: a write tells the two apart, even
    /// an empty one (net/unix/af_unix.c, unix_stream_sendmsg: EPIPE comes before the check of the length).
    pub(super) fn go_on(
        &mut self,
        stream: &OwnedFd,
        mut is_ready: bool,
        line: &mut Line,
        now: Now,
    ) -> Result<(), Errno> {
        self.view.handle_timeout(now, line);
        while is_ready || (self.stuck_since.is_none() && !self.view.contiguous().is_empty()) {
            match send(stream, self.view.contiguous(), SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.view.consume(count);
                    self.stuck_since = None;
                }
                Err(Errno::AGAIN) => {
                    self.stuck_since.get_or_insert(now.up);
                }
                Err(error) => return Err(error),
            }
            is_ready = false;
        }
        Ok(())
    }
}
