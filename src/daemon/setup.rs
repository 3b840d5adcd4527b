//! Parts of starting and reloading the daemon: actions in the network namespace, and messages about them.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use super::control::Control;
use super::log::counted;
use super::scrape::Scrape;
use super::{CONTROL, Error, SCRAPE};
use crate::config::{self, Config, Loaded};
use crate::kernel::namespace::within;
use crate::kernel::{nftables, sysctl};

/// The line about the daemon that the service manager shows.
pub(super) fn status(config: &Config) -> String {
    format!(
        "{}, {}, {}",
        counted(config.collectors.len() as u64, "collector", "collectors"),
        counted(config.syslog.len() as u64, "copy", "copies"),
        match (config.capture.log, config.selections().len()) {
            (config::LogScope::Nat, 1) => "translated connections only",
            (config::LogScope::All, 1) => "every connection",
            _ => "different connections for different outputs",
        }
    )
}

/// The socket, if it is wanted and possible.
pub(super) fn open_control(config: &config::Control, registry: &mio::Registry) -> Option<Control> {
    let path = config.socket.as_ref()?;
    let what = format!("control socket \"{}\"", path.display());
    let loss = "\"nattrail status\" and \"nattrail tail\" cannot ask this daemon";
    if_possible(Control::open(path, registry, CONTROL), &what, loss)
}

/// The listener, if it is wanted and possible.
pub(super) fn open_scrape(config: &config::Metrics, registry: &mio::Registry) -> Option<Scrape> {
    let address = config.listen?;
    let what = format!("metrics.listen {address}");
    let loss = "Prometheus gets no metrics";
    if_possible(Scrape::open(address, registry, SCRAPE), &what, loss)
}

/// A daemon that cannot be asked still does its work.
fn if_possible<T>(opened: io::Result<T>, what: &str, loss: &str) -> Option<T> {
    opened
        .inspect_err(|error| ::log::warn!("{what}: {error}; {loss}"))
        .ok()
}

pub(super) fn warn_of(loaded: Loaded) -> Config {
    for warning in &loaded.warnings {
        ::log::warn!("{warning}");
    }
    loaded.config
}

/// Turns connection tracking on in the configured namespace and checks its settings.
pub(super) fn pin(config: &config::Capture) -> Result<(), Error> {
    let settings = Path::new(sysctl::DIRECTORY);
    let pinned = within(config.namespace.as_ref(), || {
        // This precedes the first tracked connection, which gets counters and times only if these are already on.
        let early = config.set_sysctls && settings.exists();
        if early {
            switch_on(settings);
        }
        nftables::install(&config.table)?;
        if config.set_sysctls && !early {
            switch_on(settings);
        }
        match sysctl::inspect(settings) {
            Ok(findings) => findings
                .iter()
                .for_each(|finding| ::log::warn!("{finding}")),
            Err(error) => ::log::warn!("{error}"),
        }
        Ok(())
    });
    let what = || format!("cannot make the nftables table \"inet {}\"", config.table);
    pinned
        .and_then(|pinned| pinned)
        .map_err(|error| explain(&what(), &error))
}

/// Lets connection tracking go off, unless another rule needs it.
pub(super) fn unpin(config: &config::Capture) {
    let removed = within(config.namespace.as_ref(), || {
        nftables::remove(&config.table)
    });
    if let Err(error) = removed.and_then(|removed| removed) {
        let table = &config.table;
        ::log::warn!("cannot remove the nftables table \"inet {table}\": {error}");
    }
}

/// Makes sure that no other daemon uses the nftables table: the first of them to stop would remove it. Abstract socket
/// addresses belong to the network namespace, like the table, and go with the process (unix(7)). A second address has
/// the process id, for the message of a daemon that finds the first one taken.
pub(super) fn claim(config: &config::Capture) -> Result<[UnixDatagram; 2], Error> {
    let table = &config.table;
    let claim = format!("nattrail/{table}");
    let by_process = format!("@{claim}/");
    let mut holder = String::new();
    let bound = within(config.namespace.as_ref(), || {
        let bind = |name: &str| UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?);
        let sockets = fs::read("/proc/thread-self/net/unix").unwrap_or_default();
        let sockets = String::from_utf8_lossy(&sockets);
        let names = sockets.split(&by_process).skip(1);
        // Anybody can have a socket of such a name, also with characters that act on a terminal.
        let mut pids = names.filter_map(|name| name.lines().next()?.parse::<u32>().ok());
        if let Some(pid) = pids.next() {
            holder = format!(", as process {pid}");
        }
        Ok([
            bind(&claim)?,
            bind(&format!("{claim}/{}", std::process::id()))?,
        ])
    });
    bound.and_then(|bound| bound).map_err(|error: io::Error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            Error::Busy(format!(
                "nattrail already runs{holder}, and uses the nftables table \"inet {table}\" in this network namespace: stop \
                 that one, or give this one its own capture.table"
            ))
        } else {
            explain("cannot claim the nftables table", &error)
        }
    })
}

/// Switches on the settings that the records need.
pub(super) fn switch_on(settings: &Path) {
    for change in sysctl::set(settings) {
        match change {
            Ok(changed) => ::log::info!("{changed}"),
            Err(refused) => ::log::warn!("{refused}"),
        }
    }
}

/// Names the missing capability: entering a network namespace needs a different one.
pub(super) fn explain(what: &str, error: &io::Error) -> Error {
    let is_namespace = error.to_string().starts_with("network namespace");
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Error::System(match is_namespace {
            true => format!(
                "capture.namespace: {error}: create it before nattrail starts (ip netns add), or change the key"
            ),
            false => format!("{what}: {error}"),
        });
    }
    let advice = if is_namespace {
        "the capability CAP_SYS_ADMIN is missing; run as root, or as a service with the drop-in \
         /usr/share/doc/nattrail/examples/capture-namespace.conf"
    } else {
        "the capability CAP_NET_ADMIN is missing; run as root, or as a service with AmbientCapabilities=CAP_NET_ADMIN"
    };
    Error::Permission(format!("{what}: {error}: {advice}"))
}
