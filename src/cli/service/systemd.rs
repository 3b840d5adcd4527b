//! The service where systemd runs: systemctl(1) does it, and says itself what went wrong.

use std::io::{self, ErrorKind, Write};
use std::iter;
use std::process::Command;

use super::super::{Exit, complain, remark};
use super::{Action, Service};
use crate::config::{self, Config};

/// Runs systemctl and hands on its exit status. What runs is not stopped for a configuration that is wrong: the start
/// would fail, and systemd then discards the event socket that it keeps.
pub fn run(action: Action, service: &Service) -> u8 {
    if matches!(action, Action::Restart | Action::Reload)
        && let Err(mistakes) = check(service)
    {
        complain(&mistakes);
        return Exit::Config as u8;
    }
    let arguments = arguments(action, service);
    let status = match Command::new("systemctl").args(&arguments).status() {
        Ok(status) => status,
        Err(error) => {
            complain(&format!("cannot run systemctl: {error}"));
            return Exit::Os as u8;
        }
    };
    let unit = service.unit();
    if status.success() {
        // Nobody is left to be told when the standard output is gone.
        let _ = writeln!(io::stdout(), "{unit}: {}", done(action));
        return Exit::Success as u8;
    }
    complain(&format!(
        "systemctl {}: {status}; {}",
        arguments.join(" "),
        advice(action, &unit)
    ));
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.unwrap_or(Exit::Os as u8)
}

/// Whether the configuration that the unit names is one. The variables of whoever asks are not those of the unit.
fn check(service: &Service) -> Result<(), String> {
    match Config::load(service.configuration().as_deref(), iter::empty()) {
        Ok(_) => Ok(()),
        // Who may ask systemd need not be allowed to read it.
        Err(config::Error::Unreadable { file, error })
            if error.kind() == ErrorKind::PermissionDenied =>
        {
            remark(&format!(
                "{}: {error}: the configuration is not checked before",
                file.display()
            ));
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn arguments(action: Action, service: &Service) -> Vec<String> {
    let verb: &[&str] = match action {
        Action::Start => &["start"],
        Action::Stop => &["stop"],
        Action::Restart => &["restart"],
        Action::Reload => &["reload"],
        Action::Install => &["enable", "--now"],
    };
    let verb = verb.iter().map(|word| (*word).to_owned());
    verb.chain([service.unit()]).collect()
}

const fn done(action: Action) -> &'static str {
    match action {
        Action::Start => "started",
        Action::Stop => "stopped",
        Action::Restart => "restarted",
        Action::Reload => "has read its configuration again; its log says so if that was wrong",
        Action::Install => "started, also from now on when the machine starts",
    }
}

fn advice(action: Action, unit: &str) -> String {
    match action {
        Action::Install => format!("the package nattrail brings {unit}"),
        _ => format!("\"journalctl -u {unit}\" and \"nattrail check\" may say why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(action: Action, instance: Option<&str>) -> String {
        let instance = instance.map(str::to_owned);
        arguments(action, &Service { instance }).join(" ")
    }

    #[test]
    fn each_command_is_one_of_systemctl() {
        assert_eq!(words(Action::Start, None), "start nattrail.service");
        assert_eq!(words(Action::Stop, None), "stop nattrail.service");
        assert_eq!(words(Action::Restart, None), "restart nattrail.service");
        assert_eq!(words(Action::Reload, None), "reload nattrail.service");
        assert_eq!(
            words(Action::Install, None),
            "enable --now nattrail.service"
        );
    }

    #[test]
    fn an_instance_is_that_of_the_template() {
        assert_eq!(
            words(Action::Start, Some("blue")),
            "start nattrail@blue.service"
        );
    }
}
