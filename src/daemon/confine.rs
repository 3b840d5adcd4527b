//! The rights that the daemon gives up once everything is open, so that an attacker who takes it over can do little
//! more than it does itself.
//!
//! - All capabilities but CAP_NET_ADMIN, which restores the nftables table; CAP_SYS_ADMIN where `capture.namespace` is
//!   set, to enter that again; and two that a unit grants only on purpose and root has by hand: CAP_NET_BIND_SERVICE,
//!   for source ports below 1024, and CAP_DAC_OVERRIDE, for files of the service's user. Keeping one of them permitted
//!   but not effective would not keep anybody from raising it.
//! - Gaining privileges by execve(2) (`no_new_privs`). So the bounding set has nothing left to bound: an executed
//!   program gets no capability that the daemon does not hold (security/commoncap.c, cap_bprm_creds_from_file).
//!
//! The user stays the one who started the daemon: the unit and the init script decide on that user and on writable
//! paths. Nothing here fails: each part holds by itself, and the log lists those in force.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, no_new_privs, set_capabilities, set_no_new_privs,
};

use crate::config::Config;
use crate::metrics::Confinement;

/// Confines the thread to the rights that `config` needs from now on, and returns those in force.
pub(super) fn confine(config: &Config) -> Confinement {
    if let Err(error) = set_no_new_privs(true) {
        log::warn!("cannot set no_new_privs: {error}");
    }
    if let Err(error) = drop_capabilities(config) {
        log::warn!("cannot give up capabilities: {error}");
    }
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
    // As capabilities(7) writes them.
    let names = held.iter_names().map(|(name, _)| format!("CAP_{name}"));
    Confinement {
        capabilities: names.collect(),
        no_new_privileges: no_new_privs().unwrap_or(false),
    }
}

fn drop_capabilities(config: &Config) -> rustix::io::Result<()> {
    let mut wanted =
        CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE | CapabilitySet::DAC_OVERRIDE;
    if config.capture.namespace.is_some() {
        wanted |= CapabilitySet::SYS_ADMIN;
    }
    let permitted = capabilities(None)?.permitted & wanted;
    set_capabilities(
        None,
        CapabilitySets {
            permitted,
            effective: permitted,
            // The ambient set goes with it (capabilities(7)).
            inheritable: CapabilitySet::empty(),
        },
    )
}
