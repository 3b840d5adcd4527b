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
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const TRUNCATE: u64 = 1 << 14;

/// What may be done with a directory and all beneath it, or with one file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    Read,
    /// Also make, write and remove files and sockets, but no directories, links or devices.
    Write,
    /// Also make directories.
    MakeDirectories,
}

impl Access {
    const fn rights(self) -> u64 {
        match self {
            Self::Read => READ_FILE | READ_DIR,
            Self::MakeDirectories => Self::Write.rights() | MAKE_DIR,
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

/// What [`restrict`] has come to.
#[derive(Debug)]
pub struct Restriction {
    /// The version in force.
    pub abi: u32,
    /// The rules that could not be made, each with its path in the message: that path is withheld too.
    pub left_out: Vec<io::Error>,
}

/// Withholds from this thread, and from what it starts, everything but `rules`. What is not there is left out without a
/// word. To be called after `no_new_privs` was set.
///
/// # Errors
/// Those of [`abi`], or what else the kernel says; then nothing is withheld.
pub fn restrict<'a>(rules: impl Iterator<Item = (&'a Path, Access)>) -> io::Result<Restriction> {
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
    let left_out = rules
        .filter_map(|(path, access)| add(&ruleset, path, access.rights() & handled).err())
        .filter(|error| error.kind() != io::ErrorKind::NotFound)
        .collect();
    // SAFETY: no memory is involved.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if result == 0 {
        Ok(Restriction { abi, left_out })
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
    use std::io::{ErrorKind, Write as _};
    use std::thread;

    use rustix::thread::set_no_new_privs;

    use super::*;

    /// Whether this kernel can be tested. Says so past libtest's capture of the output where it cannot, and fails under
    /// `CI=true`, where every test has to run.
    fn has_landlock() -> bool {
        let Err(error) = abi() else {
            return true;
        };
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let message = format!("\n*** {test} DID NOT RUN: it needs Landlock: {error} ***\n");
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{message}"
        );
        io::stderr().write_all(message.as_bytes()).unwrap();
        false
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
        for name in ["state", "conf", "disk", "other"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), "text").unwrap();
        }
        // A thread of its own: the restriction ends with it.
        let results = thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            let missing = at("missing");
            let (state, conf, disk) = (at("state"), at("conf"), at("disk"));
            let rules = [
                (state.as_path(), Access::Write),
                (conf.as_path(), Access::Read),
                (disk.as_path(), Access::MakeDirectories),
                (missing.as_path(), Access::Write),
            ];
            let restriction = restrict(rules.into_iter()).unwrap();
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
                fs::create_dir_all(disk.join("new/sub")).is_ok(),
                fs::write(disk.join("new/sub/file"), "x").is_ok(),
                restriction.left_out.is_empty(),
            ]
        });
        assert_eq!(results.join().unwrap(), [true; 10]);
    }

    #[test]
    fn a_rule_that_cannot_be_made_is_named_and_the_others_hold() {
        if !has_landlock() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let [state, file] = ["state", "file"].map(|name| directory.path().join(name));
        fs::create_dir(&state).unwrap();
        fs::write(&file, "text").unwrap();
        let below_a_file = file.join("below");
        let place = below_a_file.clone();
        let (left_out, inside, outside) = thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            let rules = [
                (place.as_path(), Access::Write),
                (state.as_path(), Access::Write),
            ];
            let restriction = restrict(rules.into_iter()).unwrap();
            let written = fs::write(state.join("new"), "x");
            (restriction.left_out, written, fs::write(file, "x"))
        })
        .join()
        .unwrap();
        assert_eq!(left_out.len(), 1, "{left_out:?}");
        assert_eq!(left_out[0].kind(), ErrorKind::NotADirectory);
        let named = format!("\"{}\": ", below_a_file.display());
        assert!(left_out[0].to_string().starts_with(&named), "{left_out:?}");
        assert!(inside.is_ok(), "{inside:?}");
        assert_eq!(outside.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
