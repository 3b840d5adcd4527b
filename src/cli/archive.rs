//! `nattrail archive`: the process that keeps finished connections for years, and its operator's commands.
//!
//! It needs no signal handler: whatever ends it, the next run goes on.

mod orders;
mod timestamp;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::ValueHint;

use super::{Exit, Failure, Origin, cannot, control};
use crate::archive::evidence;
use crate::archive::follow::{Error, Follow, Retention};
use crate::archive::proof::{tiles::Reader, witness};
use crate::archive::spool;
use crate::archive::tree::{Purge, Seal};
use crate::config::Loaded;
use crate::daemon;
use crate::kernel::{clock, host_name};
use crate::time::Uptime;

/// Between looks at a log that has nothing new.
const PAUSE: Duration = Duration::from_secs(1);
/// A failure is logged when it has lasted for so long.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Follow the daemon's record log and keep finished connections, until a signal ends it
    Run,
    /// Print the first public key of each gateway's evidence log, to publish it: with it, others can check proofs
    Key {
        /// The archive, or a copy of one [default: archive.directory]
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
    /// Keep the sessions that a pending order needs, whatever archive.keep says, until they are released
    Hold(orders::Hold),
    /// List the holds that last
    Holds,
    /// End the holds of a case
    Release(orders::Release),
    /// Delete the sessions whose time is over now, rather than in the archive's daily run
    Purge(orders::Purge),
    /// Have an authority sign the time of the newest checkpoint, by the program of archive.timestamp
    Timestamp(timestamp::Options),
    /// Tell the daemon that there is no archive any more: its log keeps no records for one
    Forget,
}

pub(super) fn run(origin: &Origin, action: &Action, out: &mut impl Write) -> Result<Exit, Failure> {
    let now = clock::read().wall;
    match action {
        Action::Run => run_archiver(origin),
        Action::Key { directory } => {
            let root = super::verify::directory(origin, directory.as_deref())?;
            print_keys(&root, out)
        }
        Action::Hold(options) => orders::hold(origin, options, now, out),
        Action::Holds => orders::holds(origin, out),
        Action::Release(options) => orders::release(origin, options, now, out),
        Action::Purge(options) => orders::purge(origin, options, now, out),
        Action::Timestamp(options) => timestamp::run(&origin.load()?.config.archive, options, out),
        Action::Forget => {
            let config = origin.load()?.config;
            tell(control::socket(&config)?, "archived never")?;
            writeln!(out, "the daemon keeps no records for the archive any more")?;
            Ok(Exit::Success)
        }
    }
}

fn run_archiver(origin: &Origin) -> Result<Exit, Failure> {
    let config = origin.load()?.config;
    let socket = control::socket(&config)?;
    daemon::log::install();
    let gateway = config.archive.gateway.clone().unwrap_or_else(host_name);
    let root = config.archive.directory.clone();
    log::info!("archive \"{}\" of the gateway {gateway}", root.display());
    let retention = Retention::new(config.archive.keep, config.archive.keep_lookups);
    let archive = Follow::new(config.pending.database.clone(), root, gateway, retention);
    follow(archive, origin, socket)
}

fn print_keys(root: &Path, out: &mut impl Write) -> Result<Exit, Failure> {
    let refuse = |error: &dyn fmt::Display| Failure::new(Exit::Unavailable, error);
    let logs = evidence::logs(root).map_err(|error| cannot(root, "be read", &error))?;
    if logs.is_empty() {
        let root = root.display();
        return Err(refuse(&format!(
            "archive \"{root}\": expected an evidence log in \"log\", found none; it begins when \"nattrail archive run\" starts"
        )));
    }
    for (_, log) in logs {
        let key = Reader::open(&log).and_then(|log| log.first_key());
        writeln!(out, "{}", key.map_err(|error| refuse(&error))?)?;
    }
    Ok(Exit::Success)
}

/// Goes on for ever, unless another process writes to the archive or its spool is damaged. Failures are logged when they
/// begin and when they are over.
fn follow(mut archive: Follow, origin: &Origin, socket: &Path) -> Result<Exit, Failure> {
    let mut trouble = [const { Trouble::new() }; 5];
    let own = rustix::process::geteuid().as_raw();
    let mut told = None;
    // The words of a checkpoint that the daemon has not heard yet. One that it never hears is covered by the next.
    let mut news = None;
    loop {
        // It is read before the daemon can hear of a change: what a wider selection adds to the log is never left out.
        if let Ok(Loaded { config, .. }) = origin.load() {
            archive.select(config.narrower(config.capture.selection()));
        }
        let step = archive.step(clock::read().wall);
        if let Err(Error::Spool(error @ (spool::Error::Locked(_) | spool::Error::Damaged(..)))) =
            &step
        {
            return Err(Failure::new(Exit::Unavailable, error));
        }
        let has_more = step.as_ref().is_ok_and(|step| step.has_more);
        if let Ok(step) = &step {
            // Also without anything new: the daemon knows by this that somebody is there.
            if !has_more || told != Some(step.taken) {
                let heard = tell(socket, &format!("archived {}", step.taken.0));
                trouble[1].note(
                    heard.map_err(|failure| failure.message),
                    "the daemon hears how far the archive is",
                );
                told = Some(step.taken);
            }
        }
        trouble[0].note(
            step.map_err(|error| error.to_string()),
            "records are archived again; none is lost",
        );
        if !has_more {
            let acted = archive.act(own, clock::read().wall);
            acted.iter().flatten().for_each(log_purge);
            trouble[3].note(
                acted.map_err(|error| format!("the inbox: {error}")),
                "the inbox is read again",
            );
            match archive.expire(clock::read().wall) {
                Err(error) => log::warn!("retention: {error}; trying again in an hour"),
                Ok(seals) => seals.iter().for_each(log_purge),
            }
            let signed = archive.sign(clock::read().wall);
            if let Ok(Some(note)) = &signed {
                news = witness::words(note);
            }
            if let Some(words) = &news {
                let heard = tell(socket, &format!("checkpoint {words}"));
                let heard = heard.map_err(|failure| failure.message);
                let is_heard = heard.is_ok();
                trouble[4].note(heard, "the daemon hears of the archive's checkpoints");
                news.take_if(|_| is_heard);
            }
            trouble[2].note(
                signed.map_err(|error| format!("the proof of the archive: {error}")),
                "the proof of the archive goes on",
            );
            thread::sleep(PAUSE);
        }
    }
}

fn log_purge(seal: &Seal) {
    if let Some(Purge { order, rows, .. }) = &seal.purge {
        let (rule, before) = (&order.rule, order.before.wall());
        log::info!("retention \"{rule}\": deleted {rows} sessions that ended before {before}");
    }
}

/// A failure that goes on. That a daemon restarts is none.
struct Trouble {
    since: Option<Uptime>,
    told: Option<String>,
}

impl Trouble {
    const fn new() -> Self {
        Self {
            since: None,
            told: None,
        }
    }

    fn note<T>(&mut self, result: Result<T, String>, relief: &str) {
        let now = clock::uptime();
        match result {
            Err(error) => {
                let since = *self.since.get_or_insert(now);
                if now.saturating_since(since) >= PATIENCE && self.told.as_ref() != Some(&error) {
                    log::warn!("{error}; trying again");
                    self.told = Some(error);
                }
            }
            Ok(_) => {
                self.since = None;
                if self.told.take().is_some() {
                    log::info!("{relief}");
                }
            }
        }
    }
}

/// Tells the daemon something about the archive.
fn tell(socket: &Path, line: &str) -> Result<(), Failure> {
    let answer = control::request(socket, &format!("{line}\n"));
    let answer = answer.map_err(|error| control::explain(socket, error))?;
    let understood = control::value(&answer).map(drop);
    understood.map_err(|message| control::refused(socket, message))
}
