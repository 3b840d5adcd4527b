//! The connections that are logged, and those that one output gets.
//!
//! `[capture]` has a selection for everything that has none of its own: the archive, `nattrail who`, `tail` and `pending`,
//! and each key that a collector or copy does not set. A connection is logged when any selection accepts it.
//!
//! The mark of a connection may change. With a selection by mark there is a delete for every create, and a create for every
//! delete: see [`Share`].

use std::fmt;

use super::{Capture, Config, LogScope, MarkFilter, Prefix};
use crate::session::{EventKind, NatEvent, Protocol, Provenance, Record, Session};

/// Conditions that must all hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    pub log: LogScope,
    pub mark: Option<MarkFilter>,
    /// 0 is the default zone.
    pub zone: Option<u16>,
    /// With none of them, any will do; so for the prefixes.
    pub protocols: Vec<Protocol>,
    pub source: Vec<Prefix>,
    pub destination: Vec<Prefix>,
}

/// The part of a record that somebody with a selection gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Share {
    Nothing,
    Whole,
    /// The record, a delete, after this create: the mark was another one when the session began.
    After(Record),
}

impl Selection {
    /// It accepts every session.
    pub const ANY: Self = Self {
        log: LogScope::All,
        mark: None,
        zone: None,
        protocols: Vec::new(),
        source: Vec::new(),
        destination: Vec::new(),
    };

    pub fn accepts(&self, session: &Session) -> bool {
        self.accepts_with(session, session.mark)
    }

    /// The share in a record. Everybody gets gaps and checkpoints.
    pub fn share(&self, record: &Record) -> Share {
        let Record::Event(event) = record else {
            return Share::Whole;
        };
        let session = &event.session;
        let first = event.first_mark.unwrap_or(session.mark);
        if self.accepts_with(session, first) {
            Share::Whole
        } else if !self.accepts(session) {
            Share::Nothing
        } else if event.kind == EventKind::Delete {
            Share::After(Record::Event(beginning(event)))
        } else {
            Share::Whole
        }
    }

    fn accepts_with(&self, session: &Session, mark: u32) -> bool {
        let pre = session.pre_nat();
        (self.log == LogScope::All || !session.translation().is_none())
            && self.mark.is_none_or(|filter| filter.accepts(mark))
            && self.zone.is_none_or(|zone| zone == session.zone.id)
            && (self.protocols.is_empty() || self.protocols.contains(&session.protocol))
            && (self.source.is_empty() || self.source.iter().any(|net| net.contains(pre.src)))
            && (self.destination.is_empty()
                || self.destination.iter().any(|net| net.contains(pre.dst)))
    }
}

/// Its keys and their values; those that select nothing are left out.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.log {
            LogScope::Nat => "log=nat",
            LogScope::All => "log=all",
        })?;
        if let Some(mark) = self.mark {
            write!(f, " mark={mark}")?;
        }
        if let Some(zone) = self.zone {
            write!(f, " zone={zone}")?;
        }
        list(f, "protocols", &self.protocols)?;
        list(f, "source", &self.source)?;
        list(f, "destination", &self.destination)
    }
}

fn list(f: &mut fmt::Formatter<'_>, name: &str, values: &[impl fmt::Display]) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        match index {
            0 => write!(f, " {name}={value}")?,
            _ => write!(f, ",{value}")?,
        }
    }
    Ok(())
}

/// The create of a delete's session.
fn beginning(delete: &NatEvent) -> NatEvent {
    let (start, provenance) = match delete.start {
        Some(start) => (start, delete.provenance),
        None => (delete.time, Provenance::Inferred),
    };
    NatEvent::create(delete.session, start, provenance)
}

impl Capture {
    pub fn selection(&self) -> Selection {
        Selection {
            log: self.log,
            mark: self.mark,
            zone: self.zone,
            protocols: self.protocols.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
        }
    }
}

impl Config {
    /// That of `[capture]` and those of all outputs, each once: a connection that any of them accepts is logged.
    pub fn selections(&self) -> Vec<Selection> {
        let collectors = self.collectors.iter().map(|it| it.selection.clone());
        let copies = self.syslog.iter().map(|it| it.selection.clone());
        let mut all = vec![self.capture.selection()];
        for selection in collectors.chain(copies) {
            if !all.contains(&selection) {
                all.push(selection);
            }
        }
        all
    }

    /// The selection, unless it accepts all that is logged.
    pub fn narrower(&self, selection: Selection) -> Option<Selection> {
        (selection != Selection::ANY && self.selections().len() > 1).then_some(selection)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::session::Zone;
    use crate::time::Wall;
    use crate::wire::samples::{create, delete, snat};

    fn marked(value: u32) -> Selection {
        Selection {
            mark: Some(MarkFilter { value, mask: 0xff }),
            ..Selection::ANY
        }
    }

    fn session(mark: u32) -> Session {
        Session { mark, ..snat() }
    }

    #[test]
    fn a_zone_is_its_number_in_either_direction() {
        let of = |id| Session {
            zone: Zone {
                id,
                ..Zone::default()
            },
            ..snat()
        };
        let selects = |zone, id| {
            let selection = Selection {
                zone: Some(zone),
                ..Selection::ANY
            };
            selection.accepts(&of(id))
        };
        assert!(selects(0, 0) && selects(7, 7));
        assert!(!selects(0, 7) && !selects(7, 0));
        assert!(Selection::ANY.accepts(&of(7)));
    }

    #[test]
    fn a_delete_follows_the_create_whatever_became_of_the_mark() {
        let begun = Record::Event(create(session(1), 1_000));
        let ended = Record::Event(NatEvent {
            first_mark: Some(1),
            ..delete(session(2), 1_000, 2_000)
        });
        assert_eq!(marked(1).share(&begun), Share::Whole);
        assert_eq!(marked(1).share(&ended), Share::Whole);
        assert_eq!(marked(2).share(&begun), Share::Nothing);
        let Share::After(Record::Event(made)) = marked(2).share(&ended) else {
            panic!(
                "the session is marked by now: {:?}",
                marked(2).share(&ended)
            );
        };
        assert_eq!(made, create(session(2), 1_000));
        assert_eq!(marked(3).share(&ended), Share::Nothing);
    }

    #[test]
    fn a_part_of_the_traffic_needs_no_create() {
        let part = Record::Event(NatEvent {
            kind: EventKind::Flow,
            first_mark: Some(1),
            ..delete(session(2), 1_000, 2_000)
        });
        assert_eq!(marked(1).share(&part), Share::Whole);
        assert_eq!(marked(2).share(&part), Share::Whole);
        assert_eq!(marked(3).share(&part), Share::Nothing);
    }

    #[test]
    fn the_create_of_a_delete_without_a_start_is_inferred() {
        let ended = NatEvent {
            start: None,
            ..delete(session(2), 1_000, 2_000)
        };
        let made = beginning(&ended);
        assert_eq!(
            (made.time, made.provenance),
            (Wall::from_millis(2_000), Provenance::Inferred)
        );
    }

    #[test]
    fn a_selection_is_told_by_its_keys() {
        let selection = Selection {
            log: LogScope::Nat,
            zone: Some(3),
            protocols: vec![Protocol::TCP, Protocol(200)],
            source: vec![Prefix::parse("10.0.0.0/8", "").unwrap()],
            ..marked(7)
        };
        assert_eq!(
            selection.to_string(),
            "log=nat mark=0x7/0xff zone=3 protocols=tcp,200 source=10.0.0.0/8"
        );
        assert_eq!(Selection::ANY.to_string(), "log=all");
    }
}
