//! Real traffic between namespaces: TCP and UDP exchanges of known size, ICMP echo, and any IP protocol by number.
//!
//! Every function returns when the far side has received the data, so that the kernel's counters are final.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};

use super::netns::Namespace;
use super::{PATIENCE, packet, wait_for};

/// Both ends of an open TCP connection.
#[derive(Debug)]
pub struct Tcp {
    client: TcpStream,
    server: TcpStream,
}

impl Tcp {
    /// Connects `from` (an address and a port of `client`; port 0 for any) to `to`, where `listen` of `server` is
    /// expected to answer.
    pub fn open(
        client: &Namespace,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        server: &Namespace,
        listen: (IpAddr, u16),
    ) -> Self {
        let listener = server.run(|| bind(|| TcpListener::bind(listen)));
        let client = client.run(|| {
            let socket = socket(from.0, SocketType::STREAM, None);
            // The source port of an earlier connection is in TIME-WAIT.
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
            rustix::net::bind(&socket, &SocketAddr::from(from)).unwrap();
            rustix::net::sockopt::set_tcp_user_timeout(&socket, PATIENCE.as_millis() as u32)
                .unwrap();
            rustix::net::connect(&socket, &SocketAddr::from(to))
                .unwrap_or_else(|error| panic!("connect {from:?} to {to:?}: {error}"));
            TcpStream::from(socket)
        });
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self { client, server }
    }

    /// Sends `request` bytes one way and `reply` bytes back.
    pub fn exchange(&mut self, request: usize, reply: usize) {
        transfer(&mut self.client, &mut self.server, request);
        transfer(&mut self.server, &mut self.client, reply);
    }

    /// The source of the connection, as the server sees it.
    pub fn seen_by_server(&self) -> SocketAddr {
        self.server.peer_addr().unwrap()
    }
}

fn transfer(from: &mut TcpStream, to: &mut TcpStream, octets: usize) {
    from.write_all(&vec![0x5a; octets]).unwrap();
    to.read_exact(&mut vec![0; octets]).unwrap();
}

/// A UDP socket on either side. The server answers to the source of the client's datagrams.
#[derive(Debug)]
pub struct Udp {
    client: UdpSocket,
    server: UdpSocket,
    peer: Option<SocketAddr>,
}

impl Udp {
    pub fn open(
        client: &Namespace,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        server: &Namespace,
        listen: (IpAddr, u16),
    ) -> Self {
        let server = server.run(|| bind(|| UdpSocket::bind(listen)));
        let client = client.run(|| {
            let socket = bind(|| UdpSocket::bind(from));
            socket.connect(to).unwrap();
            socket
        });
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self {
            client,
            server,
            peer: None,
        }
    }

    /// Sends one datagram of `octets` octets.
    pub fn request(&mut self, octets: usize) {
        self.client.send(&vec![0x5a; octets]).unwrap();
        let (received, peer) = uninterrupted(|| self.server.recv_from(&mut [0; 65_535]));
        assert_eq!(received, octets);
        self.peer = Some(peer);
    }

    /// Answers the latest request with one datagram of `octets` octets.
    pub fn reply(&mut self, octets: usize) {
        let peer = self.peer.unwrap();
        self.server.send_to(&vec![0xa5; octets], peer).unwrap();
        assert_eq!(uninterrupted(|| self.client.recv(&mut [0; 65_535])), octets);
    }

    pub fn exchange(&mut self, request: usize, reply: usize) {
        self.request(request);
        self.reply(reply);
    }
}

/// Binds, and waits while the port is in use: a closed socket lives on for a moment in a child process that another
/// thread is about to start.
fn bind<T>(attempt: impl Fn() -> io::Result<T>) -> T {
    wait_for("a port to be free", || match attempt() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        outcome => Some(outcome.unwrap()),
    })
}

/// A call with a timeout is not restarted after the process was stopped in it (signal(7)).
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome.unwrap(),
        }
    }
}

/// Sends ICMP or ICMPv6 echo requests with the identifier and waits for the answer to each.
pub fn ping(namespace: &Namespace, from: IpAddr, to: IpAddr, id: u16, count: u16) {
    let socket = raw_socket(namespace, from, icmp_of(from));
    for sequence in 1..=count {
        let request = packet::echo_request(to.is_ipv4(), id, sequence);
        socket.send_to(&request, (to, 0)).unwrap();
        receive(&socket, "an echo reply", |received| {
            packet::is_echo_reply(from.is_ipv4(), received, id, sequence)
        });
    }
}

/// Sends one packet of an IP protocol by its number and waits until it arrives.
///
/// `payload` is everything behind the IP header.
pub fn send_ip(
    client: &Namespace,
    (from, to): (IpAddr, IpAddr),
    server: &Namespace,
    listen: IpAddr,
    protocol: u8,
    payload: &[u8],
) {
    let receiver = raw_socket(server, listen, protocol);
    let sender = raw_socket(client, from, protocol);
    sender.send_to(payload, (to, 0)).unwrap();
    receive(&receiver, "the packet", |received| {
        // NAT may have rewritten ports and checksums, but not the length.
        received.len() == payload.len()
    });
}

/// Reads packets until one is accepted. A raw socket for IPv4 also gets the header, which `accept` does not.
fn receive(socket: &UdpSocket, what: &str, accept: impl Fn(&[u8]) -> bool) {
    let local = socket.local_addr().unwrap().ip();
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 65_535];
    loop {
        assert!(
            Instant::now() < deadline,
            "waited in vain for {what} at {local}"
        );
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let start = if local.is_ipv4() {
            usize::from(buffer[0] & 0x0f) * 4
        } else {
            0
        };
        if accept(&buffer[start..length]) {
            return;
        }
    }
}

/// A raw socket has the same calls as a UDP socket; ports are ignored.
fn raw_socket(namespace: &Namespace, local: IpAddr, protocol: u8) -> UdpSocket {
    namespace.run(|| {
        let protocol = rustix::net::RawProtocol::new(u32::from(protocol)).unwrap();
        let socket = socket(local, SocketType::RAW, Some(Protocol::from_raw(protocol)));
        rustix::net::bind(&socket, &SocketAddr::from((local, 0))).unwrap();
        let socket = UdpSocket::from(socket);
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        socket
    })
}

fn socket(local: IpAddr, kind: SocketType, protocol: Option<Protocol>) -> rustix::fd::OwnedFd {
    let family = if local.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol).unwrap()
}

fn icmp_of(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        packet::ICMP
    } else {
        packet::ICMPV6
    }
}

/// The loopback address of a family.
#[must_use]
pub fn loopback(ipv4: bool) -> IpAddr {
    if ipv4 {
        IpAddr::from([127, 0, 0, 1])
    } else {
        IpAddr::from(Ipv6Addr::LOCALHOST)
    }
}
