//! The accounts of lives that are reported in parts. The mark of a life is its own, so that each record tells of which life
//! it is, and one that was taken for another has [`NatEvent::first_mark`].
//!
//! A sweep reads an entry at the moment when the kernel makes it: the kernel makes each piece the length of a pause
//! before, and a session is due only after a time that is far longer.

use super::*;

/// The parts and the deletes, as the log has them.
#[derive(Default)]
pub(super) struct Accounts {
    committed: Vec<NatEvent>,
    fresh: Vec<NatEvent>,
}

impl Accounts {
    pub(super) fn commit(&mut self) {
        self.committed.append(&mut self.fresh);
    }

    /// No output has taken what was not committed.
    pub(super) fn crash(&mut self) {
        self.fresh.clear();
    }
}

pub(super) fn mark_of(life: usize) -> u32 {
    life as u32 + 1
}

impl World {
    pub(super) fn transfer(&mut self, port: u16, octets: u64) {
        if let Some(life) = self.open(port) {
            self.lives[life].octets += octets;
        }
    }

    pub(super) fn sweep(&mut self) {
        let open = (0..PORTS).filter_map(|port| self.open(port));
        let entries: Vec<_> = open.map(|life| self.flow(life, false)).collect();
        self.engine.poll_sweep(true, self.now);
        self.engine.handle_swept(&entries, self.now);
        self.engine.handle_sweep_end(self.now);
    }

    pub(super) fn note(&mut self, event: NatEvent) {
        if event.kind != EventKind::Create {
            self.accounts.fresh.push(event);
        }
        if event.kind != EventKind::Flow {
            self.records.push(event);
        }
    }

    /// The parts of every life add up to its delete.
    pub(super) fn judge_parts(&self, port: u16) {
        let of_port = |event: &&NatEvent| event.session.original.src_port == port;
        let events = || self.accounts.committed.iter().filter(of_port);
        if events().any(|event| event.first_mark.is_some()) {
            return;
        }
        for life in (0..self.lives.len()).filter(|life| self.lives[*life].port == port) {
            let mut of_life = events().filter(|event| event.session.mark == mark_of(life));
            let (mut sum, mut last) = (0, None);
            for event in of_life.by_ref() {
                let octets = event.totals.map(|totals| totals.original.octets);
                match event.kind {
                    EventKind::Flow => {
                        sum += octets.unwrap_or(0);
                        last = Some(octets);
                    }
                    EventKind::Delete => {
                        assert_eq!(event.in_parts, last.is_some(), "{}", self.show(port));
                        match (octets, last) {
                            (Some(octets), Some(_)) => {
                                assert_eq!(sum, octets, "{}", self.show(port))
                            }
                            (None, Some(last)) => assert_eq!(last, None, "{}", self.show(port)),
                            (_, None) => {}
                        }
                        break;
                    }
                    EventKind::Create => {}
                }
            }
            // A forgotten session may be recorded again, as a whole.
            assert!(of_life.all(|event| self.kind.forgets && !event.in_parts));
        }
    }
}
