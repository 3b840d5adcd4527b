//! The daemon: one loop on one thread.
//!
//! A turn of the loop: wait until a socket is readable, a signal came or a deadline has passed; read both clocks once;
//! read a bounded number of events into the engine and hand its records to the outputs; commit the store when its
//! interval is over; send what goes without waiting. Nothing in a turn waits for a network, a syslog or a reader.
//!
//! Start-up listens first and looks afterwards: events are subscribed to, then connection tracking is pinned on, the
//! store is loaded, and the first audit holds it against the kernel's table.

mod capture;
pub mod clock;
mod keeper;
pub mod log;
mod outputs;
mod report;

use std::fmt;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use mio::{Events, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;

use self::capture::Capture;
use self::keeper::Keeper;
use self::outputs::Outputs;
use self::report::Report;
use crate::config::{self, Config, Loaded};
use crate::engine::{Engine, Filter, Timing};
use crate::kernel::namespace::within;
use crate::kernel::{nftables, sysctl};
use crate::store;
use crate::time::{Now, Uptime};
use crate::wire::syslog::Host;

const EVENTS: Token = Token(0);
const DUMP: Token = Token(1);
const SIGNALS: Token = Token(2);

/// After a turn that read events, more are left to gather for this long: at a high rate a wake-up for each would cost more
/// than the event itself. The kernel's queue is made for far more than comes in meanwhile.
const GATHER: Duration = Duration::from_millis(1);

/// How long the end of the daemon waits for collectors and copies to take what is queued.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the daemon could not start or had to stop.
#[derive(Debug)]
pub enum Error {
    Config(config::Error),
    /// A capability is missing.
    Permission(String),
    Store(store::Error),
    /// The operating system refused something else.
    System(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Permission(message) | Self::System(message) => f.write_str(message),
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
    daemon.stop();
    result
}

struct Daemon {
    config: Config,
    poll: Poll,
    signals: Signals,
    capture: Capture,
    engine: Engine,
    keeper: Keeper,
    outputs: Outputs,
    started: Uptime,
    now: Now,
}

impl Daemon {
    fn start(loaded: Loaded) -> Result<Self, Error> {
        let now = clock::read();
        let config = warn_of(loaded);
        let system = |what: &str, error: io::Error| Error::System(format!("{what}: {error}"));
        let poll = Poll::new().map_err(|error| system("cannot make an event queue", error))?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
            .map_err(|error| system("cannot set up signals", error))?;
        poll.registry()
            .register(&mut signals, SIGNALS, mio::Interest::READABLE)
            .map_err(|error| system("cannot watch for signals", error))?;

        let mut capture = Capture::open(&config.capture, now)
            .map_err(|error| explain("cannot subscribe to connection tracking events", &error))?;
        capture
            .register(poll.registry(), EVENTS)
            .map_err(|error| system("cannot watch for events", error))?;
        pin(&config.capture)?;

        let mut engine = Engine::new(Filter::new(&config.capture), Timing::new(&config), now);
        engine.request_audit(now);
        let keeper = Keeper::open(&config.pending, &mut engine, now).map_err(Error::Store)?;
        // The store may hold sessions from before the filters were made narrower.
        capture.reconfigure(&config.capture, &engine);
        let host = Host {
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            pid: std::process::id(),
        };
        let outputs = Outputs::new(&config, host, now);
        ::log::info!(
            "nattrail {} started: {} collectors, {} copies, {}",
            env!("CARGO_PKG_VERSION"),
            config.collectors.len(),
            config.syslog.len(),
            match config.capture.log {
                config::LogScope::Nat => "translated connections only",
                config::LogScope::All => "every connection",
            }
        );
        let started = now.up;
        Ok(Self {
            config,
            poll,
            signals,
            capture,
            engine,
            keeper,
            outputs,
            started,
            now,
        })
    }

    fn turn_until_stopped(
        &mut self,
        load: &impl Fn() -> Result<Loaded, config::Error>,
    ) -> Result<(), Error> {
        let mut ready = Events::with_capacity(16);
        let mut heard = 0;
        loop {
            if heard > 0 && !self.capture.is_readable() {
                thread::sleep(GATHER);
            }
            match self.poll.poll(&mut ready, self.patience()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(Error::System(format!("cannot wait for events: {error}")));
                }
                _ => self.now = clock::read(),
            }
            for event in &ready {
                match event.token() {
                    EVENTS => self.capture.set_readable(),
                    DUMP => self.capture.set_dump_readable(),
                    _ => {
                        if self.handle_signals(load) {
                            return Ok(());
                        }
                    }
                }
            }
            heard = self.turn()?;
        }
    }

    /// How long the next wait may be.
    fn patience(&self) -> Option<Duration> {
        if self.capture.is_readable() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.engine.poll_timeout(),
            self.outputs.poll_timeout(),
            Some(self.keeper.poll_timeout()),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_since(self.now.up))
    }

    /// Returns how many events were read.
    fn turn(&mut self) -> Result<usize, Error> {
        let now = self.now;
        let heard = self.read_events()?;
        self.capture.read_dump(&mut self.engine, now);
        self.engine.handle_timeout(now);
        self.capture
            .start_dump(&mut self.engine, self.poll.registry(), DUMP, now);
        self.forward();
        self.keeper.handle_timeout(&mut self.engine, now);
        self.outputs.flush(now);
        ::log::logger().flush();
        Ok(heard)
    }

    fn read_events(&mut self) -> Result<usize, Error> {
        self.capture
            .read_events(&mut self.engine, self.now)
            .map_err(|error| Error::System(format!("the event socket failed: {error}")))
    }

    fn forward(&mut self) {
        while let Some(record) = self.engine.poll_record() {
            self.outputs.push(&record, self.now);
        }
    }

    /// Returns whether the daemon is to stop.
    fn handle_signals(&mut self, load: &impl Fn() -> Result<Loaded, config::Error>) -> bool {
        let mut stop = false;
        for signal in self.signals.pending() {
            match signal {
                SIGHUP => match load() {
                    Ok(loaded) => {
                        let config = warn_of(loaded);
                        self.reload(config);
                    }
                    Err(error) => {
                        ::log::error!(
                            "the configuration stays as it was, the new one is wrong:\n{error}"
                        );
                        self.outputs.reopen(self.now);
                    }
                },
                SIGUSR1 => {
                    let report = Report {
                        running: self.now.up.saturating_since(self.started),
                        capture: self.capture.statistics(),
                        drops: self.capture.drops(),
                        receive_buffer: self.capture.receive_buffer(),
                        engine: self.engine.statistics(),
                        pending: self.engine.pending(),
                        store: self.keeper.statistics(),
                        store_failing: self.keeper.is_failing(),
                        outputs: &self.outputs,
                    };
                    for line in report.to_string().lines() {
                        ::log::info!("{line}");
                    }
                }
                _ => stop = true,
            }
        }
        stop
    }

    /// Goes over to a new configuration, as far as that is possible without a restart.
    fn reload(&mut self, mut new: Config) {
        let now = self.now;
        for key in fixed_keys_that_differ(&self.config, &new) {
            ::log::warn!("{key} has changed: that takes effect at the next restart");
        }
        let current = &self.config.capture;
        new.capture.namespace.clone_from(&current.namespace);
        new.capture.table.clone_from(&current.table);
        self.engine
            .reconfigure(Filter::new(&new.capture), Timing::new(&new), now);
        self.capture.reconfigure(&new.capture, &self.engine);
        self.keeper.reconfigure(&new.pending);
        self.outputs.reconfigure(&new, now);
        self.outputs.reopen(now);
        self.config = new;
        ::log::info!("configuration read again");
    }

    /// Finishes what is in hand: the events that are queued, the store, the batches that wait to fill.
    fn stop(&mut self) {
        self.now = clock::read();
        let deadline = self.now.up.saturating_add(FAREWELL);
        self.capture.set_readable();
        while self.read_events().is_ok_and(|count| count > 0) {
            self.forward();
            self.outputs.flush(self.now);
            self.now = clock::read();
            if self.now.up >= deadline {
                ::log::warn!(
                    "stopped with events left in the kernel's queue: more came than could be read"
                );
                break;
            }
        }
        self.forward();
        self.keeper.flush(&mut self.engine, self.now);
        self.farewell(deadline);
        let removed = within(self.config.capture.namespace.as_ref(), || {
            nftables::remove(&self.config.capture.table)
        });
        if let Err(error) = removed.and_then(|removed| removed) {
            let table = &self.config.capture.table;
            ::log::warn!("cannot remove the nftables table \"inet {table}\": {error}");
        }
        ::log::info!(
            "stopped: {} sessions stay pending in the store",
            self.engine.pending()
        );
    }

    fn farewell(&mut self, deadline: Uptime) {
        let mut ready = Events::with_capacity(1);
        self.outputs.drain(self.now);
        while !self.outputs.is_idle() && self.now.up < deadline {
            let next = self
                .outputs
                .poll_timeout()
                .unwrap_or(deadline)
                .min(deadline);
            let patience = next.saturating_since(self.now.up);
            // Only to wait: what becomes ready meanwhile is for the next run.
            let _ = self.poll.poll(&mut ready, Some(patience));
            self.now = clock::read();
            self.outputs.drain(self.now);
        }
        for unsent in self.outputs.unsent() {
            ::log::warn!("stopped, {unsent} within 2 s");
        }
    }
}

/// Keys that belong to sockets and files that stay open over a reload.
fn fixed_keys_that_differ(current: &Config, new: &Config) -> Vec<&'static str> {
    let (old, new_capture) = (&current.capture, &new.capture);
    let differ = [
        ("capture.namespace", old.namespace != new_capture.namespace),
        ("capture.table", old.table != new_capture.table),
        (
            "capture.receive-buffer",
            old.receive_buffer != new_capture.receive_buffer,
        ),
        ("capture.reliable", old.reliable != new_capture.reliable),
        (
            "capture.set-sysctls",
            old.set_sysctls != new_capture.set_sysctls,
        ),
        (
            "pending.database",
            current.pending.database != new.pending.database,
        ),
    ];
    differ
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key)
        .collect()
}

fn warn_of(loaded: Loaded) -> Config {
    for warning in &loaded.warnings {
        ::log::warn!("{warning}");
    }
    loaded.config
}

/// Turns connection tracking on in the configured namespace and looks at its settings.
fn pin(config: &config::Capture) -> Result<(), Error> {
    let settings = Path::new(sysctl::DIRECTORY);
    let pinned = within(config.namespace.as_ref(), || {
        // Before the first connection is tracked: it gets counters and times only if these are on by then.
        let early = config.set_sysctls && settings.exists();
        if early {
            switch_on(settings);
        }
        nftables::install(&config.table)?;
        if config.set_sysctls && !early {
            switch_on(settings);
        }
        match sysctl::inspect(settings) {
            Ok(findings) => findings
                .iter()
                .for_each(|finding| ::log::warn!("{finding}")),
            Err(error) => ::log::warn!("{error}"),
        }
        Ok(())
    });
    let what = || format!("cannot make the nftables table \"inet {}\"", config.table);
    pinned
        .and_then(|pinned| pinned)
        .map_err(|error| explain(&what(), &error))
}

fn switch_on(settings: &Path) {
    for change in sysctl::set(settings) {
        if change.result.is_ok() {
            ::log::info!("{change}");
        } else {
            ::log::warn!("{change}");
        }
    }
}

fn explain(what: &str, error: &io::Error) -> Error {
    if matches!(error.kind(), io::ErrorKind::PermissionDenied) {
        Error::Permission(format!(
            "{what}: {error}: the capability CAP_NET_ADMIN is missing; run as root, or as a service with \
             AmbientCapabilities=CAP_NET_ADMIN"
        ))
    } else {
        Error::System(format!("{what}: {error}"))
    }
}
