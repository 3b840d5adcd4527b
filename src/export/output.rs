//! An output: an encoder, a transport, and a place in the record log.
//!
//! It reads the log from its place on, encodes a bounded piece ahead, and moves its place when what it sent counts as taken:
//! by the kernel for datagrams and files. What is encoded and not taken yet may be thrown away at any time and is encoded
//! again, so that neither a restart nor a reload, nor a receiver that is away for days, costs a record, as long as the log
//! has room. Guarantees:
//!
//! - Records leave in the order of the log, each once, but for the datagrams that were on the wire when a receiver began or
//!   ceased to listen, and for the time between two commits of the database when the process is killed.
//! - A datagram that was refused was not taken: the place goes back to the first that was, and one probe a second finds
//!   out when somebody listens again.
//! - Records that it can never get (the log had no room, a message is too large) are counted, and stated where they are
//!   missing by one gap with the cause `undelivered`.
//! - No call blocks, and the work of each is bounded. A backlog leaves at a pace that the buffer of a receiver takes.
//!
//! The program's own log says when an output stops and begins to work or to lose, once for each change.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::encoder::{Amount, Encoder, Load};
use super::queue::Queue;
use super::source::{PACE, Read, Reader, Source};
use super::transport::{Failure, Taken, Transport, Trouble};
use super::udp::GoBack;
use crate::config::{self, Target};
use crate::metrics::{self, State};
use crate::place::{Missing, Place, Position, Serial, Span};
use crate::session::{Gap, Record};
use crate::time::{Now, Uptime};
use crate::wire::syslog::Host;

/// Octets that are encoded ahead.
const AHEAD: usize = 128 << 10;
/// Writes of one call, so that one output cannot keep the loop from its other work.
const WRITES: usize = 512;
/// Datagrams that are sent over UDP in one call, at least: with 1,500 octets each they fit into a socket's receive buffer
/// of the default size (212,992), in which each takes 2,304. Time between such calls is [`PACE`].
const LEAST_PACE: usize = 32;

/// Wait after a call that was stopped by a full receiver but had sent something: it is draining, and a Unix socket holds
/// as few as ten datagrams (`net.unix.max_dgram_qlen`).
const DRAINING_DELAY: Duration = Duration::from_millis(1);
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LAST_DELAY: Duration = Duration::from_secs(1);
/// Ranges of lost records that are remembered, should the output have to go back before them.
const MOST_HOLES: usize = 16;
/// Time between probes of a receiver that refused, and between looks for answers that nothing else brings to light.
const PROBE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Output {
    name: String,
    encoder: Encoder,
    transport: Transport,
    /// Encoded, and not taken yet.
    ahead: Queue<Load>,
    /// The first message that is not taken.
    position: Position,
    reader: Reader,
    /// Records that the log gave up before this one had taken them, as far as it has not passed them by.
    gone: Option<Missing>,
    /// All that is lost before this record is in the counters.
    counted: Serial,
    /// Records that are too large for the way.
    unsendable: Range<Serial>,
    /// Ranges of lost records, the latest ones: they do not count as taken.
    holes: VecDeque<Range<Serial>>,
    /// Since the last refusal: whether a probe is out, and since when.
    probing: Option<Option<Uptime>>,
    health: State,
    /// How many records were lost before, since the program's log was told of losses.
    losing: Option<u64>,
    /// What was lost since somebody asked.
    lost: Option<Missing>,
    /// Nothing is tried before.
    retry: Option<Uptime>,
    delay: Duration,
    /// When to look for answers to what was sent.
    look: Option<Uptime>,
    /// What left, and was taken.
    taken: Amount,
    statistics: metrics::Output,
}

impl Output {
    /// An output to a collector, that goes on at `place`.
    #[must_use]
    pub fn to_collector(config: &config::Collector, place: Place, now: Now) -> Self {
        let name = match &config.name {
            Some(name) => format!("collector {name} ({})", config.address),
            None => format!("collector {}", config.address),
        };
        let encoder = Encoder::of_collector(config, now);
        let statistics = metrics::Output {
            format: config.version.name().to_owned(),
            target: "udp".to_owned(),
            observation_domain: config.observation_domain.into(),
            ..metrics::Output::default()
        };
        let transport = Transport::to_collector(config);
        Self::new(name, encoder, transport, statistics, place)
    }

    /// An output to a target for copies, that goes on at `place`.
    #[must_use]
    pub fn to_copy(config: &config::Syslog, host: &Host, place: Place) -> Self {
        let target = target_name(&config.target);
        let name = match &config.name {
            Some(name) => format!("{name} ({target})"),
            None => target,
        };
        let encoder = Encoder::of_copy(config, host);
        let statistics = metrics::Output {
            format: config.format.name().to_owned(),
            target: config.target.kind().to_owned(),
            ..metrics::Output::default()
        };
        let transport = Transport::to_target(&config.target);
        Self::new(name, encoder, transport, statistics, place)
    }

    fn new(
        name: String,
        encoder: Encoder,
        transport: Transport,
        statistics: metrics::Output,
        place: Place,
    ) -> Self {
        let mut this = Self {
            name,
            encoder,
            transport,
            ahead: Queue::new(),
            position: place.position,
            reader: Reader::default(),
            gone: place.missing,
            counted: place.position.serial,
            unsendable: Serial(0)..Serial(0),
            holes: VecDeque::new(),
            probing: None,
            health: State::Working,
            losing: None,
            lost: None,
            retry: None,
            delay: FIRST_DELAY,
            look: None,
            taken: Amount::default(),
            statistics,
        };
        this.counted.0 += place.missing.map_or(0, |missing| missing.count);
        this.transport.prefer_port(place.port);
        this.encoder.go_back(place.sequence, Amount::default());
        this.reader.seek(place.position.serial);
        this
    }

    /// Counts on from what an output of the same name had done with an earlier configuration.
    pub fn inherit(&mut self, earlier: &Self) {
        let metrics::Output {
            format,
            target,
            observation_domain,
            ..
        } = std::mem::take(&mut self.statistics);
        self.statistics = metrics::Output {
            format,
            target,
            observation_domain,
            ..earlier.statistics.clone()
        };
        self.taken = earlier.taken;
        self.encoder.count_lost(earlier.statistics.lost);
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            position: self.position,
            port: self.transport.port(),
            sequence: match self.ahead.front() {
                Some(message) => message.tag.sequence,
                None => self.encoder.sequence(),
            },
            missing: self.gone,
        }
    }

    /// As the program's log names it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All that is counted. `end` is that of the source.
    #[must_use]
    pub fn metrics(&self, end: Serial) -> metrics::Output {
        let Amount {
            messages,
            octets,
            flow_records,
            gaps,
        } = self.taken;
        metrics::Output {
            name: self.name.clone(),
            state: self.health,
            behind: self.behind(end),
            messages,
            octets,
            flow_records,
            gaps,
            sequence: self.encoder.sequence().into(),
            template_sends: self.encoder.template_sends(),
            ..self.statistics.clone()
        }
    }

    /// Reads, encodes and writes what goes without waiting, up to a bound. Does nothing before [`Self::poll_timeout`], so
    /// it may be called at any time.
    pub fn pump(&mut self, source: &mut impl Source, now: Now) {
        if self.health == State::Ended {
            return self.count_passed(source.end());
        }
        self.look_for_answers(now);
        let waits = matches!(self.probing, Some(Some(_)));
        if !waits && self.retry.is_none_or(|at| at <= now.up) {
            self.retry = None;
            self.write(source, now);
        }
    }

    /// The records that turned out to be lost since this was asked last.
    pub fn take_lost(&mut self) -> Option<Missing> {
        self.lost.take()
    }

    /// Finishes the message in hand as well, for the end of the daemon. Call it until [`Self::is_settled`].
    pub fn drain(&mut self, source: &mut impl Source, now: Now) {
        if self.reader.next >= source.end() {
            self.encoder.flush(now, &mut self.ahead);
        }
        self.pump(source, now);
    }

    /// When to call [`Self::pump`] next; a time in the past means at once. `end` is that of the source.
    #[must_use]
    pub fn poll_timeout(&self, end: Serial) -> Option<Uptime> {
        if self.health == State::Ended {
            return None;
        }
        let is_behind = !self.ahead.is_empty() || self.reader.next < end;
        let work = match self.probing {
            Some(sent) => sent.map(after_probe).or_else(|| Some(Uptime::default())),
            None if is_behind => Some(Uptime::default()),
            None => self.encoder.poll_timeout(),
        };
        let work = work.map(|at| at.max(self.retry.unwrap_or_default()));
        work.into_iter().chain(self.look).min()
    }

    /// Whether it is of no use to wait: all that the source has was taken, or nothing can be at present.
    #[must_use]
    pub fn is_settled(&self, end: Serial) -> bool {
        let has_all = self.position.serial >= end && self.ahead.is_empty();
        match (self.health, self.probing) {
            (_, Some(Some(_))) => false,
            (State::Working, _) => has_all,
            _ => true,
        }
    }

    /// The first record that it still needs, or may have to go back to; `None` when it needs no more at all.
    #[must_use]
    pub fn needed(&self) -> Option<Serial> {
        let unanswered = self.transport.unanswered().unwrap_or(self.position);
        (self.health != State::Ended).then_some(unanswered.min(self.position).serial)
    }

    /// Records before `end` that it has not taken.
    #[must_use]
    pub fn behind(&self, end: Serial) -> u64 {
        match self.health {
            State::Ended => 0,
            _ => end.0.saturating_sub(self.position.serial.0),
        }
    }

    /// Takes note that the log no longer has some records.
    pub fn handle_evicted(&mut self, span: &Span) {
        let missing = span.missing_at(self.position);
        let Some(missing) = missing.filter(|_| self.health != State::Ended) else {
            return;
        };
        self.throw_away_ahead(self.place().sequence);
        self.gone = Some(self.gone.map_or(missing, |earlier| earlier.and(missing)));
        self.count_lost(
            &missing,
            span.end,
            "the log has no room for more (log.size, log.age)",
        );
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
            if let Err(failure) = self.transport.open() {
                self.fail(failure, now);
            }
        }
    }

    /// Writes until nothing is left, the receiver takes no more, or the bound of one call is reached.
    fn write(&mut self, source: &mut impl Source, now: Now) {
        let is_udp = self.transport.is_udp();
        let pace = 2 * source.pace() / self.encoder.records_per_message();
        let most = if is_udp { LEAST_PACE.max(pace) } else { WRITES };
        let mut progress = false;
        let mut reconnected = false;
        for count in 0.. {
            self.read(source, now);
            if self.probing.is_some() {
                self.encoder.flush(now, &mut self.ahead);
            }
            if self.ahead.is_empty() {
                return self.handle_empty(source.end());
            }
            if count == most {
                if is_udp {
                    self.retry = Some(now.up.saturating_add(PACE));
                }
                return;
            }
            let opened = self.transport.open();
            if let Ok(true) = opened {
                // For collectors a new port is a new transport session, with templates and a sequence of its own.
                self.throw_away_ahead(0);
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
                // A receiver that was restarted is there again under the same name.
                Err(Failure::Broken(_)) if !reconnected => reconnected = true,
                Err(failure) => {
                    if self.fail(failure, now) {
                        return;
                    }
                }
            }
        }
    }

    /// Encodes records until enough is encoded ahead.
    fn read(&mut self, source: &mut impl Source, now: Now) {
        while self.ahead.used() < AHEAD {
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
                Read::Gone(span) => {
                    let gap = self.pass_by(&span);
                    (Serial(span.end.0 - 1), Record::Gap(gap), 0)
                }
                Read::Nothing => break,
                Read::Unavailable => {
                    self.retry = Some(now.up.saturating_add(LAST_DELAY));
                    break;
                }
            };
            let pushed = self
                .encoder
                .push(&record, serial, skip, now, &mut self.ahead);
            self.statistics.not_representable += u64::from(pushed.is_err());
        }
        self.encoder.handle_timeout(now, &mut self.ahead);
    }

    /// Goes on after records that nobody has any more. Returns the gap that stands in their place.
    fn pass_by(&mut self, span: &Span) -> Gap {
        let count = span.end.0 - span.first.0;
        let times = self.gone.unwrap_or(Missing {
            count,
            since: span.since,
            until: span.until,
        });
        let missing = Missing { count, ..times };
        self.count_lost(
            &missing,
            span.end,
            "a part of the record log is damaged or gone",
        );
        let is_apart = |hole: &Range<Serial>| hole.end <= span.first || hole.start >= span.end;
        self.holes.retain(is_apart);
        self.holes.push_back(span.first..span.end);
        if self.holes.len() > MOST_HOLES {
            self.holes.pop_front();
        }
        self.reader.seek(span.end);
        missing.gap()
    }

    /// Nothing is left to write.
    fn handle_empty(&mut self, end: Serial) {
        if self.encoder.is_idle() {
            // Records that make no message count as taken with the message before them.
            self.advance(Position::before(self.reader.next));
        }
        if self.position.serial >= end {
            self.probing = None;
            self.recover();
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
        if position > self.position {
            self.statistics.records += self.records_between(self.position, position);
            self.position = position;
            self.gone = self.gone.filter(|_| position.serial < self.counted);
        }
    }

    /// Records that lie between two places and are not lost.
    fn records_between(&self, from: Position, to: Position) -> u64 {
        let (from, to) = (from.serial.0, to.serial.0);
        let lost = |hole: &Range<Serial>| hole.end.0.min(to).saturating_sub(hole.start.0.max(from));
        (to - from).saturating_sub(self.holes.iter().map(lost).sum())
    }

    /// Does what a failure asks for. Returns whether to wait.
    fn fail(&mut self, failure: Failure, now: Now) -> bool {
        match failure {
            Failure::Busy => {}
            Failure::Refused(go_back, trouble) => self.go_back(go_back, Some(&trouble), now),
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
        if self.probing.is_none() {
            self.retry = Some(now.up.saturating_add(self.delay));
            self.delay = (self.delay * 2).min(LAST_DELAY);
        }
        true
    }

    /// Reads the answers to what was sent, if it is time, and ends a probe that nobody refused.
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
            self.probing = None;
        }
    }

    /// Goes back to the first datagram that was refused.
    fn go_back(&mut self, to: GoBack, trouble: Option<&Trouble>, now: Now) {
        let records = self.records_between(to.position, self.position);
        self.statistics.records = self.statistics.records.saturating_sub(records);
        self.taken -= to.amount;
        self.statistics.refused += 1;
        let back = to.amount + self.ahead_amount();
        self.ahead.clear();
        self.encoder.go_back(to.sequence, back);
        self.position = to.position;
        self.reader.seek(to.position.serial);
        // The answer to a probe has been waited for already.
        let wait = match self.probing {
            Some(Some(_)) => Duration::ZERO,
            _ => PROBE,
        };
        self.probing = Some(None);
        self.retry = Some(now.up.saturating_add(wait));
        if matches!(self.health, State::Working | State::Failing) {
            self.health = State::Refused;
            let reason = trouble.map_or("refused".to_owned(), ToString::to_string);
            log::warn!(
                "{}: its host or the way there refuses datagrams ({reason}); records wait in the log until somebody listens there",
                self.name
            );
        }
    }

    /// The front message is too large for the way there: the records in it are given up.
    fn drop_front(&mut self) {
        let position = self.position;
        let end = self.ahead.front().map_or(position, |front| front.tag.end);
        self.throw_away_ahead(self.place().sequence);
        self.statistics.errors += 1;
        let last = Serial(end.serial.0.saturating_sub(u64::from(end.part == 0)));
        self.unsendable = position.serial..Serial(last.0 + 1);
    }

    /// Forgets what is encoded ahead. It is encoded again, from this sequence number on.
    fn throw_away_ahead(&mut self, sequence: u32) {
        let back = self.ahead_amount();
        self.ahead.clear();
        self.encoder.go_back(sequence, back);
        self.reader.seek(self.position.serial);
    }

    fn ahead_amount(&self) -> Amount {
        let entries = self.ahead.entries();
        entries.map(|(octets, load)| Amount::of(load, octets)).sum()
    }

    /// Counts lost records that end before `end`, but for those that have been counted.
    fn count_lost(&mut self, missing: &Missing, end: Serial, reason: &str) {
        let count = missing.count.min(end.0.saturating_sub(self.counted.0));
        self.counted = self.counted.max(end);
        if count == 0 {
            return;
        }
        if self.losing.is_none() {
            log::warn!("{}: records are lost: {reason}", self.name);
            self.losing = Some(self.statistics.lost);
        }
        self.statistics.lost += count;
        self.encoder.count_lost(count);
        let missing = Missing { count, ..*missing };
        self.lost = Some(self.lost.map_or(missing, |earlier| earlier.and(missing)));
    }

    /// An output that is closed for good counts what it does not get.
    fn count_passed(&mut self, end: Serial) {
        let passed = end.0.saturating_sub(self.position.serial.0);
        self.statistics.lost += passed;
        self.position = self.position.max(Position::before(end));
    }

    /// All that there is was taken. Not at the first success: a disk that is nearly full takes a little again and again.
    fn recover(&mut self) {
        let lost = self
            .losing
            .take()
            .map(|before| self.statistics.lost - before);
        let was_well = self.health == State::Working;
        self.health = State::Working;
        match lost {
            Some(lost) => log::warn!("{}: takes records again; {lost} are lost", self.name),
            None if was_well => {}
            None => log::info!("{}: takes records again; none is lost", self.name),
        }
    }
}

fn target_name(target: &Target) -> String {
    match target {
        Target::File { path } => format!("file {}", path.display()),
        Target::Journal { path } => format!("journal {}", path.display()),
        Target::Local { path } => format!("syslog {}", path.display()),
        Target::Stdout => "standard output".to_owned(),
        Target::Udp { address } => format!("syslog {address} (udp)"),
    }
}

fn after_probe(sent: Uptime) -> Uptime {
    sent.saturating_add(PROBE)
}

#[cfg(test)]
mod tests;
