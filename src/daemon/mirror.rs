//! Watching monitor ports: frames that were lost before connection tracking saw them become gaps, and so does the time in
//! which a port is not there.

use std::io;

use super::watch::Tally;
use crate::config::{Capture, Monitor, Namespace};
use crate::engine::Engine;
use crate::kernel::namespace::{identity, is_same, within};
use crate::kernel::netdev::{Interfaces, Received};
use crate::session::{Gap, GapCause};
use crate::time::{Now, Wall};

/// The ports whose connections this daemon sees: those in the namespace of `capture`.
pub(super) struct Ports(Vec<Port>);

struct Port {
    monitor: Monitor,
    state: State,
    tally: Tally,
    /// The counter at the last look: it begins anew with another interface of that name.
    lost: u64,
    /// When the port was last there, or the gap about its absence ended.
    seen: Wall,
}

enum State {
    Watched {
        interfaces: Interfaces,
        /// Of the namespace's file.
        identity: Option<(u64, u64)>,
    },
    Absent,
}

impl Ports {
    pub(super) fn new(monitors: &[Monitor], capture: &Capture, now: Now) -> Self {
        let mut ports = Self(Vec::new());
        drop(ports.replace(monitors, capture, now));
        ports
    }

    /// Ports whose keys are as they were go on being watched. The last gaps of the others are stated.
    pub(super) fn reconfigure(
        &mut self,
        monitors: &[Monitor],
        capture: &Capture,
        engine: &mut Engine,
        now: Now,
    ) {
        self.replace(monitors, capture, now).finish(engine, now);
    }

    /// Returns the ports that are no longer watched.
    fn replace(&mut self, monitors: &[Monitor], capture: &Capture, now: Now) -> Self {
        let mut before = std::mem::take(&mut self.0);
        let is_seen =
            |monitor: &&Monitor| is_same(monitor.namespace.as_ref(), capture.namespace.as_ref());
        self.0
            .extend(monitors.iter().filter(is_seen).map(|monitor| {
                match before.iter().position(|port| port.monitor == *monitor) {
                    Some(index) => before.swap_remove(index),
                    None => Port::new(monitor, now),
                }
            }));
        Self(before)
    }

    pub(super) fn look(&mut self, engine: &mut Engine, now: Now) {
        for gap in self.0.iter_mut().flat_map(|port| port.look(now)) {
            engine.state_gap(gap);
        }
    }

    /// States the last gaps, as no other follows.
    pub(super) fn finish(&mut self, engine: &mut Engine, now: Now) {
        for port in &mut self.0 {
            port.tally.hurry(now);
            if matches!(port.state, State::Absent)
                && let Some(gap) = port.absence(now)
            {
                engine.state_gap(gap);
            }
        }
        self.look(engine, now);
    }
}

impl Port {
    fn new(monitor: &Monitor, now: Now) -> Self {
        let mut port = Self {
            monitor: monitor.clone(),
            state: State::Absent,
            tally: Tally::new(GapCause::Mirror, 0, now),
            lost: 0,
            seen: now.wall,
        };
        match port.find() {
            Ok(received) => port.begin(received, now),
            Err(error) => port.complain(&error),
        }
        port
    }

    fn look(&mut self, now: Now) -> Vec<Gap> {
        let was_there = matches!(self.state, State::Watched { .. });
        match (self.received(), was_there) {
            (Ok(received), true) => {
                if received.lost < self.lost {
                    self.begin(received, now);
                }
                (self.lost, self.seen) = (received.lost, now.wall);
                // The tally takes counters that wrap.
                self.tally
                    .count(received.lost as u32, now)
                    .into_iter()
                    .collect()
            }
            (Ok(received), false) => {
                log::info!("{}: the port is there again", self.monitor.title());
                let gap = self.absence(now);
                self.begin(received, now);
                gap.into_iter().collect()
            }
            (Err(error), true) => {
                self.state = State::Absent;
                self.complain(&error);
                self.absence(now).into_iter().collect()
            }
            (Err(_), false) => Vec::new(),
        }
    }

    fn begin(&mut self, received: Received, now: Now) {
        self.tally.restart(received.lost as u32, now);
        (self.lost, self.seen) = (received.lost, now.wall);
    }

    /// The gap since the port was last there.
    fn absence(&mut self, now: Now) -> Option<Gap> {
        let from = std::mem::replace(&mut self.seen, now.wall);
        (from < now.wall).then_some(Gap {
            cause: GapCause::Mirror,
            from,
            to: now.wall,
            lost: None,
        })
    }

    fn complain(&self, error: &io::Error) {
        log::warn!(
            "{}: {error}; nattrail looks for it every second: see \"nattrail monitor up\" and \"nattrail check\"",
            self.monitor.title()
        );
    }

    fn received(&mut self) -> io::Result<Received> {
        let State::Watched {
            interfaces,
            identity: known,
        } = &self.state
        else {
            return self.find();
        };
        if identity_of(self.monitor.namespace.as_ref())? != *known {
            return Err(io::Error::other(
                "its network namespace was removed or made anew",
            ));
        }
        interfaces
            .received(&self.monitor.interface)?
            .ok_or_else(absent)
    }

    /// Opens the counters of its namespace.
    fn find(&mut self) -> io::Result<Received> {
        let namespace = self.monitor.namespace.as_ref();
        // A daemon that runs inside of it may not enter it.
        let elsewhere = namespace.filter(|namespace| !is_same(Some(namespace), None));
        let interfaces = within(elsewhere, Interfaces::open)??;
        let received = interfaces.received(&self.monitor.interface)?;
        let identity = identity_of(namespace)?;
        let received = received.ok_or_else(absent)?;
        self.state = State::Watched {
            interfaces,
            identity,
        };
        Ok(received)
    }
}

fn identity_of(namespace: Option<&Namespace>) -> io::Result<Option<(u64, u64)>> {
    namespace.map(identity).transpose()
}

fn absent() -> io::Error {
    io::Error::other(
        "expected the interface to exist, found none of that name in its network namespace",
    )
}
