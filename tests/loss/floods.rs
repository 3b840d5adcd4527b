//! Hundreds of thousands of sessions end at once: the kernel owes their ends for a while, to us or to another listener.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::Value;

use nattrail::config::{Capture, LogScope, Namespace};
use nattrail::kernel::conntrack::{Batch, EventSocket};
use nattrail::kernel::namespace::within;

use crate::generator::{Generator, Rate, Until};
use crate::network::{Network, is_possible};
use crate::support::daemon::{Daemon, Home};
use crate::support::netns;
use crate::support::status::{ask, assert_conserved, number};
use crate::support::wait_until;

const PATIENCE: Duration = Duration::from_secs(120);

/// Another program that wants reliable delivery, has a tiny buffer, and reads on command.
pub struct SlowListener {
    socket: EventSocket,
    capture: Capture,
}

impl SlowListener {
    pub fn open(gateway: &netns::Namespace) -> Self {
        let capture = Capture {
            namespace: None,
            table: "other".to_owned(),
            log: LogScope::All,
            mark: None,
            protocols: Vec::new(),
            source: Vec::new(),
            destination: Vec::new(),
            zone: None,
            set_sysctls: false,
            receive_buffer: 4096,
            reliable: true,
            resync: None,
            active_timeout: None,
        };
        let namespace = Namespace(gateway.path());
        let socket = within(Some(&namespace), || {
            EventSocket::open(&capture, &[capture.selection()])
        });
        Self {
            socket: socket.unwrap().unwrap(),
            capture,
        }
    }

    /// Enlarges its receive buffer.
    fn grow(&mut self, receive_buffer: usize) {
        self.capture.receive_buffer = receive_buffer;
        self.socket.configure(&self.capture).unwrap();
    }

    /// Reads all queued events.
    pub fn read(&self) {
        let mut batch = Batch::new();
        while self.socket.receive(&mut batch).is_ok() {}
    }
}

/// A gateway with the daemon on it, whose collector takes as much as it can.
struct Scene {
    daemon: Daemon,
    home: Home,
    network: Network,
    _collector: UdpSocket,
}

impl Scene {
    fn new(configuration: &str) -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let network = Network::new(Duration::from_secs(600));
        let bind = || UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let collector = network.gateway().run(bind);
        let address = collector.local_addr().unwrap();
        let output = format!("[[collector]]\naddress = \"{address}\"\nversion = \"ipfix\"\n");
        let home = Home::new(&format!("{configuration}{output}"));
        let daemon = Daemon::start(network.gateway(), &home);
        let _ = daemon.wait_for_message("started");
        Some(Self {
            daemon,
            home,
            network,
            _collector: collector,
        })
    }

    /// Begins `count` sessions and returns how many the kernel has.
    fn begin(&self, count: u64) -> u64 {
        let until = Until {
            duration: PATIENCE,
            count,
        };
        Generator::new(self.network.client(), 40_000).run(Rate::Full, until);
        self.network.made()
    }

    fn wait_for_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let status = wait_until(Instant::now() + PATIENCE, || {
            let status = ask(&self.home);
            assert_conserved(&status);
            is_so(&status).then_some(status)
        });
        status.unwrap_or_else(|| panic!("waited for {what} in {:#}", ask(&self.home)))
    }

    /// Asserts that every session has had its two records, and that nothing else has happened.
    fn assert_exact(&self, made: u64) {
        let status = self.wait_for_status("all ends, and an audit after them", |status| {
            number(status, "/sessions/pending") == 0 && number(status, "/sessions/unkept") == 0
        });
        let [creates, deletes, inferred] = ["creates", "deletes", "inferred_ends"]
            .map(|name| number(&status, &format!("/sessions/{name}")));
        assert_eq!((creates, deletes, inferred), (made, made, 0), "{status:#}");
        let gaps = status["gaps"].as_object().unwrap().values();
        assert_eq!(gaps.map(|gap| number(gap, "/count")).sum::<u64>(), 0);
    }
}

#[test]
fn a_flush_of_far_more_than_are_kept_into_a_small_buffer_makes_no_record_too_many() {
    let configuration = "[capture]
         set-sysctls = true
         receive-buffer = \"128KiB\"
         [pending]
         max = 20000
         ";
    let Some(scene) = Scene::new(configuration) else {
        return;
    };
    let made = scene.begin(240_000);
    scene.network.end_connections();
    assert!(scene.network.wait_until_empty(PATIENCE));
    scene.assert_exact(made);
    scene.daemon.terminate();
}

#[test]
fn ends_that_the_kernel_repeats_for_another_listener_make_no_record_however_many_they_are() {
    // All ends fit: those that do not would only come again after the other listener has had the earlier ones.
    let configuration = "[capture]
         set-sysctls = true
         receive-buffer = \"512MiB\"
         ";
    let Some(scene) = Scene::new(configuration) else {
        return;
    };
    let mut slow = SlowListener::open(scene.network.gateway());
    let made = scene.begin(240_000);
    scene.network.end_connections();
    scene.wait_for_status("every end", |status| {
        number(status, "/sessions/deletes") >= made
    });
    assert!(
        scene.network.entries() > made - 1000,
        "the kernel still owes them"
    );
    slow.grow(64 << 20);
    let is_done = || {
        slow.read();
        (scene.network.entries() < 5).then_some(())
    };
    wait_until(Instant::now() + PATIENCE, is_done).unwrap();
    let status = scene.wait_for_status("the repetitions", |status| {
        number(status, "/sessions/duplicates") >= made - 1000
    });
    // The NEW of a session that the first audit found is also a repetition.
    assert_eq!(
        number(&status, "/sessions/duplicates") + made,
        number(&status, "/events/destroy") + number(&status, "/sessions/adopted"),
        "{status:#}"
    );
    scene.assert_exact(made);
    scene.daemon.terminate();
}
