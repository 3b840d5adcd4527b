//! The counters of network interfaces, from `/proc/thread-self/net/dev`.
//!
//! The column `drop` is `rx_dropped` and `rx_missed_errors` (`dev_seq_printf_stats` in net/core/net-procfs.c): frames for
//! which the ring of the card or the backlog of a processor had no room, and frames that are too long. `fifo` are overruns
//! within the card.

use std::fs::File;
use std::io::{self, Seek as _};

const PATH: &str = "/proc/thread-self/net/dev";

/// The counters of the interfaces in the network namespace where this was opened. Open, it keeps that namespace alive.
pub(crate) struct Interfaces(File);

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Received {
    pub(crate) packets: u64,
    /// Frames that were lost on the way to the IP stack.
    pub(crate) lost: u64,
}

impl Interfaces {
    pub(crate) fn open() -> io::Result<Self> {
        File::open(PATH).map(Self)
    }

    /// The present counters; `None` without an interface of that name.
    pub(crate) fn received(&self, interface: &str) -> io::Result<Option<Received>> {
        let mut file = &self.0;
        file.rewind()?;
        Ok(parse(&io::read_to_string(file)?, interface))
    }
}

fn parse(text: &str, interface: &str) -> Option<Received> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, columns) = lines.find(|(name, _)| name.trim() == interface)?;
    // bytes packets errs drop fifo frame compressed multicast, then what was sent.
    let columns = columns.split_whitespace().map(str::parse);
    let columns: Vec<u64> = columns.collect::<Result<_, _>>().ok()?;
    Some(Received {
        packets: *columns.get(1)?,
        lost: columns.get(3)? + columns.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth1:    1478      21    1    3    4     5          6         7        8       9   10   11   12    13      14         15
";

    #[test]
    fn the_lost_frames_are_those_dropped_and_those_overrun() {
        let received = Received {
            packets: 21,
            lost: 7,
        };
        assert_eq!(parse(TEXT, "eth1"), Some(received));
        assert_eq!(parse(TEXT, "lo"), Some(Received::default()));
        assert_eq!(parse(TEXT, "eth"), None);
    }

    #[test]
    fn the_loopback_interface_is_found_in_the_present_namespace() -> io::Result<()> {
        let interfaces = Interfaces::open()?;
        assert!(interfaces.received("lo")?.is_some());
        assert_eq!(interfaces.received("not-there")?, None);
        Ok(())
    }
}
