//! Reading a listing of connection tracking, on a thread of its own.
//!
//! ctnetlink serves one request at a time (`NFNL_CB_MUTEX` in net/netfilter/nf_conntrack_netlink.c): while any program
//! deletes all entries, which takes seconds for millions of them, a request blocks in the call. For each piece of the
//! dying list the kernel walks the list from its beginning, and for one of the table it may walk millions of empty
//! buckets. None of that may hold up the loop.
//!
//! The thread has a socket and nothing else. It ends with the listing, or when the reader is gone.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use mio::Waker;

use super::namespace::within;
use crate::config::Namespace;
use crate::wire::ctnetlink::{DumpReply, Entry, Listing, dump_request};
use crate::wire::netlink::{Malformed, Messages, NLM_F_DUMP_INTR};

/// The kernel fills a reply up to the size of the buffer it is read with, at most 32 KiB.
const ROOM: usize = 32 * 1024;
/// Pieces that wait for their reader, at the fast pace.
const AHEAD: usize = 4;
/// Nothing but the buffer is large, and that is on the heap.
const STACK: usize = 64 * 1024;
/// The pause between the pieces of a listing that is longer than expected.
const HURRY: Duration = Duration::from_millis(1);
/// The sequence number of the only request on its socket.
const SEQUENCE: u32 = 1;

/// How fast a listing is read.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// A few pieces are ready before they are asked for.
    Fast,
    /// So long after a piece was handed over, the next one is read. It waits only for a reader that is busy, as counters in
    /// it are to be fresh. The kernel makes it at the end of the pause before that.
    /// Beyond that many pieces, the pause is [`HURRY`] at most.
    Slow(Duration, u32),
}

/// A listing that is being read.
pub struct Dump {
    pieces: Receiver<io::Result<Piece>>,
}

struct WakeOnDrop(Arc<Waker>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        let _ = self.0.wake();
    }
}

/// One datagram of a listing.
#[derive(Debug, Default)]
pub struct Piece {
    pub entries: Vec<Entry>,
    /// Entries that could not be decoded.
    pub malformed: u64,
    /// The length of the datagram.
    pub octets: usize,
    /// Whether it is the last.
    pub is_last: bool,
}

impl Dump {
    /// Requests `listing` in `namespace`. The waker reports when there is something to read.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn request(
        listing: Listing,
        pace: Pace,
        namespace: Option<&Namespace>,
        waker: &Arc<Waker>,
    ) -> io::Result<Self> {
        let ahead = match pace {
            Pace::Fast => AHEAD,
            Pace::Slow(..) => 1,
        };
        let (sender, pieces) = sync_channel(ahead);
        let (namespace, waker) = (namespace.cloned(), Arc::clone(waker));
        let work = move || {
            // Dropped last, even in a panic: the reader then finds that the sender is gone.
            let end = WakeOnDrop(waker);
            let sender = sender;
            let socket = open(listing, namespace.as_ref());
            let result = socket.and_then(|socket| read(&socket, pace, &sender, &end.0));
            if let Err(error) = result {
                // Without a reader nobody needs the error.
                let _ = sender.send(Err(error));
            }
        };
        let thread = thread::Builder::new().name("listing".to_owned());
        thread.stack_size(STACK).spawn(work)?;
        Ok(Self { pieces })
    }

    /// The next piece; `None` when there is none yet.
    ///
    /// # Errors
    /// The kernel's error, after which there are no more pieces.
    pub fn receive(&self) -> io::Result<Option<Piece>> {
        match self.pieces.try_recv() {
            Ok(piece) => piece.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(io::Error::other("the thread that reads it ended early"))
            }
        }
    }
}

fn open(listing: Listing, namespace: Option<&Namespace>) -> io::Result<mnl::Socket> {
    let socket = within(namespace, || mnl::Socket::new(mnl::Bus::Netfilter))??;
    socket.send(&dump_request(listing, SEQUENCE))?;
    Ok(socket)
}

/// Hands the pieces over until the last one.
fn read(
    socket: &mnl::Socket,
    pace: Pace,
    sender: &SyncSender<io::Result<Piece>>,
    waker: &Waker,
) -> io::Result<()> {
    let mut buffer = vec![0; ROOM];
    let mut number = 0_u32;
    loop {
        let length = match socket.recv_raw(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        let piece = decode(&buffer[..length])?;
        let is_last = piece.is_last;
        if sender.send(Ok(piece)).is_err() {
            return Ok(());
        }
        waker.wake()?;
        if is_last {
            return Ok(());
        }
        if let Pace::Slow(pause, pieces) = pace {
            let is_late = number >= pieces;
            number = number.saturating_add(1);
            thread::sleep(if is_late { pause.min(HURRY) } else { pause });
        }
    }
}

fn decode(datagram: &[u8]) -> io::Result<Piece> {
    let mut piece = Piece {
        octets: datagram.len(),
        ..Piece::default()
    };
    for message in Messages::new(datagram) {
        let reply = message.and_then(|message| {
            if message.flags & NLM_F_DUMP_INTR != 0 {
                return Ok(Some(DumpReply::Error(libc::EINTR)));
            }
            if message.sequence != SEQUENCE {
                return Ok(None);
            }
            DumpReply::decode(&message)
        });
        match reply {
            Ok(Some(DumpReply::Entry(entry))) => piece.entries.push(entry),
            Ok(Some(DumpReply::Done)) => piece.is_last = true,
            Ok(Some(DumpReply::Error(number))) => {
                return Err(io::Error::from_raw_os_error(number));
            }
            Ok(None) => {}
            Err(Malformed) => piece.malformed += 1,
        }
    }
    Ok(piece)
}
