//! The event socket of an earlier run, out of the service manager's store.

use super::notify::StoredName;
use crate::config;
use crate::kernel::conntrack::{EventSocket, Unsuitable};
use crate::kernel::inherited::Inherited;
use crate::kernel::namespace::within;

/// The event socket, as far as it matters for what the last run left.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Listening {
    /// Its cookie, if the kernel told.
    pub socket: Option<u64>,
    /// Whether the last run had it already.
    pub taken_over: Option<TakenOver>,
}

/// The state in which a socket was found that was kept between two runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TakenOver {
    pub drops: u32,
    /// Whether these drops may be losses: not so in reliable mode.
    pub drops_are_lost: bool,
}

/// What came of the descriptors that the manager handed over.
#[derive(Default)]
pub struct Takeover {
    /// An event socket that fits, with its state when it was found.
    pub socket: Option<(EventSocket, TakenOver)>,
    /// Names under which the manager has descriptors that are of no use.
    pub refused: Vec<StoredName>,
}

/// Picks the event socket that goes on: one of the configured network namespace, and the last run's, if the store knows
/// which that was. In any other, events may wait that have been recorded already. What is not picked is closed.
#[must_use]
pub fn pick(
    inherited: Vec<Inherited>,
    config: &config::Capture,
    last_socket: Option<u64>,
) -> Takeover {
    let mut takeover = Takeover::default();
    for Inherited { name, descriptor } in inherited {
        let adopted = within(config.namespace.as_ref(), || EventSocket::adopt(descriptor))
            .unwrap_or_else(|error| Err(Unsuitable::Unknown(error)));
        let examined = match adopted {
            Ok(_) if takeover.socket.is_some() => Err("another one is in use already".to_owned()),
            Ok(socket) => examine(socket, last_socket),
            Err(unsuitable) => Err(unsuitable.to_string()),
        };
        match examined {
            Ok(socket) => takeover.socket = Some(socket),
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

fn examine(
    socket: EventSocket,
    last_socket: Option<u64>,
) -> Result<(EventSocket, TakenOver), String> {
    let examined = (|| {
        // It would only repeat what the drops say.
        socket.take_error()?;
        let state = TakenOver {
            drops: socket.drops()?,
            drops_are_lost: !socket.is_reliable()?,
        };
        Ok((socket.cookie()?, state))
    })();
    let (cookie, state) = examined.map_err(|error| Unsuitable::Unknown(error).to_string())?;
    if last_socket.is_some_and(|last| last != cookie) {
        return Err("a run since then listened with another one".to_owned());
    }
    Ok((socket, state))
}
