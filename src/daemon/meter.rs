//! What is measured over time: rates, the peak of pending sessions, gaps, and how long the turns of the loop take.
//!
//! One place per second of the last five minutes, taken again and again: nothing is allocated after the start, and a turn
//! costs a few additions.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine;
use crate::metrics::{Bucket, Gaps, Rates, Time, Turns};
use crate::session::{GapCause, Record};
use crate::time::{NANOS_PER_SEC, Now, Uptime};

const MINUTE: u64 = 60;
/// Whole seconds that are looked back at.
const MEMORY: u64 = 5 * MINUTE;
/// And the second that is under way.
const PLACES: usize = MEMORY as usize + 1;

/// Turns of less than 1 µs, 2 µs, 4 µs, … 2^22 µs (4 s), and longer ones.
const BUCKETS: usize = 24;

#[derive(Debug)]
pub struct Meter {
    first_second: u64,
    /// The second that is under way.
    second: u64,
    seconds: Box<[Second; PLACES]>,
    /// What was counted in all when it was looked at last.
    creates: u64,
    deletes: u64,
    peak: usize,
    peak_time: Option<Time>,
    gaps: BTreeMap<&'static str, Gaps>,
    turns: u64,
    longest_turn: Duration,
    histogram: [u64; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    creates: u64,
    deletes: u64,
    longest_turn: Duration,
}

impl Meter {
    #[must_use]
    pub fn new(now: Now) -> Self {
        let second = second_of(now.up);
        // What one output could not take is no gap of the others, and is counted there.
        let causes = GapCause::ALL
            .into_iter()
            .filter(|cause| *cause != GapCause::Undelivered)
            .map(GapCause::name);
        Self {
            first_second: second,
            second,
            seconds: Box::new([Second::default(); PLACES]),
            creates: 0,
            deletes: 0,
            peak: 0,
            peak_time: None,
            gaps: causes.map(|name| (name, Gaps::default())).collect(),
            turns: 0,
            longest_turn: Duration::ZERO,
            histogram: [0; BUCKETS],
        }
    }

    /// Takes note of a record on its way to the outputs.
    pub fn count_record(&mut self, record: &Record) {
        if let Record::Gap(gap) = record {
            let gaps = self.gaps.entry(gap.cause.name()).or_default();
            gaps.count += 1;
            gaps.lost += gap.lost.unwrap_or(0);
            gaps.last = gaps.last.max(Some(Time(gap.to)));
        }
    }

    /// Takes note of what the engine has counted. Call it once per turn.
    pub fn observe(&mut self, statistics: &engine::Statistics, now: Now) {
        self.go_on_to(now.up);
        let creates = statistics.creates - self.creates;
        let deletes = statistics.deletes - self.deletes;
        let current = self.current();
        current.creates += creates;
        current.deletes += deletes;
        self.creates = statistics.creates;
        self.deletes = statistics.deletes;
        if statistics.pending_peak > self.peak {
            self.peak = statistics.pending_peak;
            self.peak_time = Some(Time(now.wall));
        }
    }

    /// Takes note of a turn that began and ended then.
    pub fn count_turn(&mut self, begin: Uptime, end: Uptime) {
        self.go_on_to(end);
        let took = end.saturating_since(begin);
        self.turns += 1;
        self.longest_turn = self.longest_turn.max(took);
        let current = self.current();
        current.longest_turn = current.longest_turn.max(took);
        self.histogram[bucket_of(took)] += 1;
    }

    #[must_use]
    pub const fn peak_time(&self) -> Option<Time> {
        self.peak_time
    }

    #[must_use]
    pub fn gaps(&self) -> BTreeMap<String, Gaps> {
        let gaps = self.gaps.iter();
        gaps.map(|(name, gaps)| ((*name).to_owned(), *gaps))
            .collect()
    }

    #[must_use]
    pub fn rates(&mut self, now: Now) -> Rates {
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

    #[must_use]
    pub fn turns(&mut self, now: Now) -> Turns {
        self.go_on_to(now.up);
        let last_minute = (self.second.saturating_sub(MINUTE)..=self.second)
            .map(|second| self.seconds[place_of(second)].longest_turn)
            .max();
        let bucket = |(index, turns): (usize, &u64)| Bucket {
            below_microseconds: (index + 1 < BUCKETS).then(|| 1 << index),
            turns: *turns,
        };
        Turns {
            count: self.turns,
            longest_microseconds: micros(self.longest_turn),
            longest_last_minute_microseconds: micros(last_minute.unwrap_or_default()),
            histogram: self.histogram.iter().enumerate().map(bucket).collect(),
        }
    }

    /// Average per second over the last `window` whole seconds, or over as many as there were.
    fn rate(&self, window: u64, count: impl Fn(&Second) -> u64) -> f64 {
        let whole = (self.second - self.first_second).min(window);
        if whole == 0 {
            return 0.0;
        }
        let seconds = self.second - whole..self.second;
        let sum: u64 = seconds
            .map(|second| count(&self.seconds[place_of(second)]))
            .sum();
        sum as f64 / whole as f64
    }

    /// Empties the places of the seconds that have begun since.
    fn go_on_to(&mut self, up: Uptime) {
        let second = second_of(up);
        let begun = second.saturating_sub(self.second).min(PLACES as u64);
        for second in second - begun..second {
            self.seconds[place_of(second + 1)] = Second::default();
        }
        self.second = self.second.max(second);
    }

    const fn current(&mut self) -> &mut Second {
        &mut self.seconds[place_of(self.second)]
    }
}

const fn second_of(up: Uptime) -> u64 {
    up.as_nanos() / NANOS_PER_SEC
}

const fn place_of(second: u64) -> usize {
    (second % PLACES as u64) as usize
}

/// Whole microseconds; 584,000 years fit.
pub const fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// Bucket `n` begins at 2^(n-1) µs, the first one at zero.
fn bucket_of(took: Duration) -> usize {
    let bits = u64::BITS - micros(took).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Gap;
    use crate::time::Wall;

    const BOOT_TO_START: u64 = 1_000_000;

    /// So many milliseconds after the start.
    fn at(millis: u64) -> Now {
        Now::new(
            Wall::from_millis(1_700_000_000_000 + millis),
            Uptime::from_millis(BOOT_TO_START + millis),
        )
    }

    fn counted(creates: u64, deletes: u64) -> engine::Statistics {
        engine::Statistics {
            creates,
            deletes,
            ..engine::Statistics::default()
        }
    }

    /// A meter that saw ten creates and five deletes in each second for so long.
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
    fn turns_are_sorted_by_powers_of_two() {
        let mut meter = Meter::new(at(0));
        let begin = at(0).up;
        for nanos in [0, 999, 1_000, 1_999, 2_000, 4_000, 60_000_000_000] {
            let end = begin.saturating_add(Duration::from_nanos(nanos));
            meter.count_turn(begin, end);
        }
        let turns = meter.turns(at(60_000));
        let full: Vec<_> = turns
            .histogram
            .iter()
            .filter(|bucket| bucket.turns > 0)
            .map(|bucket| (bucket.below_microseconds, bucket.turns))
            .collect();
        let expected = [
            (Some(1), 2),
            (Some(2), 2),
            (Some(4), 1),
            (Some(8), 1),
            (None, 1),
        ];
        assert_eq!(full, expected);
        assert_eq!(turns.histogram.len(), BUCKETS);
        assert_eq!(turns.count, 7);
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
        let peak = |pending_peak| engine::Statistics {
            pending_peak,
            ..engine::Statistics::default()
        };
        assert_eq!(meter.peak_time(), None);
        meter.observe(&peak(7), at(1_000));
        meter.observe(&peak(7), at(2_000));
        assert_eq!(meter.peak_time(), Some(Time(at(1_000).wall)));
    }

    #[test]
    fn gaps_are_counted_by_cause_and_every_cause_of_the_daemon_is_there() {
        let mut meter = Meter::new(at(0));
        let gap = |lost, to| {
            Record::Gap(Gap {
                cause: GapCause::Overflow,
                from: at(0).wall,
                to,
                lost,
            })
        };
        meter.count_record(&gap(Some(3), at(2_000).wall));
        meter.count_record(&gap(None, at(1_000).wall));
        let gaps = meter.gaps();
        assert_eq!(gaps.len(), GapCause::ALL.len() - 1);
        assert_eq!(gaps["restart"], Gaps::default());
        let expected = Gaps {
            count: 2,
            lost: 3,
            last: Some(Time(at(2_000).wall)),
        };
        assert_eq!(gaps["overflow"], expected);
    }
}
