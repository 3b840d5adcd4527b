//! Netlink framing: messages in a datagram, attributes in a message.
//!
//! Follows `include/uapi/linux/netlink.h`: lengths and types are in host byte order, headers and payloads are aligned to
//! four bytes, lengths exclude the padding. The padding after the last message or attribute may be missing. The
//! iterators yield only items that lie wholly within the buffer; the first bad length ends them with an error.

use std::fmt;

/// Size of `struct nlmsghdr`.
pub const HEADER_LEN: usize = 16;
/// The offset of the attributes in a netfilter message, behind `struct nfgenmsg`.
pub(crate) const ATTRIBUTES_OFFSET: usize = HEADER_LEN + 4;

pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 0x001;
/// The table changed while it was dumped: the dump may be incomplete.
pub const NLM_F_DUMP_INTR: u16 = 0x010;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const NLM_F_DUMP: u16 = 0x300;
/// In an event: the object is new.
pub const NLM_F_CREATE: u16 = 0x400;

const ATTRIBUTE_HEADER_LEN: usize = 4;
/// `NLA_TYPE_MASK`: without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// The bytes do not follow the format. The reaction is always the same: drop the message and count it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed netlink message")
    }
}

impl std::error::Error for Malformed {}

/// A request to a subsystem of netfilter: the header, `struct nfgenmsg` for `family`, and the attributes.
pub(crate) fn request(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    attributes: &[u8],
) -> Vec<u8> {
    let length = ATTRIBUTES_OFFSET + attributes.len();
    let mut request = (length as u32).to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    // nlmsg_pid 0, and behind the family NFNETLINK_V0 and no resource.
    request.extend([0, 0, 0, 0, family, 0, 0, 0]);
    request.extend(attributes);
    request
}

/// One netlink message: the header's fields and what follows the header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// The port of the process that caused it; 0 is the kernel.
    pub port: u32,
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// The error number of an `NLMSG_ERROR`, 0 for an acknowledgement.
    pub fn error_number(&self) -> Result<i32, Malformed> {
        let bytes = self.payload.first_chunk().ok_or(Malformed)?;
        Ok(i32::from_ne_bytes(*bytes).wrapping_neg())
    }
}

/// The messages of one datagram.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(header) = self.rest.first_chunk::<HEADER_LEN>() else {
            self.rest = &[];
            return Some(Err(Malformed));
        };
        let [
            l0,
            l1,
            l2,
            l3,
            k0,
            k1,
            f0,
            f1,
            s0,
            s1,
            s2,
            s3,
            p0,
            p1,
            p2,
            p3,
        ] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        if length < HEADER_LEN || length > self.rest.len() {
            self.rest = &[];
            return Some(Err(Malformed));
        }
        let payload = &self.rest[HEADER_LEN..length];
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        Some(Ok(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload,
        }))
    }
}

/// One attribute: its type without the flag bits, and its payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attribute<'a> {
    pub kind: u16,
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn be16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn be32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn be64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.payload.try_into().map_err(|_| Malformed)
    }

    pub const fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }
}

/// The attributes of a message's payload or of a nested attribute.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(&[l0, l1, k0, k1]) = self.rest.first_chunk::<ATTRIBUTE_HEADER_LEN>() else {
            self.rest = &[];
            return Some(Err(Malformed));
        };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        if length < ATTRIBUTE_HEADER_LEN || length > self.rest.len() {
            self.rest = &[];
            return Some(Err(Malformed));
        }
        let payload = &self.rest[ATTRIBUTE_HEADER_LEN..length];
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        Some(Ok(Attribute {
            kind: u16::from_ne_bytes([k0, k1]) & ATTRIBUTE_TYPE_MASK,
            payload,
        }))
    }
}

/// The attributes of a netfilter message with this payload: behind `struct nfgenmsg`.
pub(crate) fn attributes(payload: &[u8]) -> Result<Attributes<'_>, Malformed> {
    let rest = payload.get(ATTRIBUTES_OFFSET - HEADER_LEN..);
    rest.map(Attributes::new).ok_or(Malformed)
}

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_LEN + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn two_messages_are_split_at_the_aligned_length() {
        let mut datagram = message(7, &[1, 2, 3, 4, 5]);
        datagram.extend([0; 3]);
        datagram.extend(message(8, &[]));
        let kinds: Vec<_> = Messages::new(&datagram)
            .map(|message| message.map(|message| (message.kind, message.payload.len())))
            .collect();
        assert_eq!(kinds, [Ok((7, 5)), Ok((8, 0))]);
    }

    #[test]
    fn a_last_message_without_padding_is_accepted() {
        let datagram = message(7, &[1]);
        assert_eq!(Messages::new(&datagram).count(), 1);
        assert!(Messages::new(&datagram).all(|message| message.is_ok()));
    }

    #[test]
    fn a_length_below_the_header_ends_the_iteration() {
        let mut datagram = message(7, &[]);
        datagram[0] = 3;
        let messages: Vec<_> = Messages::new(&datagram).collect();
        assert_eq!(messages, [Err(Malformed)]);
    }

    #[test]
    fn a_length_beyond_the_datagram_ends_the_iteration() {
        let mut datagram = message(7, &[]);
        datagram[0] = 17;
        let messages: Vec<_> = Messages::new(&datagram).collect();
        assert_eq!(messages, [Err(Malformed)]);
    }

    #[test]
    fn flag_bits_are_not_part_of_the_attribute_type() {
        let mut bytes = 8_u16.to_ne_bytes().to_vec();
        bytes.extend(0xc001_u16.to_ne_bytes());
        bytes.extend([0, 0, 1, 2]);
        let attribute = Attributes::new(&bytes).next().unwrap().unwrap();
        assert_eq!(attribute.kind, 1);
        assert_eq!(attribute.be32(), Ok(0x0102));
        assert_eq!(attribute.be16(), Err(Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_end_after_finitely_many_attributes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Attributes::new(&bytes).count() <= bytes.len() / ATTRIBUTE_HEADER_LEN + 1);
            prop_assert!(Messages::new(&bytes).count() <= bytes.len() / HEADER_LEN + 1);
        }
    }
}
