//! Packing for NetFlow v9 and IPFIX: templates, sets and the template clock.
//!
//! Template ids are fixed, whatever is configured: 256 to 259 for NAT events (create and delete, or delete with
//! counters; IPv4, then IPv6), 260 and 261 for flows, 262 for the statistics, 263 to 266 for gaps (the four kinds of
//! [`gap::Kind`], in its order). Statistics and gaps are options data; they count in the sequence as flow records do.

use std::ops::Range;
use std::time::Duration;

use crate::config::{self, NatEventValues};
use crate::export::packer::losses::Losses;
use crate::export::packer::{Assembly, Load, NotRepresentable, Transport};
use crate::export::queue::Queue;
use crate::session::{EventKind, Gap, GapCause, NatEvent};
use crate::time::{Now, Uptime, Wall};
use crate::wire::element::{self, Statistics};
use crate::wire::flow::{Family, Flow, MixedFamilies};
use crate::wire::gap::{self, GapRecord};
use crate::wire::template::{OpenSet, SET_HEADER_LEN, Template, padded};
use crate::wire::{ipfix, netflow9};

const FIRST_TEMPLATE: u16 = 256;
const EVENTS: Range<usize> = 0..4;
const FLOWS: Range<usize> = 4..6;
const STATISTICS_TEMPLATE: u16 = FIRST_TEMPLATE + FLOWS.end as u16;
const FIRST_GAP_TEMPLATE: u16 = STATISTICS_TEMPLATE + 1;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    NetflowV9,
    Ipfix,
}

#[derive(Debug)]
pub(super) struct Packer {
    pub(super) assembly: Assembly,
    /// IPFIX: data records packed so far. NetFlow v9: messages.
    pub(super) sequence: u32,
    dialect: Dialect,
    domain: u32,
    events: bool,
    triplet: bool,
    nat_event: NatEventValues,
    post_nat_counters: bool,
    flow_templates: Vec<Template<Flow>>,
    statistics_template: Template<Statistics>,
    gap_templates: [Template<GapRecord>; 4],
    pub(super) losses: Losses,
    /// What each cause of [`GapCause::ALL`] cost so far.
    known_lost: [u64; GapCause::ALL.len()],
    clock: TemplateClock,
    init: Wall,
    set: Option<OpenSet>,
    /// Template records in the message in hand.
    definitions: u16,
    /// Options data records in the message in hand.
    options: u16,
}

impl Packer {
    pub(super) fn new(
        collector: &config::Collector,
        dialect: Dialect,
        transport: Transport,
        now: Now,
    ) -> Self {
        Self {
            assembly: Assembly::new(collector),
            sequence: 0,
            dialect,
            domain: collector.observation_domain,
            events: collector.events,
            triplet: collector.triplet,
            nat_event: collector.nat_event,
            post_nat_counters: collector.post_nat_counters,
            flow_templates: flow_templates(collector.destination, collector.zone),
            statistics_template: dialect.statistics_template(),
            gap_templates: gap::Kind::ALL.map(|kind| dialect.gap_template(kind)),
            losses: Losses::default(),
            known_lost: [0; GapCause::ALL.len()],
            clock: TemplateClock::new(collector, transport),
            init: now.wall,
            set: None,
            definitions: 0,
            options: 0,
        }
    }

    pub(super) fn push(
        &mut self,
        event: &NatEvent,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        if self.events {
            let (family, flow) = Flow::nat_event(event, self.nat_event)?;
            let counters = event.kind == EventKind::Delete && event.totals.is_some();
            self.put(event_template(family, counters), &flow, now, done);
        }
        if self.triplet && event.kind == EventKind::Delete {
            let (family, flows) = Flow::triplet(event, self.post_nat_counters)?;
            for flow in &flows {
                self.put(flow_template(family), flow, now, done);
            }
        }
        Ok(())
    }

    pub(super) fn push_gap(&mut self, gap: Gap, now: Now, done: &mut Queue<Load>) {
        let known = &mut self.known_lost[gap.cause as usize];
        *known = known.saturating_add(gap.lost.unwrap_or_default());
        self.put_gap(gap, now, done);
    }

    pub(super) fn tell_losses(&mut self, now: Now, done: &mut Queue<Load>) {
        for gap in self.losses.take_due() {
            self.put_gap(gap, now, done);
        }
    }

    pub(super) fn finish(&mut self, now: Now, done: &mut Queue<Load>) {
        if let Some(set) = self.set.take() {
            set.close(&mut self.assembly.bytes);
        }
        let data = self.assembly.load.records + self.options;
        let had_templates = self.definitions > 0;
        let result = match self.dialect {
            Dialect::NetflowV9 => {
                let header = netflow9::Header {
                    count: data + self.definitions,
                    now,
                    sequence: self.sequence,
                    source_id: self.domain,
                };
                self.sequence = self.sequence.wrapping_add(1);
                self.assembly.finish(&header.to_bytes(), done)
            }
            Dialect::Ipfix => {
                let header = ipfix::Header {
                    // Not above max_message, which is below 65,536.
                    length: self.assembly.bytes.len() as u16,
                    export_time: now.wall,
                    sequence: self.sequence,
                    observation_domain: self.domain,
                };
                self.sequence = self.sequence.wrapping_add(data.into());
                self.assembly.finish(&header.to_bytes(), done)
            }
        };
        self.definitions = 0;
        self.options = 0;
        self.clock.count_message();
        if let Err(load) = result {
            self.losses.lose_newest(load);
            if had_templates {
                self.clock.reset();
            }
        }
    }

    pub(super) const fn resend_templates(&mut self) {
        self.clock.reset();
    }

    /// Sends the templates on their own if they are due and no message is in hand: a message in hand is followed by one
    /// that begins with them.
    pub(super) fn refresh_templates(&mut self, now: Now, done: &mut Queue<Load>) {
        if self.refresh_deadline().is_some_and(|at| at <= now.up) {
            self.begin();
            self.put_templates(now, done);
            self.finish(now, done);
        }
    }

    pub(super) fn refresh_deadline(&self) -> Option<Uptime> {
        if self.assembly.is_idle() {
            self.clock.deadline()
        } else {
            None
        }
    }

    fn put(&mut self, template: usize, flow: &Flow, now: Now, done: &mut Queue<Load>) {
        let id = self.flow_templates[template].id();
        let len = self.flow_templates[template].record_len();
        self.begin_record(id, len, now, done);
        self.flow_templates[template].put_record(flow, &mut self.assembly.bytes);
        self.assembly.count_record(flow.observed, now);
    }

    fn put_gap(&mut self, gap: Gap, now: Now, done: &mut Queue<Load>) {
        let kind = gap::Kind::of(&gap) as usize;
        let id = self.gap_templates[kind].id();
        let len = self.gap_templates[kind].record_len();
        self.begin_record(id, len, now, done);
        let mut total = self.known_lost[gap.cause as usize];
        if gap.cause == GapCause::Undelivered {
            total = total.saturating_add(self.assembly.totals.not_sent);
        }
        let record = GapRecord {
            observation_domain: self.domain,
            gap,
            total,
        };
        self.gap_templates[kind].put_record(&record, &mut self.assembly.bytes);
        self.options += 1;
        self.assembly.count_gap(now);
        self.losses.depart(gap);
    }

    /// Makes room for a record of `len` octets in set `id` and enters the set, with the templates before it when they are
    /// due.
    fn begin_record(&mut self, id: u16, len: usize, now: Now, done: &mut Queue<Load>) {
        if !self.assembly.is_idle() && !self.fits(id, len) {
            self.finish(now, done);
        }
        if self.assembly.is_idle() {
            self.begin();
            if self.clock.is_due(now.up) {
                self.put_templates(now, done);
                self.make_room(id, len, now, done);
            }
        }
        self.enter_set(id);
    }

    fn put_templates(&mut self, now: Now, done: &mut Queue<Load>) {
        self.clock.restart(now.up);
        self.assembly.totals.template_sends += 1;
        for index in self.announced() {
            let len = self.flow_templates[index].definition_len();
            self.make_room(self.dialect.template_set(), len, now, done);
            self.enter_set(self.dialect.template_set());
            self.flow_templates[index].put_definition(&mut self.assembly.bytes);
            self.definitions += 1;
        }
        let len = self.statistics_template.options_definition_len();
        self.begin_options_definition(len, now, done);
        self.dialect
            .put_options_definition(&self.statistics_template, &mut self.assembly.bytes);
        self.definitions += 1;
        for index in 0..self.gap_templates.len() {
            let len = self.gap_templates[index].options_definition_len();
            self.begin_options_definition(len, now, done);
            self.dialect
                .put_options_definition(&self.gap_templates[index], &mut self.assembly.bytes);
            self.definitions += 1;
        }
        self.put_statistics(now, done);
    }

    /// Each has a set of its own: pmacct 1.7.7 misreads a second one in the same set, and then drops the rest of the message.
    fn begin_options_definition(&mut self, len: usize, now: Now, done: &mut Queue<Load>) {
        if let Some(set) = self.set.take() {
            set.close(&mut self.assembly.bytes);
        }
        let id = self.dialect.options_template_set();
        self.make_room(id, len, now, done);
        self.enter_set(id);
    }

    fn put_statistics(&mut self, now: Now, done: &mut Queue<Load>) {
        let len = self.statistics_template.record_len();
        self.make_room(STATISTICS_TEMPLATE, len, now, done);
        self.enter_set(STATISTICS_TEMPLATE);
        let totals = &self.assembly.totals;
        let statistics = Statistics {
            observation_domain: self.domain,
            init: self.init,
            octets: totals.octets,
            messages: totals.messages,
            records: totals.records,
            not_sent: totals.not_sent,
        };
        self.statistics_template
            .put_record(&statistics, &mut self.assembly.bytes);
        self.options += 1;
    }

    fn begin(&mut self) {
        self.assembly.begin(match self.dialect {
            Dialect::NetflowV9 => netflow9::HEADER_LEN,
            Dialect::Ipfix => ipfix::HEADER_LEN,
        });
    }

    /// Goes on to another message if the one in hand has no room for `len` octets in set `id`.
    fn make_room(&mut self, id: u16, len: usize, now: Now, done: &mut Queue<Load>) {
        if !self.fits(id, len) {
            self.finish(now, done);
            self.begin();
        }
    }

    fn fits(&self, id: u16, len: usize) -> bool {
        let used = self.assembly.bytes.len();
        let end = if self.is_in_set(id) {
            used + len
        } else {
            padded(used) + SET_HEADER_LEN + len
        };
        padded(end) <= self.assembly.max_len
    }

    fn enter_set(&mut self, id: u16) {
        if !self.is_in_set(id) {
            if let Some(set) = self.set {
                set.close(&mut self.assembly.bytes);
            }
            self.set = Some(OpenSet::open(id, &mut self.assembly.bytes));
        }
    }

    fn is_in_set(&self, id: u16) -> bool {
        self.set.is_some_and(|set| set.id() == id)
    }

    const fn announced(&self) -> Range<usize> {
        Range {
            start: if self.events {
                EVENTS.start
            } else {
                FLOWS.start
            },
            end: if self.triplet { FLOWS.end } else { EVENTS.end },
        }
    }
}

impl Dialect {
    const fn template_set(self) -> u16 {
        match self {
            Self::NetflowV9 => netflow9::TEMPLATE_SET,
            Self::Ipfix => ipfix::TEMPLATE_SET,
        }
    }

    const fn options_template_set(self) -> u16 {
        match self {
            Self::NetflowV9 => netflow9::OPTIONS_TEMPLATE_SET,
            Self::Ipfix => ipfix::OPTIONS_TEMPLATE_SET,
        }
    }

    fn statistics_template(self) -> Template<Statistics> {
        match self {
            Self::NetflowV9 => netflow9::statistics_template(STATISTICS_TEMPLATE),
            Self::Ipfix => ipfix::statistics_template(STATISTICS_TEMPLATE),
        }
    }

    fn gap_template(self, kind: gap::Kind) -> Template<GapRecord> {
        let id = FIRST_GAP_TEMPLATE + kind as u16;
        match self {
            Self::NetflowV9 => netflow9::gap_template(id, kind),
            Self::Ipfix => ipfix::gap_template(id, kind),
        }
    }

    fn put_options_definition<S>(self, template: &Template<S>, out: &mut Vec<u8>) {
        match self {
            Self::NetflowV9 => netflow9::put_options_definition(template, out),
            Self::Ipfix => ipfix::put_options_definition(template, out),
        }
    }
}

/// When the templates are due.
#[derive(Debug)]
struct TemplateClock {
    transport: Transport,
    refresh: Duration,
    refresh_messages: u32,
    /// `None` when they have to be sent in any case.
    sent: Option<Uptime>,
    /// Messages since then, the one with the templates included.
    messages: u32,
}

impl TemplateClock {
    const fn new(collector: &config::Collector, transport: Transport) -> Self {
        Self {
            transport,
            refresh: collector.template_refresh,
            refresh_messages: collector.template_refresh_packets,
            sent: None,
            messages: 0,
        }
    }

    const fn restart(&mut self, up: Uptime) {
        self.sent = Some(up);
        self.messages = 0;
    }

    const fn reset(&mut self) {
        self.sent = None;
    }

    const fn count_message(&mut self) {
        self.messages = self.messages.saturating_add(1);
    }

    fn is_due(&self, up: Uptime) -> bool {
        match (self.sent, self.transport) {
            (None, _) => true,
            (Some(_), Transport::Stream) => false,
            (Some(sent), Transport::Datagram) => {
                self.messages >= self.refresh_messages || up.saturating_since(sent) >= self.refresh
            }
        }
    }

    /// When they are due though there is nothing else to send.
    fn deadline(&self) -> Option<Uptime> {
        match self.transport {
            Transport::Datagram => self.sent.map(|sent| sent.saturating_add(self.refresh)),
            Transport::Stream => None,
        }
    }
}

/// All templates, in the order of their ids.
fn flow_templates(destination: bool, zone: bool) -> Vec<Template<Flow>> {
    let families = [Family::Ipv4, Family::Ipv6];
    let events = families.iter().flat_map(|family| {
        [false, true].map(|counters| element::nat_event(*family, destination, zone, counters))
    });
    let flows = families.iter().map(|family| element::flow(*family, zone));
    (FIRST_TEMPLATE..)
        .zip(events.chain(flows))
        .map(|(id, elements)| Template::new(id, elements))
        .collect()
}

const fn event_template(family: Family, counters: bool) -> usize {
    EVENTS.start + 2 * family as usize + counters as usize
}

const fn flow_template(family: Family) -> usize {
    FLOWS.start + family as usize
}

impl From<MixedFamilies> for NotRepresentable {
    fn from(_: MixedFamilies) -> Self {
        Self
    }
}
