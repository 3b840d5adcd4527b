//! Monitor ports: making connection tracking see the frames that a switch mirrors to an interface, and undoing all of it.
//!
//! A network card in promiscuous mode delivers frames for other stations as `PACKET_OTHERHOST`, which the IP stack drops
//! (`ip_rcv_core` in net/ipv4/ip_input.c), so conntrack never sees them. There are two ways round that, of [`plan`]:
//!
//! - `tc`: the action `ct` of a clsact qdisc hands each frame to conntrack itself (net/sched/act_ct.c), and the next one
//!   drops it. Nothing is routed.
//! - `nft`: a rule at netdev ingress makes the frames this host's, and they are routed into a sink, in a network namespace
//!   of their own: the firewall and NAT of the gateway must not act on them.
//!
//! The work is done by the system's own tools and by writing below `/proc/sys`, as a list of steps. The undoing of a step
//! is in a journal before the step is done ([`journal`]). So what has been set up is taken down completely when a later
//! step fails, by `nattrail monitor down`, and after a crash in the middle of either.
//!
//! The port never answers: its egress hook drops everything before the port is up.

mod act;
mod journal;
mod plan;
mod port;

use std::io;

pub(crate) use self::act::Act;
use self::journal::Journal;
use self::plan::Step;
pub(crate) use self::plan::{TRACKED, table};
use crate::config::{Method, Monitor, Namespace};

/// Why a monitor is not set up, or not taken down: a sentence for people.
pub(crate) type Refusal = String;

/// The acts that would set the monitor up now.
///
/// # Errors
/// See [`up`]: everything that can be examined beforehand.
pub(crate) fn rehearse(monitor: &Monitor) -> Result<Vec<Act>, Refusal> {
    if !rehearse_down(monitor)?.is_empty() {
        let message = "expected the port to be down, found it up: \"nattrail monitor down --dry-run\" prints how to take it down";
        return Err(message.to_owned());
    }
    Ok(planned(monitor)?.into_iter().map(|step| step.act).collect())
}

/// Sets the monitor up. An earlier set-up is taken down first.
///
/// # Errors
/// What was expected of the interface, the namespace or the system; then everything is as it was before.
pub(crate) fn up(monitor: &Monitor) -> Result<(), Refusal> {
    let journal = open(monitor)?;
    take_down(&journal)?;
    if monitor.method == Method::External {
        return journal.remove().map_err(unusable);
    }
    for step in planned(monitor)? {
        if let Err(error) = step.take(&journal) {
            let undone = take_down(&journal);
            let rest = match undone {
                Ok(_) => "everything is as it was before".to_owned(),
                Err(error) => error,
            };
            let advice = match step.advice {
                "" => String::new(),
                advice => format!(": {advice}"),
            };
            return Err(format!("cannot {}: {error}{advice}; {rest}", step.purpose));
        }
    }
    Ok(())
}

/// Takes the monitor down, and returns whether there was something to do.
///
/// # Errors
/// What could not be undone: another call tries again.
pub(crate) fn down(monitor: &Monitor) -> Result<bool, Refusal> {
    take_down(&open(monitor)?)
}

/// The acts that would take it down.
pub(crate) fn rehearse_down(monitor: &Monitor) -> Result<Vec<Act>, Refusal> {
    Journal::look(&monitor.interface).map_err(unusable)
}

/// What a tool of the system says in a namespace.
pub(crate) fn ask(namespace: Option<&Namespace>, line: &str) -> Result<String, Refusal> {
    Act::run(namespace, line)
        .output()
        .map_err(|error| error.to_string())
}

fn planned(monitor: &Monitor) -> Result<Vec<Step>, Refusal> {
    if monitor.method == Method::External {
        return Ok(Vec::new());
    }
    let place = port::examine(monitor)?;
    Ok(plan::steps(monitor, &place))
}

fn open(monitor: &Monitor) -> Result<Journal, Refusal> {
    Journal::open(&monitor.interface).map_err(unusable)
}

fn unusable(error: io::Error) -> Refusal {
    format!("the journal of the set-up cannot be used: {error}: run this as root")
}

fn take_down(journal: &Journal) -> Result<bool, Refusal> {
    let acts = journal.acts().map_err(unusable)?;
    let failures: Vec<_> = acts
        .iter()
        .filter_map(|act| match act.perform() {
            Err(error) if !error.is_gone => Some(format!("\"{act}\": {error}")),
            _ => None,
        })
        .collect();
    if failures.is_empty() {
        journal.remove().map_err(unusable)?;
        return Ok(!acts.is_empty());
    }
    let list = failures.join("; ");
    Err(format!(
        "cannot undo everything: {list}: remove the cause, then run \"nattrail monitor down\""
    ))
}
