//! Requests to connection tracking and to nftables that are answered at once.
//!
//! The kernel answers such a request during the call that sends it, so the answer is there when the call returns:
//! nothing here waits for a message. The files and the socket stay in the network namespace where they were opened.
//!
//! But ctnetlink serves one request at a time: while another program deletes all entries (`conntrack -F`), which takes
//! seconds for millions of them, every other request blocks in the call (`NFNL_CB_MUTEX` in
//! `net/netfilter/nf_conntrack_netlink.c`). So the counters come from procfs, which takes no lock, and from ctnetlink
//! only where the kernel was built without that file (`CONFIG_NF_CONNTRACK_PROCFS`).

use std::fs::File;
use std::io::{self, Seek as _};

use rustix::io::ioctl_fionbio;

use super::borrow;
use crate::wire::ctstats::{self, Drops};
use crate::wire::netlink::{self, Malformed, Messages, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR};

/// The files of the calling thread's network namespace, even where the rest of `/proc` is hidden.
const COUNTERS: &str = "/proc/thread-self/net/stat/nf_conntrack";
const ENTRIES: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAXIMUM: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

const BUFFER: usize = 32 * 1024;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_…`
const MESSAGE_GET_CHAIN: u16 = 10 << 8 | 4;
const MESSAGE_GET_FLOWTABLE: u16 = 10 << 8 | 23;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
/// The number of rules in the chain.
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_FLOWTABLE_TABLE: u16 = 1;
const NFTA_FLOWTABLE_NAME: u16 = 2;
const NFTA_FLOWTABLE_FLAGS: u16 = 7;
const NFT_FLOWTABLE_COUNTER: u32 = 2;

/// The fault of a flowtable that does not count, and the remedy.
pub(crate) const UNCOUNTED: &str = "expected the flag \"counter\", found none: the kernel does not count the packets that \
     go through it, so that records of TCP, UDP and GRE have no counters";
pub(crate) const COUNT: &str = "add \"counter\" to the flowtable";

/// The files and the socket for such requests.
pub(crate) struct Tracking {
    counters: Option<File>,
    entries: File,
    maximum: File,
    /// Missing in a kernel that reports no events at all.
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

    /// Whether connections that begin now are reported to listeners.
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

    /// The nftables flowtables without `counter`, as `nft` names them: `inet filter fast`. The kernel does not count
    /// the packets that take the fast path through one.
    pub(crate) fn uncounted_flowtables(&mut self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let request = netlink::request(MESSAGE_GET_FLOWTABLE, NLM_F_DUMP, 0, NFPROTO_UNSPEC, &[]);
        self.dump(&request, |payload| {
            found.extend(uncounted(payload)?);
            Ok(())
        })?;
        Ok(found)
    }

    fn ask_drops(&mut self) -> io::Result<Drops> {
        let mut drops = Drops::default();
        self.dump(&ctstats::request(), |payload| drops.add(payload))?;
        Ok(drops)
    }

    /// Calls `take` with the payload of each message of the answer.
    fn dump(
        &mut self,
        request: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> io::Result<()> {
        self.discard();
        self.socket.send(request)?;
        loop {
            let length = self.socket.recv_raw(&mut self.buffer)?;
            for message in Messages::new(&self.buffer[..length]) {
                let message = message.map_err(io::Error::other)?;
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let number = message.error_number().map_err(io::Error::other)?;
                        return Err(io::Error::from_raw_os_error(number));
                    }
                    _ => take(message.payload).map_err(io::Error::other)?,
                }
            }
        }
    }

    /// Reads the rest of an earlier answer.
    fn discard(&mut self) {
        while self.socket.recv_raw(&mut self.buffer).is_ok() {}
    }
}

/// The current content of the file.
fn read_again(mut file: &File) -> io::Result<String> {
    file.rewind()?;
    io::read_to_string(file)
}

/// The name of the flowtable, if it does not count.
fn uncounted(payload: &[u8]) -> Result<Option<String>, Malformed> {
    let mut name = match payload.first() {
        Some(&NFPROTO_INET) => "inet".to_owned(),
        Some(&NFPROTO_IPV4) => "ip".to_owned(),
        _ => "ip6".to_owned(),
    };
    for attribute in netlink::attributes(payload)? {
        let attribute = attribute?;
        match attribute.kind {
            // The kernel sends them in this order, each with a zero octet at its end.
            NFTA_FLOWTABLE_TABLE | NFTA_FLOWTABLE_NAME => {
                let text = String::from_utf8_lossy(attribute.payload);
                name = format!("{name} {}", text.trim_end_matches('\0'));
            }
            NFTA_FLOWTABLE_FLAGS if attribute.be32()? & NFT_FLOWTABLE_COUNTER != 0 => {
                return Ok(None);
            }
            _ => {}
        }
    }
    Ok(Some(name))
}

fn get_chain(table: &str, chain: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    for (kind, name) in [(NFTA_CHAIN_TABLE, table), (NFTA_CHAIN_NAME, chain)] {
        // This includes the final zero octet.
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

    fn flowtable(family: u8, flags: u32) -> Vec<u8> {
        let mut payload = vec![family, 0, 0, 0];
        for (kind, name) in [
            (NFTA_FLOWTABLE_TABLE, b"fw4\0"),
            (NFTA_FLOWTABLE_NAME, b"ft1\0"),
        ] {
            payload.extend([8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat());
            payload.extend(name);
        }
        payload.extend([8_u16.to_ne_bytes(), NFTA_FLOWTABLE_FLAGS.to_ne_bytes()].concat());
        payload.extend(flags.to_be_bytes());
        payload
    }

    #[test]
    fn a_flowtable_without_counter_is_named_as_nft_does() {
        for (family, flags, name) in [
            (1, 0, Some("inet fw4 ft1")),
            (2, 1, Some("ip fw4 ft1")),
            (10, 0, Some("ip6 fw4 ft1")),
            (1, 2, None),
            (1, 3, None),
        ] {
            let found = uncounted(&flowtable(family, flags)).unwrap();
            assert_eq!(found.as_deref(), name, "{family} {flags}");
        }
    }

    /// The network namespace has no other user: nothing changes between the two answers.
    #[test]
    fn procfs_and_ctnetlink_say_the_same() {
        thread::spawn(compare_in_own_namespace).join().unwrap();
    }

    fn compare_in_own_namespace() {
        // SAFETY: the network namespace is that of this thread only, and every descriptor stays as shared as before.
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
        assert_eq!(tracking.uncounted_flowtables().unwrap(), [""; 0]);
        assert_eq!(tracking.counters.is_some(), Path::new(COUNTERS).exists());
        let statistics = tracking.statistics().unwrap();
        assert_eq!(statistics.drops, asked);
        assert_eq!(statistics.entries, 1);
        assert!(statistics.max_entries > 0);
    }
}
