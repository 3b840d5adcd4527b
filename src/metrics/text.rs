//! The metrics for people, in the manner of `/proc/net/stat/ipt_netflow`: a subject per line, names before numbers.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{ByProtocol, Collector, Confinement, Metrics, Rates, Syslog, Turns};
use crate::time::Age;

impl Display for Metrics {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let uptime = Age(Duration::from_secs(self.uptime_seconds));
        writeln!(
            f,
            "nattrail {}, pid {}, running {uptime} since {}",
            self.version, self.pid, self.started
        )?;
        let own = "the one it was started in";
        let namespace = self.namespace.as_deref().unwrap_or(own);
        let file = self.configuration.as_deref();
        let file = file.unwrap_or("built-in");
        writeln!(
            f,
            "Settings:   configuration {file}, network namespace {namespace}"
        )?;
        writeln!(f, "Confined:   {}", self.confinement)?;
        self.write_sessions(f)?;
        self.write_events(f)?;
        self.write_gaps(f)?;
        let store = &self.store;
        writeln!(
            f,
            "Store:      {}available, commits {}, failed {}, set aside {}, longest commit {}",
            if store.available { "" } else { "not " },
            store.commits,
            store.failed,
            store.set_aside,
            Micros(store.longest_commit_microseconds)
        )?;
        write_turns(&self.turns, f)?;
        self.collectors
            .iter()
            .try_for_each(|collector| write_collector(collector, f))?;
        self.syslog
            .iter()
            .try_for_each(|target| write_syslog(target, f))
    }
}

impl Metrics {
    fn write_sessions(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sessions = &self.sessions;
        writeln!(
            f,
            "Natevents:  count start {}, stop {}",
            sessions.creates, sessions.deletes
        )?;
        write_rates(&self.rates, f)?;
        write!(
            f,
            "Sessions:   pending {} (peak {}",
            sessions.pending, sessions.pending_peak
        )?;
        if let Some(time) = sessions.pending_peak_time {
            write!(f, " reached {time}")?;
        }
        writeln!(
            f,
            "), max {}, beyond it {} ({} now, {} forgotten), restored {}",
            sessions.max,
            sessions.beyond_max,
            sessions.unkept,
            sessions.forgotten,
            sessions.restored
        )?;
        writeln!(
            f,
            "            unannounced {}, adopted {}, inferred ends {}, duplicates {}, filtered {}, audits {}",
            sessions.unannounced,
            sessions.adopted,
            sessions.inferred_ends,
            sessions.duplicates,
            sessions.filtered,
            sessions.audits
        )
    }

    fn write_events(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let events = &self.events;
        writeln!(
            f,
            "Events:     new {}, destroy {} in {} messages, {} batches, dumped {}, malformed {}, foreign {}, overflows {}",
            events.new,
            events.destroy,
            events.messages,
            events.batches,
            events.dumped,
            events.malformed,
            events.foreign,
            events.overflows
        )?;
        writeln!(
            f,
            "  by protocol        tcp        udp       icmp     icmpv6        gre       sctp      other"
        )?;
        write_protocols("new", &events.new_by_protocol, f)?;
        write_protocols("destroy", &events.destroy_by_protocol, f)?;
        let kernel = &self.kernel;
        writeln!(
            f,
            "Kernel:     receive buffer {}, queued {}, full {} times; table {} of {}, dying {}",
            Octets(kernel.receive_buffer_octets),
            Octets(kernel.queued_octets),
            kernel.drops,
            kernel.table_entries,
            kernel.table_limit,
            kernel.dying
        )
    }

    fn write_gaps(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Gaps:       ")?;
        for (index, (cause, gaps)) in self.gaps.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{cause} {}", gaps.count)?;
            if gaps.lost > 0 {
                write!(f, ", lost {}", gaps.lost)?;
            }
            if let Some(last) = gaps.last {
                write!(f, ", the last until {last}")?;
            }
        }
        writeln!(f)
    }
}

impl Display for Confinement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.capabilities.as_slice() {
            [] => f.write_str("no capabilities")?,
            held => write!(f, "capabilities {}", held.join(" "))?,
        }
        let privileges = if self.no_new_privileges {
            "no new privileges"
        } else {
            "new privileges possible"
        };
        write!(f, "; {privileges}; ")?;
        match self.landlock_abi {
            Some(abi) => write!(f, "files by Landlock ABI {abi}"),
            None => f.write_str("files not confined (no Landlock)"),
        }
    }
}

fn write_rates(rates: &Rates, f: &mut Formatter<'_>) -> fmt::Result {
    let starts = [rates.creates_1s, rates.creates_1min, rates.creates_5min];
    let stops = [rates.deletes_1s, rates.deletes_1min, rates.deletes_5min];
    for (label, name, rates) in [("Rate:", "start", starts), ("", "stop", stops)] {
        let [second, minute, five] = rates;
        writeln!(
            f,
            "{label:<11} {name:<5} {second:.1}/s, 1 min {minute:.1}/s, 5 min {five:.1}/s"
        )?;
    }
    Ok(())
}

fn write_protocols(name: &str, counts: &ByProtocol, f: &mut Formatter<'_>) -> fmt::Result {
    let ByProtocol {
        tcp,
        udp,
        icmp,
        icmpv6,
        gre,
        sctp,
        other,
    } = counts;
    writeln!(
        f,
        "  {name:<11} {tcp:>10} {udp:>10} {icmp:>10} {icmpv6:>10} {gre:>10} {sctp:>10} {other:>10}"
    )
}

fn write_turns(turns: &Turns, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "Loop:       turns {}, longest {} (in the last minute {})",
        turns.count,
        Micros(turns.longest_microseconds),
        Micros(turns.longest_last_minute_microseconds)
    )?;
    let mut separator = "            ";
    for bucket in turns.histogram.iter().filter(|bucket| bucket.turns > 0) {
        match bucket.below_microseconds {
            Some(micros) => write!(f, "{separator}<{} {}", Micros(micros), bucket.turns)?,
            None => write!(f, "{separator}longer {}", bucket.turns)?,
        }
        separator = ", ";
    }
    // Before the first turn has ended there is nothing.
    if separator == ", " {
        writeln!(f)?;
    }
    Ok(())
}

fn write_collector(collector: &Collector, f: &mut Formatter<'_>) -> fmt::Result {
    let Collector {
        address, version, ..
    } = collector;
    writeln!(f, "Collector {address}, {version}")?;
    writeln!(
        f,
        "  flow records sent {}, failed {}, dropped {}, queued {}; messages {} ({}), refused {}",
        collector.sent,
        collector.failed,
        collector.dropped,
        collector.queued,
        collector.messages,
        Octets(collector.octets),
        collector.refused
    )?;
    writeln!(
        f,
        "  records {}, not representable {}, gaps sent {}",
        collector.records, collector.not_representable, collector.gaps
    )?;
    writeln!(
        f,
        "  queue {} messages, {} (peak {}); sequence {}, templates sent {} times",
        collector.queued_messages,
        Octets(collector.queued_octets),
        Octets(collector.peak_octets),
        collector.sequence,
        collector.template_sends
    )
}

fn write_syslog(target: &Syslog, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "Copies to {}", target.target)?;
    writeln!(
        f,
        "  records sent {}, failed {}, dropped {}, queued {}; refused {}, errors {}, gaps of its own {}",
        target.sent,
        target.failed,
        target.dropped,
        target.queued,
        target.refused,
        target.errors,
        target.own_gaps
    )?;
    writeln!(
        f,
        "  queue {} (peak {})",
        Octets(target.queued_octets),
        Octets(target.peak_octets)
    )
}

/// `512 B`, `1.5 KiB`, `128.0 MiB`.
struct Octets(u64);

impl Display for Octets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if value < 1024.0 {
            return write!(f, "{} B", self.0);
        }
        let mut unit = "";
        for larger in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        write!(f, "{value:.1} {unit}")
    }
}

/// `64 us`, `1.0 ms`, `2.1 s`.
struct Micros(u64);

impl Display for Micros {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let value = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} us", self.0),
            1_000..1_000_000 => write!(f, "{:.1} ms", value / 1e3),
            _ => write!(f, "{:.1} s", value / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_a_unit_that_keeps_them_short() {
        assert_eq!(Octets(1023).to_string(), "1023 B");
        assert_eq!(Octets(1536).to_string(), "1.5 KiB");
        assert_eq!(Octets(128 << 20).to_string(), "128.0 MiB");
        assert_eq!(Octets(u64::MAX).to_string(), "16777216.0 TiB");
        assert_eq!(Micros(999).to_string(), "999 us");
        assert_eq!(Micros(1_024).to_string(), "1.0 ms");
        assert_eq!(Micros(2_097_152).to_string(), "2.1 s");
    }
}
