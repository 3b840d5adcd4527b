//! `nattrail check`: whether the daemon would do its work here, and whether one that runs does, one line for each thing.
//!
//! Nothing is changed: no file is made, no packet is sent, no setting is touched.

mod control;
mod files;
mod health;
mod rights;

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities};
use serde_json::json;

use self::rights::Rights;
use super::Exit;
use crate::config::{Capture, Collector, Config, Loaded, Problem, Syslog, Target};
use crate::kernel::namespace;
use crate::kernel::sysctl::{self, Missing};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Ok,
    Warning,
    /// With the exit status that it calls for.
    Error(Exit),
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error(_) => "error",
        }
    }
}

/// One thing looked at.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    object: String,
    found: String,
    /// What to do about it; empty where nothing is to be done, or where `found` says it.
    advice: &'static str,
}

impl Finding {
    fn ok(object: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            object: object.into(),
            found: found.into(),
            advice: "",
        }
    }

    fn warning(object: impl Into<String>, found: impl Into<String>, advice: &'static str) -> Self {
        Self {
            verdict: Verdict::Warning,
            advice,
            ..Self::ok(object, found)
        }
    }

    fn error(
        exit: Exit,
        object: impl Into<String>,
        found: impl Into<String>,
        advice: &'static str,
    ) -> Self {
        Self {
            verdict: Verdict::Error(exit),
            advice,
            ..Self::ok(object, found)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<7} {}: {}",
            self.verdict.name(),
            self.object,
            self.found
        )?;
        if !self.advice.is_empty() {
            write!(f, ": {}", self.advice)?;
        }
        Ok(())
    }
}

/// How to look, and to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Whether a warning is as bad as something unavailable.
    pub strict: bool,
    pub json: bool,
}

/// Checks everything, prints it, and says in the exit status what is worst: a wrong configuration, a missing
/// permission, then what is unavailable. Warnings fail only when asked for.
///
/// # Errors
/// When `out` cannot be written to.
pub(super) fn run(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    form: Form,
    out: &mut impl Write,
) -> io::Result<Exit> {
    let findings = match Config::load(file, environment) {
        Ok(loaded) => findings(&loaded, file),
        Err(error) => error.0.into_iter().map(mistake).collect(),
    };
    if form.json {
        print_json(&findings, out)?;
    } else {
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
    }
    Ok(worst(&findings, form.strict))
}

/// `file` is the configuration as it was asked for.
fn findings(loaded: &Loaded, file: Option<&Path>) -> Vec<Finding> {
    let config = &loaded.config;
    let mut findings = vec![match &loaded.file {
        Some(file) => Finding::ok("configuration", file.display().to_string()),
        None => Finding::ok("configuration", "no file, the built-in defaults hold"),
    }];
    findings.extend(
        loaded
            .warnings
            .iter()
            .map(|warning| Finding::warning(&warning.origin, &warning.message, "")),
    );
    let rights = Rights::of_service(loaded.file.as_deref());
    findings.push(rights.finding());
    findings.push(files::state_directory(&config.pending.database, &rights));
    findings.extend(files::database(&config.pending.database, &rights));
    findings.extend(permissions(&config.capture));
    findings.extend(kernel_settings(&config.capture));
    findings.extend(config.collectors.iter().enumerate().map(collector));
    let copies = config.syslog.iter().enumerate();
    findings.extend(copies.map(|copy| syslog(copy, &rights)));
    findings.extend(control::look(config.control.socket.as_deref(), file));
    findings
}

fn mistake(problem: Problem) -> Finding {
    let object = if problem.key.is_empty() {
        problem.origin
    } else {
        format!("{}: {}", problem.origin, problem.key)
    };
    Finding::error(Exit::Config, object, problem.message, "")
}

fn worst(findings: &[Finding], strict: bool) -> Exit {
    let has = |exit| {
        let error = Verdict::Error(exit);
        findings.iter().any(|finding| finding.verdict == error)
    };
    [
        Exit::Config,
        Exit::NoPermission,
        Exit::Unavailable,
        Exit::Os,
    ]
    .into_iter()
    .find(|exit| has(*exit))
    .unwrap_or_else(|| {
        let warned = |finding: &Finding| finding.verdict == Verdict::Warning;
        if strict && findings.iter().any(warned) {
            Exit::Unavailable
        } else {
            Exit::Success
        }
    })
}

fn print_json(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let array: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "verdict": finding.verdict.name(),
                "object": finding.object,
                "finding": finding.found,
                "advice": finding.advice,
            })
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &array)?;
    writeln!(out)
}

fn permissions(capture: &Capture) -> Vec<Finding> {
    let effective = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(error) => {
            let found = format!("expected to be readable, found: {error}");
            return vec![Finding::error(Exit::Os, "capabilities", found, "")];
        }
    };
    let mut findings = vec![capability(
        effective.contains(CapabilitySet::NET_ADMIN),
        "CAP_NET_ADMIN",
        "to read conntrack events and to keep its nftables table",
    )];
    if capture.namespace.is_some() {
        findings.push(capability(
            effective.contains(CapabilitySet::SYS_ADMIN),
            "CAP_SYS_ADMIN",
            "to enter capture.namespace",
        ));
    }
    findings
}

fn capability(effective: bool, name: &str, purpose: &str) -> Finding {
    if effective {
        return Finding::ok(name, "effective");
    }
    let found = format!("expected to be effective {purpose}, found missing");
    let advice = "run nattrail as root, or with AmbientCapabilities= in its unit";
    Finding::error(Exit::NoPermission, name, found, advice)
}

fn kernel_settings(capture: &Capture) -> Vec<Finding> {
    let directory = Path::new(sysctl::DIRECTORY);
    let inspected = namespace::within(capture.namespace.as_ref(), || sysctl::inspect(directory));
    let object = "kernel settings";
    match inspected {
        Ok(Ok(found)) if found.is_empty() => {
            vec![Finding::ok(
                object,
                "nf_conntrack_events, _timestamp and _acct are 1",
            )]
        }
        Ok(Ok(found)) => found
            .iter()
            .map(|finding| setting(*finding, capture.set_sysctls))
            .collect(),
        Ok(Err(error)) => {
            let found = format!("expected to be readable, found: {error}");
            vec![Finding::error(Exit::Os, object, found, "")]
        }
        Err(error) => {
            let (exit, advice) = match error.kind() {
                io::ErrorKind::PermissionDenied => (
                    Exit::NoPermission,
                    "entering a namespace needs CAP_SYS_ADMIN",
                ),
                _ => (
                    Exit::Unavailable,
                    "create it before nattrail starts, or change capture.namespace",
                ),
            };
            vec![Finding::error(exit, object, error.to_string(), advice)]
        }
    }
}

fn setting(finding: sysctl::Finding, set_at_start: bool) -> Finding {
    let object = "kernel settings";
    let found = finding.to_string();
    let advice = "set it with sysctl -w and in /etc/sysctl.d, or let nattrail do so with capture.set-sysctls";
    match finding.missing {
        Missing::Tracking => {
            let advice =
                "nattrail loads it at its start, the settings then have the kernel's defaults";
            Finding::warning(object, found, advice)
        }
        _ if set_at_start => {
            Finding::ok(object, format!("{}: set at start", finding.setting.name()))
        }
        Missing::AllEvents => Finding::error(Exit::Unavailable, object, found, advice),
        _ => Finding::warning(object, found, advice),
    }
}

fn collector((index, collector): (usize, &Collector)) -> Finding {
    let object = format!("collector[{index}] {}", collector.address);
    route(object, collector.source, collector.address)
}

/// Connecting a UDP socket sends nothing, but finds the route and the local address.
fn route(object: String, source: Option<SocketAddr>, address: SocketAddr) -> Finding {
    let any: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let source = source.unwrap_or(any);
    let socket = match UdpSocket::bind(source) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let found = format!("expected {source} to be free to send from, found it in use");
            let advice = "well if a running nattrail has it, otherwise change source";
            return Finding::warning(object, found, advice);
        }
        Err(error) => {
            let found = format!("expected to send from {source}, found: {error}");
            let advice = "give it to an interface of this machine, or change source";
            return Finding::error(Exit::Unavailable, object, found, advice);
        }
    };
    match socket.connect(address).and_then(|()| socket.local_addr()) {
        Ok(local) => Finding::ok(
            object,
            // UDP: nothing tells whether somebody listens there.
            format!("there is a route, from {}", local.ip()),
        ),
        Err(error) => {
            let found = format!("expected a route, found: {error}");
            let advice = "add a route or an interface, or change address";
            Finding::error(Exit::Unavailable, object, found, advice)
        }
    }
}

fn syslog((index, syslog): (usize, &Syslog), rights: &Rights) -> Finding {
    let object = |what: &str| format!("syslog[{index}] {what}");
    match &syslog.target {
        Target::Stdout => Finding::ok(object("stdout"), "always there"),
        Target::Udp { address } => route(object(&address.to_string()), None, *address),
        Target::Local { path } => {
            let advice = "start a syslog daemon that listens there, or change path";
            socket(object(&path.display().to_string()), path, advice)
        }
        Target::Journal { path } => {
            let advice = "start systemd-journald, or change path";
            socket(object(&path.display().to_string()), path, advice)
        }
        Target::File { path } => files::log_file(object(&path.display().to_string()), path, rights),
    }
}

fn socket(object: String, path: &Path, advice: &'static str) -> Finding {
    let connected = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    match connected {
        Ok(()) => Finding::ok(object, "somebody listens"),
        Err(error) => {
            let exit = match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::NoPermission,
                _ => Exit::Unavailable,
            };
            let found = format!("expected a socket on which somebody listens, found: {error}");
            Finding::error(exit, object, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn error(finding: &Finding) -> Option<Exit> {
        match finding.verdict {
            Verdict::Error(exit) => Some(exit),
            Verdict::Ok | Verdict::Warning => None,
        }
    }

    #[test]
    fn the_worst_finding_decides_the_exit_status() {
        let finding = |exit| Finding::error(exit, "a", "b", "");
        let warning = [Finding::warning("a", "b", "")];
        assert_eq!(worst(&warning, false), Exit::Success);
        assert_eq!(worst(&warning, true), Exit::Unavailable);
        assert_eq!(worst(&[Finding::ok("a", "b")], true), Exit::Success);
        let both = [finding(Exit::Unavailable), finding(Exit::NoPermission)];
        assert_eq!(worst(&both, true), Exit::NoPermission);
    }

    #[test]
    fn a_socket_needs_a_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let missing = socket("log".to_owned(), &path, "");
        assert_eq!(error(&missing), Some(Exit::Unavailable));
        let listener = UnixDatagram::bind(&path).unwrap();
        assert_eq!(socket("log".to_owned(), &path, "").verdict, Verdict::Ok);
        drop(listener);
        let stale = socket("log".to_owned(), &path, "");
        assert_eq!(error(&stale), Some(Exit::Unavailable));
    }

    #[test]
    fn a_route_says_the_local_address() {
        let finding = route("a".to_owned(), None, "127.0.0.1:2055".parse().unwrap());
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
        let finding = route("a".to_owned(), foreign, target);
        assert_eq!(error(&finding), Some(Exit::Unavailable));
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let finding = route("a".to_owned(), taken.local_addr().ok(), target);
        assert_eq!(finding.verdict, Verdict::Warning);
    }

    #[test]
    fn settings_that_are_set_at_start_are_well() {
        let finding = sysctl::Finding {
            setting: sysctl::Setting::Events,
            value: Some(0),
            missing: Missing::AllEvents,
        };
        assert_eq!(setting(finding, true).verdict, Verdict::Ok);
        assert_eq!(error(&setting(finding, false)), Some(Exit::Unavailable));
    }
}
