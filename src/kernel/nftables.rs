//! The daemon's own nftables table, which keeps connection tracking on.
//!
//! Connection tracking is off in a network namespace until a rule needs it, and goes off again with the last such rule.
//! The set-up of a `ct` expression takes the hooks of its family (`nft_ct_get_init` in net/netfilter/nft_ct.c), even in
//! a chain that no packet ever enters: such a chain costs the traffic nothing. Family `inet` covers IPv4 and IPv6.

use std::ffi::{CStr, CString};
use std::io;
use std::time::Duration;

use nftnl::expr::{Bitwise, Cmp, CmpOp, Conntrack, States};
use nftnl::{Batch, Chain, FinalizedBatch, MsgType, ProtoFamily, Rule, Table};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::borrow;
use crate::wire::netlink::{Messages, NLMSG_ERROR};

/// The chain with the rule.
pub(crate) const CHAIN: &str = "pin";
const COMMENT: &CStr = c"keeps connection tracking on for nattrail";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the table in the thread's network namespace, and replaces one from an earlier run.
pub(crate) fn install(table: &str) -> io::Result<()> {
    let table = Table::new(CString::new(table)?, ProtoFamily::Inet);
    let name = CString::new(CHAIN)?;
    let chain = Chain::new(&name, &table);
    let mut rule = Rule::new(&chain);
    // The whole of `ct state new`, so that nft can show the rule and read it back.
    rule.add_expr(&Conntrack::State);
    rule.add_expr(&Bitwise::new(States::NEW.bits(), 0_u32));
    rule.add_expr(&Cmp::new(CmpOp::Neq, 0_u32));
    rule.set_comment(COMMENT).map_err(io::Error::other)?;
    // One transaction: the old rule releases the hooks only after the new one has taken them. The first Add makes sure
    // that there is something to delete.
    let mut batch = Batch::new();
    batch.add(&table, MsgType::Add);
    batch.add(&table, MsgType::Del);
    batch.add(&table, MsgType::Add);
    batch.add(&chain, MsgType::Add);
    batch.add(&rule, MsgType::Add);
    commit(&batch.finalize())
}

/// Removes the table from the thread's network namespace. A missing table is no error.
pub(crate) fn remove(table: &str) -> io::Result<()> {
    let table = Table::new(CString::new(table)?, ProtoFamily::Inet);
    let mut batch = Batch::new();
    batch.add(&table, MsgType::Add);
    batch.add(&table, MsgType::Del);
    commit(&batch.finalize())
}

fn commit(batch: &FinalizedBatch) -> io::Result<()> {
    let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
    set_socket_timeout(borrow(&socket), Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    socket.send_all(batch)?;
    let mut unanswered = batch.sequence_numbers();
    let mut buffer = vec![0; 8192];
    while !unanswered.is_empty() {
        let length = socket.recv_raw(&mut buffer)?;
        for message in Messages::new(&buffer[..length]) {
            let message = message.map_err(io::Error::other)?;
            if message.kind != NLMSG_ERROR {
                continue;
            }
            match message.error_number().map_err(io::Error::other)? {
                0 => unanswered.next(),
                number => return Err(io::Error::from_raw_os_error(number)),
            };
        }
    }
    Ok(())
}
