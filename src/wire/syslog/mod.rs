//! Syslog, journal and file copies of records, as bytes.
//!
//! What a record becomes depends on the target's kind and its format:
//!
//! | target | message |
//! |---|---|
//! | local socket | RFC 3164 header, line |
//! | UDP | RFC 5424 header with MSGID SADD, SDEL or GAP, no structured data, line |
//! | UDP, format `rfc5424` | RFC 5424 header, structured data `nsess` |
//! | file, standard output | line, newline |
//! | file, standard output, format `rfc5424` | the whole RFC 5424 message, newline |
//! | journal | native entry: MESSAGE is the line, every field beside it |
//!
//! The line is that of the format: [`csv`](self) gives three or more for a delete and none for a create, the others give one
//! for every record. In the format `rfc5424` the line for a local socket or the journal is MSGID and structured data,
//! since neither parses RFC 5424 there. The header's time is that of the record. Nothing is allocated per record.

mod csv;
mod fields;
mod journal;
mod json;
mod put;
mod rfc3164;
mod rfc5424;
mod text;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;

use self::put::Calendar;
use crate::config::{Facility, Format, Severity, Syslog, Target};
use crate::session::{EventKind, Record};
use crate::time::{Now, Wall};

/// Who sends: HOSTNAME and PROCID.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub hostname: String,
    pub pid: u32,
}

/// One message for the target: a datagram, or a line with its newline.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub bytes: &'a [u8],
    /// Whether it completes its record.
    pub is_last: bool,
}

/// Appends a line of this process's own for a local syslog socket.
pub fn local_line(
    out: &mut Vec<u8>,
    (facility, severity): (Facility, Severity),
    tag: &str,
    time: Wall,
    line: &str,
) {
    let header = rfc3164::Header::new(facility.base() | severity as u8, tag, std::process::id());
    header.write(out, time, &mut Calendar::new());
    out.extend_from_slice(line.as_bytes());
}

/// Turns records into the messages of one target.
#[derive(Debug)]
pub struct Encoder {
    framing: Framing,
    format: Format,
    exporter: IpAddr,
    calendar: Calendar,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Framing {
    Journal(journal::Header),
    Line,
    Rfc3164(rfc3164::Header),
    Rfc5424 {
        header: rfc5424::Header,
        newline: bool,
    },
}

impl Encoder {
    #[must_use]
    pub fn new(config: &Syslog, host: &Host) -> Self {
        Self {
            framing: Framing::new(config, host),
            format: config.format,
            exporter: config.exporter_address,
            calendar: Calendar::new(),
            buffer: Vec::with_capacity(1024),
        }
    }

    /// Lines of the format `json`, as a file gets them.
    #[must_use]
    pub fn json_lines() -> Self {
        Self {
            framing: Framing::Line,
            format: Format::Json,
            // Only csv has it.
            exporter: Ipv4Addr::UNSPECIFIED.into(),
            calendar: Calendar::new(),
            buffer: Vec::with_capacity(1024),
        }
    }

    /// Whether the format has anything for the record: csv has nothing for a create.
    #[must_use]
    pub fn writes(&self, record: &Record) -> bool {
        let is_create = matches!(record, Record::Event(event) if event.kind == EventKind::Create);
        !(is_create && self.format == Format::Csv)
    }

    /// Gives each message of the record to `emit`, and stops early when that breaks. `now` is the reference of the csv
    /// format's SysUptime.
    pub fn encode(
        &mut self,
        record: &Record,
        now: Now,
        emit: &mut impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if !self.writes(record) {
            return ControlFlow::Continue(());
        }
        let Self {
            framing,
            format,
            exporter,
            calendar,
            buffer,
        } = self;
        if *format == Format::Csv
            && let Record::Event(event) = record
        {
            buffer.clear();
            framing.begin(buffer, record, *format, calendar);
            let start = buffer.len();
            return csv::lines(event, now, *exporter, |line, is_last| {
                buffer.truncate(start);
                line.write(buffer);
                framing.end(buffer, record, calendar);
                let bytes = buffer.as_slice();
                emit(Message { bytes, is_last })
            });
        }
        buffer.clear();
        framing.begin(buffer, record, *format, calendar);
        match format {
            Format::Csv => {
                buffer.extend_from_slice(b"# ");
                text::line(buffer, record, calendar);
            }
            Format::Json => json::line(buffer, record, calendar),
            Format::Rfc5424 => rfc5424::body(buffer, record, calendar),
            Format::Text => text::line(buffer, record, calendar),
        }
        framing.end(buffer, record, calendar);
        emit(Message {
            bytes: buffer,
            is_last: true,
        })
    }
}

impl Framing {
    fn new(config: &Syslog, host: &Host) -> Self {
        let (facility, severity) = (config.facility.base(), config.severity as u8);
        let rfc5424 = |newline| Self::Rfc5424 {
            header: rfc5424::Header::new(
                facility + severity,
                &host.hostname,
                &config.app_name,
                host.pid,
            ),
            newline,
        };
        match (&config.target, config.format) {
            (Target::Local { .. }, _) => Self::Rfc3164(rfc3164::Header::new(
                facility + severity,
                &config.app_name,
                host.pid,
            )),
            (Target::Udp { .. }, _) => rfc5424(false),
            (Target::File { .. } | Target::Stdout, Format::Rfc5424) => rfc5424(true),
            (Target::File { .. } | Target::Stdout, _) => Self::Line,
            (Target::Journal { .. }, _) => Self::Journal(journal::Header::new(
                facility / 8,
                severity,
                &config.app_name,
                host.pid,
            )),
        }
    }

    fn begin(&self, out: &mut Vec<u8>, record: &Record, format: Format, calendar: &mut Calendar) {
        match self {
            Self::Journal(header) => header.write(out),
            Self::Line => {}
            Self::Rfc3164(header) => header.write(out, record.time(), calendar),
            Self::Rfc5424 { header, .. } => {
                header.write(out, record.time(), calendar);
                if format != Format::Rfc5424 {
                    out.extend_from_slice(rfc5424::message_id(record));
                    out.extend_from_slice(b" - ");
                }
            }
        }
    }

    fn end(&self, out: &mut Vec<u8>, record: &Record, calendar: &mut Calendar) {
        match self {
            Self::Journal(_) => journal::fields(out, record, calendar),
            Self::Line | Self::Rfc5424 { newline: true, .. } => out.push(b'\n'),
            Self::Rfc3164(_) | Self::Rfc5424 { newline: false, .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
