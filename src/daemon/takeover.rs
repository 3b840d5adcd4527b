//! The start of a run, decided in one pure function: the state of the last run and the sockets that the service manager
//! kept determine the socket in use, the gap to state, and the way in which outputs go on.
//!
//! | the last run left | and | socket | gap since | sequence numbers |
//! |---|---|---|---|---|
//! | a planned end | its socket | kept | none | go on |
//! | a planned end | no socket, or another one | new | its end | go on |
//! | no planned end (a crash) | | kept if it is there | its last commit | new |
//! | a database older than the last commit | | kept if it is there | the database's commit | new |
//! | an empty database, and a lock | | kept if it is there | the oldest record that was not taken | new |
//! | an unusable database, and a lock | | new | the oldest record that was not taken | new |
//! | nothing at all | | kept if it is there | none: the first run | new |
//!
//! The lock file is a second witness of the last commit ([`Heartbeat`]). A run that cannot use the database cannot note
//! there that it took a socket over, so it takes none: the run after it would assume that nothing was missed.

use std::io;
use std::time::Duration;

use super::outputs::WireSession;
use crate::config;
use crate::kernel::conntrack::EventSocket;
use crate::kernel::inherited::Inherited;
use crate::kernel::namespace::within;
use crate::store::{Heartbeat, LastRun};
use crate::time::Wall;

/// File systems keep a file's date to a second or two.
const DATE_SLACK: Duration = Duration::from_secs(2);

/// An event socket that the service manager kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offer {
    pub cookie: u64,
    /// Events that have not fitted into it so far.
    pub drops: u32,
    pub reliable: bool,
}

/// The way in which this run begins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The reason why each of the offered sockets does not go on; `None` for the one that does.
    pub refusals: Vec<Option<&'static str>>,
    pub socket: Option<Goes>,
    /// Since when events may have been missed.
    pub gap_since: Option<Wall>,
    /// Whether nothing has been missed since the last run.
    pub is_continued: bool,
    pub session: WireSession,
}

/// The way in which a socket goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Goes {
    /// Drops that need no gap any more.
    pub drops: u32,
    /// When the first events were dropped that are lost and in no gap, if there are any.
    pub overflow_since: Option<Wall>,
}

/// Decides how a run begins. See the module's table. `last_run` is `None` when the database cannot be used.
pub fn decide(last_run: Option<LastRun>, heartbeat: Option<Heartbeat>, offers: &[Offer]) -> Plan {
    let run = last_run.unwrap_or_default();
    // Somebody put a database from before the last commit in the place of the last run's.
    let is_latest = match (run.heard, heartbeat) {
        (Some(heard), Some(beat)) => beat.heard <= heard.saturating_add(DATE_SLACK),
        _ => true,
    };
    let stopped = run.stopped.filter(|_| is_latest);
    let mut plan = Plan {
        refusals: Vec::new(),
        socket: None,
        gap_since: run.heard.or(heartbeat.map(|beat| beat.untaken)),
        is_continued: false,
        session: match stopped {
            Some(_) => WireSession::Continued,
            None => WireSession::New,
        },
    };
    for offer in offers {
        plan.refusals.push(if last_run.is_none() {
            Some("the database, which records how far it was read, cannot be used")
        } else if run.socket.is_some_and(|cookie| cookie != offer.cookie) {
            Some("a later run listened with another one")
        } else if plan.socket.is_some() {
            Some("another one is already in use")
        } else {
            plan.socket = Some(Goes::on(*offer, stopped, run.heard));
            None
        });
    }
    if stopped.is_some() && run.socket.is_some() && plan.socket.is_some() {
        plan.gap_since = None;
        plan.is_continued = true;
    }
    plan
}

impl Goes {
    /// After a planned stop, events dropped since are lost, unless delivery is reliable. After a crash that time is a
    /// gap anyway.
    fn on(offer: Offer, stopped: Option<u32>, heard: Option<Wall>) -> Self {
        let stated = stopped.filter(|_| !offer.reliable);
        Self {
            drops: stated.unwrap_or(offer.drops),
            overflow_since: heard.filter(|_| stated.is_some_and(|drops| drops != offer.drops)),
        }
    }
}

/// The event sockets among the descriptors that the manager handed over.
#[derive(Default)]
pub struct Offered {
    sockets: Vec<(String, EventSocket)>,
    pub offers: Vec<Offer>,
    /// Names under which the manager keeps useless descriptors.
    pub refused: Vec<String>,
}

impl Offered {
    /// Finds the descriptors that are event sockets of the configured network namespace. The others are closed.
    pub fn examine(inherited: Vec<Inherited>, config: &config::Capture) -> Self {
        let mut this = Self::default();
        for Inherited { name, descriptor } in inherited {
            let adopted = within(config.namespace.as_ref(), || EventSocket::adopt(descriptor));
            let examined = adopted.flatten().and_then(|it| Ok((offer(&it)?, it)));
            match examined {
                Ok((offer, socket)) => {
                    this.sockets.push((name, socket));
                    this.offers.push(offer);
                }
                Err(unsuitable) => this.refuse(&name, &unsuitable.to_string()),
            }
        }
        this
    }

    /// Takes the socket that goes on, and closes the others.
    pub fn take(&mut self, plan: &Plan) -> Option<(EventSocket, Goes)> {
        let mut kept = None;
        let sockets = std::mem::take(&mut self.sockets);
        for ((name, socket), refusal) in sockets.into_iter().zip(&plan.refusals) {
            match refusal {
                Some(reason) => self.refuse(&name, reason),
                None => kept = Some(socket),
            }
        }
        kept.zip(plan.socket)
    }

    fn refuse(&mut self, name: &str, reason: &str) {
        log::warn!("the descriptor \"{name}\" that the service manager kept is not used: {reason}");
        self.refused.push(name.to_owned());
    }
}

fn offer(socket: &EventSocket) -> io::Result<Offer> {
    Ok(Offer {
        cookie: socket.cookie()?,
        drops: socket.memory()?.drops,
        reliable: matches!(socket.is_reliable(), Ok(true)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: Wall = Wall::from_secs(1_000);
    const LATER: Wall = Wall::from_secs(5_000);
    const EARLIER: Wall = Wall::from_secs(500);

    fn run(stopped: Option<u32>) -> LastRun {
        LastRun {
            heard: Some(HEARD),
            socket: Some(7),
            stopped,
            ..LastRun::default()
        }
    }

    const fn offer(cookie: u64) -> Offer {
        Offer {
            cookie,
            drops: 3,
            reliable: true,
        }
    }

    /// The index of the socket, the beginning of the gap, and whether sequence numbers go on.
    fn decided(
        run: Option<LastRun>,
        heartbeat: Option<Heartbeat>,
        cookies: &[u64],
    ) -> (Option<usize>, Option<Wall>, bool) {
        let offers: Vec<_> = cookies.iter().map(|cookie| offer(*cookie)).collect();
        let plan = decide(run, heartbeat, &offers);
        let taken = plan.refusals.iter().position(Option::is_none);
        assert_eq!(
            plan.is_continued,
            run.is_some() && taken.is_some() && plan.gap_since.is_none()
        );
        let others = plan.refusals.iter().flatten().count();
        assert_eq!(
            usize::from(plan.socket.is_some()) + others,
            cookies.len(),
            "each is taken or refused"
        );
        (
            taken,
            plan.gap_since,
            plan.session == WireSession::Continued,
        )
    }

    #[test]
    fn every_row_of_the_table() {
        let (planned, crashed) = (Some(run(Some(3))), Some(run(None)));
        let fresh = Some(LastRun::default());
        let (at, untaken) = (Some(HEARD), Some(EARLIER));
        let [witness, beat] = [HEARD, LATER].map(|heard| {
            let untaken = EARLIER;
            Some(Heartbeat { heard, untaken })
        });
        for (row, left, heartbeat, cookies, expected) in [
            (
                "planned, its socket",
                planned,
                witness,
                &[7][..],
                (Some(0), None, true),
            ),
            (
                "planned, no witness",
                planned,
                None,
                &[7],
                (Some(0), None, true),
            ),
            (
                "planned, no socket",
                planned,
                witness,
                &[],
                (None, at, true),
            ),
            (
                "planned, another socket",
                planned,
                witness,
                &[8],
                (None, at, true),
            ),
            (
                "planned, two sockets",
                planned,
                witness,
                &[8, 7],
                (Some(1), None, true),
            ),
            (
                "planned, the same twice",
                planned,
                witness,
                &[7, 7],
                (Some(0), None, true),
            ),
            (
                "a crash, its socket",
                crashed,
                witness,
                &[7],
                (Some(0), at, false),
            ),
            (
                "a crash, no socket",
                crashed,
                witness,
                &[],
                (None, at, false),
            ),
            (
                "an older database",
                planned,
                beat,
                &[7],
                (Some(0), at, false),
            ),
            (
                "an older database, crashed",
                crashed,
                beat,
                &[],
                (None, at, false),
            ),
            (
                "an empty database",
                fresh,
                beat,
                &[7],
                (Some(0), untaken, false),
            ),
            (
                "an unusable database",
                None,
                beat,
                &[7],
                (None, untaken, false),
            ),
            (
                "unusable, no witness",
                None,
                None,
                &[7],
                (None, None, false),
            ),
            ("the first run", fresh, None, &[], (None, None, false)),
        ] {
            assert_eq!(decided(left, heartbeat, cookies), expected, "{row}");
        }
    }

    #[test]
    fn drops_since_a_planned_stop_are_an_overflow_unless_delivery_is_reliable() {
        for (reliable, drops, since) in [(true, 9, None), (false, 9, Some(HEARD)), (false, 3, None)]
        {
            let offer = Offer {
                cookie: 7,
                drops,
                reliable,
            };
            let goes = decide(Some(run(Some(3))), None, &[offer]).socket;
            assert_eq!(
                goes.and_then(|goes| goes.overflow_since),
                since,
                "{reliable} {drops}"
            );
        }
    }
}
