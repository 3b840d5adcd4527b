//! What a collector has not been told of: gaps that are due, and gaps in messages of which it is not known yet whether
//! they leave.
//!
//! No count is ever lost or told twice: a gap is either due, or in exactly one message on its way, or has left. When its
//! message is lost it is due again, together with what else that message held. Only a message that was refused at the far
//! side may have been another one than it seems; its gaps are due again too, and rather told twice than never.

use std::collections::VecDeque;

use crate::export::packer::Load;
use crate::session::{Gap, GapCause};

#[derive(Debug, Default)]
pub(super) struct Losses {
    /// At most one gap with a count and one without for each cause.
    due: Vec<Gap>,
    /// In the order of the messages that hold them.
    under_way: VecDeque<Gap>,
    /// Those of the message that left last.
    last: Vec<Gap>,
}

impl Losses {
    pub(super) const fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The gaps that are due, which are the caller's to tell now.
    pub(super) fn take_due(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.due)
    }

    /// Takes note of a gap in the message in hand.
    pub(super) fn depart(&mut self, gap: Gap) {
        self.under_way.push_back(gap);
    }

    /// The oldest message on its way has left.
    pub(super) fn arrive(&mut self, load: Load) {
        self.last.clear();
        self.last
            .extend(self.under_way.drain(..usize::from(load.gaps)));
    }

    /// Nobody took the message that left last, or one before it. How many records were lost is not known.
    pub(super) fn refuse(&mut self, load: Load) {
        for gap in std::mem::take(&mut self.last) {
            self.due_again(gap);
        }
        self.lose(load, None);
    }

    /// The oldest message on its way is lost.
    pub(super) fn lose_oldest(&mut self, load: Load) {
        for _ in 0..load.gaps {
            if let Some(gap) = self.under_way.pop_front() {
                self.due_again(gap);
            }
        }
        self.lose(load, Some(load.records.into()));
    }

    /// The message in hand is lost.
    pub(super) fn lose_newest(&mut self, load: Load) {
        let first = self.under_way.len() - usize::from(load.gaps);
        for gap in self.under_way.split_off(first) {
            self.due_again(gap);
        }
        self.lose(load, Some(load.records.into()));
    }

    fn lose(&mut self, load: Load, lost: Option<u64>) {
        if load.records > 0 {
            let gap = Gap {
                cause: GapCause::Undelivered,
                from: load.from,
                to: load.to,
                lost,
            };
            match self.like(&gap) {
                Some(earlier) => *earlier = merge(*earlier, gap),
                None => self.due.push(gap),
            }
        }
    }

    fn due_again(&mut self, gap: Gap) {
        match self.like(&gap) {
            // What was told before came before.
            Some(later) => *later = merge(gap, *later),
            None => self.due.push(gap),
        }
    }

    fn like(&mut self, gap: &Gap) -> Option<&mut Gap> {
        self.due
            .iter_mut()
            .find(|due| due.cause == gap.cause && due.lost.is_some() == gap.lost.is_some())
    }
}

/// One gap for two of the same cause, both with a count or both without.
fn merge(earlier: Gap, later: Gap) -> Gap {
    let (from, to) = match earlier.cause {
        // Not an interval: the clock was set from one to the other, in several steps.
        GapCause::ClockStep => (earlier.from, later.to),
        _ => (earlier.from.min(later.from), earlier.to.max(later.to)),
    };
    Gap {
        cause: earlier.cause,
        from,
        to,
        lost: earlier
            .lost
            .zip(later.lost)
            .map(|(earlier, later)| earlier.saturating_add(later)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::time::Wall;

    fn at(secs: u64) -> Wall {
        Wall::from_secs(secs)
    }

    fn gap(cause: GapCause, from: u64, to: u64, lost: Option<u64>) -> Gap {
        Gap {
            cause,
            from: at(from),
            to: at(to),
            lost,
        }
    }

    fn load(records: u16, gaps: u16, from: u64, to: u64) -> Load {
        Load {
            records,
            gaps,
            from: at(from),
            to: at(to),
        }
    }

    #[test]
    fn messages_that_are_lost_in_a_row_make_one_gap() {
        let mut losses = Losses::default();
        losses.lose_newest(load(3, 0, 20, 25));
        losses.lose_oldest(load(4, 0, 10, 21));
        let expected = gap(GapCause::Undelivered, 10, 25, Some(7));
        assert_eq!(losses.take_due(), [expected]);
        assert!(!losses.is_due());
    }

    #[test]
    fn a_gap_whose_message_is_lost_is_due_again_with_what_the_message_held() {
        let mut losses = Losses::default();
        let told = gap(GapCause::Undelivered, 10, 20, Some(5));
        let restart = gap(GapCause::Restart, 1, 9, None);
        losses.depart(told);
        losses.depart(restart);
        losses.lose_newest(load(2, 2, 30, 31));
        assert_eq!(
            losses.take_due(),
            [gap(GapCause::Undelivered, 10, 31, Some(7)), restart]
        );
    }

    #[test]
    fn a_message_that_leaves_takes_its_own_gaps_along() {
        let mut losses = Losses::default();
        let [first, second, third] =
            [1, 2, 3].map(|secs| gap(GapCause::Overflow, secs, secs, Some(secs)));
        losses.depart(first);
        losses.depart(second);
        losses.depart(third);
        losses.arrive(load(9, 1, 5, 6));
        losses.lose_oldest(load(0, 1, 0, 0));
        losses.arrive(load(0, 1, 0, 0));
        assert_eq!(losses.take_due(), [second]);
    }

    #[test]
    fn the_gaps_of_a_message_that_was_refused_are_due_again() {
        let mut losses = Losses::default();
        let told = gap(GapCause::Undelivered, 10, 20, Some(5));
        losses.depart(told);
        losses.arrive(load(3, 1, 30, 40));
        assert!(!losses.is_due());
        losses.refuse(load(3, 1, 30, 40));
        // How many of the three were lost is not known: perhaps the one before was refused.
        let refused = gap(GapCause::Undelivered, 30, 40, None);
        assert_eq!(losses.take_due(), [told, refused]);
        losses.refuse(load(0, 0, 0, 0));
        assert!(!losses.is_due());
    }

    #[test]
    fn a_count_is_not_spoilt_by_a_loss_without_one() {
        let mut losses = Losses::default();
        losses.depart(gap(GapCause::Overflow, 1, 2, None));
        losses.depart(gap(GapCause::Overflow, 3, 4, Some(10)));
        losses.depart(gap(GapCause::Overflow, 5, 6, Some(20)));
        losses.lose_oldest(load(0, 3, 0, 0));
        assert_eq!(
            losses.take_due(),
            [
                gap(GapCause::Overflow, 1, 2, None),
                gap(GapCause::Overflow, 3, 6, Some(30)),
            ]
        );
    }

    #[test]
    fn clock_steps_add_up_to_one_step() {
        let mut losses = Losses::default();
        losses.depart(gap(GapCause::ClockStep, 100, 50, None));
        losses.depart(gap(GapCause::ClockStep, 60, 70, None));
        // The later one is due first.
        losses.lose_newest(load(0, 1, 0, 0));
        losses.lose_oldest(load(0, 1, 0, 0));
        assert_eq!(losses.take_due(), [gap(GapCause::ClockStep, 100, 70, None)]);
    }
}
