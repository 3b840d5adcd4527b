//! The database of a daemon: the sessions that are open, and the records that the archive may not have yet.
//!
//! The open sessions are read first, then the log, so that a session that ends meanwhile is in either. One that begins
//! and is not in the list of open sessions yet has its create in the log.

use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use crate::archive::answer::Found;
use crate::archive::row::{Millis, Row};
use crate::archive::wanted::Wanted;
use crate::session::{EventKind, Gap, Provenance, Record, Session};
use crate::store::{self, reading};
use crate::time::Wall;

/// What the database can tell about besides sessions.
#[derive(Debug)]
pub(super) struct Heard {
    /// The daemon had heard the kernel until then when the list of open sessions was read.
    pub(super) until: Millis,
    /// Those that the log has, or that follow from what it no longer has.
    pub(super) gaps: Vec<Gap>,
}

/// Hands over the sessions that any of `wanted` accepts.
///
/// # Errors
/// The database, what was expected, and what to do.
pub(super) fn find(
    path: &Path,
    gateway: &Rc<str>,
    wanted: &[Wanted],
    each: &mut dyn FnMut(Found),
) -> Result<Heard, String> {
    let name = path.display();
    // SQLite does not say why a file cannot be opened.
    File::open(path).map_err(|error| {
        format!("database \"{name}\" cannot be read: {error}; run as root or in its group")
    })?;
    let explain = |error: store::Error| format!("database \"{name}\" {error}");
    let piece = reading::piece(path, None).map_err(explain)?;
    let until = Millis::from(piece.heard);
    let mut heard = Heard {
        until,
        gaps: piece
            .missing
            .map(|missing| missing.gap())
            .into_iter()
            .collect(),
    };
    let mut hand = |row: Row, is_open: bool| {
        // An open session is alive until now.
        let end = if is_open { Millis::MAX } else { row.end };
        let alive = Row { end, ..row };
        if wanted.iter().any(|wanted| wanted.accepts(&alive)) {
            let gateway = gateway.clone();
            each(Found {
                gateway,
                row,
                is_open,
            });
        }
    };
    reading::sessions(path, |stored| {
        hand(
            open(&stored.session, stored.begun, stored.provenance, until),
            true,
        );
    })
    .map_err(explain)?;
    let log = reading::records(path, None, |record| match record {
        Record::Gap(gap) => heard.gaps.push(gap),
        Record::Checkpoint(_) => {}
        Record::Event(event) if event.kind == EventKind::Create => {
            hand(
                open(&event.session, event.time, event.provenance, until),
                true,
            );
        }
        Record::Event(event) => {
            if let Some(row) = Row::of(&event) {
                hand(row, false);
            }
        }
    });
    log.map_err(explain)?;
    Ok(heard)
}

/// The row of a session that is open at `until`.
fn open(session: &Session, begun: Wall, provenance: Provenance, until: Millis) -> Row {
    let start = Millis::from(begun);
    Row {
        pre: session.pre_nat(),
        post: session.post_nat(),
        protocol: session.protocol,
        start: Some(start),
        end: until.max(start),
        totals: None,
        mark: session.mark,
        zone: session.zone.id,
        provenance,
    }
}
