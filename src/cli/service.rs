//! `nattrail start | stop | restart | reload | install`: the service, with the commands that users of nfflowd know.
//!
//! Where systemd runs, these are systemctl's commands, elsewhere those of the init script; their output is shown, and
//! their exit status handed on. Only the configuration is checked here, before anything else: a running service is not
//! stopped for a wrong one.

use std::io::{self, Write as _};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::check::rights::{READ_ADVICE, Rights};
use super::{Exit, Failure, Origin, tell};
use crate::config::{Config, Loaded, Target, values};

/// Exists while systemd is the init of this machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

const SCRIPT: &str = "/etc/init.d/nattrail";

/// The longest name that fits into the names of a unit and of a directory.
const LONGEST_NAME: usize = 64;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Start the service, by systemctl where systemd runs, else by the init script, and wait until it is ready
    Start,
    /// Stop the service, and wait until it has ended
    Stop,
    /// Stop the service if it runs, and start it
    Restart,
    /// Let the running service read its configuration again and reopen its files
    Reload,
    /// Start the service now and whenever the machine starts
    Install,
}

impl Action {
    /// Its name for systemctl, and the message when it is done.
    const fn parts(&self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("start", "started"),
            Self::Stop => ("stop", "stopped"),
            Self::Restart => ("restart", "restarted"),
            Self::Reload => (
                "reload",
                "reads its configuration again; its log names the keys that take a restart",
            ),
            Self::Install => (
                "enable",
                "started; from now on it also starts with the machine",
            ),
        }
    }
}

/// Does the action and reports the result. The exit status is ours, or that of systemctl or of the script.
pub(super) fn run(action: &Action, origin: &Origin) -> ExitCode {
    attempt(action, origin)
        .unwrap_or_else(|failure| {
            tell("error", &failure.message);
            failure.exit as u8
        })
        .into()
}

fn attempt(action: &Action, origin: &Origin) -> Result<u8, Failure> {
    let (verb, done) = action.parts();
    let instance = origin.instance.as_deref();
    let name = instance.map_or("nattrail".to_owned(), |name| format!("nattrail@{name}"));
    if let Some(option) = &origin.config {
        let message = format!(
            "--config {}: the service {name} has the configuration that its unit or {SCRIPT} names: change that one, or use \
             --instance",
            option.display()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let systemd = Path::new(BOOTED).is_dir();
    if !systemd && verb == "enable" && instance.is_some() {
        let message = format!(
            "{SCRIPT} starts the main instance only: use a separate script to run \"nattrail start\" for {name}"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    if verb != "stop" {
        check(instance, systemd)?;
    }
    let unit = format!("{name}.service");
    let log = match systemd {
        true => format!("\"journalctl -u {unit}\""),
        false => "its log in syslog".to_owned(),
    };
    let mut commands = commands(verb, instance, &unit, systemd).into_iter();
    let failed = commands.find_map(|words| call(&words, &log));
    if failed.is_none() {
        // With the standard output gone, nobody is left to be told.
        let _ = writeln!(io::stdout(), "{name}: {done}");
    }
    Ok(failed.unwrap_or(Exit::Success as u8))
}

/// The faults of the service's configuration. The caller's environment, which is not that of the service, does not count.
fn check(instance: Option<&str>, systemd: bool) -> Result<(), Failure> {
    let Loaded { config, file, .. } = Config::load(instance.map(file).as_deref(), iter::empty())?;
    if let Some(file) = file.filter(|_| systemd) {
        let readable = Rights::of_service(Some(&file)).may_read(&file);
        readable.map_err(|found| {
            let message = format!("configuration {}: {found}: {READ_ADVICE}", file.display());
            Failure::new(Exit::NoPermission, message)
        })?;
    }
    let absent = |target: &Target| matches!(target, Target::Journal { path } if !path.exists());
    let mut targets = config.syslog.iter().map(|syslog| &syslog.target);
    if !systemd && config.collectors.is_empty() && targets.all(absent) {
        let message = "every record would be lost, as there is no journal and no other output: use target = \
                       \"local\" without systemd, or add a [[collector]]";
        return Err(Failure::new(Exit::Config, message));
    }
    Ok(())
}

fn commands<'a>(
    verb: &'a str,
    instance: Option<&'a str>,
    unit: &'a str,
    systemd: bool,
) -> Vec<Vec<&'a str>> {
    match (systemd, verb) {
        (true, "enable") => vec![vec!["systemctl", verb, "--now", unit]],
        (true, _) => vec![vec!["systemctl", verb, unit]],
        (false, "enable") => vec![
            vec!["update-rc.d", "nattrail", "defaults"],
            vec![SCRIPT, "start"],
        ],
        (false, _) => vec![[SCRIPT, verb].into_iter().chain(instance).collect()],
    }
}

/// Runs the command; returns its exit status if it fails.
fn call(words: &[&str], log: &str) -> Option<u8> {
    let mut command = Command::new(words[0]);
    if words[0] == SCRIPT {
        // As service(8) does: the caller must not influence the daemon.
        command.env_clear();
    }
    let program = words.join(" ");
    let (code, message) = match command.args(&words[1..]).status() {
        Ok(status) if status.success() => return None,
        Ok(status) => {
            let message = format!("{program}: {status}; {log} and \"nattrail check\" may say why");
            (status.code(), message)
        }
        Err(error) => {
            let advice = "the package installs the service; send a daemon that was started by hand SIGHUP to read its \
                          configuration again, and SIGTERM to stop";
            (None, format!("{program}: {error}: {advice}"))
        }
    };
    tell("error", &message);
    let code = code.and_then(|code| u8::try_from(code).ok());
    Some(code.unwrap_or(Exit::Os as u8))
}

/// The configuration file of an instance.
pub(super) fn file(instance: &str) -> PathBuf {
    format!("/etc/nattrail/{instance}.toml").into()
}

/// A name that a unit and a directory can have.
pub(super) fn instance(text: &str) -> Result<String, String> {
    if text == "nattrail" {
        return Err("expected an instance beside the main one, which needs no option".to_owned());
    }
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    values::named(text, begins, LONGEST_NAME, "_.-").map_err(|_| {
        format!(
            "expected at most {LONGEST_NAME} letters, digits, \"_\", \".\" and \"-\", the first a letter or digit"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_a_name_that_cannot_be_a_path_or_an_option() {
        for name in ["blue", "vrf-7", "a.b_c", "0"] {
            assert_eq!(instance(name).as_deref(), Ok(name));
        }
        for name in [
            "nattrail",
            "",
            "-x",
            ".",
            "..",
            "a/b",
            "a b",
            "a\n",
            &"x".repeat(65),
        ] {
            assert!(instance(name).is_err(), "{name}");
        }
    }
}
