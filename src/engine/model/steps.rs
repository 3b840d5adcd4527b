//! Everything that can happen between the kernel and the engine, in random order.

use proptest::prelude::*;

use super::PORTS;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Begin(u16),
    End(u16),
    /// The receive buffer is full from here on, or has room again.
    Full(bool),
    /// So many events are read; if none are left, the engine is told.
    Read(usize),
    /// An end that was read is sent again, because another listener could not take it.
    RepeatEnd(usize),
    /// The same of the beginning of a connection that is open.
    RepeatBegin(u16),
    /// The kernel tries again to deliver an end from the dying list.
    Redeliver(usize),
    RequestAudit,
    /// The kernel makes the next piece of a dump.
    MakePiece,
    ReadPiece,
    FailDump,
    Timeout,
    Commit,
    CommitFails,
    /// Kill and restart; what was not committed is forgotten, and what was queued is gone.
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
    /// So many ends that the memory of them has always forgotten those that came before.
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
