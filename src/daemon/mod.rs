//! The daemon: one loop on one thread.
//!
//! A turn of the loop: wait until a socket is readable, a signal arrives or a deadline passes; read both clocks once;
//! read a bounded number of events into the engine and hand its records to the outputs; commit the store when its
//! interval is over; send what goes without waiting. Nothing in a turn waits for a network, a syslog or a reader.
//!
//! The start listens first and looks afterwards: it subscribes to events, then pins connection tracking on, loads the
//! store, and has the first audit compare it with the kernel's table.
//!
//! A planned restart loses nothing when the service manager keeps descriptors: it has had the event socket since the start
//! and hands it to the next run, which first reads the queued events. Connection tracking stays pinned on meanwhile.

mod capture;
mod confine;
pub mod control;
mod exchange;
mod keeper;
pub mod log;
mod meter;
mod mirror;
pub mod notify;
mod outputs;
mod scrape;
mod setup;
mod snapshot;
mod sweep;
mod takeover;
mod watch;

use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use mio::{Events, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;

use self::capture::Capture;
use self::confine::confine;
use self::control::{Control, Word};
use self::keeper::{Keeper, Listening, Opened};
use self::meter::Meter;
use self::notify::{Notifier, stored_name};
use self::outputs::Outputs;
use self::scrape::Scrape;
use self::setup::{claim, explain, open_control, open_scrape, pin, status, unpin, warn_of};
use self::takeover::Offered;
use self::watch::Watch;
use crate::config::{self, Config, Loaded, Selection, Share};
use crate::engine::{Engine, Filter, Policy};
use crate::kernel::{clock, host_name, inherited};
use crate::metrics;
use crate::session::Record;
use crate::time::{Now, Uptime, Wall};
use crate::wire::syslog::Host;

const EVENTS: Token = Token(0);
const DUMP: Token = Token(1);
const SIGNALS: Token = Token(2);
/// The control socket, and after it its clients.
const CONTROL: Token = Token(3);
/// The listener for Prometheus, and after it its clients.
const SCRAPE: Token = Token(64);

/// After a turn that read events, more may gather for this long: at a high rate a wake-up for each would cost more than
/// the event itself. The kernel's queue holds far more than arrives meanwhile.
const GATHER: Duration = Duration::from_millis(1);

/// How long the end of the daemon waits for collectors and copies to take what is queued.
const FAREWELL: Duration = Duration::from_secs(2);

/// The reason why the daemon could not start or had to stop.
#[derive(Debug)]
pub enum Error {
    Config(config::Error),
    /// A capability is missing.
    Permission(String),
    /// Another daemon holds a resource that this one needs.
    Busy(String),
    /// The operating system refused something else.
    System(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Busy(message) | Self::Permission(message) | Self::System(message) => {
                f.write_str(message)
            }
        }
    }
}

impl std::error::Error for Error {}

/// Runs until SIGTERM or SIGINT. `load` is called at the start and again at each SIGHUP.
///
/// # Errors
/// See [`Error`]. Nothing but a failing event socket ends a daemon that has started.
pub fn run(load: impl Fn() -> Result<Loaded, config::Error>) -> Result<(), Error> {
    let loaded = load().map_err(Error::Config)?;
    let mut daemon = Daemon::start(loaded)?;
    let result = daemon.turn_until_stopped(&load);
    daemon.stop(result.is_ok());
    result
}

struct Daemon {
    config: Config,
    /// The file of the configuration.
    file: Option<PathBuf>,
    /// When that was read.
    read: Wall,
    poll: Poll,
    signals: Signals,
    capture: Capture,
    engine: Engine,
    keeper: Keeper,
    outputs: Outputs,
    notifier: Notifier,
    /// Whether the database knows that this run listens with its socket: otherwise no later run may have it.
    noted: bool,
    /// Whether the queue of a kept socket has not been read to its end yet. No audit begins before that: it would infer
    /// records that the queue is about to report.
    catching_up: bool,
    watch: Watch,
    _claim: [UnixDatagram; 2],
    control: Option<Control>,
    /// The selection of viewers, unless they see everything.
    shown: Option<Selection>,
    scrape: Option<Scrape>,
    confinement: metrics::Confinement,
    meter: Meter,
    started: Now,
    now: Now,
}

impl Daemon {
    fn start(loaded: Loaded) -> Result<Self, Error> {
        let inherited = inherited::take();
        let now = clock::read();
        let mut notifier = Notifier::new(|name| std::env::var_os(name), now);
        let (file, read) = (loaded.file.clone(), now.wall);
        let config = warn_of(loaded);
        let system = |what: &str, error: io::Error| Error::System(format!("{what}: {error}"));
        let poll = Poll::new().map_err(|error| system("cannot make an event queue", error))?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
            .map_err(|error| system("cannot set up signals", error))?;
        poll.registry()
            .register(&mut signals, SIGNALS, mio::Interest::READABLE)
            .map_err(|error| system("cannot watch for signals", error))?;

        let claim = claim(&config.capture)?;
        let opened = Opened::open(&config.pending)?;
        let mut offered = Offered::examine(inherited, &config.capture);
        let (last_run, heartbeat) = (opened.last_run(), opened.heartbeat);
        let plan = takeover::decide(last_run, heartbeat, &offered.offers);
        let (kept, registry) = (offered.take(&plan), poll.registry());
        let mut capture = Capture::open(&config, kept, registry, [EVENTS, DUMP], now)
            .map_err(|error| explain("cannot subscribe to connection tracking events", &error))?;
        // Opening the store may have taken time: the engine hears everything only from now on.
        let now = clock::read();
        for name in &offered.refused {
            notifier.discard(name, now);
        }

        let mut engine = Engine::new(Filter::new(config.selections()), Policy::new(&config), now);
        let listening = Listening {
            since: now.wall,
            socket: capture.cookie(),
        };
        let (keeper, places) = Keeper::new(&config, opened, listening, &mut engine, now);
        keeper.state_gap(&mut engine, plan.gap_since, now);
        if plan.is_continued && keeper.is_sound() {
            engine.handle_continued();
        }
        // The store may hold sessions from before the filters became narrower.
        capture.reconfigure(&config, &engine);
        if plan.socket.is_some() {
            // The socket had the filter of the last run until now.
            engine.handle_drops(now.wall, clock::read().wall);
        }
        pin(&config.capture)?;
        let watch = Watch::new(&config, &mut engine, now)
            .map_err(|error| explain("cannot watch connection tracking", &error))?;
        let host = Host {
            hostname: host_name(),
            pid: std::process::id(),
        };
        let next = keeper.log().next();
        let mut outputs = Outputs::new(&config, host, places, plan.session, next, now);
        // An output that cannot be opened is reported now, not with its first record.
        outputs.reopen(now);
        let control = open_control(&config.control, poll.registry());
        let scrape = open_scrape(&config.metrics, poll.registry());
        let confinement = confine(&config);
        ::log::info!("confined: {confinement}");
        let status = status(&config);
        ::log::info!("nattrail {} started: {status}", env!("CARGO_PKG_VERSION"));
        let mut this = Self {
            shown: config.narrower(config.capture.selection()),
            config,
            file,
            read,
            poll,
            signals,
            capture,
            engine,
            keeper,
            outputs,
            notifier,
            noted: false,
            catching_up: plan.socket.is_some(),
            watch,
            _claim: claim,
            control,
            scrape,
            confinement,
            meter: Meter::new(now),
            started: now,
            now,
        };
        this.note_begin();
        this.notifier.ready(&status, now);
        Ok(this)
    }

    /// Has the database note, before the first event is read, that this run listens with its socket, and since when
    /// nothing is missing. Only then may the service manager keep the socket for the next run.
    fn note_begin(&mut self) {
        self.forward();
        let now = self.now;
        let (engine, outputs) = (&mut self.engine, &mut self.outputs);
        self.noted = self.keeper.flush(engine, outputs, now.wall, None, now);
        let name = stored_name(self.config.capture.namespace.as_ref());
        if self.noted {
            self.notifier.store(&name, self.capture.socket(), now);
        } else {
            self.notifier.discard(&name, now);
        }
    }

    fn turn_until_stopped(
        &mut self,
        load: &impl Fn() -> Result<Loaded, config::Error>,
    ) -> Result<(), Error> {
        let mut ready = Events::with_capacity(32);
        let mut heard = 0;
        loop {
            let patience = self.patience();
            if heard > 0 && patience != Some(Duration::ZERO) {
                thread::sleep(GATHER);
            }
            match self.poll.poll(&mut ready, patience) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(Error::System(format!("cannot wait for events: {error}")));
                }
                _ => {
                    let before = std::mem::replace(&mut self.now, clock::read());
                    self.watch.check_clock(&mut self.engine, before, self.now);
                }
            }
            for event in &ready {
                match event.token() {
                    EVENTS => self.capture.set_readable(),
                    DUMP => self.capture.set_dump_readable(),
                    SIGNALS => {
                        if self.handle_signals(load) {
                            return Ok(());
                        }
                    }
                    token => {
                        if let Some(control) = &mut self.control {
                            control.handle_ready(token);
                        }
                        if let Some(scrape) = &mut self.scrape {
                            scrape.handle_ready(token);
                        }
                    }
                }
            }
            heard = self.turn()?;
            self.meter.count_turn(self.now.up, clock::uptime());
        }
    }

    /// The longest time for the next wait.
    fn patience(&self) -> Option<Duration> {
        if self.capture.is_readable() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.engine.poll_timeout(),
            self.outputs.poll_timeout(self.keeper.log().readable()),
            self.control.as_ref().and_then(Control::poll_timeout),
            self.scrape.as_ref().and_then(Scrape::poll_timeout),
            self.notifier.poll_timeout(),
            Some(self.keeper.poll_timeout()),
            Some(self.watch.poll_timeout()),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_since(self.now.up))
    }

    /// Returns how many events were read.
    fn turn(&mut self) -> Result<usize, Error> {
        let now = self.now;
        let heard = self.read_events()?;
        self.catching_up &= self.capture.has_events();
        self.capture.read_dump(&mut self.engine, now);
        self.engine.handle_timeout(now);
        if !self.catching_up {
            let is_stored = !self.keeper.is_failing();
            self.capture.start_dump(&mut self.engine, is_stored, now);
        }
        self.watch
            .handle_timeout(&mut self.engine, self.capture.statistics().malformed, now)
            .map_err(|error| Error::System(error.to_string()))?;
        self.forward();
        self.meter.observe(self.engine.statistics(), now);
        self.commit_if_due();
        self.outputs.pump(&mut self.keeper.reading(), now);
        for (missing, new) in self.outputs.take_lost() {
            self.meter.count_undelivered(&missing, new);
        }
        self.notifier.handle_timeout(now);
        self.serve();
        ::log::logger().flush();
        Ok(heard)
    }

    /// Answers requests on the control socket and from Prometheus, and writes to viewers.
    fn serve(&mut self) {
        let (registry, now) = (self.poll.registry(), self.now);
        if let Some(control) = &mut self.control {
            control.handle_timeout(registry, now);
            let (outputs, end) = (&mut self.outputs, self.keeper.log().readable());
            let mut checkpoints = Vec::new();
            control.handle_archive(|word| {
                match word {
                    Word::Archived(Some(next)) => return outputs.handle_archived(next, end, now),
                    Word::Archived(None) => outputs.forget_archive(),
                    Word::Checkpoint(checkpoint) => checkpoints.push(checkpoint),
                }
                Ok(())
            });
            for mut checkpoint in checkpoints {
                checkpoint.time = now.wall;
                let record = Record::Checkpoint(checkpoint);
                self.keeper.push(&record);
                control.show(&record, now);
            }
        }
        if let Some(scrape) = &mut self.scrape {
            scrape.handle_timeout(registry, now);
        }
        let is_asked = self.control.as_ref().is_some_and(Control::wants_status);
        let is_scraped = self.scrape.as_ref().is_some_and(Scrape::wants_page);
        if !(is_asked || is_scraped) {
            return;
        }
        let metrics = self.metrics();
        if let Some(control) = self.control.as_mut().filter(|_| is_asked) {
            control.handle_status(&metrics.to_json());
        }
        if let Some(scrape) = self.scrape.as_mut().filter(|_| is_scraped) {
            scrape.handle_page(&metrics.to_prometheus());
        }
    }

    fn read_events(&mut self) -> Result<usize, Error> {
        self.capture
            .read_events(&mut self.engine, self.now)
            .map_err(|error| Error::System(format!("the event socket failed: {error}")))
    }

    fn commit_if_due(&mut self) {
        let heard = self.capture.heard_until(self.now);
        let (engine, outputs) = (&mut self.engine, &mut self.outputs);
        self.keeper.handle_timeout(engine, outputs, heard, self.now);
    }

    fn forward(&mut self) {
        let mut watched = self.control.as_mut().filter(|control| control.is_watched());
        while let Some(record) = self.engine.poll_record() {
            self.meter.count_record(&record);
            self.keeper.push(&record);
            if let Some(control) = &mut watched {
                match self
                    .shown
                    .as_ref()
                    .map_or(Share::Whole, |it| it.share(&record))
                {
                    Share::Nothing => continue,
                    Share::Whole => {}
                    Share::After(create) => control.show(&create, self.now),
                }
                control.show(&record, self.now);
            }
        }
    }

    /// Returns whether the daemon has to stop.
    fn handle_signals(&mut self, load: &impl Fn() -> Result<Loaded, config::Error>) -> bool {
        let mut stop = false;
        let signals: Vec<_> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                SIGHUP => self.handle_reload(load()),
                SIGUSR1 => {
                    for line in self.metrics().to_string().lines() {
                        ::log::info!("{line}");
                    }
                }
                _ => stop = true,
            }
        }
        stop
    }

    fn handle_reload(&mut self, loaded: Result<Loaded, config::Error>) {
        self.notifier.reloading(self.now);
        match loaded {
            Ok(Loaded { file: None, .. }) if self.file.is_some() => {
                ::log::error!("the configuration stays as it was: its file no longer exists");
                self.outputs.reopen(self.now);
            }
            Ok(loaded) => {
                self.file.clone_from(&loaded.file);
                self.read = self.now.wall;
                self.reload(warn_of(loaded));
            }
            Err(error) => {
                ::log::error!("the configuration stays as it was: the new one is wrong:\n{error}");
                self.outputs.reopen(self.now);
            }
        }
        self.notifier.ready(&status(&self.config), self.now);
    }

    /// Changes to a new configuration, as far as that is possible without a restart.
    fn reload(&mut self, new: Config) {
        let now = self.now;
        let (new, differing) = self.config.reloaded(new);
        for key in differing {
            ::log::warn!("{key} has changed: that takes effect at the next restart");
        }
        self.engine
            .reconfigure(Filter::new(new.selections()), Policy::new(&new), now);
        self.capture.reconfigure(&new, &self.engine);
        self.keeper.reconfigure(&new);
        self.watch.reconfigure(&new.monitors, &mut self.engine, now);
        let next = self.keeper.log().next();
        let reading = &mut self.keeper.reading();
        self.outputs.reconfigure(&new, next, reading, now);
        self.outputs.reopen(now);
        self.shown = new.narrower(new.capture.selection());
        self.config = new;
        ::log::info!("configuration read again");
    }

    /// Finishes the work in hand: the queued events, the store, the batches that wait to fill. Later events are left to
    /// the next run, if the service manager has taken the event socket; that is assumed once it was sent to a manager
    /// that is there, as managers do not answer.
    fn stop(&mut self, planned: bool) {
        self.now = clock::read();
        self.notifier.stopping(self.now);
        let mut kept = planned && self.noted && self.notifier.is_heard();
        let deadline = self.now.up.saturating_add(FAREWELL);
        self.capture.set_readable();
        while self.read_events().is_ok_and(|count| count > 0) {
            self.forward();
            self.commit_if_due();
            self.now = clock::read();
            if self.now.up >= deadline {
                if !kept {
                    ::log::warn!(
                        "stopped with events left in the kernel's queue: more came than could be read"
                    );
                }
                break;
            }
        }
        self.now = clock::read();
        self.capture.finish(&mut self.engine, self.now);
        let malformed = self.capture.statistics().malformed;
        self.watch.finish(&mut self.engine, malformed, self.now);
        self.forward();
        let heard = self.capture.heard_until(self.now);
        let (engine, outputs) = (&mut self.engine, &mut self.outputs);
        self.keeper.flush(engine, outputs, heard, None, self.now);
        if let Some(control) = &mut self.control {
            control.farewell(self.now);
        }
        self.farewell(deadline);
        if planned {
            // Only now the places of the outputs are final.
            let drops = self.capture.stated_drops();
            let (engine, outputs) = (&mut self.engine, &mut self.outputs);
            kept &= self
                .keeper
                .flush(engine, outputs, heard, Some(drops), self.now);
        }
        if kept {
            ::log::info!(
                "connection tracking stays on: the service manager keeps the event socket"
            );
        } else {
            let name = stored_name(self.config.capture.namespace.as_ref());
            self.notifier.discard(&name, self.now);
            unpin(&self.config.capture);
        }
        self.say_stopped();
    }

    fn farewell(&mut self, deadline: Uptime) {
        let mut ready = Events::with_capacity(1);
        let end = self.keeper.log().readable();
        self.outputs.drain(&mut self.keeper.reading(), self.now);
        while !self.outputs.is_settled(end) && self.now.up < deadline {
            let next = self.outputs.poll_timeout(end).unwrap_or(deadline);
            let patience = next.min(deadline).saturating_since(self.now.up);
            // This only waits: the next run handles whatever becomes ready.
            let _ = self.poll.poll(&mut ready, Some(patience));
            self.now = clock::read();
            self.outputs.drain(&mut self.keeper.reading(), self.now);
        }
    }

    /// Reports what the next run will find in the database.
    fn say_stopped(&self) {
        let counted = |count, one| log::counted(count, one, &format!("{one}s"));
        let pending = counted(self.engine.pending() as u64, "session");
        let unsent = self.outputs.unsent(self.keeper.log().readable());
        let unsent = unsent.map(|(name, count)| (name, counted(count, "record")));
        if self.keeper.is_failing() {
            unsent.for_each(|(name, records)| {
                ::log::error!(
                    "{name}: left behind: {records}; those that the database could not take are lost"
                );
            });
            ::log::error!(
                "stopped with {pending} pending, but the database could not be written and is out of date"
            );
        } else {
            unsent.for_each(|(name, records)| ::log::info!("{name}: left in the log: {records}"));
            ::log::info!("stopped with {pending} pending, kept in the database");
        }
    }
}
