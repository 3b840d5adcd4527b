//! Reading the kernel: events as they come, and the table when an audit asks for it.
//!
//! Work per call is bounded, so that no flood of events keeps the loop from its timers. mio reports readiness by edges:
//! a socket counts as readable from a report until a read says that nothing is left.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::takeover::{Listening, TakenOver};
use crate::config;
use crate::engine::Engine;
use crate::kernel::conntrack::{Batch, Datagram, DumpSocket, EventSocket};
use crate::kernel::filter::Program;
use crate::kernel::namespace::within;
use crate::session::{Gap, GapCause};
use crate::time::{Now, Wall};
use crate::wire::ctnetlink::{DumpReply, Event};
use crate::wire::netlink::{Malformed, Messages, NLM_F_DUMP_INTR};

/// Batches of events read in one turn of the loop: 1024 events, fewer than a collector or a copy sends in one.
const BATCHES_PER_TURN: usize = 8;
/// Datagrams of a dump read in one turn, each of up to 32 KiB.
const DUMP_DATAGRAMS_PER_TURN: usize = 4;

/// Counts since the start of the daemon.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// System calls that returned events.
    pub batches: u64,
    /// Messages of the event socket.
    pub events: u64,
    /// Messages of dumps.
    pub dumped: u64,
    /// Messages that could not be decoded.
    pub malformed: u64,
    /// Datagrams that did not come from the kernel, or were longer than any event.
    pub unusable: u64,
    /// How often events were lost because the socket's buffer was full (never in reliable mode).
    pub overflows: u64,
}

/// The sockets to the kernel.
pub struct Capture {
    config: config::Capture,
    events: EventSocket,
    batch: Batch,
    readable: bool,
    dump: Option<Dump>,
    dump_sequence: u32,
    dump_failing: bool,
    /// When the event socket was last read to its end: everything before that was heard.
    complete_until: Wall,
    /// Drops that have been made a gap.
    drops: u32,
    listening: Listening,
    statistics: Statistics,
}

struct Dump {
    socket: DumpSocket,
    sequence: u32,
    readable: bool,
}

/// What a dump came to.
enum DumpState {
    Continues,
    Complete,
    Failed(String),
}

impl Capture {
    /// Subscribes to the events of the configured network namespace, or goes on with `kept`, a socket of an earlier run.
    ///
    /// # Errors
    /// What the kernel says: a namespace that is not there, or a missing permission.
    pub fn open(
        config: &config::Capture,
        kept: Option<(EventSocket, TakenOver)>,
        now: Now,
    ) -> io::Result<Self> {
        let (events, taken_over) = match kept {
            Some((socket, state)) => {
                socket.configure(config)?;
                (socket, Some(state))
            }
            None => {
                let open = || EventSocket::open(config);
                (within(config.namespace.as_ref(), open)??, None)
            }
        };
        Ok(Self {
            listening: Listening {
                socket: events.cookie().ok(),
                taken_over,
            },
            config: config.clone(),
            events,
            batch: Batch::new(),
            readable: true,
            dump: None,
            dump_sequence: 0,
            dump_failing: false,
            complete_until: now.wall,
            drops: taken_over.map_or(0, |state| state.drops),
            statistics: Statistics::default(),
        })
    }

    /// Applies changed filters; whatever else has changed needs a restart. While sessions are pending that they leave out,
    /// the kernel must not filter: the ends of these would never come.
    pub fn reconfigure(&mut self, config: &config::Capture, engine: &Engine) {
        let program = if engine.accepts_all_pending() {
            Program::new(config)
        } else {
            Program::accept_all()
        };
        if let Err(error) = self.events.set_filter(&program) {
            log::warn!("the kernel keeps the earlier filter: {error}");
        }
    }

    /// The socket that is listened with, for whoever keeps it or wants to know it again.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    #[must_use]
    pub const fn listening(&self) -> Listening {
        self.listening
    }

    /// # Errors
    /// What the kernel says.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(
            &mut SourceFd(&self.events.as_raw_fd()),
            token,
            Interest::READABLE,
        )
    }

    pub fn set_readable(&mut self) {
        self.readable = true;
    }

    pub fn set_dump_readable(&mut self) {
        if let Some(dump) = &mut self.dump {
            dump.readable = true;
        }
    }

    /// Whether a call would find something to read at once.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readable || self.dump.as_ref().is_some_and(|dump| dump.readable)
    }

    /// Reads queued events into the engine. Returns whether some may be left.
    ///
    /// # Errors
    /// When the socket fails for another reason than an overflow.
    pub fn read_events(&mut self, engine: &mut Engine, now: Now) -> io::Result<bool> {
        for _ in 0..BATCHES_PER_TURN {
            if !self.readable {
                return Ok(false);
            }
            match self.events.receive(&mut self.batch) {
                Ok(()) => {
                    self.handle_batch(engine, now);
                    if !self.batch.is_full() {
                        // The call ended because nothing was left; what comes now makes a new edge.
                        self.note_drained(engine, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.note_drained(engine, now);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.handle_overflow(engine, now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.readable)
    }

    /// Asks the kernel for a listing, if an audit wants one.
    pub fn start_dump(&mut self, engine: &mut Engine, registry: &Registry, token: Token, now: Now) {
        let Some(listing) = engine.poll_dump(now) else {
            return;
        };
        self.dump_sequence = self.dump_sequence.wrapping_add(1);
        let sequence = self.dump_sequence;
        let opened = within(self.config.namespace.as_ref(), || {
            DumpSocket::request(listing, sequence)
        });
        let registered = opened.and_then(|socket| socket).and_then(|socket| {
            registry.register(
                &mut SourceFd(&socket.as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
            Ok(socket)
        });
        match registered {
            Ok(socket) => {
                self.dump = Some(Dump {
                    socket,
                    sequence,
                    readable: true,
                })
            }
            Err(error) => self.fail_dump(engine, &error.to_string(), now),
        }
    }

    /// Reads a piece of the dump that is under way into the engine.
    pub fn read_dump(&mut self, engine: &mut Engine, now: Now) {
        for _ in 0..DUMP_DATAGRAMS_PER_TURN {
            let Some(dump) = self.dump.as_mut().filter(|dump| dump.readable) else {
                return;
            };
            let statistics = &mut self.statistics;
            match dump.read(engine, statistics, now) {
                DumpState::Continues => {}
                DumpState::Complete => {
                    self.dump = None;
                    if self.dump_failing {
                        self.dump_failing = false;
                        log::info!("the connection table could be read again");
                    }
                    engine.handle_dump_end();
                    // What ended during the dump may still be queued: the engine waits for the queue's end.
                    self.readable = true;
                }
                DumpState::Failed(reason) => self.fail_dump(engine, &reason, now),
            }
        }
    }

    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// How often an event did not fit into the socket's buffer at first.
    #[must_use]
    pub fn drops(&self) -> u32 {
        self.events.drops().unwrap_or(self.drops)
    }

    /// Drops that have been made a gap.
    #[must_use]
    pub const fn stated_drops(&self) -> u32 {
        self.drops
    }

    /// Bytes of the receive buffer, as the kernel counts them.
    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        self.events.receive_buffer().unwrap_or(0)
    }

    fn note_drained(&mut self, engine: &mut Engine, now: Now) {
        self.readable = false;
        self.complete_until = now.wall;
        engine.handle_events_drained(now);
    }

    fn handle_batch(&mut self, engine: &mut Engine, now: Now) {
        self.statistics.batches += 1;
        for datagram in self.batch.iter() {
            let Datagram::Kernel(bytes) = datagram else {
                self.statistics.unusable += 1;
                continue;
            };
            for message in Messages::new(bytes) {
                self.statistics.events += 1;
                match message.and_then(|message| Event::decode(&message)) {
                    Ok(Some(event)) => engine.handle_event(&event, now),
                    Ok(None) => {}
                    Err(Malformed) => self.statistics.malformed += 1,
                }
            }
        }
    }

    fn handle_overflow(&mut self, engine: &mut Engine, now: Now) {
        self.statistics.overflows += 1;
        let drops = self.events.drops().unwrap_or(self.drops);
        let lost = drops.wrapping_sub(self.drops);
        self.drops = drops;
        let (from, to) = (self.complete_until, now.wall);
        log::warn!("the kernel could not queue {lost} events: capture.receive-buffer was full");
        let gap = Gap {
            cause: GapCause::Overflow,
            from,
            to,
            lost: Some(u64::from(lost)),
        };
        engine.handle_gap(gap, now);
    }

    fn fail_dump(&mut self, engine: &mut Engine, reason: &str, now: Now) {
        self.dump = None;
        if !self.dump_failing {
            self.dump_failing = true;
            log::warn!("cannot read the connection table: {reason}; trying again every 10 s");
        }
        engine.handle_dump_failed(now);
    }
}

impl Dump {
    fn read(&mut self, engine: &mut Engine, statistics: &mut Statistics, now: Now) -> DumpState {
        let datagram = match self.socket.receive() {
            Ok(datagram) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return DumpState::Continues;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return DumpState::Continues;
            }
            Err(error) => return DumpState::Failed(error.to_string()),
        };
        for message in Messages::new(datagram) {
            let reply = message.and_then(|message| {
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    return Ok(Some(DumpReply::Error(libc::EINTR)));
                }
                if message.sequence != self.sequence {
                    return Ok(None);
                }
                DumpReply::decode(&message)
            });
            match reply {
                Ok(Some(DumpReply::Flow(flow))) => {
                    statistics.dumped += 1;
                    engine.handle_dumped(&flow, now);
                }
                Ok(Some(DumpReply::Done)) => return DumpState::Complete,
                Ok(Some(DumpReply::Error(number))) => {
                    return DumpState::Failed(io::Error::from_raw_os_error(number).to_string());
                }
                Ok(None) => {}
                Err(Malformed) => statistics.malformed += 1,
            }
        }
        DumpState::Continues
    }
}
