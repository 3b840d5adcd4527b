//! The end of a run of the model: a last audit, and the conditions that must then hold.

use super::*;

impl World {
    /// Everything under way comes to its end, then one more audit follows.
    pub(super) fn settle(&mut self) {
        self.full = false;
        self.is_other_slow = false;
        for _ in 0..2 {
            self.pass(20 * SECOND, Duration::ZERO);
            while !self.dying.is_empty() {
                self.step(Step::Redeliver(0));
            }
            self.step(Step::Read(usize::MAX));
            self.step(Step::RequestAudit);
            self.pass(20 * SECOND, Duration::ZERO);
            self.start_dump();
            while self.dump.is_some() {
                self.step(Step::MakePiece);
                self.step(Step::ReadPiece);
            }
            self.step(Step::Read(1));
            self.step(Step::Timeout);
        }
        self.step(Step::Commit);
    }

    /// All facts about a tuple, with times in milliseconds.
    pub(super) fn show(&self, port: u16) -> String {
        let millis = |time: Wall| time.saturating_since(boot().wall).as_millis();
        let mut text = format!("port {port}: {:?}", self.doubts[usize::from(port)]);
        for life in self.lives.iter().filter(|life| life.port == port) {
            let (start, end) = (millis(life.start), life.end.map(millis));
            let (heard, lost) = (life.heard.map(millis), life.end_lost);
            text += &format!("\nlife {start} to {end:?}, heard {heard:?}, end lost {lost}");
        }
        let of_port = |event: &&NatEvent| event.session.original.src_port == port;
        for event in self.records.iter().filter(of_port) {
            let (time, start) = (millis(event.time), event.start.map(millis));
            text += &format!(
                "\n{:?} {time}, start {start:?}, {:?}",
                event.kind, event.provenance
            );
        }
        text
    }

    pub(super) fn judge(&self) {
        for event in &self.records {
            assert!(
                event.start.is_none_or(|start| start <= event.time),
                "{event:?}"
            );
        }
        for port in 0..PORTS {
            let doubt = self.doubts[usize::from(port)];
            let of_port = |event: &&NatEvent| event.session.original.src_port == port;
            let records: Vec<&NatEvent> = self.records.iter().filter(of_port).collect();
            let count = |kind| records.iter().filter(|event| event.kind == kind).count();
            let lives: Vec<&Life> = self.lives.iter().filter(|life| life.port == port).collect();
            let show = || self.show(port);
            if !doubt.hidden {
                let open = usize::from(self.open(port).is_some());
                assert_eq!(self.pending_of(port), open, "pending, {}", show());
            }
            let mut numbers = 0..self.lives.len();
            let merged = numbers.any(|life| self.lives[life].port == port && self.is_merged(life));
            // A dump reported a life before the events of an earlier one were read, which look like its own.
            let overtaken = self.kind.forgets && lives.iter().any(|life| life.overtook);
            if merged || overtaken || doubt.hidden || doubt.crashed || doubt.renewed || doubt.late {
                continue;
            }
            self.judge_parts(port);
            let heard = || lives.iter().filter(|life| life.heard.is_some());
            let ended = heard().filter(|life| life.end.is_some()).count();
            let wanted = [
                (EventKind::Create, heard().count()),
                (EventKind::Delete, ended),
            ];
            for (kind, wanted) in wanted {
                // A forgotten session may be recorded again, but is never left out.
                let told = count(kind);
                let is_right = told == wanted || self.kind.forgets && told > wanted;
                assert!(is_right, "{kind:?} {told} for {wanted}, {}", show());
            }
            let mut open = 0_i32;
            for event in &records {
                open += if event.kind == EventKind::Create {
                    1
                } else {
                    -1
                };
                assert!(open >= 0, "a delete without its create, {}", show());
            }
        }
    }

    /// Whether a life is taken for an earlier one whose end is lost: see [`Doubt`](super::Doubt).
    fn is_merged(&self, life: usize) -> bool {
        let Life {
            port,
            start,
            end_lost,
            overtook,
            ..
        } = self.lives[life];
        let mut before = self.lives[..life].iter();
        end_lost && overtook
            || before.any(|earlier| {
                let near = |heard: Wall| start <= heard.saturating_add(SECOND);
                let taken = |heard| !self.kind.timestamps || end_lost || near(heard);
                earlier.port == port && earlier.end_lost && earlier.heard.is_some_and(taken)
            })
    }
}
