//! Questions to connection tracking and to nftables that are answered at once.
//!
//! The kernel answers such a request while it is being sent, so the answer is there when the call returns: nothing here
//! waits for a message. The files and the socket stay in the network namespace they were opened in.
//!
//! But ctnetlink answers one request at a time: while another program deletes all entries (`conntrack -F`), which takes
//! seconds for millions of them, everybody else stands still in the call (`NFNL_CB_MUTEX` in
//! `net/netfilter/nf_conntrack_netlink.c`). So the statistics come from procfs, which takes no lock, and from ctnetlink
//! only where the kernel was built without those files (`CONFIG_NF_CONNTRACK_PROCFS`).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::io::ioctl_fionbio;

use super::borrow;
use crate::wire::ctstats::{TrackingStatistics, encode_cpu_request, encode_global_request};
use crate::wire::netlink::{Messages, NLM_F_REQUEST, NLMSG_ERROR};

/// Those of the calling thread's network namespace, whatever else of `/proc` is hidden.
const COUNTERS: &str = "/proc/thread-self/net/stat/nf_conntrack";
const MAXIMUM: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

const BUFFER: usize = 32 * 1024;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`
const MESSAGE_GET_TABLE: u16 = 10 << 8 | 1;
const NFPROTO_INET: u8 = 1;
const NFTA_TABLE_NAME: u16 = 1;

/// Where such questions are asked.
pub(crate) struct Tracking {
    files: Option<Files>,
    socket: mnl::Socket,
    buffer: Box<[u8]>,
}

struct Files {
    counters: File,
    maximum: File,
    text: Vec<u8>,
}

impl Tracking {
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
        ioctl_fionbio(borrow(&socket), true)?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self {
            files: Files::open().ok(),
            socket,
            buffer,
        })
    }

    /// The statistics of the namespace.
    ///
    /// # Errors
    /// What the kernel says, or when its answer cannot be understood.
    pub(crate) fn statistics(&mut self) -> io::Result<TrackingStatistics> {
        match &mut self.files {
            Some(files) => files.statistics(),
            None => self.ask_statistics(),
        }
    }

    /// Whether the nftables table of family inet exists.
    ///
    /// # Errors
    /// What the kernel says other than that it does not.
    pub(crate) fn has_table(&mut self, name: &CStr) -> io::Result<bool> {
        self.discard();
        self.socket.send(&encode_get_table(name))?;
        let length = self.socket.recv_raw(&mut self.buffer)?;
        for message in Messages::new(&self.buffer[..length]) {
            let message = message.map_err(io::Error::other)?;
            if message.kind == NLMSG_ERROR {
                let number = message.error_number().map_err(io::Error::other)?;
                return match number {
                    0 => Ok(true),
                    libc::ENOENT => Ok(false),
                    number => Err(io::Error::from_raw_os_error(number)),
                };
            }
        }
        Ok(true)
    }

    fn ask_statistics(&mut self) -> io::Result<TrackingStatistics> {
        self.discard();
        let mut statistics = TrackingStatistics::default();
        for request in [encode_cpu_request(), encode_global_request()] {
            self.socket.send(&request)?;
            let mut complete = false;
            while !complete {
                let length = self.socket.recv_raw(&mut self.buffer)?;
                for message in Messages::new(&self.buffer[..length]) {
                    let message = message.map_err(io::Error::other)?;
                    complete |= statistics.add(&message).map_err(io::Error::other)?;
                }
            }
        }
        Ok(statistics)
    }

    /// Reads what an earlier question may have left.
    fn discard(&mut self) {
        while self.socket.recv_raw(&mut self.buffer).is_ok() {}
    }
}

impl Files {
    fn open() -> io::Result<Self> {
        Ok(Self {
            counters: File::open(COUNTERS)?,
            maximum: File::open(MAXIMUM)?,
            text: Vec::new(),
        })
    }

    fn statistics(&mut self) -> io::Result<TrackingStatistics> {
        let text = read_again(&self.counters, &mut self.text)?;
        let mut statistics = TrackingStatistics::of_procfs(text).map_err(io::Error::other)?;
        let text = read_again(&self.maximum, &mut self.text)?;
        statistics.max_entries = text.trim().parse().map_err(io::Error::other)?;
        Ok(statistics)
    }
}

/// Reads the file from its beginning, as it is now.
fn read_again<'a>(file: &File, text: &'a mut Vec<u8>) -> io::Result<&'a str> {
    let mut length = 0;
    loop {
        if text.len() - length < 4096 {
            text.resize(length + 8192, 0);
        }
        match file.read_at(&mut text[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    std::str::from_utf8(&text[..length]).map_err(io::Error::other)
}

fn encode_get_table(name: &CStr) -> Vec<u8> {
    let name = name.to_bytes_with_nul();
    let mut attribute = u16::try_from(4 + name.len())
        .expect("a table's name is short")
        .to_ne_bytes()
        .to_vec();
    attribute.extend(NFTA_TABLE_NAME.to_ne_bytes());
    attribute.extend(name);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let length = u32::try_from(20 + attribute.len()).expect("a table's name is short");
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(MESSAGE_GET_TABLE.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([NFPROTO_INET, 0, 0, 0]);
    request.extend(attribute);
    request
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
        let asked = tracking.ask_statistics().unwrap();
        assert!(asked.max_entries > 0);
        assert_eq!(asked.entries, 1);
        assert_eq!(tracking.files.is_some(), Path::new(COUNTERS).exists());
        if tracking.files.is_some() {
            assert_eq!(tracking.statistics().unwrap(), asked);
        }
    }
}
