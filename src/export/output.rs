//! An output: an encoder, a transport, and a place in the record log.
//!
//! It reads the log from its place on, encodes a bounded piece ahead, and moves its place when the messages count as
//! taken: by the kernel, for datagrams and for files. Messages that are encoded and not yet taken may be thrown away at
//! any time and are encoded again: as long as the log has room, neither a restart nor a reload, nor a receiver that is
//! away for days, costs a record. Guarantees:
//!
//! - Records leave in the order of the log, each once, except for datagrams on the wire when a receiver begins or
//!   ceases to listen, and for the time between two commits of the database when the process is killed.
//! - A refused datagram is not taken: the place goes back to the first refused one, and one probe a second finds out
//!   when somebody listens again.
//! - Records that it can never get (the log had no room, a message is too large) are counted. One gap with the cause
//!   `undelivered` states them in the place where they are missing.
//! - No call blocks, and the work of each is bounded. A backlog leaves at a pace that a receiver's buffer can take.
//!
//! The program's own log says when an output begins or ceases to work or to lose records, once for each change.

mod made;
#[cfg(test)]
mod tests;
mod told;

use std::ops::Range;
use std::rc::Rc;
use std::slice;
use std::time::Duration;

use super::encoder::{Amount, Encoder, Load};
use super::losses::Losses;
use super::peer::Peer;
use super::queue::Queue;
use super::source::{PACE, Read, Reader, Source};
use super::transport::{Failure, Taken, Transport, Trouble};
use super::udp::GoBack;
use crate::config::{Selection, Share};
use crate::metrics::{self, State};
use crate::place::{Missing, Place, Position, Serial, Span};
use crate::session::{Gap, Record};
use crate::time::{Now, Uptime};

/// Octets that are encoded ahead.
const AHEAD: usize = 128 << 10;
/// Writes of one call: one output must not keep the loop from its other work.
const WRITES: usize = 512;
/// Records read in one call, for the same reason: not every record makes a message.
const RECORDS: usize = 1 << 16;
const PROBED: usize = 1 << 10;
/// The least number of datagrams that one call sends over UDP, with a pause of [`PACE`] after it: they fit into a socket's
/// receive buffer of the default size (212,992), in which a message of 1,500 octets takes 2,304, and a line some 768.
const FLOWS_PACE: usize = 32;
const LINES_PACE: usize = 200;

/// Wait after a call that sent something before the receiver was full: it is draining, and a Unix socket holds as few
/// as ten datagrams (`net.unix.max_dgram_qlen`).
const DRAINING_DELAY: Duration = Duration::from_millis(1);
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LAST_DELAY: Duration = Duration::from_secs(1);
/// Time between probes of a receiver that refused, and between checks for answers that no event announces.
const PROBE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Output {
    name: String,
    /// Its selection, when not all records are for it.
    own: Option<Selection>,
    encoder: Encoder,
    transport: Transport,
    /// Encoded, and not taken yet.
    ahead: Queue<Load>,
    /// The first message that is not taken.
    position: Position,
    reader: Reader,
    losses: Losses,
    /// The serial after the last record that was ever encoded.
    known: Serial,
    /// Records that are too large for the path.
    unsendable: Range<Serial>,
    /// `Some` from a refusal until a probe succeeds; within, when the probe in flight was sent.
    probing: Option<Option<Uptime>>,
    /// The host, to which other outputs may send, too.
    peer: Option<Rc<Peer>>,
    /// The latest alarm of the host that this output heeded.
    heeded: Option<Uptime>,
    health: State,
    /// All losses before those that the program's log was last told of; `None` when it was told of their end.
    losing: Option<u64>,
    /// Nothing is tried before this time.
    retry: Option<Uptime>,
    delay: Duration,
    /// When to look for answers to what was sent.
    look: Option<Uptime>,
    /// The sum of all messages that were taken.
    taken: Amount,
    /// The most that was ever taken, before refusals took some of it back.
    shown: Amount,
    shown_records: u64,
    statistics: metrics::Output,
}

impl Output {
    /// Probes in turn with the other outputs that send to the same host.
    pub fn share_peer(&mut self, peer: &Rc<Peer>, now: Now) {
        self.heeded = peer.alarm();
        self.peer = Some(Rc::clone(peer));
        if self.probing == Some(None) {
            self.retry = Some(self.take_turn(now.up));
        }
    }

    /// The time at which it may probe, at the earliest `from`.
    fn take_turn(&self, from: Uptime) -> Uptime {
        let peer = self.peer.as_ref();
        peer.map_or(from, |peer| peer.take_turn(from))
    }

    /// Probes as well when the same host refused another output, which may have left this one's datagrams unanswered.
    fn heed_alarm(&mut self, now: Now) {
        let alarm = self.peer.as_ref().and_then(|peer| peer.alarm());
        if alarm == self.heeded {
            return;
        }
        self.heeded = alarm;
        if self.probing.is_none()
            && let Some(since) = alarm
        {
            self.transport.doubt(since);
            self.probing = Some(None);
            self.retry = Some(self.take_turn(now.up));
        }
    }

    /// Reads, encodes and writes as much as goes without waiting, up to a bound. Does nothing before
    /// [`Self::poll_timeout`], so it may be called at any time.
    pub fn pump(&mut self, source: &mut impl Source, now: Now) {
        if self.health == State::Ended {
            return self.count_passed(source.end());
        }
        self.look_for_answers(now);
        self.heed_alarm(now);
        let waits = matches!(self.probing, Some(Some(_)));
        if !waits && self.retry.is_none_or(|at| at <= now.up) {
            self.retry = None;
            self.write(source, now);
        }
    }

    /// The records found to be lost since the last call, and in how many gaps.
    pub fn take_lost(&mut self) -> Option<(Missing, u64)> {
        self.losses.take()
    }

    /// Also finishes the message and the window in hand, at the end of the daemon. Call it until [`Self::is_settled`].
    pub fn drain(&mut self, source: &mut impl Source, now: Now) {
        self.drain_with(Encoder::flush, source, now);
    }

    /// Also finishes the message in hand, before another output goes on at this one's place. The records of a window in
    /// hand are left to that: it would repeat a window that does not leave at once.
    pub fn hand_over(&mut self, source: &mut impl Source, now: Now) {
        self.drain_with(Encoder::flush_message, source, now);
    }

    fn drain_with(
        &mut self,
        flush: fn(&mut Encoder, Now, &mut Queue<Load>),
        source: &mut impl Source,
        now: Now,
    ) {
        self.look = self.look.map(|_| now.up);
        self.pump(source, now);
        if self.reader.next >= source.end() && !self.encoder.is_idle() {
            flush(&mut self.encoder, now, &mut self.ahead);
            self.pump(source, now);
        }
    }

    /// Takes note that the log no longer has some records.
    pub fn handle_evicted(&mut self, span: &Span) {
        if span.missing_at(self.position).is_none() || self.health == State::Ended {
            return;
        }
        // Sums are complete without the records that are in them.
        if matches!(self.encoder, Encoder::Aggregated(_)) && self.reader.next >= span.end {
            return;
        }
        self.throw_away_ahead(self.next_sequence());
        let first = span.first.max(self.position.serial);
        let lost = self.losses.lose(&Span { first, ..*span });
        self.tell_of_losses(lost, "the log has no room for more (log.size, log.age)");
    }

    /// Opens the file anew (it may have been rotated away) or connects again, without waiting for a back-off to end.
    pub fn reopen(&mut self, now: Now) {
        if self.health == State::Ended {
            return;
        }
        self.transport.close(&mut self.ahead);
        self.delay = FIRST_DELAY;
        if self.probing.is_none() {
            self.retry = None;
            if let Err(failure) = self.open() {
                self.fail(failure, now);
            }
        }
    }

    /// Opens it unless it is open. Returns whether this threw away the messages encoded ahead.
    fn open(&mut self) -> Result<bool, Failure> {
        let has_new_port = self.transport.open()?;
        if has_new_port {
            // For collectors that is a new transport session, with its own templates and sequence.
            self.throw_away_ahead(0);
        }
        Ok(has_new_port)
    }

    /// Writes until nothing is left, the receiver takes no more, or the bound of one call is reached.
    fn write(&mut self, source: &mut impl Source, now: Now) {
        let is_udp = self.transport.is_udp();
        let most = match &self.encoder {
            _ if !is_udp => WRITES,
            // Twice as fast as records come. A message holds at least 16.
            Encoder::Flows(_) | Encoder::Aggregated(_) => FLOWS_PACE.max(source.pace() / 8),
            Encoder::Lines(_) => LINES_PACE.max(source.pace() * 2),
        };
        let mut progress = false;
        let mut reconnected = false;
        // A window of aggregated flows is read again for every probe.
        let mut records = match self.probing {
            Some(_) => PROBED,
            None => RECORDS,
        };
        for count in 0.. {
            self.read(source, &mut records, now);
            if self.probing.is_some() {
                self.encoder.flush(now, &mut self.ahead);
            }
            if self.ahead.is_empty() {
                return self.handle_empty(source.end(), now);
            }
            if count == most {
                if is_udp {
                    self.retry = Some(now.up.saturating_add(PACE));
                }
                return;
            }
            let opened = self.open();
            if let Ok(true) = opened {
                continue;
            }
            let written = opened.and_then(|_| {
                let begin = self.position;
                self.transport.write(&mut self.ahead, begin, now)
            });
            match written {
                Ok(taken) => {
                    self.take(taken, now);
                    progress = true;
                    if self.probing.is_some() {
                        self.probing = Some(Some(now.up));
                        return;
                    }
                }
                Err(Failure::Busy) if progress => {
                    self.retry = Some(now.up.saturating_add(DRAINING_DELAY));
                    return;
                }
                // A restarted receiver is there again under the same name.
                Err(Failure::Broken(_)) if !reconnected => reconnected = true,
                Err(failure) => {
                    if self.fail(failure, now) {
                        return;
                    }
                }
            }
        }
    }

    /// Encodes at most `most` records, until enough is encoded ahead.
    fn read(&mut self, source: &mut impl Source, most: &mut usize, now: Now) {
        while self.ahead.used() < AHEAD && *most > 0 {
            *most -= 1;
            let next = self.reader.next;
            let read = if self.unsendable.contains(&next) {
                Read::Gone(Span {
                    first: next,
                    end: self.unsendable.end,
                    since: now.wall,
                    until: now.wall,
                })
            } else {
                self.reader.read(source)
            };
            let (serial, record, skip) = match read {
                Read::Record(serial, record) if serial == self.position.serial => {
                    (serial, record, self.position.part)
                }
                Read::Record(serial, record) => (serial, record, 0),
                Read::Gone(mut span) => {
                    // Their times may be lost with them.
                    span.since = span.since.min(now.wall);
                    span.until = span.until.max(span.since);
                    let gap = self.pass_by(&span);
                    (Serial(span.end.0 - 1), Record::Gap(gap), 0)
                }
                Read::Nothing => break,
                Read::Unavailable => {
                    self.retry = Some(now.up.saturating_add(LAST_DELAY));
                    break;
                }
            };
            let own = self.own.as_ref();
            let records = match own.map_or(Share::Whole, |own| own.share(&record)) {
                Share::Nothing => &[][..],
                Share::Whole => slice::from_ref(&record),
                Share::After(create) => &[create, record],
            };
            let pushed = self
                .encoder
                .push(records, serial, skip, now, &mut self.ahead);
            if serial >= self.known {
                self.statistics.not_representable += u64::from(pushed.is_err());
                self.known = Serial(serial.0 + 1);
            }
        }
        self.encoder.handle_timeout(now, &mut self.ahead);
    }

    /// Passes records that nobody has any more. Returns the gap that takes their place.
    fn pass_by(&mut self, span: &Span) -> Gap {
        let reason = if self.unsendable.contains(&span.first) {
            "a message is too large for the path to the receiver (lower mtu)"
        } else {
            "a part of the record log is damaged or gone"
        };
        self.reader.seek(span.end);
        let gap = self.losses.gap_at(span);
        let lost = self.losses.lose(span);
        self.tell_of_losses(lost, reason);
        gap
    }

    /// Nothing is left to write.
    fn handle_empty(&mut self, end: Serial, now: Now) {
        if let Some(position) = self.encoder.passed(self.reader.next) {
            // Records that make no message count as taken with the message before them.
            self.advance(position);
        }
        // Without anything to probe with, nobody answers.
        if self.position.serial < end || self.probing.is_some() {
            return;
        }
        // Nobody took records that make no message.
        match self.open() {
            Err(failure) if self.health == State::Failing => drop(self.fail(failure, now)),
            _ => self.recover(),
        }
    }

    fn take(&mut self, taken: Taken, now: Now) {
        self.delay = FIRST_DELAY;
        self.taken += taken.amount;
        self.advance(taken.position);
        if self.transport.is_udp() && self.look.is_none() {
            self.look = Some(after_probe(now.up));
        }
    }

    fn advance(&mut self, position: Position) {
        let position = self.losses.outside(position);
        if position > self.position {
            let (from, to) = (self.position.serial, position.serial);
            self.statistics.records += self.losses.records_between(from, to);
            self.position = position;
        }
    }

    /// Handles a failure. Returns whether to wait.
    fn fail(&mut self, failure: Failure, now: Now) -> bool {
        match failure {
            Failure::Busy => {}
            Failure::Refused(go_back, trouble) => {
                self.go_back(go_back, Some(&trouble), now);
                return true;
            }
            Failure::TooLarge => {
                self.drop_front();
                return false;
            }
            Failure::Stalled(trouble) | Failure::Broken(trouble) => {
                self.statistics.errors += 1;
                if self.health == State::Working {
                    self.health = State::Failing;
                    log::warn!(
                        "{}: {trouble}; records wait in the log until it works again",
                        self.name
                    );
                }
            }
            Failure::Ended(trouble) => {
                self.statistics.errors += 1;
                self.health = State::Ended;
                self.throw_away_ahead(0);
                log::warn!("{}: {trouble}; nothing more is written to it", self.name);
            }
        }
        self.retry = Some(now.up.saturating_add(self.delay));
        self.delay = (self.delay * 2).min(LAST_DELAY);
        true
    }

    /// Reads the answers to sent datagrams, if it is time, and ends a probe that nobody refused.
    fn look_for_answers(&mut self, now: Now) {
        let settled = matches!(self.probing, Some(Some(sent)) if after_probe(sent) <= now.up);
        if !settled && self.look.is_none_or(|at| now.up < at) {
            return;
        }
        let refusal = self.transport.take_refusal(now);
        let awaits = self.transport.awaits_answers(now);
        self.look = awaits.then(|| after_probe(now.up));
        if let Some(go_back) = refusal {
            self.go_back(go_back, None, now);
        } else if settled {
            self.transport.settle(now);
            self.probing = None;
        }
    }

    /// Goes back to the first datagram that was refused.
    fn go_back(&mut self, to: GoBack, trouble: Option<&Trouble>, now: Now) {
        // Counters never go back: they stand still until the output has taken as much again.
        self.shown = self.taken.max(self.shown);
        self.shown_records = self.statistics.records.max(self.shown_records);
        let (from, end) = (to.position.serial, self.position.serial);
        let records = self.losses.records_between(from, end);
        self.statistics.records = self.statistics.records.saturating_sub(records);
        self.taken -= to.amount;
        self.statistics.refused += 1;
        let back = to.amount + self.ahead_amount();
        self.ahead.clear();
        self.encoder.go_back(to.sequence, back);
        self.position = to.position;
        self.reader.seek(to.position.serial);
        // The answer to a probe has already been waited for.
        let wait = match self.probing {
            Some(Some(_)) => Duration::ZERO,
            _ => PROBE,
        };
        self.probing = Some(None);
        self.retry = Some(self.take_turn(now.up.saturating_add(wait)));
        if matches!(self.health, State::Working | State::Failing) {
            self.health = State::Refused;
            if let Some(peer) = &self.peer {
                peer.raise_alarm(to.since);
                self.heeded = peer.alarm();
            }
            let reason = trouble.map_or("refused".to_owned(), ToString::to_string);
            log::warn!(
                "{}: its host, or a router on the way, refuses datagrams ({reason}); records wait in the log until somebody listens",
                self.name
            );
        }
    }

    /// The front message is too large for the path: its records are given up.
    fn drop_front(&mut self) {
        let position = self.position;
        // The messages of a window end with the last one of them.
        let ends = self.ahead.entries().map(|(_, load)| load.end);
        let end = first_after(position, ends);
        self.throw_away_ahead(self.next_sequence());
        self.statistics.errors += 1;
        let last = Serial(end.serial.0.saturating_sub(u64::from(end.part == 0)));
        self.unsendable = position.serial..Serial(last.0 + 1);
    }

    /// Forgets the messages encoded ahead, which are encoded again from this sequence number on.
    fn throw_away_ahead(&mut self, sequence: u32) {
        let back = self.ahead_amount();
        if self.ahead.is_torn() {
            self.transport.break_off();
        }
        self.ahead.clear();
        self.encoder.go_back(sequence, back);
        self.reader.seek(self.position.serial);
    }

    fn ahead_amount(&self) -> Amount {
        let entries = self.ahead.entries();
        entries.map(|(octets, load)| Amount::of(load, octets)).sum()
    }

    /// Logs the first of several losses.
    fn tell_of_losses(&mut self, lost: u64, reason: &str) {
        if lost > 0 && self.losing.is_none() {
            log::warn!("{}: records are lost: {reason}", self.name);
            self.losing = Some(self.losses.total() - lost);
        }
        self.encoder.count_lost(lost);
    }

    /// Counts the records that an output misses once it is closed for good.
    fn count_passed(&mut self, end: Serial) {
        let passed = end.0.saturating_sub(self.position.serial.0);
        self.losses.add(passed);
        self.position = self.position.max(Position::before(end));
    }

    /// Everything was taken. The first success is not enough: a disk that is nearly full takes a little again and again.
    fn recover(&mut self) {
        let lost = self
            .losing
            .take()
            .map(|before| self.losses.total() - before);
        let was_well = self.health == State::Working;
        self.health = State::Working;
        match lost {
            Some(lost) => log::warn!("{}: takes records again; {lost} are lost", self.name),
            None if was_well => {}
            None => log::info!("{}: takes records again; none is lost", self.name),
        }
    }
}

fn first_after(position: Position, mut ends: impl Iterator<Item = Position>) -> Position {
    ends.find(|end| *end > position).unwrap_or(position)
}

fn after_probe(sent: Uptime) -> Uptime {
    sent.saturating_add(PROBE)
}
