//! Packing for NetFlow v9 and IPFIX: templates, sets and the template clock.
//!
//! Of the many layouts that flow records can have ([`Layout`]) those are announced that were needed so far, each before the
//! first record that needs it; those of statistics and gaps always are. Statistics and gaps are options data; they count in
//! the sequence as flow records do.

use std::time::Duration;

use crate::config::{self, NatEventValues};
use crate::export::encoder::{Load, NotRepresentable};
use crate::export::packer::Assembly;
use crate::export::queue::Queue;
use crate::place::Position;
use crate::session::{EventKind, Gap, GapCause, NatEvent};
use crate::time::{BootTime, Now, Uptime, Wall};
use crate::wire::element::Statistics;
use crate::wire::flow::Flow;
use crate::wire::gap::{self, GapRecord};
use crate::wire::layout::{Dialect, Layout};
use crate::wire::template::{OpenSet, SET_HEADER_LEN, Template};
use crate::wire::{ipfix, netflow9};

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
    destination: bool,
    zone: bool,
    post_nat_counters: bool,
    /// Those that were needed so far.
    flow_templates: Vec<Template<Flow>>,
    statistics_template: Template<Statistics>,
    gap_templates: [Template<GapRecord>; 4],
    /// The losses so far, by cause, in the order of [`GapCause::ALL`].
    known_lost: [u64; GapCause::ALL.len()],
    /// Up to where gaps are in these numbers, also when they are packed again.
    counted: Position,
    pub(super) template_sends: u64,
    clock: TemplateClock,
    init: Wall,
    /// Of the message in hand.
    boot: BootTime,
    set: Option<OpenSet>,
    /// Template records in the message in hand.
    definitions: u16,
    /// Options data records in the message in hand.
    options: u16,
}

impl Packer {
    pub(super) fn new(collector: &config::Collector, dialect: Dialect, now: Now) -> Self {
        Self {
            assembly: Assembly::new(collector),
            sequence: 0,
            dialect,
            domain: collector.observation_domain,
            events: collector.events,
            triplet: collector.triplet,
            nat_event: collector.nat_event,
            destination: collector.destination,
            zone: collector.zone,
            post_nat_counters: collector.post_nat_counters,
            flow_templates: Vec::new(),
            statistics_template: dialect.statistics_template(),
            gap_templates: gap::Kind::ALL.map(|kind| dialect.gap_template(kind)),
            known_lost: [0; GapCause::ALL.len()],
            counted: Position::default(),
            template_sends: 0,
            clock: TemplateClock::new(collector),
            init: now.wall,
            boot: BootTime::default(),
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
            let layout = Layout::event(event, family, self.destination, self.zone);
            self.put(layout, &flow, now, done);
        }
        if self.triplet && event.kind == EventKind::Delete {
            let (family, flows) = Flow::triplet(event, self.post_nat_counters)?;
            let layout = Layout::flow(event, family, self.dialect, self.zone);
            for flow in &flows {
                self.put(layout, flow, now, done);
            }
        }
        Ok(())
    }

    pub(super) fn push_gap(&mut self, gap: Gap, now: Now, done: &mut Queue<Load>) {
        if gap.cause != GapCause::Undelivered && self.assembly.next >= self.counted {
            let known = &mut self.known_lost[gap.cause as usize];
            *known = known.saturating_add(gap.lost.unwrap_or_default());
            self.counted = Position {
                part: self.assembly.next.part + 1,
                ..self.assembly.next
            };
        }
        self.put_gap(gap, now, done);
    }

    pub(super) fn finish(&mut self, now: Now, done: &mut Queue<Load>) {
        self.close_set();
        let data = self.assembly.load.flow_records + self.options;
        let sequence = self.sequence;
        match self.dialect {
            Dialect::NetflowV9 => {
                let header = netflow9::Header {
                    count: data + self.definitions,
                    boot: self.boot,
                    up: now.up,
                    sequence,
                    source_id: self.domain,
                };
                self.assembly.finish(&header.to_bytes(), sequence, done);
                self.sequence = sequence.wrapping_add(1);
            }
            Dialect::Ipfix => {
                let header = ipfix::Header {
                    // Not above max_message, which is below 65,536.
                    length: self.assembly.bytes.len() as u16,
                    export_time: now.wall,
                    sequence,
                    observation_domain: self.domain,
                };
                self.assembly.finish(&header.to_bytes(), sequence, done);
                self.sequence = sequence.wrapping_add(data.into());
            }
        }
        self.definitions = 0;
        self.options = 0;
        self.clock.count_message();
    }

    /// The message in hand is forgotten, and the next one has this sequence number.
    pub(super) fn go_back(&mut self, sequence: u32) {
        self.sequence = sequence;
        self.set = None;
        self.definitions = 0;
        self.options = 0;
        self.clock.reset();
    }

    /// Sends the templates on their own if they are due and no message is in hand: a message in hand is followed by one
    /// that begins with them.
    pub(super) fn refresh_templates(&mut self, now: Now, done: &mut Queue<Load>) {
        if self.refresh_deadline().is_some_and(|at| at <= now.up) {
            self.begin(now);
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

    fn put(&mut self, layout: Layout, flow: &Flow, now: Now, done: &mut Queue<Load>) {
        if self.assembly.skips() {
            return;
        }
        let template = self.announced(layout, now, done);
        let id = self.flow_templates[template].id();
        let len = self.flow_templates[template].record_len();
        self.begin_record(id, len, now, done);
        let boot = self.boot;
        self.flow_templates[template].put_record(&Flow { boot, ..*flow }, &mut self.assembly.bytes);
        self.assembly.count_record(now);
    }

    fn put_gap(&mut self, gap: Gap, now: Now, done: &mut Queue<Load>) {
        let kind = gap::Kind::of(&gap) as usize;
        let id = self.gap_templates[kind].id();
        let len = self.gap_templates[kind].record_len();
        // Each has a set of its own: scapy reads only the first record of options data in a set.
        self.close_set();
        self.begin_record(id, len, now, done);
        let total = match gap.cause {
            GapCause::Undelivered => self.assembly.lost,
            cause => self.known_lost[cause as usize],
        };
        let record = GapRecord {
            observation_domain: self.domain,
            gap,
            total,
        };
        self.gap_templates[kind].put_record(&record, &mut self.assembly.bytes);
        self.options += 1;
        self.assembly.count_gap(now);
    }

    /// Makes room for a record of `len` octets in set `id` and enters the set, with the templates before it when they are
    /// due.
    fn begin_record(&mut self, id: u16, len: usize, now: Now, done: &mut Queue<Load>) {
        if !self.assembly.is_idle() && !self.fits(id, len) {
            self.finish(now, done);
        }
        if self.assembly.is_idle() {
            self.begin(now);
            if self.clock.is_due(now.up) {
                self.put_templates(now, done);
                self.make_room(id, len, now, done);
            }
        }
        self.enter_set(id);
    }

    fn put_templates(&mut self, now: Now, done: &mut Queue<Load>) {
        self.clock.restart(now.up);
        self.template_sends += 1;
        for index in 0..self.flow_templates.len() {
            self.put_definition(index, now, done);
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

    /// The template of `layout`, which is put into the message in hand, or a new one, when it was not needed before.
    fn announced(&mut self, layout: Layout, now: Now, done: &mut Queue<Load>) -> usize {
        let (id, index) = (layout.id(), self.flow_templates.len());
        if let Some(known) = self
            .flow_templates
            .iter()
            .position(|known| known.id() == id)
        {
            return known;
        }
        self.flow_templates.push(layout.template());
        let is_idle = self.assembly.is_idle();
        if is_idle && self.clock.is_due(now.up) {
            // The message that begins with the record begins with all templates.
            return index;
        }
        if is_idle {
            self.begin(now);
        }
        self.put_definition(index, now, done);
        index
    }

    fn put_definition(&mut self, index: usize, now: Now, done: &mut Queue<Load>) {
        let id = self.dialect.template_set();
        let len = self.flow_templates[index].definition_len();
        self.make_room(id, len, now, done);
        self.enter_set(id);
        self.flow_templates[index].put_definition(&mut self.assembly.bytes);
        self.definitions += 1;
    }

    /// Each has a set of its own: pmacct 1.7.7 misreads a second one in the same set, and then drops the rest of the message.
    fn begin_options_definition(&mut self, len: usize, now: Now, done: &mut Queue<Load>) {
        self.close_set();
        let id = self.dialect.options_template_set();
        self.make_room(id, len, now, done);
        self.enter_set(id);
    }

    fn put_statistics(&mut self, now: Now, done: &mut Queue<Load>) {
        let id = self.statistics_template.id();
        let len = self.statistics_template.record_len();
        self.make_room(id, len, now, done);
        self.enter_set(id);
        let totals = &self.assembly.totals;
        let statistics = Statistics {
            observation_domain: self.domain,
            init: self.init,
            octets: totals.octets,
            messages: totals.messages,
            records: totals.flow_records,
            not_sent: self.assembly.lost,
        };
        self.statistics_template
            .put_record(&statistics, &mut self.assembly.bytes);
        self.options += 1;
    }

    fn begin(&mut self, now: Now) {
        self.boot = BootTime::new(now);
        self.assembly.begin(match self.dialect {
            Dialect::NetflowV9 => netflow9::HEADER_LEN,
            Dialect::Ipfix => ipfix::HEADER_LEN,
        });
    }

    /// Goes on to another message if the one in hand has no room for `len` octets in set `id`.
    fn make_room(&mut self, id: u16, len: usize, now: Now, done: &mut Queue<Load>) {
        if !self.fits(id, len) {
            self.finish(now, done);
            self.begin(now);
        }
    }

    fn fits(&self, id: u16, len: usize) -> bool {
        let used = self.assembly.bytes.len();
        let end = if self.is_in_set(id) {
            used + len
        } else {
            self.dialect.padded(used) + SET_HEADER_LEN + len
        };
        self.dialect.padded(end) <= self.assembly.max_len
    }

    fn enter_set(&mut self, id: u16) {
        if !self.is_in_set(id) {
            self.close_set();
            self.set = Some(OpenSet::open(id, &mut self.assembly.bytes));
        }
    }

    fn close_set(&mut self) {
        if let Some(set) = self.set.take() {
            set.close(self.dialect.alignment(), &mut self.assembly.bytes);
        }
    }

    fn is_in_set(&self, id: u16) -> bool {
        self.set.is_some_and(|set| set.id() == id)
    }
}

impl Dialect {
    /// The length of a set is a multiple of this.
    const fn alignment(self) -> usize {
        match self {
            Self::NetflowV9 => netflow9::ALIGNMENT,
            Self::Ipfix => ipfix::ALIGNMENT,
        }
    }

    const fn padded(self, length: usize) -> usize {
        length.next_multiple_of(self.alignment())
    }

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
            Self::NetflowV9 => netflow9::statistics_template(),
            Self::Ipfix => ipfix::statistics_template(),
        }
    }

    fn gap_template(self, kind: gap::Kind) -> Template<GapRecord> {
        match self {
            Self::NetflowV9 => netflow9::gap_template(kind),
            Self::Ipfix => ipfix::gap_template(kind),
        }
    }

    fn put_options_definition<S>(self, template: &Template<S>, out: &mut Vec<u8>) {
        match self {
            Self::NetflowV9 => netflow9::put_options_definition(template, out),
            Self::Ipfix => ipfix::put_options_definition(template, out),
        }
    }
}

/// When the templates are due: over UDP they may get lost (RFC 7011 section 8.4).
#[derive(Debug)]
struct TemplateClock {
    refresh: Duration,
    refresh_messages: u32,
    /// `None` when they have to be sent in any case.
    sent: Option<Uptime>,
    /// Messages since then, the one with the templates included.
    messages: u32,
}

impl TemplateClock {
    const fn new(collector: &config::Collector) -> Self {
        Self {
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
        self.sent.is_none_or(|sent| {
            self.messages >= self.refresh_messages || up.saturating_since(sent) >= self.refresh
        })
    }

    /// When they are due though there is nothing else to send.
    fn deadline(&self) -> Option<Uptime> {
        self.sent.map(|sent| sent.saturating_add(self.refresh))
    }
}
