//! `nattrail run`: the daemon, in the foreground or, for `nattrail start`, in the background.

use std::io;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{setsid, umask};

use super::{Exit, environment};
use crate::config::Config;
use crate::daemon::notify::Environment;
use crate::daemon::{self, log::Prefix};
use crate::kernel::inherited;

/// Runs the daemon until a signal ends it; its log goes to the standard error. The configuration is `file`'s, read again
/// at each SIGHUP.
pub fn run(file: Option<&Path>, background: bool) -> Exit {
    // First of all: whoever knows the process may send one at once, and the daemon does not listen yet.
    inherited::ignore_hangup();
    let environment_of_manager = Environment {
        only_start: background,
        ..Environment::of_process()
    };
    if background {
        daemon::log::install_in_background();
        if let Err(error) = leave() {
            log::error!("cannot go into the background: {error}");
            return Exit::Os;
        }
    } else {
        daemon::log::install(Prefix::from_environment());
    }
    match daemon::run(
        || Config::load(file, environment()),
        &environment_of_manager,
    ) {
        Ok(()) => Exit::Success,
        Err(error) => {
            log::error!("{error}");
            exit_of(&error)
        }
    }
}

/// Leaves the terminal, the directory and the umask of whoever started this.
fn leave() -> io::Result<()> {
    setsid()?;
    umask(Mode::RWXG | Mode::RWXO);
    std::env::set_current_dir("/")
}

const fn exit_of(error: &daemon::Error) -> Exit {
    match error {
        daemon::Error::Config(_) => Exit::Config,
        daemon::Error::Permission(_) => Exit::NoPermission,
        daemon::Error::Busy(_) | daemon::Error::Store(_) => Exit::Unavailable,
        daemon::Error::System(_) => Exit::Os,
    }
}
