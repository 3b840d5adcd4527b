//! `nattrail run`: the daemon, in the foreground.

use std::path::Path;

use super::{Exit, environment};
use crate::config::Config;
use crate::daemon;
use crate::kernel::inherited;

/// Runs the daemon until a signal ends it; its log goes to the standard error. The configuration is `file`'s, read again
/// at each SIGHUP.
pub(super) fn run(file: Option<&Path>) -> Exit {
    // First of all: whoever knows the process may send one at once, and the daemon does not listen yet.
    inherited::ignore_hangup();
    daemon::log::install();
    match daemon::run(|| Config::load(file, environment())) {
        Ok(()) => Exit::Success,
        Err(error) => {
            log::error!("{error}");
            match error {
                daemon::Error::Config(_) => Exit::Config,
                daemon::Error::Permission(_) => Exit::NoPermission,
                daemon::Error::Busy(_) => Exit::Unavailable,
                daemon::Error::System(_) => Exit::Os,
            }
        }
    }
}
