//! A socket that is really full and a network that is really gone, in their own namespace.

use std::fs;
use std::os::fd::AsFd;
use std::process::Command;

use nattrail::config::{self, Version};
use nattrail::export::output::Output;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::log::{BEGIN, Followed};
use crate::tools::{have, wait_for};
use crate::{at, collector, events};

#[test]
fn what_a_full_socket_cannot_take_waits() {
    if !have(&["ip"]) || !is_root() {
        return;
    }
    let namespace = Namespace::new("full");
    namespace.enter();
    let config = config::Collector {
        address: "10.99.0.2:2055".parse().unwrap(),
        // The kernel turns this into its minimum: two or three messages.
        send_buffer: Some(1),
        ..collector(Version::Ipfix)
    };
    let mut exporter = Followed::new(Output::to_collector(&config, BEGIN, at(0)));
    let records: Vec<_> = (0..100).flat_map(|_| events()).collect();
    exporter.push(&records);
    // Nobody answers for the address, so the kernel keeps the messages and the socket fills.
    exporter.drain(at(0));
    let full = exporter.metrics();
    assert!(full.messages >= 1 && full.behind > 100, "{full:?}");
    // It may be draining; if it is not, more time passes before the next attempt.
    assert_eq!(exporter.poll_timeout(), Some(at(1).up));
    exporter.drain(at(1));
    assert_eq!(exporter.metrics(), full);
    assert_eq!(exporter.poll_timeout(), Some(at(6).up));
    exporter.drain(at(5));
    assert_eq!(exporter.metrics(), full);

    namespace.resolve();
    let mut now = 10_000;
    wait_for("the socket to take the rest", || {
        now += 1000;
        exporter.drain(at(now));
        exporter.is_through()
    });
    let sent = exporter.metrics();
    assert_eq!((sent.flow_records, sent.lost, sent.errors), (400, 0, 0));
}

#[test]
fn a_lost_link_and_a_new_address_cost_no_message() {
    if !have(&["ip"]) || !is_root() {
        return;
    }
    let namespace = Namespace::new("link");
    namespace.enter();
    let config = config::Collector {
        address: "10.99.0.2:2055".parse().unwrap(),
        ..collector(Version::Ipfix)
    };
    let mut exporter = Followed::new(Output::to_collector(&config, BEGIN, at(0)));
    let mut send = |millis| {
        exporter.push(&events()[..1]);
        exporter.drain(at(millis));
        let metrics = exporter.metrics();
        let port = exporter.output.place().port;
        ((metrics.records, metrics.lost, metrics.behind), port)
    };
    namespace.resolve();
    let (sent, port) = send(0);
    assert_eq!(sent, (1, 0, 0));

    namespace.ip("link set va down");
    assert_eq!(send(1000), ((1, 0, 1), port));
    namespace.ip("link set va up");
    namespace.resolve();
    assert_eq!(send(3000), ((3, 0, 0), port));

    namespace.ip("addr del 10.99.0.1/24 dev va");
    namespace.ip("addr add 10.99.0.7/24 dev va");
    namespace.resolve();
    // It connects anew, from the port by which the collector knows it.
    assert_eq!(send(4000), ((4, 0, 0), port));
}

/// A network namespace of its own, removed when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    /// A namespace with a link to a network on which nobody answers.
    fn new(test: &str) -> Self {
        let name = format!("nattrail-{test}-{}", std::process::id());
        let namespace = Self { name };
        namespace.run(&["netns", "add", &namespace.name]);
        namespace.ip("link add va type veth peer name vb");
        namespace.ip("addr add 10.99.0.1/24 dev va");
        namespace.ip("link set vb up");
        namespace.ip("link set va up");
        namespace
    }

    /// Gives the collector a link-layer address.
    fn resolve(&self) {
        self.ip("neigh replace 10.99.0.2 lladdr 02:00:00:00:00:02 dev va");
    }

    fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split(' '));
        self.run(&all);
    }

    fn run(&self, arguments: &[&str]) {
        let output = Command::new("ip").args(arguments).output().unwrap();
        assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    }

    /// Moves the calling thread, which ends with its test.
    fn enter(&self) {
        let file = fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT TESTED: this test makes a network namespace and needs root");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "root is needed in CI"
        );
    }
    root
}
