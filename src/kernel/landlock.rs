//! Landlock: the thread gives up every right to the file system but those it names, for good.
//!
//! Best effort, as Documentation/userspace-api/landlock.rst advises: what this kernel's version (ABI) does not know is not
//! asked for, and it is no error if the kernel has none of it. Rights belong to the directory or file that was there when
//! the rule was made, not to its name, and hold for what is opened afterwards: open descriptors stay as they are. Sockets
//! and what links of procfs lead to outside of any mount (pipes, namespaces) are not restricted.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, open};

// include/uapi/linux/landlock.h
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const TRUNCATE: u64 = 1 << 14;

/// What may be done with a directory and all beneath it, or with one file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    Read,
    /// Also make, write and remove files and sockets, but no directories, links or devices.
    Write,
}

impl Access {
    const fn rights(self) -> u64 {
        match self {
            Self::Read => READ_FILE | READ_DIR,
            Self::Write => {
                READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | REMOVE_FILE | MAKE_REG | MAKE_SOCK
            }
        }
    }
}

/// All rights that a version can withhold.
const fn handled(abi: u32) -> u64 {
    match abi {
        0 => 0,
        1 => (1 << 13) - 1,
        // With LANDLOCK_ACCESS_FS_REFER, then _TRUNCATE, then _IOCTL_DEV.
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    }
}

#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The version of Landlock that this kernel has.
///
/// # Errors
/// `ENOSYS` when it was built without, `EOPNOTSUPP` when it was booted without, `EPERM` when a system call filter forbids
/// it.
pub fn abi() -> io::Result<u32> {
    // SAFETY: with this flag the kernel takes no attributes, and reads and writes no memory of this process.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttributes>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

/// Withholds from this thread, and from what it starts, everything but `rules`. What is not there is left out. To be called
/// after `no_new_privs` was set. Returns the version in force.
///
/// # Errors
/// Those of [`abi`], or what else the kernel says; then nothing is withheld.
pub fn restrict<'a>(rules: impl Iterator<Item = (&'a Path, Access)>) -> io::Result<u32> {
    let abi = abi()?;
    let handled = handled(abi);
    let attributes = RulesetAttributes {
        handled_access_fs: handled,
    };
    // SAFETY: the kernel reads as many bytes as the attributes have.
    let ruleset = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            0_u32,
        )
    };
    let ruleset = i32::try_from(ruleset)
        .ok()
        .filter(|raw| *raw >= 0)
        .ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened it for nobody else.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    for (path, access) in rules {
        match add(&ruleset, path, access.rights() & handled) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            added => added?,
        }
    }
    // SAFETY: no memory is involved.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if result == 0 {
        Ok(abi)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn add(ruleset: &OwnedFd, path: &Path, rights: u64) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("\"{}\": {error}", path.display()));
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let parent = open(path, flags, Mode::empty()).map_err(|error| named(error.into()))?;
    let mode = fstat(&parent).map_err(|error| named(error.into()))?.st_mode;
    let is_directory = rustix::fs::FileType::from_raw_mode(mode).is_dir();
    let of_files = READ_FILE | WRITE_FILE | TRUNCATE;
    let rule = PathBeneath {
        allowed_access: if is_directory {
            rights
        } else {
            rights & of_files
        },
        parent_fd: parent.as_raw_fd(),
    };
    // SAFETY: the kernel reads one rule of this type, and `parent` is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(named(io::Error::last_os_error()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::io::ErrorKind;
    use std::thread;

    use rustix::thread::set_no_new_privs;

    use super::*;

    /// Whether this kernel can be tested; says so where it cannot.
    fn has_landlock() -> bool {
        match abi() {
            Ok(_) => true,
            Err(error) => {
                eprintln!("*** this kernel has no Landlock: {error} ***");
                false
            }
        }
    }

    #[test]
    fn a_version_withholds_what_it_knows() {
        assert_eq!(handled(0), 0);
        assert_eq!(handled(1), 0x1fff);
        assert_eq!(handled(3) & TRUNCATE, TRUNCATE);
        assert_eq!(handled(2) & TRUNCATE, 0);
        assert_eq!(handled(7), 0xffff);
    }

    #[test]
    fn only_what_the_rules_name_can_be_opened() {
        if !has_landlock() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().to_owned();
        let at = move |name: &str| base.join(name);
        for name in ["state", "conf", "other"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), "text").unwrap();
        }
        // A thread of its own: the restriction ends with it.
        let results = thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            let missing = at("missing");
            let (state, conf) = (at("state"), at("conf"));
            let rules = [
                (state.as_path(), Access::Write),
                (conf.as_path(), Access::Read),
                (missing.as_path(), Access::Write),
            ];
            restrict(rules.into_iter()).unwrap();
            let refused = |result: io::Result<()>| {
                result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
            };
            [
                fs::write(state.join("new"), "x").is_ok(),
                fs::remove_file(state.join("file")).is_ok(),
                fs::read(conf.join("file")).is_ok(),
                refused(fs::write(conf.join("file"), "x")),
                refused(fs::read(at("other").join("file")).map(drop)),
                refused(fs::create_dir(state.join("sub"))),
                refused(fs::File::open("/etc/passwd").map(drop)),
            ]
        });
        assert_eq!(results.join().unwrap(), [true; 7]);
    }
}
