//! A transport that follows a test's orders.

use std::collections::VecDeque;

use super::{Failure, GoBack, Load, Position};

#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) is_udp: bool,
    pub(crate) is_open: bool,
    pub(crate) opens: usize,
    /// The failures of the coming opens and writes; `None` is success.
    pub(crate) open_failures: VecDeque<Failure>,
    pub(crate) write_failures: VecDeque<Option<Failure>>,
    pub(crate) refusals: VecDeque<GoBack>,
    pub(crate) is_blocked: bool,
    pub(crate) taken: Vec<Vec<u8>>,
    /// The position at which each of them begins, and its load.
    pub(crate) sent: Vec<(Position, Load)>,
}

impl Fake {
    pub(super) fn open(&mut self) -> Result<(), Failure> {
        if self.is_open {
            return Ok(());
        }
        self.opens += 1;
        if let Some(failure) = self.open_failures.pop_front() {
            return Err(failure);
        }
        self.is_open = true;
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        begin: Position,
        load: Load,
    ) -> Result<(), Failure> {
        if self.is_blocked {
            return Err(Failure::Busy);
        }
        if let Some(Some(failure)) = self.write_failures.pop_front() {
            if matches!(failure, Failure::Broken(_)) {
                self.is_open = false;
            }
            return Err(failure);
        }
        self.taken.push(bytes.to_vec());
        self.sent.push((begin, load));
        Ok(())
    }
}
