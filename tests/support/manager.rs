//! A service manager as the daemon sees it: a socket for its messages, and a store for its descriptors.
//!
//! It handles them as systemd does by sd_notify(3) and sd_listen_fds(3), as far as the daemon uses it: it keeps a
//! descriptor once, however often it is sent, until its name is removed, and does not watch it.

use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use super::daemon::{Daemon, Home, PROGRAM};
use super::netns::Namespace;
use super::wait_for;

/// One message, and the time of its arrival.
#[derive(Clone, Debug)]
pub struct Message {
    pub at: Instant,
    pub text: String,
}

impl Message {
    /// The value of a `KEY=value` line.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }
}

#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Message>,
    store: Vec<(String, OwnedFd)>,
}

#[derive(Debug)]
pub struct Manager {
    directory: TempDir,
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Manager {
    #[must_use]
    pub fn new() -> Self {
        let directory = TempDir::with_prefix("nattrail-test-").unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (sink, stopped) = (Arc::clone(&heard), Arc::clone(&stop));
        let reader = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some((text, descriptor)) = receive(&socket) {
                    sink.lock().unwrap().handle(text, descriptor);
                }
            }
        });
        Self {
            directory,
            heard,
            stop,
            reader: Some(reader),
        }
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// Starts the daemon with the content of the store and returns when it reports that it is ready.
    #[must_use]
    pub fn start(&self, namespace: &Namespace, home: &Home) -> Daemon {
        self.start_with(namespace, home, &[])
    }

    /// The same with more in its environment.
    #[must_use]
    pub fn start_with(&self, namespace: &Namespace, home: &Home, more: &[(&str, &str)]) -> Daemon {
        let before = self.count("READY");
        let mut command = self.command(home);
        command.envs(more.iter().copied());
        let daemon = Daemon::spawn(namespace, &mut command);
        wait_for(
            &format!("READY=1; it logged {:#?}", daemon.logged()),
            || (self.count("READY") > before).then_some(()),
        );
        daemon
    }

    /// The store's only descriptor reaches the daemon as its standard input, which the shell in between turns into number 3.
    fn command(&self, home: &Home) -> Command {
        let heard = self.heard.lock().unwrap();
        let mut command = match heard.store.as_slice() {
            [] => home.command(),
            [(name, descriptor)] => {
                let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$@\"";
                let mut command = Command::new("sh");
                command.args(["-c", script, "sh", PROGRAM, "run", "--config"]);
                command.arg(home.config());
                home.dress(&mut command);
                command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
                command.stdin(descriptor.try_clone().unwrap());
                command
            }
            more => panic!("one descriptor is enough: {more:?}"),
        };
        command.env("NOTIFY_SOCKET", self.socket());
        command
    }

    /// Every message so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.heard.lock().unwrap().messages.clone()
    }

    /// How many messages so far have a line `KEY=1`.
    #[must_use]
    pub fn count(&self, key: &str) -> usize {
        let messages = self.messages();
        let said = |message: &&Message| message.value(key) == Some("1");
        messages.iter().filter(said).count()
    }

    /// The names in the store.
    #[must_use]
    pub fn stored(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Puts a descriptor into the store in place of all others.
    pub fn replace_store(&self, name: &str, descriptor: impl Into<OwnedFd>) {
        self.heard.lock().unwrap().store = vec![(name.to_owned(), descriptor.into())];
    }

    /// Takes the only descriptor out of the store.
    #[must_use]
    pub fn take_stored(&self) -> OwnedFd {
        let (_, descriptor) = self.heard.lock().unwrap().store.pop().unwrap();
        descriptor
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Heard {
    fn handle(&mut self, text: String, descriptor: Option<OwnedFd>) {
        let message = Message {
            at: Instant::now(),
            text,
        };
        let name = message.value("FDNAME").unwrap_or("stored").to_owned();
        if message.value("FDSTOREREMOVE") == Some("1") {
            self.store.retain(|(other, _)| *other != name);
        }
        if let Some(descriptor) = descriptor {
            assert_eq!(message.value("FDSTORE"), Some("1"), "{message:?}");
            let known = |(_, other): &(String, OwnedFd)| inode(other) == inode(&descriptor);
            if !self.store.iter().any(known) {
                self.store.push((name, descriptor));
            }
        }
        self.messages.push(message);
    }
}

/// The number that identifies a socket.
fn inode(descriptor: impl AsFd) -> u64 {
    rustix::fs::fstat(descriptor).unwrap().st_ino
}

fn receive(socket: &UnixDatagram) -> Option<(String, Option<OwnedFd>)> {
    let mut buffer = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut vector = [IoSliceMut::new(&mut buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let length = recvmsg(socket, &mut vector, &mut ancillary, flags)
        .ok()?
        .bytes;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let mut text = String::new();
    (&buffer[..length]).read_to_string(&mut text).unwrap();
    Some((text, descriptor))
}
