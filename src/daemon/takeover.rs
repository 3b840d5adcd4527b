//! The event socket of an earlier run, out of the service manager's store.

use std::io;

use super::notify::StoredName;
use crate::config;
use crate::kernel::conntrack::{EventSocket, Unsuitable};
use crate::kernel::inherited::Inherited;
use crate::kernel::namespace::within;
use crate::store::LastRun;
use crate::time::Wall;

/// How events are heard in this run, as far as it matters for what the last one left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listening {
    /// Cookie of the socket, if the kernel told.
    pub socket: Option<u64>,
    /// Whether the last run listened with the same one.
    pub kept: bool,
}

/// An event socket in the state in which it was found.
pub struct Kept {
    pub socket: EventSocket,
    /// Drops of its that need no gap any more.
    pub drops: u32,
    /// When it began to drop events that are lost and in no gap, if it did.
    pub overflow_since: Option<Wall>,
}

impl Kept {
    /// The state of a new one.
    #[must_use]
    pub const fn new(socket: EventSocket) -> Self {
        Self {
            socket,
            drops: 0,
            overflow_since: None,
        }
    }

    /// After a planned stop what was dropped since is lost, unless delivery is reliable. After a crash the time since is a
    /// gap anyway.
    fn examine(socket: EventSocket, last_run: Option<&LastRun>) -> io::Result<Self> {
        let drops = socket.drops()?;
        let stated = last_run.and_then(|last_run| last_run.stopped);
        let stated = stated.filter(|_| !matches!(socket.is_reliable(), Ok(true)));
        Ok(Self {
            socket,
            drops: stated.unwrap_or(drops),
            overflow_since: last_run
                .and_then(|last_run| last_run.last_commit)
                .filter(|_| stated.is_some_and(|stated| stated != drops)),
        })
    }
}

/// What came of the descriptors that the manager handed over.
#[derive(Default)]
pub struct Takeover {
    /// The event socket, if there is one that fits.
    pub kept: Option<Kept>,
    /// Names under which the manager has descriptors that are of no use.
    pub refused: Vec<StoredName>,
}

/// Picks the event socket that goes on: one of the configured network namespace, and the last run's, if the store knows
/// which that was. In any other, events may wait that have been recorded already. What is not picked is closed.
#[must_use]
pub fn pick(
    inherited: Vec<Inherited>,
    config: &config::Capture,
    last_run: Option<&LastRun>,
) -> Takeover {
    let mut takeover = Takeover::default();
    for Inherited { name, descriptor } in inherited {
        let adopted = within(config.namespace.as_ref(), || EventSocket::adopt(descriptor))
            .unwrap_or_else(|error| Err(Unsuitable::Unknown(error)));
        let examined = match adopted {
            Ok(_) if takeover.kept.is_some() => Err("another one is in use already".to_owned()),
            Ok(socket) => examine(socket, last_run),
            Err(unsuitable) => Err(unsuitable.to_string()),
        };
        match examined {
            Ok(kept) => takeover.kept = Some(kept),
            Err(reason) => {
                log::warn!(
                    "the descriptor \"{name}\" that the service manager kept is not used: {reason}"
                );
                takeover.refused.extend(StoredName::parse(&name));
            }
        }
    }
    takeover
}

fn examine(socket: EventSocket, last_run: Option<&LastRun>) -> Result<Kept, String> {
    let unknown = |error| Unsuitable::Unknown(error).to_string();
    let cookie = socket.cookie().map_err(unknown)?;
    if last_run
        .and_then(|last_run| last_run.socket)
        .is_some_and(|last| last != cookie)
    {
        return Err("a run since then listened with another one".to_owned());
    }
    Kept::examine(socket, last_run).map_err(unknown)
}
