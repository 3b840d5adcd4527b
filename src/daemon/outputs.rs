//! The outputs: collectors and copies, side by side, each at its own place in the record log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::config::{self, Config, Selection, Target};
use crate::export::follower::{self, Follower};
use crate::export::output::Output;
use crate::export::peer::Peer;
use crate::export::source::Source;
use crate::metrics;
use crate::place::{Missing, Place, Position, Serial, Span};
use crate::store::Places;
use crate::time::{Now, Uptime};
use crate::wire::syslog::Host;

/// Separates, in the key of an output without a name, its destination from the traits that identify it there.
const BESIDE: &str = " as ";

pub struct Outputs {
    host: Host,
    outputs: Vec<Configured>,
    archive: Option<Follower>,
}

/// An output and the configuration it was made from.
pub struct Configured {
    key: String,
    config: OutputConfig,
    pub output: Output,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OutputConfig {
    Collector(config::Collector),
    Copy(config::Syslog),
}

/// The way in which outputs with a place in the log go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WireSession {
    /// With the same local port and the next sequence number.
    Continued,
    /// With others, as the progress of the last session is not known.
    New,
}

impl Outputs {
    /// `places` are the places of the outputs of an earlier run; others begin at `next`.
    pub fn new(
        config: &Config,
        host: Host,
        mut places: Places,
        session: WireSession,
        next: Serial,
        now: Now,
    ) -> Self {
        let archive = places.extract_if(.., |(key, _)| key == follower::NAME);
        let archive = archive.last().map(|(_, place)| Follower::new(&place, now));
        let mut this = Self {
            host,
            outputs: Vec::new(),
            archive,
        };
        let places = places.into_iter().map(|(key, place)| match session {
            WireSession::Continued => (key, place),
            WireSession::New => (key, without_session(place)),
        });
        let (all, left) = paired(
            OutputConfig::all(config, false),
            places.collect(),
            |(key, _)| key,
        );
        for (key, config, earlier) in all {
            let place = match earlier {
                Some((other, place)) if other == key => place,
                Some((_, place)) => without_session(place),
                None => at(next),
            };
            this.outputs.push(Configured {
                output: config.build(&this.host, place, now),
                key,
                config,
            });
        }
        this.share_peers(now);
        for (key, place) in left {
            // A log that was replaced meanwhile counts its serials from 1.
            let behind = next.0.saturating_sub(place.position.serial.0);
            tell_of_removed(destination(&key).unwrap_or(&key), behind);
        }
        this
    }

    /// Changes to another configuration. An output of the same name goes on from its place, whatever else has changed;
    /// others begin at `next`. One that is no longer configured sends as much as goes without waiting.
    pub fn reconfigure(
        &mut self,
        config: &Config,
        next: Serial,
        source: &mut impl Source,
        now: Now,
    ) {
        let old = std::mem::take(&mut self.outputs);
        // Connections that are open may have begun for an output that is no longer configured.
        let is_mixed = old
            .iter()
            .any(|it| *it.config.selection() != Selection::ANY);
        let all = OutputConfig::all(config, is_mixed);
        let (all, left) = paired(all, old, |other| &other.key);
        for (key, config, earlier) in all {
            let output = match earlier {
                Some(same) if same.config == config => same.output,
                Some(mut earlier) => {
                    earlier.output.hand_over(source, now);
                    let mut place = earlier.output.place();
                    if earlier.key != key {
                        place = without_session(place);
                    } else if !config.divides_like(&earlier.config) {
                        place.position = Position::before(place.position.serial);
                    }
                    let mut output = config.build(&self.host, place, now);
                    output.inherit(&earlier.output);
                    output
                }
                None => config.build(&self.host, at(next), now),
            };
            self.outputs.push(Configured {
                key,
                config,
                output,
            });
        }
        self.share_peers(now);
        for mut removed in left {
            removed.output.drain(source, now);
            let behind = removed.output.behind(source.end());
            tell_of_removed(removed.output.name(), behind);
        }
    }

    /// Makes outputs to the same host share its state.
    fn share_peers(&mut self, now: Now) {
        let mut peers: HashMap<IpAddr, Rc<Peer>> = HashMap::new();
        for Configured { output, .. } in &mut self.outputs {
            if let Some(host) = output.host() {
                output.share_peer(peers.entry(host).or_default(), now);
            }
        }
    }

    /// Opens files and local sockets anew, for logrotate.
    pub fn reopen(&mut self, now: Now) {
        for configured in &mut self.outputs {
            configured.output.reopen(now);
        }
    }

    /// Writes all messages that are due and go without waiting.
    pub fn pump(&mut self, source: &mut impl Source, now: Now) {
        for configured in &mut self.outputs {
            configured.output.pump(source, now);
        }
        if let Some(archive) = &mut self.archive {
            archive.handle_timeout(now);
        }
    }

    /// The archive says that it has all records before `next`. `end` is that of the source.
    ///
    /// # Errors
    /// A message for its operator, when there are no such records yet.
    pub fn handle_archived(&mut self, next: Serial, end: Serial, now: Now) -> Result<(), String> {
        if next > end {
            return Err(format!(
                "expected the archive to follow this log, which has records before {}; found it at {}",
                end.0, next.0
            ));
        }
        let archive = self.archive.get_or_insert_with(|| {
            log::info!("{}: the log keeps what it has not taken", follower::NAME);
            Follower::new(&at(next), now)
        });
        archive.handle_taken(next, now);
        Ok(())
    }

    /// The log no longer keeps records for the archive.
    pub fn forget_archive(&mut self) {
        if self.archive.take().is_some() {
            log::info!("{}: the log no longer keeps records for it", follower::NAME);
        }
    }

    /// The losses of each output since the last call, and in how many gaps.
    pub fn take_lost(&mut self) -> impl Iterator<Item = (Missing, u64)> {
        let outputs = self.outputs.iter_mut().map(|it| it.output.take_lost());
        let archive = self.archive.as_mut().map(Follower::take_lost);
        outputs.chain(archive).flatten()
    }

    /// Also writes the records that wait for their message to fill, at the end of the daemon.
    pub fn drain(&mut self, source: &mut impl Source, now: Now) {
        for configured in &mut self.outputs {
            configured.output.drain(source, now);
        }
    }

    /// When to call [`Self::pump`] next. `end` is that of the source.
    pub fn poll_timeout(&self, end: Serial) -> Option<Uptime> {
        let outputs = self.outputs.iter();
        outputs
            .filter_map(|configured| configured.output.poll_timeout(end))
            .min()
    }

    /// Whether waiting is of no use: each output has taken everything before `end`, or cannot now.
    pub fn is_settled(&self, end: Serial) -> bool {
        self.outputs.iter().all(|it| it.output.is_settled(end))
    }

    /// The place of each output, by the key that identifies it.
    pub fn places(&self) -> impl Iterator<Item = (&str, Place)> {
        let outputs = self.outputs.iter();
        let outputs = outputs.map(|it| (it.key.as_str(), it.output.place()));
        let archive = self.archive.as_ref();
        outputs.chain(archive.map(|archive| (follower::NAME, archive.place())))
    }

    /// The first record that an output still needs or may have to go back to; `next` when none does.
    pub fn needed(&self, next: Serial) -> Serial {
        let needed = self.outputs.iter().filter_map(|it| it.output.needed());
        let archive = self.archive.as_ref().map(Follower::needed);
        needed.chain(archive).min().unwrap_or(next).min(next)
    }

    /// Takes note that the log no longer has some records.
    pub fn handle_evicted(&mut self, span: &Span) {
        for configured in &mut self.outputs {
            configured.output.handle_evicted(span);
        }
        if let Some(archive) = &mut self.archive {
            archive.handle_evicted(span);
        }
    }

    /// The name of each output that has not taken all records before `end`, and how many those are.
    pub fn unsent(&self, end: Serial) -> impl Iterator<Item = (&str, u64)> {
        self.outputs.iter().filter_map(move |configured| {
            let behind = configured.output.behind(end);
            (behind > 0).then(|| (configured.output.name(), behind))
        })
    }

    /// The counters of each output. `end` is that of the log.
    pub fn metrics(&self, end: Serial) -> Vec<metrics::Output> {
        let outputs = self.outputs.iter().map(|it| it.output.metrics(end));
        let archive = self.archive.as_ref().map(|archive| archive.metrics(end));
        outputs.chain(archive).collect()
    }
}

impl OutputConfig {
    /// All outputs of a configuration, each with the key that identifies it in the log. `is_mixed`: records may be of
    /// connections that none of them selects.
    fn all(config: &Config, is_mixed: bool) -> Vec<(String, Self)> {
        let collectors = config.collectors.iter().cloned().map(Self::Collector);
        let copies = config.syslog.iter().cloned().map(Self::Copy);
        let mut all: Vec<_> = collectors
            .chain(copies)
            .map(|config| (config.key(), config))
            .collect();
        for (_, output) in all.iter_mut().filter(|_| !is_mixed) {
            let (Self::Collector(config::Collector { selection, .. })
            | Self::Copy(config::Syslog { selection, .. })) = output;
            // Without a difference, the engine's filter is enough.
            *selection = config.narrower(selection.clone()).unwrap_or(Selection::ANY);
        }
        all
    }

    const fn selection(&self) -> &Selection {
        let (Self::Collector(config::Collector { selection, .. })
        | Self::Copy(config::Syslog { selection, .. })) = self;
        selection
    }

    /// Whether it makes the same messages of each record.
    fn divides_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Collector(one), Self::Collector(two)) => {
                let kinds = |it: &config::Collector| (it.events, it.triplet, it.flow, it.biflow);
                kinds(one) == kinds(two)
                    && one.aggregation == two.aggregation
                    && one.selection == two.selection
            }
            (Self::Copy(one), Self::Copy(two)) => {
                let kinds = |it: &config::Syslog| (it.format, it.events, it.flow);
                kinds(one) == kinds(two) && one.selection == two.selection
            }
            _ => false,
        }
    }

    /// Its name or its destination, and everything else by which a collector or a syslog server identifies it.
    fn key(&self) -> String {
        match self {
            Self::Collector(config) => {
                let (address, version) = (config.address, config.version.name());
                let exporter = format!("{version} {}", config.observation_domain);
                match &config.name {
                    Some(name) => format!("collector {name}{BESIDE}{address} {exporter}"),
                    None => format!("collector to {address}{BESIDE}{exporter}"),
                }
            }
            Self::Copy(config::Syslog {
                name: Some(name), ..
            }) => format!("copy {name}"),
            Self::Copy(config) => match &config.target {
                Target::File { path } => format!("copy to file {}", path.display()),
                Target::Journal { path } => format!("copy to journal {}", path.display()),
                Target::Stdout => "copy to stdout".to_owned(),
                Target::Local { path } => {
                    format!("copy to {}{BESIDE}{}", path.display(), sorted_by(config))
                }
                Target::Udp { address } => {
                    format!("copy to {address}{BESIDE}{}", sorted_by(config))
                }
            },
        }
    }

    fn build(&self, host: &Host, place: Place, now: Now) -> Output {
        match self {
            Self::Collector(config) => Output::to_collector(config, place, now),
            Self::Copy(config) => Output::to_copy(config, host, place),
        }
    }
}

/// A syslog server sorts by these, so several copies may go to one server.
fn sorted_by(config: &config::Syslog) -> String {
    format!(
        "{:?} {} {} {}",
        config.format, config.facility.0, config.severity as u8, config.app_name
    )
}

fn at(next: Serial) -> Place {
    Place {
        position: Position::before(next),
        ..Place::default()
    }
}

/// The same place at the beginning of its record: another wire session may divide it differently.
const fn without_session(place: Place) -> Place {
    Place {
        position: Position::before(place.position.serial),
        port: 0,
        sequence: 0,
        ..place
    }
}

fn tell_of_removed(name: &str, behind: u64) {
    match behind {
        0 => log::info!("{name}: no longer configured; it had taken all records"),
        _ => log::warn!(
            "{name}: no longer configured; records given up because it had not taken them: {behind}"
        ),
    }
}

type Paired<T> = (Vec<(String, OutputConfig, Option<T>)>, Vec<T>);

/// Each output of a configuration with the earlier one of its key, or else one without a name that went to the same
/// destination and is no longer configured. Then the earlier ones that remain.
fn paired<T>(
    all: Vec<(String, OutputConfig)>,
    mut earlier: Vec<T>,
    key_of: impl Fn(&T) -> &String,
) -> Paired<T> {
    let mut paired = Vec::with_capacity(all.len());
    for (key, config) in all {
        let same = earlier.iter().position(|other| *key_of(other) == key);
        paired.push((key, config, same.map(|index| earlier.remove(index))));
    }
    for (key, _, found) in paired.iter_mut().filter(|(_, _, found)| found.is_none()) {
        let wanted = destination(key);
        let is_alike = |other: &T| wanted.is_some() && destination(key_of(other)) == wanted;
        let alike = earlier.iter().position(is_alike);
        *found = alike.map(|index| earlier.remove(index));
    }
    (paired, earlier)
}

/// The destination of an output without a name, by its key.
fn destination(key: &str) -> Option<&str> {
    key.split_once(BESIDE).map(|(to, _)| to)
}

#[cfg(test)]
mod tests;
