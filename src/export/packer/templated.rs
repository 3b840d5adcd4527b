//! Packing for NetFlow v9 and IPFIX: templates, sets and the template clock.
//!
//! Of the many layouts of flow records ([`Layout`]), only those needed so far are announced, each before the first
//! record that needs it; those of statistics and gaps always are. Statistics and gaps are options data; they count in
//! the sequence as flow records do.

use super::Message;
use crate::config::Version;
use crate::export::encoder::{Load, NotRepresentable};
use crate::export::queue::Queue;
use crate::place::Position;
use crate::session::{EventKind, Gap, GapCause, NatEvent};
use crate::time::{Now, Uptime, Wall};
use crate::wire::dialect::Dialect;
use crate::wire::element::Statistics;
use crate::wire::flow::Flow;
use crate::wire::gap::{self, GapRecord};
use crate::wire::layout::Layout;
use crate::wire::template::{OpenSet, SET_HEADER_LEN, Template};

#[derive(Debug)]
pub struct Packer {
    pub(super) message: Message,
    dialect: Dialect,
    /// The templates needed so far.
    flow_templates: Vec<Template<Flow>>,
    statistics_template: Template<Statistics>,
    gap_templates: [Template<GapRecord>; 4],
    /// The losses so far, by cause, in the order of [`GapCause::ALL`].
    known_lost: [u64; GapCause::ALL.len()],
    /// Gaps before this position are in these numbers, even when they are packed again.
    counted: Position,
    init: Wall,
}

impl Packer {
    pub(super) fn new(message: Message, dialect: Dialect, now: Now) -> Self {
        Self {
            message,
            dialect,
            flow_templates: Vec::new(),
            statistics_template: dialect.statistics_template(),
            gap_templates: gap::Kind::ALL.map(|kind| dialect.gap_template(kind)),
            known_lost: [0; GapCause::ALL.len()],
            counted: Position::default(),
            init: now.wall,
        }
    }

    pub(super) fn push(
        &mut self,
        event: &NatEvent,
        now: Now,
        done: &mut Queue<Load>,
    ) -> Result<(), NotRepresentable> {
        let zone = self.message.config.ingress_vrf;
        if self.message.sends_event(event) {
            let config = &self.message.config;
            // Beside flows, which have them, a delete has no counters: nfdump would add both in NetFlow v9.
            let bare;
            let event = if config.flow {
                bare = NatEvent {
                    totals: None,
                    ..*event
                };
                &bare
            } else {
                event
            };
            let (family, flow) = Flow::nat_event(event, config.nat_event)?;
            let layout = Layout::event(event, family, config.log_destination, zone);
            self.put(layout, &flow, now, done);
        }
        if self.message.config.triplet && event.kind == EventKind::Delete {
            let (family, flows) = Flow::triplet(event, self.message.config.post_nat_counters)?;
            let layout = Layout::triplet(event, family, self.dialect, zone);
            for flow in &flows {
                self.put(layout, flow, now, done);
            }
        }
        if self.message.config.flow && event.is_flow() {
            let biflow = self.message.config.biflow;
            let (family, flows) = if biflow {
                Flow::biflow(event).map(|(family, flow)| (family, [flow, None]))?
            } else {
                Flow::directions(event)?
            };
            let layout = Layout::traffic(event, family, self.dialect, zone, biflow);
            for flow in flows.iter().flatten() {
                self.put(layout, flow, now, done);
            }
        }
        Ok(())
    }

    pub(super) fn push_gap(&mut self, gap: Gap, now: Now, done: &mut Queue<Load>) {
        let next = self.message.next;
        let total = &mut self.known_lost[gap.cause as usize];
        if gap.cause == GapCause::Undelivered {
            *total = self.message.lost;
        } else if next >= self.counted {
            *total = total.saturating_add(gap.lost.unwrap_or_default());
            self.counted = Position {
                part: next.part + 1,
                ..next
            };
        }
        let record = GapRecord {
            observation_domain: self.message.config.observation_domain,
            gap,
            total: *total,
        };
        let kind = gap::Kind::of(&gap) as usize;
        let template = &self.gap_templates[kind];
        let (id, len) = (template.id(), template.record_len());
        // Each gap has a set of its own: scapy reads only the first record of options data in a set.
        self.message.close_set();
        self.begin_record(id, len, now, done);
        self.gap_templates[kind].put_record(&record, &mut self.message.bytes);
        self.message.load.gaps += 1;
        self.message.options += 1;
        self.message.advance(now);
    }

    /// Sends the templates on their own if they are due and no message is in hand.
    pub(super) fn refresh_templates(&mut self, now: Now, done: &mut Queue<Load>) {
        let message = &mut self.message;
        if message.is_idle() && message.poll_timeout().is_some_and(|at| at <= now.up) {
            message.begin(now);
            self.put_templates(now, done);
            self.message.finish(now, done);
        }
    }

    fn put(&mut self, layout: Layout, flow: &Flow, now: Now, done: &mut Queue<Load>) {
        if self.message.skips() {
            return;
        }
        let index = self.announced(layout, now, done);
        let template = &self.flow_templates[index];
        let (id, len) = (template.id(), template.record_len());
        self.begin_record(id, len, now, done);
        let Message { boot, bytes, .. } = &mut self.message;
        self.flow_templates[index].put_record(
            &Flow {
                boot: *boot,
                ..*flow
            },
            bytes,
        );
        self.message.load.flow_records += 1;
        self.message.advance(now);
    }

    /// The template of `layout`. When it was not needed before, it is put into the message in hand, or a new one.
    fn announced(&mut self, layout: Layout, now: Now, done: &mut Queue<Load>) -> usize {
        let mut known = self.flow_templates.iter();
        if let Some(index) = known.position(|known| known.id() == layout.id()) {
            return index;
        }
        let template = layout.template();
        // A message that begins with the record begins with all templates, if they are due.
        let is_idle = self.message.is_idle();
        if !(is_idle && self.message.templates_are_due(now.up)) {
            if is_idle {
                self.message.begin(now);
            }
            self.message
                .put_definition(self.dialect, &template, now, done);
        }
        self.flow_templates.push(template);
        self.flow_templates.len() - 1
    }

    /// Makes room for a record of `len` octets in set `id` and enters the set, after the templates when they are due.
    fn begin_record(&mut self, id: u16, len: usize, now: Now, done: &mut Queue<Load>) {
        if !self.message.fits(id, len) {
            self.message.flush(now, done);
        }
        if self.message.is_idle() {
            self.message.begin(now);
            if self.message.templates_are_due(now.up) {
                self.put_templates(now, done);
                self.message.make_room(id, len, now, done);
            }
        }
        self.message.enter_set(id);
    }

    fn put_templates(&mut self, now: Now, done: &mut Queue<Load>) {
        let Self {
            message, dialect, ..
        } = self;
        message.templates_sent = Some(now.up);
        message.since_templates = 0;
        message.template_sends += 1;
        for template in &self.flow_templates {
            message.put_definition(*dialect, template, now, done);
        }
        message.put_options_definition(*dialect, &self.statistics_template, now, done);
        for template in &self.gap_templates {
            message.put_options_definition(*dialect, template, now, done);
        }
        self.put_statistics(now, done);
    }

    fn put_statistics(&mut self, now: Now, done: &mut Queue<Load>) {
        let Self {
            message,
            statistics_template: template,
            ..
        } = self;
        message.make_room(template.id(), template.record_len(), now, done);
        message.enter_set(template.id());
        let statistics = Statistics {
            observation_domain: message.config.observation_domain,
            init: self.init,
            octets: message.totals.octets,
            messages: message.totals.messages,
            records: message.totals.flow_records,
            not_sent: message.lost,
        };
        template.put_record(&statistics, &mut message.bytes);
        message.options += 1;
    }
}

impl Message {
    /// Whether the templates are due: over UDP they may get lost (RFC 7011 section 8.4).
    fn templates_are_due(&self, up: Uptime) -> bool {
        self.templates_sent.is_none_or(|sent| {
            self.since_templates >= self.config.template_refresh_packets
                || up.saturating_since(sent) >= self.config.template_refresh
        })
    }

    fn put_definition(
        &mut self,
        dialect: Dialect,
        template: &Template<Flow>,
        now: Now,
        done: &mut Queue<Load>,
    ) {
        let id = dialect.template_set();
        self.make_room(id, template.definition_len(), now, done);
        self.enter_set(id);
        template.put_definition(&mut self.bytes);
        self.definitions += 1;
    }

    /// Each has a set of its own: pmacct 1.7.7 misreads a second one in the same set and then drops the rest of the message.
    fn put_options_definition<S>(
        &mut self,
        dialect: Dialect,
        template: &Template<S>,
        now: Now,
        done: &mut Queue<Load>,
    ) {
        self.close_set();
        let id = dialect.template_set() + 1;
        self.make_room(id, template.options_definition_len(), now, done);
        self.enter_set(id);
        dialect.put_options_definition(template, &mut self.bytes);
        self.definitions += 1;
    }

    /// Goes on to another message if the one in hand has no room for `len` octets in set `id`.
    fn make_room(&mut self, id: u16, len: usize, now: Now, done: &mut Queue<Load>) {
        if !self.fits(id, len) {
            self.finish(now, done);
            self.begin(now);
        }
    }

    fn fits(&self, id: u16, len: usize) -> bool {
        let used = self.bytes.len();
        let end = if self.is_in_set(id) {
            used + len
        } else {
            self.padded(used) + SET_HEADER_LEN + len
        };
        self.padded(end) <= self.config.max_message()
    }

    fn enter_set(&mut self, id: u16) {
        if !self.is_in_set(id) {
            self.close_set();
            self.set = Some(OpenSet::open(id, &mut self.bytes));
        }
    }

    fn is_in_set(&self, id: u16) -> bool {
        self.set.is_some_and(|set| set.id == id)
    }

    pub(super) fn close_set(&mut self) {
        if let Some(set) = self.set.take() {
            self.bytes.resize(self.padded(self.bytes.len()), 0);
            set.close(&mut self.bytes);
        }
    }

    /// Sets of NetFlow v9 end on a 4-byte boundary (RFC 3954 section 5.3); those of IPFIX are not padded, which RFC
    /// 7011 section 3.3.1 leaves open.
    const fn padded(&self, length: usize) -> usize {
        match self.config.version {
            Version::NetflowV9 => length.next_multiple_of(4),
            Version::NetflowV5 | Version::Ipfix => length,
        }
    }
}
