//! `nattrail run`: the daemon, in the foreground.

use super::{Exit, Origin};
use crate::daemon;
use crate::kernel::inherited;

/// Runs the daemon until a signal ends it; its log goes to the standard error. The configuration is read
/// again at each SIGHUP.
pub(super) fn run(origin: &Origin) -> Exit {
    // This comes first: anyone may send a SIGHUP to the process, and the daemon does not handle it yet.
    inherited::ignore_hangup();
    daemon::log::install();
    match daemon::run(|| origin.load()) {
        Ok(()) => Exit::Success,
        Err(error) => {
            log::error!("{error}");
            match error {
                daemon::Error::Config(error) => Exit::from(&error),
                daemon::Error::Permission(_) => Exit::NoPermission,
                daemon::Error::Busy(_) => Exit::Unavailable,
                daemon::Error::System(_) => Exit::Os,
            }
        }
    }
}
