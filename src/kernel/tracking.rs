//! Questions to connection tracking and to nftables that are answered at once.
//!
//! The kernel answers such a request while it is being sent, so the answer is there when the call returns: nothing here
//! waits. The socket stays in the network namespace it was opened in.

use std::ffi::CStr;
use std::io;

use rustix::io::ioctl_fionbio;

use super::borrow;
use crate::wire::ctstats::{TrackingStatistics, encode_cpu_request, encode_global_request};
use crate::wire::netlink::{Messages, NLM_F_REQUEST, NLMSG_ERROR};

const BUFFER: usize = 32 * 1024;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`
const MESSAGE_GET_TABLE: u16 = 10 << 8 | 1;
const NFPROTO_INET: u8 = 1;
const NFTA_TABLE_NAME: u16 = 1;

/// A socket for such questions.
pub struct TrackingSocket {
    socket: mnl::Socket,
    buffer: Box<[u8]>,
}

impl TrackingSocket {
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
        ioctl_fionbio(borrow(&socket), true)?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self { socket, buffer })
    }

    /// The statistics of the namespace.
    ///
    /// # Errors
    /// What the kernel says, or when its answer cannot be understood.
    pub fn statistics(&mut self) -> io::Result<TrackingStatistics> {
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

    /// Whether the nftables table of family inet exists.
    ///
    /// # Errors
    /// What the kernel says other than that it does not.
    pub fn has_table(&mut self, name: &CStr) -> io::Result<bool> {
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

    /// Reads what an earlier question may have left.
    fn discard(&mut self) {
        while self.socket.recv_raw(&mut self.buffer).is_ok() {}
    }
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
