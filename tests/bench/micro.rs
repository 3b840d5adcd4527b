//! The cost of each step of an event by itself: decode, pair, encode, store. Nothing here needs root.
//!
//! Allocated bytes are shown beside the times; where they must be zero, `tests/allocations.rs` checks them.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

#[path = "../support/datagram.rs"]
mod datagram;
#[path = "../support/pipeline.rs"]
mod pipeline;

use std::time::Duration;

use divan::{AllocProfiler, Bencher, black_box, counter::ItemsCount};
use nattrail::config::{Format, Version};
use nattrail::export::queue::Queue;
use nattrail::export::view::filter::Filter;
use nattrail::export::view::{Line, View};
use nattrail::place::Serial;
use nattrail::store::{Commit, Store};
use nattrail::time::Wall;
use nattrail::wire::ctnetlink::Event;
use nattrail::wire::record::Block;

use datagram::{DESTROY, NEW, renumber};
use pipeline::NOW;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Sessions of one commit.
const COMMITTED: u32 = 10_000;
/// Octets of a block of records.
const BLOCK: usize = 1 << 20;

fn main() {
    divan::main();
}

#[divan::bench]
fn decode_new(bencher: Bencher<'_, '_>) {
    let datagram = datagram::bytes(NEW);
    bencher.bench(|| pipeline::decode(black_box(&datagram)));
}

#[divan::bench]
fn decode_destroy(bencher: Bencher<'_, '_>) {
    let datagram = datagram::bytes(DESTROY);
    bencher.bench(|| pipeline::decode(black_box(&datagram)));
}

/// One of `pending` sessions ends and begins again, each time another one: its memory is seldom in a cache. Decoding is
/// included.
#[divan::bench(args = [1_000, 10_000, 100_000, 1_000_000, 2_000_000])]
fn pair_new_and_destroy(bencher: Bencher<'_, '_>, pending: u32) {
    let (mut new, mut destroy) = (datagram::bytes(NEW), datagram::bytes(DESTROY));
    let mut engine = pipeline::engine();
    for number in 0..pending {
        renumber(&mut new, number);
        engine.handle_events(&[pipeline::decode(&new)], NOW);
        let _ = engine.poll_record();
    }
    while engine.handle_committed() {}
    let mut number = 0_u32;
    let mut start = Wall::from_millis(datagram::START).as_nanos();
    bencher.bench_local(|| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let chosen = ((u64::from(number) * u64::from(pending)) >> 32) as u32;
        renumber(&mut destroy, chosen);
        let mut end = pipeline::decode(black_box(&destroy));
        if let Event::Destroy(flow) = &mut end {
            // Otherwise it would be taken for the earlier end when its number recurs.
            start -= 1;
            flow.start = Some(Wall::from_nanos(start));
        }
        engine.handle_events(&[end], NOW);
        renumber(&mut new, chosen);
        engine.handle_events(&[pipeline::decode(black_box(&new))], NOW);
        let records = (engine.poll_record(), engine.poll_record());
        // As a flush does; without one the list of what has begun would grow.
        engine.handle_committed();
        records
    });
}

/// A create and a delete.
#[divan::bench(args = [Version::NetflowV5, Version::NetflowV9, Version::Ipfix])]
fn encode_events(bencher: Bencher<'_, '_>, version: &Version) {
    encode(bencher, *version, "\"events\"");
}

/// A create, which the triplet does not show, and a delete.
#[divan::bench(args = [Version::NetflowV5, Version::NetflowV9, Version::Ipfix])]
fn encode_triplet(bencher: Bencher<'_, '_>, version: &Version) {
    encode(bencher, *version, "\"triplet\"");
}

/// The same of flows.
#[divan::bench(args = [Version::NetflowV5, Version::NetflowV9, Version::Ipfix])]
fn encode_flow(bencher: Bencher<'_, '_>, version: &Version) {
    encode(bencher, *version, "\"flow\"");
}

fn encode(bencher: Bencher<'_, '_>, version: Version, records: &str) {
    let mut encoder = pipeline::flow_encoder(version, records);
    let mut queue = Queue::new();
    let [create, delete] = pipeline::records();
    let mut encode =
        move |record| pipeline::encode(&mut encoder, black_box(record), Serial(1), NOW, &mut queue);
    bencher.bench_local(|| encode(&create) + encode(&delete));
}

/// The lines of a delete.
#[divan::bench(args = [Format::Csv, Format::Text, Format::Json, Format::Rfc5424])]
fn write_lines(bencher: Bencher<'_, '_>, format: &Format) {
    let mut encoder = pipeline::line_encoder(*format, "\"events\"");
    let mut queue = Queue::new();
    let [_, delete] = pipeline::records();
    bencher.bench_local(|| {
        pipeline::encode(&mut encoder, black_box(&delete), Serial(1), NOW, &mut queue)
    });
}

/// A create and a delete into a block of the record log.
#[divan::bench]
fn log_records(bencher: Bencher<'_, '_>) {
    let records = pipeline::records();
    let mut block = Block::new(Serial(1), Vec::with_capacity(BLOCK + 1000));
    bencher.bench_local(|| {
        for record in &records {
            block.push(black_box(record));
        }
        if block.bytes.len() > BLOCK {
            block.bytes.clear();
        }
    });
}

/// A create and a delete out of a block of the record log.
#[divan::bench]
fn read_log(bencher: Bencher<'_, '_>) {
    let records = pipeline::records();
    let mut block = Block::new(Serial(1), Vec::new());
    while block.bytes.len() < BLOCK {
        records.iter().for_each(|record| block.push(record));
    }
    let mut offset = 0;
    bencher.bench_local(|| {
        if offset == block.bytes.len() {
            offset = 0;
        }
        let mut read = || black_box(&block).record_at(&mut offset).unwrap();
        (read(), read())
    });
}

/// A create and a delete for one viewer: of nothing, of everything, and of everything without reading it.
#[divan::bench(args = ["nothing", "everything", "unread"])]
fn show(bencher: Bencher<'_, '_>, viewer: &str) {
    let filter = if viewer == "nothing" {
        "src=192.0.2.1"
    } else {
        ""
    };
    let mut view = View::new(Filter::parse(filter).unwrap());
    let mut line = Line::default();
    let [create, delete] = pipeline::records();
    let mut now = NOW;
    bencher.bench_local(|| {
        for record in [&create, &delete] {
            line.clear();
            view.push(black_box(record), &mut line, now);
            if viewer != "unread" {
                view.consume(view.contiguous().len());
            }
            // Otherwise there would be no more lines after the first second.
            now.up = now.up.saturating_add(Duration::from_millis(1));
        }
    });
}

/// One commit with new sessions and their records, to a file.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn commit(bencher: Bencher<'_, '_>) {
    let directory = tempfile::TempDir::new().unwrap();
    let mut store = Store::open(&directory.path().join("pending.db")).unwrap();
    let mut new = datagram::bytes(NEW);
    let mut next = 0;
    bencher
        .counter(ItemsCount::new(COMMITTED))
        .with_inputs(|| {
            let mut engine = pipeline::engine();
            let mut block = Block::new(Serial(u64::from(next) + 1), Vec::new());
            for _ in 0..COMMITTED {
                renumber(&mut new, next);
                next += 1;
                engine.handle_events(&[pipeline::decode(&new)], NOW);
                block.push(&engine.poll_record().unwrap());
            }
            (engine, block)
        })
        .bench_local_values(|(engine, block)| {
            let commit = Commit {
                changes: &engine.changes(),
                blocks: vec![&block],
                evicted: &[],
                places: &[],
                needed: block.first,
                next: block.end(),
                run: NOW.wall,
                heard: NOW.wall,
                socket: None,
                stopped: None,
                durable: false,
            };
            store.commit(&commit).unwrap();
            (engine, block)
        });
}
