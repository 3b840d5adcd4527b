//! Everything that can happen between the kernel and the engine, in random order.

use proptest::prelude::*;

use super::PORTS;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Begin(u16),
    End(u16),
    /// The receive buffer is full from here on, or has room again.
    Full(bool),
    /// The engine reads this many events; if none are left, it is told.
    Read(usize),
    /// An end that was read is sent again, because another listener could not take it.
    RepeatEnd(usize),
    /// The same for the beginning of an open connection.
    RepeatBegin(u16),
    /// The kernel tries again to deliver an end from the dying list.
    Redeliver(usize),
    /// A connection that is open transfers so much more.
    Transfer(u16, u64),
    Sweep,
    RequestAudit,
    /// The kernel makes the next piece of a dump.
    MakePiece,
    ReadPiece,
    FailDump,
    Timeout,
    Commit,
    CommitFails,
    /// Kill and restart; changes not committed are forgotten, and queued events are lost.
    Crash,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let port = || 0..PORTS;
    prop_oneof![
        6 => port().prop_map(Step::Begin),
        6 => port().prop_map(Step::End),
        1 => any::<bool>().prop_map(Step::Full),
        6 => (1..5_usize).prop_map(Step::Read),
        1 => any::<usize>().prop_map(Step::RepeatEnd),
        1 => port().prop_map(Step::RepeatBegin),
        2 => any::<usize>().prop_map(Step::Redeliver),
        3 => (port(), 0..1000_u64).prop_map(|(port, octets)| Step::Transfer(port, octets)),
        3 => Just(Step::Sweep),
        1 => Just(Step::RequestAudit),
        6 => Just(Step::MakePiece),
        6 => Just(Step::ReadPiece),
        1 => Just(Step::FailDump),
        3 => Just(Step::Timeout),
        3 => Just(Step::Commit),
        1 => Just(Step::CommitFails),
        1 => Just(Step::Crash),
    ]
}

/// Properties of the kernel and its configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// `nf_conntrack_timestamp`.
    pub(super) timestamps: bool,
    /// Whether events say when they happened (with `timestamps`).
    pub(super) event_times: bool,
    pub(super) reliable: bool,
    /// Ends so numerous that the memory has always forgotten the earlier ones.
    pub(super) forgets: bool,
}

pub(super) fn kind() -> impl Strategy<Value = Kind> {
    any::<[bool; 4]>().prop_map(|[timestamps, event_times, reliable, forgets]| Kind {
        timestamps,
        event_times: event_times && timestamps,
        reliable,
        forgets,
    })
}
