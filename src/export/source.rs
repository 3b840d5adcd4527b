//! The record log as an output reads it.

use std::rc::Rc;
use std::time::Duration;

use crate::place::{Serial, Span};
use crate::session::Record;
use crate::wire::record::Block;

/// Time between the calls in which an output sends datagrams over UDP.
pub const PACE: Duration = Duration::from_millis(2);

/// The log from which an output reads.
pub trait Source {
    /// The block with the record `serial`, or the reason why there is none.
    fn block(&mut self, serial: Serial) -> Found;
    /// The serial after the last record that may leave.
    fn end(&self) -> Serial;
    /// Records that arrive in one [`PACE`], as of the latest commit.
    fn pace(&self) -> usize;
}

/// The answer to a search for a record.
#[derive(Clone, Debug)]
pub enum Found {
    /// The block with the record, or the next block.
    Block(Rc<Block>),
    /// The record is damaged, with its block.
    Damaged(Span),
    /// It cannot be read now.
    Unavailable,
    /// It has not come yet.
    Nothing,
}

/// The next record of the log.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) next: Serial,
    block: Option<(Rc<Block>, usize, Serial)>,
}

/// The result of reading.
pub(super) enum Read {
    Record(Serial, Record),
    /// Records that nobody has any more.
    Gone(Span),
    Unavailable,
    Nothing,
}

impl Reader {
    /// Continues with this record.
    pub(super) fn seek(&mut self, serial: Serial) {
        self.next = serial;
        self.block = None;
    }

    /// The next record that may leave.
    pub(super) fn read(&mut self, source: &mut impl Source) -> Read {
        if self.next >= source.end() {
            return Read::Nothing;
        }
        loop {
            let (block, offset, at) = match &mut self.block {
                Some(block) => block,
                None => match source.block(self.next) {
                    Found::Block(block) if block.first > self.next => {
                        return Read::Gone(Span {
                            first: self.next,
                            end: block.first,
                            since: block.since,
                            until: block.since,
                        });
                    }
                    Found::Block(block) => {
                        let first = block.first;
                        self.block.insert((block, 0, first))
                    }
                    Found::Damaged(span) => return Read::Gone(span),
                    Found::Unavailable => return Read::Unavailable,
                    Found::Nothing => return Read::Nothing,
                },
            };
            match block.record_at(offset) {
                Ok(Some(record)) => {
                    let serial = *at;
                    at.0 += 1;
                    if serial >= self.next {
                        self.next = *at;
                        return Read::Record(serial, record);
                    }
                }
                Ok(None) => {
                    self.next = self.next.max(block.end());
                    self.block = None;
                    if self.next >= source.end() {
                        return Read::Nothing;
                    }
                }
                // The checksum is right, so this is a record of a kind that only a newer nattrail writes.
                Err(_) => {
                    return Read::Gone(Span {
                        first: self.next,
                        end: block.end(),
                        since: block.since,
                        until: block.until,
                    });
                }
            }
        }
    }
}
