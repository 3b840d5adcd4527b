//! `nattrail check`: whether the daemon would work here, and whether a running one does, one line for each object.
//!
//! It changes nothing: it makes no file, sends no packet and touches no setting.

mod control;
mod files;
mod health;
mod monitor;
pub(super) mod rights;

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities};
use serde_json::json;

use self::rights::{READ_ADVICE, Rights};
use super::color::{ALARM, Choice, GREEN, YELLOW};
use super::{Exit, Failure, Origin, exit_of};
use crate::config::{Capture, Loaded, Problem, Selection, Target};
use crate::kernel::namespace;
use crate::kernel::sysctl::{self, Missing};
use crate::kernel::tracking::{COUNT, Tracking, UNCOUNTED};

/// The state of an object, or its fault.
type Judgement = Result<String, Flaw>;

#[derive(Debug)]
struct Flaw {
    /// Its exit status; a warning has none.
    exit: Option<Exit>,
    found: String,
    /// The remedy; empty when `found` includes it.
    advice: &'static str,
}

fn error<T>(exit: Exit, found: impl Into<String>, advice: &'static str) -> Result<T, Flaw> {
    Err(Flaw {
        exit: Some(exit),
        found: found.into(),
        advice,
    })
}

fn warning<T>(found: impl Into<String>, advice: &'static str) -> Result<T, Flaw> {
    Err(Flaw {
        exit: None,
        found: found.into(),
        advice,
    })
}

/// The judgement of one object.
#[derive(Debug)]
struct Finding {
    object: String,
    judgement: Judgement,
}

impl Finding {
    fn new(object: impl Into<String>, judgement: Judgement) -> Self {
        Self {
            object: object.into(),
            judgement,
        }
    }

    /// The verdict, the finding, and the remedy.
    fn words(&self) -> (&'static str, &str, &'static str) {
        match &self.judgement {
            Ok(found) => ("ok", found, ""),
            Err(flaw) if flaw.exit.is_some() => ("error", &flaw.found, flaw.advice),
            Err(flaw) => ("warning", &flaw.found, flaw.advice),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, found, advice) = self.words();
        write!(f, "{verdict:<7} {}: {found}", self.object)?;
        match advice {
            "" => Ok(()),
            advice => write!(f, ": {advice}"),
        }
    }
}

/// The scope of the check, and the form of the output.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Form {
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
    /// Print an array of JSON objects
    #[arg(long)]
    json: bool,
    /// Check the configuration only
    #[arg(long)]
    config_only: bool,
    #[command(flatten)]
    color: Choice,
}

/// Checks everything, prints it, and returns the worst fault as the exit status: a wrong configuration, a missing
/// permission, then a missing object. Warnings fail only on request.
pub(super) fn run(
    origin: &Origin,
    form: Form,
    out: &mut (impl Write + IsTerminal),
) -> Result<Exit, Failure> {
    let findings = match origin.load() {
        Ok(loaded) => findings(&loaded, form.config_only),
        Err(error) => {
            let exit = Exit::from(&error);
            let mistakes = error.0.into_iter();
            mistakes.map(|problem| mistake(problem, exit)).collect()
        }
    };
    if form.json {
        print_json(&findings, out)?;
    } else {
        let paint = form.color.paint(out);
        for finding in &findings {
            let verdict = finding.words().0;
            let color = match verdict {
                "ok" => GREEN,
                "warning" => YELLOW,
                _ => ALARM,
            };
            let painted = paint.text(verdict, color);
            writeln!(
                out,
                "{}",
                finding.to_string().replacen(verdict, &painted, 1)
            )?;
        }
    }
    Ok(worst(&findings, form.strict))
}

fn findings(loaded: &Loaded, config_only: bool) -> Vec<Finding> {
    let config = &loaded.config;
    let read = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no file, the built-in defaults hold".to_owned(),
    };
    let mut findings = vec![Finding::new("configuration", Ok(read))];
    findings.extend(loaded.warnings.iter().map(|problem| {
        let judgement = warning(problem.message.as_str(), "");
        Finding::new(&problem.origin, judgement)
    }));
    if config_only {
        return findings;
    }
    let rights = Rights::of_service(loaded.file.as_deref());
    if let Some(Err(found)) = loaded.file.as_deref().map(|file| rights.may_read(file)) {
        let judgement = error(Exit::NoPermission, found, READ_ADVICE);
        findings.push(Finding::new("configuration", judgement));
    }
    findings.push(Finding::new("rights to files", Ok(rights.to_string())));
    let database = &config.pending.database;
    // The path is absolute, so it has a parent unless it is the root itself.
    let directory = database.parent().unwrap_or(database);
    findings.push(Finding::new(
        format!("state directory {}", directory.display()),
        files::state_directory(directory, &rights),
    ));
    if let Some(judgement) = files::database(database, &rights) {
        let object = format!("database {}", database.display());
        findings.push(Finding::new(object, judgement));
    }
    findings.extend(permissions(&config.capture));
    let settings = kernel_settings(&config.capture).into_iter();
    findings.extend(settings.map(|judgement| Finding::new("kernel settings", judgement)));
    findings.extend(flowtables(&config.capture));
    for monitor in &config.monitors {
        findings.extend(monitor::look(monitor, config));
    }
    if let Some(program) = config.archive.timestamp.first() {
        findings.push(Finding::new("archive.timestamp", files::program(program)));
    }
    let gets = |judgement: Judgement, selection: &Selection| {
        judgement.map(|found| match config.narrower(selection.clone()) {
            Some(own) => format!("{found}; gets {own}"),
            None => found,
        })
    };
    for collector in &config.collectors {
        let judgement = route(collector.source_address, collector.address);
        findings.push(Finding::new(
            collector.title(),
            gets(judgement, &collector.selection),
        ));
    }
    for copy in &config.syslog {
        let judgement = target(&copy.target, &rights);
        findings.push(Finding::new(copy.title(), gets(judgement, &copy.selection)));
    }
    if config.archive.keep.is_none() {
        let found = "not set: the archive never deletes a connection";
        findings.push(Finding::new("archive.keep", Ok(found.to_owned())));
    }
    findings.extend(control::look(config.control.socket.as_deref()));
    findings
}

fn mistake(problem: Problem, exit: Exit) -> Finding {
    let object = if problem.key.is_empty() {
        problem.origin
    } else {
        format!("{}: {}", problem.origin, problem.key)
    };
    Finding::new(object, error(exit, problem.message, ""))
}

fn worst(findings: &[Finding], strict: bool) -> Exit {
    let flaws = findings.iter().filter_map(|it| it.judgement.as_ref().err());
    let exits: Vec<_> = flaws.map(|flaw| flaw.exit).collect();
    let by_weight = [
        Exit::Config,
        Exit::NoPermission,
        Exit::Unavailable,
        Exit::Os,
    ];
    let mut worst = by_weight.into_iter();
    match worst.find(|exit| exits.contains(&Some(*exit))) {
        Some(exit) => exit,
        None if strict && !exits.is_empty() => Exit::Unavailable,
        None => Exit::Success,
    }
}

fn print_json(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let object = |finding: &Finding| {
        let (verdict, found, advice) = finding.words();
        json!({"verdict": verdict, "object": finding.object, "finding": found, "advice": advice})
    };
    let array: Vec<_> = findings.iter().map(object).collect();
    serde_json::to_writer_pretty(&mut *out, &array)?;
    writeln!(out)
}

fn permissions(capture: &Capture) -> impl Iterator<Item = Finding> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let purpose = "to read conntrack events and to keep its nftables table";
    let mut needed = vec![("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN, purpose)];
    if capture.namespace.is_some() {
        let purpose = "to enter capture.namespace";
        needed.push(("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN, purpose));
    }
    needed.into_iter().map(move |(name, capability, purpose)| {
        let found = format!("expected to be effective {purpose}, found missing");
        let advice =
            "run this as root; the daemon has it as root, or by AmbientCapabilities= in its unit";
        let judgement = match effective.contains(capability) {
            true => Ok("effective".to_owned()),
            false => error(Exit::NoPermission, found, advice),
        };
        Finding::new(name, judgement)
    })
}

fn kernel_settings(capture: &Capture) -> Vec<Judgement> {
    let directory = Path::new(sysctl::DIRECTORY);
    let judge = |finding| setting(finding, capture.set_sysctls);
    let well = "nf_conntrack_events, _timestamp and _acct are 1";
    match namespace::within(capture.namespace.as_ref(), || sysctl::inspect(directory)) {
        Ok(Ok(found)) if found.is_empty() => vec![Ok(well.to_owned())],
        Ok(Ok(found)) => found.into_iter().map(judge).collect(),
        Ok(Err(reason)) => {
            let found = format!("expected to be readable, found: {reason}");
            vec![error(Exit::Os, found, "")]
        }
        Err(reason) => {
            let advice = match exit_of(&reason) {
                Exit::NoPermission => "entering a namespace needs CAP_SYS_ADMIN",
                _ => "create it before nattrail starts, or change capture.namespace",
            };
            vec![error(exit_of(&reason), reason.to_string(), advice)]
        }
    }
}

/// One finding for each flowtable that costs counters. If the kernel refuses the question, another finding already
/// reports the missing permission or namespace.
fn flowtables(capture: &Capture) -> Vec<Finding> {
    let ask = || Tracking::open()?.uncounted_flowtables();
    let found = namespace::within(capture.namespace.as_ref(), ask).and_then(|found| found);
    let finding = |name| {
        let object = format!("nftables flowtable \"{name}\"");
        Finding::new(object, warning(UNCOUNTED, COUNT))
    };
    found.unwrap_or_default().into_iter().map(finding).collect()
}

fn setting(finding: sysctl::Finding, set_at_start: bool) -> Judgement {
    let found = finding.to_string();
    let advice = "set it with sysctl -w and in /etc/sysctl.d, or let nattrail do so with capture.set-sysctls";
    match finding.missing {
        Missing::Tracking => warning(
            found,
            "nattrail loads it when it starts; the settings then have the kernel's defaults",
        ),
        _ if set_at_start => Ok(format!("{}: set at start", finding.setting.name())),
        Missing::AllEvents => error(Exit::Unavailable, found, advice),
        _ => warning(found, advice),
    }
}

/// Connecting a UDP socket sends nothing, but finds the route and the local address.
fn route(source: Option<SocketAddr>, address: SocketAddr) -> Judgement {
    let source = source.unwrap_or(match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    });
    let socket = UdpSocket::bind(source).or_else(|reason| match reason.kind() {
        ErrorKind::AddrInUse => warning(
            format!("expected {source} to be free to send from, found it in use"),
            "this is right if a running nattrail uses it; otherwise change source-address",
        ),
        _ => error(
            Exit::Unavailable,
            format!("expected to send from {source}, found: {reason}"),
            "give it to an interface of this machine, or change source-address",
        ),
    })?;
    match socket.connect(address).and_then(|()| socket.local_addr()) {
        // UDP does not tell whether somebody listens there.
        Ok(local) => Ok(format!("there is a route, from {}", local.ip())),
        Err(reason) => {
            let found = format!("expected a route, found: {reason}");
            let advice = "add a route or an interface, or change address";
            error(Exit::Unavailable, found, advice)
        }
    }
}

fn target(target: &Target, rights: &Rights) -> Judgement {
    match target {
        Target::Stdout => Ok("always there".to_owned()),
        Target::Udp { address } => route(None, *address),
        Target::Local { path } => socket(
            path,
            "start a syslog daemon that listens there, or change path",
        ),
        Target::Journal { path } => socket(path, "start systemd-journald, or change path"),
        Target::File { path } => files::log_file(path, rights),
    }
}

fn socket(path: &Path, advice: &'static str) -> Judgement {
    let connected = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    match connected {
        Ok(()) => Ok("somebody listens".to_owned()),
        Err(reason) => {
            let found = format!("expected a socket on which somebody listens, found: {reason}");
            error(exit_of(&reason), found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The exit status of a judgement.
    pub(super) fn exit(judgement: Judgement) -> Option<Exit> {
        judgement.err().and_then(|flaw| flaw.exit)
    }

    #[test]
    fn the_worst_finding_decides_the_exit_status() {
        let finding = |exit| Finding::new("a", error(exit, "b", ""));
        let warned = [Finding::new("a", warning("b", ""))];
        assert_eq!(worst(&warned, false), Exit::Success);
        assert_eq!(worst(&warned, true), Exit::Unavailable);
        let well = [Finding::new("a", Ok(String::new()))];
        assert_eq!(worst(&well, true), Exit::Success);
        let both = [finding(Exit::Unavailable), finding(Exit::NoPermission)];
        assert_eq!(worst(&both, true), Exit::NoPermission);
    }

    #[test]
    fn a_socket_needs_a_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let missing = socket(&path, "");
        assert_eq!(exit(missing), Some(Exit::Unavailable));
        let listener = UnixDatagram::bind(&path).unwrap();
        assert_eq!(exit(socket(&path, "")), None);
        drop(listener);
        let stale = socket(&path, "");
        assert_eq!(exit(stale), Some(Exit::Unavailable));
    }

    #[test]
    fn a_route_says_the_local_address() {
        let judgement = route(None, "127.0.0.1:2055".parse().unwrap());
        let finding = Finding::new("a", judgement);
        assert_eq!(
            finding.to_string(),
            "ok      a: there is a route, from 127.0.0.1"
        );
    }

    #[test]
    fn a_source_that_is_not_ours_is_an_error_and_one_in_use_a_warning() {
        let target = "127.0.0.1:2055".parse().unwrap();
        // Reserved (RFC 1112 section 4), so that no interface has it.
        let foreign = Some("240.0.0.1:0".parse().unwrap());
        assert_eq!(exit(route(foreign, target)), Some(Exit::Unavailable));
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let flaw = route(taken.local_addr().ok(), target).unwrap_err();
        assert_eq!(flaw.exit, None);
    }

    #[test]
    fn settings_that_are_set_at_start_are_well() {
        let finding = sysctl::Finding {
            setting: sysctl::Setting::Events,
            value: Some(0),
            missing: Missing::AllEvents,
        };
        assert!(setting(finding, true).is_ok());
        assert_eq!(exit(setting(finding, false)), Some(Exit::Unavailable));
    }
}
