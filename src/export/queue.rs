//! A bounded first-in, first-out queue of messages in one buffer.
//!
//! Messages of different sizes lie end to end in a single byte vector, so that a stream target can write many of them
//! with one call and a datagram target can take them one by one. Once the buffers have grown to what the load needs,
//! nothing is allocated any more. The limit is in bytes and covers the bookkeeping too: what is refused is refused
//! whole, and the caller counts it.
//!
//! Each message has a tag of the caller's type: what has to be known when the message leaves or is lost.

use std::collections::VecDeque;
use std::fmt;

/// The message does not fit into what the limit leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is full")
    }
}

impl std::error::Error for Full {}

/// The oldest message of a queue, as it was pushed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a, T> {
    pub bytes: &'a [u8],
    pub tag: T,
}

/// A state of the end of the queue to which [`Queue::rollback`] returns.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
    entries: usize,
}

/// The queue. A message is at most 4 GiB long. The tag is by default how many records the message completes.
#[derive(Debug)]
pub struct Queue<T = u32> {
    /// Everything before `head` has been consumed.
    bytes: Vec<u8>,
    head: usize,
    /// How much of the front message has been consumed already.
    partial: usize,
    entries: VecDeque<Entry<T>>,
    limit: usize,
    peak: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    length: u32,
    tag: T,
}

impl<T: Copy> Queue<T> {
    /// What a message costs beside its own bytes: its place in the list of lengths and tags.
    const OVERHEAD: usize = size_of::<Entry<T>>();

    /// An empty queue that holds at most `limit` bytes, the bookkeeping for each message included.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            partial: 0,
            entries: VecDeque::new(),
            limit,
            peak: 0,
        }
    }

    /// Appends a message.
    ///
    /// # Errors
    /// [`Full`] when it does not fit; the queue is unchanged then.
    pub fn push(&mut self, message: &[u8], tag: T) -> Result<(), Full> {
        let length = u32::try_from(message.len()).map_err(|_| Full)?;
        if message.len() + Self::OVERHEAD > self.limit.saturating_sub(self.used()) {
            return Err(Full);
        }
        self.compact();
        self.bytes.extend_from_slice(message);
        self.entries.push_back(Entry { length, tag });
        self.peak = self.peak.max(self.used());
        Ok(())
    }

    /// The end of the queue as it is now. It stays valid until something is consumed.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes.len() - self.head,
            entries: self.entries.len(),
        }
    }

    /// Takes back what was pushed since `mark` was taken, so that several messages are queued together or not at all.
    pub fn rollback(&mut self, mark: Mark) {
        self.bytes.truncate(self.head + mark.bytes);
        self.entries.truncate(mark.entries);
    }

    /// The oldest message, from its first byte even when some of it has been consumed.
    #[must_use]
    pub fn front(&self) -> Option<Message<'_, T>> {
        let entry = self.entries.front()?;
        let start = self.head - self.partial;
        Some(Message {
            bytes: &self.bytes[start..start + entry.length as usize],
            tag: entry.tag,
        })
    }

    /// Removes the oldest message and gives its tag.
    pub fn pop(&mut self) -> Option<T> {
        let entry = self.entries.pop_front()?;
        self.head += entry.length as usize - self.partial;
        self.partial = 0;
        self.reset_when_empty();
        Some(entry.tag)
    }

    /// The tags of all messages, the oldest first.
    pub fn tags(&self) -> impl Iterator<Item = T> {
        self.entries.iter().map(|entry| entry.tag)
    }

    /// How many messages are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes counted against the limit.
    #[must_use]
    pub fn used(&self) -> usize {
        self.bytes.len() - self.head + self.partial + self.entries.len() * Self::OVERHEAD
    }

    /// The most bytes that were ever counted against the limit.
    #[must_use]
    pub const fn peak(&self) -> usize {
        self.peak
    }

    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Moves what is left to the start of the buffer once more than half of it has been consumed, which bounds the
    /// buffer at twice the limit and the copying at one move per byte.
    fn compact(&mut self) {
        let start = self.head - self.partial;
        if start > self.bytes.len() / 2 {
            self.bytes.copy_within(start.., 0);
            self.bytes.truncate(self.bytes.len() - start);
            self.head = self.partial;
        }
    }

    fn reset_when_empty(&mut self) {
        if self.entries.is_empty() {
            self.bytes.clear();
            self.head = 0;
        }
    }
}

/// For a stream.
impl Queue {
    /// What is queued and not consumed yet, end to end: for a stream, which may take any number of these bytes.
    #[must_use]
    pub fn contiguous(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// Consumes `count` bytes of [`Queue::contiguous`] and gives the sum of the tags of the messages that are through.
    ///
    /// # Panics
    /// When `count` is more than is queued.
    pub fn consume(&mut self, count: usize) -> u64 {
        assert!(count <= self.bytes.len() - self.head, "more than is queued");
        self.head += count;
        self.partial += count;
        let mut tags = 0;
        while let Some(entry) = self.entries.front()
            && self.partial >= entry.length as usize
        {
            self.partial -= entry.length as usize;
            tags += u64::from(entry.tag);
            self.entries.pop_front();
        }
        self.reset_when_empty();
        tags
    }

    /// Goes back to the first byte of a message of which a part has been consumed: for a stream that broke in the middle
    /// of it and begins anew.
    pub const fn rewind(&mut self) {
        self.head -= self.partial;
        self.partial = 0;
    }

    /// Removes everything and gives the sum of the tags.
    pub fn clear(&mut self) -> u64 {
        let tags = self.tags().map(u64::from).sum();
        self.entries.clear();
        self.partial = 0;
        self.reset_when_empty();
        tags
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const OVERHEAD: usize = Queue::<u32>::OVERHEAD;

    fn front(queue: &Queue) -> Option<(&[u8], u32)> {
        queue.front().map(|message| (message.bytes, message.tag))
    }

    #[test]
    fn messages_leave_in_the_order_they_came() {
        let mut queue = Queue::new(1000);
        queue.push(b"first", 1).unwrap();
        queue.push(b"second", 2).unwrap();
        assert_eq!(front(&queue), Some((&b"first"[..], 1)));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(front(&queue), Some((&b"second"[..], 2)));
        assert_eq!(queue.pop(), Some(2));
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.used(), 0);
    }

    #[test]
    fn a_message_that_does_not_fit_leaves_the_queue_as_it_was() {
        let mut queue = Queue::new(2 * (4 + OVERHEAD));
        queue.push(b"abcd", 1).unwrap();
        assert_eq!(queue.push(b"12345", 1), Err(Full));
        queue.push(b"1234", 1).unwrap();
        assert_eq!(queue.push(b"", 1), Err(Full));
        assert_eq!(queue.contiguous(), b"abcd1234");
        assert_eq!(queue.peak(), queue.limit());
    }

    #[test]
    fn a_stream_may_stop_inside_a_message_and_go_on() {
        let mut queue = Queue::new(1000);
        queue.push(b"one\n", 1).unwrap();
        queue.push(b"two\n", 1).unwrap();
        assert_eq!(queue.consume(6), 1);
        assert_eq!(queue.contiguous(), b"o\n");
        assert_eq!(front(&queue), Some((&b"two\n"[..], 1)));
        assert_eq!(queue.consume(2), 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_broken_stream_begins_the_message_anew() {
        let mut queue = Queue::new(1000);
        queue.push(b"one\n", 1).unwrap();
        queue.push(b"two\n", 1).unwrap();
        queue.consume(6);
        queue.push(b"three\n", 1).unwrap();
        queue.rewind();
        assert_eq!(queue.contiguous(), b"two\nthree\n");
    }

    #[test]
    fn a_rollback_takes_back_what_was_pushed_since_the_mark() {
        let mut queue = Queue::new(1000);
        queue.push(b"kept", 1).unwrap();
        let mark = queue.mark();
        queue.push(b"half of", 0).unwrap();
        queue.push(b"a record", 1).unwrap();
        queue.rollback(mark);
        assert_eq!(queue.contiguous(), b"kept");
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn the_buffer_does_not_grow_while_the_queue_is_never_empty() {
        let mut queue = Queue::new(4096);
        queue.push(&[7; 100], 1).unwrap();
        for _ in 0..100_000 {
            queue.push(&[7; 100], 1).unwrap();
            queue.pop();
        }
        assert!(queue.bytes.capacity() < 1000, "{}", queue.bytes.capacity());
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Push(Vec<u8>),
        Pop,
        Consume(usize),
        Rewind,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Operation::Push),
            Just(Operation::Pop),
            (0_usize..60).prop_map(Operation::Consume),
            Just(Operation::Rewind),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_list_of_messages(operations in prop::collection::vec(operation(), 0..200)) {
            let mut queue = Queue::new(300);
            let mut model: VecDeque<(Vec<u8>, u32)> = VecDeque::new();
            let mut partial = 0;
            for (tag, operation) in (0..).zip(operations) {
                match operation {
                    Operation::Push(bytes) => {
                        let used: usize = model.iter().map(|(bytes, _)| bytes.len() + OVERHEAD).sum();
                        let fits = used + bytes.len() + OVERHEAD <= 300;
                        prop_assert_eq!(queue.push(&bytes, tag).is_ok(), fits);
                        if fits {
                            model.push_back((bytes, tag));
                        }
                    }
                    Operation::Pop => {
                        prop_assert_eq!(queue.pop(), model.pop_front().map(|(_, tag)| tag));
                        partial = 0;
                    }
                    Operation::Consume(count) => {
                        let count = count.min(queue.contiguous().len());
                        partial += count;
                        let mut tags = 0;
                        while model.front().is_some_and(|(bytes, _)| partial >= bytes.len()) {
                            let (bytes, tag) = model.pop_front().unwrap();
                            partial -= bytes.len();
                            tags += u64::from(tag);
                        }
                        prop_assert_eq!(queue.consume(count), tags);
                    }
                    Operation::Rewind => {
                        queue.rewind();
                        partial = 0;
                    }
                }
                let all: Vec<u8> = model.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
                prop_assert_eq!(queue.contiguous(), &all[partial..]);
                prop_assert_eq!(front(&queue), model.front().map(|(bytes, tag)| (&bytes[..], *tag)));
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
