//! Questions to connection tracking and to nftables that are answered at once.
//!
//! The kernel answers such a request while it is being sent, so the answer is there when the call returns: nothing here
//! waits for a message. The files and the socket stay in the network namespace they were opened in.
//!
//! But ctnetlink answers one request at a time: while another program deletes all entries (`conntrack -F`), which takes
//! seconds for millions of them, everybody else stands still in the call (`NFNL_CB_MUTEX` in
//! `net/netfilter/nf_conntrack_netlink.c`). So the counters come from procfs, which takes no lock, and from ctnetlink
//! only where the kernel was built without that file (`CONFIG_NF_CONNTRACK_PROCFS`).

use std::fs::File;
use std::io::{self, Seek as _};

use rustix::io::ioctl_fionbio;

use super::borrow;
use crate::wire::ctstats::{self, Drops};
use crate::wire::netlink::{self, Messages, NLMSG_ERROR};

/// Those of the calling thread's network namespace, whatever else of `/proc` is hidden.
const COUNTERS: &str = "/proc/thread-self/net/stat/nf_conntrack";
const ENTRIES: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAXIMUM: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

const BUFFER: usize = 32 * 1024;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`
const MESSAGE_GET_CHAIN: u16 = 10 << 8 | 4;
const NFPROTO_INET: u8 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
/// How many rules it has.
const NFTA_CHAIN_USE: u16 = 6;

/// Where such questions are asked.
pub(crate) struct Tracking {
    counters: Option<File>,
    entries: File,
    maximum: File,
    /// Not there in a kernel that reports no events at all.
    events: Option<File>,
    socket: mnl::Socket,
    buffer: Box<[u8]>,
}

/// The state of connection tracking in a network namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) drops: Drops,
    /// Connections in the table, the dying ones included.
    pub(crate) entries: u32,
    /// `nf_conntrack_max`.
    pub(crate) max_entries: u32,
}

impl Tracking {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
        ioctl_fionbio(borrow(&socket), true)?;
        Ok(Self {
            counters: File::open(COUNTERS).ok(),
            entries: File::open(ENTRIES)?,
            maximum: File::open(MAXIMUM)?,
            events: File::open(EVENTS).ok(),
            socket,
            buffer: vec![0; BUFFER].into_boxed_slice(),
        })
    }

    pub(crate) fn statistics(&mut self) -> io::Result<Statistics> {
        let number = |file| read_again(file)?.trim().parse().map_err(io::Error::other);
        Ok(Statistics {
            entries: number(&self.entries)?,
            max_entries: number(&self.maximum)?,
            drops: match &self.counters {
                Some(counters) => {
                    Drops::of_procfs(&read_again(counters)?).map_err(io::Error::other)?
                }
                None => self.ask_drops()?,
            },
        })
    }

    /// Whether connections that begin now are reported to those who listen.
    pub(crate) fn has_events(&self) -> io::Result<bool> {
        let Some(events) = &self.events else {
            return Ok(true);
        };
        Ok(read_again(events)?.trim() != "0")
    }

    /// Whether this nftables table of family inet has the chain, with a rule in it.
    pub(crate) fn has_rule(&mut self, table: &str, chain: &str) -> io::Result<bool> {
        self.discard();
        self.socket.send(&get_chain(table, chain))?;
        let length = self.socket.recv_raw(&mut self.buffer)?;
        for message in Messages::new(&self.buffer[..length]) {
            let message = message.map_err(io::Error::other)?;
            if message.kind == NLMSG_ERROR {
                let number = message.error_number().map_err(io::Error::other)?;
                return match number {
                    libc::ENOENT => Ok(false),
                    number => Err(io::Error::from_raw_os_error(number)),
                };
            }
            for attribute in netlink::attributes(message.payload).map_err(io::Error::other)? {
                let attribute = attribute.map_err(io::Error::other)?;
                if attribute.kind == NFTA_CHAIN_USE {
                    return Ok(attribute.be32().map_err(io::Error::other)? > 0);
                }
            }
        }
        Ok(false)
    }

    fn ask_drops(&mut self) -> io::Result<Drops> {
        self.discard();
        self.socket.send(&ctstats::request())?;
        let mut drops = Drops::default();
        let mut complete = false;
        while !complete {
            let length = self.socket.recv_raw(&mut self.buffer)?;
            for message in Messages::new(&self.buffer[..length]) {
                let message = message.map_err(io::Error::other)?;
                complete |= drops.add(&message).map_err(io::Error::other)?;
            }
        }
        Ok(drops)
    }

    /// Reads what an earlier question may have left.
    fn discard(&mut self) {
        while self.socket.recv_raw(&mut self.buffer).is_ok() {}
    }
}

/// The file as it is now, from its beginning.
fn read_again(mut file: &File) -> io::Result<String> {
    file.rewind()?;
    io::read_to_string(file)
}

fn get_chain(table: &str, chain: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    for (kind, name) in [(NFTA_CHAIN_TABLE, table), (NFTA_CHAIN_NAME, chain)] {
        // With the zero octet that ends it.
        let length = u16::try_from(4 + name.len() + 1);
        let length = length.expect("the kernel takes names of up to 256 octets");
        attributes.extend([length.to_ne_bytes(), kind.to_ne_bytes()].concat());
        attributes.extend(name.as_bytes());
        attributes.push(0);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    }
    netlink::request(MESSAGE_GET_CHAIN, 0, 0, NFPROTO_INET, &attributes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::UdpSocket;
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;
    use crate::kernel::nftables;

    /// In a network namespace that nobody else uses: nothing changes between the two answers.
    #[test]
    fn procfs_and_ctnetlink_say_the_same() {
        thread::spawn(compare_in_own_namespace).join().unwrap();
    }

    fn compare_in_own_namespace() {
        // SAFETY: the network namespace is that of this thread only, and no descriptor is shared less than before.
        let own = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        if own == Err(rustix::io::Errno::PERM) {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            return;
        }
        own.unwrap();
        let mut up = Command::new("ip");
        up.args(["link", "set", "lo", "up"]);
        assert!(up.status().unwrap().success());
        nftables::install("nattrail").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.1:7").unwrap();

        let mut tracking = Tracking::open().unwrap();
        let asked = tracking.ask_drops().unwrap();
        assert_eq!(tracking.counters.is_some(), Path::new(COUNTERS).exists());
        let statistics = tracking.statistics().unwrap();
        assert_eq!(statistics.drops, asked);
        assert_eq!(statistics.entries, 1);
        assert!(statistics.max_entries > 0);
    }
}
