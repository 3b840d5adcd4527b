//! The ctnetlink sockets: one that hears of sessions as they begin and end, and one that asks for the table.
//!
//! mnl opens and binds them; receiving in batches, the buffer and the delivery mode are set on the descriptor
//! (net/netlink/af_netlink.c). Both sockets are non-blocking, and stay in the network namespace they were opened in.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use rustix::io::ioctl_fionbio;
use rustix::net::sockopt;

use super::borrow;
use super::filter::Program;
use crate::config::Capture;
use crate::wire::ctnetlink::{Listing, encode_dump_request};

/// Messages taken by one system call.
const BATCH: usize = 128;
/// Room for one event. The largest that ctnetlink builds is below 1 KiB.
const EVENT_ROOM: usize = 2048;
/// The kernel fills a dump reply up to the size of the buffer it is read with, at most 32 KiB.
const DUMP_ROOM: usize = 32 * 1024;

const GROUP_NEW: u32 = 1 << (libc::NFNLGRP_CONNTRACK_NEW - 1);
const GROUP_DESTROY: u32 = 1 << (libc::NFNLGRP_CONNTRACK_DESTROY - 1);

const NAME_LEN: libc::socklen_t = size_of::<libc::sockaddr_nl>() as libc::socklen_t;

/// Indices into `SO_MEMINFO` (`SK_MEMINFO_RMEM_ALLOC`, `SK_MEMINFO_DROPS`), and the number of values there.
const MEMINFO_QUEUED: usize = 0;
const MEMINFO_DROPS: usize = 8;
const MEMINFO_VALUES: usize = 9;

/// Hears NEW and DESTROY of the network namespace it was opened in.
pub struct EventSocket {
    socket: mnl::Socket,
}

impl EventSocket {
    /// Opens the socket, with its filter in place, and joins the groups. With `reliable` the kernel keeps every DESTROY
    /// that did not fit and delivers it later; without, an overflow is reported by [`receive`](Self::receive) as
    /// `ENOBUFS`.
    ///
    /// # Errors
    /// What the kernel says: without `CAP_NET_ADMIN` joining is not permitted.
    pub fn open(config: &Capture) -> io::Result<Self> {
        let socket = mnl::Socket::open(mnl::Bus::Netfilter)?;
        let this = Self { socket };
        ioctl_fionbio(this.borrow(), true)?;
        this.set_receive_buffer(config.receive_buffer)?;
        this.set_filter(&Program::new(config))?;
        if config.reliable {
            // NO_ENOBUFS as well: only with it is a failed allocation of the event reported to its sender.
            set_netlink_option(this.borrow(), libc::NETLINK_BROADCAST_ERROR)?;
            set_netlink_option(this.borrow(), libc::NETLINK_NO_ENOBUFS)?;
        }
        this.socket.bind(GROUP_NEW | GROUP_DESTROY, 0)?;
        Ok(this)
    }

    /// Fills `batch` with what is queued, without waiting.
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
        // A negative number is the only one that does not fit.
        batch.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(())
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_filter(&self, program: &Program) -> io::Result<()> {
        program.attach(self.borrow())
    }

    /// How often an event did not fit into the socket's buffer, since it was opened. In reliable mode that is a sign of
    /// pressure, not of loss.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drops(&self) -> io::Result<u32> {
        Ok(self.memory()?[MEMINFO_DROPS])
    }

    /// Bytes that wait in the receive buffer, as the kernel counts them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn queued(&self) -> io::Result<u32> {
        Ok(self.memory()?[MEMINFO_QUEUED])
    }

    /// Size of the receive buffer in bytes, as the kernel counts it (twice what was asked for).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(self.borrow())?)
    }

    fn memory(&self) -> io::Result<[u32; MEMINFO_VALUES]> {
        let mut values = [0_u32; MEMINFO_VALUES];
        let mut length = size_of::<[u32; MEMINFO_VALUES]>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, the size of `values`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                values.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(values)
    }

    fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        // FORCE ignores net.core.rmem_max, which is far too small for this, but needs CAP_NET_ADMIN.
        let forced = sockopt::set_socket_recv_buffer_size_force(self.borrow(), bytes);
        forced
            .or_else(|_| sockopt::set_socket_recv_buffer_size(self.borrow(), bytes))
            .map_err(io::Error::from)
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
    }
}

impl AsRawFd for EventSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What one [`EventSocket::receive`] took: up to 128 datagrams in buffers that are used again and again.
pub struct Batch {
    buffers: Vec<[u8; EVENT_ROOM]>,
    names: Vec<libc::sockaddr_nl>,
    /// Only pointed to by `headers`.
    _vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    filled: usize,
}

impl Batch {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "nothing makes one by default")]
    pub fn new() -> Self {
        let mut buffers = vec![[0; EVENT_ROOM]; BATCH];
        // SAFETY: all of these are plain C structures, for which zero bytes are a valid value.
        let (mut names, mut headers): (Vec<libc::sockaddr_nl>, Vec<libc::mmsghdr>) =
            unsafe { (zeroed(), zeroed()) };
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
            // Only port 0 is the kernel; another process may send to a netlink socket too.
            let foreign = self.names[index].nl_pid != 0;
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let length = (header.msg_len as usize).min(EVENT_ROOM);
            if foreign || truncated {
                Datagram::Unusable
            } else {
                Datagram::Kernel(&self.buffers[index][..length])
            }
        })
    }

    /// Whether more may be queued: the batch is full.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.filled == BATCH
    }

    /// How many datagrams there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.filled
    }

    /// Undoes what the last call wrote into the headers it filled.
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
    /// From another process, or larger than any event.
    Unusable,
}

/// Asks for a whole listing and receives it piece by piece.
pub struct DumpSocket {
    socket: mnl::Socket,
    buffer: Box<[u8]>,
}

impl DumpSocket {
    /// Opens the socket and asks for the listing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn request(listing: Listing, sequence: u32) -> io::Result<Self> {
        let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
        ioctl_fionbio(borrow(&socket), true)?;
        socket.send(&encode_dump_request(listing, sequence))?;
        let buffer = vec![0; DUMP_ROOM].into_boxed_slice();
        Ok(Self { socket, buffer })
    }

    /// The next datagram of the answer.
    ///
    /// # Errors
    /// `WouldBlock` when none is queued.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        let length = self.socket.recv_raw(&mut self.buffer)?;
        Ok(&self.buffer[..length])
    }
}

impl AsRawFd for DumpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn set_netlink_option(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one c_int, which `on` is.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// # Safety
/// Zero bytes must be a valid `T`.
unsafe fn zeroed<T>() -> Vec<T> {
    (0..BATCH)
        .map(|_| {
            // SAFETY: the caller promises it.
            unsafe { MaybeUninit::zeroed().assume_init() }
        })
        .collect()
}
