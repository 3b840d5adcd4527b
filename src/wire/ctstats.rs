//! Statistics of connection tracking: of ctnetlink (requests out, counters in) and of `/proc/net/stat/nf_conntrack`.
//!
//! Follows `enum ctattr_stats_cpu` and `enum ctattr_stats_global` of
//! `include/uapi/linux/netfilter/nfnetlink_conntrack.h`, and `ct_cpu_seq_show` of
//! `net/netfilter/nf_conntrack_standalone.c`. The counters of the CPUs are summed; each wraps at 32 bits.

use super::ctnetlink::{ATTRIBUTES_OFFSET, SUBSYSTEM_CTNETLINK};
use super::netlink::{self, Attributes, HEADER_LEN, Malformed, Message};

const MESSAGE_GET_STATS_CPU: u16 = SUBSYSTEM_CTNETLINK | 4;
const MESSAGE_GET_STATS: u16 = SUBSYSTEM_CTNETLINK | 5;

const CTA_STATS_INSERT_FAILED: u16 = 9;
const CTA_STATS_DROP: u16 = 10;
const CTA_STATS_EARLY_DROP: u16 = 11;

const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// What the kernel counted since the network namespace was made. The first three wrap at 32 bits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TrackingStatistics {
    /// Packets dropped because no translated tuple was free, or two packets raced for one.
    pub insert_failed: u32,
    /// Packets dropped: those above, and those that found the table full.
    pub drop: u32,
    /// Connections that were ended to make room.
    pub early_drop: u32,
    /// Connections in the table, the dying ones included.
    pub entries: u32,
    /// `nf_conntrack_max`; 0 when the kernel does not say.
    pub max_entries: u32,
}

impl TrackingStatistics {
    /// Reads `/proc/net/stat/nf_conntrack`: a line of names, then one of hexadecimal counters for each CPU. Which columns
    /// there are has changed over time, their names have not. `max_entries` is not among them.
    ///
    /// # Errors
    /// [`Malformed`] when a column that is needed is missing or not a number.
    pub fn of_procfs(text: &str) -> Result<Self, Malformed> {
        let mut lines = text.lines();
        let names = lines.next().ok_or(Malformed)?;
        let column = |wanted| {
            let position = names.split_whitespace().position(|name| name == wanted);
            position.ok_or(Malformed)
        };
        let (failed, drop, early) = (
            column("insert_failed")?,
            column("drop")?,
            column("early_drop")?,
        );
        let entries = column("entries")?;
        let mut statistics = Self::default();
        for line in lines {
            let counter = |column| {
                let field = line.split_whitespace().nth(column).ok_or(Malformed)?;
                u32::from_str_radix(field, 16).map_err(|_| Malformed)
            };
            let sum = |so_far: u32, column| Ok(so_far.wrapping_add(counter(column)?));
            statistics.insert_failed = sum(statistics.insert_failed, failed)?;
            statistics.drop = sum(statistics.drop, drop)?;
            statistics.early_drop = sum(statistics.early_drop, early)?;
            // Of the whole namespace, and so the same in every line.
            statistics.entries = counter(entries)?;
        }
        Ok(statistics)
    }

    /// Adds what a message says. Returns whether it was the last of the answer.
    ///
    /// # Errors
    /// [`Malformed`] when the message breaks the format.
    pub fn add(&mut self, message: &Message<'_>) -> Result<bool, Malformed> {
        match message.kind {
            MESSAGE_GET_STATS_CPU => self.add_cpu(attributes(message)?).map(|()| false),
            MESSAGE_GET_STATS => self.add_global(attributes(message)?).map(|()| true),
            netlink::NLMSG_DONE | netlink::NLMSG_ERROR => Ok(true),
            _ => Ok(false),
        }
    }

    fn add_cpu(&mut self, attributes: Attributes<'_>) -> Result<(), Malformed> {
        for attribute in attributes {
            let attribute = attribute?;
            let counter = match attribute.kind {
                CTA_STATS_INSERT_FAILED => &mut self.insert_failed,
                CTA_STATS_DROP => &mut self.drop,
                CTA_STATS_EARLY_DROP => &mut self.early_drop,
                _ => continue,
            };
            *counter = counter.wrapping_add(attribute.be32()?);
        }
        Ok(())
    }

    fn add_global(&mut self, attributes: Attributes<'_>) -> Result<(), Malformed> {
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                CTA_STATS_GLOBAL_ENTRIES => self.entries = attribute.be32()?,
                CTA_STATS_GLOBAL_MAX_ENTRIES => self.max_entries = attribute.be32()?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A request for the counters of every CPU, which is a dump.
#[must_use]
pub fn encode_cpu_request() -> [u8; ATTRIBUTES_OFFSET] {
    request(
        MESSAGE_GET_STATS_CPU,
        netlink::NLM_F_REQUEST | netlink::NLM_F_DUMP,
    )
}

/// A request for the number of entries, which is answered by one message.
#[must_use]
pub fn encode_global_request() -> [u8; ATTRIBUTES_OFFSET] {
    request(MESSAGE_GET_STATS, netlink::NLM_F_REQUEST)
}

fn request(kind: u16, flags: u16) -> [u8; ATTRIBUTES_OFFSET] {
    let mut request = [0; ATTRIBUTES_OFFSET];
    request[0..4].copy_from_slice(&(ATTRIBUTES_OFFSET as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request
}

fn attributes<'a>(message: &Message<'a>) -> Result<Attributes<'a>, Malformed> {
    let payload = message.payload.get(ATTRIBUTES_OFFSET - HEADER_LEN..);
    payload.map(Attributes::new).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn payload(attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut payload = vec![0; 4];
        for (kind, value) in attributes {
            payload.extend(8_u16.to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(value.to_be_bytes());
        }
        payload
    }

    fn message(kind: u16, payload: &[u8]) -> Message<'_> {
        Message {
            kind,
            flags: 0,
            sequence: 0,
            payload,
        }
    }

    #[test]
    fn the_counters_of_all_cpus_are_summed() {
        let mut statistics = TrackingStatistics::default();
        let first = payload(&[(9, 1), (10, 2), (11, 3), (2, 100)]);
        let second = payload(&[(9, 10), (10, u32::MAX), (11, 30)]);
        for payload in [&first, &second] {
            assert_eq!(
                statistics.add(&message(MESSAGE_GET_STATS_CPU, payload)),
                Ok(false)
            );
        }
        let counters = (
            statistics.insert_failed,
            statistics.drop,
            statistics.early_drop,
        );
        assert_eq!(counters, (11, 1, 33));
        assert_eq!(statistics.add(&message(netlink::NLMSG_DONE, &[])), Ok(true));
    }

    #[test]
    fn the_global_answer_has_entries_and_their_maximum() {
        let mut statistics = TrackingStatistics::default();
        let payload = payload(&[(1, 5), (2, 262_144)]);
        assert_eq!(
            statistics.add(&message(MESSAGE_GET_STATS, &payload)),
            Ok(true)
        );
        assert_eq!((statistics.entries, statistics.max_entries), (5, 262_144));
    }

    #[test]
    fn procfs_columns_are_found_by_their_names() {
        let text = "entries  clashres found new insert_failed drop early_drop icmp_error  search_restart\n\
                    00000103  00000001 00000002 00000003 0000000a 0000000b ffffffff 00000000  00000007\n\
                    00000103  00000000 00000000 00000000 00000001 00000002 00000003 00000000  00000000\n";
        let expected = TrackingStatistics {
            insert_failed: 11,
            drop: 13,
            early_drop: 2,
            entries: 0x103,
            max_entries: 0,
        };
        assert_eq!(TrackingStatistics::of_procfs(text), Ok(expected));
    }

    #[test]
    fn procfs_without_a_needed_column_or_with_a_short_line_is_malformed() {
        let names = "entries insert_failed drop early_drop";
        for text in [
            "",
            "entries drop early_drop\n1 2 3\n",
            &format!("{names}\n1 2 3\n"),
            &format!("{names}\n1 2 3 x\n"),
        ] {
            assert_eq!(TrackingStatistics::of_procfs(text), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn random_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..100), cpu: bool) {
            let kind = if cpu { MESSAGE_GET_STATS_CPU } else { MESSAGE_GET_STATS };
            let _ = TrackingStatistics::default().add(&message(kind, &payload));
        }
    }
}
