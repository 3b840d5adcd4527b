//! Nothing is allocated per event, from the kernel's datagram to the record log, and from there to the batch for the
//! wire and the line of a copy. Only the log's next block is allocated, once per MiB of records or per commit.

#![allow(clippy::unwrap_used)]

#[path = "support/datagram.rs"]
mod datagram;
#[path = "support/pipeline.rs"]
mod pipeline;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use nattrail::config::{Format, Version};

use pipeline::{Outputs, Pipeline, Reading};

/// The system's allocator, counting the allocations of each thread.
struct Counting;

thread_local! {
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // The counter no longer exists while its thread ends.
    let _ = BYTES.try_with(|counter| counter.set(counter.get() + bytes as u64));
}

// SAFETY: every call goes to the system's allocator as it came. Counting does not allocate: the counter is constant at
// first and needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`, and `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sessions of a round, all of them pending at once. They are so few that the memory of ended sessions never needs to
/// grow: five of them share one of its sets with a probability of one in 70,000.
const SESSIONS: u32 = 500;

/// Bytes that a round allocates per event, after rounds that made room: every session begins and ends, there is one
/// commit, and the output gets all records. The commit is not counted: it may allocate the log's next block, of the
/// size of the last one, and nothing more.
fn allocated_in_steady_state(outputs: Outputs) -> u64 {
    let is_view = matches!(outputs, Outputs::View(..));
    let mut pipeline = Pipeline::new(outputs);
    for _ in 0..3 {
        pipeline.hear(SESSIONS);
        pipeline.commit();
        pipeline.deliver();
    }
    let heard = allocated(|| pipeline.hear(SESSIONS));
    let committed = allocated(|| pipeline.commit());
    let delivered = allocated(|| pipeline.deliver());

    let records = 4 * 2 * u64::from(SESSIONS);
    assert_eq!(pipeline.records(), records);
    if !is_view {
        let (got, octets) = pipeline.delivered();
        assert!(got == records && octets > 10 * records, "{got} {octets}");
    }
    // By the documentation of the records, they take some 39 and 51 octets; a block has a few words beside them.
    let block = 2 * u64::from(SESSIONS) * 51 + 200;
    assert!((1..block).contains(&committed), "{committed} in a commit");
    heard + delivered
}

fn allocated(work: impl FnOnce()) -> u64 {
    let before = BYTES.get();
    work();
    BYTES.get() - before
}

#[test]
fn the_counting_allocator_counts() {
    let work = || drop(std::hint::black_box(vec![0_u8; 1000]));
    assert_eq!(allocated(work), 1000);
}

#[test]
fn events_triplets_and_flows_of_every_version_are_packed_without_allocating() {
    for version in [Version::NetflowV5, Version::NetflowV9, Version::Ipfix] {
        for records in [
            "\"events\"",
            "\"triplet\"",
            "\"flow\"",
            "\"events\"\nlog = \"nat\"\nsource = [\"10.1.2.0/24\"]",
            "\"flow\"\naggregation = \"203.0.113.0/24=16\"\naggregation-window = \"1s\"",
        ] {
            let allocated = allocated_in_steady_state(Outputs::Collector(version, records));
            assert_eq!(allocated, 0, "{version:?}, {records}");
        }
    }
}

#[test]
fn lines_of_every_format_are_written_without_allocating() {
    for format in [Format::Csv, Format::Text, Format::Json, Format::Rfc5424] {
        for records in ["\"events\"", "\"flow\""] {
            let allocated = allocated_in_steady_state(Outputs::Copy(format, records));
            assert_eq!(allocated, 0, "{format:?}, {records}");
        }
    }
}

#[test]
fn viewers_are_served_without_allocating_whether_they_read_or_not() {
    for filter in ["", "src=192.0.2.1 proto=tcp post=[2001:db8::/32]:443"] {
        for reading in [Reading::Everything, Reading::Nothing] {
            let allocated = allocated_in_steady_state(Outputs::View(filter, reading));
            assert_eq!(allocated, 0, "{filter:?}, reads {reading:?}");
        }
    }
}
