//! Where records go: collectors and copies, side by side, each at its own place in the record log.

use std::net::SocketAddr;

use crate::config::{self, Config, Target};
use crate::export::output::Output;
use crate::export::source::Source;
use crate::place::{Missing, Place, Position, Serial, Span};
use crate::store::Places;
use crate::time::{Now, Uptime};
use crate::wire::syslog::Host;

/// In the key of an output without a name, between its destination and what tells it from others there.
const BESIDE: &str = " as ";

pub struct Outputs {
    host: Host,
    outputs: Vec<Configured>,
}

/// An output and what it was made from.
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

/// How outputs go on that have a place in the log already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WireSession {
    /// With the same local port and the next sequence number.
    Continued,
    /// With others: it is not known how far the last one got.
    New,
}

impl Outputs {
    /// `places` is where the outputs of an earlier run stood; others begin at `next`.
    #[must_use]
    pub fn new(
        config: &Config,
        host: Host,
        places: Places,
        session: WireSession,
        next: Serial,
        now: Now,
    ) -> Self {
        let mut this = Self {
            host,
            outputs: Vec::new(),
        };
        let places = places.into_iter().map(|(key, place)| match session {
            WireSession::Continued => (key, place),
            WireSession::New => (key, without_session(place)),
        });
        let mut places: Places = places.collect();
        for (key, config) in OutputConfig::all(config) {
            let place = match same(&places, &key, |(other, _)| other) {
                Some(index) => {
                    let (other, place) = places.remove(index);
                    if other == key {
                        place
                    } else {
                        without_session(place)
                    }
                }
                None => at(next),
            };
            let output = config.build(&this.host, place, now);
            let configured = Configured {
                key,
                config,
                output,
            };
            this.outputs.push(configured);
        }
        for (key, _) in places {
            log::info!(
                "output {key}: it is no longer configured, and its place in the log is given up"
            );
        }
        this
    }

    /// Goes over to a changed configuration. An output of the same name goes on where it stands, whatever else has changed;
    /// others begin at `next`. One that is no longer configured sends what goes without waiting.
    pub fn reconfigure(
        &mut self,
        config: &Config,
        next: Serial,
        source: &mut impl Source,
        now: Now,
    ) {
        let mut old = std::mem::take(&mut self.outputs);
        for (key, config) in OutputConfig::all(config) {
            let same = same(&old, &key, |other| &other.key);
            let configured = match same.map(|index| old.remove(index)) {
                Some(same) if same.config == config => Configured { key, ..same },
                Some(mut earlier) => {
                    earlier.output.drain(source, now);
                    earlier.replaced(key, config, &self.host, now)
                }
                None => Configured {
                    output: config.build(&self.host, at(next), now),
                    key,
                    config,
                },
            };
            self.outputs.push(configured);
        }
        for mut removed in old {
            removed.output.drain(source, now);
            let behind = removed.output.behind(source.end());
            let name = removed.output.name();
            log::info!("{name}: no longer configured; {behind} records had not been taken by it");
        }
    }

    /// Opens files and local sockets anew, for logrotate.
    pub fn reopen(&mut self, now: Now) {
        for configured in &mut self.outputs {
            configured.output.reopen(now);
        }
    }

    /// Writes what is due and goes without waiting.
    pub fn pump(&mut self, source: &mut impl Source, now: Now) {
        for configured in &mut self.outputs {
            configured.output.pump(source, now);
        }
    }

    /// What each output has lost since this was asked last.
    pub fn take_lost(&mut self) -> impl Iterator<Item = Missing> {
        self.outputs
            .iter_mut()
            .filter_map(|it| it.output.take_lost())
    }

    /// Writes also what still waits for its message to fill, for the end of the daemon.
    pub fn drain(&mut self, source: &mut impl Source, now: Now) {
        for configured in &mut self.outputs {
            configured.output.drain(source, now);
        }
    }

    /// When to call [`Self::pump`] next. `end` is that of the source.
    #[must_use]
    pub fn poll_timeout(&self, end: Serial) -> Option<Uptime> {
        let outputs = self.outputs.iter();
        outputs
            .filter_map(|configured| configured.output.poll_timeout(end))
            .min()
    }

    /// Whether it is of no use to wait: each output has taken all before `end`, or cannot now.
    #[must_use]
    pub fn is_settled(&self, end: Serial) -> bool {
        self.outputs.iter().all(|it| it.output.is_settled(end))
    }

    /// Where each output stands, by the key under which it is known.
    pub fn places(&self) -> impl Iterator<Item = (&str, Place)> {
        self.outputs
            .iter()
            .map(|configured| (configured.key.as_str(), configured.output.place()))
    }

    /// The first record that an output has not taken; `next` when all have taken all.
    #[must_use]
    pub fn needed(&self, next: Serial) -> Serial {
        let needed = self.outputs.iter().filter_map(|it| it.output.needed());
        needed.min().unwrap_or(next).min(next)
    }

    /// Takes note that the log no longer has some records.
    pub fn handle_evicted(&mut self, span: &Span) {
        for configured in &mut self.outputs {
            configured.output.handle_evicted(span);
        }
    }

    /// A sentence for each output that has not taken all records before `end`.
    pub fn unsent(&self, end: Serial) -> impl Iterator<Item = String> {
        let behind = move |configured: &Configured| {
            let behind = configured.output.behind(end);
            let name = configured.output.name();
            (behind > 0).then(|| format!("{name}: {behind} records wait in the log"))
        };
        self.outputs.iter().filter_map(behind)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Configured> {
        self.outputs.iter()
    }
}

impl Configured {
    /// The same output with another configuration.
    fn replaced(self, key: String, config: OutputConfig, host: &Host, now: Now) -> Self {
        let place = self.output.place();
        let is_same_exporter = self.config.exporter() == config.exporter();
        let place = if is_same_exporter {
            place
        } else {
            without_session(place)
        };
        let mut output = config.build(host, place, now);
        output.inherit(&self.output);
        Self {
            key,
            config,
            output,
        }
    }
}

impl OutputConfig {
    /// All outputs of a configuration, each with the key under which it is known to the log.
    fn all(config: &Config) -> Vec<(String, Self)> {
        let collectors = config.collectors.iter().cloned().map(Self::Collector);
        let copies = config.syslog.iter().cloned().map(Self::Copy);
        collectors
            .chain(copies)
            .map(|config| (config.key(), config))
            .collect()
    }

    /// Its name, or all that tells it from others at the same destination.
    fn key(&self) -> String {
        match self {
            Self::Collector(config) => match &config.name {
                Some(name) => format!("collector {name}"),
                None => format!(
                    "collector to {}{BESIDE}{} {}",
                    config.address,
                    config.version.name(),
                    config.observation_domain
                ),
            },
            Self::Copy(config) => match &config.name {
                Some(name) => format!("copy {name}"),
                None => match &config.target {
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
            },
        }
    }

    fn build(&self, host: &Host, place: Place, now: Now) -> Output {
        match self {
            Self::Collector(config) => Output::to_collector(config, place, now),
            Self::Copy(config) => Output::to_copy(config, host, place),
        }
    }

    /// By what a collector knows an exporter, as far as the configuration decides it.
    fn exporter(&self) -> Option<(SocketAddr, Option<SocketAddr>, config::Version, u32)> {
        match self {
            Self::Collector(config) => Some((
                config.address,
                config.source,
                config.version,
                config.observation_domain,
            )),
            Self::Copy(_) => None,
        }
    }
}

/// A syslog server sorts by these, so that several copies may go to one.
fn sorted_by(config: &config::Syslog) -> String {
    format!(
        "{:?} {} {} {}",
        config.format,
        config.facility.base(),
        config.severity as u8,
        config.app_name
    )
}

fn at(next: Serial) -> Place {
    Place {
        position: Position::before(next),
        ..Place::default()
    }
}

const fn without_session(place: Place) -> Place {
    Place {
        port: 0,
        sequence: 0,
        ..place
    }
}

/// The one of this key, or else one without a name that goes to the same destination.
fn same<T>(all: &[T], key: &str, key_of: impl Fn(&T) -> &String) -> Option<usize> {
    let destination = |key: &str| key.split_once(BESIDE).map(|(to, _)| to.to_owned());
    let exactly = all.iter().position(|other| key_of(other) == key);
    exactly.or_else(|| {
        let wanted = destination(key)?;
        let alike = |other: &T| destination(key_of(other)).as_ref() == Some(&wanted);
        all.iter().position(alike)
    })
}
