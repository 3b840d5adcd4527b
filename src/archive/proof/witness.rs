//! Checkpoints as the copies of records carry them, and back: each copy elsewhere is a witness.
//!
//! A copy has a checkpoint as the fields `origin`, `size`, `root` and `signature`. Its signed note is, octet for octet:
//!
//! ```text
//! ORIGIN
//! SIZE
//! ROOT
//!
//! — ORIGIN SIGNATURE
//! ```
//!
//! They are found in the lines of every text format of nattrail, whatever a syslog server or a journal has put around them.
//! Whatever a file has, reading it takes bounded memory for each line, and only what is strictly a signed note counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use super::note::{Checkpoint, MAX_NOTE, Note};
use super::{Error, base64};
use crate::session::SignedCheckpoint;
use crate::time::Wall;

/// A longer line is read in pieces. A checkpoint in JSON within JSON has some hundred octets.
const MAX_LINE: u64 = 1 << 16;

/// What somebody kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// By the log and the size, each once.
    pub checkpoints: Vec<(Note, Checkpoint)>,
    /// Whether the file is one checkpoint and nothing else.
    pub is_note: bool,
    /// Lines with a checkpoint that is torn or changed.
    pub unreadable: u64,
}

/// A checkpoint in four words, as the archive tells it to the daemon. `None` when others have signed it, too.
pub fn words(note: &Note) -> Option<String> {
    let text = note.to_string();
    let lines: Vec<_> = text.lines().collect();
    let [origin, size, root, "", signature] = lines[..] else {
        return None;
    };
    let signature = signature.strip_prefix(&format!("\u{2014} {origin} "))?;
    let words = format!("{origin} {size} {root} {signature}");
    parse(&words).map(|_| words)
}

/// The reverse of [`words`], without a time.
pub fn parse(words: &str) -> Option<SignedCheckpoint> {
    let words: Vec<_> = words.split(' ').collect();
    let [origin, size, root, signature] = words[..] else {
        return None;
    };
    let (_, checkpoint) = restored(origin, size, root, signature)?;
    Some(SignedCheckpoint {
        time: Wall::default(),
        signature: base64::decode(signature)?.try_into().ok()?,
        root: checkpoint.root.0,
        size: checkpoint.size,
        origin: checkpoint.origin,
    })
    .filter(|found| SignedCheckpoint::is_origin(&found.origin))
}

/// Reads a checkpoint, or those among the lines of a copy.
///
/// # Errors
/// When the file cannot be read or has none.
pub fn read(path: &Path) -> Result<Kept, Error> {
    let at = |error| Error::Io(path.to_owned(), error);
    let mut file = File::open(path).map_err(at)?;
    let mut head = Vec::new();
    let most = MAX_NOTE as u64 + 1;
    file.by_ref()
        .take(most)
        .read_to_end(&mut head)
        .map_err(at)?;
    if let Some(found) = String::from_utf8(head.clone())
        .ok()
        .and_then(|note| read_note(&note))
    {
        return Ok(Kept {
            checkpoints: vec![found],
            is_note: true,
            unreadable: 0,
        });
    }
    // The path may be a pipe, which can be read once only.
    let mut lines = BufReader::new(head.chain(file));
    let mut found = BTreeMap::new();
    let mut kept = Kept::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut piece = lines.by_ref().take(MAX_LINE);
        if piece.read_until(b'\n', &mut line).map_err(at)? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&line);
        if !line.contains("checkpoint") || field(&line, "event") != Some("checkpoint") {
            continue;
        }
        match in_line(&line) {
            Some((note, checkpoint)) => {
                let key = (checkpoint.origin.clone(), checkpoint.size, note.to_string());
                found.insert(key, (note, checkpoint));
            }
            None => kept.unreadable += 1,
        }
    }
    kept.checkpoints = found.into_values().collect();
    if kept.checkpoints.is_empty() {
        let reason = "it has no checkpoint: expected a copy of the log's file \"checkpoint\", or of nattrail's records with lines \
                      of the event checkpoint";
        return Err(Error::damaged(path, reason.to_owned()));
    }
    Ok(kept)
}

fn in_line(line: &str) -> Option<(Note, Checkpoint)> {
    let [origin, size, root, signature] =
        ["origin", "size", "root", "signature"].map(|name| field(line, name));
    restored(origin?, size?, root?, signature?)
}

/// The value of a field, in pairs or in JSON, which may itself be text in JSON.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut found = line.match_indices(name);
    found.find_map(|(at, _)| {
        let is_whole = !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let rest = &line[at + name.len()..];
        let value = rest.trim_start_matches(['\\', '"', ':', '=', ' ']);
        let between = &rest[..rest.len() - value.len()];
        let end = value.find(|c: char| c.is_whitespace() || "\"\\,{}".contains(c));
        let is_value = is_whole && between.contains([':', '=']);
        is_value.then(|| &value[..end.unwrap_or(value.len())])
    })
}

fn restored(origin: &str, size: &str, root: &str, signature: &str) -> Option<(Note, Checkpoint)> {
    read_note(&format!(
        "{origin}\n{size}\n{root}\n\n\u{2014} {origin} {signature}\n"
    ))
}

fn read_note(note: &str) -> Option<(Note, Checkpoint)> {
    let note: Note = note.parse().ok()?;
    let checkpoint = note.text().parse().ok()?;
    Some((note, checkpoint))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::net::Ipv4Addr;
    use std::ops::ControlFlow;

    use super::super::merkle::Hash;
    use super::super::note::PrivateKey;
    use super::*;
    use crate::session::Record;
    use crate::time::{Now, Uptime};
    use crate::wire::syslog::{Encoder, Facility, Format, Host, Severity, Style, Target};

    const FORMATS: [Format; 4] = [Format::Csv, Format::Text, Format::Json, Format::Rfc5424];

    fn note(origin: &str, size: u64) -> Note {
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            size,
            root: Hash::of(&size.to_be_bytes()),
            next: None,
        };
        let key = PrivateKey::new(origin, &[7; 32]).unwrap();
        Note::sign(checkpoint.to_string(), &key)
    }

    fn targets() -> [Target; 5] {
        [
            Target::Local {
                path: "/dev/log".into(),
            },
            Target::Udp {
                address: "192.0.2.1:514".parse().unwrap(),
            },
            Target::File { path: "/f".into() },
            Target::Stdout,
            Target::Journal { path: "/j".into() },
        ]
    }

    /// The message of a copy.
    fn message(note: &Note, target: &Target, format: Format) -> String {
        let mut checkpoint = parse(&words(note).unwrap()).unwrap();
        checkpoint.time = Wall::from_secs(1_795_000_000);
        let style = Style {
            target,
            format,
            events: true,
            flow: false,
            facility: Facility(176),
            severity: Severity::Informational,
            app_name: "nattrail",
            exporter_address: Ipv4Addr::LOCALHOST,
        };
        let host = Host {
            hostname: "gw".to_owned(),
            pid: 7,
        };
        let now = Now::new(checkpoint.time, Uptime::default());
        let mut text = String::new();
        let record = Record::Checkpoint(Box::new(checkpoint));
        let _ = Encoder::new(&style, &host).encode(&record, now, &mut |message| {
            assert!(message.is_last && text.is_empty());
            text = String::from_utf8(message.bytes.to_vec()).unwrap();
            ControlFlow::Continue(())
        });
        text
    }

    fn read_text(text: &str) -> Result<Kept, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    fn notes(kept: &Kept) -> Vec<String> {
        let notes = kept.checkpoints.iter();
        notes.map(|(note, _)| note.to_string()).collect()
    }

    #[test]
    fn every_format_of_every_target_gives_the_note_back_octet_for_octet() {
        for origin in ["nattrail/gw-1", "nattrail/a%20_b.example"] {
            let note = note(origin, 20_852_163);
            for (target, format) in targets()
                .iter()
                .flat_map(|target| FORMATS.map(|format| (target, format)))
            {
                let text = message(&note, target, format);
                // A journal prints the message, or JSON with it as text.
                let lines = text.lines().flat_map(|line| {
                    let line = line.strip_prefix("MESSAGE=").unwrap_or(line);
                    let json = serde_json::json!({"MESSAGE": line, "_PID": "7"}).to_string();
                    [line.to_owned(), json]
                });
                let found: Vec<_> = lines.filter_map(|line| in_line(&line)).collect();
                assert_eq!(found.len(), 2, "{target:?} {format:?}: {text}");
                assert!(found.iter().all(|(found, _)| *found == note), "{text}");
            }
        }
    }

    #[test]
    fn checkpoints_are_found_among_other_lines_each_once() {
        let file = Target::File { path: "/f".into() };
        let mut text = String::new();
        for size in [300, 5, 40, 300] {
            for line in 0..500 {
                text += &format!("time=1 event=create pre_src=10.0.0.1 checkpoint id={line}\n");
            }
            text += &format!(
                "Nov 20 gw {}",
                message(&note("nattrail/gw1", size), &file, Format::Text)
            );
            text += &message(&note("nattrail/gw1", size), &file, Format::Json);
        }
        text += "\u{fffd}event=checkpoint origin=nattrail/gw1 size=4\n";
        let kept = read_text(&text).unwrap();
        assert_eq!(
            notes(&kept),
            [5, 40, 300].map(|size| note("nattrail/gw1", size).to_string())
        );
        assert_eq!((kept.is_note, kept.unreadable), (false, 1));
    }

    #[test]
    fn a_file_that_is_a_checkpoint_is_one() {
        let note = note("nattrail/gw1", 9).to_string();
        let kept = read_text(&note).unwrap();
        assert_eq!((notes(&kept), kept.is_note), (vec![note], true));
    }

    #[test]
    fn a_file_without_a_checkpoint_is_refused() {
        for text in ["", "event=create\n", "event=checkpoint size=1\n"] {
            assert!(read_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_that_are_not_a_checkpoint_are_refused() {
        let words = words(&note("nattrail/gw1", 9)).unwrap();
        assert!(parse(&words).is_some());
        for (from, to) in [
            (" 9 ", " 09 "),
            (" 9 ", "  9 "),
            ("nattrail/gw1", ""),
            ("nattrail/gw1", "nattrail/\u{7}"),
            ("nattrail/gw1", "nattrail/\"x"),
            ("nattrail/gw1", "nattrail/ü"),
            ("nattrail/gw1", "a\nb"),
            ("=", ""),
            (" 9 ", " -9 "),
        ] {
            let changed = words.replacen(from, to, 1);
            assert_ne!(changed, words);
            assert_eq!(parse(&changed), None, "{changed}");
        }
        assert_eq!(parse(&format!("{words} ")), None);
        let long = note(&"x".repeat(256), 9);
        assert_eq!(super::words(&long), None);
    }
}
