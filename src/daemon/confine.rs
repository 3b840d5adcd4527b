//! What the daemon gives up once everything is open, so that whoever took it over by a fault in it could do little more
//! than it does.
//!
//! - All capabilities but CAP_NET_ADMIN, with which the nftables table is made again, and those that the configuration
//!   asks for: CAP_SYS_ADMIN for `capture.namespace`, made effective only while the namespace is entered
//!   ([`crate::kernel::namespace`]); CAP_NET_BIND_SERVICE for a collector's source port below 1024; and CAP_DAC_OVERRIDE
//!   where a root that has lost it could no longer write what it writes already.
//! - Gaining privileges by executing something (`no_new_privs`).
//!
//! The user stays who started the daemon: that it is not root, and what it may write, is for the unit and the init script
//! to see to. Nothing here fails: each part holds by itself, and what is in force is said.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, no_new_privs,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::config::{Collector, Config, DEFAULT_FILE, Target};
use crate::metrics;

/// The confinement in force.
#[derive(Debug)]
pub(super) struct Confinement {
    summary: metrics::Confinement,
    /// Whether a collector's source port below 1024 was asked for at the start.
    has_low_port: bool,
}

impl Confinement {
    /// Confines the thread to what `config` needs from now on; `file` is where it came from.
    #[must_use]
    pub(super) fn apply(config: &Config, file: Option<&Path>) -> Self {
        if let Err(error) = set_no_new_privs(true) {
            log::warn!("cannot set no_new_privs: {error}");
        }
        if let Err(error) = drop_capabilities(config, file.unwrap_or(Path::new(DEFAULT_FILE))) {
            log::warn!("cannot give up capabilities: {error}");
        }
        let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
        Self {
            summary: metrics::Confinement {
                capabilities: names(held),
                no_new_privileges: no_new_privs().unwrap_or(false),
            },
            has_low_port: with_low_port(config).is_some(),
        }
    }

    #[must_use]
    pub(super) const fn summary(&self) -> &metrics::Confinement {
        &self.summary
    }

    /// Says which collector of a new configuration this process may lack a capability for.
    pub(super) fn warn_of_source_ports(&self, config: &Config) {
        if self.has_low_port {
            return;
        }
        if let Some(collector) = with_low_port(config) {
            log::warn!(
                "collector {}: expected CAP_NET_BIND_SERVICE, for a source port below 1024, found it given up, as no collector \
                 had such a port when nattrail was started: restart it",
                collector.address
            );
        }
    }
}

fn with_low_port(config: &Config) -> Option<&Collector> {
    let is_low = |collector: &&Collector| {
        let source = collector.source;
        source.is_some_and(|source| (1..1024).contains(&source.port()))
    };
    config.collectors.iter().find(is_low)
}

fn drop_capabilities(config: &Config, file: &Path) -> rustix::io::Result<()> {
    let now = capabilities(None)?;
    let mut wanted = CapabilitySet::NET_ADMIN;
    if config.capture.namespace.is_some() {
        wanted |= CapabilitySet::SYS_ADMIN;
    }
    if with_low_port(config).is_some() {
        wanted |= CapabilitySet::NET_BIND_SERVICE;
    }
    let overriding = now.effective & (CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    if !overriding.is_empty() {
        let without = CapabilitySets {
            effective: now.effective - overriding,
            ..now
        };
        if let Err(error) = set_capabilities(None, without) {
            log::warn!("cannot try what it can reach without CAP_DAC_OVERRIDE: {error}");
        } else if let Some(path) = out_of_reach(config, file) {
            log::warn!(
                "\"{}\" belongs to another user: CAP_DAC_OVERRIDE is kept to go on using it; start nattrail as that user, \
                 or give the file to this one (chown)",
                path.display()
            );
            wanted |= CapabilitySet::DAC_OVERRIDE;
        }
    }
    if now.effective.contains(CapabilitySet::SETPCAP) {
        limit(CapabilitySet::all() - wanted);
    }
    let permitted = now.permitted & wanted;
    set_capabilities(
        None,
        CapabilitySets {
            permitted,
            effective: permitted - CapabilitySet::SYS_ADMIN,
            // The ambient set goes with it (capabilities(7)).
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Takes `unwanted` out of the bounding set. What stays there is of use only to a program that is executed: no reason to
/// keep anything else.
fn limit(unwanted: CapabilitySet) {
    let mut stay = CapabilitySet::empty();
    let mut reason = None;
    for capability in unwanted {
        // One that this kernel does not know is in no set.
        if capability_is_in_bounding_set(capability).unwrap_or(false)
            && let Err(error) = remove_capability_from_bounding_set(capability)
        {
            stay |= capability;
            reason = Some(error);
        }
    }
    if let Some(error) = reason {
        let stay = names(stay).join(", ");
        log::warn!("cannot take {stay} out of the capability bounding set: {error}");
    }
}

/// Something that the daemon will open again and now no longer can.
fn out_of_reach(config: &Config, file: &Path) -> Option<PathBuf> {
    let mut needed = vec![
        (file, Access::READ_OK),
        (&config.pending.database, Access::READ_OK | Access::WRITE_OK),
    ];
    let mut made: Vec<&Path> = vec![&config.pending.database];
    made.extend(config.control.socket.as_deref());
    for syslog in &config.syslog {
        match &syslog.target {
            Target::File { path } if path.exists() => needed.push((path, Access::WRITE_OK)),
            Target::File { path } => made.push(path),
            Target::Journal { .. } | Target::Local { .. } | Target::Stdout | Target::Udp { .. } => {
            }
        }
    }
    let directories = made
        .into_iter()
        .filter_map(|path| path.ancestors().skip(1).find(|place| place.exists()));
    needed.extend(directories.map(|place| (place, Access::WRITE_OK | Access::EXEC_OK)));
    needed.into_iter().find_map(|(path, mode)| {
        let denied = accessat(CWD, path, mode, AtFlags::EACCESS) == Err(rustix::io::Errno::ACCESS);
        denied.then(|| path.to_owned())
    })
}

/// The capabilities as capabilities(7) writes them.
fn names(set: CapabilitySet) -> Vec<String> {
    let all = set.iter_names();
    all.map(|(name, _)| format!("CAP_{name}")).collect()
}
