//! Loading: a file in one of four formats, the environment on top, all mistakes at once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use config::{FileFormat, Value};

use super::build;
use super::document::Document;
use super::keys::Section;
use super::problem::Problem;
use super::syntax;
use super::tree::every;
use super::{Archive, Capture, Config, Control, Log, Metrics, Pending, Selection};

/// Read when no other file is named, if it exists.
const DEFAULT_FILE: &str = "/etc/nattrail/nattrail.toml";

const MOST_OCTETS: u64 = 1 << 20;

/// The origin of a value in messages when there is no file.
const EMBEDDED: &str = "built-in configuration";

/// A configuration, its origin, and remarks on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// The file; `None` when there is none and the built-in defaults hold.
    pub file: Option<PathBuf>,
    /// None of these prevents the start.
    pub warnings: Vec<Problem>,
}

/// The reason why there is no configuration. Its text has one line for each mistake.
#[derive(Debug)]
pub struct Error(pub Vec<Problem>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Error {}

impl Config {
    /// Reads `path`, or [`DEFAULT_FILE`] if that exists, or else nothing; then puts the variables of `environment` that
    /// begin with `NATTRAIL_` on top. `STATE_DIRECTORY` and `RUNTIME_DIRECTORY`, as systemd sets them, decide where
    /// the database and the control socket are by default.
    ///
    /// # Errors
    /// All mistakes of the file and of the environment, or the first reason why the file cannot be read.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, Error> {
        let file = match path {
            Some(path) => Some(path),
            None => standard_file(Path::new(DEFAULT_FILE))?,
        };
        let (origin, root) = match file {
            Some(file) => (file.display().to_string(), read(file)?),
            None => (EMBEDDED.to_owned(), HashMap::new()),
        };
        let config = assemble(root, &origin, environment).map_err(Error)?;
        let warnings = [file.and_then(mode_warning), flow_warning(&config, &origin)];
        Ok(Loaded {
            config,
            file: file.map(Path::to_path_buf),
            warnings: warnings.into_iter().flatten().collect(),
        })
    }

    /// The configuration as [`load`](Self::load) gives it without a file.
    pub fn of_environment(
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        assemble(HashMap::new(), EMBEDDED, environment).map_err(Error)
    }
}

impl Default for Config {
    /// The configuration without file and environment: NAT events as text on the standard output.
    fn default() -> Self {
        Self::of_environment(std::iter::empty())
            .expect("the table's presets are valid and do not contradict each other")
    }
}

fn assemble(
    root: HashMap<String, Value>,
    origin: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Vec<Problem>> {
    let environment = environment.collect();
    let mut document = Document::new(root, origin);
    document.overlay(&environment);
    let outputs = [Section::Collector, Section::Syslog];
    if outputs
        .iter()
        .all(|&section| document.list(section).is_empty())
    {
        document.entry(Section::Syslog, 0).set("target", "stdout");
    }
    let state = systemd_directory(&environment, "STATE_DIRECTORY", "/var/lib/nattrail");
    let database = format!("{state}/pending.db");
    document
        .single(Section::Pending)
        .set_default("database", database);
    let runtime = systemd_directory(&environment, "RUNTIME_DIRECTORY", "/run/nattrail");
    let socket = format!("{runtime}/control.sock");
    document
        .single(Section::Control)
        .set_default("socket", socket);
    let capture = Capture::take(document.single(Section::Capture));
    let selection = capture.as_ref().map_or(Selection::ANY, Capture::selection);
    let log = Log::take(document.single(Section::Log));
    let collectors = build::collectors(document.list(Section::Collector), &selection, log.as_ref());
    let config = every!(Config {
        capture,
        pending: Pending::take(document.single(Section::Pending)),
        log,
        archive: Archive::take(document.single(Section::Archive)),
        control: Control::take(document.single(Section::Control)),
        metrics: Metrics::take(document.single(Section::Metrics)),
        collectors: Some(collectors),
        syslog: Some(build::syslog(document.list(Section::Syslog), &selection)),
        monitors: Some(build::monitors(document.list(Section::Monitor))),
    });
    if let Some(config) = &config {
        for table in document.list(Section::Syslog) {
            let path = table.entries.get("path").map(Value::to_string);
            let is_it = path.is_some_and(|path| Path::new(&path) == config.pending.database);
            table.refuse_if(is_it, "path", "another file than pending.database");
        }
    }
    let problems = document.into_problems();
    config.filter(|_| problems.is_empty()).ok_or(problems)
}

/// The first directory that systemd names in a variable (systemd.exec(5): several are separated by colons).
fn systemd_directory<'a>(
    environment: &'a BTreeMap<String, String>,
    variable: &str,
    default: &'a str,
) -> &'a str {
    let list = environment.get(variable);
    list.and_then(|list| list.split(':').next())
        .filter(|path| path.starts_with('/'))
        .unwrap_or(default)
}

/// A file that may exist but cannot be examined is a mistake, not a reason to run without it.
fn standard_file(file: &Path) -> Result<Option<&Path>, Error> {
    match file.try_exists() {
        Ok(exists) => Ok(exists.then_some(file)),
        Err(error) => Err(unreadable(file, &error)),
    }
}

fn read(file: &Path) -> Result<HashMap<String, Value>, Error> {
    // This comes first: a mistyped name has no file, and its ending is then beside the point.
    let text = read_text(file).map_err(|error| unreadable(file, &error))?;
    let root = match format_of(file) {
        Some(format) => syntax::parse(format, &text),
        None => Err("expected a name that ends in .toml, .yaml (.yml), .json or .ini".to_owned()),
    };
    // A parser repeats the text as it is, which may hold a terminal's commands.
    root.map_err(|message| Error(vec![about(file, message.replace(char::is_control, " "))]))
}

/// A reload must neither wait for a pipe nor fill the memory.
fn read_text(file: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MOST_OCTETS {
        return Err(io::Error::other("no regular file of at most 1 MiB"));
    }
    io::read_to_string(file.take(MOST_OCTETS))
}

fn unreadable(file: &Path, error: &io::Error) -> Error {
    let message = format!("expected a readable text file, found: {error}");
    let mut problem = about(file, message);
    problem.is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    if problem.is_denied {
        problem.message += ": run as root";
    }
    Error(vec![problem])
}

fn format_of(file: &Path) -> Option<FileFormat> {
    match file.extension()?.to_str()? {
        "toml" => Some(FileFormat::Toml),
        "yaml" | "yml" => Some(FileFormat::Yaml),
        "json" => Some(FileFormat::Json),
        "ini" => Some(FileFormat::Ini),
        _ => None,
    }
}

/// The users who may write the configuration decide what is logged.
fn mode_warning(file: &Path) -> Option<Problem> {
    let mode = file.metadata().ok()?.permissions().mode() & 0o7777;
    let message = format!(
        "expected a file that only its owner can write, found mode {mode:04o}: run chmod go-w on it"
    );
    (mode & 0o022 != 0).then(|| about(file, message))
}

/// Interim flow records are made for nobody.
fn flow_warning(config: &Config, origin: &str) -> Option<Problem> {
    let is_taken = config.collectors.iter().any(|collector| collector.flow)
        || config.syslog.iter().any(|copy| copy.flow);
    (config.capture.active_timeout.is_some() && !is_taken).then(|| {
        let message = "expected a collector or a copy with records \"flow\", found none: nobody gets the flow records";
        Problem::new(origin, "capture.active-timeout", message)
    })
}

fn about(file: &Path, message: String) -> Problem {
    Problem::new(file.display().to_string(), "", message)
}

#[cfg(test)]
mod tests;
