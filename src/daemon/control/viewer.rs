//! A viewer: its view and how far its socket takes it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::export::view::filter::Filter;
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
    pub(super) fn new(filter: Filter) -> Self {
        Self {
            view: View::new(filter),
            stuck_since: None,
        }
    }

    /// Writes what goes without waiting. That is not more than the queue holds, as nothing is added meanwhile. `is_ready`
    /// says that something has happened to the socket since the last call.
    ///
    /// # Errors
    /// When the viewer is gone. One that has only ended its own sending still reads: writing tells the two apart, also an
    /// empty message (net/unix/af_unix.c, unix_stream_sendmsg: EPIPE comes before the length is looked at).
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
