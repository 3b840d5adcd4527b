//! Leases of DHCP servers as the list of subscribers that `nattrail who --subscribers` reads.
//!
//! Kea's memfile (`kea-leases4.csv`, `kea-leases6.csv`) has a row for each allocation and renewal until it is cleaned up,
//! with a time to live and the time at which that is over. dnsmasq's file has only the end of each lease that lasts (see
//! lease.c of either), so that the length of a lease has to be given. A list names a client only while the file shows that
//! the address was its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Note;
use crate::time::Wall;

/// Kea's word for a lease without an end, and dnsmasq's 0.
const INFINITE: u64 = 0xFFFF_FFFF;
/// Kea's state of an address that no client has: it was found in use.
const DECLINED: &str = "1";

/// A client had an address from a time until another; `None` for one that is not known, or does not come.
#[derive(Clone, Debug, PartialEq)]
struct Lease {
    from: u64,
    until: Option<u64>,
    client: String,
}

#[derive(Debug, Default)]
struct Leases(BTreeMap<(IpAddr, u8), Vec<Lease>>);

/// Converts Kea's file.
///
/// # Errors
/// The first line that cannot be read.
pub fn kea(text: &str) -> Result<String, Note> {
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty());
    let heading = lines.next().map_or("", |(_, line)| line);
    let columns: Vec<_> = heading.split(',').collect();
    let column = |name: &str| columns.iter().position(|it| *it == name);
    let (Some(address), Some(lifetime), Some(expire)) = (
        column("address"),
        column("valid_lifetime"),
        column("expire"),
    ) else {
        let expected =
            "expected the columns address, valid_lifetime and expire, as in kea-leases4.csv";
        return Err(Note::new(1, "", expected));
    };
    let names = [
        "hwaddr",
        "client_id",
        "duid",
        "hostname",
        "state",
        "prefix_len",
    ];
    let [hwaddr, client, duid, hostname, state, length] = names.map(column);
    let mut leases = Leases::default();
    for (line, text) in lines {
        let cells: Vec<_> = text.split(',').collect();
        let cell =
            |column: Option<usize>| column.and_then(|at| cells.get(at)).copied().unwrap_or("");
        let number = |at: usize, name: &str| {
            let text = cell(Some(at));
            let number = text.parse::<u64>();
            number
                .map_err(|_| Note::new(line, name, format!("expected a number, found \"{text}\"")))
        };
        let (lifetime, expire) = (
            number(lifetime, "valid_lifetime")?,
            number(expire, "expire")?,
        );
        // A lease that was deleted: its row before that has its times.
        if lifetime == 0 || cell(state) == DECLINED {
            continue;
        }
        let client = [hwaddr, client, duid]
            .into_iter()
            .map(cell)
            .find(|it| !it.is_empty());
        let length = cell(length).parse().ok();
        leases.add(
            (line, cell(Some(address)), length),
            Lease {
                from: expire.saturating_sub(lifetime),
                until: (lifetime != INFINITE).then_some(expire),
                client: identifier(client.unwrap_or(""), cell(hostname)),
            },
        )?;
    }
    Ok(leases.list())
}

/// Converts dnsmasq's file, where leases last for `length`.
///
/// # Errors
/// The first line that cannot be read.
pub fn dnsmasq(text: &str, length: Duration) -> Result<String, Note> {
    let mut leases = Leases::default();
    for (line, text) in (1..).zip(text.lines()) {
        let words: Vec<_> = text.split_whitespace().collect();
        let [expire, hwaddr, address, hostname, client, ..] = words.as_slice() else {
            // "duid …" comes before the leases of IPv6.
            match words.first() {
                None | Some(&"duid") => continue,
                Some(_) => {}
            }
            let expected = "expected the end of a lease, a hardware address, an address, a name and a client, as in dnsmasq.leases";
            return Err(Note::new(line, "", expected));
        };
        let until: u64 = expire.parse().map_err(|_| {
            Note::new(
                line,
                "",
                format!("expected seconds since 1970, found \"{expire}\""),
            )
        })?;
        // Leases of IPv6 have a number of their own in place of a hardware address.
        let is_hardware = hwaddr.contains(':');
        let client = if is_hardware { hwaddr } else { client };
        leases.add(
            (line, address, None),
            Lease {
                from: until.saturating_sub(length.as_secs()),
                until: Some(until).filter(|&until| until != 0),
                client: identifier(client, hostname),
            },
        )?;
    }
    Ok(leases.list())
}

fn identifier(client: &str, hostname: &str) -> String {
    match (client, hostname) {
        (client, "" | "*") => client.to_owned(),
        ("", hostname) => hostname.to_owned(),
        (client, hostname) => format!("{client} ({hostname})"),
    }
}

impl Leases {
    fn add(
        &mut self,
        (line, address, length): (usize, &str, Option<u8>),
        lease: Lease,
    ) -> Result<(), Note> {
        let parsed: IpAddr = address.parse().map_err(|_| {
            Note::new(
                line,
                "address",
                format!("expected an IP address, found \"{address}\""),
            )
        })?;
        if lease.client.is_empty() {
            return Err(Note::new(line, "", "expected a client, found none"));
        }
        let full = if parsed.is_ipv4() { 32 } else { 128 };
        let length = length.filter(|&length| length < full).unwrap_or(full);
        self.0.entry((parsed, length)).or_default().push(lease);
        Ok(())
    }

    fn list(self) -> String {
        let mut list = String::from("address,from,until,identifier\n");
        let time = |seconds: u64| Wall::from_secs(seconds).to_string();
        for ((address, length), leases) in self.0 {
            for Lease {
                from,
                until,
                client,
            } in joined(leases)
            {
                let until = until.map(time).unwrap_or_default();
                let client = client.replace('"', "'");
                list += &format!("{address}/{length},{},{until},\"{client}\"\n", time(from));
            }
        }
        list
    }
}

/// The leases of an address one after the other. The file may be of several, and need not be in the order of time.
fn joined(mut leases: Vec<Lease>) -> Vec<Lease> {
    leases.sort_by_key(|lease| lease.from);
    let mut joined: Vec<Lease> = Vec::new();
    for lease in leases {
        match joined.last_mut() {
            // A renewal.
            Some(last)
                if last.client == lease.client
                    && last.until.is_none_or(|until| lease.from <= until) =>
            {
                last.until = last.until.zip(lease.until).map(|(a, b)| a.max(b));
            }
            Some(last) => {
                // It was released before its time.
                last.until = Some(last.until.map_or(lease.from, |until| until.min(lease.from)));
                joined.push(lease);
            }
            None => joined.push(lease),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KEA: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n\
        10.1.2.3,02:00:00:00:00:01,01:02,3600,1795186800,1,0,0,phone,0,,0\n\
        10.1.2.3,02:00:00:00:00:01,01:02,3600,1795188600,1,0,0,phone,0,,0\n\
        10.1.2.4,02:00:00:00:00:02,,3600,1795186800,1,0,0,,0,,0\n\
        10.1.2.3,02:00:00:00:00:01,01:02,0,1795185000,1,0,0,phone,0,,0\n\
        10.1.2.3,02:00:00:00:00:03,,3600,1795191000,1,0,0,,0,,0\n\
        10.1.2.5,,,3600,1795186800,1,0,0,,1,,0\n";

    #[test]
    fn renewals_in_keas_file_are_one_lease_and_another_client_ends_it() {
        assert_eq!(
            kea(KEA).unwrap(),
            "address,from,until,identifier\n\
             10.1.2.3/32,2026-11-20T14:00:00.000Z,2026-11-20T15:10:00.000Z,\"02:00:00:00:00:01 (phone)\"\n\
             10.1.2.3/32,2026-11-20T15:10:00.000Z,2026-11-20T16:10:00.000Z,\"02:00:00:00:00:03\"\n\
             10.1.2.4/32,2026-11-20T14:00:00.000Z,2026-11-20T15:00:00.000Z,\"02:00:00:00:00:02\"\n"
        );
    }

    #[test]
    fn rows_in_any_order_are_the_same_leases() {
        let (heading, rows) = KEA.split_once('\n').unwrap();
        let rows: Vec<_> = rows.lines().rev().collect();
        let reversed = format!("{heading}\n{}\n", rows.join("\n"));
        assert_eq!(kea(&reversed), kea(KEA));
    }

    #[test]
    fn keas_prefixes_and_leases_without_an_end_are_taken_over() {
        let text = "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len\n\
                    2001:db8:1::,00:03,4294967295,6090150495,1,0,2,1,56\n";
        let list = "2001:db8:1::/56,2026-11-20T14:00:00.000Z,,\"00:03\"";
        assert_eq!(kea(text).unwrap().lines().nth(1), Some(list));
    }

    #[test]
    fn a_lease_of_dnsmasq_is_known_for_its_length_before_its_end() {
        let text = "1795186800 02:00:00:00:00:01 10.1.2.3 phone 01:02\n\
                    duid 00:01\n\
                    1795186800 7 2001:db8::1 * 00:01:02\n";
        assert_eq!(
            dnsmasq(text, Duration::from_secs(3_600)).unwrap(),
            "address,from,until,identifier\n\
             10.1.2.3/32,2026-11-20T14:00:00.000Z,2026-11-20T15:00:00.000Z,\"02:00:00:00:00:01 (phone)\"\n\
             2001:db8::1/128,2026-11-20T14:00:00.000Z,2026-11-20T15:00:00.000Z,\"00:01:02\"\n"
        );
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let error = |note: Result<String, Note>| note.unwrap_err().to_string();
        let hour = Duration::from_secs(3_600);
        assert!(error(kea("a,b\n")).starts_with("line 1: expected the columns"));
        let bad = KEA.replace("10.1.2.4,", "10.1.2,");
        assert!(error(kea(&bad)).starts_with("line 4: address: expected an IP address"));
        assert!(error(dnsmasq("x y\n", hour)).starts_with("line 1: expected the end"));
        assert!(error(dnsmasq("x y z a b\n", hour)).contains("seconds since 1970"));
    }
}
