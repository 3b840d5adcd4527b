//! Counts of packets that connection tracking could not track: counters of `/proc/net/stat/nf_conntrack`, or of ctnetlink.
//!
//! Follows `ct_cpu_seq_show` of `net/netfilter/nf_conntrack_standalone.c`, and `enum ctattr_stats_cpu` of
//! `include/uapi/linux/netfilter/nfnetlink_conntrack.h`. The counters of the CPUs are summed; each wraps at 32 bits.

use super::ctnetlink::SUBSYSTEM_CTNETLINK;
use super::netlink::{self, Malformed};

const MESSAGE_GET_STATS_CPU: u16 = SUBSYSTEM_CTNETLINK | 4;

const CTA_STATS_INSERT_FAILED: u16 = 9;
const CTA_STATS_DROP: u16 = 10;

/// The kernel's counts since the network namespace was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Drops {
    /// Packets dropped because no translated tuple was free, or two packets raced for one.
    pub(crate) insert_failed: u32,
    /// Packets dropped: those above, and those that found the table full.
    pub(crate) all: u32,
}

impl Drops {
    /// Reads `/proc/net/stat/nf_conntrack`: a line of names, then one of hexadecimal counters for each CPU. The set of
    /// columns has changed over time, their names have not.
    ///
    /// # Errors
    /// [`Malformed`] when a needed column is missing or not a number.
    pub(crate) fn of_procfs(text: &str) -> Result<Self, Malformed> {
        let mut lines = text.lines();
        let names = lines.next().ok_or(Malformed)?;
        let column = |wanted| {
            let position = names.split_whitespace().position(|name| name == wanted);
            position.ok_or(Malformed)
        };
        let (failed, drop) = (column("insert_failed")?, column("drop")?);
        let mut drops = Self::default();
        for line in lines {
            let counter = |column| {
                let field = line.split_whitespace().nth(column).ok_or(Malformed)?;
                u32::from_str_radix(field, 16).map_err(|_| Malformed)
            };
            drops.insert_failed = drops.insert_failed.wrapping_add(counter(failed)?);
            drops.all = drops.all.wrapping_add(counter(drop)?);
        }
        Ok(drops)
    }

    /// Adds the counters of one CPU, which are the payload of a message.
    pub(crate) fn add(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        for attribute in netlink::attributes(payload)? {
            let attribute = attribute?;
            let counter = match attribute.kind {
                CTA_STATS_INSERT_FAILED => &mut self.insert_failed,
                CTA_STATS_DROP => &mut self.all,
                _ => continue,
            };
            *counter = counter.wrapping_add(attribute.be32()?);
        }
        Ok(())
    }
}

/// A request for the counters of every CPU; the answer has a message for each.
pub(crate) fn request() -> Vec<u8> {
    netlink::request(MESSAGE_GET_STATS_CPU, netlink::NLM_F_DUMP, 0, 0, &[])
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

    #[test]
    fn the_counters_of_all_cpus_are_summed() {
        let mut drops = Drops::default();
        for payload in [
            payload(&[(9, 1), (10, 2), (11, 3), (2, 100)]),
            payload(&[(9, 10), (10, u32::MAX)]),
        ] {
            drops.add(&payload).unwrap();
        }
        assert_eq!((drops.insert_failed, drops.all), (11, 1));
    }

    #[test]
    fn procfs_columns_are_found_by_their_names() {
        let text = "entries  clashres found new insert_failed drop early_drop icmp_error  search_restart\n\
                    00000103  00000001 00000002 00000003 0000000a 0000000b ffffffff 00000000  00000007\n\
                    00000103  00000000 00000000 00000000 00000001 00000002 00000003 00000000  00000000\n";
        let expected = Drops {
            insert_failed: 11,
            all: 13,
        };
        assert_eq!(Drops::of_procfs(text), Ok(expected));
    }

    #[test]
    fn procfs_without_a_needed_column_or_with_a_short_line_is_malformed() {
        let names = "entries insert_failed drop";
        for text in [
            "",
            "entries drop early_drop\n1 2 3\n",
            &format!("{names}\n1 2\n"),
            &format!("{names}\n1 2 x\n"),
        ] {
            assert_eq!(Drops::of_procfs(text), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn random_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Drops::default().add(&payload);
        }
    }
}
