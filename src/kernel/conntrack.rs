//! The ctnetlink socket that receives sessions as they begin and end.
//!
//! mnl opens and binds it; receiving in batches, the buffer and the delivery mode are set on the descriptor
//! (net/netlink/af_netlink.c). It is non-blocking, and stays in the network namespace where it was opened.
//!
//! An event socket outlives the daemon when the service manager holds its descriptor. The events that the kernel queues
//! meanwhile, and in reliable mode those that it could not queue, wait for the next daemon, which takes the descriptor
//! over once [`EventSocket::adopt`] has found it to be the right one.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::io::{fcntl_dupfd_cloexec, ioctl_fionbio};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, getsockname, sockopt};

use super::filter::Program;
use super::{borrow, set_option};
use crate::config::{Capture, Selection};

/// Messages taken by one system call.
const BATCH: usize = 128;
/// Room for one event. The largest that ctnetlink builds is below 1 KiB.
const EVENT_ROOM: usize = 2048;

const GROUP_NEW: u32 = 1 << (libc::NFNLGRP_CONNTRACK_NEW - 1);
const GROUP_DESTROY: u32 = 1 << (libc::NFNLGRP_CONNTRACK_DESTROY - 1);

/// The options that together make the reliable mode.
const RELIABLE: [libc::c_int; 2] = [libc::NETLINK_BROADCAST_ERROR, libc::NETLINK_NO_ENOBUFS];

const NAME_LEN: libc::socklen_t = size_of::<libc::sockaddr_nl>() as libc::socklen_t;

/// Receives NEW and DESTROY of the network namespace where it was opened.
pub struct EventSocket {
    socket: OwnedFd,
}

/// The receive buffer of an event socket, in octets as the kernel counts them: twice the size asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub size: u32,
    pub queued: u32,
    /// How often an event did not fit, since the socket was opened. In reliable mode a sign of pressure, not of loss.
    pub drops: u32,
}

impl EventSocket {
    /// Opens the socket, with its filter in place, and joins the groups. With `reliable` the kernel keeps every DESTROY
    /// that did not fit and delivers it later; without, an overflow is reported by [`receive`](Self::receive) as
    /// `ENOBUFS`.
    ///
    /// # Errors
    /// The kernel's error: without `CAP_NET_ADMIN` joining is not permitted.
    pub fn open(config: &Capture, selections: &[Selection]) -> io::Result<Self> {
        let opened = mnl::Socket::open(mnl::Bus::Netfilter)?;
        // mnl closes its own descriptor on drop, and a socket can only be made from one that it opened.
        let socket = fcntl_dupfd_cloexec(borrow(&opened), 0)?;
        let this = Self { socket };
        Program::new(selections).attach(this.as_fd())?;
        this.configure(config)?;
        opened.bind(GROUP_NEW | GROUP_DESTROY, 0)?;
        Ok(this)
    }

    /// Takes a descriptor over if it is an event socket of the thread's network namespace. Its queue, its filter and its
    /// modes stay as they are.
    ///
    /// # Errors
    /// The reason why it is not such a socket, or could not be examined.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        // A descriptor without a domain or a protocol is not a socket.
        let domain = sockopt::socket_domain(&socket).ok();
        let protocol = sockopt::socket_protocol(&socket).ok().flatten();
        if domain != Some(AddressFamily::NETLINK) || protocol != Some(netlink::NETFILTER) {
            return Err(io::Error::other("it is no netlink socket of netfilter's"));
        }
        let groups = SocketAddrNetlink::try_from(getsockname(&socket)?)?.groups();
        if groups != GROUP_NEW | GROUP_DESTROY {
            return Err(io::Error::other(format!(
                "it hears the groups {groups:#x}, expected {:#x} (new and ended connections)",
                GROUP_NEW | GROUP_DESTROY
            )));
        }
        let here = mnl::Socket::open(mnl::Bus::Netfilter)?;
        if namespace_cookie(borrow(&here))? != namespace_cookie(socket.as_fd())? {
            return Err(io::Error::other("it belongs to another network namespace"));
        }
        Ok(Self { socket })
    }

    /// Sets the size of the buffer and the delivery mode.
    pub fn configure(&self, config: &Capture) -> io::Result<()> {
        ioctl_fionbio(&self.socket, true)?;
        // FORCE ignores net.core.rmem_max, which is far too small for this, but needs CAP_NET_ADMIN.
        let size = config.receive_buffer;
        sockopt::set_socket_recv_buffer_size_force(&self.socket, size)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&self.socket, size))?;
        let reliable = libc::c_int::from(config.reliable);
        // NO_ENOBUFS is needed too: only with it does the sender learn of a failed allocation of the event.
        for option in RELIABLE {
            // SAFETY: the option takes an integer.
            unsafe { set_option(&self.socket, libc::SOL_NETLINK, option, &reliable)? };
        }
        Ok(())
    }

    /// Whether the kernel keeps the end of a session until it can be delivered.
    pub fn is_reliable(&self) -> io::Result<bool> {
        for option in RELIABLE {
            if get_option(self.as_fd(), libc::SOL_NETLINK, option)? == [0] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A number that no other socket has had since the machine was started.
    pub fn cookie(&self) -> io::Result<u64> {
        Ok(sockopt::socket_cookie(&self.socket)?)
    }

    /// Fills `batch` with queued datagrams, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is queued; `ENOBUFS` (once) when events were lost in non-reliable mode.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.reset();
        // SAFETY: the headers point to names, vectors and buffers that `batch` owns on the heap and keeps in place; their
        // lengths are those of the buffers; BATCH is their number.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                batch.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        // Only a negative number does not fit.
        batch.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(())
    }

    /// The state of the receive buffer (`SO_MEMINFO`).
    pub fn memory(&self) -> io::Result<Memory> {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_MEMINFO);
        // The words from SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_RCVBUF to SK_MEMINFO_DROPS.
        let [queued, size, _, _, _, _, _, _, drops] = get_option(self.as_fd(), level, option)?;
        Ok(Memory {
            size,
            queued,
            drops,
        })
    }
}

impl AsFd for EventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The result of one [`EventSocket::receive`]: up to 128 datagrams in reused buffers.
pub struct Batch {
    buffers: Vec<[u8; EVENT_ROOM]>,
    names: Vec<libc::sockaddr_nl>,
    /// Used only through the pointers in `headers`.
    _vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    filled: usize,
}

impl Batch {
    #[expect(clippy::new_without_default, reason = "nothing makes one by default")]
    pub fn new() -> Self {
        let mut buffers = vec![[0; EVENT_ROOM]; BATCH];
        // SAFETY: these are plain C structures, for which zero bytes are a valid value.
        let (name, header): (libc::sockaddr_nl, libc::mmsghdr) = unsafe { zeroed() };
        let (mut names, mut headers) = (vec![name; BATCH], vec![header; BATCH]);
        let mut vectors: Vec<libc::iovec> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: EVENT_ROOM,
            })
            .collect();
        for ((header, name), vector) in headers.iter_mut().zip(&mut names).zip(&mut vectors) {
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = NAME_LEN;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        Self {
            buffers,
            names,
            _vectors: vectors,
            headers,
            filled: 0,
        }
    }

    /// The datagrams, in the order of their arrival.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        (0..self.filled).map(|index| {
            let header = &self.headers[index];
            // Only port 0 is the kernel; other processes may send to a netlink socket too.
            let foreign = self.names[index].nl_pid != 0;
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let length = (header.msg_len as usize).min(EVENT_ROOM);
            if foreign {
                Datagram::Foreign
            } else if truncated {
                Datagram::Truncated
            } else {
                Datagram::Kernel(&self.buffers[index][..length])
            }
        })
    }

    /// Whether more may be queued: the batch is full.
    pub const fn is_full(&self) -> bool {
        self.filled == BATCH
    }

    /// How many datagrams there are.
    pub const fn count(&self) -> usize {
        self.filled
    }

    /// Undoes the changes of the last call to the headers that it filled.
    fn reset(&mut self) {
        for header in &mut self.headers[..self.filled] {
            header.msg_hdr.msg_flags = 0;
            header.msg_hdr.msg_namelen = NAME_LEN;
        }
        self.filled = 0;
    }
}

/// One datagram of a [`Batch`].
pub enum Datagram<'a> {
    /// From the kernel, whole.
    Kernel(&'a [u8]),
    /// From the kernel, and larger than any event.
    Truncated,
    /// From another process.
    Foreign,
}

/// An option as words; those that the kernel does not fill are zero.
fn get_option<const WORDS: usize>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<[u32; WORDS]> {
    let mut value = [0; WORDS];
    let mut length = size_of::<[u32; WORDS]>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

/// The 64-bit number that identifies a network namespace (Linux 5.14).
fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<[u32; 2]> {
    get_option(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE)
}
