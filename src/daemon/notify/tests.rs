//! The notifier against a socket that plays the service manager, with time injected.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::PathBuf;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use super::*;
use crate::time::Wall;

fn at(millis: u64) -> Now {
    Now::new(Wall::from_secs(1_800_000_000), Uptime::from_millis(millis))
}

/// A service manager that hears the notifier.
struct Manager {
    socket: UnixDatagram,
    _directory: TempDir,
}

/// Variables of the environment.
type Variables = Vec<(&'static str, String)>;

fn manager(mut variables: Variables) -> (Manager, Notifier) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    variables.push(("NOTIFY_SOCKET", path.to_str().unwrap().to_owned()));
    let manager = Manager {
        socket,
        _directory: directory,
    };
    (manager, notifier(&variables))
}

fn notifier(variables: &Variables) -> Notifier {
    let variable = |wanted: &str| {
        let mut variables = variables.iter();
        let (_, value) = variables.find(|(name, _)| *name == wanted)?;
        Some(value.into())
    };
    Notifier::new(variable, at(0))
}

impl Manager {
    fn hear(&self) -> Option<String> {
        let mut buffer = [0; 512];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn take_descriptor(&self) -> (String, OwnedFd) {
        let mut buffer = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [std::io::IoSliceMut::new(&mut buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let text = String::from_utf8(buffer[..received.bytes].to_vec()).unwrap();
        (text, descriptor.unwrap())
    }
}

fn watchdog(usec: &str, pid: Option<u32>) -> Variables {
    let usec = ("WATCHDOG_USEC", usec.to_owned());
    let pid = pid.map(|pid| ("WATCHDOG_PID", pid.to_string()));
    [usec].into_iter().chain(pid).collect()
}

#[test]
fn states_are_said_one_per_datagram() {
    let (manager, mut notifier) = manager(Variables::new());
    notifier.ready("all well", at(0));
    notifier.stopping(at(1));
    assert_eq!(manager.hear().unwrap(), "READY=1\nSTATUS=all well");
    assert!(manager.hear().unwrap().starts_with("STOPPING=1\n"));
    assert_eq!(manager.hear(), None);
}

#[test]
fn a_reload_says_when_it_began_by_the_monotonic_clock() {
    let (manager, mut notifier) = manager(Variables::new());
    let before = clock::monotonic_micros();
    notifier.reloading(at(0));
    let text = manager.hear().unwrap();
    let began = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!((before..=clock::monotonic_micros()).contains(&began.parse().unwrap()));
}

#[test]
fn an_abstract_name_is_a_socket_too() {
    let name = format!("nattrail-notify-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let variables = vec![("NOTIFY_SOCKET", format!("@{name}"))];
    notifier(&variables).ready("", at(0));
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1\nSTATUS=");
}

#[test]
fn a_descriptor_is_handed_over_unwatched_under_its_name() {
    let (manager, mut notifier) = manager(Variables::new());
    let (mut near, far) = UnixStream::pair().unwrap();
    let name = stored_name(None);
    notifier.store(&name, far.as_fd(), at(0));
    drop(far);
    assert!(notifier.is_heard());
    let (text, descriptor) = manager.take_descriptor();
    assert_eq!(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=nattrail-events");
    near.write_all(b"x").unwrap();
    let mut received = [0];
    UnixStream::from(descriptor)
        .read_exact(&mut received)
        .unwrap();
    assert_eq!(&received, b"x");
}

#[test]
fn a_manager_that_does_not_read_gets_everything_in_order_later() {
    let (manager, mut notifier) = manager(Variables::new());
    let mut sent = 0;
    while notifier.is_heard() {
        notifier.ready(&sent.to_string(), at(0));
        sent += 1;
    }
    notifier.stopping(at(0));
    assert_eq!(notifier.poll_timeout(), Some(Uptime::from_millis(50)));
    for number in 0..sent - 1 {
        assert_eq!(manager.hear(), Some(format!("READY=1\nSTATUS={number}")));
    }
    assert_eq!(manager.hear(), None, "nothing before its time");
    notifier.handle_timeout(at(50));
    assert!(manager.hear().unwrap().starts_with("READY=1\n"));
    assert!(manager.hear().unwrap().starts_with("STOPPING=1\n"));
    assert_eq!(notifier.poll_timeout(), None);
}

#[test]
fn a_manager_that_is_gone_is_left_alone() {
    let (manager, mut notifier) = manager(watchdog("1000000", None));
    drop(manager);
    notifier.ready("", at(0));
    assert!(!notifier.is_heard());
    assert_eq!(notifier.poll_timeout(), None);
}

#[test]
fn without_a_manager_nothing_is_said() {
    let mut notifier = notifier(&watchdog("1000000", None));
    notifier.ready("", at(0));
    assert!(!notifier.is_heard());
    assert_eq!(notifier.poll_timeout(), None);
}

#[test]
fn signs_of_life_come_twice_per_interval() {
    let (manager, mut notifier) = manager(watchdog("3000000", Some(std::process::id())));
    assert_eq!(notifier.poll_timeout(), Some(Uptime::from_millis(1500)));
    notifier.handle_timeout(at(1499));
    assert_eq!(manager.hear(), None);
    notifier.handle_timeout(at(1600));
    assert_eq!(manager.hear().unwrap(), "WATCHDOG=1");
    assert_eq!(notifier.poll_timeout(), Some(Uptime::from_millis(3100)));
}

#[test]
fn the_watchdog_of_another_process_is_not_ours() {
    let (_manager, notifier) = manager(watchdog("3000000", Some(1)));
    assert_eq!(notifier.poll_timeout(), None);
    let (_manager, notifier) = self::manager(watchdog("nonsense", None));
    assert_eq!(notifier.poll_timeout(), None);
}

#[test]
fn the_stored_name_says_the_namespace_in_the_characters_allowed() {
    let name = |path: &str| stored_name(Some(&Namespace(PathBuf::from(path))));
    assert_eq!(name("blue"), "nattrail-events@blue");
    assert_eq!(name("/run/a:b\n\u{e9}"), "nattrail-events@/run/a_b__");
    assert_eq!(name(&"x".repeat(300)).len(), 255);
}
