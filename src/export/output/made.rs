//! Outputs made from the configuration.

use super::{
    Amount, Encoder, FIRST_DELAY, Losses, Now, Output, Place, Queue, Reader, Serial, State,
    Transport,
};
use crate::config::{self, Selection};
use crate::metrics;
use crate::wire::syslog::Host;

impl Output {
    /// An output to a collector that goes on at `place`.
    pub fn to_collector(config: &config::Collector, place: Place, now: Now) -> Self {
        let encoder = Encoder::of_collector(config, now);
        let statistics = metrics::Output {
            format: config.version.name().to_owned(),
            target: "udp".to_owned(),
            observation_domain: config.observation_domain.into(),
            ..metrics::Output::default()
        };
        let transport = Transport::to_collector(config);
        Self::new(config.title(), encoder, transport, statistics, place).with(&config.selection)
    }

    /// An output to a target for copies that goes on at `place`.
    pub fn to_copy(config: &config::Syslog, host: &Host, place: Place) -> Self {
        let encoder = Encoder::of_copy(config, host);
        let statistics = metrics::Output {
            format: config.format.name().to_owned(),
            target: config.target.kind().to_owned(),
            ..metrics::Output::default()
        };
        let transport = Transport::to_target(&config.target);
        Self::new(config.title(), encoder, transport, statistics, place).with(&config.selection)
    }

    fn with(mut self, selection: &Selection) -> Self {
        self.own = Some(selection.clone()).filter(|selection| *selection != Selection::ANY);
        self.statistics.selection = self
            .own
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        self
    }

    pub(super) fn new(
        name: String,
        encoder: Encoder,
        transport: Transport,
        statistics: metrics::Output,
        place: Place,
    ) -> Self {
        let mut this = Self {
            name,
            own: None,
            encoder,
            transport,
            ahead: Queue::new(),
            position: place.position,
            reader: Reader::default(),
            losses: Losses::new(&place),
            known: Serial(0),
            unsendable: Serial(0)..Serial(0),
            probing: place.refused.then_some(None),
            peer: None,
            heeded: None,
            health: if place.refused {
                State::Refused
            } else {
                State::Working
            },
            losing: None,
            retry: None,
            delay: FIRST_DELAY,
            look: None,
            taken: Amount::default(),
            shown: Amount::default(),
            shown_records: 0,
            statistics,
        };
        this.transport.go_on(place.port, place.refused);
        this.encoder.go_back(place.sequence, Amount::default());
        this.reader.seek(place.position.serial);
        this
    }

    /// Continues the counters of an output of the same name in an earlier configuration.
    pub fn inherit(&mut self, earlier: &Self) {
        let metrics::Output {
            format,
            target,
            selection,
            observation_domain,
            ..
        } = std::mem::take(&mut self.statistics);
        self.statistics = metrics::Output {
            format,
            target,
            selection,
            observation_domain,
            ..earlier.statistics.clone()
        };
        self.known = earlier.known;
        self.taken = earlier.taken;
        self.losses.add(earlier.losses.total());
        self.shown = earlier.shown;
        self.shown_records = earlier.shown_records;
        self.encoder.count_lost(earlier.losses.total());
    }
}
