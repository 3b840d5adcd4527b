//! A restart as collectors see it: headers read by the RFCs' layout, without the code that wrote them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::support::collector::Receiver;
use crate::support::daemon::Daemon;
use crate::support::store::{next_sequence, wait_until_all_is_taken};
use crate::support::wait_for;
use crate::{Scene, wait_for_kind};

/// The header of one message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Header {
    version: u16,
    from: SocketAddr,
    sequence: u32,
    /// Its increment of the sequence: flows (v5), messages (v9), data records (IPFIX).
    counts: u32,
    begins_with_templates: bool,
}

/// Reads messages in the layout of RFC 7011 section 3, RFC 3954 section 5 and NetFlow v5.
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

/// The data records of an IPFIX message by its templates, which this remembers.
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
    let addresses = ports.map(|(_, port)| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut lengths = BTreeMap::new();
    let mut total = |index: usize| headers(&receivers[index], &mut lengths);

    let mut next_port = 40_000;
    let mut serve = |daemon: &Daemon, sessions: u16| {
        for _ in 0..sessions {
            scene.udp(next_port).exchange(1, 1);
            next_port += 1;
        }
        scene.net.end_connections();
        wait_for_kind(daemon, "delete", sessions.into());
    };
    // The numbers are those of the database, which is up to date.
    let mut wait_until_read = || {
        for (index, address) in addresses.into_iter().enumerate() {
            let expected = next_sequence(&scene.home, address);
            wait_for("the collectors to have read all", || {
                let last = *total(index).last()?;
                (last.sequence + last.counts == expected).then_some(())
            });
        }
        [0, 1, 2].map(&mut total)
    };
    let mut first_of_run = Vec::new();
    let mut seen = [0; 3];
    for run in 0..3 {
        first_of_run.push(seen);
        let daemon = scene.start();
        serve(&daemon, 20 + run);
        daemon.terminate();
        seen = wait_until_read().map(|headers| headers.len());
    }
    for (index, headers) in wait_until_read().iter().enumerate() {
        assert_one_session(headers);
        for first in &first_of_run {
            let first = headers[first[index]];
            assert_eq!(first.begins_with_templates, first.version != 5, "{first:?}");
        }
    }

    // After a crash the progress of the sequence is unknown: a new transport session begins.
    let daemon = scene.start();
    serve(&daemon, 5);
    wait_until_all_is_taken(&scene.home);
    let before = wait_until_read();
    daemon.kill();
    let daemon = scene.start();
    serve(&daemon, 5);
    daemon.terminate();
    for (before, after) in before.iter().zip(wait_until_read()) {
        let (earlier, new) = after.split_at(before.len());
        assert_eq!(earlier, before);
        assert_one_session(new);
        assert_eq!(new[0].sequence, 0);
        assert_eq!(new[0].begins_with_templates, new[0].version != 5);
        assert_eq!(new[0].from.ip(), before[0].from.ip());
        assert_ne!(new[0].from.port(), before[0].from.port());
    }
}

/// All messages come from one port, and no number is missing or repeated.
fn assert_one_session(headers: &[Header]) {
    for pair in headers.windows(2) {
        let next = pair[0].sequence + pair[0].counts;
        assert_eq!(next, pair[1].sequence, "{pair:?}");
        assert_eq!(pair[0].from, pair[1].from, "the same exporter");
    }
}
