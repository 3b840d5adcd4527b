//! Reading the kernel: events as they come, and the table when an audit asks for it.
//!
//! Work per call is bounded, so that no flood of events keeps the loop from its timers. mio reports readiness by edges:
//! a socket counts as readable from a report until a read says that nothing is left.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};

use super::takeover::Goes;
use crate::config;
use crate::engine::Engine;
use crate::kernel::clock;
use crate::kernel::conntrack::{Batch, Datagram, EventSocket, Memory};
use crate::kernel::dump::Dump;
use crate::kernel::filter::Program;
use crate::kernel::namespace::within;
use crate::metrics;
use crate::session::{Gap, GapCause};
use crate::time::{Now, Uptime, Wall};
use crate::wire::ctnetlink::{Event, Listing};
use crate::wire::netlink::{Malformed, Messages};

/// Batches of events read in one turn of the loop: 1024 events, fewer than a collector or a copy sends in one.
const BATCHES_PER_TURN: usize = 8;
/// Pieces of a listing read in one turn, each of up to 32 KiB.
const PIECES_PER_TURN: usize = 4;
/// Pieces of the dying list that are read, of some 100 entries each. For every piece the kernel walks the list from its
/// beginning, with the lock that the end of a connection needs: a list of millions would take minutes, and hold up traffic.
const DYING_PIECES: u32 = 64;
/// Octets of a dying list after which the kernel had room for another entry: the first piece of a dump holds some 3,700
/// (`NLMSG_GOODSIZE` with pages of 4 KiB), an entry takes less than 1,000.
const DYING_WHOLE: usize = 2048;

/// Least time between gaps of overflows, which may come hundreds of times a second.
const OVERFLOW_PAUSE: Duration = Duration::from_secs(1);

/// How long nothing must be lost before the log says that it is over.
const LOSS_MEMORY: Duration = Duration::from_secs(10);

/// The sockets to the kernel.
pub struct Capture {
    config: config::Capture,
    events: EventSocket,
    batch: Batch,
    /// The events of the batch, in room that is used again and again.
    decoded: Vec<Event>,
    readable: bool,
    listing: Option<Reading>,
    waker: Arc<Waker>,
    dump_failing: bool,
    /// When the event socket was last read to its end: what was not lost before that was heard.
    complete_until: Wall,
    /// Events that did not fit, as far as they are in a gap.
    drops: u32,
    /// Events that did not fit, as last read.
    drops_read: u32,
    /// When that was.
    drops_read_at: Wall,
    /// Since when there have been overflows that are not in a gap yet. The kernel drops events until the queue has been
    /// read to its end.
    overflow_since: Option<Wall>,
    /// Whether the queue has been read to its end since.
    overflow_over: bool,
    /// When they may be in one.
    next_gap: Uptime,
    /// When events were last lost, while that counts as the present state.
    losing: Option<Uptime>,
    statistics: metrics::Events,
}

/// A listing that is being read.
struct Reading {
    listing: Listing,
    dump: Dump,
    readable: bool,
    /// Pieces with entries, and how long they were.
    pieces: u32,
    octets: usize,
}

impl Capture {
    /// Subscribes to the events of the configured network namespace, or goes on with `kept`, the socket of an earlier run.
    /// `tokens` are by what the poll is to tell of them, and of a listing that was asked for.
    ///
    /// # Errors
    /// The kernel's error: a namespace that is not there, or a missing permission.
    pub fn open(
        config: &config::Capture,
        kept: Option<(EventSocket, Goes)>,
        registry: &Registry,
        tokens: [Token; 2],
        now: Now,
    ) -> io::Result<Self> {
        let (events, drops, overflow_since) = match kept {
            Some((socket, goes)) => {
                socket.configure(config)?;
                (socket, goes.drops, goes.overflow_since)
            }
            None => {
                let open = || EventSocket::open(config);
                (within(config.namespace.as_ref(), open)??, 0, None)
            }
        };
        let mut source = SourceFd(&events.as_fd().as_raw_fd());
        registry.register(&mut source, tokens[0], Interest::READABLE)?;
        Ok(Self {
            config: config.clone(),
            events,
            batch: Batch::new(),
            decoded: Vec::new(),
            readable: true,
            listing: None,
            waker: Arc::new(Waker::new(registry, tokens[1])?),
            dump_failing: false,
            complete_until: now.wall,
            drops,
            drops_read: drops,
            drops_read_at: now.wall,
            overflow_since,
            overflow_over: false,
            next_gap: now.up,
            losing: None,
            statistics: metrics::Events::default(),
        })
    }

    /// Applies changed filters; whatever else has changed needs a restart.
    pub fn reconfigure(&mut self, config: &config::Capture, engine: &Engine) {
        self.config = config.clone();
        self.set_filter(engine);
    }

    /// While sessions are pending that the filters leave out, the kernel must not filter: their ends would never come.
    fn set_filter(&mut self, engine: &Engine) {
        let program = if engine.accepts_all_pending() {
            Program::new(&self.config)
        } else {
            Program::accept_all()
        };
        if let Err(error) = program.attach(self.events.as_fd()) {
            log::warn!("the kernel keeps the earlier filter: {error}");
        }
    }

    /// The socket that is listened with, for whoever is to keep it.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// [Cookie](EventSocket::cookie) of that socket, if the kernel tells.
    pub fn cookie(&self) -> Option<u64> {
        self.events.cookie().ok()
    }

    pub fn set_readable(&mut self) {
        self.readable = true;
    }

    pub fn set_dump_readable(&mut self) {
        if let Some(listing) = &mut self.listing {
            listing.readable = true;
        }
    }

    /// Whether a call would find something to read at once.
    pub fn is_readable(&self) -> bool {
        self.readable
            || self
                .listing
                .as_ref()
                .is_some_and(|listing| listing.readable)
    }

    /// Whether events may be queued: the last read did not come to their end.
    pub const fn has_events(&self) -> bool {
        self.readable
    }

    /// Reads queued events into the engine, a bounded number of them. Returns how many there were;
    /// [`is_readable`](Self::is_readable) says whether more may be left.
    ///
    /// # Errors
    /// When the socket fails for another reason than an overflow.
    pub fn read_events(&mut self, engine: &mut Engine, now: Now) -> io::Result<usize> {
        let mut count = 0;
        if now.up >= self.next_gap {
            self.state_overflow(engine, now);
        }
        self.note_drops(engine, now);
        for _ in 0..BATCHES_PER_TURN {
            if !self.readable {
                break;
            }
            match self.events.receive(&mut self.batch) {
                Ok(()) => {
                    count += self.batch.count();
                    // Before the end of a session is handled whose NEW was dropped.
                    self.note_drops(engine, now);
                    self.handle_batch(engine, now);
                    // The call ended because nothing was left, and what comes now makes a new edge. Where overflows are
                    // reported it may also have ended because of one.
                    if self.config.reliable && !self.batch.is_full() {
                        self.handle_drained(engine, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.handle_drained(engine, now);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.handle_overflow(now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Asks the kernel for a listing, if an audit wants one.
    pub fn start_dump(&mut self, engine: &mut Engine, now: Now) {
        let Some(listing) = engine.poll_dump(now) else {
            return;
        };
        if listing == Listing::Table {
            self.set_filter(engine);
        }
        match Dump::request(listing, self.config.namespace.as_ref(), &self.waker) {
            Ok(dump) => {
                self.listing = Some(Reading {
                    listing,
                    dump,
                    readable: false,
                    pieces: 0,
                    octets: 0,
                });
            }
            Err(error) => self.fail_dump(engine, &error, now),
        }
    }

    /// Reads some of the listing that was asked for into the engine.
    pub fn read_dump(&mut self, engine: &mut Engine, now: Now) {
        for _ in 0..PIECES_PER_TURN {
            let Some(reading) = self.listing.as_mut().filter(|reading| reading.readable) else {
                return;
            };
            match reading.read(engine, &mut self.statistics, now) {
                Ok(false) => {}
                Ok(true) => {
                    let in_doubt = reading.is_in_doubt();
                    self.listing = None;
                    if self.dump_failing {
                        self.dump_failing = false;
                        log::info!("the connection table could be read again");
                    }
                    if in_doubt {
                        engine.handle_dump_in_doubt(now);
                    } else {
                        engine.handle_dump_end();
                    }
                    // The end of a connection during the dump may still be queued: the engine waits for the queue's end.
                    self.readable = true;
                }
                Err(error) => self.fail_dump(engine, &error, now),
            }
        }
    }

    pub const fn statistics(&self) -> &metrics::Events {
        &self.statistics
    }

    /// The state of the event socket's receive buffer.
    pub fn memory(&self) -> Memory {
        // No socket refuses to tell.
        self.events.memory().unwrap_or_default()
    }

    /// Until when the kernel has been heard: what happened before has been read, or is in a gap.
    pub fn heard_until(&self, now: Now) -> Wall {
        // With nothing left to read it has been heard until now.
        let read = if self.readable {
            self.complete_until
        } else {
            now.wall
        };
        self.overflow_since.map_or(read, |since| since.min(read))
    }

    /// Events that did not fit, as far as they are in a gap: what an overflow has cost, where it costs anything.
    pub const fn stated_drops(&self) -> u32 {
        self.drops
    }

    fn note_drops(&mut self, engine: &mut Engine, now: Now) {
        let drops = self.memory().drops;
        let since = std::mem::replace(&mut self.drops_read_at, now.wall);
        if drops != self.drops_read {
            self.drops_read = drops;
            // The process may have stood still since the turn began.
            engine.handle_drops(since, clock::read().wall);
        }
    }

    fn handle_drained(&mut self, engine: &mut Engine, now: Now) {
        self.readable = false;
        self.complete_until = now.wall;
        self.overflow_over = self.overflow_since.is_some();
        if let Some(last) = self.losing
            && now.up.saturating_since(last) >= LOSS_MEMORY
        {
            self.losing = None;
            log::info!("the kernel's queue is large enough again");
        }
        engine.handle_events_drained(now);
    }

    /// States what is not in a gap yet, as nothing will be said after this. While events are left to be read, that is for
    /// whoever reads them.
    pub fn finish(&mut self, engine: &mut Engine, now: Now) {
        self.state_overflow(engine, now);
    }

    /// States what overflows have cost, once the queue has been read to its end. Not in the same turn: the kernel drops
    /// events until that end, and `now` is the turn's beginning.
    fn state_overflow(&mut self, engine: &mut Engine, now: Now) {
        let Some(from) = self.overflow_since.filter(|_| self.overflow_over) else {
            return;
        };
        self.overflow_since = None;
        self.overflow_over = false;
        self.next_gap = now.up.saturating_add(OVERFLOW_PAUSE);
        let drops = self.memory().drops;
        let lost = drops.wrapping_sub(self.drops);
        self.drops = drops;
        let gap = Gap {
            cause: GapCause::Overflow,
            from,
            to: now.wall.max(from),
            lost: Some(u64::from(lost)),
        };
        engine.handle_gap(gap, now);
    }

    fn handle_batch(&mut self, engine: &mut Engine, now: Now) {
        self.statistics.batches += 1;
        self.decoded.clear();
        for datagram in self.batch.iter() {
            let bytes = match datagram {
                Datagram::Kernel(bytes) => bytes,
                Datagram::Truncated => {
                    self.statistics.messages += 1;
                    self.statistics.malformed += 1;
                    continue;
                }
                Datagram::Foreign => {
                    self.statistics.foreign += 1;
                    continue;
                }
            };
            for message in Messages::new(bytes) {
                self.statistics.messages += 1;
                match message.and_then(|message| Event::decode(&message)) {
                    Ok(Some(event)) => {
                        count(&event, &mut self.statistics);
                        self.decoded.push(event);
                    }
                    Ok(None) => {}
                    Err(Malformed) => self.statistics.malformed += 1,
                }
            }
        }
        engine.handle_events(&self.decoded, now);
    }

    fn handle_overflow(&mut self, now: Now) {
        self.statistics.overflows += 1;
        self.overflow_since.get_or_insert(self.complete_until);
        self.overflow_over = false;
        if self.losing.replace(now.up).is_none() {
            log::warn!(
                "the kernel could not queue events: capture.receive-buffer was full, and capture.reliable is off; each \
                 loss is in a gap record"
            );
        }
    }

    fn fail_dump(&mut self, engine: &mut Engine, error: &io::Error, now: Now) {
        self.listing = None;
        if !self.dump_failing {
            self.dump_failing = true;
            log::warn!("cannot read the connection table: {error}; trying again every 10 s");
        }
        engine.handle_dump_failed(now);
    }
}

impl Reading {
    /// Reads a piece, if there is one. Returns whether no more are wanted.
    fn read(
        &mut self,
        engine: &mut Engine,
        statistics: &mut metrics::Events,
        now: Now,
    ) -> io::Result<bool> {
        let Some(piece) = self.dump.receive()? else {
            self.readable = false;
            return Ok(false);
        };
        for entry in &piece.entries {
            engine.handle_dumped(entry, now);
        }
        statistics.dumped += piece.entries.len() as u64;
        statistics.dumped_malformed += piece.malformed;
        if !piece.entries.is_empty() {
            self.pieces += 1;
            self.octets += piece.octets;
        }
        let is_enough = self.listing == Listing::Dying && self.pieces >= DYING_PIECES;
        Ok(piece.is_last || is_enough)
    }

    /// The kernel goes on with a dump of the dying list at the entry at which it stopped, and finds no more if that one has
    /// been delivered meanwhile: only a list that did not fill the first piece is known to be whole.
    fn is_in_doubt(&self) -> bool {
        self.listing == Listing::Dying && self.octets > DYING_WHOLE
    }
}

fn count(event: &Event, statistics: &mut metrics::Events) {
    match event {
        Event::New(flow) => {
            statistics.new += 1;
            statistics.new_by_protocol.count(flow.session.protocol);
        }
        Event::Destroy(flow) => {
            statistics.destroy += 1;
            statistics.destroy_by_protocol.count(flow.session.protocol);
        }
    }
}
