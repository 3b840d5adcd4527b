//! First-in, first-out messages in one buffer.
//!
//! Messages of different sizes lie end to end in a single byte vector, so that a stream target can write many of them
//! with one call and a datagram target can take them one by one. Once the buffers have grown to the load, nothing is
//! allocated any more. The caller limits the content by [`Queue::used`].
//!
//! Each message has a tag of the caller's type, for use when the message leaves.

use std::collections::VecDeque;

/// The oldest message of a queue, as it was pushed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a, T> {
    pub bytes: &'a [u8],
    pub tag: T,
}

/// The queue. A message is shorter than 4 GiB.
#[derive(Debug)]
pub struct Queue<T> {
    /// Everything before `head` has been consumed.
    bytes: Vec<u8>,
    head: usize,
    /// Octets of the front message that have already been consumed.
    partial: usize,
    entries: VecDeque<Entry<T>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    length: u32,
    tag: T,
}

impl<T: Copy> Queue<T> {
    /// The cost of a message beside its own bytes: its place in the list of lengths and tags.
    const OVERHEAD: usize = size_of::<Entry<T>>();

    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            partial: 0,
            entries: VecDeque::new(),
        }
    }

    pub fn push(&mut self, message: &[u8], tag: T) {
        self.compact();
        self.bytes.extend_from_slice(message);
        let length = message.len() as u32;
        self.entries.push_back(Entry { length, tag });
    }

    /// The oldest message, from its first byte even when some of it has been consumed.
    pub fn front(&self) -> Option<Message<'_, T>> {
        let entry = self.entries.front()?;
        let start = self.head - self.partial;
        Some(Message {
            bytes: &self.bytes[start..start + entry.length as usize],
            tag: entry.tag,
        })
    }

    /// Removes the oldest message and returns its tag.
    pub fn pop(&mut self) -> Option<T> {
        let entry = self.entries.pop_front()?;
        self.head += entry.length as usize - self.partial;
        self.partial = 0;
        self.reset_when_empty();
        Some(entry.tag)
    }

    /// Length and tag of every message, the oldest first.
    pub fn entries(&self) -> impl Iterator<Item = (usize, T)> {
        let entries = self.entries.iter();
        entries.map(|entry| (entry.length as usize, entry.tag))
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.partial = 0;
        self.reset_when_empty();
    }

    /// How many messages are queued.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a part of the front message has been consumed.
    pub const fn is_torn(&self) -> bool {
        self.partial > 0
    }

    /// Bytes of all messages and of the bookkeeping for each.
    pub fn used(&self) -> usize {
        self.bytes.len() - self.head + self.partial + self.entries.len() * Self::OVERHEAD
    }

    /// Moves the rest to the start of the buffer once more than half of it has been consumed, which bounds the
    /// buffer at twice what it holds and the copying at one move per byte.
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

    /// The queued bytes that are not consumed yet, end to end: a stream may take any number of them.
    pub fn contiguous(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// Consumes `count` bytes of [`Queue::contiguous`] and hands over the tags of the messages that are complete.
    ///
    /// # Panics
    /// When `count` is more than is queued.
    pub fn consume(&mut self, count: usize, mut through: impl FnMut(T)) {
        assert!(count <= self.bytes.len() - self.head, "more than is queued");
        self.head += count;
        self.partial += count;
        while let Some(entry) = self.entries.front()
            && self.partial >= entry.length as usize
        {
            self.partial -= entry.length as usize;
            through(entry.tag);
            self.entries.pop_front();
        }
        self.reset_when_empty();
    }

    /// Goes back to the first byte of a partly consumed message: for a stream that broke in the middle of it and begins
    /// anew.
    pub const fn rewind(&mut self) {
        self.head -= self.partial;
        self.partial = 0;
    }
}

impl<T: Copy> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn front(queue: &Queue<u32>) -> Option<(&[u8], u32)> {
        queue.front().map(|message| (message.bytes, message.tag))
    }

    fn consumed(queue: &mut Queue<u32>, count: usize) -> Vec<u32> {
        let mut tags = Vec::new();
        queue.consume(count, |tag| tags.push(tag));
        tags
    }

    #[test]
    fn messages_leave_in_the_order_they_came() {
        let mut queue = Queue::new();
        queue.push(b"first", 1);
        queue.push(b"second", 2);
        assert_eq!(front(&queue), Some((&b"first"[..], 1)));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(front(&queue), Some((&b"second"[..], 2)));
        assert_eq!(queue.pop(), Some(2));
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.used(), 0);
    }

    #[test]
    fn a_stream_may_stop_inside_a_message_and_go_on() {
        let mut queue = Queue::new();
        queue.push(b"one\n", 1);
        queue.push(b"two\n", 1);
        assert_eq!(consumed(&mut queue, 6), [1]);
        assert_eq!(queue.contiguous(), b"o\n");
        assert_eq!(front(&queue), Some((&b"two\n"[..], 1)));
        assert_eq!(consumed(&mut queue, 2), [1]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_broken_stream_begins_the_message_anew() {
        let mut queue = Queue::new();
        queue.push(b"one\n", 1);
        queue.push(b"two\n", 1);
        consumed(&mut queue, 6);
        queue.push(b"three\n", 1);
        queue.rewind();
        assert_eq!(queue.contiguous(), b"two\nthree\n");
    }

    #[test]
    fn the_buffer_does_not_grow_while_the_queue_is_never_empty() {
        let mut queue = Queue::new();
        queue.push(&[7; 100], 1);
        for _ in 0..100_000 {
            queue.push(&[7; 100], 1);
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
            let mut queue = Queue::new();
            let mut model: VecDeque<(Vec<u8>, u32)> = VecDeque::new();
            let mut partial = 0;
            for (tag, operation) in (0..).zip(operations) {
                match operation {
                    Operation::Push(bytes) => {
                        queue.push(&bytes, tag);
                        model.push_back((bytes, tag));
                    }
                    Operation::Pop => {
                        prop_assert_eq!(queue.pop(), model.pop_front().map(|(_, tag)| tag));
                        partial = 0;
                    }
                    Operation::Consume(count) => {
                        let count = count.min(queue.contiguous().len());
                        partial += count;
                        let mut tags = Vec::new();
                        while model.front().is_some_and(|(bytes, _)| partial >= bytes.len()) {
                            let (bytes, tag) = model.pop_front().unwrap();
                            partial -= bytes.len();
                            tags.push(tag);
                        }
                        prop_assert_eq!(consumed(&mut queue, count), tags);
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
