//! How far long work is, on the standard error, if that is a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::kernel::clock;
use crate::time::Uptime;

const REFRESH: Duration = Duration::from_millis(200);

pub(super) struct Progress {
    /// So many of what is counted are one of the unit.
    scale: u64,
    unit: &'static str,
    shown: Uptime,
    is_terminal: bool,
    has_line: bool,
}

impl Progress {
    pub(super) fn new(scale: u64, unit: &'static str) -> Self {
        Self {
            scale,
            unit,
            shown: clock::read().up,
            is_terminal: io::stderr().is_terminal(),
            has_line: false,
        }
    }

    pub(super) fn show(&mut self, done: u64, all: u64) {
        if !self.is_terminal {
            return;
        }
        let now = clock::read().up;
        if now.saturating_since(self.shown) >= REFRESH {
            self.shown = now;
            self.has_line = true;
            let (done, all) = (done / self.scale, all / self.scale);
            // Other messages go over it. With the standard error gone, nobody is left to be told.
            let line = format!("\x1b[K{done} of {all} {}\r", self.unit);
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    pub(super) fn clear(&self) {
        if self.has_line {
            let _ = io::stderr().write_all(b"\x1b[K");
        }
    }
}
