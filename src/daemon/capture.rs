//! Reading the kernel: events as they come, and the table when an audit or a sweep requests it.
//!
//! Work per call is bounded, so that no flood of events keeps the loop from its timers. mio reports readiness by edges:
//! a socket counts as readable from a report until a read finds nothing left.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};

use super::sweep::Sweeper;
use super::takeover::Goes;
use crate::config::Config;
use crate::engine::Engine;
use crate::kernel::clock;
use crate::kernel::conntrack::{Batch, Datagram, EventSocket, Memory};
use crate::kernel::dump::{Dump, Pace};
use crate::kernel::filter::Program;
use crate::kernel::namespace::within;
use crate::metrics;
use crate::session::{Gap, GapCause};
use crate::time::{Now, Uptime, Wall};
use crate::wire::ctnetlink::{Event, Listing};
use crate::wire::netlink::{Malformed, Messages};

/// Batches of events read in one turn of the loop: 1024 events, fewer than a collector or a copy gets in one turn.
const BATCHES_PER_TURN: usize = 8;
/// Pieces of a listing read in one turn, each of up to 32 KiB.
const PIECES_PER_TURN: usize = 4;
/// Pieces of the dying list that are read, of some 100 entries each. For every piece the kernel walks the list from its
/// beginning, under the lock that the end of a connection needs: a list of millions would take minutes and hold up traffic.
const DYING_PIECES: u32 = 64;
/// Octets of a dying list after which the kernel still had room for an entry: the first piece of a dump holds some
/// 3,700 (`NLMSG_GOODSIZE` with pages of 4 KiB), an entry takes less than 1,000.
const DYING_WHOLE: usize = 2048;

/// The least time between gaps of overflows, which may come hundreds of times a second.
const OVERFLOW_PAUSE: Duration = Duration::from_secs(1);

/// The time without losses after which the log says that they are over.
const LOSS_MEMORY: Duration = Duration::from_secs(10);

/// The sockets to the kernel.
pub struct Capture {
    config: Config,
    events: EventSocket,
    batch: Batch,
    /// The events of the batch, in reused room.
    decoded: Vec<Event>,
    readable: bool,
    listing: Option<Reading>,
    sweeper: Sweeper,
    waker: Arc<Waker>,
    dump_failing: bool,
    /// When the event socket was last read to its end: everything before that was read or lost.
    complete_until: Wall,
    /// Events that did not fit and are in a gap.
    drops: u32,
    /// Events that did not fit, as last read from the kernel.
    drops_read: u32,
    /// The time of that reading.
    drops_read_at: Wall,
    /// Since when there have been overflows that are not in a gap yet. The kernel drops events until the queue has been
    /// read to its end.
    overflow_since: Option<Wall>,
    /// Whether the queue has been read to its end since.
    overflow_over: bool,
    /// No gap of overflows is stated before this.
    next_gap: Uptime,
    /// When events were last lost; `None` once losses are over.
    losing: Option<Uptime>,
    statistics: metrics::Events,
}

/// A listing that is being read.
struct Reading {
    listing: Listing,
    dump: Dump,
    readable: bool,
    /// Pieces with entries, and their octets.
    pieces: u32,
    octets: usize,
}

impl Capture {
    /// Subscribes to the events of the configured network namespace, or goes on with `kept`, the socket of an earlier
    /// run. The poll reports events under the first of `tokens`, and requested listings under the second.
    ///
    /// # Errors
    /// The kernel's error: a missing namespace or permission.
    pub fn open(
        config: &Config,
        kept: Option<(EventSocket, Goes)>,
        registry: &Registry,
        tokens: [Token; 2],
        now: Now,
    ) -> io::Result<Self> {
        let capture = &config.capture;
        let (events, drops, overflow_since) = match kept {
            Some((socket, goes)) => {
                socket.configure(capture)?;
                (socket, goes.drops, goes.overflow_since)
            }
            None => {
                let open = || EventSocket::open(capture, &config.selections());
                (within(capture.namespace.as_ref(), open)??, 0, None)
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
            sweeper: Sweeper::new(),
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

    /// Applies changed filters; any other change needs a restart.
    pub fn reconfigure(&mut self, config: &Config, engine: &Engine) {
        self.config = config.clone();
        self.set_filter(engine);
    }

    /// While sessions are pending that the filters leave out, the kernel must not filter: their ends would never arrive.
    fn set_filter(&mut self, engine: &Engine) {
        let program = if engine.accepts_all_pending() {
            Program::new(&self.config.selections())
        } else {
            Program::accept_all()
        };
        if let Err(error) = program.attach(self.events.as_fd()) {
            log::warn!("the kernel keeps the earlier filter: {error}");
        }
    }

    /// The event socket, for the service manager to keep.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// [Cookie](EventSocket::cookie) of that socket, if the kernel reports it.
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
        self.sweeper.set_readable();
    }

    /// Whether a call would find something to read at once.
    pub fn is_readable(&self) -> bool {
        self.readable
            || self
                .listing
                .as_ref()
                .is_some_and(|listing| listing.readable)
            || self.sweeper.is_readable()
    }

    /// Whether events may be queued: the last read did not reach their end.
    pub const fn has_events(&self) -> bool {
        self.readable
    }

    /// Reads a bounded number of queued events into the engine. Returns how many there were;
    /// [`is_readable`](Self::is_readable) tells whether more may be left.
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
                    // This comes before the end of a session whose NEW was dropped.
                    self.note_drops(engine, now);
                    self.handle_batch(engine, now);
                    // The call ended because nothing was left, and a later event makes a new edge. Where overflows are
                    // reported, an overflow may also have ended it.
                    if self.config.capture.reliable && !self.batch.is_full() {
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

    /// Requests a listing from the kernel, if an audit or a sweep wants one. `is_stored` says that the database works,
    /// without which there are no sweeps.
    pub fn start_dump(&mut self, engine: &mut Engine, is_stored: bool, now: Now) {
        let namespace = self.config.capture.namespace.as_ref();
        self.sweeper
            .start(engine, namespace, &self.waker, is_stored, now);
        let Some(listing) = engine.poll_dump(now) else {
            return;
        };
        if listing == Listing::Table {
            self.set_filter(engine);
        }
        let namespace = self.config.capture.namespace.as_ref();
        match Dump::request(listing, Pace::Fast, namespace, &self.waker) {
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

    /// Reads some of the requested listings into the engine.
    pub fn read_dump(&mut self, engine: &mut Engine, now: Now) {
        self.sweeper.read(engine, &mut self.statistics, now);
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
                        log::info!("the connection table can be read again");
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
        // Every netlink socket answers.
        self.events.memory().unwrap_or_default()
    }

    /// The time until which the kernel has been heard: every earlier event has been read, or is in a gap.
    pub fn heard_until(&self, now: Now) -> Wall {
        // With nothing left to read, that is now.
        let read = if self.readable {
            self.complete_until
        } else {
            now.wall
        };
        self.overflow_since.map_or(read, |since| since.min(read))
    }

    /// Events that did not fit and are in a gap: the cost of overflows, in the mode in which they have one.
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

    /// States the last gap, as no other follows. If events are left in the queue, the next run that reads them states
    /// their gap.
    pub fn finish(&mut self, engine: &mut Engine, now: Now) {
        self.state_overflow(engine, now);
    }

    /// States the cost of overflows, in a turn after the one that has read the queue to its end: the kernel drops
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
    /// Reads a piece, if there is one. Returns whether no more are needed.
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

    /// The kernel continues a dump of the dying list at the entry at which it stopped, and finds no more if that one
    /// has been delivered meanwhile: only a list that did not fill the first piece is known to be whole.
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
