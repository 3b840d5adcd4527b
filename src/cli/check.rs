//! `nattrail check`: whether the daemon would do its work here, one line for each thing it needs.
//!
//! Nothing is changed: no file is made, no packet is sent, no setting is touched.

mod control;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::thread::{CapabilitySet, capabilities};
use serde_json::json;

use super::{Exit, remark, status};
use crate::config::{Capture, Collector, Config, Loaded, Problem, Syslog, Target};
use crate::kernel::namespace;
use crate::kernel::sysctl::{self, Missing};

/// Open connections of everybody behind the gateway are nobody else's business.
const WIDEST_MODE: u32 = 0o750;

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
pub struct Form {
    /// Whether a warning is as bad as something unavailable.
    pub strict: bool,
    pub json: bool,
}

/// Checks everything, prints it, and says in the exit status what is worst: a wrong configuration, a missing
/// permission, then what is unavailable. Warnings fail only when asked for.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    form: Form,
    out: &mut impl Write,
) -> io::Result<Exit> {
    let findings = match Config::load(file, environment) {
        Ok(loaded) => {
            let socket = loaded.config.control.socket.as_deref();
            if let (Some(file), Some(socket)) = (file, socket)
                && let Some(message) = status::find_stranger(socket, file, control::PATIENCE)
            {
                remark(&message);
            }
            findings(&loaded)
        }
        Err(error) => error.problems().into_iter().map(mistake).collect(),
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

fn findings(loaded: &Loaded) -> Vec<Finding> {
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
    findings.push(state_directory(&config.pending.database));
    findings.extend(database(&config.pending.database));
    findings.extend(permissions(&config.capture));
    findings.extend(kernel_settings(&config.capture));
    findings.extend(config.collectors.iter().enumerate().map(collector));
    findings.extend(config.syslog.iter().enumerate().map(syslog));
    findings.push(control::look(config.control.socket.as_deref()));
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

/// The database, if there is one already.
fn database(path: &Path) -> Option<Finding> {
    let object = format!("pending database {}", path.display());
    let metadata = fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() {
        let found = "expected a regular file, found something else";
        let advice = "move it away, or change pending.database";
        return Some(Finding::error(Exit::Unavailable, object, found, advice));
    }
    if let Err(error) = access(path, Access::READ_OK | Access::WRITE_OK) {
        let found = format!("expected to be readable and writable, found: {error}");
        let advice = "give it to the user that runs nattrail (chown)";
        return Some(Finding::error(Exit::NoPermission, object, found, advice));
    }
    Some(Finding::ok(object, "readable and writable"))
}

fn state_directory(database: &Path) -> Finding {
    // The path is absolute, so it has a parent unless it is the root itself.
    let directory = database.parent().unwrap_or(database);
    let object = format!("state directory {}", directory.display());
    let advice =
        "create it for the user that runs nattrail (chown, chmod 0750), or change pending.database";
    match fs::metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => {
            Finding::error(Exit::Unavailable, object, "is not a directory", advice)
        }
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o7777;
            if let Err(error) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
                let found = format!("expected to be writable, found: {error}");
                return Finding::error(Exit::NoPermission, object, found, advice);
            }
            if mode & 0o777 & !WIDEST_MODE != 0 {
                let found = format!("expected mode 0750 or narrower, found {mode:04o}");
                let advice = "others may see that and when there are records: give pending.database a directory of its own";
                return Finding::warning(object, found, advice);
            }
            Finding::ok(object, format!("writable, mode {mode:04o}"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let existing = directory.ancestors().find(|ancestor| ancestor.exists());
            let existing = existing.unwrap_or(Path::new("/"));
            match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) if existing.is_dir() => {
                    Finding::ok(object, "not there yet, made at the first start")
                }
                _ => {
                    let found = format!(
                        "expected to exist or to be made, found {} not writable",
                        existing.display()
                    );
                    Finding::error(Exit::NoPermission, object, found, advice)
                }
            }
        }
        Err(error) => {
            let found = format!("expected to be readable, found: {error}");
            Finding::error(Exit::NoPermission, object, found, advice)
        }
    }
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

fn syslog((index, syslog): (usize, &Syslog)) -> Finding {
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
        Target::File { path } => log_file(object(&path.display().to_string()), path),
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

fn log_file(object: String, path: &Path) -> Finding {
    let refused = |found: String| {
        let advice = "make it writable for the user that runs nattrail, or change path";
        Finding::error(Exit::NoPermission, object.clone(), found, advice)
    };
    if path.is_dir() {
        let advice = "name a file in it";
        let found = "expected a file, found a directory";
        return Finding::error(Exit::Unavailable, object, found, advice);
    }
    if path.exists() {
        return match access(path, Access::WRITE_OK) {
            Ok(()) => Finding::ok(object, "writable"),
            Err(error) => refused(format!("expected to be writable, found: {error}")),
        };
    }
    let directory = path.parent().unwrap_or(path);
    if !directory.is_dir() {
        let found = format!("expected a directory {}, found none", directory.display());
        let advice = "create the directory, or change path";
        return Finding::error(Exit::Unavailable, object, found, advice);
    }
    match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(object, "not there yet, made at the first start"),
        Err(error) => refused(format!(
            "expected a writable directory {}, found: {error}",
            directory.display()
        )),
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
    fn a_state_directory_that_others_can_read_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let verdict = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            state_directory(&directory.path().join("pending.db")).verdict
        };
        assert_eq!(verdict(0o750), Verdict::Ok);
        assert_eq!(verdict(0o755), Verdict::Warning);
    }

    #[test]
    fn a_state_directory_that_can_be_made_is_well() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("a/b/pending.db");
        assert_eq!(state_directory(&database).verdict, Verdict::Ok);
        assert!(!directory.path().join("a").exists());
    }

    #[test]
    fn a_file_in_the_place_of_the_state_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let finding = state_directory(&file.join("pending.db"));
        // The kernel says ENOTDIR where the parent of a path is a file.
        assert!(error(&finding).is_some(), "{finding}");
    }

    #[test]
    fn a_database_that_is_a_directory_is_an_error_and_one_that_is_not_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(database(&directory.path().join("pending.db")).is_none());
        let finding = database(directory.path()).unwrap();
        assert_eq!(error(&finding), Some(Exit::Unavailable));
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
    fn a_log_file_needs_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let look = |name: &str| log_file(name.to_owned(), &directory.path().join(name));
        assert_eq!(look("nat.csv").verdict, Verdict::Ok);
        assert!(!directory.path().join("nat.csv").exists());
        assert_eq!(error(&look("none/nat.csv")), Some(Exit::Unavailable));
        assert_eq!(error(&look("")), Some(Exit::Unavailable));
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
