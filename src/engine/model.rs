//! The engine against a naive model of the kernel, with all that can happen between them in random order.
//!
//! The model knows every connection that ever was (a [`Life`]) and the fate of its two events: read, lost while the
//! queue was full, kept in the dying list, sent twice, or unread as the daemon crashed. It makes dumps in pieces, so
//! that events fall between the making and the reading of each.
//!
//! At the end, after a last audit:
//! - the pending sessions are those that the kernel has;
//! - every life that the engine heard of has one create and, when it ended, one delete; no record ends before it begins;
//! - at every moment, creates plus restored sessions equal deletes plus pending ones;
//! - the parts of a life that are committed add up to its delete record ([`parts`]).
//!
//! A tuple about which nothing is certain is exempt from the second rule: see [`Doubt`].

#![allow(clippy::unwrap_used)]

mod judge;
mod parts;
mod steps;

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use self::parts::{Accounts, mark_of};
use self::steps::{Kind, Step, kind, step};
use super::tests::{capture, session, totals};
use super::*;
use crate::session::GapCause;
use crate::wire::ctnetlink::Listing;

/// Few, so that tuples (and with them ids) recur.
const PORTS: u16 = 3;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Life {
    port: u16,
    /// The id of the life before it, unless the kernel still has that entry.
    id: u32,
    start: Wall,
    end: Option<Wall>,
    /// Transferred so far.
    octets: u64,
    /// The clock as the engine first heard of it, by event or dump.
    heard: Option<Wall>,
    /// The run in which that was.
    run: u32,
    /// The end will never be read: lost, or unread at a crash.
    end_lost: bool,
    /// The end of an earlier life of the tuple was read after this one was heard of, and may have been taken for its own.
    overtook: bool,
}

/// Reasons why the records of a tuple are not exact. One more is [`World::is_merged`]: the end of a life is lost, and a
/// later life of its tuple and id is taken for it, as its NEW looks like a repetition. Only its DESTROY, or a dump, has
/// the start time that identifies it, where the kernel keeps start times and they differ by more than a second. The
/// same happens when events of the earlier life are queued so long that a dump reports the later one first.
#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    /// The engine has forgotten its reports on the tuple since the last commit and may repeat them, or reports still to
    /// come were lost with the crash. The gap of the restart covers it.
    crashed: bool,
    /// No start times, and the tuple was used before: an open life whose own NEW is lost, or was read before the end of
    /// the life before it, looks like an entry of a dump that has just ended. Its DESTROY will report it. And an end
    /// from the dying list is taken for that of the life after it. With start times this takes a tuple that is used
    /// again within a second.
    hidden: bool,
    /// A beginning was repeated after a restart, before an audit had found the life still open: it is taken for the
    /// beginning of another life. A NEW has no start time that would tell the two apart.
    renewed: bool,
    /// An earlier run read the beginning more than a second late, from a kernel that does not report event times; then
    /// the next life began before the end was read. That end is taken for the end of another life.
    late: bool,
}

#[derive(Clone, Copy, Debug)]
enum Queued {
    New(usize),
    Destroy(usize),
}

struct Dump {
    listing: Listing,
    /// The next port, or the next place in the dying list as it stood at the beginning.
    next: usize,
    dying: Vec<usize>,
    pieces: VecDeque<usize>,
}

struct World {
    kind: Kind,
    clock: Wall,
    now: Now,
    engine: Engine,
    lives: Vec<Life>,
    queue: VecDeque<Queued>,
    full: bool,
    /// Something was lost since the queue was last empty (only when not reliable): until then every event is lost.
    congested: bool,
    /// The kernel has counted drops that the engine was not told of.
    dropped: bool,
    /// When it last looked.
    looked: Wall,
    dying: Vec<usize>,
    delivered: Vec<usize>,
    /// Whether another listener has not taken ends that were read.
    is_other_slow: bool,
    dump: Option<Dump>,
    store: BTreeMap<Row, StoredSession>,
    doubts: [Doubt; PORTS as usize],
    /// Number of the engine's run.
    run: u32,
    records: Vec<NatEvent>,
    accounts: Accounts,
}

fn boot() -> Now {
    Now::new(Wall::from_secs(1_800_000_000), Uptime::from_millis(1000))
}

fn fresh_engine(now: Now) -> Engine {
    let policy = Policy {
        ttl: Duration::from_secs(86_400),
        resync: None,
        max_pending: usize::MAX,
        active_timeout: Some(4 * SECOND),
    };
    let mut engine = Engine::new(Filter::new([capture().selection()]), policy, now);
    engine.request_audit(now);
    engine
}

impl World {
    fn new(kind: Kind) -> Self {
        let now = boot();
        Self {
            kind,
            clock: now.wall,
            now,
            engine: fresh_engine(now),
            lives: Vec::new(),
            queue: VecDeque::new(),
            full: false,
            congested: false,
            dropped: false,
            looked: now.wall,
            dying: Vec::new(),
            delivered: Vec::new(),
            is_other_slow: true,
            dump: None,
            store: BTreeMap::new(),
            doubts: [Doubt::default(); PORTS as usize],
            run: 0,
            records: Vec::new(),
            accounts: Accounts::default(),
        }
    }

    /// Time passes; the engine's clock was read up to `lag` ago.
    fn pass(&mut self, time: Duration, lag: Duration) {
        // No two connections begin in the same nanosecond.
        self.clock = self.clock.saturating_add(time + Duration::from_nanos(1));
        let read = self.clock.saturating_sub(lag);
        if read > self.now.wall {
            let up = boot().up.saturating_add(read.saturating_since(boot().wall));
            self.now = Now::new(read, up);
        }
    }

    fn open(&self, port: u16) -> Option<usize> {
        let is_open = |life: &Life| life.port == port && life.end.is_none();
        self.lives.iter().position(is_open)
    }

    fn before(&self, life: usize) -> Option<Life> {
        let mut earlier = self.lives[..life].iter();
        earlier
            .rfind(|other| other.port == self.lives[life].port)
            .copied()
    }

    fn doubt(&mut self, life: usize) -> &mut Doubt {
        &mut self.doubts[usize::from(self.lives[life].port)]
    }

    fn flow(&self, life: usize, ended: bool) -> Entry {
        let Life {
            port,
            id,
            start,
            end,
            octets,
            ..
        } = self.lives[life];
        let stamp = |time: Wall| self.kind.timestamps.then_some(time);
        let mut session = session(port);
        session.id = Some(id);
        session.mark = mark_of(life);
        Entry {
            session,
            totals: Some(totals(octets)),
            start: stamp(start),
            stop: end.filter(|_| ended).and_then(stamp),
            event_time: None,
            is_unannounced: false,
            end_reason: None,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin(port) => self.begin(port),
            Step::End(port) => self.end(port),
            Step::Full(full) => self.full = full,
            Step::Read(count) => self.read(count),
            // Without start times a repeated end counts as one more: nothing tells them apart. The kernel repeats it
            // for as long as it has the entry, and no other connection has the id of an entry that still exists.
            Step::RepeatEnd(which) if self.kind.timestamps && !self.delivered.is_empty() => {
                let life = self.delivered[which % self.delivered.len()];
                if !self.is_followed(life) {
                    self.queue.push_back(Queued::Destroy(life));
                }
            }
            Step::RepeatBegin(port) => {
                if let Some(life) = self.open(port) {
                    self.queue.push_back(Queued::New(life));
                }
            }
            Step::Redeliver(which) => {
                if !self.full && !self.dying.is_empty() {
                    let life = self.dying.remove(which % self.dying.len());
                    self.queue.push_back(Queued::Destroy(life));
                }
            }
            Step::Transfer(port, octets) => self.transfer(port, octets),
            Step::Sweep => self.sweep(),
            Step::RequestAudit => self.engine.request_audit(self.now),
            Step::MakePiece => self.make_piece(),
            Step::ReadPiece => self.read_piece(),
            Step::FailDump => {
                if self.dump.take().is_some() {
                    self.engine.handle_dump_failed(self.now);
                }
            }
            Step::Timeout => self.engine.handle_timeout(self.now),
            Step::Commit => self.commit(),
            Step::CommitFails => self.engine.handle_commit_failed(),
            Step::Crash => self.crash(),
            Step::RepeatEnd(_) => {}
        }
        if self.kind.forgets {
            self.engine.recent = RecentEnds::new(self.now.wall);
        }
        self.start_dump();
        while let Some(record) = self.engine.poll_record() {
            if let Record::Event(event) = record {
                self.note(event);
            }
        }
        let statistics = self.engine.statistics();
        assert_eq!(
            statistics.creates + statistics.restored,
            statistics.deletes + self.engine.pending() as u64
        );
    }

    /// Whether another life of the tuple began after this one.
    fn is_followed(&self, life: usize) -> bool {
        let mut later = self.lives[life + 1..].iter();
        later.any(|next| next.port == self.lives[life].port)
    }

    fn begin(&mut self, port: u16) {
        if self.open(port).is_some() {
            return;
        }
        let last = self.lives.iter().rposition(|life| life.port == port);
        let is_kept = last.is_some_and(|last| self.dying.contains(&last));
        let id = last.map_or(u32::from(port), |last| self.lives[last].id);
        self.lives.push(Life {
            port,
            id: id + if is_kept { 1 << 16 } else { 0 },
            start: self.clock,
            end: None,
            octets: 0,
            heard: None,
            run: 0,
            end_lost: false,
            overtook: false,
        });
        let life = self.lives.len() - 1;
        if self.refuses() {
            self.note_unannounced(life);
        } else {
            self.queue.push_back(Queued::New(life));
        }
    }

    fn end(&mut self, port: u16) {
        let Some(life) = self.open(port) else {
            return;
        };
        self.lives[life].end = Some(self.clock);
        if !self.refuses() {
            self.queue.push_back(Queued::Destroy(life));
        } else if self.kind.reliable {
            self.dying.push(life);
        } else {
            self.lives[life].end_lost = true;
        }
    }

    /// Whether an event that is sent now does not get into the queue.
    fn refuses(&mut self) -> bool {
        // One always fits into an empty queue.
        let full = self.full && !self.queue.is_empty();
        self.congested |= full && !self.kind.reliable;
        self.dropped |= full || self.congested;
        full || self.congested
    }

    fn note_unannounced(&mut self, life: usize) {
        if !self.kind.timestamps && self.before(life).is_some() {
            self.doubt(life).hidden = true;
        }
    }

    fn read(&mut self, count: usize) {
        let since = std::mem::replace(&mut self.looked, self.now.wall);
        if std::mem::take(&mut self.dropped) {
            self.engine.handle_drops(since, self.now.wall);
        }
        for _ in 0..count {
            match self.queue.pop_front() {
                Some(Queued::New(life)) => {
                    let pending = self.pending_of(self.lives[life].port);
                    if self.lives[life].heard.is_none() && pending > 0 {
                        self.note_unannounced(life);
                    }
                    let unconfirmed = self.engine.table.iter().any(|pending| {
                        let port = pending.session.original.src_port;
                        port == self.lives[life].port && pending.audit == RESTORED
                    });
                    self.doubt(life).renewed |= self.lives[life].heard.is_some() && unconfirmed;
                    self.hear(life);
                    let start = self.lives[life].start;
                    let flow = Entry {
                        start: None,
                        event_time: self.kind.event_times.then_some(start),
                        ..self.flow(life, false)
                    };
                    self.engine.handle_events(&[Event::New(flow)], self.now);
                }
                Some(Queued::Destroy(life)) => {
                    self.hear(life);
                    self.note_late(life);
                    self.delivered.push(life);
                    let flow = Entry {
                        event_time: self.lives[life].end.filter(|_| self.kind.event_times),
                        ..self.flow(life, true)
                    };
                    self.engine.handle_events(&[Event::Destroy(flow)], self.now);
                }
                None => break,
            }
        }
        if self.queue.is_empty() {
            if std::mem::take(&mut self.congested) {
                self.state_gap(GapCause::Overflow);
            }
            self.engine.handle_events_drained(self.now);
        }
    }

    fn note_late(&mut self, life: usize) {
        let Life {
            port,
            start,
            heard,
            run,
            ..
        } = self.lives[life];
        let late = heard.is_some_and(|heard| heard > start.saturating_add(SECOND));
        let followed = self.is_followed(life);
        self.doubt(life).late |= late && followed && run < self.run && !self.kind.event_times;
        let mut overtaken = false;
        for next in &mut self.lives[life + 1..] {
            next.overtook |= next.port == port && next.heard.is_some();
            overtaken |= next.overtook && next.port == port;
        }
        self.doubt(life).hidden |= overtaken && !self.kind.timestamps;
    }

    fn pending_of(&self, port: u16) -> usize {
        let of_port = |pending: &&Pending| pending.session.original.src_port == port;
        self.engine.table.iter().filter(of_port).count()
    }

    fn state_gap(&mut self, cause: GapCause) {
        let gap = Gap {
            cause,
            from: self.now.wall,
            to: self.now.wall,
            lost: None,
        };
        self.engine.handle_gap(gap, self.now);
    }

    /// The engine hears of a life, maybe for the first time.
    fn hear(&mut self, life: usize) {
        if self.lives[life].heard.is_some() {
            return;
        }
        self.lives[life].heard = Some(self.clock);
        self.lives[life].run = self.run;
    }

    fn start_dump(&mut self) {
        if let Some(listing) = self.engine.poll_dump(self.now) {
            let delivered = self.delivered.iter().copied();
            let owed = delivered.filter(|life| self.is_other_slow && !self.is_followed(*life));
            self.dump = Some(Dump {
                listing,
                next: 0,
                dying: self.dying.iter().copied().chain(owed).collect(),
                pieces: VecDeque::new(),
            });
        }
    }

    fn make_piece(&mut self) {
        let Some(mut dump) = self.dump.take() else {
            return;
        };
        let piece = match dump.listing {
            Listing::Table if dump.next < usize::from(PORTS) => self.open(dump.next as u16),
            // An entry that was delivered meanwhile is no longer there.
            Listing::Dying => {
                let is_there =
                    |life: &usize| self.dying.contains(life) || self.delivered.contains(life);
                dump.dying.get(dump.next).copied().filter(is_there)
            }
            Listing::Table => None,
        };
        dump.pieces.extend(piece);
        dump.next += 1;
        self.dump = Some(dump);
    }

    fn read_piece(&mut self) {
        let Some(dump) = &mut self.dump else {
            return;
        };
        let (listing, made) = (dump.listing, dump.next);
        let Some(life) = dump.pieces.pop_front() else {
            let pieces = match listing {
                Listing::Table => usize::from(PORTS),
                Listing::Dying => dump.dying.len(),
            };
            if made >= pieces {
                self.dump = None;
                self.engine.handle_dump_end();
            }
            return;
        };
        // The real memory holds far more ends than are read while a piece waits.
        if self.kind.forgets && listing == Listing::Table && self.delivered.contains(&life) {
            return;
        }
        if listing == Listing::Table {
            // It passes for the life before it, whose end has not been read.
            let Life {
                port, start, heard, ..
            } = self.lives[life];
            let before = self.before(life).and_then(|before| before.heard);
            let near = before.is_some_and(|heard| start <= heard.saturating_add(SECOND));
            let taken = heard.is_none() && self.pending_of(port) > 0;
            self.doubt(life).hidden |= taken && (near || !self.kind.timestamps);
            self.hear(life);
        }
        let flow = self.flow(life, false);
        self.engine.handle_dumped(&flow, self.now);
    }

    fn commit(&mut self) {
        let changes = self.engine.changes();
        for row in changes.ended() {
            assert!(
                self.store.remove(&row).is_some(),
                "a row that was not there"
            );
        }
        for stored in changes.begun() {
            assert!(
                self.store.insert(stored.row, stored).is_none(),
                "a row twice"
            );
        }
        self.engine.handle_committed();
        self.accounts.commit();
        assert_eq!(self.store.len(), self.engine.pending());
    }

    fn crash(&mut self) {
        for port in 0..PORTS {
            let of_port = |stored: &StoredSession| stored.session.original.src_port == port;
            let stored: Vec<u32> = self
                .store
                .values()
                .filter(|s| of_port(s))
                .map(|s| s.session.mark)
                .collect();
            let pending = self
                .engine
                .table
                .iter()
                .map(|pending| pending.to_stored(pending.row, None));
            let mut pending: Vec<u32> = pending.filter(of_port).map(|s| s.session.mark).collect();
            pending.sort_unstable();
            self.doubts[usize::from(port)].crashed |= stored != pending;
        }
        for event in std::mem::take(&mut self.queue) {
            match event {
                Queued::New(life) => self.note_unannounced(life),
                Queued::Destroy(life) => self.lose_end(life),
            }
        }
        for life in std::mem::take(&mut self.dying) {
            self.lose_end(life);
        }
        self.congested = false;
        self.dump = None;
        // The memory of ends is lost with the process: an end repeated after it is recorded again, with the same times.
        self.delivered.clear();
        // Nobody listens for a while, and the next run's rows lie above.
        self.pass(2 * SECOND, Duration::ZERO);
        self.run += 1;
        self.accounts.crash();
        self.engine = fresh_engine(self.now);
        for stored in self.store.values() {
            self.engine.restore(*stored);
        }
        self.engine.handle_store_opened();
        self.state_gap(GapCause::Restart);
    }

    /// The end of a life is lost, unless it was read before and this was a repetition.
    fn lose_end(&mut self, life: usize) {
        if !self.delivered.contains(&life) {
            self.lives[life].end_lost = true;
        }
    }
}

proptest! {
    #[test]
    fn the_records_are_the_lives_of_the_connections(
        kind in kind(),
        steps in proptest::collection::vec((step(), 0..3000_u64, 0..900_u64), 0..120),
    ) {
        let mut world = World::new(kind);
        for (step, time, lag) in steps {
            world.pass(Duration::from_millis(time), Duration::from_millis(lag));
            world.step(step);
        }
        world.settle();
        world.judge();
    }
}
