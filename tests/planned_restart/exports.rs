//! What collectors see of a restart: headers read as the RFCs lay them out, without the code that wrote them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::support::collector::Receiver;
use crate::support::daemon::Daemon;
use crate::support::status::{ask, number};
use crate::support::wait_for;
use crate::{Scene, wait_for_kind};

/// One message in the words of its header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Header {
    version: u16,
    from: SocketAddr,
    sequence: u32,
    /// By how much it moves the sequence on: flows (v5), messages (v9), data records (IPFIX).
    counts: u32,
    begins_with_templates: bool,
}

/// Reads messages as RFC 7011 section 3, RFC 3954 section 5 and NetFlow v5 lay them out.
fn headers(receiver: &Receiver, lengths: &mut BTreeMap<u16, usize>) -> Vec<Header> {
    let datagrams = receiver.so_far();
    datagrams
        .iter()
        .map(|datagram| {
            let bytes = &datagram.payload;
            let half = |at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            let (sequence, sets) = match half(0) {
                5 => (word(16), None),
                9 => (word(12), Some(20)),
                10 => (word(8), Some(16)),
                other => panic!("version {other}"),
            };
            let records = sets.map(|sets| ipfix_records(bytes, sets, lengths));
            Header {
                version: half(0),
                from: datagram.from,
                sequence,
                counts: match half(0) {
                    5 => half(2).into(),
                    9 => 1,
                    _ => records.unwrap(),
                },
                begins_with_templates: sets.is_some_and(|sets| half(sets) < 4),
            }
        })
        .collect()
}

/// The data records of an IPFIX message by its templates, which are remembered.
fn ipfix_records(bytes: &[u8], sets: usize, lengths: &mut BTreeMap<u16, usize>) -> u32 {
    let half = |at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
    if half(0) != 10 {
        return 0;
    }
    let mut records = 0;
    let mut at = sets;
    while at < bytes.len() {
        let (id, end) = (half(at), at + usize::from(half(at + 2)));
        let mut record = at + 4;
        while id < 4 && record + 4 <= end {
            let (template, fields) = (half(record), usize::from(half(record + 2)));
            record += if id == 3 { 6 } else { 4 };
            let field = |index: usize| usize::from(half(record + 4 * index + 2));
            lengths.insert(template, (0..fields).map(field).sum());
            record += 4 * fields;
        }
        if id >= 256 {
            let length = lengths[&id];
            records += u32::try_from((end - at - 4) / length).unwrap();
        }
        at = end;
    }
    records
}

#[test]
fn collectors_see_one_exporter_that_goes_on() {
    let collector = |version: &str, port: u16| {
        format!(
            "[[collector]]\naddress = \"127.0.0.1:{port}\"\nversion = \"{version}\"\n\
             export-delay = \"50ms\"\n"
        )
    };
    let ports = [("v5", 2055), ("v9", 2056), ("ipfix", 4739)];
    let collectors = ports
        .map(|(version, port)| collector(version, port))
        .concat();
    let Some(scene) = Scene::new("", &collectors) else {
        return;
    };
    let receivers =
        ports.map(|(_, port)| Receiver::bind(&scene.net.gateway, ([127, 0, 0, 1], port).into()));
    let mut lengths = BTreeMap::new();
    let mut total = |index: usize| headers(&receivers[index], &mut lengths);

    let mut first_of_run = Vec::new();
    let mut next_port = 40_000;
    let mut serve = |daemon: &Daemon, sessions: u16| {
        for _ in 0..sessions {
            scene.udp(next_port).exchange(1, 1);
            next_port += 1;
        }
        scene.net.end_connections();
        wait_for_kind(daemon, "delete", sessions.into());
    };
    for run in 0..3 {
        first_of_run.push([0, 1, 2].map(|index| receivers[index].so_far().len()));
        let daemon = scene.start();
        serve(&daemon, 20 + run);
        daemon.terminate();
        // Over loopback everything is there by now, but perhaps not read.
        thread::sleep(Duration::from_millis(100));
    }
    for index in 0..3 {
        let headers = total(index);
        for pair in headers.windows(2) {
            assert_eq!(
                pair[0].sequence + pair[0].counts,
                pair[1].sequence,
                "{pair:?}"
            );
            assert_eq!(pair[0].from, pair[1].from, "the same exporter");
        }
        for first in &first_of_run {
            let first = headers[first[index]];
            assert_eq!(first.begins_with_templates, first.version != 5, "{first:?}");
        }
    }

    // After a crash it is not known how far the sequence got: it leaps, and no number comes twice.
    let daemon = scene.start();
    serve(&daemon, 5);
    // Until all has left, and the store knows: the commit after the next began after that.
    let commits = number(&ask(&scene.home), "/store/commits");
    wait_for("all to leave and to be noted", || {
        let metrics = ask(&scene.home);
        let queued = |index| number(&metrics, &format!("/outputs/{index}/behind"));
        let left = (0..3).all(|index| queued(index) == 0);
        (left && number(&metrics, "/store/commits") > commits + 1).then_some(())
    });
    daemon.kill();
    let before: Vec<usize> = receivers
        .iter()
        .map(|receiver| receiver.so_far().len())
        .collect();
    let daemon = scene.start();
    serve(&daemon, 5);
    daemon.terminate();
    thread::sleep(Duration::from_millis(100));
    for (index, before) in before.into_iter().enumerate() {
        let headers = total(index);
        let (last, next) = (headers[before - 1], headers[before]);
        let leap = next.sequence - (last.sequence + last.counts);
        assert!(
            (1 << 23..=1 << 24).contains(&leap),
            "{leap} from {last:?} to {next:?}"
        );
        assert_eq!(next.begins_with_templates, next.version != 5);
    }
}
