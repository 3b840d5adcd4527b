//! What the daemon gives up once everything is open, so that whoever took it over by a fault in it could do little more
//! than it does.
//!
//! - All capabilities but CAP_NET_ADMIN, with which the nftables table is made again, and those that the configuration
//!   asks for: CAP_SYS_ADMIN for `capture.namespace`, made effective only while the namespace is entered
//!   ([`crate::kernel::namespace`]); CAP_NET_BIND_SERVICE for a collector's source port below 1024; and CAP_DAC_OVERRIDE
//!   where a root that has lost it could no longer write what it writes already.
//! - Gaining privileges by executing something (`no_new_privs`).
//! - All files but its own, where the kernel has Landlock. Its rules belong to the directories that are there at the start.
//!   While the database's is missing (a disk that is read-only, or mounted later) the nearest one above it may be written,
//!   as the store is tried again; what is not reached by that takes a restart, and is said.
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

use crate::config::{Collector, Config, DEFAULT_FILE, Target};
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
    /// Whether a collector's source port below 1024 was asked for at the start.
    has_low_port: bool,
    has_named_store: bool,
}

impl Confinement {
    /// Confines the thread to what `config` needs from now on; `file` is where it came from.
    #[must_use]
    pub fn apply(config: &Config, file: Option<&Path>) -> Self {
        let file = file.unwrap_or(Path::new(DEFAULT_FILE));
        let written = written(config);
        let awaited = awaited(&config.pending.database);
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
            .chain(
                awaited
                    .iter()
                    .map(|path| (path.as_path(), Access::MakeDirectories)),
            )
            .chain(read.iter().map(|path| (path.as_path(), Access::Read)))
            .chain([(Path::new(RANDOM), Access::Read)]);
        let landlock = match landlock::restrict(rules) {
            Ok(restriction) => {
                if let Some(above) = &awaited {
                    log::warn!(
                        "the directory of \"{}\" is not there: everything in \"{}\" may be written to make it, until nattrail is \
                 restarted",
                        config.pending.database.display(),
                        above.display()
                    );
                }
                for error in &restriction.left_out {
                    log::warn!("confined without access to {error}");
                }
                Some(restriction.abi)
            }
            Err(error) => {
                if let Some(warning) = absence(&error) {
                    log::warn!("{warning}");
                }
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
            writable: written
                .iter()
                .chain(&awaited)
                .filter_map(|path| identity(path))
                .collect(),
            has_low_port: with_low_port(config).is_some(),
            has_named_store: false,
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
            if !self.reaches(path) {
                log::warn!(
                    "file \"{}\": expected a directory that nattrail wrote to when it was started, found another one: it \
                     has confined itself to those, restart it",
                    path.display()
                );
            }
        }
    }

    /// Says which collector of a new configuration this process may lack a capability for.
    pub fn warn_of_source_ports(&self, config: &Config) {
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

    /// Says once that a store which is not available cannot become so in this process.
    pub fn warn_of_store_outside(&mut self, database: &Path) {
        if self.has_named_store || self.summary.landlock_abi.is_none() || self.reaches(database) {
            return;
        }
        self.has_named_store = true;
        log::warn!(
            "pending database \"{}\": nattrail is confined to the directories that were there at the start, and this is in \
             none of them: restart it once its directory is there",
            database.display()
        );
    }

    /// Whether `path`, or the nearest directory above it that is there, is beneath what may be written.
    fn reaches(&self, path: &Path) -> bool {
        let resolve = |place: &Path| fs::canonicalize(place).ok();
        // Where a link leads nowhere, what is known is where it is itself.
        let place =
            nearest(path).and_then(|place| resolve(place).or_else(|| resolve(place.parent()?)));
        place.is_some_and(|place| {
            let mut places = place.ancestors().filter_map(identity);
            places.any(|place| self.writable.contains(&place))
        })
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

/// The nearest directory above the missing one of the store. Not the root: that would be no confinement.
fn awaited(database: &Path) -> Option<PathBuf> {
    let directory = database.parent()?;
    let above = nearest(directory).filter(|above| *above != directory)?;
    above.parent().map(|_| above.to_owned())
}

/// `path`, or the nearest directory above it that is there. A link that leads nowhere is there: nothing can be made in its
/// place.
fn nearest(path: &Path) -> Option<&Path> {
    let missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    path.ancestors()
        .find(|place| !fs::symlink_metadata(place).is_err_and(missing))
}

fn with_low_port(config: &Config) -> Option<&Collector> {
    let is_low = |collector: &&Collector| {
        let source = collector.source;
        source.is_some_and(|source| (1..1024).contains(&source.port()))
    };
    config.collectors.iter().find(is_low)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// What to say when Landlock is not in force.
fn absence(error: &io::Error) -> Option<String> {
    let hint = match error.raw_os_error() {
        // Such a kernel is none the worse: nothing to warn of.
        Some(libc::ENOSYS | libc::EOPNOTSUPP) => return None,
        Some(libc::EPERM) => "; a system call filter may forbid it",
        _ => "",
    };
    Some(format!(
        "cannot confine itself to its files with Landlock: {error}{hint}"
    ))
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
    let use_directory = Mode::WRITE_OK | Mode::EXEC_OK;
    let mut needed = vec![(file.to_owned(), Mode::READ_OK)];
    let database = &config.pending.database;
    needed.push((database.clone(), Mode::READ_OK | Mode::WRITE_OK));
    needed.extend(awaited(database).map(|above| (above, use_directory)));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_system_call_filter_is_suspected_where_the_kernel_says_so_only() {
        let said = |code| absence(&io::Error::from_raw_os_error(code));
        assert_eq!(said(libc::ENOSYS), None);
        assert_eq!(said(libc::EOPNOTSUPP), None);
        let suspected = |code| said(code).unwrap().contains("system call filter");
        assert!(suspected(libc::EPERM));
        assert!(!suspected(libc::E2BIG));
        assert!(!suspected(libc::EACCES));
    }

    #[test]
    fn a_missing_directory_of_the_store_is_awaited_in_the_nearest_one_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        assert_eq!(awaited(&base.join("pending.db")), None, "it is there");
        let above = awaited(&base.join("a/b/pending.db"));
        assert_eq!(above.as_deref(), Some(base));
        let of_the_root = Path::new("/nattrail-missing/state/pending.db");
        assert_eq!(awaited(of_the_root), None);
        symlink("nowhere", base.join("link")).unwrap();
        assert_eq!(awaited(&base.join("link/pending.db")), None);
        fs::write(base.join("file"), "").unwrap();
        assert_eq!(awaited(&base.join("file/sub/pending.db")), None);
    }
}
