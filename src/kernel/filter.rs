//! A classic BPF program on the event socket: connections that all selections leave out need not leave the kernel.
//!
//! The program sees each netlink message as it would be queued (net/core/filter.c). `SKF_AD_NLATTR` finds an attribute
//! by its type, `SKF_AD_NLATTR_NEST` one within another; both give 0 when there is none. Refusing a message is not a
//! failed delivery: the kernel keeps nothing for later.
//!
//! The program tries one selection after the other. A message without the attribute, or with an unclear one, passes, for
//! the engine to decide.
//! - Untranslated connections have neither `IPS_SRC_NAT` nor `IPS_DST_NAT`; these are set before NEW and never cleared.
//!   IPVS alters the reply tuple without setting either: with `log = "nat"` its connections stay in the kernel.
//! - The protocol never changes.
//! - The mark may change. Only a NEW is tested for it: the end of an announced session must come through.

use std::io;
use std::os::fd::BorrowedFd;

use crate::config::{LogScope, MarkFilter, Selection};
use crate::session::Protocol;
use crate::wire::ctnetlink::{
    CTA_MARK, CTA_PROTO_NUM, CTA_STATUS, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, MESSAGE_NEW,
    STATUS_NAT_MASK,
};
use crate::wire::netlink::ATTRIBUTES_OFFSET;

/// Offset of `nlmsg_type`.
const TYPE_OFFSET: u32 = 4;
/// The offset from an attribute to its value.
const VALUE_OFFSET: u32 = 4;
/// Jumps reach 255 instructions; longer lists are left to the engine.
const MAX_PROTOCOLS: usize = 200;
/// The kernel translates a program, and keeps it in memory of which a socket has 20 KiB in all before Linux 6.9
/// (`net.core.optmem_max`). Longer ones are left to the engine, too.
const MAX_LENGTH: usize = 1000;

const ACCEPT: u32 = u32::MAX;
const DROP: u32 = 0;
const SKIP: u32 = libc::BPF_JMP | libc::BPF_JA;

/// A program for the selections of the configuration.
#[derive(Debug)]
pub struct Program(Vec<libc::sock_filter>);

impl Program {
    pub fn new(selections: &[Selection]) -> Self {
        let mut program = Self(Vec::new());
        for selection in selections {
            program.accept(selection);
        }
        program.ret(DROP);
        match program.0.len() {
            ..=MAX_LENGTH => program,
            _ => Self::accept_all(),
        }
    }

    /// A program that lets everything through.
    pub fn accept_all() -> Self {
        let mut program = Self(Vec::new());
        program.ret(ACCEPT);
        program
    }

    /// Replaces the socket's program at once.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: self.0.len() as libc::c_ushort,
            filter: self.0.as_ptr().cast_mut(),
        };
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        // SAFETY: the kernel copies the `len` instructions that `program` points to, which live until the call returns.
        unsafe { super::set_option(socket, level, option, &program) }
    }

    /// Accepts what the selection may accept; with everything else, the program goes on.
    fn accept(&mut self, selection: &Selection) {
        let begin = self.0.len();
        if selection.log == LogScope::Nat {
            self.skip_untranslated();
        }
        if !selection.protocols.is_empty() && selection.protocols.len() <= MAX_PROTOCOLS {
            self.skip_other_protocols(&selection.protocols);
        }
        if let Some(mark) = selection.mark {
            self.skip_new_without(mark);
        }
        self.ret(ACCEPT);
        let end = self.0.len();
        for (index, instruction) in self.0.iter_mut().enumerate().skip(begin) {
            if instruction.code == SKIP as u16 {
                instruction.k = (end - index - 1) as u32;
            }
        }
    }

    fn skip_untranslated(&mut self) {
        self.find(CTA_STATUS);
        self.jump_if_equal(0, 4, 0);
        self.load_value(libc::BPF_W);
        self.jump(libc::BPF_JSET, STATUS_NAT_MASK, 1, 0);
        self.skip();
    }

    fn skip_other_protocols(&mut self, protocols: &[Protocol]) {
        let count = protocols.len() as u8;
        self.find(CTA_TUPLE_ORIG);
        self.jump_if_equal(0, 9 + count, 0);
        self.find_nested(CTA_TUPLE_PROTO);
        self.jump_if_equal(0, 6 + count, 0);
        self.find_nested(CTA_PROTO_NUM);
        self.jump_if_equal(0, 3 + count, 0);
        self.load_value(libc::BPF_B);
        for (index, protocol) in protocols.iter().enumerate() {
            self.jump_if_equal(u32::from(protocol.0), count - index as u8, 0);
        }
        self.skip();
    }

    fn skip_new_without(&mut self, mark: MarkFilter) {
        // The type is in host byte order, and loads are in network byte order.
        let new = u16::from_be_bytes(MESSAGE_NEW.to_ne_bytes());
        self.push(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, TYPE_OFFSET);
        self.jump_if_equal(u32::from(new), 0, 9);
        self.find(CTA_MARK);
        // Without the attribute the mark is 0, and so is the result of the search.
        self.jump_if_equal(0, 2, 0);
        self.load_value(libc::BPF_W);
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mark.mask);
        self.jump_if_equal(mark.value, 1, 0);
        self.skip();
    }

    /// A becomes the offset of the message's attribute `kind`, or 0. Three instructions.
    fn find(&mut self, kind: u16) {
        self.push(libc::BPF_LD | libc::BPF_IMM, ATTRIBUTES_OFFSET as u32);
        self.find_from_here(kind, libc::SKF_AD_NLATTR);
    }

    /// A becomes the offset of the attribute `kind` within the one at A, or 0. Two instructions.
    fn find_nested(&mut self, kind: u16) {
        self.find_from_here(kind, libc::SKF_AD_NLATTR_NEST);
    }

    fn find_from_here(&mut self, kind: u16, ancillary: i32) {
        self.push(libc::BPF_LDX | libc::BPF_IMM, u32::from(kind));
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        self.push(load, (libc::SKF_AD_OFF + ancillary).cast_unsigned());
    }

    /// A becomes the value of the attribute at A. Two instructions.
    fn load_value(&mut self, size: u32) {
        self.push(libc::BPF_MISC | libc::BPF_TAX, 0);
        self.push(libc::BPF_LD | size | libc::BPF_IND, VALUE_OFFSET);
    }

    fn jump_if_equal(&mut self, operand: u32, jump_true: u8, jump_false: u8) {
        self.jump(libc::BPF_JEQ, operand, jump_true, jump_false);
    }

    fn jump(&mut self, condition: u32, operand: u32, jump_true: u8, jump_false: u8) {
        self.0.push(libc::sock_filter {
            code: (libc::BPF_JMP | condition | libc::BPF_K) as u16,
            jt: jump_true,
            jf: jump_false,
            k: operand,
        });
    }

    /// Goes on behind the selection.
    fn skip(&mut self) {
        self.push(SKIP, 0);
    }

    fn ret(&mut self, verdict: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, verdict);
    }

    fn push(&mut self, code: u32, operand: u32) {
        self.0.push(libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf: 0,
            k: operand,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::wire::ctnetlink::MESSAGE_DELETE;

    /// Whether the kernel, running the program on a socket, lets the message through.
    fn passes(change: impl FnOnce(&mut Selection), message: &[u8]) -> bool {
        let mut selection = Selection::ANY;
        change(&mut selection);
        any_passes(&[selection], message)
    }

    fn any_passes(selections: &[Selection], message: &[u8]) -> bool {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        Program::new(selections).attach(receiver.as_fd()).unwrap();
        sender.send(message).unwrap();
        receiver.recv(&mut [0; 512]).is_ok()
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let attributes = attributes.concat();
        let length = u32::try_from(20 + attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 14]);
        bytes.extend(attributes);
        bytes
    }

    /// An original tuple of the protocol, with another attribute before the number's.
    fn tuple(protocol: u8) -> Vec<u8> {
        let addresses = attribute(1, &[0; 16]);
        let number = attribute(CTA_PROTO_NUM, &[protocol]);
        let proto = attribute(
            CTA_TUPLE_PROTO | 0x8000,
            &[attribute(2, &[0; 2]), number].concat(),
        );
        attribute(CTA_TUPLE_ORIG | 0x8000, &[addresses, proto].concat())
    }

    fn status(bits: u32) -> Vec<u8> {
        message(
            MESSAGE_NEW,
            &[tuple(17), attribute(CTA_STATUS, &bits.to_be_bytes())],
        )
    }

    fn marked(kind: u16, mark: u32) -> Vec<u8> {
        message(kind, &[tuple(17), attribute(CTA_MARK, &mark.to_be_bytes())])
    }

    #[test]
    fn untranslated_connections_stay_in_the_kernel() {
        let nat = |selection: &mut Selection| selection.log = LogScope::Nat;
        assert!(!passes(nat, &status(0x188)));
        assert!(passes(nat, &status(0x198)), "source translated");
        assert!(passes(nat, &status(0x1a8)), "destination translated");
        assert!(passes(|_| (), &status(0x188)), "all are wanted");
    }

    #[test]
    fn a_message_without_a_status_comes_through() {
        let nat = |selection: &mut Selection| selection.log = LogScope::Nat;
        assert!(passes(nat, &message(MESSAGE_DELETE, &[tuple(17)])));
    }

    #[test]
    fn protocols_that_are_not_named_stay_in_the_kernel() {
        for wanted in [vec![17], vec![6, 17], vec![17, 6, 47]] {
            let only = |selection: &mut Selection| {
                selection.protocols = wanted.iter().copied().map(Protocol).collect()
            };
            assert!(
                passes(only, &message(MESSAGE_NEW, &[tuple(17)])),
                "{wanted:?}"
            );
            assert!(
                !passes(only, &message(MESSAGE_DELETE, &[tuple(1)])),
                "{wanted:?}"
            );
            assert!(
                passes(only, &message(MESSAGE_NEW, &[attribute(1, &[])])),
                "{wanted:?}: no number"
            );
            assert!(
                passes(only, &message(MESSAGE_NEW, &[])),
                "{wanted:?}: no tuple"
            );
        }
    }

    #[test]
    fn every_protocol_but_one_can_be_named() {
        let many =
            |selection: &mut Selection| selection.protocols = (1..=200).map(Protocol).collect();
        assert!(passes(many, &message(MESSAGE_NEW, &[tuple(200)])));
        assert!(!passes(many, &message(MESSAGE_NEW, &[tuple(201)])));
        let more =
            |selection: &mut Selection| selection.protocols = (1..=255).map(Protocol).collect();
        assert!(
            passes(more, &message(MESSAGE_NEW, &[tuple(0)])),
            "left to the engine"
        );
    }

    #[test]
    fn a_new_connection_with_another_mark_stays_in_the_kernel() {
        let filter = |value, mask| {
            move |selection: &mut Selection| selection.mark = Some(MarkFilter { value, mask })
        };
        assert!(passes(filter(0x10, 0xf0), &marked(MESSAGE_NEW, 0x17)));
        assert!(!passes(filter(0x10, 0xf0), &marked(MESSAGE_NEW, 0x27)));
        assert!(
            !passes(filter(0x10, 0xf0), &message(MESSAGE_NEW, &[tuple(17)])),
            "no mark is 0"
        );
        assert!(
            passes(filter(0, 0xf0), &message(MESSAGE_NEW, &[tuple(17)])),
            "no mark is 0"
        );
    }

    #[test]
    fn the_end_of_a_connection_comes_through_whatever_its_mark() {
        let filter =
            |selection: &mut Selection| selection.mark = Some(MarkFilter { value: 1, mask: 1 });
        assert!(passes(filter, &marked(MESSAGE_DELETE, 2)));
    }

    #[test]
    fn all_filters_together_ask_for_each_condition() {
        let all = |selection: &mut Selection| {
            selection.log = LogScope::Nat;
            selection.protocols = vec![Protocol::UDP];
            selection.mark = Some(MarkFilter { value: 1, mask: 1 });
        };
        let with = |bits: u32, protocol, mark: u32| {
            let status = attribute(CTA_STATUS, &bits.to_be_bytes());
            message(
                MESSAGE_NEW,
                &[
                    tuple(protocol),
                    status,
                    attribute(CTA_MARK, &mark.to_be_bytes()),
                ],
            )
        };
        assert!(passes(all, &with(0x198, 17, 1)));
        assert!(!passes(all, &with(0x188, 17, 1)));
        assert!(!passes(all, &with(0x198, 6, 1)));
        assert!(!passes(all, &with(0x198, 17, 2)));
    }

    #[test]
    fn a_connection_that_any_selection_accepts_comes_through() {
        let nat = Selection {
            log: LogScope::Nat,
            ..Selection::ANY
        };
        let marked = Selection {
            mark: Some(MarkFilter { value: 7, mask: 7 }),
            ..Selection::ANY
        };
        let with = |bits: u32, mark: u32| {
            let status = attribute(CTA_STATUS, &bits.to_be_bytes());
            let mark = attribute(CTA_MARK, &mark.to_be_bytes());
            message(MESSAGE_NEW, &[tuple(17), status, mark])
        };
        for both in [[nat.clone(), marked.clone()], [marked, nat]] {
            assert!(any_passes(&both, &with(0x198, 0)), "translated");
            assert!(any_passes(&both, &with(0x188, 7)), "marked");
            assert!(!any_passes(&both, &with(0x188, 1)), "neither");
        }
    }

    #[test]
    fn as_many_selections_as_fit_a_program_are_tested_and_more_are_left_to_the_engine() {
        let of = |count: u8| -> Vec<_> {
            let only = |index| Selection {
                protocols: (1..=200).map(Protocol).collect(),
                mark: Some(MarkFilter {
                    value: index,
                    mask: 0xff,
                }),
                ..Selection::ANY
            };
            (0..u32::from(count)).map(only).collect()
        };
        let other = message(MESSAGE_NEW, &[tuple(201)]);
        assert!(!any_passes(&of(4), &other));
        assert!(any_passes(&of(40), &other));
    }
}
