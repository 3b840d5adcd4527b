//! Collectors for the tests of packers and outputs.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::config::{Collector, NatEventValues, Selection, Version};

/// A collector of events, with the usual settings.
pub(super) fn collector(version: Version) -> Collector {
    Collector {
        name: None,
        address: "192.0.2.1:2055".parse().unwrap(),
        version,
        selection: Selection::ANY,
        source_address: None,
        events: true,
        triplet: false,
        flow: false,
        biflow: false,
        aggregation: Vec::new(),
        aggregation_window: Duration::from_secs(60),
        aggregation_records: 1_000_000,
        nat_event: NatEventValues::Rfc8158,
        log_destination: true,
        ingress_vrf: false,
        post_nat_counters: true,
        mtu: 1500,
        template_refresh: Duration::from_secs(1800),
        template_refresh_packets: 20,
        send_buffer: None,
        observation_domain: 0x0a0b_0c0d,
        export_delay: Duration::from_secs(1),
    }
}
