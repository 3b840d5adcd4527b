//! The error queue of a UDP socket (ip(7), IP_RECVERR): the kernel keeps each ICMP error together with the beginning of
//! the datagram that caused it.
//!
//! Without the queue a connected socket learns only of "port unreachable", and never for which datagram. With it the
//! socket also learns of an unreachable host or network, as a router or the kernel's own neighbour discovery finds it.

use std::io;
use std::os::fd::AsFd;

use rustix::net::RecvFlags;

/// Has the kernel keep errors for the socket.
pub fn keep_errors(socket: impl AsFd, is_ipv4: bool) -> io::Result<()> {
    let (level, option) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    };
    let on: libc::c_int = 1;
    // SAFETY: the option takes an integer.
    unsafe { super::set_option(socket, level, option, &on) }
}

/// Takes the oldest error off the queue, and returns how much of the datagram it quotes. `None` when there is none.
pub fn take_error(socket: impl AsFd, buffer: &mut [u8]) -> Option<usize> {
    let flags = RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT;
    let received = rustix::net::recv(socket, buffer, flags).ok()?;
    Some(received.0)
}
