//! `nattrail verify`: checks an archive against its evidence logs, or a proof of one session, offline.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::{Value, json};

use super::progress::Progress;
use super::{Exit, Failure, Origin, cannot, configuration, control, tell};
use crate::archive::audit::{self, Audit, Finding, Known, LogState};
use crate::archive::evidence::{self, Entry};
use crate::archive::proof;
use crate::archive::proof::bundle::{Bundle, Shown};
use crate::archive::proof::note::{Checkpoint, Note, PublicKey};
use crate::archive::proof::witness::{self, Kept};
use crate::archive::row::Row;
use crate::archive::tree::Order;
use crate::session::Provenance;
use crate::time::Wall;

/// Paragraphs are wrapped by clap.
pub const AFTER_HELP: &str = "\
An archive is sound when its log is whole and signed, every sealed file and seal record is the one that the log names, no \
other file was added, and the counters of the seals add up. Without a key, the first key is taken from the log itself: then \
nothing shows that somebody has not written all of it anew.

Exit status:
  0   sound
  4   not sound: each finding names a file and the reason
  64  the command line is wrong
  65  a key or a checkpoint cannot be understood
  69  there is no archive
  71  a file cannot be read
  77  a permission is missing
  78  the configuration is wrong

Examples:
  nattrail verify
  nattrail verify /srv/nat --key-file keys.txt --witness /var/log/gateway.log
  nattrail verify --bundle session.proof --key nattrail/gw1+…";

#[derive(Args, Debug)]
pub struct Options {
    /// The archive, or a copy of one [default: archive.directory]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "bundle")]
    directory: Option<PathBuf>,
    /// The first public key, as "nattrail archive key" printed it when the log began; may be given several times
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Vec<PublicKey>,
    /// A file of such keys, one a line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key_file: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere: a copy of the log's file "checkpoint", or a file with copies of records, of which
    /// all checkpoints count; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "bundle")]
    witness: Vec<PathBuf>,
    /// Check this proof of one session, as "nattrail who --proof" writes it, and print the session
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    bundle: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The directory that was given, or that of the configuration.
pub(super) fn directory(origin: &Origin, given: Option<&Path>) -> Result<PathBuf, Failure> {
    let root = match given {
        Some(given) => given.to_owned(),
        None => configuration(origin)?.archive.directory,
    };
    match fs::read_dir(&root) {
        Ok(_) => Ok(root),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!(
                "archive \"{}\": expected a directory, found none",
                root.display()
            );
            Err(Failure::new(Exit::Unavailable, message))
        }
        Err(error) => Err(cannot(&root, "be read", &error)),
    }
}

pub(super) fn run(
    origin: &Origin,
    options: &Options,
    now: Wall,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let keys = keys(options)?;
    if let Some(path) = &options.bundle {
        return bundle(path, &keys, options.json, out);
    }
    let root = directory(origin, options.directory.as_deref())?;
    let mut witnesses = Vec::new();
    for path in &options.witness {
        witnesses.append(&mut kept(&root, path)?);
    }
    let known = Known { keys, witnesses };
    let mut progress = Progress::new(1_000_000, "MB");
    let audit = audit::audit(&root, &known, now, &mut |done, all| {
        progress.show(done, all)
    });
    progress.clear();
    let audit = audit.map_err(|error| Failure::new(Exit::Os, error))?;
    let is_sound = audit.findings.is_empty() && !audit.logs.is_empty();
    if options.json {
        let mut object = json(&audit, is_sound);
        object["witnesses"] = known.witnesses.len().into();
        writeln!(out, "{object}")?;
    } else {
        print(&root, &audit, known.witnesses.len(), is_sound, out)?;
    }
    Ok(if is_sound {
        Exit::Success
    } else {
        Exit::Unsound
    })
}

/// The checkpoints in a file. One with copies of records may have those of other gateways, too.
fn kept(root: &Path, path: &Path) -> Result<Vec<(Note, Checkpoint)>, Failure> {
    let explain = |error| match error {
        proof::Error::Io(path, error) => cannot(&path, "be read", &error),
        error => Failure::new(Exit::Data, error),
    };
    let Kept {
        mut checkpoints,
        is_note,
        unreadable,
    } = witness::read(path).map_err(explain)?;
    let path = path.display();
    if unreadable > 0 {
        let message = format!("\"{path}\": checkpoints that are torn or changed: {unreadable}");
        tell("warning", &message);
    }
    if !is_note {
        let logs = evidence::logs(root).map_err(|error| cannot(root, "be read", &error))?;
        let own: Vec<_> = logs
            .iter()
            .map(|(name, _)| evidence::origin(name))
            .collect();
        let is_other = |(_, seen): &mut (Note, Checkpoint)| !own.contains(&seen.origin);
        let others = checkpoints.extract_if(.., is_other);
        let others: BTreeSet<_> = others.map(|(_, seen)| seen.origin).collect();
        for origin in others {
            let message = format!(
                "\"{path}\": it has checkpoints of \"{origin}\", a log that is not in this archive"
            );
            tell("warning", &message);
        }
    }
    Ok(checkpoints)
}

fn keys(options: &Options) -> Result<Vec<PublicKey>, Failure> {
    let mut keys = options.key.clone();
    if let Some(path) = &options.key_file {
        let text = fs::read_to_string(path).map_err(|error| cannot(path, "be read", &error))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        for line in lines {
            let key = line.parse().map_err(|error| {
                Failure::new(Exit::Data, format!("\"{}\": {error}", path.display()))
            })?;
            keys.push(key);
        }
    }
    Ok(keys)
}

fn print(
    root: &Path,
    audit: &Audit,
    witnesses: usize,
    is_sound: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    for LogState {
        gateway,
        entries,
        seals,
        lost,
        acts,
        deleted,
        purge,
        until,
        first_key,
        is_given,
        newest_key,
        stamps,
        newest_stamp,
    } in &audit.logs
    {
        write!(out, "gateway {gateway}: {entries} entries, {seals} seals")?;
        if *seals > 0 {
            write!(out, " until {}", until.wall())?;
        }
        if *acts > 0 {
            write!(out, ", {acts} lookups and other acts")?;
        }
        if let Some(made) = newest_key {
            write!(out, ", newest key of {made}")?;
        }
        if *lost > 0 {
            write!(
                out,
                "; {lost} records were lost before they came to the archive"
            )?;
        }
        writeln!(out)?;
        if let Some(Order { rule, before, .. }) = purge {
            writeln!(
                out,
                "  {deleted} sessions were deleted; the purge that went furthest was of those that ended before {}, under the rule \"{}\"",
                before.wall(),
                control::printable(rule)
            )?;
        }
        if let Some((size, time)) = newest_stamp {
            writeln!(
                out,
                "  {stamps} time stamps, the newest over {size} entries of {time}; openssl checks their signatures, see nattrail-proof(7)"
            )?;
        }
        if let Some(key) = first_key.as_ref().filter(|_| !is_given) {
            writeln!(
                out,
                "  no key was given: this trusts the first key of the log itself, {key}"
            )?;
        }
    }
    writeln!(
        out,
        "{} files with {} sessions are as they were sealed",
        audit.files, audit.rows
    )?;
    if witnesses > 0 && is_sound {
        writeln!(
            out,
            "{witnesses} checkpoints that were kept elsewhere agree"
        )?;
    }
    if audit.unsigned > 0 {
        writeln!(
            out,
            "{} files are sealed, and not signed yet",
            audit.unsigned
        )?;
    }
    if audit.replaced > 0 {
        writeln!(
            out,
            "{} files were replaced by others with the same sessions, and are still there: other programs find these twice",
            audit.replaced
        )?;
    }
    if audit.purged > 0 {
        writeln!(
            out,
            "{} files are still in this copy, and the archive has deleted sessions of them: delete these files here too",
            audit.purged
        )?;
    }
    for Finding { file, reason } in &audit.findings {
        let line = format!("{}: {reason}", file.display());
        writeln!(out, "WRONG {}", control::printable(&line))?;
    }
    let root = root.display();
    match audit.findings.len() {
        _ if is_sound => writeln!(out, "archive \"{root}\" is sound"),
        0 => writeln!(
            out,
            "archive \"{root}\" has no evidence log: nothing shows that it is sound"
        ),
        number => writeln!(out, "archive \"{root}\" is NOT SOUND: {number} findings"),
    }
}

fn json(audit: &Audit, is_sound: bool) -> Value {
    let log = |log: &LogState| {
        json!({
            "gateway": log.gateway,
            "entries": log.entries,
            "seals": log.seals,
            "until": log.until,
            "lost": log.lost,
            "acts": log.acts,
            "deleted": log.deleted,
            "purge": log.purge,
            "first_key": log.first_key.as_ref().map(ToString::to_string),
            "key_given": log.is_given,
            "newest_key": log.newest_key,
            "timestamps": log.stamps,
            "newest_timestamp": log.newest_stamp.map(|(size, time)| json!({"size": size, "time": time})),
        })
    };
    let finding = |it: &Finding| json!({"file": it.file.to_string_lossy(), "reason": it.reason});
    json!({
        "sound": is_sound,
        "files": audit.files,
        "octets": audit.octets,
        "sessions": audit.rows,
        "unsigned": audit.unsigned,
        "replaced": audit.replaced,
        "purged": audit.purged,
        "logs": audit.logs.iter().map(log).collect::<Vec<_>>(),
        "findings": audit.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// Checks a proof of one session.
fn bundle(
    path: &Path,
    keys: &[PublicKey],
    is_json: bool,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let text = fs::read(path).map_err(|error| cannot(path, "be read", &error))?;
    let read = || {
        let text = String::from_utf8(text).ok()?;
        text.parse::<Bundle>().ok()
    };
    let Some(bundle) = read() else {
        return refuse(path, "not a proof as nattrail writes it", is_json, out);
    };
    let Some(own) = bundle.first_key() else {
        return refuse(path, "it names no first key", is_json, out);
    };
    let given = keys
        .iter()
        .find(|key| key.name() == own.name())
        .or(keys.first());
    if given.is_none() {
        let message =
            format!("no key was given: this trusts the first key of the proof itself, {own}");
        tell("warning", &message);
    }
    match bundle.check(given.unwrap_or(&own)) {
        Err(flaw) => refuse(path, &flaw.to_string(), is_json, out),
        Ok(shown) => {
            let facts = facts(&shown);
            if is_json {
                let facts = facts
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into()));
                let mut object = Value::Object(facts.collect());
                object["sound"] = true.into();
                writeln!(out, "{object}")?;
            } else {
                for (name, value) in facts {
                    writeln!(out, "{name:<28}{}", control::printable(&value))?;
                }
            }
            Ok(Exit::Success)
        }
    }
}

fn refuse(path: &Path, reason: &str, is_json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let file = path.display();
    if is_json {
        let object =
            json!({"sound": false, "findings": [{"file": file.to_string(), "reason": reason}]});
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "WRONG {file}: {reason}")?;
    }
    Ok(Exit::Unsound)
}

/// What a proof shows, for people.
fn facts(shown: &Shown) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("log", shown.origin.clone()),
        ("entry", shown.index.to_string()),
        ("key made", shown.since.to_string()),
    ];
    if let Entry::Seal(seal) = Entry::read(&shown.entry) {
        facts.push(("gateway", seal.gateway));
        facts.push(("seal", seal.number.to_string()));
        facts.push(("sealed until", seal.until.wall().to_string()));
    }
    if let Some(row) = &shown.row {
        facts.extend(row_facts(row));
    }
    facts
}

fn row_facts(row: &Row) -> Vec<(&'static str, String)> {
    let end = |address, port| std::net::SocketAddr::new(address, port).to_string();
    let start = row.start.map(|start| start.wall().to_string());
    let mut facts = vec![
        ("protocol", row.protocol.to_string()),
        ("start", start.unwrap_or_else(|| "unknown".to_owned())),
        ("end", row.end.wall().to_string()),
        (
            "end was",
            match row.provenance {
                Provenance::Inferred => "inferred",
                _ => "observed",
            }
            .to_owned(),
        ),
        (
            "source before translation",
            end(row.pre.src, row.pre.src_port),
        ),
        (
            "source after translation",
            end(row.post.src, row.post.src_port),
        ),
        ("destination before it", end(row.pre.dst, row.pre.dst_port)),
        ("destination after it", end(row.post.dst, row.post.dst_port)),
    ];
    if let Some(totals) = row.totals {
        for (name, counters) in [("sent", totals.original), ("received", totals.reply)] {
            facts.push((
                name,
                format!("{} packets, {} octets", counters.packets, counters.octets),
            ));
        }
    }
    if row.mark != 0 {
        facts.push(("mark", row.mark.to_string()));
    }
    if row.zone != 0 {
        facts.push(("zone", row.zone.to_string()));
    }
    facts
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    text.parse().map_err(|error: &str| error.to_owned())
}
