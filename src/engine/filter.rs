//! The selection of the sessions that are logged.

use crate::config::{Capture, LogScope, MarkFilter, Prefix};
use crate::session::{Protocol, Session};

/// The conditions of `[capture]`; a session is logged when all of them hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    log: LogScope,
    mark: Option<MarkFilter>,
    protocols: Vec<Protocol>,
    source: Vec<Prefix>,
    destination: Vec<Prefix>,
}

impl Filter {
    pub fn new(capture: &Capture) -> Self {
        Self {
            log: capture.log,
            mark: capture.mark,
            protocols: capture.protocols.clone(),
            source: capture.source.clone(),
            destination: capture.destination.clone(),
        }
    }

    /// Whether it may reject a session at its beginning and accept it at its end.
    pub const fn has_mark(&self) -> bool {
        self.mark.is_some()
    }

    pub fn accepts(&self, session: &Session) -> bool {
        let pre = session.pre_nat();
        (self.log == LogScope::All || !session.translation().is_none())
            && self.mark.is_none_or(|mark| mark.accepts(session.mark))
            && (self.protocols.is_empty() || self.protocols.contains(&session.protocol))
            && (self.source.is_empty() || self.source.iter().any(|net| net.contains(pre.src)))
            && (self.destination.is_empty()
                || self.destination.iter().any(|net| net.contains(pre.dst)))
    }
}
