//! What the daemon gives up once everything is open, so that whoever took it over by a fault in it could do little more
//! than it does.
//!
//! - All capabilities but CAP_NET_ADMIN, with which the nftables table is made again, and those that the configuration
//!   asks for: CAP_SYS_ADMIN for `capture.namespace`, made effective only while the namespace is entered
//!   ([`crate::kernel::namespace`]); CAP_NET_BIND_SERVICE for a collector's source port below 1024; and CAP_DAC_OVERRIDE
//!   where a root that has lost it could no longer write what it writes already.
//! - Gaining privileges by executing something (`no_new_privs`).
//! - All files but its own, where the kernel has Landlock.
//!
//! The user stays who started the daemon. Nothing here fails: each part holds by itself, and what is in force is said.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access as Mode, AtFlags, CWD, accessat};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, no_new_privs,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::config::{Config, DEFAULT_FILE, Target};
use crate::kernel::landlock::{self, Access};
use crate::kernel::namespace::path_of;
use crate::metrics;

/// SQLite may want random numbers later than at its start.
const RANDOM: &str = "/dev/urandom";

/// The confinement in force.
#[derive(Debug)]
pub struct Confinement {
    summary: metrics::Confinement,
    /// Device and inode of what may be written, if Landlock is in force.
    writable: Vec<(u64, u64)>,
}

impl Confinement {
    /// Confines the thread to what `config` needs from now on; `file` is where it came from.
    #[must_use]
    pub fn apply(config: &Config, file: Option<&Path>) -> Self {
        let file = file.unwrap_or(Path::new(DEFAULT_FILE));
        let written = written(config);
        if let Err(error) = set_no_new_privs(true) {
            log::warn!("cannot set no_new_privs: {error}");
        }
        let mut read = directories_of(file);
        // A namespace is a file mounted there, and is entered again by its name.
        let namespace = config.capture.namespace.as_ref().map(path_of);
        read.extend(namespace.iter().flat_map(|path| directories_of(path)));
        let rules = written
            .iter()
            .map(|path| (path.as_path(), Access::Write))
            .chain(read.iter().map(|path| (path.as_path(), Access::Read)))
            .chain([(Path::new(RANDOM), Access::Read)]);
        let landlock = match landlock::restrict(rules) {
            Ok(abi) => Some(abi),
            Err(error) => {
                note_absence(&error);
                None
            }
        };
        if let Err(error) = drop_capabilities(config, file) {
            log::warn!("cannot give up capabilities: {error}");
        }
        let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
        Self {
            summary: metrics::Confinement {
                capabilities: names(held),
                no_new_privileges: no_new_privs().unwrap_or(false),
                landlock_abi: landlock,
            },
            writable: written.iter().filter_map(|path| identity(path)).collect(),
        }
    }

    #[must_use]
    pub const fn summary(&self) -> &metrics::Confinement {
        &self.summary
    }

    /// Says which targets of a new configuration this process can no longer write.
    pub fn warn_of_targets_outside(&self, config: &Config) {
        if self.summary.landlock_abi.is_none() {
            return;
        }
        for path in files(config) {
            let places = places_of(path);
            let mut inside = places.iter().filter_map(|place| identity(place));
            if !inside.any(|place| self.writable.contains(&place)) {
                log::warn!(
                    "file \"{}\": expected a directory that nattrail wrote to when it was started, found another one: it \
                     has confined itself to those, restart it",
                    path.display()
                );
            }
        }
    }
}

/// The directories that are written to, and files that are no regular ones.
fn written(config: &Config) -> Vec<PathBuf> {
    let mut paths = directories_of(&config.pending.database);
    paths.extend(
        config
            .control
            .socket
            .iter()
            .flat_map(|path| directories_of(path)),
    );
    paths.extend(files(config).flat_map(places_of));
    paths.sort();
    paths.dedup();
    paths
}

fn files(config: &Config) -> impl Iterator<Item = &Path> {
    config
        .syslog
        .iter()
        .filter_map(|syslog| match &syslog.target {
            Target::File { path } => Some(path.as_path()),
            Target::Journal { .. } | Target::Local { .. } | Target::Stdout | Target::Udp { .. } => {
                None
            }
        })
}

/// What a file copy needs: its directory, in which it is made anew when it was rotated away. A named pipe or a device is
/// not: their directory is not opened for them.
fn places_of(path: &Path) -> Vec<PathBuf> {
    let special = fs::metadata(path).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_char_device()
    });
    if special {
        vec![path.to_owned()]
    } else {
        directories_of(path)
    }
}

/// The directory of a file, and that of what it leads to if it is a link.
fn directories_of(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let target = fs::canonicalize(path).ok();
    let target = target.as_deref().and_then(parent);
    parent(path).into_iter().chain(target).collect()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn note_absence(error: &io::Error) {
    match error.raw_os_error() {
        // Such a kernel is none the worse: nothing to warn of.
        Some(libc::ENOSYS | libc::EOPNOTSUPP) => {}
        _ => log::warn!(
            "cannot confine itself to its files with Landlock: {error}; a system call filter may forbid it"
        ),
    }
}

fn drop_capabilities(config: &Config, file: &Path) -> rustix::io::Result<()> {
    let now = capabilities(None)?;
    let mut wanted = CapabilitySet::NET_ADMIN;
    if config.capture.namespace.is_some() {
        wanted |= CapabilitySet::SYS_ADMIN;
    }
    let source_ports = config
        .collectors
        .iter()
        .filter_map(|collector| collector.source);
    if source_ports
        .into_iter()
        .any(|source| (1..1024).contains(&source.port()))
    {
        wanted |= CapabilitySet::NET_BIND_SERVICE;
    }
    let overriding = now.effective & (CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    if !overriding.is_empty() {
        set_capabilities(
            None,
            CapabilitySets {
                effective: now.effective - overriding,
                ..now
            },
        )?;
        if let Some(path) = out_of_reach(config, file) {
            log::warn!(
                "\"{}\" belongs to another user: CAP_DAC_OVERRIDE is kept to go on using it; start nattrail as that user, \
                 or give the file to this one (chown)",
                path.display()
            );
            wanted |= CapabilitySet::DAC_OVERRIDE;
        }
    }
    if now.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all() - wanted {
            // One that this kernel does not know is in no set.
            if capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
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

/// Something that the daemon will open again and now no longer can.
fn out_of_reach(config: &Config, file: &Path) -> Option<PathBuf> {
    let use_directory = Mode::WRITE_OK | Mode::EXEC_OK;
    let mut needed = vec![(file.to_owned(), Mode::READ_OK)];
    let database = &config.pending.database;
    needed.push((database.clone(), Mode::READ_OK | Mode::WRITE_OK));
    let sockets = config.control.socket.iter();
    for path in sockets.chain([database]) {
        needed.extend(
            path.parent()
                .map(|parent| (parent.to_owned(), use_directory)),
        );
    }
    for path in files(config) {
        if path.exists() {
            needed.push((path.to_owned(), Mode::WRITE_OK));
        } else {
            needed.extend(
                path.parent()
                    .map(|parent| (parent.to_owned(), use_directory)),
            );
        }
    }
    needed.into_iter().find_map(|(path, mode)| {
        let denied = accessat(CWD, &path, mode, AtFlags::EACCESS) == Err(rustix::io::Errno::ACCESS);
        denied.then_some(path)
    })
}

/// The capabilities as capabilities(7) writes them.
fn names(set: CapabilitySet) -> Vec<String> {
    let all = set.iter_names();
    all.map(|(name, _)| format!("CAP_{name}")).collect()
}
