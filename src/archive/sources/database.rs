//! The database of a daemon: the sessions that are open, and the records that the archive may not have yet.
//!
//! The open sessions are read first, then the log, so that a session that ends meanwhile is in either. One that begins
//! and is not in the list of open sessions yet has its create in the log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::archive::answer::Found;
use crate::archive::row::{Millis, Row};
use crate::archive::wanted::Wanted;
use crate::config::{Config, Selection, Share};
use crate::session::{EventKind, Gap, Provenance, Record, Session};
use crate::store;
use crate::store::reading::{self, Bookmark, Piece};
use crate::time::Wall;

/// The database, and the selection of the sessions in it that the archive gets, unless those are all.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    only: Option<Selection>,
}

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
    database: &Database,
    gateway: &Rc<str>,
    wanted: &[Wanted],
    each: &mut dyn FnMut(Found),
) -> Result<Heard, String> {
    let path = database.check_access()?;
    let explain = |error: store::Error| explain(path, &error);
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
        if database.has_session(&stored.session) {
            hand(
                open(&stored.session, stored.begun, stored.provenance, until),
                true,
            );
        }
    })
    .map_err(explain)?;
    let log = reading::records(path, None, |record| match record {
        Record::Gap(gap) => heard.gaps.push(gap),
        Record::Checkpoint(_) => {}
        _ if !database.has(&record) => {}
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

/// Hands over the sessions that are open, and returns until when the daemon had heard the kernel then.
///
/// # Errors
/// As for [`find`].
pub(super) fn open_sessions(
    database: &Database,
    each: &mut dyn FnMut(Row),
) -> Result<Millis, String> {
    let path = database.check_access()?;
    let explain = |error: store::Error| explain(path, &error);
    // That of the list may be somewhat later, which shows when it was read.
    let seen = reading::piece(path, None).map_err(explain)?.heard.into();
    let until = reading::sessions(path, |stored| {
        if database.has_session(&stored.session) {
            each(open(&stored.session, stored.begun, stored.provenance, seen));
        }
    });
    Ok(until.map_err(explain)?.into())
}

/// The log from that place on. Records before it that are gone may be in the archive meanwhile.
///
/// # Errors
/// As for [`find`].
pub(super) fn log(database: &Database, bookmark: Option<Bookmark>) -> Result<Piece, String> {
    let path = database.check_access()?;
    reading::piece(path, bookmark).map_err(|error| explain(path, &error))
}

/// Hands over the finished sessions of the log.
///
/// # Errors
/// As for [`find`].
pub(super) fn finished(
    database: &Database,
    log: Piece,
    each: &mut dyn FnMut(Row),
) -> Result<Heard, String> {
    let missing = log.missing.map(|missing| missing.gap());
    let mut gaps: Vec<_> = missing.into_iter().collect();
    let until = reading::records_from(&database.path, log, |record| match record {
        Record::Gap(gap) => gaps.push(gap),
        Record::Checkpoint(_) => {}
        _ if !database.has(&record) => {}
        Record::Event(event) => {
            if let Some(row) = Row::of(&event) {
                each(row);
            }
        }
    });
    let until = until
        .map_err(|error| explain(&database.path, &error))?
        .into();
    Ok(Heard { until, gaps })
}

impl Database {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            path: config.pending.database.clone(),
            only: config.narrower(config.capture.selection()),
        }
    }

    /// Whether the archive gets the record.
    fn has(&self, record: &Record) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.share(record) != Share::Nothing)
    }

    fn has_session(&self, session: &Session) -> bool {
        self.only.as_ref().is_none_or(|only| only.accepts(session))
    }

    /// SQLite does not say why a file cannot be opened.
    fn check_access(&self) -> Result<&Path, String> {
        let path = &self.path;
        let refused = |error| {
            let name = path.display();
            format!("database \"{name}\" cannot be read: {error}; run as root or in its group")
        };
        File::open(path).map_err(refused)?;
        Ok(path)
    }
}

fn explain(path: &Path, error: &store::Error) -> String {
    format!("database \"{}\" {error}", path.display())
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
