//! Running a part of the set-up inside another network namespace.
//!
//! A socket belongs for life to the namespace in which it was made, so the daemon enters a namespace only to make
//! sockets, to read settings and to set up its table, and then goes back (setns(2), network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::config::Namespace;

/// Where `ip netns` keeps its names.
const NAMED: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";

/// Runs `work` in `namespace`, or in the thread's present one without it.
///
/// # Errors
/// When the namespace cannot be opened or entered, with its path in the message.
///
/// # Panics
/// When the kernel refuses the return: every later socket of the daemon would be in the wrong place.
pub fn within<T>(namespace: Option<&Namespace>, work: impl FnOnce() -> T) -> io::Result<T> {
    let Some(namespace) = namespace else {
        return Ok(work());
    };
    let path = path_of(namespace);
    let explain = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("network namespace \"{}\": {error}", path.display()),
        )
    };
    let own = File::open(OWN)?;
    let target = File::open(&path).map_err(explain)?;
    enter(&target).map_err(explain)?;
    let result = work();
    enter(&own).expect("a thread may return to the namespace it came from and still holds open");
    Ok(result)
}

fn enter(namespace: &File) -> io::Result<()> {
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), network).map_err(io::Error::from)
}

/// Whether both are one; without one it is the thread's present one.
pub(crate) fn is_same(one: Option<&Namespace>, other: Option<&Namespace>) -> bool {
    let own = Namespace(OWN.into());
    let place = |namespace: Option<&Namespace>| identity(namespace.unwrap_or(&own)).ok();
    one == other || place(one).is_some_and(|place_of_one| Some(place_of_one) == place(other))
}

/// Device and inode of its file, which differ after it was made anew under the same name.
pub(crate) fn identity(namespace: &Namespace) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path_of(namespace))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The file that stands for the namespace.
pub fn path_of(namespace: &Namespace) -> PathBuf {
    let path = &namespace.0;
    if path.components().count() > 1 {
        path.clone()
    } else {
        Path::new(NAMED).join(path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_name_is_looked_up_where_ip_netns_keeps_it() {
        let path = |text: &str| path_of(&Namespace(PathBuf::from(text)));
        assert_eq!(path("blue"), Path::new("/run/netns/blue"));
        assert_eq!(path("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
    }

    #[test]
    fn a_missing_namespace_is_named_in_the_error() {
        let missing = Namespace(PathBuf::from("/nonexistent/namespace"));
        let error = within(Some(&missing), || ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nonexistent/namespace"));
    }
}
