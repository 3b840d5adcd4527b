//! `nattrail monitor up | down`: sets up the ports to which switches mirror traffic, and takes them down.
//!
//! The daemon lacks the rights for it. Every failure names the monitor, and leaves nothing half set up.

use std::io::Write;

use rustix::thread::{CapabilitySet, capabilities};

use super::{Exit, Failure, Origin};
use crate::config::{Method, Monitor};
use crate::monitor::{self, Refusal};

pub(super) const AFTER_HELP: &str = "\
nattrail-monitor(7) goes from the cable to the first flow; nattrail check says whether frames arrive and are tracked.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Make connection tracking see the frames that arrive at monitor ports
    Up(Options),
    /// Take monitor ports down, so that everything is as before
    Down(Options),
}

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Monitors by name or interface; without any, all of the configuration
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print the commands instead of running them
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(origin: &Origin, action: &Action, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut monitors = origin.load()?.config.monitors;
    let (options, is_up) = match action {
        Action::Up(options) => (options, true),
        Action::Down(options) => (options, false),
    };
    if !is_up {
        let unknown = |name: &&String| !monitors.iter().any(|monitor| is_named(monitor, name));
        let left = options
            .names
            .iter()
            .filter(unknown)
            .filter_map(|name| left_up(name));
        monitors.extend(left.collect::<Vec<_>>());
    }
    let mut chosen = chosen(&monitors, &options.names)?;
    if !is_up {
        chosen.reverse();
    }
    if options.dry_run {
        for monitor in chosen {
            let acts = match is_up {
                true => monitor::rehearse(monitor),
                false => monitor::rehearse_down(monitor),
            };
            for act in named(monitor, acts)? {
                writeln!(out, "{act}")?;
            }
        }
        return Ok(Exit::Success);
    }
    require_rights()?;
    for monitor in chosen {
        let outcome = match is_up {
            true => named(monitor, monitor::up(monitor)).map(|()| match monitor.method {
                Method::External => "nothing to set up, as its method is \"external\"",
                _ => "up",
            }),
            false => named(monitor, monitor::down(monitor)).map(|was_up| match was_up {
                true => "down",
                false => "nothing to take down",
            }),
        };
        writeln!(out, "{}: {}", monitor.title(), outcome?)?;
    }
    Ok(Exit::Success)
}

/// Those with the names, in the order of the configuration.
fn chosen<'a>(monitors: &'a [Monitor], names: &[String]) -> Result<Vec<&'a Monitor>, Failure> {
    for name in names {
        if !monitors.iter().any(|monitor| is_named(monitor, name)) {
            let known: Vec<_> = monitors.iter().map(|it| it.interface.as_str()).collect();
            let found = match known.as_slice() {
                [] => "none at all: add a [[monitor]] section".to_owned(),
                known => known.join(", "),
            };
            let message =
                format!("expected a monitor \"{name}\" in the configuration, found {found}");
            return Err(Failure::new(Exit::Config, message));
        }
    }
    if names.is_empty() && monitors.is_empty() {
        let message = "expected a [[monitor]] section in the configuration, found none: nattrail-monitor(7) has examples";
        return Err(Failure::new(Exit::Config, message));
    }
    let is_chosen =
        |monitor: &&Monitor| names.is_empty() || names.iter().any(|name| is_named(monitor, name));
    Ok(monitors.iter().filter(is_chosen).collect())
}

fn is_named(monitor: &Monitor, name: &String) -> bool {
    monitor.name.as_ref() == Some(name) || monitor.interface == *name
}

/// A port that is up, and whose section is no longer in the configuration: the way down is known without it.
fn left_up(interface: &str) -> Option<Monitor> {
    let monitor = Monitor {
        name: None,
        interface: interface.to_owned(),
        namespace: None,
        method: Method::External,
        mark: None,
        zone: None,
    };
    let acts = monitor::rehearse_down(&monitor).ok()?;
    (!acts.is_empty()).then_some(monitor)
}

fn named<T>(monitor: &Monitor, outcome: Result<T, Refusal>) -> Result<T, Failure> {
    outcome.map_err(|refusal| {
        Failure::new(Exit::Unavailable, format!("{}: {refusal}", monitor.title()))
    })
}

fn require_rights() -> Result<(), Failure> {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    match effective.contains(needed) {
        true => Ok(()),
        false => Err(Failure::new(
            Exit::NoPermission,
            "expected CAP_NET_ADMIN and CAP_SYS_ADMIN, found one of them missing: run this as root",
        )),
    }
}
