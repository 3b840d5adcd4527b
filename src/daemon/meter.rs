//! Measurements over time: records, rates, the peak of pending sessions, gaps, and the length of the loop's turns.
//!
//! One entry per second of the last five minutes, the newest in place of the oldest: nothing is allocated after the
//! start, and a turn costs a few additions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::metrics::{Gaps, Rates, Sessions, Turns, micros};
use crate::place::Missing;
use crate::session::{Gap, GapCause, Record};
use crate::time::{NANOS_PER_SEC, Now, Uptime, Wall};

const MINUTE: u64 = 60;
/// Whole seconds remembered.
const MEMORY: u64 = 5 * MINUTE;
/// These, the current second, and the one before all of them.
const PLACES: usize = MEMORY as usize + 2;

#[derive(Debug)]
pub(super) struct Meter {
    /// The newest first, which is the current one. The oldest is the one before the first whole second.
    seconds: VecDeque<Second>,
    /// The number of the current second.
    second: u64,
    peak: u64,
    peak_time: Option<Wall>,
    records: u64,
    gaps: BTreeMap<String, Gaps>,
    turns: Turns,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Totals since the start, at the end of this second.
    creates: u64,
    deletes: u64,
    longest_turn: Duration,
}

impl Meter {
    pub(super) fn new(now: Now) -> Self {
        let causes = GapCause::ALL.map(|cause| cause.name().to_owned());
        let mut seconds = VecDeque::with_capacity(PLACES + 1);
        seconds.resize(2, Second::default());
        Self {
            seconds,
            second: second_of(now.up),
            peak: 0,
            peak_time: None,
            records: 0,
            gaps: causes.map(|name| (name, Gaps::default())).into(),
            turns: Turns::default(),
        }
    }

    /// Takes note of a record on its way to the outputs.
    pub(super) fn count_record(&mut self, record: &Record) {
        self.records += 1;
        if let Record::Gap(gap) = record {
            self.count_gaps(gap, 1);
        }
    }

    /// Takes note of records that one output can never get, in `new` new gaps. No other output has these gaps.
    pub(super) fn count_undelivered(&mut self, missing: &Missing, new: u64) {
        self.count_gaps(&missing.gap(), new);
    }

    fn count_gaps(&mut self, gap: &Gap, new: u64) {
        // Every cause has its entry from the start.
        if let Some(gaps) = self.gaps.get_mut(gap.cause.name()) {
            gaps.count += new;
            gaps.lost += gap.lost.unwrap_or(0);
            gaps.last = gaps.last.max(Some(gap.to));
        }
    }

    /// Takes note of the engine's counters. Call it once per turn.
    pub(super) fn observe(&mut self, statistics: &Sessions, now: Now) {
        let current = self.go_on_to(now.up);
        current.creates = statistics.creates;
        current.deletes = statistics.deletes;
        if statistics.pending_peak > self.peak {
            self.peak = statistics.pending_peak;
            self.peak_time = Some(now.wall);
        }
    }

    /// Takes note of a turn that lasted from `begin` to `end`.
    pub(super) fn count_turn(&mut self, begin: Uptime, end: Uptime) {
        let took = end.saturating_since(begin);
        self.turns.count += 1;
        self.turns.longest_microseconds = self.turns.longest_microseconds.max(micros(took));
        self.turns.histogram.count(took);
        let current = self.go_on_to(end);
        current.longest_turn = current.longest_turn.max(took);
    }

    /// Records that left the engine.
    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    pub(super) const fn peak_time(&self) -> Option<Wall> {
        self.peak_time
    }

    pub(super) fn gaps(&self) -> BTreeMap<String, Gaps> {
        self.gaps.clone()
    }

    pub(super) fn rates(&mut self, now: Now) -> Rates {
        self.go_on_to(now.up);
        let creates = |second: &Second| second.creates;
        let deletes = |second: &Second| second.deletes;
        Rates {
            creates_1s: self.rate(1, creates),
            creates_1min: self.rate(MINUTE, creates),
            creates_5min: self.rate(MEMORY, creates),
            deletes_1s: self.rate(1, deletes),
            deletes_1min: self.rate(MINUTE, deletes),
            deletes_5min: self.rate(MEMORY, deletes),
        }
    }

    pub(super) fn turns(&mut self, now: Now) -> Turns {
        self.go_on_to(now.up);
        let last_minute = self.seconds.iter().take(MINUTE as usize + 1);
        let longest = last_minute.map(|second| second.longest_turn).max();
        Turns {
            longest_last_minute_microseconds: micros(longest.unwrap_or_default()),
            ..self.turns.clone()
        }
    }

    /// Average per second over the last `window` whole seconds, or over all of them while there are fewer.
    fn rate(&self, window: u64, total: impl Fn(&Second) -> u64) -> f64 {
        let whole = (self.seconds.len() - 2).min(window as usize);
        let count = total(&self.seconds[1]) - total(&self.seconds[1 + whole]);
        count as f64 / whole.max(1) as f64
    }

    /// Begins the seconds that have started meanwhile, and returns the current one.
    fn go_on_to(&mut self, up: Uptime) -> &mut Second {
        let begun = second_of(up).saturating_sub(self.second);
        self.second += begun;
        let next = Second {
            longest_turn: Duration::ZERO,
            ..self.seconds[0]
        };
        for _ in 0..begun.min(PLACES as u64) {
            self.seconds.push_front(next);
            self.seconds.truncate(PLACES);
        }
        &mut self.seconds[0]
    }
}

const fn second_of(up: Uptime) -> u64 {
    up.as_nanos() / NANOS_PER_SEC
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT_TO_START: u64 = 1_000_000;

    /// The given number of milliseconds after the start.
    fn at(millis: u64) -> Now {
        Now::new(
            Wall::from_millis(1_700_000_000_000 + millis),
            Uptime::from_millis(BOOT_TO_START + millis),
        )
    }

    fn counted(creates: u64, deletes: u64) -> Sessions {
        Sessions {
            creates,
            deletes,
            ..Sessions::default()
        }
    }

    /// A meter after `seconds` seconds with ten creates and five deletes in each.
    fn steady(seconds: u64) -> Meter {
        let mut meter = Meter::new(at(0));
        for half in 0..2 * seconds {
            let statistics = counted(5 * (half + 1), (5 * (half + 1)) / 2);
            meter.observe(&statistics, at(500 * half));
        }
        meter
    }

    #[test]
    fn a_steady_rate_is_the_same_over_every_window() {
        let rates = steady(400).rates(at(400_000));
        let creates = [rates.creates_1s, rates.creates_1min, rates.creates_5min];
        let deletes = [rates.deletes_1s, rates.deletes_1min, rates.deletes_5min];
        assert_eq!(creates, [10.0; 3]);
        assert_eq!(deletes, [5.0; 3]);
    }

    #[test]
    fn a_young_daemon_averages_over_its_own_time() {
        let mut meter = steady(2);
        assert_eq!(meter.rates(at(2_000)).creates_5min, 10.0);
        assert_eq!(Meter::new(at(0)).rates(at(0)), Rates::default());
    }

    #[test]
    fn rates_fade_while_nothing_happens_and_nobody_looks() {
        let mut meter = steady(60);
        let rates = meter.rates(at(90_000));
        assert_eq!(rates.creates_1s, 0.0);
        assert_eq!(rates.creates_1min, 5.0);
        assert_eq!(meter.rates(at(3_600_000)), Rates::default());
        meter.observe(&counted(660, 300), at(3_600_000));
        assert_eq!(meter.rates(at(3_601_000)).creates_1s, 60.0);
    }

    #[test]
    fn the_second_under_way_does_not_count_yet() {
        let mut meter = steady(10);
        meter.observe(&counted(1_000, 50), at(10_000));
        assert_eq!(meter.rates(at(10_999)).creates_1s, 10.0);
        assert_eq!(meter.rates(at(11_000)).creates_1s, 900.0);
    }

    #[test]
    fn the_longest_turn_is_forgotten_after_a_minute_but_not_over_all() {
        let mut meter = Meter::new(at(0));
        meter.count_turn(at(0).up, at(200).up);
        meter.count_turn(at(30_000).up, at(30_050).up);
        let longest = |turns: Turns| {
            let Turns {
                longest_microseconds,
                longest_last_minute_microseconds,
                ..
            } = turns;
            (longest_microseconds, longest_last_minute_microseconds)
        };
        assert_eq!(longest(meter.turns(at(60_000))), (200_000, 200_000));
        assert_eq!(longest(meter.turns(at(61_000))), (200_000, 50_000));
        assert_eq!(longest(meter.turns(at(91_000))), (200_000, 0));
    }

    #[test]
    fn the_peak_keeps_the_time_at_which_it_was_reached_first() {
        let mut meter = Meter::new(at(0));
        let peak = |pending_peak| Sessions {
            pending_peak,
            ..Sessions::default()
        };
        assert_eq!(meter.peak_time(), None);
        meter.observe(&peak(7), at(1_000));
        meter.observe(&peak(7), at(2_000));
        assert_eq!(meter.peak_time(), Some(at(1_000).wall));
    }

    #[test]
    fn gaps_are_counted_by_cause_and_every_cause_is_there() {
        let mut meter = Meter::new(at(0));
        let gap = |cause, lost, to| Gap {
            cause,
            from: at(0).wall,
            to,
            lost,
        };
        let (earlier, later) = (at(1_000).wall, at(2_000).wall);
        meter.count_record(&Record::Gap(gap(GapCause::Overflow, Some(3), later)));
        meter.count_record(&Record::Gap(gap(GapCause::Overflow, None, earlier)));
        let missing = Missing {
            count: 4,
            since: earlier,
            until: earlier,
        };
        meter.count_undelivered(&missing, 1);
        let gaps = meter.gaps();
        assert_eq!(gaps.len(), GapCause::ALL.len());
        assert_eq!(gaps["restart"], Gaps::default());
        let counted = |count, lost, last| Gaps {
            count,
            lost,
            last: Some(last),
        };
        assert_eq!(gaps["overflow"], counted(2, 3, later));
        assert_eq!(gaps["undelivered"], counted(1, 4, earlier));
        assert_eq!(meter.records(), 2);
    }
}
