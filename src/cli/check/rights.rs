//! The rights by which files are judged: those of the service where systemd has one, its sandbox included, otherwise
//! those of the caller.
//!
//! The judgement uses owner, group and mode, and the rules of systemd.exec(5) for `ProtectSystem=`, `ProtectHome=`,
//! `PrivateTmp=`, `ReadWritePaths=` and the service's own directories. It ignores access control lists,
//! `SupplementaryGroups=` and the unit's own mounts.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::geteuid;

const PROPERTIES: &str = "LoadState,User,ProtectSystem,ProtectHome,PrivateTmp,ReadWritePaths,StateDirectory,LogsDirectory,\
     CacheDirectory,RuntimeDirectory";

pub(in crate::cli) const READ_ADVICE: &str =
    "give it to root and the group nattrail, with mode 0640";

/// The service; without one, the caller's rights apply.
#[derive(Debug, Default)]
pub(in crate::cli) struct Rights(Option<Service>);

/// The settings of a unit that decide which files its service may write.
#[derive(Debug, Default, Eq, PartialEq)]
struct Service {
    unit: String,
    /// Empty for root.
    user: String,
    protect_system: String,
    protect_home: String,
    private_tmp: bool,
    writable: Vec<PathBuf>,
    /// Directories that systemd makes and gives to the user.
    own: Vec<PathBuf>,
}

#[derive(Debug)]
struct Identity {
    user: u32,
    groups: Vec<u32>,
}

impl Rights {
    /// The rights of the service with this configuration file: an instance for one in `/etc/nattrail`, else the main service.
    pub(in crate::cli) fn of_service(file: Option<&Path>) -> Self {
        let unit = unit_of(file);
        let property = format!("--property={PROPERTIES}");
        let shown = said("systemctl", &["show", &property, &unit]);
        Self(shown.and_then(|shown| Service::parse(unit, &shown)))
    }

    /// Whether systemd makes this directory for the service.
    pub(super) fn are_made(&self, directory: &Path) -> bool {
        let own = self.0.iter().flat_map(|service| &service.own);
        own.into_iter().any(|own| own == directory)
    }

    /// Who writes files.
    pub(super) fn user(&self) -> u32 {
        let service = self.0.as_ref();
        let identity = service.and_then(|service| Identity::of(&service.user));
        identity.map_or_else(|| geteuid().as_raw(), |identity| identity.user)
    }

    /// Whether the service may read a configuration file of its own; otherwise the expectation and the finding. A file that
    /// is elsewhere is only tried out.
    pub(in crate::cli) fn may_read(&self, file: &Path) -> Result<(), String> {
        let reaches = |service: &Service| match fs::canonicalize(file) {
            Ok(file) => service.reaches(&file, 0o4),
            Err(error) => Err(error.to_string()),
        };
        let service = self
            .0
            .as_ref()
            .filter(|_| file.starts_with("/etc/nattrail"));
        let judged = service.map_or(Ok(()), reaches);
        judged
            .map_err(|found| format!("expected the service to be able to read it, found: {found}"))
    }

    /// Whether a file may be written, or made with its missing directories; otherwise the expectation and the finding.
    pub(super) fn may_write(&self, path: &Path) -> Result<(), String> {
        let there = path.ancestors().find(|ancestor| ancestor.exists());
        let there = there.unwrap_or(Path::new("/"));
        let judge = || {
            // The sandbox judges the target of a path.
            let existing = fs::canonicalize(there).map_err(|error| error.to_string())?;
            let wanted = match existing.is_dir() {
                true => Access::WRITE_OK | Access::EXEC_OK,
                false if there == path => Access::WRITE_OK,
                false => return Err("it is not a directory".to_owned()),
            };
            match (access(&existing, wanted), &self.0) {
                (Ok(()), None) => Ok(()),
                (Err(error), None) | (Err(error @ Errno::ROFS), _) => Err(error.to_string()),
                (_, Some(service)) => {
                    let missing = path.strip_prefix(there).unwrap_or(Path::new(""));
                    service.judge(&existing, &existing.join(missing))
                }
            }
        };
        let there = there.display();
        judge().map_err(|found| format!("expected {there} to be writable, found: {found}"))
    }
}

/// A remark on the judgement itself.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(service) = &self.0 else {
            return f.write_str("judged by the rights of the caller: systemd has no nattrail here");
        };
        let (unit, user) = (&service.unit, service.user());
        let (system, home) = (&service.protect_system, &service.protect_home);
        write!(
            f,
            "judged by the rights of {unit}: {user}, ProtectSystem={system}, ProtectHome={home}"
        )
    }
}

impl Service {
    /// Whether it may write `path`, of which `existing` exists; otherwise the reason why not.
    fn judge(&self, existing: &Path, path: &Path) -> Result<(), String> {
        if let Some(setting) = self.forbids(path) {
            return Err(format!(
                "{setting} of {}; LogsDirectory= or ReadWritePaths= would allow it",
                self.unit
            ));
        }
        // systemd makes them, and gives them to the user with all their content.
        let mut own = self.own.iter();
        if own.any(|own| path.starts_with(own) && own.starts_with(existing)) {
            return Ok(());
        }
        self.reaches(existing, if existing.is_dir() { 0o3 } else { 0o2 })
    }

    /// Whether owner and mode give its user these rights to what exists there.
    fn reaches(&self, existing: &Path, needed: u32) -> Result<(), String> {
        let user = self.user();
        let Some(identity) = Identity::of(&self.user) else {
            return Err(format!("there is no {user}, which {} needs", self.unit));
        };
        let mut above = existing.ancestors().skip(1);
        if let Some(closed) = above.find(|directory| !identity.may(directory, 0o1)) {
            return Err(format!("{} is closed to {user}", closed.display()));
        }
        match identity.may(existing, needed) {
            true => Ok(()),
            false => Err(format!("owner and mode, which exclude {user}")),
        }
    }

    /// Reads the output of `systemctl show`; `None` when there is no such unit.
    fn parse(unit: String, shown: &str) -> Option<Self> {
        let mut service = Self {
            unit,
            ..Self::default()
        };
        let mut loaded = false;
        for (name, value) in shown.lines().filter_map(|line| line.split_once('=')) {
            let below = |root: &str| {
                let words = value.split_whitespace().map(|word| {
                    // A path may be marked as optional (-) or as below the unit's root (+); a directory may have a
                    // symbolic link to it, after a colon.
                    let word = word.trim_start_matches(['-', '+']);
                    Path::new(root).join(word.split(':').next().unwrap_or(word))
                });
                words.collect::<Vec<_>>()
            };
            match name {
                "LoadState" => loaded = value == "loaded",
                "User" => value.clone_into(&mut service.user),
                "ProtectSystem" => value.clone_into(&mut service.protect_system),
                "ProtectHome" => value.clone_into(&mut service.protect_home),
                "PrivateTmp" => service.private_tmp = value != "no",
                "ReadWritePaths" => service.writable.extend(below("/")),
                "StateDirectory" => service.own.extend(below("/var/lib")),
                "LogsDirectory" => service.own.extend(below("/var/log")),
                "CacheDirectory" => service.own.extend(below("/var/cache")),
                "RuntimeDirectory" => service.own.extend(below("/run")),
                _ => {}
            }
        }
        loaded.then_some(service)
    }

    fn user(&self) -> String {
        match self.user.as_str() {
            "" => "root".to_owned(),
            user => format!("user {user}"),
        }
    }

    /// The setting that forbids the service to write there.
    fn forbids(&self, path: &Path) -> Option<String> {
        let within = |roots: &[&str]| roots.iter().any(|root| path.starts_with(root));
        let homes = matches!(self.protect_home.as_str(), "yes" | "read-only" | "tmpfs");
        if homes && within(&["/home", "/root", "/run/user"]) {
            return Some(format!("ProtectHome={}", self.protect_home));
        }
        let mut open = self.own.iter().chain(&self.writable);
        if open.any(|open| path.starts_with(open)) {
            return None;
        }
        if self.private_tmp && within(&["/tmp", "/var/tmp"]) {
            // It is writable, but nobody else would ever see it.
            return Some("PrivateTmp=yes".to_owned());
        }
        let closed = match self.protect_system.as_str() {
            "strict" => !within(&["/dev", "/proc", "/sys"]),
            "full" => within(&["/usr", "/boot", "/efi", "/etc"]),
            "yes" => within(&["/usr", "/boot", "/efi"]),
            _ => false,
        };
        closed.then(|| format!("ProtectSystem={}", self.protect_system))
    }
}

impl Identity {
    fn of(user: &str) -> Option<Self> {
        let user = if user.is_empty() { "root" } else { user };
        let numbers = |option| {
            let numbers = said("id", &[option, user])?;
            let numbers = numbers.split_whitespace().map(|number| number.parse().ok());
            numbers.collect::<Option<Vec<u32>>>()
        };
        Some(Self {
            user: *numbers("-u")?.first()?,
            groups: numbers("-G")?,
        })
    }

    /// Whether the mode permits all of this (read 4, write 2, execute or enter 1).
    fn may(&self, path: &Path, needed: u32) -> bool {
        let Ok(metadata) = fs::metadata(path) else {
            return false;
        };
        let shift = match &metadata {
            it if it.uid() == self.user => 6,
            it if self.groups.contains(&it.gid()) => 3,
            _ => 0,
        };
        self.user == 0 || metadata.mode() >> shift & needed == needed
    }
}

fn unit_of(file: Option<&Path>) -> String {
    let instance = file
        .filter(|file| file.parent() == Some(Path::new("/etc/nattrail")))
        .and_then(|file| file.file_stem()?.to_str())
        .filter(|name| *name != "nattrail");
    match instance {
        Some(instance) => format!("nattrail@{instance}.service"),
        None => "nattrail.service".to_owned(),
    }
}

/// The output of a program, if it exists and succeeds.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let succeeded = output.status.success();
    succeeded.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SHOWN: &str = "User=nattrail\nReadWritePaths=/srv/nat -/opt/nat\nPrivateTmp=yes\nProtectHome=yes\n\
         ProtectSystem=strict\nRuntimeDirectory=nattrail\nStateDirectory=nattrail more:link\nCacheDirectory=\n\
         LogsDirectory=nattrail-copies\nLoadState=loaded\n";

    #[test]
    fn a_unit_says_which_files_its_service_may_write() {
        let sandbox = Service::parse("n".to_owned(), SHOWN).unwrap();
        assert_eq!(sandbox.user(), "user nattrail");
        for (path, setting) in [
            ("/var/lib/nattrail/pending.db", None),
            ("/var/lib/more/x", None),
            ("/var/log/nattrail-copies/nat.csv", None),
            ("/srv/nat/nat.csv", None),
            ("/opt/nat/nat.csv", None),
            ("/var/log/nat.csv", Some("ProtectSystem=strict")),
            ("/var/lib/nattrail-other/x", Some("ProtectSystem=strict")),
            ("/dev/stdout", None),
            ("/home/nat.csv", Some("ProtectHome=yes")),
            ("/tmp/nat.csv", Some("PrivateTmp=yes")),
        ] {
            assert_eq!(
                sandbox.forbids(Path::new(path)).as_deref(),
                setting,
                "{path}"
            );
        }
    }

    #[test]
    fn less_is_forbidden_by_weaker_settings() {
        let sandbox = |system: &str| {
            let shown = format!("LoadState=loaded\nProtectSystem={system}\nProtectHome=no\n");
            Service::parse("n".to_owned(), &shown).unwrap()
        };
        let forbidden = |system, path| sandbox(system).forbids(Path::new(path)).is_some();
        assert!(forbidden("full", "/etc/x") && !forbidden("full", "/var/log/x"));
        assert!(forbidden("yes", "/usr/x") && !forbidden("yes", "/etc/x"));
        assert!(!forbidden("no", "/usr/x"));
        assert_eq!(sandbox("no").user(), "root");
    }

    #[test]
    fn a_unit_that_is_not_there_judges_nothing() {
        assert_eq!(
            Service::parse("n".to_owned(), "LoadState=not-found\nUser=\n"),
            None
        );
        assert_eq!(Service::parse("n".to_owned(), ""), None);
    }

    #[test]
    fn the_unit_is_that_of_the_configuration() {
        let unit = |file: &str| unit_of(Some(Path::new(file)));
        assert_eq!(unit("/etc/nattrail/blue.toml"), "nattrail@blue.service");
        assert_eq!(unit("/etc/nattrail/nattrail.toml"), "nattrail.service");
        assert_eq!(unit("/tmp/new.toml"), "nattrail.service");
        assert_eq!(unit_of(None), "nattrail.service");
    }
}
