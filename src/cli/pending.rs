//! `nattrail pending`: the connections that were open at the daemon's last flush.
//!
//! Rows are printed as they are read, so a table of any size needs no memory; for that the columns have fixed widths,
//! which long IPv6 addresses exceed.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::mem;
use std::net::SocketAddr;
use std::ops::ControlFlow;

use super::{Exit, Failure, Origin, configuration, exit_of};
use crate::engine::StoredSession;
use crate::session::{NatEvent, Provenance, Record, Tuple};
use crate::store;
use crate::time::{Age, Now, Uptime, Wall};
use crate::wire::syslog::{Encoder, Message};

/// The form in which sessions are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::Args)]
pub(super) struct Form {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Print comma-separated values, the first line the names of the columns
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// The columns of the table, with their widths.
const COLUMNS: [(&str, usize); 10] = [
    ("PROTO", 7),
    ("PRE-NAT SOURCE", 21),
    ("PRE-NAT DEST", 21),
    ("POST-NAT SOURCE", 21),
    ("POST-NAT DEST", 21),
    ("NAT", 9),
    ("START", 25),
    ("AGE", 7),
    ("MARK", 10),
    ("ZONE", 0),
];

/// The columns of [`print_csv`].
const CSV: &str = "time,nat,proto,pre_src,pre_sport,pre_dst,pre_dport,post_src,post_sport,post_dst,post_dport,mark,zone,id,inferred";

/// Prints the sessions of the configured database: as a table, as comma-separated values, or as one JSON object per
/// line, which is the session's create record in the copies. A daemon may be using the database meanwhile.
pub(super) fn run(
    origin: &Origin,
    form: Form,
    now: Wall,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let config = configuration(origin)?;
    let mut out = BufWriter::new(out);
    let mut encoder = Encoder::json_lines();
    let mut printed = Ok(());
    // The heading waits until the database is read: alone it is no answer.
    let mut headed = form.json;
    let mut print = |stored: Option<StoredSession>| {
        if !mem::replace(&mut headed, true) {
            print_heading(form, &mut out)?;
        }
        match stored {
            None => out.flush(),
            Some(stored) if form.json => print_json(&stored, &mut encoder, &mut out),
            Some(stored) if form.csv => print_csv(&stored, &mut out),
            Some(stored) => print_row(&stored, now, &mut out),
        }
    };
    let database = &config.pending.database;
    let only = config.narrower(config.capture.selection());
    // SQLite gives neither the reason why a file cannot be opened nor the remedy.
    File::open(database).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => "run as root",
            _ => "start the daemon, or name its configuration (--config) or its instance (--instance)",
        };
        let message = format!("database \"{}\": {error}: {advice}", database.display());
        Failure::new(exit_of(&error), message)
    })?;
    let read = store::reading::sessions(database, |stored| {
        // The store cannot be stopped; after the first failure it reads the rest for nothing.
        let is_shown = only
            .as_ref()
            .is_none_or(|only| only.accepts(&stored.session));
        if is_shown && printed.is_ok() {
            printed = print(Some(stored));
        }
    });
    printed?;
    read.map_err(|error| {
        let message = format!("database \"{}\" {error}", database.display());
        Failure::new(Exit::Unavailable, message)
    })?;
    print(None)?;
    Ok(Exit::Success)
}

/// Prints the heading of [`print_csv`] or [`print_row`].
fn print_heading(form: Form, out: &mut impl Write) -> io::Result<()> {
    if form.csv {
        return writeln!(out, "{CSV}");
    }
    print_columns(COLUMNS.map(|(name, _)| name.to_owned()), out)
}

/// Prints one line of the table. An inferred start begins with `~`. A query of ICMP has its identifier instead of the
/// source port.
fn print_row(stored: &StoredSession, now: Wall, out: &mut impl Write) -> io::Result<()> {
    let session = &stored.session;
    let (pre, post) = (session.pre_nat(), session.post_nat());
    let is_inferred = stored.provenance == Provenance::Inferred;
    let about = if is_inferred { "~" } else { "" };
    let destination = |tuple: Tuple| match session.protocol.is_icmp() {
        true => tuple.dst.to_string(),
        false => SocketAddr::new(tuple.dst, tuple.dst_port).to_string(),
    };
    let columns = [
        session.protocol.to_string(),
        SocketAddr::new(pre.src, pre.src_port).to_string(),
        destination(pre),
        SocketAddr::new(post.src, post.src_port).to_string(),
        destination(post),
        session.translation().name().to_owned(),
        format!("{about}{}", stored.begun),
        Age(now.saturating_since(stored.begun)).to_string(),
        format!("{:#x}", session.mark),
        session.zone.id.to_string(),
    ];
    print_columns(columns, out)
}

/// Prints one line, in which nothing needs quotes. For ICMP the source ports are the identifier of the query and the
/// destination ports type * 256 + code, as in NetFlow.
fn print_csv(stored: &StoredSession, out: &mut impl Write) -> io::Result<()> {
    let session = &stored.session;
    write!(
        out,
        "{},{},{}",
        stored.begun,
        session.translation().name(),
        session.protocol
    )?;
    for tuple in [session.pre_nat(), session.post_nat()] {
        let (src, dst) = (tuple.src, tuple.dst);
        write!(out, ",{src},{},{dst},{}", tuple.src_port, tuple.dst_port)?;
    }
    write!(out, ",{:#x},{},", session.mark, session.zone.id)?;
    if let Some(id) = session.id {
        write!(out, "{id}")?;
    }
    let is_inferred = stored.provenance == Provenance::Inferred;
    writeln!(out, ",{}", if is_inferred { "yes" } else { "no" })
}

/// Prints one JSON object and a line feed.
fn print_json(
    stored: &StoredSession,
    encoder: &mut Encoder,
    out: &mut impl Write,
) -> io::Result<()> {
    let record = Record::Event(NatEvent::create(
        stored.session,
        stored.begun,
        stored.provenance,
    ));
    let now = Now::new(stored.begun, Uptime::default());
    let mut written = Ok(());
    let _ = encoder.encode(&record, now, &mut |message: Message<'_>| {
        written = out.write_all(message.bytes);
        ControlFlow::Break(())
    });
    written
}

fn print_columns(values: [String; COLUMNS.len()], out: &mut impl Write) -> io::Result<()> {
    let cells = COLUMNS.iter().zip(values);
    let cells = cells.map(|((_, width), value)| format!("{value:<width$}"));
    let line: Vec<_> = cells.collect();
    writeln!(out, "{}", line.join(" ").trim_end())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::engine::{Engine, Filter, Policy, Row};
    use crate::session::{Protocol, Session, Zone, ZoneDirection};
    use crate::store::Store;
    use crate::store::tests::only;
    use crate::time::{Now, Uptime};
    use crate::wire::ctnetlink::{Entry, Event};

    fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
        Tuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            src_port,
            dst_port,
        }
    }

    fn stored(provenance: Provenance) -> StoredSession {
        let session = Session {
            original: tuple("10.0.0.2", 40000, "198.51.100.7", 443),
            reply: tuple("198.51.100.7", 443, "203.0.113.1", 51000),
            protocol: Protocol::TCP,
            zone: Zone {
                id: 7,
                direction: ZoneDirection::Both,
            },
            id: Some(42),
            mark: 16,
        };
        StoredSession {
            row: Row(1),
            session,
            begun: START,
            provenance,
            baseline: None,
        }
    }

    fn text(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const START: Wall = Wall::from_millis(1_700_000_000_123);

    #[test]
    fn a_row_has_every_column_below_its_heading() {
        let heading = text(|out| print_heading(Form::default(), out));
        let now = START.saturating_add(Duration::from_secs(75));
        let line = text(|out| print_row(&stored(Provenance::Kernel), now, out));
        let columns = [
            ("PROTO", "tcp"),
            ("PRE-NAT SOURCE", "10.0.0.2:40000"),
            ("PRE-NAT DEST", "198.51.100.7:443"),
            ("POST-NAT SOURCE", "203.0.113.1:51000"),
            ("POST-NAT DEST", "198.51.100.7:443"),
            ("START", "2023-11-14T22:13:20.123Z"),
            ("AGE", "1m15s"),
            ("MARK", "0x10"),
            ("ZONE", "7"),
        ];
        for (name, value) in columns {
            let at = heading.find(name).unwrap();
            assert!(line[at..].starts_with(value), "{name}: {line}");
        }
        assert!(line.contains(" snat "), "{line}");
    }

    #[test]
    fn an_inferred_start_is_marked() {
        let line = text(|out| print_row(&stored(Provenance::Inferred), START, out));
        assert!(line.contains(" ~2023-11-14T22:13:20.123Z 0s "), "{line}");
    }

    #[test]
    fn a_query_of_icmp_has_its_identifier_and_no_port() {
        let mut icmp = stored(Provenance::Kernel);
        icmp.session.protocol = Protocol::ICMP;
        let line = text(|out| print_row(&icmp, START, out));
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(fields[1..3], ["10.0.0.2:40000", "198.51.100.7"]);
    }

    #[test]
    fn json_is_the_create_record_of_the_copies() {
        let line = text(|out| {
            print_json(
                &stored(Provenance::Inferred),
                &mut Encoder::json_lines(),
                out,
            )
        });
        assert_eq!(
            line,
            "{\"time\":\"2023-11-14T22:13:20.123Z\",\"event\":\"create\",\"nat\":\"snat\",\"proto\":\"tcp\",\
             \"pre_src\":\"10.0.0.2\",\"pre_sport\":40000,\"pre_dst\":\"198.51.100.7\",\"pre_dport\":443,\
             \"post_src\":\"203.0.113.1\",\"post_sport\":51000,\"post_dst\":\"198.51.100.7\",\"post_dport\":443,\
             \"mark\":\"0x10\",\"zone\":7,\"id\":42,\"inferred\":true}\n"
        );
    }

    const JSON: Form = Form {
        json: true,
        csv: false,
    };

    /// Runs the command on a database in `directory` while the daemon's store is still open.
    fn pending(directory: &Path, form: Form) -> (Exit, String) {
        let database = directory.join("pending.db");
        let file = directory.join("n.toml");
        let text = format!("[pending]\ndatabase = {database:?}\n");
        std::fs::write(&file, text).unwrap();
        let mut out = Vec::new();
        let origin = Origin {
            config: Some(file),
            instance: None,
        };
        let exit = run(&origin, form, START, &mut out).unwrap_or_else(|failure| failure.exit);
        (exit, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_sessions_of_a_database_in_use_are_printed() {
        let directory = tempfile::tempdir().unwrap();
        let now = Now::new(START, Uptime::from_millis(5000));
        let config = Config::default();
        let filter = Filter::new(config.selections());
        let mut engine = Engine::new(filter, Policy::new(&config), now);
        let flow = Entry {
            session: stored(Provenance::Kernel).session,
            totals: None,
            start: None,
            stop: None,
            event_time: None,
            is_unannounced: false,
            end_reason: None,
        };
        engine.handle_events(&[Event::New(flow)], now);
        let mut store = Store::open(&directory.path().join("pending.db")).unwrap();
        store.commit(&only(&engine.changes())).unwrap();
        let (exit, table) = pending(directory.path(), Form::default());
        assert_eq!(exit, Exit::Success);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with("tcp     10.0.0.2:40000 "), "{table}");
        let csv = Form {
            csv: true,
            json: false,
        };
        let (_, csv) = pending(directory.path(), csv);
        assert_eq!(
            csv,
            format!(
                "{CSV}\n2023-11-14T22:13:20.123Z,snat,tcp,10.0.0.2,40000,198.51.100.7,443,203.0.113.1,51000,198.51.100.7,443,0x10,7,\
                 42,no\n"
            )
        );
        let (_, json) = pending(directory.path(), JSON);
        assert_eq!(
            json,
            text(|out| print_json(&stored(Provenance::Kernel), &mut Encoder::json_lines(), out))
        );
    }

    #[test]
    fn a_database_that_is_not_there_is_unavailable() {
        let directory = tempfile::tempdir().unwrap();
        for form in [JSON, Form::default()] {
            let (exit, printed) = pending(directory.path(), form);
            assert_eq!((exit, printed.as_str()), (Exit::Unavailable, ""));
        }
        assert!(!directory.path().join("pending.db").exists());
    }
}
