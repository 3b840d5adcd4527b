//! `nattrail archive hold`, `holds`, `release` and `purge`: what the archive keeps, and for how long.
//!
//! The archiver carries an order out, and it alone writes to the archive. The command leaves the order in its inbox and waits
//! until it is taken.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::super::control::printable;
use super::super::who::Selection;
use super::super::who::access::{is_missing, notice, refused};
use super::super::who::machine;
use super::super::{Exit, Failure, Origin, cannot};
use crate::archive::acts::{self, Act};
use crate::archive::tree::Tree;
use crate::config::values;
use crate::kernel::{clock, host_name};
use crate::time::Wall;

/// The archiver looks every second, unless it is sealing.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("subject").required(true).args(["address", "subscriber", "server"])))]
pub(in crate::cli) struct Hold {
    #[command(flatten)]
    selection: Box<Selection>,
    /// The case for which the sessions are kept
    #[arg(long, value_name = "REFERENCE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    case: String,
    /// The reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Release {
    /// The case whose holds end
    #[arg(long, value_name = "REFERENCE")]
    case: String,
    /// The reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Purge {
    /// Delete sessions that ended so long ago, this once [default: archive.keep]
    #[arg(long, value_name = "DURATION", value_parser = parse_keep)]
    keep: Option<Duration>,
    /// The reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The case
    #[arg(long, value_name = "REFERENCE")]
    case: Option<String>,
}

pub(super) fn hold(
    origin: &Origin,
    options: &Hold,
    now: Wall,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let (question, _) = options.selection.question()?;
    let act = Act::Hold {
        question: machine::question(&question),
        selections: question.selections(),
    };
    let root = origin.load()?.config.archive.directory;
    leave(&root, act, (Some(&options.case), &options.reason), now)?;
    writeln!(
        out,
        "sessions of the case {} are kept until \"nattrail archive release\"",
        printable(&options.case)
    )?;
    Ok(Exit::Success)
}

pub(super) fn release(
    origin: &Origin,
    options: &Release,
    now: Wall,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let archive = origin.load()?.config.archive;
    let root = archive.directory;
    let gateway = archive.gateway.unwrap_or_else(host_name);
    let case = &options.case;
    let holds = acts::holds(&root).map_err(|error| cannot(&root, "be read", &error))?;
    let own = holds
        .iter()
        .filter(|hold| hold.gateway == gateway && hold.notice.case.as_ref() == Some(case));
    let number = own.count();
    if number == 0 {
        let message = format!(
            "expected a case with a hold of the gateway {gateway}, found \"{}\", which has none; see \"nattrail archive \
             holds\"",
            printable(case)
        );
        return Err(Failure::new(Exit::Data, message));
    }
    leave(&root, Act::Release, (Some(case), &options.reason), now)?;
    writeln!(
        out,
        "the case {} holds no sessions any more (holds that ended: {number})",
        printable(case)
    )?;
    Ok(Exit::Success)
}

pub(super) fn purge(
    origin: &Origin,
    options: &Purge,
    now: Wall,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let archive = origin.load()?.config.archive;
    let days = |keep: Duration| format!("{}d", keep.as_secs() / 86_400);
    let Some(keep) = options.keep.or(archive.keep).map(days) else {
        let message = "expected --keep, or archive.keep in the configuration, found neither: everything is kept";
        return Err(Failure::new(Exit::Usage, message));
    };
    let root = archive.directory;
    let tree = Tree::new(&root);
    let unreadable = |error| cannot(&root, "be read", &error);
    let gateway = archive.gateway.unwrap_or_else(host_name);
    let last = tree.last_number(&gateway).map_err(unreadable)?;
    let act = Act::Purge { keep };
    leave(&root, act, (options.case.as_ref(), &options.reason), now)?;
    let seals = tree.seals_after(&gateway, last).map_err(unreadable)?;
    let purges: Vec<_> = seals.into_iter().filter_map(|seal| seal.purge).collect();
    match purges.last() {
        None => writeln!(
            out,
            "nothing was deleted: no session is so old, or the log of nattrail-archive.service says why not"
        )?,
        Some(purge) => {
            let rows: u64 = purges.iter().map(|purge| purge.rows).sum();
            let (rule, before) = (&purge.order.rule, purge.order.before.wall());
            writeln!(
                out,
                "deleted {rows} sessions that ended before {before}, by the rule \"{rule}\""
            )?;
        }
    }
    Ok(Exit::Success)
}

/// Prints the holds that last.
pub(super) fn holds(origin: &Origin, out: &mut impl Write) -> Result<Exit, Failure> {
    let root = origin.load()?.config.archive.directory;
    let holds = acts::holds(&root).map_err(|error| cannot(&root, "be read", &error))?;
    for hold in &holds {
        let notice = &hold.notice;
        let Act::Hold { question, .. } = &notice.act else {
            continue;
        };
        let case = notice.case.as_deref().unwrap_or("-");
        let uid = hold.uid.map_or("-".to_owned(), |uid| uid.to_string());
        writeln!(
            out,
            "{}\t{}\tuid {uid}\t{}\t{question}",
            printable(case),
            notice.time.wall(),
            printable(&hold.gateway),
        )?;
    }
    if holds.is_empty() {
        writeln!(out, "no session is held")?;
    }
    Ok(Exit::Success)
}

/// Leaves an order, and waits until the archiver has carried it out.
fn leave(
    root: &Path,
    act: Act,
    (case, reason): (Option<&String>, &Option<String>),
    now: Wall,
) -> Result<(), Failure> {
    let name = act.name();
    let own = fs::metadata(root).map_err(|error| cannot(root, "be read", &error))?;
    let (uid, own) = (rustix::process::geteuid().as_raw(), own.uid());
    if !act.is_granted(uid, own) {
        let message = format!(
            "archive \"{}\": expected root for a {name}, or the user {own}, to whom it belongs, found the user {uid}; \
             members of its group ask and hold",
            root.display()
        );
        return Err(Failure::new(Exit::NoPermission, message));
    }
    let notice = notice(act, &case.cloned(), reason, now)?;
    let path = acts::leave(root, &notice);
    let path = path.map_err(|error| match is_missing(&error) {
        true => Failure::new(
            Exit::Unavailable,
            format!(
                "archive \"{}\": expected the directory \"inbox\", found none: \"nattrail archive run\" makes it",
                root.display()
            ),
        ),
        false => refused(root, &error),
    })?;
    let since = clock::uptime();
    while path.exists() {
        if clock::uptime().saturating_since(since) >= PATIENCE {
            let message = format!(
                "the order waits in \"{}\": nattrail-archive.service takes it when it runs, and its log says what prevents it",
                path.display()
            );
            return Err(Failure::new(Exit::Unavailable, message));
        }
        thread::sleep(PAUSE);
    }
    let orders = acts::orders(root).map_err(|error| cannot(root, "be read", &error))?;
    if !orders.iter().any(|it| it.notice.nonce == notice.nonce) {
        let message = format!(
            "archive \"{}\": expected a record of the {name}, found none: the archiver refused it, and the log of \
             nattrail-archive.service says why",
            root.display()
        );
        return Err(Failure::new(Exit::Unavailable, message));
    }
    Ok(())
}

fn parse_keep(text: &str) -> Result<Duration, String> {
    values::days(text).map_err(|_| "expected a number of days such as 365d".to_owned())
}
