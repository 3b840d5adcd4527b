//! Reading the kernel's table for sweeps, piece by piece and spread over time, beside the listings of audits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

use crate::config::Namespace;
use crate::engine::Engine;
use crate::kernel::dump::{Dump, Pace};
use crate::metrics;
use crate::time::Now;
use crate::wire::ctnetlink::Listing;

/// The longest pause between two pieces.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Pieces of the first sweep, as long as nobody knows: with so many, a table has two million connections.
const ASSUMED_PIECES: u32 = 16_384;
/// Pieces read in one turn of the loop. One comes at a time; the second look usually finds none, and saves a turn.
const PIECES_PER_TURN: usize = 2;

/// The reader of sweeps.
pub struct Sweeper {
    running: Option<Running>,
    /// Pieces of the last whole sweep.
    pieces: u32,
    failing: bool,
}

struct Running {
    dump: Dump,
    readable: bool,
    pieces: u32,
}

impl Sweeper {
    pub const fn new() -> Self {
        Self {
            running: None,
            pieces: ASSUMED_PIECES,
            failing: false,
        }
    }

    pub const fn set_readable(&mut self) {
        if let Some(running) = &mut self.running {
            running.readable = true;
        }
    }

    /// Whether a call would find something to read at once.
    pub fn is_readable(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.readable)
    }

    /// Begins a sweep, if the engine wants one. The waker reports each piece.
    pub fn start(
        &mut self,
        engine: &mut Engine,
        namespace: Option<&Namespace>,
        waker: &Arc<Waker>,
        is_stored: bool,
        now: Now,
    ) {
        if self.running.is_some() && !is_stored {
            self.running = None;
            engine.handle_sweep_failed(now);
        }
        let Some(period) = engine.poll_sweep(is_stored, now) else {
            return;
        };
        let pace = Pace::Slow(pause(period, self.pieces), self.pieces);
        match Dump::request(Listing::Table, pace, namespace, waker) {
            Ok(dump) => {
                self.running = Some(Running {
                    dump,
                    readable: false,
                    pieces: 0,
                });
            }
            Err(error) => self.fail(engine, &error, now),
        }
    }

    /// Reads a piece into the engine, if there is one.
    pub fn read(&mut self, engine: &mut Engine, statistics: &mut metrics::Events, now: Now) {
        for _ in 0..PIECES_PER_TURN {
            let Some(running) = self.running.as_mut().filter(|running| running.readable) else {
                return;
            };
            match running.dump.receive() {
                Ok(None) => running.readable = false,
                Ok(Some(piece)) => {
                    running.pieces += 1;
                    statistics.dumped += piece.entries.len() as u64;
                    statistics.dumped_malformed += piece.malformed;
                    engine.handle_swept(&piece.entries, now);
                    if piece.is_last {
                        self.pieces = running.pieces;
                        self.running = None;
                        engine.handle_sweep_end(now);
                        if std::mem::take(&mut self.failing) {
                            log::info!(
                                "interim flow records go on: the connection table can be read again"
                            );
                        }
                    }
                }
                Err(error) => self.fail(engine, &error, now),
            }
        }
    }

    fn fail(&mut self, engine: &mut Engine, error: &io::Error, now: Now) {
        self.running = None;
        if !std::mem::replace(&mut self.failing, true) {
            log::warn!(
                "cannot read the connection table for interim flow records: {error}; trying again every 10 s; no traffic \
                 is lost by that"
            );
        }
        engine.handle_sweep_failed(now);
    }
}

/// The pause between two pieces, with which as many as last time take most of the period, and a table that has grown takes
/// hardly longer than all of it.
fn pause(period: Duration, pieces: u32) -> Duration {
    // In this order, as there is no longest period.
    (period / 8 * 7 / pieces.max(1)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_pieces_as_last_time_take_most_of_the_period_whether_few_or_many() {
        let period = Duration::from_secs(450);
        assert_eq!(pause(period, 3), LONGEST_PAUSE);
        assert_eq!(pause(Duration::MAX, 3), LONGEST_PAUSE);
        let took = pause(period, 9000) * 9000;
        assert!(took > period * 3 / 4 && took < period, "{took:?}");
    }
}
