//! The settings of connection tracking that decide how complete the records are.
//!
//! `net.netfilter.nf_conntrack_events`, `_timestamp` and `_acct` belong to a network namespace and act on connections
//! made after the setting (Documentation/networking/nf_conntrack-sysctl.rst). Files below `/proc/sys/net` are those of
//! the calling thread's namespace, so the functions must run inside the namespace that they are about.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Where the settings are, in the calling thread's network namespace.
pub(crate) const DIRECTORY: &str = "/proc/sys/net/netfilter";

/// The three settings that the records need.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Setting {
    Events,
    Timestamp,
    Accounting,
}

impl Setting {
    pub(crate) const ALL: [Self; 3] = [Self::Events, Self::Timestamp, Self::Accounting];

    /// The name as sysctl(8) knows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Events => "net.netfilter.nf_conntrack_events",
            Self::Timestamp => "net.netfilter.nf_conntrack_timestamp",
            Self::Accounting => "net.netfilter.nf_conntrack_acct",
        }
    }

    fn file(self) -> &'static str {
        self.name().trim_start_matches("net.netfilter.")
    }
}

/// The cost of a setting that is not 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Missing {
    /// Connection tracking is not loaded: the setting is not there.
    Tracking,
    /// No connection reports anything.
    AllEvents,
    /// Connections made before the daemon listened never report their end (events = 2, "auto", since Linux 5.19).
    EarlierEnds,
    /// Records have the times at which events are read, not those at which they happen.
    Times,
    /// Delete records have no packets and octets.
    Counters,
}

impl Missing {
    const fn consequence(self) -> &'static str {
        match self {
            Self::Tracking => "connection tracking is not loaded, nothing can be logged",
            Self::AllEvents => "connections report nothing, nothing can be logged",
            Self::EarlierEnds => {
                "connections made while nothing listened will never report their end"
            }
            Self::Times => "start and end are the times at which nattrail learns of them",
            Self::Counters => "deletes, triplets and flows have no packets and octets",
        }
    }
}

/// One setting that is not as the records need it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    pub setting: Setting,
    /// The value found; `None` when the setting is not there.
    pub value: Option<u8>,
    pub missing: Missing,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected 1, found ", self.setting.name())?;
        match self.value {
            Some(value) => write!(f, "{value}")?,
            None => f.write_str("nothing")?,
        }
        write!(f, ": {}", self.missing.consequence())
    }
}

/// Every setting below `directory` that is not 1; [`DIRECTORY`] outside of tests. One finding when none is there.
///
/// # Errors
/// When a setting is there and cannot be read, with its name in the message.
pub(crate) fn inspect(directory: &Path) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for setting in Setting::ALL {
        let value = read(directory, setting)?;
        let missing = match (setting, value) {
            (_, Some(1)) => continue,
            (Setting::Events, None) => Missing::Tracking,
            (Setting::Events, Some(0)) => Missing::AllEvents,
            (Setting::Events, Some(_)) => Missing::EarlierEnds,
            (Setting::Timestamp, _) => Missing::Times,
            (Setting::Accounting, _) => Missing::Counters,
        };
        findings.push(Finding {
            setting,
            value,
            missing,
        });
        if missing == Missing::Tracking {
            // The message about events applies to the other two as well.
            break;
        }
    }
    Ok(findings)
}

/// Sets every setting below `directory` that is not 1 to 1. Returns a sentence for each, as an error when the kernel refuses.
pub(crate) fn set(directory: &Path) -> Vec<Result<String, String>> {
    let change = |setting: Setting| {
        let name = setting.name();
        let changed = match read(directory, setting) {
            Ok(Some(1)) => return None,
            Ok(Some(before)) => {
                // This does not create the file: a missing setting is an error.
                let path = directory.join(setting.file());
                let file = fs::OpenOptions::new().write(true).open(path);
                let written = file.and_then(|mut file| io::Write::write_all(&mut file, b"1\n"));
                written.map(|()| format!("{name}: changed from {before} to 1"))
            }
            Ok(None) => Err(io::Error::other("connection tracking is not loaded")),
            Err(error) => Err(error),
        };
        let explain = |error| format!("{name}: expected to set it to 1, found: {error}");
        Some(changed.map_err(explain))
    };
    Setting::ALL.into_iter().filter_map(change).collect()
}

fn read(directory: &Path, setting: Setting) -> io::Result<Option<u8>> {
    let text = match fs::read_to_string(directory.join(setting.file())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text,
    };
    let value = text.and_then(|text| text.trim().parse().map_err(io::Error::other));
    value
        .map(Some)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", setting.name())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn settings(values: [&str; 3]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (setting, value) in Setting::ALL.into_iter().zip(values) {
            fs::write(directory.path().join(setting.file()), format!("{value}\n")).unwrap();
        }
        directory
    }

    fn lines(directory: &Path) -> Vec<String> {
        let findings = inspect(directory).unwrap();
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_said_when_all_are_on() {
        assert!(lines(settings(["1", "1", "1"]).path()).is_empty());
    }

    #[test]
    fn each_setting_that_is_off_says_what_is_missing() {
        let found = lines(settings(["2", "0", "0"]).path());
        assert_eq!(
            found,
            [
                "net.netfilter.nf_conntrack_events: expected 1, found 2: connections made while nothing listened will \
                 never report their end",
                "net.netfilter.nf_conntrack_timestamp: expected 1, found 0: start and end are the times at which \
                 nattrail learns of them",
                "net.netfilter.nf_conntrack_acct: expected 1, found 0: deletes, triplets and flows have no packets \
                 and octets",
            ]
        );
    }

    #[test]
    fn events_that_are_off_are_told_from_events_for_a_listener() {
        let first = |values| inspect(settings(values).path()).unwrap()[0].missing;
        assert_eq!(first(["0", "1", "1"]), Missing::AllEvents);
        assert_eq!(first(["2", "0", "0"]), Missing::EarlierEnds);
    }

    #[test]
    fn absent_settings_mean_that_tracking_is_not_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let findings = inspect(directory.path()).unwrap();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].missing, Missing::Tracking);
        let changes = set(directory.path());
        assert!(changes.iter().all(Result::is_err));
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_setting_that_is_no_number_is_named() {
        let error = inspect(settings(["1", "x", "1"]).path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "net.netfilter.nf_conntrack_timestamp: invalid digit found in string"
        );
    }

    #[test]
    fn set_changes_what_is_off_and_says_so() {
        let directory = settings(["2", "1", "0"]);
        let changes: Vec<_> = set(directory.path())
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            changes,
            [
                "net.netfilter.nf_conntrack_events: changed from 2 to 1",
                "net.netfilter.nf_conntrack_acct: changed from 0 to 1",
            ]
        );
        assert!(lines(directory.path()).is_empty());
    }
}
