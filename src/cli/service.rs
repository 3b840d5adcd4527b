//! `nattrail start | stop | restart | reload | install`: the service, as those know it who come from nfflowd.
//!
//! Where systemd runs, these are systemctl's, and its exit status is handed on; elsewhere nattrail is its own daemon, with a
//! lock on its pid file (see [`plain`]).

mod background;
mod pidfile;
mod plain;
mod systemd;

use std::path::{Path, PathBuf};

use super::{Exit, complain};

/// Exists while systemd is the init of this machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// The longest name that makes a unit's name and a directory's.
const LONGEST_NAME: usize = 64;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    Start,
    Stop,
    Restart,
    Reload,
    Install,
}

/// What the command line says of the service.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Another than the main instance: nattrail@NAME, with the configuration /etc/nattrail/NAME.toml
    #[arg(long, value_name = "NAME", value_parser = instance)]
    instance: Option<String>,
    /// Do not ask systemd, even where it runs: be a daemon with a pid file
    #[arg(long)]
    no_systemd: bool,
}

/// The service, by the names of all that is its own.
#[derive(Clone, Debug)]
struct Service {
    instance: Option<String>,
}

impl Service {
    /// `nattrail`, or `nattrail@NAME`.
    fn name(&self) -> String {
        match &self.instance {
            Some(instance) => format!("nattrail@{instance}"),
            None => "nattrail".to_owned(),
        }
    }

    fn unit(&self) -> String {
        format!("{}.service", self.name())
    }

    /// That of an instance; the main one has the default, which need not be there.
    fn configuration(&self) -> Option<PathBuf> {
        let name = self.instance.as_ref()?;
        Some(PathBuf::from(format!("/etc/nattrail/{name}.toml")))
    }
}

/// Does what is asked and says what became of it. The number is an exit status: ours, or that of systemctl.
pub fn run(action: Action, options: Options, option: Option<PathBuf>, file: Option<&Path>) -> u8 {
    let service = Service {
        instance: options.instance,
    };
    if uses_systemd(options.no_systemd, Path::new(BOOTED)) {
        if let Some(option) = option {
            complain(&format!(
                "--config {}: systemd starts {} with the configuration that its unit names; change the unit (systemctl edit), or \
                 use --no-systemd",
                option.display(),
                service.unit()
            ));
            return Exit::Usage as u8;
        }
        return systemd::run(action, &service);
    }
    let file = file.map(Path::to_owned);
    let file = file.or_else(|| service.configuration());
    plain::run(action, &service, file) as u8
}

fn uses_systemd(refused: bool, booted: &Path) -> bool {
    !refused && booted.is_dir()
}

/// A name that a unit and a directory can have.
fn instance(text: &str) -> Result<String, String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && text.len() <= LONGEST_NAME && text.chars().all(inside) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "expected at most {LONGEST_NAME} letters, digits, \"_\", \".\" and \"-\", the first a letter or digit"
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn systemd_is_asked_where_it_runs_and_is_not_refused() {
        let booted = tempfile::tempdir().unwrap();
        let elsewhere = booted.path().join("none");
        assert!(uses_systemd(false, booted.path()));
        assert!(!uses_systemd(true, booted.path()));
        assert!(!uses_systemd(false, &elsewhere));
    }

    #[test]
    fn an_instance_has_a_name_that_cannot_be_a_path_or_an_option() {
        for name in ["blue", "vrf-7", "a.b_c", "0"] {
            assert_eq!(instance(name).as_deref(), Ok(name));
        }
        for name in ["", "-x", ".", "..", "a/b", "a b", "a\n", &"x".repeat(65)] {
            assert!(instance(name).is_err(), "{name}");
        }
    }
}
