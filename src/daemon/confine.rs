//! The rights that the daemon gives up once everything is open, so that an attacker who took it over could do little more
//! than it does.
//!
//! - All capabilities but CAP_NET_ADMIN, with which the nftables table is made again; CAP_SYS_ADMIN where
//!   `capture.namespace` is set, to enter that again; and what a unit gives only on purpose and root by hand has anyway:
//!   CAP_NET_BIND_SERVICE, for source ports below 1024, and CAP_DAC_OVERRIDE, for files of the service's user. Those of
//!   root are root's own. To keep one of them ineffective but permitted would keep nobody from raising it.
//! - Gaining privileges by executing something (`no_new_privs`). So the bounding set has nothing left to bound: what is
//!   executed gets no capability that the daemon does not hold (security/commoncap.c, cap_bprm_creds_from_file).
//!
//! The user stays who started the daemon: that it is not root, and what it may write, is for the unit and the init script
//! to see to. Nothing here fails: each part holds by itself, and what is in force is said.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, no_new_privs, set_capabilities, set_no_new_privs,
};

use crate::config::Config;
use crate::metrics::Confinement;

/// Confines the thread to what `config` needs from now on, and says what is in force.
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
