//! The common part of NetFlow v9 (RFC 3954 section 5) and IPFIX (RFC 7011 section 3): templates, the records they
//! describe, and the sets (FlowSets) that hold either.
//!
//! Padding is NetFlow v9's: there a set ends on a 4-byte boundary, counted from the start of the message. RFC 7011 allows sets
//! that are not padded, and some collectors take the padding of an options template set for another template, with id 0.

use crate::wire::element::Element;

/// Octets in front of the records of a set: its id and its length.
pub const SET_HEADER_LEN: usize = 4;

/// A description of data records made from an `S`.
#[derive(Debug)]
pub struct Template<S> {
    id: u16,
    elements: Vec<Element<S>>,
    scope_fields: u16,
    record_len: usize,
}

impl<S> Template<S> {
    /// A template with `id`, which must be 256 or above (below are the sets of templates).
    pub fn new(id: u16, elements: Vec<Element<S>>) -> Self {
        let record_len = elements
            .iter()
            .map(|element| usize::from(element.length()))
            .sum();
        Self {
            id,
            elements,
            scope_fields: 0,
            record_len,
        }
    }

    /// An options template: its first `scope_fields` elements are the scope, the object that the records describe.
    pub fn options(id: u16, scope_fields: u16, elements: Vec<Element<S>>) -> Self {
        Self {
            scope_fields,
            ..Self::new(id, elements)
        }
    }

    pub const fn id(&self) -> u16 {
        self.id
    }

    pub const fn elements(&self) -> &[Element<S>] {
        self.elements.as_slice()
    }

    /// Length in octets of each data record.
    pub const fn record_len(&self) -> usize {
        self.record_len
    }

    /// Length in octets of the template record.
    pub fn definition_len(&self) -> usize {
        4 + self.specifiers_len()
    }

    /// Length in octets of the options template record.
    pub fn options_definition_len(&self) -> usize {
        6 + self.specifiers_len()
    }

    fn specifiers_len(&self) -> usize {
        self.elements.iter().map(Element::specifier_len).sum()
    }

    /// Appends the template record: id, field count and fields.
    pub fn put_definition(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.field_count().to_be_bytes());
        self.put_fields(out);
    }

    /// Appends the field specifiers.
    pub(super) fn put_fields(&self, out: &mut Vec<u8>) {
        for element in &self.elements {
            element.put_specifier(out);
        }
    }

    /// Appends the data record made from `source`.
    pub fn put_record(&self, source: &S, out: &mut Vec<u8>) {
        for element in &self.elements {
            element.put(source, out);
        }
    }

    /// How many of the first fields are the scope of an options template.
    pub(super) const fn scope_fields(&self) -> u16 {
        self.scope_fields
    }

    /// There are far fewer elements than 65,536 to choose from.
    pub(super) const fn field_count(&self) -> u16 {
        self.elements.len() as u16
    }
}

/// A set whose length is not known yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpenSet {
    pub id: u16,
    offset: usize,
}

impl OpenSet {
    /// Begins a set at the end of `message`.
    pub fn open(id: u16, message: &mut Vec<u8>) -> Self {
        let offset = message.len();
        message.extend_from_slice(&id.to_be_bytes());
        message.extend_from_slice(&[0, 0]);
        Self { id, offset }
    }

    /// Writes the length of the set, which ends with `message`.
    pub fn close(self, message: &mut [u8]) {
        // A message is no longer than a UDP datagram.
        let length = (message.len() - self.offset) as u16;
        message[self.offset + 2..self.offset + 4].copy_from_slice(&length.to_be_bytes());
    }
}
